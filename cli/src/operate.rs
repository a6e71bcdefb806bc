//! `cordon`, `uncordon`, `drain`, `forget`, `rebalance`, `adopt` and `scale`: what changes where
//! workloads run and how many there are.
//!
//! Why the server resolves names here: only it sees the whole tree at one moment, and an
//! operation goes to each that is meant once and to nobody else.

use serde_json::{Value, json};

use crate::apply::follow;
use crate::args::{OperateArgs, ScaleArgs};
use crate::client::Client;
use crate::error::Error;
use crate::names::{Kind, field, resolve};
use crate::table::{self, Column, Cut};
use crate::text;
use crate::ui::{Format, Ui};
use crate::wait::{Goal, Wait};

const COLUMNS: &[Column] =
    &[("TARGET", Cut::Middle), ("KIND", Cut::Never), ("RESULT", Cut::Never), ("DETAIL", Cut::End)];

/// Runs an operation with each that is meant.
pub(crate) fn run(ui: Ui, client: &Client, verb: &str, args: &OperateArgs) -> Result<(), Error> {
    let selector = args.selector.as_deref().unwrap_or_default();
    if args.targets.is_empty() && selector.is_empty() && verb != "rebalance" {
        return Err(Error::Usage(format!(
            "{verb} whom? name clusters or nodes, or choose them: --selector"
        )));
    }
    let body = json!({
        "verb": verb,
        "targets": args.targets,
        "selector": selector,
        "nodes": args.nodes,
        "dry_run": args.dry_run,
    });
    let answer = client.operate("/api/v1/operations", body.to_string().as_bytes())?;
    let items = client.items(answer.clone())?;
    if items.is_empty() {
        let kind = if args.nodes { "node" } else { "cluster" };
        return Err(Error::NotFound { kind, name: selector.into(), hint: String::new() });
    }
    match ui.format {
        Format::Json => ui.print_json(&answer)?,
        _ => ui.print(&drawn(&items, ui.table_columns()))?,
    }
    let failed =
        items.iter().filter(|item| !matches!(field(item, "result"), "done" | "matched")).count();
    match failed {
        0 => Ok(()),
        _ => Err(Error::Failed(format!("{failed} of {} could not be done", items.len()))),
    }
}

fn drawn(items: &[Value], width: Option<usize>) -> String {
    let row = |item: &Value| {
        ["target", "kind", "result", "detail"].map(|key| text::line(field(item, key))).to_vec()
    };
    table::render(COLUMNS, &items.iter().map(row).collect::<Vec<_>>(), width)
}

/// Runs `marram adopt`.
pub(crate) fn adopt(ui: Ui, client: &Client, child: &str) -> Result<(), Error> {
    let foreign = client.list("/api/v1/foreign")?;
    let fits: Vec<&Value> = foreign
        .iter()
        .filter(|one| [field(one, "id"), field(one, "name")].contains(&child))
        .collect();
    let named = |one: &&Value| format!("{}  ({})", field(one, "name"), field(one, "id"));
    let (kind, name) = ("foreign child", child.to_owned());
    match fits[..] {
        [one] => {
            let path = format!("/api/v1/foreign/{}/adopt", field(one, "id"));
            let answer = client.post(&path, b"{}")?;
            ui.note(&format!("{} is taken when it asks again", text::line(field(one, "name"))));
            match ui.format {
                Format::Json => ui.print_json(&answer),
                _ => Ok(()),
            }
        }
        [] => Err(Error::NotFound { kind, name, hint: String::new() }),
        _ => {
            let candidates = fits.iter().map(named).collect();
            Err(Error::Ambiguous { kind, name, candidates })
        }
    }
}

/// Runs `marram scale`.
pub(crate) fn scale(ui: Ui, client: &Client, args: &ScaleArgs) -> Result<(), Error> {
    let named = resolve(client, Kind::Service, &args.service)?;
    let path = format!("{}/scale", Kind::Service.item_path(&named.id));
    let body = json!({"replicas": args.replicas}).to_string();
    let answer = client.put(&path, body.as_bytes())?;
    let ids = |key: &str| -> Vec<String> {
        let list = answer.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (added, removed) = (ids("added"), ids("removed"));
    ui.note(&format!(
        "{}: {} instances, {} new, {} removed",
        text::line(&named.name),
        ids("instances").len(),
        added.len(),
        removed.len()
    ));
    if args.wait.wait {
        let timeout = args.wait.timeout;
        let up = follow(ui, client, Wait::new(Goal::Up, added), timeout)?;
        // To be gone cannot fail, only take too long.
        follow(ui, client, Wait::new(Goal::Gone, removed), timeout)?.ok();
        up.map_err(|wait| crate::apply::not_up(ui, client, &wait))?;
    }
    match ui.format {
        Format::Json => ui.print_json(&answer),
        _ => ui.print(&ids("instances").iter().map(|id| format!("{id}\n")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_listed_in_the_order_they_were_asked_for() {
        let items = [
            json!({"target": "b/pi", "kind": "node", "result": "done", "detail": ""}),
            json!({"target": "a", "kind": "cluster", "result": "refused", "detail": "is\nconnected"}),
        ];
        assert_eq!(
            drawn(&items, None),
            "\
TARGET  KIND     RESULT   DETAIL
b/pi    node     done     -
a       cluster  refused  is connected
"
        );
    }
}
