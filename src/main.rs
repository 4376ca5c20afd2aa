//! The `kdev` command: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kdev::cli::main()
}
