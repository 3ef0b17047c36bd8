//! The `backstitch` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstitch_api::cli::main()
}
