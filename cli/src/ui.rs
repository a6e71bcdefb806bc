//! What reaches the operator: results on standard output, everything else on standard error.
//!
//! Why apart: whether there is a terminal, how wide it is, `--quiet` and a closed pipe are known
//! here once, so that commands only say what they have to say.

use std::io::{ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::error::Error;
use crate::text;

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum Format {
    /// Columns for people, cut to the terminal's width.
    #[default]
    Table,
    /// All columns, not cut.
    Wide,
    /// The server's own objects.
    Json,
}

/// The operator's side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    /// The form of results.
    pub(crate) format: Format,
    /// Whether notes and progress are left out.
    pub(crate) quiet: bool,
}

impl Ui {
    /// Writes a result.
    pub(crate) fn print(&self, text: &str) -> Result<(), Error> {
        self.print_bytes(text.as_bytes())
    }

    /// Writes a result as it is.
    pub(crate) fn print_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Error::Closed,
            _ => Error::io("write to", "standard output", error),
        })
    }

    /// Writes a result as JSON.
    pub(crate) fn print_json(&self, value: &Value) -> Result<(), Error> {
        self.print(&format!("{value:#}\n"))
    }

    /// Says what is going on, unless it is to be quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// Says what went wrong, always.
    pub(crate) fn complain(&self, text: &str) {
        // Nobody is left to be told when standard error is closed.
        writeln!(std::io::stderr().lock(), "{}", text::lines(text)).ok();
    }

    /// Columns that a table may take; `None` where nothing limits it.
    pub(crate) fn table_columns(&self) -> Option<usize> {
        if self.format == Format::Wide { None } else { terminal(std::io::stdout()).map(|t| t.1) }
    }

    /// Rows and columns for lines that are written over; `None` where that cannot be done.
    pub(crate) fn live_area(&self) -> Option<(usize, usize)> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if dumb { None } else { terminal(std::io::stderr()) }
    }
}

/// Rows and columns of a terminal; `None` if it is none or does not say.
fn terminal(stream: impl IsTerminal + std::os::fd::AsFd) -> Option<(usize, usize)> {
    if !stream.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    let (rows, columns) = (usize::from(size.ws_row), usize::from(size.ws_col));
    (rows > 0 && columns > 0).then_some((rows, columns))
}
