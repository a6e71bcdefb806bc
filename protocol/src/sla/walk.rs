//! Follows the table through a document and collects what does not fit it.
//!
//! Rules about several fields at once stand in `across`.

use super::constraints;
use super::errors::{ERRORS_MAX, Path, SlaError, show};
use super::model::Cores;
use super::rules::{DOCUMENT, Field, Rule, VIRTUALIZATIONS};
use crate::id::ApplicationId;
use crate::selector::{Labels, Selector};
use crate::{place, port, reference};
use serde_json::{Map, Value};
use std::net::{Ipv4Addr, Ipv6Addr};

/// All errors of a document, in its order; after [`ERRORS_MAX`] one that says there are more.
pub(super) fn document(value: &Value) -> Vec<SlaError> {
    let mut walk = Walk::default();
    walk.follow(&Path::default(), value, &DOCUMENT);
    walk.applications(value);
    walk.errors
}

#[derive(Default)]
pub(super) struct Walk {
    errors: Vec<SlaError>,
}

impl Walk {
    pub(super) fn wrong(&mut self, path: &Path, found: String, expected: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(SlaError { path: path.clone(), found, expected: expected.into() });
        } else if self.errors.len() == ERRORS_MAX {
            let found = format!("more than {ERRORS_MAX} errors");
            let expected = "those shown to be mended first".to_owned();
            self.errors.push(SlaError { path: Path::default(), found, expected });
        }
    }

    fn follow(&mut self, path: &Path, value: &Value, rule: &Rule) {
        match rule {
            Rule::List(of, max) => self.list(path, value, of, *max),
            Rule::Object(fields) => match value {
                Value::Object(object) => self.object(path, object, fields),
                _ => self.wrong(path, show(value), "an object"),
            },
            Rule::TextMap => self.text_map(path, value),
            Rule::Integer(min, max) => {
                if !value.as_i64().is_some_and(|n| (*min..=*max).contains(&n)) {
                    self.wrong(path, show(value), format!("a whole number from {min} to {max}"));
                }
            }
            Rule::Number(min, max) => {
                if !value.as_f64().is_some_and(|n| (*min..=*max).contains(&n)) {
                    self.wrong(path, show(value), format!("a number from {min} to {max}"));
                }
            }
            Rule::Cores(max) => {
                let cores = value.as_f64().filter(|n| *n <= f64::from(*max)).and_then(Cores::new);
                if cores.is_none() {
                    let expected = format!("a number from 0 to {max} in steps of 0.001");
                    self.wrong(path, show(value), expected);
                }
            }
            Rule::Flag => {
                if !value.is_boolean() {
                    self.wrong(path, show(value), "true or false");
                }
            }
            _ => match value {
                Value::String(text) => {
                    if let Err(expected) = check_text(text, rule) {
                        self.wrong(path, show(value), expected);
                    }
                }
                _ => self.wrong(path, show(value), "a text"),
            },
        }
    }

    fn list(&mut self, path: &Path, value: &Value, of: &Rule, max: usize) {
        match value {
            Value::Array(items) if items.len() <= max => {
                for (index, item) in items.iter().enumerate() {
                    self.follow(&path.index(index), item, of);
                }
            }
            _ => self.wrong(path, show(value), format!("a list of at most {max}")),
        }
    }

    fn object(&mut self, path: &Path, object: &Map<String, Value>, fields: &[Field]) {
        for Field { name, required, rule } in fields {
            match object.get(*name) {
                Some(value) => self.follow(&path.key(name), value, rule),
                None if *required => self.wrong(&path.key(name), "nothing".into(), "a value"),
                None => {}
            }
        }
    }

    fn text_map(&mut self, path: &Path, value: &Value) {
        let Value::Object(object) = value else {
            return self.wrong(path, show(value), "an object of texts");
        };
        for (key, value) in object {
            if !value.is_string() {
                self.wrong(&path.key(key), show(value), "a text");
            }
        }
    }
}

