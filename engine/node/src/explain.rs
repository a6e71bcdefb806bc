//! What the node says of an instance to who asks why it is here, or why it does not run.
//!
//! Why apart: it is for people and for tools that read JSON, unlike everything else that a
//! node says.

use marram_engine_core::Engine;
use marram_protocol::id::InstanceId;
use serde_json::json;

/// One line of JSON; `None` if the node knows nothing of the instance.
pub(crate) fn line(engine: &Engine, instance: InstanceId) -> Option<Vec<u8>> {
    let (slot, node) = (engine.slot(instance)?, engine.identity());
    let status = slot.status;
    let value = json!({
        "tier": "node",
        "id": node.id,
        "name": node.name,
        "state": status.state.name(),
        "detail": status.detail,
        "since_unix_ms": status.since_unix_ms,
        "desired": slot.desired.is_some(),
        "running": slot.is_running,
        "restarts": status.restarts,
        "exit": status.exit.map(marram_protocol::v1::ExitCause::to_json),
        "backend": slot.backend,
        "revision": status.revision,
    });
    Some(format!("{value}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_engine_core::{Identity, Input, Now};
    use marram_protocol::id::{ChildId, ServiceId};
    use marram_protocol::v1::{Down, Generation, ServiceSpec, Workload};

    #[test]
    fn an_instance_is_explained_on_one_line_and_no_other_is() {
        let identity = Identity {
            id: ChildId([7; 12]),
            name: "board".into(),
            version: "1".into(),
            incarnation: 1,
        };
        let mut engine = Engine::restore(identity, None, Now::default()).unwrap();
        let instance = InstanceId { service: ServiceId([1; 12]), number: 3 };
        assert_eq!(line(&engine, instance), None);
        let generation = Generation { epoch: 5, number: 1 };
        let workload = Workload {
            instance,
            revision: 2,
            name: "a.b.c.d.3".into(),
            spec: ServiceSpec { virtualization: "native".into(), ..ServiceSpec::default() },
        };
        engine.handle(Now::default(), Input::LinkUp { preferred: None });
        let welcome = Down::Welcome { epoch: 5, unix_ms: 1 };
        engine.handle(Now::default(), Input::Parent(welcome));
        let base = Generation { epoch: 5, number: 0 };
        let (upserts, removes) = (vec![workload], vec![]);
        let empty = Down::Manifest { generation: base, entries: vec![] };
        engine.handle(Now::default(), Input::Parent(empty));
        let change = Down::Change { base, generation, upserts, removes };
        engine.handle(Now::default(), Input::Parent(change));
        let told = String::from_utf8(line(&engine, instance).unwrap()).unwrap();
        assert_eq!(told.matches('\n').count(), 1);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["tier"], &told["name"]), (&json!("node"), &json!("board")));
        assert_eq!((&told["desired"], &told["revision"]), (&json!(true), &json!(2)));
        assert_eq!((&told["exit"], &told["restarts"]), (&json!(null), &json!(0)));
    }
}
