//! What the client knows of an instance: the fields of the server's object that it acts on.
//!
//! Why not the whole object: what is only shown is shown from the object itself, so that a newer
//! server's fields and states appear without a newer client.

use serde_json::Value;

use crate::names::{Kind, field, full_name};
use crate::text;

/// An instance as last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// `SERVICE.NUMBER`.
    pub(crate) id: String,
    /// `app.ns.svc.ns.N`.
    pub(crate) name: String,
    /// One of the protocol's names.
    pub(crate) state: String,
    /// In one line, why it is so; may be empty.
    pub(crate) detail: String,
    /// How it ended, in words; empty while it has not.
    pub(crate) exit: String,
    /// How often it was started again.
    pub(crate) restarts: u64,
    /// The node's name; empty while there is none.
    pub(crate) node: String,
    /// Who refused it and why: `child: reason`.
    pub(crate) tried: Vec<String>,
}

/// What a state means to somebody who waits for "up".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// On its way.
    Pending,
    /// Running, or done with what it had to do.
    Up,
    /// Not placed now; that may change, for example when a node joins.
    Stuck,
    /// Will not come up any more.
    Over,
}

impl Instance {
    /// Reads the server's object; what is missing is empty.
    pub(crate) fn read(item: &Value) -> Self {
        let tried = item.get("tried").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let tried = tried
            .iter()
            .map(|one| text::line(&format!("{}: {}", field(one, "child"), field(one, "reason"))));
        Self {
            id: text::line(field(item, "instance_id")),
            name: text::line(&full_name(Kind::Instance, item)),
            state: text::line(field(item, "state")),
            detail: text::line(field(item, "detail")),
            exit: exit(item.get("exit")),
            restarts: item.get("restarts").and_then(Value::as_u64).unwrap_or_default(),
            node: text::line(field(item.get("node").unwrap_or(&Value::Null), "name")),
            tried: tried.collect(),
        }
    }

    /// Where it stands for somebody who waits.
    pub(crate) fn standing(&self) -> Standing {
        match self.state.as_str() {
            "running" | "completed" => Standing::Up,
            "dead" | "undeployed" => Standing::Over,
            "refused" | "unplaceable" => Standing::Stuck,
            _ => Standing::Pending,
        }
    }

    /// Why it is so, in one line; empty if there is nothing to say. While it runs, how it ended
    /// the last time is no news.
    pub(crate) fn why(&self) -> &str {
        match self.detail.as_str() {
            "" if self.state != "running" => &self.exit,
            detail => detail,
        }
    }
}

/// How it ended, in words; empty if it has not.
pub(crate) fn exit(exit: Option<&Value>) -> String {
    let Some(exit) = exit.filter(|exit| !exit.is_null()) else { return String::new() };
    if let Some(code) = exit.get("code").and_then(Value::as_i64) {
        format!("exit code {code}")
    } else if let Some(signal) = exit.get("signal").and_then(Value::as_i64) {
        format!("killed by signal {signal}")
    } else if exit.get("out_of_memory").is_some() {
        "out of memory".into()
    } else if exit.get("lost").is_some() {
        "lost".into()
    } else {
        text::line(&exit.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_protocol::state::InstanceState;
    use serde_json::json;

    #[test]
    fn objects_are_read_with_or_without_their_parts() {
        let whole = Instance::read(&json!({
            "instance_id": "a.0", "name": "app.ns.svc.ns.0", "state": "dead",
            "detail": "after 5 restarts", "restarts": 5, "exit": {"code": 1},
            "node": {"id": "n", "name": "pi"}, "tried": [{"child": "pi2", "reason": "no\nroom"}],
        }));
        assert_eq!(whole.name, "app.ns.svc.ns.0");
        assert_eq!((whole.why(), whole.exit.as_str()), ("after 5 restarts", "exit code 1"));
        let silent = |state| json!({"state": state, "detail": "", "exit": {"code": 1}});
        assert_eq!(Instance::read(&silent("dead")).why(), "exit code 1");
        assert_eq!(Instance::read(&silent("running")).why(), "");
        assert_eq!((whole.node.as_str(), whole.restarts), ("pi", 5));
        assert_eq!(whole.tried, ["pi2: no room"]);
        let empty = Instance::read(&json!({"node": null, "exit": null, "tried": 7}));
        assert_eq!((empty.why(), empty.standing()), ("", Standing::Pending));
    }

    #[test]
    fn every_state_has_its_standing() {
        for state in InstanceState::ALL {
            let item = json!({"state": state.name()});
            let expected = match state {
                InstanceState::Running | InstanceState::Completed => Standing::Up,
                InstanceState::Dead | InstanceState::Undeployed => Standing::Over,
                InstanceState::Refused | InstanceState::Unplaceable => Standing::Stuck,
                _ => Standing::Pending,
            };
            assert_eq!(Instance::read(&item).standing(), expected, "{state:?}");
        }
    }

    #[test]
    fn ends_are_told_in_words() {
        for (value, words) in [
            (json!({"code": 0}), "exit code 0"),
            (json!({"signal": 9}), "killed by signal 9"),
            (json!({"out_of_memory": true}), "out of memory"),
            (json!({"lost": true}), "lost"),
            (json!({"new": 1}), "{\"new\":1}"),
            (Value::Null, ""),
        ] {
            assert_eq!(exit(Some(&value)), words);
        }
    }
}
