//! Which fields of the server's objects are shown, and how.
//!
//! Why apart: tables and descriptions are the client's only opinion about the objects; JSON
//! output is theirs unchanged.

use serde_json::{Map, Value};

use crate::error::Error;
use crate::instance;
use crate::names::{Kind, full_name, id_of};
use crate::table::{self, Column, Cut};
use crate::text;
use crate::ui::{Format, Ui};

/// Prints a list as a table.
pub(crate) fn print_list(ui: Ui, kind: Kind, items: &[Value]) -> Result<(), Error> {
    if items.is_empty() {
        ui.note(&format!("there are no {}", kind.plural()));
        return Ok(());
    }
    let wide = ui.format == Format::Wide;
    ui.print(&list(kind, items, wide, text::now_unix_ms(), ui.table_columns()))
}

/// Prints children of another tree.
pub(crate) fn print_foreign(ui: Ui, items: &[Value]) -> Result<(), Error> {
    if items.is_empty() {
        ui.note("there are none of another tree");
        return Ok(());
    }
    let columns: [Column; 6] = [
        ("NAME", Cut::Middle),
        ("KIND", Cut::Never),
        ("ID", Cut::Never),
        ("TREE", Cut::Never),
        ("SEEN", Cut::Never),
        ("STATE", Cut::Never),
    ];
    let now = text::now_unix_ms();
    let row = |item: &Value| {
        let [name, kind, id, tree] = ["name", "kind", "id", "tree"].map(|key| plain(item.get(key)));
        let released = item.get("released").and_then(Value::as_bool).unwrap_or_default();
        let state = if released { "adopted when it asks again" } else { "refused" };
        let cells = [name, kind, id, tree, age(item, "seen_unix_ms", now), state.to_owned()];
        cells.map(|cell| text::line(&cell)).to_vec()
    };
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    ui.print(&table::render(&columns, &rows, ui.table_columns()))
}

/// Draws a list.
fn list(kind: Kind, items: &[Value], wide: bool, now: u64, width: Option<usize>) -> String {
    let shown: Vec<_> = fields(kind).into_iter().filter(|shown| wide || !shown.wide).collect();
    let columns: Vec<Column> = shown.iter().map(|shown| (shown.heading, shown.cut)).collect();
    let mut rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| shown.iter().map(|shown| text::line(&(shown.cell)(kind, item, now))).collect())
        .collect();
    rows.sort();
    table::render(&columns, &rows, width)
}

struct Shown {
    heading: &'static str,
    cut: Cut,
    /// Only in the wide form.
    wide: bool,
    cell: fn(Kind, &Value, u64) -> String,
}

fn always(heading: &'static str, cut: Cut, cell: fn(Kind, &Value, u64) -> String) -> Shown {
    Shown { heading, cut, wide: false, cell }
}

fn wide(heading: &'static str, cut: Cut, cell: fn(Kind, &Value, u64) -> String) -> Shown {
    Shown { heading, cut, wide: true, cell }
}

fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            list.iter().map(|one| plain(Some(one))).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

fn name(kind: Kind, item: &Value, _: u64) -> String {
    full_name(kind, item)
}

fn id(kind: Kind, item: &Value, _: u64) -> String {
    id_of(kind, item).to_owned()
}

fn state(_: Kind, item: &Value, _: u64) -> String {
    let removing = item.get("removing").and_then(Value::as_bool).unwrap_or_default();
    let mark = if removing { " (removing)" } else { "" };
    format!("{}{mark}", plain(item.get("state")))
}

/// Busy share of the processors.
fn cpu(_: Kind, item: &Value, _: u64) -> String {
    let permille = item.get("cpu_permille").and_then(Value::as_u64);
    permille.map_or(String::new(), |permille| format!("{}.{} %", permille / 10, permille % 10))
}

/// Memory in use, of how much.
fn memory(_: Kind, item: &Value, _: u64) -> String {
    let used = item.get("memory_used_mib").and_then(Value::as_u64);
    let all = item.get("capacity").and_then(|capacity| capacity.get("memory_mib"));
    match (used, all.and_then(Value::as_u64)) {
        (Some(used), Some(all)) => format!("{used} of {all} MiB"),
        (None, Some(all)) => format!("{all} MiB"),
        (Some(used), None) => format!("{used} MiB used"),
        (None, None) => String::new(),
    }
}

