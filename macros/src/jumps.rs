//! Jumps that a definition must not have: its loop is no loop when it is traced, and its end is where the logits are.

use syn::visit::{self, Visit};
use syn::{Block, Error, Expr, ExprClosure, ExprForLoop, ExprLoop, ExprWhile, Item, Result, Stmt};

use proc_macro2::Span;

/// `break`, `continue`, `return` and `?` must not leave the body of the loop over the layers.
pub fn check_body(body: &Block) -> Result<()> {
    let mut jumps = Jumps::default();
    jumps.visit_block(body);
    jumps.error.map_or(Ok(()), Err)
}

/// `return` must not stand before the loop over the layers.
pub fn check_prologue(prologue: &[Stmt]) -> Result<()> {
    let mut returns = Returns::default();
    prologue.iter().for_each(|statement| returns.visit_stmt(statement));
    let Some(span) = returns.first else { return Ok(()) };
    let message = "`return` before the loop over the layers: every model of this definition goes through its layers; \
                   choose by the config what enters them, or write a definition of its own";
    Err(Error::new(span, message))
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

/// Finds `return` outside of closures.
#[derive(Default)]
struct Returns {
    first: Option<Span>,
}

impl<'a> Visit<'a> for Returns {
    fn visit_expr(&mut self, expr: &'a Expr) {
        if let Expr::Return(found) = expr {
            self.first.get_or_insert(found.return_token.span);
        }
        visit::visit_expr(self, expr);
    }

    fn visit_expr_closure(&mut self, _: &'a ExprClosure) {}

    fn visit_item(&mut self, _: &'a Item) {}
}
