//! The program `marram-shim`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    marram_shim::entry::main()
}
