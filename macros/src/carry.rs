//! What the body of a loop over layers assigns, and what it must not do.

use std::collections::BTreeSet;

use proc_macro2::Span;
use syn::visit::{self, Visit};
use syn::{
    Arm, Block, Error, Expr, ExprAssign, ExprBinary, ExprClosure, ExprForLoop, ExprLet, ExprLoop, ExprReference,
    ExprWhile, Ident, Item, Local, Pat, PatIdent, Result,
};

use crate::syntax::is_assignment;

/// The one outer variable that `body` assigns.
pub fn carried(body: &Block, at: Span) -> Result<Ident> {
    let mut jumps = Jumps::default();
    jumps.visit_block(body);
    if let Some(error) = jumps.error {
        return Err(error);
    }
    let mut assigned = Assigned::default();
    assigned.visit_block(body);
    let mut outer = assigned.outer.into_iter();
    let Some(first) = outer.next() else {
        let message = "the body of the loop over the layers must assign the value that goes from layer \
                       to layer, like `x += ..`";
        return Err(Error::new(at, message));
    };
    match outer.next() {
        None => Ok(first),
        Some(second) => Err(Error::new(
            second.span(),
            format!(
                "only one value goes from layer to layer, and the body assigns `{first}` already; \
                 `{second}` must be a `let` inside of the loop"
            ),
        )),
    }
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

/// Finds `break`, `continue`, `return` and `?` that would leave the body.
#[derive(Default)]
struct Jumps {
    inner_loops: usize,
    error: Option<Error>,
}

impl Jumps {
    fn refuse(&mut self, span: Span, what: &str) {
        let message = format!(
            "`{what}` cannot leave the loop over the layers: its body runs once for each kind of layer, \
             not once for each layer"
        );
        self.error.get_or_insert(Error::new(span, message));
    }

    fn inside(&mut self, visit: impl FnOnce(&mut Self)) {
        self.inner_loops += 1;
        visit(self);
        self.inner_loops -= 1;
    }
}

impl<'a> Visit<'a> for Jumps {
    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Break(jump) if self.inner_loops == 0 => self.refuse(jump.break_token.span, "break"),
            Expr::Continue(jump) if self.inner_loops == 0 => {
                self.refuse(jump.continue_token.span, "continue");
            }
            Expr::Return(jump) => self.refuse(jump.return_token.span, "return"),
            Expr::Try(jump) => self.refuse(jump.question_token.span, "?"),
            _ => visit::visit_expr(self, expr),
        }
    }

    fn visit_expr_for_loop(&mut self, each: &'a ExprForLoop) {
        self.inside(|this| visit::visit_expr_for_loop(this, each));
    }

    fn visit_expr_while(&mut self, each: &'a ExprWhile) {
        self.inside(|this| visit::visit_expr_while(this, each));
    }

    fn visit_expr_loop(&mut self, each: &'a ExprLoop) {
        self.inside(|this| visit::visit_expr_loop(this, each));
    }

    fn visit_expr_closure(&mut self, _: &'a ExprClosure) {}

    fn visit_item(&mut self, _: &'a Item) {}
}
