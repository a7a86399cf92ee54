use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseBuffer, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Expr, Field, Fields, Ident, LitStr, Result, Token, token};

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.ident.span(), "a config is a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(input.ident.span(), "a config is a struct with named fields"));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new(input.ident.span(), "a config has no generic parameters"));
    }
    let reader = Ident::new("reader", Span::mixed_site());
    let Family {
        refused,
        ignored,
        expected,
        assumed,
    } = Family::of(&input)?;
    let mut reads = Vec::new();
    reads.extend(refused.iter().map(|key| quote!(#reader.refuse(#key)?;)));
    reads.extend(ignored.iter().map(|key| quote!(#reader.ignore(#key);)));
    for Pair { key, value } in &expected {
        reads.push(quote!(#reader.expect(#key, ::kiln_compiler::config::json!(#value))?;));
    }
    let mut conventions = Vec::new();
    for Pair { key, value } in &assumed {
        conventions.push(quote!(conventions.assume(#key, ::kiln_compiler::config::json!(#value));));
    }
    let mut names = Vec::new();
    for field in &fields.named {
        let Some(name) = &field.ident else { continue };
        let (options, ty, symbol) = (Options::of(field)?, &field.ty, name.to_string());
        names.push(name);
        if options.flatten {
            reads.push(quote_spanned! {ty.span()=>
                let #name = <#ty as ::kiln_compiler::config::Config>::read(#reader)?;
            });
            conventions.push(quote_spanned! {ty.span()=>
                conventions.join(<#ty as ::kiln_compiler::config::Config>::conventions());
            });
            continue;
        }
        let own = options.rename.unwrap_or(symbol.clone());
        if let Some(alias) = options.alias {
            conventions.push(quote!(conventions.alias(#alias, #own);));
        }
        reads.push(match options.default {
            Some(default) => {
                // What does not fit the field's type is the author's expression.
                let otherwise = quote_spanned!(default.span()=> || -> #ty { #default });
                quote_spanned! {ty.span()=>
                    #[allow(clippy::redundant_closure)]
                    let #name: #ty = #reader.field_or(#own, #symbol, #otherwise)?;
                }
            }
            None => quote_spanned!(ty.span()=> let #name: #ty = #reader.field(#own, #symbol)?;),
        });
    }
    let config = &input.ident;
    Ok(quote! {
        impl ::kiln_compiler::config::Config for #config {
            fn read(
                #reader: &::kiln_compiler::config::Reader<'_>,
            ) -> ::core::result::Result<Self, ::kiln_compiler::config::ConfigError> {
                #(#reads)*
                ::core::result::Result::Ok(Self { #(#names),* })
            }

            fn conventions() -> ::kiln_compiler::config::Conventions {
                #[allow(unused_mut)]
                let mut conventions = ::kiln_compiler::config::Conventions::default();
                #(#conventions)*
                conventions
            }
        }
    })
}

/// What stands on the struct: `#[config(refuse("key"), ignore("key"), expect(key = VALUE), assume(key = VALUE))]`.
#[derive(Default)]
struct Family {
    refused: Vec<LitStr>,
    ignored: Vec<LitStr>,
    expected: Vec<Pair>,
    assumed: Vec<Pair>,
}

impl Family {
    fn of(input: &DeriveInput) -> Result<Self> {
        let mut family = Family::default();
        for attribute in input.attrs.iter().filter(|a| a.path().is_ident("config")) {
            attribute.parse_nested_meta(|meta| {
                let content;
                let keys = |content: &ParseBuffer<'_>| Punctuated::<LitStr, Token![,]>::parse_terminated(content);
                let pairs = |content: &ParseBuffer<'_>| Punctuated::<Pair, Token![,]>::parse_terminated(content);
                if meta.path.is_ident("refuse") {
                    syn::parenthesized!(content in meta.input);
                    family.refused.extend(keys(&content)?);
                } else if meta.path.is_ident("ignore") {
                    syn::parenthesized!(content in meta.input);
                    family.ignored.extend(keys(&content)?);
                } else if meta.path.is_ident("expect") {
                    syn::parenthesized!(content in meta.input);
                    family.expected.extend(pairs(&content)?);
                } else if meta.path.is_ident("assume") {
                    syn::parenthesized!(content in meta.input);
                    family.assumed.extend(pairs(&content)?);
                } else {
                    return Err(meta.error(
                        "expected `refuse(\"key\")`, `ignore(\"key\")`, `expect(key = VALUE)` or `assume(key = VALUE)`",
                    ));
                }
                Ok(())
            })?;
        }
        Ok(family)
    }
}

/// `key = JSON`, where the key may stand in quotes.
struct Pair {
    key: String,
    value: TokenStream,
}

impl Parse for Pair {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let key = match input.peek(LitStr) {
            true => input.parse::<LitStr>()?.value(),
            false => input.parse::<Ident>()?.to_string(),
        };
        input.parse::<Token![=]>()?;
        let value = match input.peek(token::Brace) || input.peek(token::Bracket) {
            true => input.parse::<TokenTree>()?.into(),
            false => input.parse::<Expr>()?.into_token_stream(),
        };
        Ok(Pair { key, value })
    }
}

/// `#[config(default = .., rename = "..", alias = "..", flatten)]`
#[derive(Default)]
struct Options {
    default: Option<Expr>,
    rename: Option<String>,
    alias: Option<String>,
    flatten: bool,
}

impl Options {
    fn of(field: &Field) -> Result<Self> {
        let mut options = Options::default();
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("config")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("default") {
                    options.default = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("rename") {
                    options.rename = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if meta.path.is_ident("alias") {
                    options.alias = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if meta.path.is_ident("flatten") {
                    options.flatten = true;
                } else {
                    return Err(meta.error("expected `default = ..`, `rename = \"..\"`, `alias = \"..\"` or `flatten`"));
                }
                Ok(())
            })?;
        }
        Ok(options)
    }
}
