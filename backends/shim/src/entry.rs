//! The program's entry: chooses the mode; see the crate's documentation for what each does.
//!
//! Why in the library: tests of the backends need the program and cannot name a binary of
//! another package, so each has it as an example of two lines.
//!
//! Why no argument parser: it is started by programs only, and is to stay small.

use crate::{driver, launch, supervise};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Wrong arguments, as `sysexits.h` has it.
const USAGE: u8 = 64;

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = match collect() {
        Ok(arguments) => arguments,
        Err(argument) => return complain(&format!("argument {argument:?} is not UTF-8"), USAGE),
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["run", dir, incarnation] => supervise::run(Path::new(dir), incarnation, supervise::print),
        ["child"] => return launch::stage(),
        ["--version"] => writeln!(std::io::stdout(), "marram-shim {}", env!("CARGO_PKG_VERSION")),
        // containerd passes nothing but keys and values.
        _ => match driver::Request::from_arguments(&arguments) {
            Ok(request) => driver::drive(&request),
            Err(error) => {
                return complain(&format!("`run DIR INCARNATION`, `child`, or: {error}"), USAGE);
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), 1),
    }
}

fn collect() -> Result<Vec<String>, std::ffi::OsString> {
    std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect()
}

fn complain(what: &str, code: u8) -> ExitCode {
    // Nobody left to tell if this fails.
    drop(writeln!(std::io::stderr(), "marram-shim: {what}"));
    ExitCode::from(code)
}