/// Checks a text, or says what would be right.
fn check_text(text: &str, rule: &Rule) -> Result<(), String> {
    let ok = |fine: bool, expected: &str| if fine { Ok(()) } else { Err(expected.to_owned()) };
    let plain = !text.contains('\0');
    match rule {
        Rule::Text(max) => {
            ok(plain && text.len() <= *max, &format!("a text of at most {max} bytes without NUL"))
        }
        Rule::Filled(max) => {
            let fine = plain && !text.trim().is_empty() && text.len() <= *max;
            ok(fine, &format!("a text of 1 to {max} bytes without NUL"))
        }
        Rule::Empty => ok(text.is_empty(), "an empty text, ids are given by the root"),
        Rule::OptionalId => {
            let fine = text.is_empty() || text.parse::<ApplicationId>().is_ok();
            ok(fine, "an empty text or an id of 24 hexadecimal digits")
        }
        Rule::Name => {
            let fine =
                (1..=30).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
            ok(fine, "1 to 30 letters or digits")
        }
        Rule::OneOf(words) => ok(words.contains(&text), &format!("one of {}", words.join(", "))),
        Rule::Virtualization => {
            let custom = ["kata-", "io.containerd."]
                .iter()
                .any(|prefix| text.strip_prefix(prefix).is_some_and(is_runtime_name));
            let fine = VIRTUALIZATIONS.contains(&text) || custom;
            let words = VIRTUALIZATIONS.join(", ");
            ok(fine, &format!("one of {words}, or a runtime as kata-… or io.containerd.…"))
        }
        Rule::Ports => port::parse(text).map(drop).map_err(|e| format!("a port string: {e}")),
        Rule::ServiceIpv4 => {
            let fine = text.parse::<Ipv4Addr>().is_ok_and(|a| a.octets()[..2] == [10, 30]);
            ok(fine, "an IPv4 address in 10.30.0.0/16")
        }
        Rule::ServiceIpv6 => {
            let inside = |a: Ipv6Addr| a.segments()[0] == 0xfdff && a.segments()[1] >> 11 == 4;
            ok(text.parse().is_ok_and(inside), "an IPv6 address in fdff:2000::/21")
        }
        Rule::Variable => {
            let name = text.split_once('=').map_or("", |(name, _)| name);
            ok(plain && !name.is_empty() && text.len() <= 65_536, "NAME=value, at most 65536 bytes")
        }
        Rule::AbsolutePath => {
            let fine = plain
                && text.len() <= 4096
                && text.starts_with('/')
                && text.split('/').all(|part| part != "..");
            ok(fine, "an absolute path without '..', at most 4096 bytes")
        }
        Rule::Selector
        | Rule::Selectors
        | Rule::Labels
        | Rule::LabelKey
        | Rule::Place
        | Rule::Reference => check_where(text, rule),
        // These are no texts; `follow` has dealt with them.
        Rule::Integer(..)
        | Rule::Number(..)
        | Rule::Cores(_)
        | Rule::Flag
        | Rule::List(..)
        | Rule::Object(_)
        | Rule::TextMap => Ok(()),
    }
}

/// The same for texts that say where a service may run.
fn check_where(text: &str, rule: &Rule) -> Result<(), String> {
    let ok = |fine: bool, expected: &str| if fine { Ok(()) } else { Err(expected.to_owned()) };
    match rule {
        Rule::Selector => text.parse::<Selector>().map(drop).map_err(|e| format!("another: {e}")),
        Rule::Selectors => constraints::names(text).try_for_each(|name| {
            name.parse::<Selector>().map(drop).map_err(|e| format!("others: {e}"))
        }),
        Rule::Labels => text.parse::<Labels>().map(drop).map_err(|e| format!("another: {e}")),
        Rule::LabelKey => {
            let fine = !text.contains('\0')
                && !text.trim().is_empty()
                && text.len() <= 64
                && !text.contains('=');
            ok(fine, "a label's key: 1 to 64 bytes without '='")
        }
        Rule::Place => {
            let fine = text.is_empty() || place::parse(text).is_some();
            ok(fine, "a place: LATITUDE,LONGITUDE in degrees")
        }
        Rule::Reference => {
            let forms = "SERVICE, SERVICE.NAMESPACE, APP.APPNAMESPACE.SERVICE.NAMESPACE or an id";
            ok(reference::is_reference(text), forms)
        }
        // `check_text` has dealt with all others.
        _ => Ok(()),
    }
}

fn is_runtime_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}
