//! The `backstitch` program under the name by which the tests of this package find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstitch_api::cli::main()
}
