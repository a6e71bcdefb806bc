//! From what the operator types to an id.
//!
//! Why apart: which names are understood, and what is done when one fits several things, is the
//! same for every command and every kind.
//!
//! ```text
//! application  ID | name | name.namespace
//! service      ID | service | service.namespace | app.namespace.service.namespace
//! instance     ID | any name of its service, with .NUMBER unless it has only one instance
//! cluster      ID | path | name
//! node         ID | name | path of its cluster, with /NAME
//! ```
//!
//! Invariant: a name that fits more than one thing is never resolved to one of them.

use std::collections::BTreeSet;
use std::str::FromStr;

use clap::ValueEnum;
use marram_protocol::id::{ChildId, InstanceId};
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;

/// What can be listed and described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A set of services.
    #[value(name = "applications", aliases = ["application", "apps", "app"])]
    Application,
    /// What an instance is a copy of.
    #[value(name = "services", aliases = ["service", "svc", "microservices", "microservice"])]
    Service,
    /// One running copy.
    #[value(name = "instances", aliases = ["instance", "inst"])]
    Instance,
    /// A group of nodes.
    #[value(name = "clusters", aliases = ["cluster"])]
    Cluster,
    /// A machine.
    #[value(name = "nodes", aliases = ["node"])]
    Node,
}

impl Kind {
    /// As in messages.
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Service => "service",
            Self::Instance => "instance",
            Self::Cluster => "cluster",
            Self::Node => "node",
        }
    }

    /// As in paths.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Application => "applications",
            Self::Service => "services",
            Self::Instance => "instances",
            Self::Cluster => "clusters",
            Self::Node => "nodes",
        }
    }

    /// Where the list is.
    pub(crate) fn path(self) -> String {
        format!("/api/v1/{}", self.plural())
    }

    /// Where one of them is.
    pub(crate) fn item_path(self, id: &str) -> String {
        format!("/api/v1/{}/{id}", self.plural())
    }

    /// Whether the text has the form of an id of this kind.
    fn is_id(self, text: &str) -> bool {
        match self {
            Self::Instance => InstanceId::from_str(text).is_ok(),
            // All other ids have one form.
            _ => ChildId::from_str(text).is_ok(),
        }
    }
}

/// Something that has names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    id: String,
    full: String,
    names: BTreeSet<String>,
}

/// A text of an object; empty if it has none of that key.
pub(crate) fn field<'a>(item: &'a Value, key: &str) -> &'a str {
    item.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The id of an item of a list.
pub(crate) fn id_of(kind: Kind, item: &Value) -> &str {
    field(item, &format!("{}_id", kind.singular()))
}

/// The full name of an item of a list.
pub(crate) fn full_name(kind: Kind, item: &Value) -> String {
    let name = field(item, "name");
    match kind {
        Kind::Application => format!("{name}.{}", field(item, "namespace")),
        Kind::Service => [
            field(item, "application_name"),
            field(item, "application_namespace"),
            name,
            field(item, "namespace"),
        ]
        .join("."),
        // Clusters have paths; of one at the top that is its name.
        Kind::Cluster if !field(item, "path").is_empty() => field(item, "path").to_owned(),
        Kind::Instance | Kind::Cluster | Kind::Node => name.to_owned(),
    }
}

/// `app.ns.svc.ns`, `svc.ns` and `svc`, from the first of them.
fn service_names(full: &str) -> Vec<String> {
    let mut names = vec![full.to_owned()];
    // Names and namespaces of the SLA have no dots.
    if let [_, _, service, namespace] = full.split('.').collect::<Vec<_>>()[..] {
        names.push(format!("{service}.{namespace}"));
        names.push(service.to_owned());
    }
    names
}

fn candidates(kind: Kind, items: &[Value]) -> Vec<Candidate> {
    let one = |item: &Value| {
        let mut full = full_name(kind, item);
        let name = field(item, "name");
        let cluster = item.get("cluster").map_or("", |cluster| field(cluster, "path"));
        if kind == Kind::Node && !cluster.is_empty() {
            full = format!("{cluster}/{name}");
        }
        let names = match kind {
            Kind::Application => [full.clone(), name.to_owned()].into(),
            Kind::Service => service_names(&full).into_iter().collect(),
            Kind::Instance => {
                let (service, number) = full.rsplit_once('.').unwrap_or((&full, ""));
                let services = service_names(service).into_iter();
                services.flat_map(|name| [format!("{name}.{number}"), name]).collect()
            }
            Kind::Cluster | Kind::Node => [name.to_owned()].into(),
        };
        Candidate { id: id_of(kind, item).to_owned(), full, names }
    };
    items.iter().map(one).collect()
}

fn pick(kind: Kind, text: &str, candidates: &[Candidate]) -> Result<Candidate, Error> {
    // The full name counts first: `a.b` may be one thing's full name and another's short one.
    let by_full = candidates.iter().filter(|one| one.full == text || one.id == text);
    let mut found: Vec<&Candidate> = by_full.collect();
    if found.is_empty() {
        found = candidates.iter().filter(|one| one.names.contains(text)).collect();
    }
    match found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::NotFound {
            kind: kind.singular(),
            name: text.into(),
            hint: hint(candidates),
        }),
        _ => Err(Error::Ambiguous {
            kind: kind.singular(),
            name: text.into(),
            candidates: found.iter().map(|one| format!("{}  ({})", one.full, one.id)).collect(),
        }),
    }
}

