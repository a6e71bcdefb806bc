//! Follows the table through a document and collects what does not fit it.
//!
//! Rules about several fields at once (names used twice, a unikernel without an
//! architecture) stand at the end.

use super::errors::{ERRORS_MAX, Path, SlaError, show};
use super::rules::{DOCUMENT, Field, Rule, SERVICE_BYTES_MAX, VIRTUALIZATIONS};
use crate::id::ApplicationId;
use crate::port;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// All errors of a document, in its order; after [`ERRORS_MAX`] one that says there are more.
pub(super) fn document(value: &Value) -> Vec<SlaError> {
    let mut walk = Walk::default();
    walk.follow(&Path::default(), value, &DOCUMENT);
    walk.applications(value);
    walk.errors
}

#[derive(Default)]
struct Walk {
    errors: Vec<SlaError>,
}

impl Walk {
    fn wrong(&mut self, path: &Path, found: String, expected: impl Into<String>) {
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

    /// Rules that look at several fields.
    fn applications(&mut self, document: &Value) {
        let root = Path::default().key("applications");
        let Some(applications) = document.get("applications").and_then(Value::as_array) else {
            return;
        };
        if applications.is_empty() {
            self.wrong(&root, "a list of 0".into(), "at least one application");
        }
        self.unique(&root, applications, "application_name", "application_namespace");
        for (index, application) in applications.iter().enumerate() {
            let path = root.index(index).key("microservices");
            let services = application.get("microservices").and_then(Value::as_array);
            let Some(services) = services else { continue };
            self.unique(&path, services, "microservice_name", "microservice_namespace");
            for (index, service) in services.iter().enumerate() {
                self.architectures(&path.index(index), service);
                self.service_size(&path.index(index), service);
            }
        }
    }

    /// Name and namespace together name a thing among its siblings.
    fn unique(&mut self, path: &Path, items: &[Value], name: &str, namespace: &str) {
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let text = |key| item.get(key).and_then(Value::as_str);
            if let (Some(name_text), Some(space)) = (text(name), text(namespace))
                && !seen.insert((name_text, space))
            {
                let found = format!("{name_text:?} in namespace {space:?} a second time");
                self.wrong(&path.index(index).key(name), found, "a name used once");
            }
        }
    }

    /// What is desired of an instance travels in one message.
    fn service_size(&mut self, path: &Path, service: &Value) {
        let bytes = service.to_string().len();
        if bytes > SERVICE_BYTES_MAX {
            let found = format!("a service of {bytes} bytes");
            self.wrong(path, found, format!("at most {SERVICE_BYTES_MAX} bytes"));
        }
    }

    /// A unikernel's `code` is a comma list with one entry for each architecture.
    fn architectures(&mut self, path: &Path, service: &Value) {
        if service.get("virtualization").and_then(Value::as_str) != Some("unikernel") {
            return;
        }
        let codes = service.get("code").and_then(Value::as_str).map_or(0, |c| c.split(',').count());
        let arch = service.get("arch").and_then(Value::as_array).map_or(0, Vec::len);
        if arch == 0 || arch != codes {
            let found = format!("{arch} architectures for {codes} images");
            self.wrong(&path.key("arch"), found, "one architecture for each image in code");
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
        // These are no texts; `follow` has dealt with them.
        Rule::Integer(..)
        | Rule::Number(..)
        | Rule::Flag
        | Rule::List(..)
        | Rule::Object(_)
        | Rule::TextMap => Ok(()),
    }
}

fn is_runtime_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}
