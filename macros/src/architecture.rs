use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Error, Expr, ExprForLoop, FnArg, Ident, ItemFn, Lifetime, LitStr, Pat, PathArguments, Result, ReturnType, Safety,
    Signature, Stmt, Token, Type, parse_quote, token,
};

use crate::syntax::{self, is_over_layers, loops_over_layers};
use crate::{carry, jumps, naming};

/// `"Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration", model_types("qwen3_5"), unused("mtp", "visual")`
pub struct Family {
    names: Vec<LitStr>,
    model_types: Vec<LitStr>,
    unused: Vec<LitStr>,
}

impl Parse for Family {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let message = "name the architecture as config.json does: #[architecture(\"LlamaForCausalLM\")]";
        if input.is_empty() {
            return Err(input.error(message));
        }
        let mut family = Family {
            names: Vec::new(),
            model_types: Vec::new(),
            unused: Vec::new(),
        };
        while !input.is_empty() {
            if input.peek(Ident) && input.peek2(token::Paren) {
                let word: Ident = input.parse()?;
                let content;
                syn::parenthesized!(content in input);
                let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?;
                match word.to_string().as_str() {
                    "model_types" => family.model_types.extend(list),
                    "unused" => family.unused.extend(list),
                    _ => {
                        let known = "after its names an architecture has `model_types(\"..\")` and `unused(\"..\")`";
                        return Err(Error::new(word.span(), known));
                    }
                }
            } else {
                let name: LitStr = input.parse().map_err(|error| Error::new(error.span(), message))?;
                family.names.push(name);
            }
            if !input.is_empty() {
                input
                    .parse::<Token![,]>()
                    .map_err(|error| Error::new(error.span(), message))?;
            }
        }
        if family.names.is_empty() {
            return Err(Error::new(Span::call_site(), message));
        }
        match family.names.iter().find(|name| name.value().trim().is_empty()) {
            Some(empty) => Err(Error::new(empty.span(), message)),
            None => Ok(family),
        }
    }
}

