//! What can go wrong in a backend, sorted by what the engine should do about it.
//!
//! Why a class beside the text: the retry policy looks at [`ErrorKind`] and at nothing
//! else; the text is for people.

use std::fmt;

/// Shorthand for results of backend verbs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The whole input of the retry policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The specification can never work, here or elsewhere: no retry, refused.
    Invalid,
    /// This host cannot do it, another may: no retry here, refused.
    Unsupported,
    /// What the verb needs (image, file, workload) does not exist: slow retry.
    NotFound,
    /// May work the next time: retry with backoff.
    Transient,
    /// The host ran out of something (disk, memory, ports): refused, or slow retry.
    Exhausted,
    /// A defect of the backend or of what it drives: retry with backoff, reported.
    Internal,
}

impl ErrorKind {
    /// Whether trying again on this host can help without anything being changed.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::NotFound | Self::Transient | Self::Exhausted | Self::Internal => true,
            Self::Invalid | Self::Unsupported => false,
        }
    }
}

/// A failed verb: its class, what was being done, and to people's eyes why.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// What the engine decides by.
    pub kind: ErrorKind,
    /// The step that failed, as in "creating the cgroup".
    pub doing: &'static str,
    /// What happened, with the values that matter; lower case, no full stop.
    pub why: String,
    /// The cause, when another error is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause of its own.
    pub fn new(kind: ErrorKind, doing: &'static str, why: impl Into<String>) -> Self {
        Self { kind, doing, why: why.into(), source: None }
    }

    /// An error that another one caused; `why` says what it means here.
    pub fn caused(
        kind: ErrorKind,
        doing: &'static str,
        why: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, doing, why: why.into(), source: Some(source.into()) }
    }

    /// The error with all its causes on one line, for a log or a status detail.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::caused(ErrorKind::NotFound, "opening the image", "layer 2", io);
        assert_eq!(error.chain(), "opening the image: layer 2: no such file");
        assert_eq!(error.to_string(), "opening the image: layer 2");
    }
}
