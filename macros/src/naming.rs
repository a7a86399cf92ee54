//! Keeps the author's names: after `let h = ..;` and `x += ..;` the builder is told the name.

use proc_macro2::Span;
use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, Ident, Item, Pat, Stmt, Token, parse_quote};

use crate::syntax::is_assignment;

pub fn name_values(block: &mut Block, builder: &Ident) {
    Naming { builder }.visit_block_mut(block);
}

struct Naming<'a> {
    builder: &'a Ident,
}

impl VisitMut for Naming<'_> {
    fn visit_block_mut(&mut self, block: &mut Block) {
        visit_mut::visit_block_mut(self, block);
        let builder = self.builder;
        for mut statement in std::mem::take(&mut block.stmts) {
            let Some(name) = bound_name(&statement) else {
                block.stmts.push(statement);
                continue;
            };
            if let Stmt::Expr(_, semicolon) = &mut statement {
                semicolon.get_or_insert(Token![;](Span::mixed_site()));
            }
            let mark = Ident::new("__mark", Span::mixed_site());
            block.stmts.push(parse_quote!(let #mark = #builder.mark();));
            block.stmts.push(statement);
            block.stmts.push(parse_quote!(#builder.bind(#name, #mark);));
        }
    }

    fn visit_item_mut(&mut self, _: &mut Item) {}
}

/// The name in `let name = ..;`, `name = ..;`, `name += ..;`.
fn bound_name(statement: &Stmt) -> Option<String> {
    let place = match statement {
        Stmt::Local(local) if local.init.is_some() => return pattern_name(&local.pat),
        Stmt::Expr(Expr::Assign(assignment), _) => &assignment.left,
        Stmt::Expr(Expr::Binary(binary), _) if is_assignment(&binary.op) => &binary.left,
        _ => return None,
    };
    match &**place {
        Expr::Path(path) if path.path.get_ident().is_some() => Some(path.to_token_stream().to_string()),
        _ => None,
    }
}

fn pattern_name(pattern: &Pat) -> Option<String> {
    match pattern {
        Pat::Ident(name) => Some(name.ident.to_string()),
        Pat::Type(typed) => pattern_name(&typed.pat),
        _ => None,
    }
}