fn inner_name(item: &Value, key: &str) -> String {
    plain(item.get(key).and_then(|inner| inner.get("name")))
}

fn age(item: &Value, key: &str, now: u64) -> String {
    let then = item.get(key).and_then(Value::as_u64);
    then.map_or(String::new(), |then| text::age(now, then))
}

fn connected(_: Kind, item: &Value, _: u64) -> String {
    let is = |key: &str| item.get(key).and_then(Value::as_bool);
    let state = match is("connected") {
        Some(true) => "connected",
        Some(false) => "away",
        None => "",
    };
    match (is("draining"), is("cordoned")) {
        (Some(true), _) => format!("{state}, draining"),
        (_, Some(true)) => format!("{state}, cordoned"),
        _ => state.to_owned(),
    }
}

/// The cluster of a node, with the clusters above it.
fn cluster_path(item: &Value) -> String {
    let path = item.get("cluster").map_or("", |cluster| crate::names::field(cluster, "path"));
    if path.is_empty() { inner_name(item, "cluster") } else { path.to_owned() }
}

fn why(_: Kind, item: &Value, _: u64) -> String {
    instance::Instance::read(item).why().to_owned()
}

fn fields(kind: Kind) -> Vec<Shown> {
    match kind {
        Kind::Application => vec![
            always("NAME", Cut::Middle, name),
            always("SERVICES", Cut::Never, |_, item, _| count(item, "services")),
            always("AGE", Cut::Never, |_, item, now| age(item, "created_unix_ms", now)),
            wide("OWNER", Cut::End, |_, item, _| plain(item.get("owner"))),
            wide("DESCRIPTION", Cut::End, |_, item, _| plain(item.get("description"))),
            wide("ID", Cut::Never, id),
        ],
        Kind::Service => vec![
            always("NAME", Cut::Middle, name),
            always("VIRTUALIZATION", Cut::End, |_, item, _| plain(item.get("virtualization"))),
            always("INSTANCES", Cut::Never, |_, item, _| count(item, "instances")),
            always("AGE", Cut::Never, |_, item, now| age(item, "created_unix_ms", now)),
            always("IMAGE", Cut::Middle, |_, item, _| plain(item.get("image"))),
            wide("OWNER", Cut::End, |_, item, _| plain(item.get("owner"))),
            wide("ID", Cut::Never, id),
        ],
        Kind::Instance => vec![
            always("NAME", Cut::Middle, name),
            always("STATE", Cut::Never, state),
            always("NODE", Cut::Middle, |_, item, _| inner_name(item, "node")),
            always("RESTARTS", Cut::Never, |_, item, _| plain(item.get("restarts"))),
            always("SINCE", Cut::Never, |_, item, now| age(item, "since_unix_ms", now)),
            wide("CLUSTER", Cut::Middle, |_, item, _| inner_name(item, "cluster")),
            wide("ADDRESS", Cut::Never, |_, item, _| {
                plain(item.get("node").and_then(|node| node.get("address")))
            }),
            wide("ID", Cut::Never, id),
            always("DETAIL", Cut::End, why),
        ],
        Kind::Cluster => vec![
            always("NAME", Cut::Middle, name),
            always("STATE", Cut::Never, connected),
            always("PARENT", Cut::Middle, |_, item, _| inner_name(item, "parent")),
            always("NODES", Cut::Never, |_, item, _| count(item, "nodes")),
            always("INSTANCES", Cut::Never, |_, item, _| count(item, "instances")),
            always("CPU", Cut::Never, cpu),
            always("MEMORY", Cut::Never, memory),
            wide("ID", Cut::Never, id),
            wide("DEPTH", Cut::Never, |_, item, _| plain(item.get("depth"))),
            wide("LABELS", Cut::End, |_, item, _| plain(item.get("labels"))),
            wide("LOCATION", Cut::End, |_, item, _| plain(item.get("location"))),
            wide("VIRTUALIZATIONS", Cut::End, |_, item, _| plain(item.get("virtualizations"))),
            wide("ARCHITECTURES", Cut::End, |_, item, _| plain(item.get("architectures"))),
            wide("VERSION", Cut::Never, |_, item, _| plain(item.get("version"))),
        ],
        Kind::Node => vec![
            always("NAME", Cut::Middle, name),
            always("STATE", Cut::Never, connected),
            always("CLUSTER", Cut::Middle, |_, item, _| cluster_path(item)),
            always("INSTANCES", Cut::Never, |_, item, _| count(item, "instances")),
            always("CPU", Cut::Never, cpu),
            always("MEMORY", Cut::Never, memory),
            wide("ID", Cut::Never, id),
            wide("ADDRESS", Cut::Never, |_, item, _| plain(item.get("address"))),
            wide("LABELS", Cut::End, |_, item, _| plain(item.get("labels"))),
            wide("VIRTUALIZATIONS", Cut::End, |_, item, _| plain(item.get("virtualizations"))),
            wide("ARCHITECTURES", Cut::End, |_, item, _| plain(item.get("architectures"))),
            wide("VERSION", Cut::Never, |_, item, _| plain(item.get("version"))),
        ],
    }
}