pub fn expand(family: Family, mut function: ItemFn) -> Result<TokenStream> {
    let lifetime = Lifetime::new("'g", Span::mixed_site());
    let parameters = check_signature(&mut function.sig, &lifetime)?;
    let carried = check_loops(&function, &parameters.weights)?;

    let builder = Ident::new("__builder", Span::mixed_site());
    naming::name_values(&mut function.block, &builder);
    for statement in &mut function.block.stmts {
        if let Some(layers) = layers_loop(statement) {
            *statement = explicit_loop(layers, &carried);
        }
    }
    let weights = parameters.weights;
    let enter: Stmt = parse_quote!(let #builder = #weights.builder(););
    function.block.stmts.insert(0, enter);

    let (outer, inner): (Vec<_>, Vec<_>) = (function.attrs.into_iter())
        .partition(|attribute| ["doc", "cfg"].iter().any(|name| attribute.path().is_ident(name)));
    let (visibility, signature, block) = (function.vis, function.sig, function.block);
    let (name, config) = (&signature.ident, parameters.config);
    let Family {
        names,
        model_types,
        unused,
    } = family;
    let model_types = (!model_types.is_empty()).then(|| quote!(.of_types(&[#(#model_types),*])));
    let unused = (!unused.is_empty()).then(|| quote!(.without(&[#(#unused),*])));
    Ok(quote! {
        #(#outer)*
        #visibility fn #name() -> ::kiln_compiler::dsl::Architecture {
            #(#inner)*
            #signature #block
            ::kiln_compiler::dsl::Architecture::new::<#config>(&[#(#names),*], #name) #model_types #unused
        }
    })
}

struct Parameters {
    config: Type,
    weights: Ident,
}

/// Checks the form of the signature and writes out the lifetimes that it leaves away.
fn check_signature(signature: &mut Signature, lifetime: &Lifetime) -> Result<Parameters> {
    const FORM: &str = "a definition has the form fn(c: &Config, w: Weights, tokens: Tokens) -> Logits";
    let wrong = |span: Span| Error::new(span, FORM);
    if let Some(asyncness) = signature.asyncness {
        return Err(wrong(asyncness.span));
    }
    if let Some(constness) = signature.constness {
        return Err(wrong(constness.span));
    }
    if !matches!(signature.safety, Safety::Default) {
        return Err(wrong(signature.safety.span()));
    }
    if !signature.generics.params.is_empty() {
        return Err(wrong(signature.generics.span()));
    }
    let everything = signature.paren_token.span.join();
    let mut inputs = signature.inputs.iter_mut();
    let mut next = || match inputs.next() {
        Some(FnArg::Typed(parameter)) => Ok(parameter),
        _ => Err(wrong(everything)),
    };
    let (config, weights, tokens) = (next()?, next()?, next()?);
    if inputs.next().is_some() {
        return Err(wrong(everything));
    }
    let Type::Reference(config) = &*config.ty else {
        return Err(wrong(config.ty.span()));
    };
    let config = (*config.elem).clone();
    let Pat::Ident(name) = &*weights.pat else {
        return Err(wrong(weights.pat.span()));
    };
    let name = name.ident.clone();
    let ReturnType::Type(_, output) = &mut signature.output else {
        return Err(wrong(signature.ident.span()));
    };
    for (ty, expected) in [
        (&mut weights.ty, "Weights"),
        (&mut tokens.ty, "Tokens"),
        (output, "Logits"),
    ] {
        add_lifetime(ty, expected, lifetime).ok_or_else(|| wrong(ty.span()))?;
    }
    signature.generics.params.push(parse_quote!(#lifetime));
    signature.generics.lt_token = Some(Token![<](Span::mixed_site()));
    signature.generics.gt_token = Some(Token![>](Span::mixed_site()));
    Ok(Parameters { config, weights: name })
}

/// Makes `Weights` `Weights<'g>`; `None` if it is another type.
fn add_lifetime(ty: &mut Type, expected: &str, lifetime: &Lifetime) -> Option<()> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path.path.segments.last_mut().filter(|last| last.ident == expected)?;
    if last.arguments.is_empty() {
        last.arguments = PathArguments::AngleBracketed(parse_quote!(<#lifetime>));
    }
    Some(())
}

/// Checks that there is one loop over the layers, at the top; gives the variable that it carries.
fn check_loops(function: &ItemFn, weights: &Ident) -> Result<Ident> {
    let statements = &function.block.stmts;
    let top: Vec<(usize, &ExprForLoop)> = (statements.iter().enumerate())
        .filter_map(|(place, statement)| Some((place, layers_loop(statement)?)))
        .collect();
    if let Some(nested) = loops_over_layers(&function.block)
        .into_iter()
        .find(|each| !top.iter().any(|(_, known)| std::ptr::eq(*known, *each)))
    {
        let message = "the loop over the layers must stand at the top of the definition";
        return Err(Error::new(nested.for_token.span, message));
    }
    if let Some(stray) = syntax::stray_layers(&function.block, weights) {
        let which = &stray.method;
        let message = match &stray.adapter {
            Some(adapter) => format!(
                "the loop goes over the layers as they are, without `.{adapter}(..)`: its body runs once for each kind \
                 of layer, not once for each layer; write `for layer in {weights}.{which}(..) {{ .. }}`"
            ),
            None => format!("the loop takes the layers directly: `for layer in {weights}.{which}(..) {{ .. }}`"),
        };
        return Err(Error::new(stray.span, message));
    }
    match top[..] {
        [] => {
            let message = "a definition needs a loop over its layers: for layer in w.layers(..) { .. }";
            Err(Error::new(function.sig.ident.span(), message))
        }
        [(place, each)] => {
            let before = &statements[..place];
            jumps::check_prologue(before)?;
            jumps::check_body(&each.body)?;
            carry::carried(&each.body, each.for_token.span, before)
        }
        [_, (_, second), ..] => {
            let message = "a definition has one loop over layers; give the layers kinds instead: \
                           for layer in w.layers_of(path, &kinds) { .. }";
            Err(Error::new(second.for_token.span, message))
        }
    }
}

fn layers_loop(statement: &Stmt) -> Option<&ExprForLoop> {
    match statement {
        Stmt::Expr(Expr::ForLoop(each), _) if is_over_layers(each) => Some(each),
        _ => None,
    }
}

/// See `kiln_compiler::dsl::Stack`.
fn explicit_loop(each: &ExprForLoop, carried: &Ident) -> Stmt {
    let ExprForLoop {
        attrs, pat, expr, body, ..
    } = each;
    let hidden = |name| Ident::new(name, Span::mixed_site().located_at(carried.span()));
    let (stack, input) = (hidden("stack"), hidden("input"));
    // What may be wrong carries the author's spans.
    let enter = quote_spanned!(each.for_token.span=> .enter(#carried));
    let assign = quote_spanned!(carried.span()=> #carried = #input);
    let output = quote_spanned!(carried.span()=> #stack.output(#carried));
    let leave = quote_spanned!(carried.span()=> #carried = #stack.leave());
    parse_quote! {
        #(#attrs)* {
            let mut #stack = #expr #enter;
            while let ::core::option::Option::Some((#pat, #input)) = #stack.next_template() {
                #assign;
                #body
                #output;
            }
            #leave;
        }
    }
}
