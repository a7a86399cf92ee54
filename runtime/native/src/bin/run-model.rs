fn main() -> std::process::ExitCode {
    kiln_runtime::cli::main()
}