/// A number, or the length of a list.
fn count(item: &Value, key: &str) -> String {
    match item.get(key) {
        Some(Value::Array(list)) => list.len().to_string(),
        other => plain(other),
    }
}

/// Keys that come first in a description; the others follow by name.
const FIRST: &[&str] =
    &["name", "namespace", "state", "detail", "exit", "restarts", "node", "cluster"];

/// Prints one object in the form that was asked for.
pub(crate) fn print_object(ui: Ui, item: &Value) -> Result<(), Error> {
    if ui.format == Format::Json {
        return ui.print_json(item);
    }
    let mut text = String::new();
    match item {
        Value::Object(object) => describe(object, 0, text::now_unix_ms(), &mut text),
        other => text = format!("{other:#}\n"),
    }
    ui.print(&text)
}

fn describe(object: &Map<String, Value>, indent: usize, now: u64, text: &mut String) {
    let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
    let mut keys: Vec<&String> = object.keys().collect();
    keys.sort_by_key(|key| (rank(key), key.as_str()));
    let width = keys.iter().map(|key| label(key).chars().count()).max().unwrap_or(0);
    for key in keys {
        let label = label(key);
        let pad = " ".repeat(indent);
        match &object[key.as_str()] {
            Value::Object(inner) if !inner.is_empty() => {
                text.push_str(&format!("{pad}{label}:\n"));
                describe(inner, indent + 2, now, text);
            }
            Value::Array(list) if list.iter().any(Value::is_object) => {
                text.push_str(&format!("{pad}{label}:\n"));
                for one in list {
                    describe_one(one, indent + 2, now, text);
                }
            }
            value => {
                let value = scalar(key, value, now);
                let line = format!("{pad}{label}:{:1$} {value}", "", width - label.chars().count());
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
}

/// An item of a list: `- ` before its first line, the rest in line with it.
fn describe_one(item: &Value, indent: usize, now: u64, text: &mut String) {
    let mut inner = String::new();
    match item {
        Value::Object(object) => describe(object, 0, now, &mut inner),
        other => inner = text::line(&plain(Some(other))),
    }
    for (index, line) in inner.lines().enumerate() {
        let mark = if index == 0 { "- " } else { "  " };
        text.push_str(&format!("{}{mark}{line}\n", " ".repeat(indent)));
    }
}

fn label(key: &str) -> String {
    text::line(key.strip_suffix("_unix_ms").unwrap_or(key)).replace('_', " ")
}

fn scalar(key: &str, value: &Value, now: u64) -> String {
    match value {
        Value::Number(number) if key.ends_with("_unix_ms") => match number.as_u64() {
            Some(then) => format!("{} ({} ago)", text::moment(then), text::age(now, then)),
            None => number.to_string(),
        },
        Value::Null => "-".into(),
        Value::Array(list) if list.is_empty() => "-".into(),
        Value::Object(object) if object.is_empty() => "-".into(),
        Value::String(string) if string.is_empty() => "-".into(),
        Value::Array(list) => {
            let list: Vec<_> = list.iter().map(|one| plain(Some(one))).collect();
            text::line(&list.join(", "))
        }
        other => text::line(&plain(Some(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn instances() -> Vec<Value> {
        vec![
            json!({
                "instance_id": "6b02c146095d85ec50ef2ebe.0", "name": "clientsrvr.test.nginx.test.0",
                "number": 0, "state": "running", "detail": "", "restarts": 0, "exit": null,
                "since_unix_ms": 1_795_342_753_280_u64, "cluster": {"id": "c", "name": "local"},
                "node": {"id": "n", "name": "pi4-1", "address": "127.0.0.1"}, "tried": [],
            }),
            json!({
                "instance_id": "6b02c146095d85ec50ef2ebd.0", "name": "clientsrvr.test.curl.test.0",
                "number": 0, "state": "unplaceable", "detail": "no node has\n100 MiB free",
                "restarts": 0, "exit": null, "cluster": null, "node": null,
                "tried": [{"child": "pi4-1", "reason": "memory"}],
            }),
        ]
    }

    const NOW: u64 = 1_795_342_813_280;

    #[test]
    fn instances_in_a_table() {
        assert_eq!(
            list(Kind::Instance, &instances(), false, NOW, None),
            "\
NAME                          STATE        NODE   RESTARTS  SINCE  DETAIL
clientsrvr.test.curl.test.0   unplaceable  -      0         -      no node has 100 MiB free
clientsrvr.test.nginx.test.0  running      pi4-1  0         60s    -
"
        );
    }

    #[test]
    fn instances_in_a_narrow_terminal() {
        let drawn = list(Kind::Instance, &instances(), false, NOW, Some(72));
        assert_eq!(
            drawn,
            "\
NAME                     STATE        NODE   RESTARTS  SINCE  DETAIL
clientsr…st.curl.test.0  unplaceable  -      0         -      no node h…
clientsr…t.nginx.test.0  running      pi4-1  0         60s    -
"
        );
    }

    #[test]
    fn instances_in_the_wide_form() {
        let drawn = list(Kind::Instance, &instances()[..1], true, NOW, None);
        assert_eq!(
            drawn,
            "\
NAME                          STATE    NODE   RESTARTS  SINCE  CLUSTER  ADDRESS    ID                          DETAIL
clientsrvr.test.nginx.test.0  running  pi4-1  0         60s    local    127.0.0.1  6b02c146095d85ec50ef2ebe.0  -
"
        );
    }

    #[test]
    fn clusters_and_nodes_in_a_table() {
        let node = json!({
            "node_id": "6b02c146095d85ec50ef2ec1", "name": "pi4-1", "connected": true,
            "cluster": {"id": "c", "name": "local"}, "instances": 2, "cpu_permille": 125,
            "memory_used_mib": 612, "capacity": {"memory_mib": 3906},
        });
        let away = json!({"node_id": "n", "name": "pi4-2", "connected": false, "instances": 0,
            "cordoned": true, "cluster": {"id": "c", "name": "b", "path": "a/b"}});
        assert_eq!(
            list(Kind::Node, &[away, node], false, NOW, None),
            "\
NAME   STATE           CLUSTER  INSTANCES  CPU     MEMORY
pi4-1  connected       local    2          12.5 %  612 of 3906 MiB
pi4-2  away, cordoned  a/b      0          -       -
"
        );
        let cluster = json!({"cluster_id": "6b02c146095d85ec50ef2ec0", "name": "local",
            "parent": {"id": "r", "name": "root"},
            "connected": true, "nodes": 2, "instances": 2, "location": "48.1,11.5,1000",
            "virtualizations": ["container", "native"], "version": "0.1.0",
            "architectures": ["x86_64"], "capacity": {"memory_mib": 3906}});
        assert_eq!(
            list(Kind::Cluster, &[cluster], false, NOW, None),
            "\
NAME   STATE      PARENT  NODES  INSTANCES  CPU  MEMORY
local  connected  root    2      2          -    3906 MiB
"
        );
    }

    #[test]
    fn objects_are_described() {
        let mut text = String::new();
        let item = &instances()[1];
        let Value::Object(object) = item else { panic!("an object") };
        let mut object = object.clone();
        object.insert("since_unix_ms".into(), json!(1_795_342_753_280_u64));
        object.insert("node".into(), json!({"name": "pi", "labels": ["a", "b"]}));
        describe(&object, 0, NOW, &mut text);
        assert_eq!(
            text,
            "\
name:        clientsrvr.test.curl.test.0
state:       unplaceable
detail:      no node has 100 MiB free
exit:        -
restarts:    0
node:
  name:   pi
  labels: a, b
cluster:     -
instance id: 6b02c146095d85ec50ef2ebd.0
number:      0
since:       2026-11-22T10:19:13Z (60s ago)
tried:
  - child:  pi4-1
    reason: memory
"
        );
    }
}
