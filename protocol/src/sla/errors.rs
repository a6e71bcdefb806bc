//! What is wrong with a document, where, and what would be right.

use std::fmt;

/// Errors reported at most, and one more that says so; nobody mends more than these at once.
pub const ERRORS_MAX: usize = 100;

/// How much of a wrong value is repeated.
const FOUND_CHARS_MAX: usize = 60;

/// A step into a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// Into an object.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// One step further, by name.
    pub fn key(&self, key: &str) -> Self {
        self.step(Segment::Key(key.to_owned()))
    }

    /// One step further, by position.
    pub fn index(&self, index: usize) -> Self {
        self.step(Segment::Index(index))
    }

    /// As a JSON pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        self.0.iter().fold(String::new(), |text, segment| match segment {
            Segment::Key(key) => text + "/" + &key.replace('~', "~0").replace('/', "~1"),
            Segment::Index(index) => format!("{text}/{index}"),
        })
    }

    fn step(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Key(key) if is_plain(key) => write!(f, ".{key}"),
            // Names of a stranger: quoted, so that they end where they end and stay on one line.
            Segment::Key(key) => write!(f, "[{}]", quote(key)),
            Segment::Index(index) => write!(f, "[{index}]"),
        })
    }
}

fn is_plain(key: &str) -> bool {
    (1..=FOUND_CHARS_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A text in quotes, cut if long.
fn quote(text: &str) -> String {
    if text.chars().count() > FOUND_CHARS_MAX {
        let start: String = text.chars().take(FOUND_CHARS_MAX).collect();
        return format!("{start:?}… ({} bytes)", text.len());
    }
    format!("{text:?}")
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {found}, expected {expected}")]
pub struct SlaError {
    /// Where.
    pub path: Path,
    /// What stands there.
    pub found: String,
    /// What is allowed.
    pub expected: String,
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlaErrors {
    /// Longer than [`super::SLA_BYTES_MAX`].
    #[error("the document has {0} bytes, at most {max} are allowed", max = super::SLA_BYTES_MAX)]
    TooLarge(usize),
    /// Not text.
    #[error("the document is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Not JSON.
    #[error("the document is not JSON at line {line}, column {column}: {why}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// In the parser's words.
        why: String,
    },
    /// JSON with wrong fields: all of them, up to [`ERRORS_MAX`].
    #[error("{}", list(.0))]
    Fields(Vec<SlaError>),
}

fn list(errors: &[SlaError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The parser's reason without the position, which stands beside it.
pub(super) fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// A value as it is shown in an error: whole if short, else its beginning or its kind.
pub(super) fn show(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => format!("an object of {} properties", fields.len()),
        Value::String(text) => quote(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
