//! What the body of a loop over layers assigns, and what it must not do.

use std::collections::BTreeSet;

use proc_macro2::Span;
use syn::visit::{self, Visit};
use syn::{
    Arm, Block, Error, Expr, ExprAssign, ExprBinary, ExprClosure, ExprForLoop, ExprLet, ExprMethodCall, ExprPath,
    ExprReference, Ident, Item, Local, Pat, PatIdent, Result, Stmt,
};

use crate::syntax::is_assignment;

/// The one outer variable that `body` assigns. `before` is what stands before the loop.
pub fn carried(body: &Block, at: Span, before: &[Stmt]) -> Result<Ident> {
    let mut assigned = Assigned::default();
    assigned.visit_block(body);
    let outer = assigned.outer;
    let Some(carried) = the_carried(&outer, body) else {
        return Err(match shadowed(body, before) {
            Some(name) => shadows(name),
            None => {
                let message = "the body of the loop over the layers must assign the value that goes from layer \
                               to layer, like `x += ..`";
                Error::new(at, message)
            }
        });
    };
    if let Some(other) = outer.iter().find(|other| *other != carried) {
        return Err(Error::new(
            other.span(),
            format!(
                "only one value goes from layer to layer, here `{carried}`; `{other}` must be a `let` inside of the loop"
            ),
        ));
    }
    if let Some(again) = lets(&body.stmts).map(|(name, _)| name).find(|name| *name == carried) {
        return Err(shadows(again));
    }
    if let Some((held, span)) = held(body, before, carried) {
        let message = format!(
            "`{held}` cannot hold anything from one layer for the next: the body of the loop runs once for each kind of \
             layer, not once for each layer; only `{carried}` goes from layer to layer"
        );
        return Err(Error::new(span, message));
    }
    Ok(carried.clone())
}

/// Of several variables that are assigned, the one that the author means to go from layer to layer: it is made of itself,
/// or at least read in the body.
fn the_carried<'a>(assigned: &'a [Ident], body: &Block) -> Option<&'a Ident> {
    let mut reads = Reads::default();
    reads.visit_block(body);
    let unlikely = |name: &&Ident| match name {
        name if reads.of_itself.contains(&name.to_string()) => 0,
        name if reads.all.contains(&name.to_string()) => 1,
        _ => 2,
    };
    // The first of the likeliest.
    assigned.iter().min_by_key(unlikely)
}

fn shadows(name: &Ident) -> Error {
    let message = format!(
        "`let {name}` makes another `{name}`, which ends with the body of the loop; what goes to the next layer is \
         assigned, without `let`: `{name} = ..`"
    );
    Error::new(name.span(), message)
}

/// The name of a `let` in the body that was meant to be an assignment: there is such a variable before the loop, and the new
/// value is made of it.
fn shadowed<'a>(body: &'a Block, before: &[Stmt]) -> Option<&'a Ident> {
    lets(&body.stmts).find_map(|(name, value)| {
        let known = lets(before).any(|(outer, _)| outer == name);
        let mut reads = Reads::default();
        reads.visit_expr(value?);
        (known && reads.all.contains(&name.to_string())).then_some(name)
    })
}

/// A variable besides the carried one that the body changes by its methods, as in `held.push(..)`: it was declared `mut`,
/// and nothing changes it before the loop.
fn held(body: &Block, before: &[Stmt], carried: &Ident) -> Option<(String, Span)> {
    let mut set_before = Assigned::default();
    before.iter().for_each(|statement| set_before.visit_stmt(statement));
    let candidates = (before.iter()).filter_map(|statement| match statement {
        Stmt::Local(Local { pat, .. }) => mutable(pat),
        _ => None,
    });
    let candidates = candidates.filter(|name| *name != carried && !set_before.outer.contains(name));
    candidates.into_iter().find_map(|name| {
        let mut calls = MethodCalls { of: name, first: None };
        before.iter().for_each(|statement| calls.visit_stmt(statement));
        if calls.first.is_some() {
            return None;
        }
        calls.visit_block(body);
        Some((name.to_string(), calls.first?))
    })
}

fn mutable(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(name) if name.mutability.is_some() => Some(&name.ident),
        Pat::Type(typed) => mutable(&typed.pat),
        _ => None,
    }
}

/// Names that statements bind by a plain `let`, and to what.
fn lets(statements: &[Stmt]) -> impl Iterator<Item = (&Ident, Option<&Expr>)> {
    statements.iter().filter_map(|statement| {
        let Stmt::Local(local) = statement else { return None };
        let mut pattern = &local.pat;
        while let Pat::Type(typed) = pattern {
            pattern = &typed.pat;
        }
        let Pat::Ident(name) = pattern else { return None };
        Some((&name.ident, local.init.as_ref().map(|init| &*init.expr)))
    })
}

/// What expressions read.
#[derive(Default)]
struct Reads {
    all: BTreeSet<String>,
    /// Variables that are assigned something made of themselves.
    of_itself: BTreeSet<String>,
}

