//! `kiln-web-bindgen IN.wasm OUT_DIR`: an ES module and the module's WebAssembly. The JavaScript package says where the
//! latter lies, so the module has no default for it (bundlers would look for the file).

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use wasm_bindgen_cli_support::{Bindgen, Output};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: kiln-web-bindgen IN.wasm OUT_DIR");
        return ExitCode::from(2);
    };
    match generate(input, output.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate(input: &str, output: &Path) -> Result<(), Box<dyn Error>> {
    let mut bindgen = Bindgen::new();
    bindgen
        .input_path(input)
        .typescript(true)
        .omit_default_module_path(true)
        .web(true)?;
    let js = output.join(bindgen.stem()?).with_extension("js");
    let mut made = bindgen.generate_output()?;
    let names = shorten_imports(&mut made);
    made.emit(output)?;
    let text = std::fs::read_to_string(&js)?;
    Ok(std::fs::write(&js, rename_imports(text, names)?)?)
}

/// Gives what the module imports short names; wasm-bindgen's have a hash each and stand on both sides, a twentieth of what is
/// downloaded. Returns the names before and after.
fn shorten_imports(made: &mut Output) -> Vec<(String, String)> {
    let imports = made.wasm_mut().imports.iter_mut().enumerate();
    let renamed = imports.map(|(number, import)| {
        let short = format!("i{number}");
        (std::mem::replace(&mut import.name, short.clone()), short)
    });
    renamed.collect()
}

/// The same in the JavaScript, where they are keys of an object.
fn rename_imports(mut js: String, names: Vec<(String, String)>) -> Result<String, Box<dyn Error>> {
    for (long, short) in names {
        let [before, after] = [&long, &short].map(|name| format!("\n        {name}: "));
        if js.matches(&before).count() != 1 {
            return Err(format!(
                "the JavaScript defines {long} not exactly once: wasm-bindgen writes it in another way now"
            )
            .into());
        }
        js = js.replacen(&before, &after, 1);
    }
    Ok(js)
}
