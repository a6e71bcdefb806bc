//! Rules about several fields at once: names used twice, a unikernel without an
//! architecture, constraints that lack what they need.

use super::constraints::{SELECTORS_MAX, TooMany, names, narrow};
use super::errors::Path;
use super::rules::{SERVICE_BYTES_MAX, WAIT};
use super::walk::Walk;
use crate::v1::Patience;
use serde_json::Value;
use std::collections::BTreeSet;

/// Bounds on latency and distance of one service.
const PROXIMITIES_MAX: usize = 32;

impl Walk {
    /// Rules that look at several fields.
    pub(super) fn applications(&mut self, document: &Value) {
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
                self.constraints(&path.index(index), service);
                self.proximities(&path.index(index), service);
                self.loss(&path.index(index).key("marram"), service.get("marram"));
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

    /// What a constraint cannot do without, and how many selectors are left of all together.
    fn constraints(&mut self, path: &Path, service: &Value) {
        let path = path.key("constraints");
        let constraints = service.get("constraints").and_then(Value::as_array);
        let (mut clusters, mut nodes) = (Vec::new(), Vec::new());
        for (index, constraint) in constraints.into_iter().flatten().enumerate() {
            let path = path.index(index);
            self.complete(&path, constraint);
            let listed = |key| names(text(constraint, key)).map(str::to_owned).collect();
            let allowed = constraint.get("allowed").and_then(Value::as_array);
            let allowed = allowed.into_iter().flatten().filter_map(Value::as_str);
            let narrowed = match text(constraint, "type") {
                "direct" => narrow(&mut clusters, listed("cluster"))
                    .and_then(|()| narrow(&mut nodes, listed("node"))),
                "clusters" => narrow(&mut clusters, allowed.map(str::to_owned).collect()),
                _ => Ok(()),
            };
            if let Err(TooMany) = narrowed {
                let expected = format!("at most {SELECTORS_MAX} together");
                self.wrong(&path, "too many combinations of patterns".into(), expected);
            }
        }
    }

    /// Each bound on latency or distance is judged for each candidate.
    fn proximities(&mut self, path: &Path, service: &Value) {
        let list = |of: &Value, key| of.get(key).and_then(Value::as_array).map_or(0, Vec::len);
        let constraints = service.get("constraints").and_then(Value::as_array);
        let own = constraints.into_iter().flatten();
        let own = own.filter(|one| matches!(text(one, "type"), "geo" | "latency")).count();
        let others = service.get("connectivity").and_then(Value::as_array);
        let others = others.into_iter().flatten().map(|one| list(one, "con_constraints"));
        let count = others.fold(own, usize::saturating_add);
        if count > PROXIMITIES_MAX {
            let found = format!("{count} bounds on latency and distance");
            let expected =
                format!("at most {PROXIMITIES_MAX}, those among the constraints included");
            self.wrong(&path.key("connectivity"), found, expected);
        }
    }

    /// A bound needs a number, and a place that it is measured from.
    fn complete(&mut self, path: &Path, constraint: &Value) {
        let places: &[&str] = match text(constraint, "type") {
            "geo" => &["location"],
            "latency" => &["area", "location"],
            _ => return,
        };
        let is_empty = |key: &&str| {
            constraint.get(*key).is_none_or(|value| value.as_str().is_some_and(str::is_empty))
        };
        if places.iter().all(is_empty) {
            self.wrong(&path.key(places[0]), "nothing".into(), "a value");
        }
        if constraint.get("threshold").is_none() {
            self.wrong(&path.key("threshold"), "nothing".into(), "a value");
        }
    }

    /// What is said of a loss agrees with itself.
    fn loss(&mut self, path: &Path, own: Option<&Value>) {
        let Some(own) = own else { return };
        let seconds = |key| own.get("patience").and_then(|p| p.get(key)).and_then(Value::as_u64);
        let path = path.key("patience");
        if own.get("on_loss").and_then(Value::as_str) == Some(WAIT) {
            for key in ["node_s", "cluster_s"] {
                if let Some(found) = seconds(key) {
                    self.wrong(&path.key(key), found.to_string(), "nothing, since on_loss is wait");
                }
            }
            return;
        }
        let usual = Patience::default();
        let least = [("node_s", usual.node_s), ("cluster_s", usual.cluster_s)]
            .map(|(key, usual)| seconds(key).or(usual.map(u64::from)).unwrap_or(u64::MAX));
        let least = least.into_iter().min().unwrap_or(u64::MAX);
        if let Some(found) = seconds("parent_s").filter(|found| *found >= least) {
            let expected = format!("less than node_s and cluster_s, here {least}");
            self.wrong(&path.key("parent_s"), found.to_string(), expected);
        }
    }
}

/// A text of an object; nothing if there is none.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
