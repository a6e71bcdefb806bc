//! The server's refusals, field by field.
//!
//! Why apart: refusals come in three forms (problem+json of the clean interface, the short
//! objects of Oakestra's, and whatever something in between sends), and each must end as lines
//! that an operator can act on.

use std::fmt;

use serde::Deserialize;

use crate::text;

/// What the server said instead of doing what was asked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// HTTP status.
    pub(crate) status: u16,
    /// One line: what.
    pub(crate) title: String,
    /// Why, in this case; may be empty.
    pub(crate) detail: String,
    /// What is wrong where; may be empty.
    pub(crate) fields: Vec<Field>,
}

/// One wrong place of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// The place, as a JSON path or pointer.
    pub(crate) place: String,
    /// What is wrong there.
    pub(crate) detail: String,
}

/// How many fields are shown: a document that is wrong in more places is wrong as a whole.
const FIELDS_MAX: usize = 100;

/// How much of an answer that is no JSON is shown: enough to recognise whose it is.
const FOREIGN_CHARS_MAX: usize = 200;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    title: Option<String>,
    detail: Option<String>,
    errors: Vec<BodyField>,
    // Oakestra's own forms.
    msg: Option<String>,
    message: Option<String>,
    status: serde_json::Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BodyField {
    path: Option<String>,
    pointer: Option<String>,
    detail: Option<String>,
}

impl Problem {
    /// Reads an answer whose status is an error.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Body>(body) else {
            let foreign: String =
                String::from_utf8_lossy(body).chars().take(FOREIGN_CHARS_MAX).collect();
            return Self { status, detail: text::line(&foreign), ..Self::default() };
        };
        let fields = body.errors.into_iter().map(|field| Field {
            place: text::line(&field.path.or(field.pointer).unwrap_or_default()),
            detail: text::line(&field.detail.unwrap_or_default()),
        });
        let detail = body.detail.or(body.msg).or(body.message);
        let detail = detail.or_else(|| body.status.as_str().map(str::to_owned));
        Self {
            status,
            title: text::line(&body.title.unwrap_or_default()),
            detail: text::line(&detail.unwrap_or_default()),
            fields: fields.collect(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        for part in [&self.title, &self.detail] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        // A single one is often said in full above.
        let said = |field: &&Field| !field.detail.is_empty() && self.detail.contains(&field.detail);
        for field in self.fields.iter().filter(|field| !said(field)).take(FIELDS_MAX) {
            let place = if field.place.is_empty() { "the document" } else { &field.place };
            write!(f, "\n  {place}: {}", field.detail)?;
        }
        if self.fields.len() > FIELDS_MAX {
            write!(f, "\n  and {} more", self.fields.len() - FIELDS_MAX)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_show_each_field() {
        let body = br#"{"title":"invalid descriptor","status":422,"detail":"2 errors","errors":[
            {"pointer":"/applications/0","path":"applications[0].memory","detail":"is -1"},
            {"pointer":"","detail":"no \u001b[2Jcustomer"}]}"#;
        assert_eq!(
            Problem::read(422, body).to_string(),
            "the server answered 422: invalid descriptor: 2 errors\n  \
             applications[0].memory: is -1\n  the document: no  [2Jcustomer"
        );
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let body = br#"{"title":"no","detail":"refused: $.a: -1, expected 0",
            "errors":[{"path":"$.a","detail":"-1, expected 0"}]}"#;
        let text = Problem::read(422, body).to_string();
        assert_eq!(text, "the server answered 422: no: refused: $.a: -1, expected 0");
    }

    #[test]
    fn other_forms_are_shown_as_they_are() {
        for (body, shown) in [
            (&b"{\"code\":401,\"status\":\"Unauthorized\"}"[..], "401: Unauthorized"),
            (b"{\"msg\":\"Missing Authorization Header\"}", "401: Missing Authorization Header"),
            (b"{\"message\":\"no\"}", "401: no"),
            (b"<html>\nBad\xff Gateway", "401: <html> Bad\u{fffd} Gateway"),
            (b"", "401"),
            (b"[7]", "401: [7]"),
        ] {
            let text = Problem::read(401, body).to_string();
            assert_eq!(text, format!("the server answered {shown}"));
        }
        assert!(Problem::read(500, "x".repeat(5_000).as_bytes()).to_string().len() < 300);
    }
}
