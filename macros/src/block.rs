use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Error, FnArg, Ident, ItemFn, Pat, PatType, Result, Stmt, Type, parse_quote};

use crate::naming;

/// Makes a function name its values.
pub fn expand(mut function: ItemFn) -> Result<TokenStream> {
    let inputs = function.sig.inputs.iter();
    let knows_builder = inputs.filter_map(|input| match input {
        FnArg::Typed(parameter) => knows_builder(parameter),
        FnArg::Receiver(_) => None,
    });
    let Some(parameter) = knows_builder.last().cloned() else {
        let message = "a block has a parameter of type Layer, &Layer or Tensor";
        return Err(Error::new(function.sig.ident.span(), message));
    };
    let builder = Ident::new("__builder", Span::mixed_site());
    naming::name_values(&mut function.block, &builder);
    let enter: Stmt = parse_quote!(let #builder = #parameter.builder(););
    function.block.stmts.insert(0, enter);
    Ok(quote!(#function))
}

/// The parameter's name, if it is of a type that has a builder.
fn knows_builder(parameter: &PatType) -> Option<&Ident> {
    let Pat::Ident(name) = &*parameter.pat else {
        return None;
    };
    let of = match &*parameter.ty {
        Type::Reference(reference) => &reference.elem,
        other => other,
    };
    let Type::Path(path) = of else {
        return None;
    };
    let last = path.path.segments.last()?;
    ["Layer", "Tensor"]
        .iter()
        .any(|known| last.ident == known)
        .then_some(&name.ident)
}