impl<'a> Visit<'a> for Reads {
    fn visit_expr_path(&mut self, path: &'a ExprPath) {
        self.all.extend(path.path.get_ident().map(Ident::to_string));
    }

    fn visit_expr_assign(&mut self, assignment: &'a ExprAssign) {
        let mut value = Reads::default();
        value.visit_expr(&assignment.right);
        match &*assignment.left {
            Expr::Path(place) => {
                let name = place.path.get_ident().map(Ident::to_string);
                self.of_itself.extend(name.filter(|name| value.all.contains(name)));
            }
            place => self.visit_expr(place),
        }
        self.all.append(&mut value.all);
        self.of_itself.append(&mut value.of_itself);
    }

    fn visit_expr_binary(&mut self, binary: &'a ExprBinary) {
        if is_assignment(&binary.op)
            && let Expr::Path(place) = &*binary.left
        {
            self.of_itself.extend(place.path.get_ident().map(Ident::to_string));
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_item(&mut self, _: &'a Item) {}
}

/// The first call of a method of this variable.
struct MethodCalls<'n> {
    of: &'n Ident,
    first: Option<Span>,
}

impl<'a> Visit<'a> for MethodCalls<'_> {
    fn visit_expr_method_call(&mut self, call: &'a ExprMethodCall) {
        if let Expr::Path(path) = &*call.receiver
            && let Some(name) = path.path.get_ident()
            && name == self.of
        {
            self.first.get_or_insert(name.span());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_item(&mut self, _: &'a Item) {}
}

/// Assignments to variables that are not bound inside.
#[derive(Default)]
struct Assigned {
    scopes: Vec<BTreeSet<String>>,
    /// In the order of their first assignment.
    outer: Vec<Ident>,
}

impl Assigned {
    fn scoped(&mut self, visit: impl FnOnce(&mut Self)) {
        self.scopes.push(BTreeSet::new());
        visit(self);
        self.scopes.pop();
    }

    fn bind(&mut self, pattern: &Pat) {
        struct Names<'a>(&'a mut BTreeSet<String>);
        impl Visit<'_> for Names<'_> {
            fn visit_pat_ident(&mut self, pattern: &PatIdent) {
                self.0.insert(pattern.ident.to_string());
                visit::visit_pat_ident(self, pattern);
            }
        }
        if let Some(scope) = self.scopes.last_mut() {
            Names(scope).visit_pat(pattern);
        }
    }

    /// Notes what an assignment's left side names.
    fn assign(&mut self, place: &Expr) {
        match place {
            Expr::Path(path) => {
                let Some(name) = path.path.get_ident() else {
                    return;
                };
                let bound = self.scopes.iter().any(|scope| scope.contains(&name.to_string()));
                if !bound && !self.outer.contains(name) {
                    self.outer.push(name.clone());
                }
            }
            Expr::Field(field) => self.assign(&field.base),
            Expr::Index(index) => self.assign(&index.expr),
            Expr::Paren(inner) => self.assign(&inner.expr),
            Expr::Unary(inner) => self.assign(&inner.expr),
            Expr::Tuple(tuple) => tuple.elems.iter().for_each(|place| self.assign(place)),
            _ => {}
        }
    }
}

impl<'a> Visit<'a> for Assigned {
    fn visit_block(&mut self, block: &'a Block) {
        self.scoped(|this| visit::visit_block(this, block));
    }

    fn visit_local(&mut self, local: &'a Local) {
        visit::visit_local(self, local);
        self.bind(&local.pat);
    }

    fn visit_arm(&mut self, arm: &'a Arm) {
        self.scoped(|this| {
            this.bind(&arm.pat);
            visit::visit_arm(this, arm);
        });
    }

    fn visit_expr_let(&mut self, expr: &'a ExprLet) {
        visit::visit_expr_let(self, expr);
        self.bind(&expr.pat);
    }

    fn visit_expr_for_loop(&mut self, each: &'a ExprForLoop) {
        self.visit_expr(&each.expr);
        self.scoped(|this| {
            this.bind(&each.pat);
            this.visit_block(&each.body);
        });
    }

    fn visit_expr_closure(&mut self, closure: &'a ExprClosure) {
        self.scoped(|this| {
            closure.inputs.iter().for_each(|input| this.bind(input));
            this.visit_expr(&closure.body);
        });
    }

    fn visit_expr_assign(&mut self, assignment: &'a ExprAssign) {
        self.assign(&assignment.left);
        visit::visit_expr_assign(self, assignment);
    }

    fn visit_expr_binary(&mut self, binary: &'a ExprBinary) {
        if is_assignment(&binary.op) {
            self.assign(&binary.left);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_reference(&mut self, reference: &'a ExprReference) {
        if reference.mutability.is_some() {
            self.assign(&reference.expr);
        }
        visit::visit_expr_reference(self, reference);
    }

    fn visit_item(&mut self, _: &'a Item) {}
}
