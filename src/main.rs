//! The `vestibule` program: a thin shell over the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vestibule::cli::main()
}
