use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Expr, Field, Fields, Ident, LitStr, Result, Token};

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
    let mut reads = Vec::new();
    for key in refused(&input)? {
        reads.push(quote!(#reader.refuse(#key)?;));
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
            continue;
        }
        let own = options.rename.unwrap_or(symbol.clone());
        let key = match options.alias {
            Some(alias) => quote!(#reader.spelling(&[#alias, #own])),
            None => quote!(#own),
        };
        reads.push(match options.default {
            Some(default) => {
                // What does not fit the field's type is the author's expression.
                let otherwise = quote_spanned!(default.span()=> || -> #ty { #default });
                quote_spanned! {ty.span()=>
                    #[allow(clippy::redundant_closure)]
                    let #name: #ty = #reader.field_or(#key, #symbol, #otherwise)?;
                }
            }
            None => quote_spanned!(ty.span()=> let #name: #ty = #reader.field(#key, #symbol)?;),
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
        }
    })
}

/// The keys of `#[config(refuse("..", ".."))]` on the struct.
fn refused(input: &DeriveInput) -> Result<Vec<LitStr>> {
    let mut keys = Vec::new();
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("config")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("refuse") {
                return Err(meta.error("expected `refuse(\"..\")`"));
            }
            let content;
            syn::parenthesized!(content in meta.input);
            keys.extend(Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?);
            Ok(())
        })?;
    }
    Ok(keys)
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
