//! Forms of an author's code that the macros look for.

use proc_macro2::Span;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ExprForLoop, ExprMethodCall, Ident};

/// Whether the loop has the form `for layer in w.layers(..)` or `.layers_of(..)`.
pub fn is_over_layers(each: &ExprForLoop) -> bool {
    matches!(&*each.expr, Expr::MethodCall(call) if is_layers(call))
}

fn is_layers(call: &ExprMethodCall) -> bool {
    call.method == "layers" || call.method == "layers_of"
}

/// `w.layers(..)` elsewhere than in the head of a loop.
pub struct StrayLayers {
    /// `layers` or `layers_of`.
    pub method: Ident,
    /// The method that is called on them, like `enumerate`.
    pub adapter: Option<Ident>,
    /// Where the author should look.
    pub span: Span,
}

/// The first one in the block; `weights` is the author's name of the weights.
pub fn stray_layers(block: &Block, weights: &Ident) -> Option<StrayLayers> {
    struct Strays<'a> {
        weights: &'a Ident,
        first: Option<StrayLayers>,
    }
    impl Strays<'_> {
        fn note(&mut self, call: &ExprMethodCall, adapter: Option<&Ident>) -> bool {
            let of_weights = matches!(&*call.receiver, Expr::Path(path) if path.path.is_ident(self.weights));
            let is_stray = is_layers(call) && of_weights;
            if is_stray {
                self.first.get_or_insert_with(|| StrayLayers {
                    method: call.method.clone(),
                    adapter: adapter.cloned(),
                    span: adapter.unwrap_or(&call.method).span(),
                });
            }
            is_stray
        }
    }
    impl<'a> Visit<'a> for Strays<'_> {
        fn visit_expr_for_loop(&mut self, each: &'a ExprForLoop) {
            if is_over_layers(each) {
                self.visit_block(&each.body);
            } else {
                visit::visit_expr_for_loop(self, each);
            }
        }

        fn visit_expr_method_call(&mut self, call: &'a ExprMethodCall) {
            let adapted = match &*call.receiver {
                Expr::MethodCall(inner) => self.note(inner, Some(&call.method)),
                _ => false,
            };
            if !adapted && !self.note(call, None) {
                visit::visit_expr_method_call(self, call);
            }
        }
    }
    let mut strays = Strays { weights, first: None };
    strays.visit_block(block);
    strays.first
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
