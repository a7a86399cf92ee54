//! Forms of an author's code that the macros look for.

use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ExprForLoop};

/// Whether the loop has the form `for layer in w.layers(..)` or `.layers_of(..)`.
pub fn is_over_layers(each: &ExprForLoop) -> bool {
    let Expr::MethodCall(call) = &*each.expr else {
        return false;
    };
    call.method == "layers" || call.method == "layers_of"
}

/// All loops over layers, at any depth.
pub fn loops_over_layers(block: &Block) -> Vec<&ExprForLoop> {
    #[derive(Default)]
    struct Loops<'a>(Vec<&'a ExprForLoop>);
    impl<'a> Visit<'a> for Loops<'a> {
        fn visit_expr_for_loop(&mut self, each: &'a ExprForLoop) {
            if is_over_layers(each) {
                self.0.push(each);
            }
            visit::visit_expr_for_loop(self, each);
        }
    }
    let mut loops = Loops::default();
    loops.visit_block(block);
    loops.0
}

/// `+=` and its like.
pub fn is_assignment(op: &BinOp) -> bool {
    matches!(
        op,
        BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::RemAssign(_)
            | BinOp::BitXorAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::ShlAssign(_)
            | BinOp::ShrAssign(_)
    )
}
