//! The shim, built with this package's tests because they need the program. The one that is
//! installed is the binary of the package `marram-shim`. Named unlike it, as examples of all
//! packages lie in one folder.

use std::process::ExitCode;

fn main() -> ExitCode {
    marram_shim::entry::main()
}