/// How many names a "not found" repeats: on a small site that is all of them.
const HINTS_MAX: usize = 5;

fn hint(candidates: &[Candidate]) -> String {
    match candidates.len() {
        0 => "; there are none".into(),
        1..=HINTS_MAX => {
            let names: Vec<_> = candidates.iter().map(|one| one.full.as_str()).collect();
            format!("; there is {}", names.join(", "))
        }
        count => format!("; there are {count} others"),
    }
}

/// An id and the name to show for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// For paths.
    pub(crate) id: String,
    /// For people.
    pub(crate) name: String,
}

/// Finds the id of what the operator named. An id is taken as it is, unseen.
pub(crate) fn resolve(client: &Client, kind: Kind, text: &str) -> Result<Named, Error> {
    if kind.is_id(text) {
        return Ok(Named { id: text.to_owned(), name: text.to_owned() });
    }
    let found = pick(kind, text, &candidates(kind, &client.list(&kind.path())?))?;
    Ok(Named { id: found.id, name: found.full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbb";

    fn instances() -> Vec<Value> {
        let one = |service: &str, name: &str, number: u32| {
            let name = format!("{name}.{number}");
            json!({"instance_id": format!("{service}.{number}"), "name": name})
        };
        vec![
            one(A, "shop.test.nginx.web", 0),
            one(A, "shop.test.nginx.web", 1),
            one(B, "blog.test.nginx.web", 0),
            one(B, "blog.test.db.web", 7),
        ]
    }

    fn find(kind: Kind, items: &[Value], text: &str) -> Result<String, Error> {
        pick(kind, text, &candidates(kind, items)).map(|found| found.id)
    }

    #[test]
    fn instances_have_long_and_short_names() {
        let items = instances();
        for (text, id) in [
            ("shop.test.nginx.web.1", format!("{A}.1")),
            ("nginx.1", format!("{A}.1")),
            ("nginx.web.1", format!("{A}.1")),
            ("db.7", format!("{B}.7")),
            ("db", format!("{B}.7")),
            ("blog.test.db.web", format!("{B}.7")),
            ("blog.test.nginx.web", format!("{B}.0")),
        ] {
            assert_eq!(find(Kind::Instance, &items, text).unwrap(), id, "{text}");
        }
    }

    #[test]
    fn ambiguity_and_absence_say_what_there_is() {
        let items = instances();
        let text = find(Kind::Instance, &items, "nginx.0").unwrap_err().to_string();
        assert_eq!(
            text,
            format!(
                "`nginx.0` fits 2 instances; say which:\n  shop.test.nginx.web.0  ({A}.0)\n  \
                 blog.test.nginx.web.0  ({B}.0)"
            )
        );
        assert_eq!(find(Kind::Instance, &items, "shop.test.nginx.web").unwrap_err().code(), 2);
        let error = find(Kind::Instance, &items[3..], "dd.7").unwrap_err();
        assert_eq!(error.to_string(), "no instance is called `dd.7`; there is blog.test.db.web.7");
        assert_eq!(error.code(), 4);
        let error = find(Kind::Node, &[], "pi").unwrap_err();
        assert_eq!(error.to_string(), "no node is called `pi`; there are none");
    }

    #[test]
    fn a_full_name_is_no_ambiguity() {
        let one = |id: &str, name: &str, namespace: &str| json!({"application_id": id, "name": name, "namespace": namespace});
        let items = [one(A, "shop", "test"), one(B, "shop", "live")];
        assert_eq!(find(Kind::Application, &items, "shop.live").unwrap(), B);
        assert_eq!(find(Kind::Application, &items, "shop").unwrap_err().code(), 2);
        assert_eq!(find(Kind::Application, &items[..1], "shop").unwrap(), A);
    }

    #[test]
    fn services_are_named_with_their_application() {
        let item = json!({"service_id": A, "application_name": "shop", "name": "nginx",
            "application_namespace": "test", "namespace": "web"});
        for text in ["shop.test.nginx.web", "nginx.web", "nginx"] {
            assert_eq!(find(Kind::Service, std::slice::from_ref(&item), text).unwrap(), A);
        }
    }

    #[test]
    fn clusters_and_nodes_of_a_tree_have_paths() {
        let cluster = |id: &str, name: &str, path: &str| json!({"cluster_id": id, "name": name, "path": path});
        let items = [cluster(A, "mitte", "berlin/mitte"), cluster(B, "mitte", "hamburg/mitte")];
        assert_eq!(find(Kind::Cluster, &items, "berlin/mitte").unwrap(), A);
        assert_eq!(find(Kind::Cluster, &items[1..], "mitte").unwrap(), B);
        let error = find(Kind::Cluster, &items, "mitte").unwrap_err().to_string();
        assert!(error.contains("berlin/mitte  (aaaa"), "{error}");
        let node =
            |id: &str, path: &str| json!({"node_id": id, "name": "pi", "cluster": {"path": path}});
        let items = [node(A, "berlin"), node(B, "berlin/mitte")];
        assert_eq!(find(Kind::Node, &items, "berlin/pi").unwrap(), A);
        assert_eq!(find(Kind::Node, &items, "pi").unwrap_err().code(), 2);
    }

    #[test]
    fn ids_have_a_form() {
        assert!(Kind::Service.is_id(A) && !Kind::Service.is_id("aaaa"));
        assert!(Kind::Instance.is_id(&format!("{A}.0")) && !Kind::Instance.is_id("nginx.0"));
    }
}
