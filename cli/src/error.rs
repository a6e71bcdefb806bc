//! What can go wrong in a command, and with which exit code it ends.
//!
//! Why one type: every command ends in the same place, which prints the error once and turns it
//! into a code of [`crate::exit`].
//!
//! Invariant: no password and no token gets into an error.

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{EXEC_FAILED, Exit};
use crate::problem::Problem;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line, a file or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// Something did not work out; the text says what.
    #[error("{0}")]
    Failed(String),
    /// Not logged in, not allowed, or not safe.
    #[error("{0}")]
    Refused(String),
    /// Nothing has that name or id.
    #[error("no {kind} is called `{name}`{hint}")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// What was given.
        name: String,
        /// What it may have meant; empty, or a text that starts with `; `.
        hint: String,
    },
    /// A name fits more than one thing.
    #[error("`{name}` fits {} {kind}s; say which:{}", candidates.len(), listed(candidates))]
    Ambiguous {
        /// What was looked for.
        kind: &'static str,
        /// What was given.
        name: String,
        /// Full names and ids of what it fits.
        candidates: Vec<String>,
    },
    /// No server answers.
    #[error("no server answers at {server}: {reason}")]
    Unreachable {
        /// Where one was expected.
        server: String,
        /// What happened instead.
        reason: String,
    },
    /// It took too long.
    #[error("{0}")]
    Timeout(String),
    /// The server's own answer.
    #[error("{0}")]
    Server(Problem),
    /// The file system or the operating system said no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Whoever read our output has enough of it. Not an error to tell anyone.
    #[error("the output was closed")]
    Closed,
    /// A program that `exec` ran ended with this code. Not an error of ours.
    #[error("the program ended with code {0}")]
    Program(u8),
    /// `exec` itself failed.
    #[error("{0}")]
    Exec(Box<Error>),
}

/// How many candidates are listed before the rest is only counted: what a screen shows.
const CANDIDATES_MAX: usize = 20;

fn listed(candidates: &[String]) -> String {
    let mut text = String::new();
    for candidate in candidates.iter().take(CANDIDATES_MAX) {
        text.push_str("\n  ");
        text.push_str(candidate);
    }
    if candidates.len() > CANDIDATES_MAX {
        text.push_str(&format!("\n  and {} more", candidates.len() - CANDIDATES_MAX));
    }
    text
}

impl Error {
    /// An operation on a file that failed.
    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { doing, path: path.as_ref().to_owned(), source }
    }

    /// The code the process ends with.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Program(code) => *code,
            Self::Exec(_) => EXEC_FAILED,
            _ => self.exit().code(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Closed => Exit::Done,
            Self::Failed(_) | Self::Io { .. } | Self::Program(_) | Self::Exec(_) => Exit::Failed,
            Self::Usage(_) | Self::Ambiguous { .. } => Exit::Usage,
            Self::Refused(_) => Exit::Refused,
            Self::NotFound { .. } => Exit::NotFound,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Timeout(_) => Exit::Timeout,
            Self::Server(problem) => match problem.status {
                401 | 403 | 429 => Exit::Refused,
                404 | 410 => Exit::NotFound,
                408 | 504 => Exit::Timeout,
                400..=499 => Exit::Invalid,
                502 => Exit::Unreachable,
                _ => Exit::Failed,
            },
        }
    }

    /// Whether there is anything to say about it.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Closed | Self::Program(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_server_have_their_codes() {
        let of = |status| Error::Server(Problem { status, ..Problem::default() }).code();
        assert_eq!([of(401), of(403), of(404), of(422), of(413)], [3, 3, 4, 7, 7]);
        assert_eq!([of(500), of(503), of(502), of(504), of(429)], [1, 1, 5, 6, 3]);
    }

    #[test]
    fn ambiguity_lists_a_screenful() {
        let candidates = (0..23).map(|n| format!("a{n}")).collect();
        let error = Error::Ambiguous { kind: "instance", name: "a".into(), candidates };
        let text = error.to_string();
        assert!(text.starts_with("`a` fits 23 instances; say which:\n  a0\n"), "{text}");
        assert!(text.ends_with("\n  a19\n  and 3 more"), "{text}");
        assert_eq!(error.code(), 2);
    }

    #[test]
    fn a_failure_of_exec_is_not_the_programs_code() {
        let error = Error::Exec(Box::new(Error::Failed("x".into())));
        assert_eq!((error.code(), error.is_silent()), (125, false));
        assert_eq!((Error::Program(7).code(), Error::Program(7).is_silent()), (7, true));
    }
}
