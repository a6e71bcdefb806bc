//! Documents that are right, what becomes of them, and that nothing lies between the table of
//! rules and the typed model.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use marram_protocol::MESSAGE_BYTES_MAX;
use marram_protocol::id::{InstanceId, ServiceId};
use marram_protocol::port::{PortMapping, Transport};
use marram_protocol::sla::{self, SERVICE_BYTES_MAX, SlaErrors, service_spec};
use marram_protocol::v1::{
    Anchor, Down, Generation, Geo, Mount, MovePolicy, Patience, Placement, Proximity, Resources,
    RestartPolicy, ServiceSpec, Workload,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const FULL: &str = include_str!("full.json");
const CLIENTSRVR: &str = include_str!("../../examples/clientsrvr.json");

#[test]
fn oakestras_own_example_is_read() {
    let sla = sla::parse(CLIENTSRVR.as_bytes()).unwrap();
    let [application] = &sla.applications[..] else { panic!("{:?}", sla.applications) };
    let [curl, nginx] = &application.microservices[..] else { panic!("two services") };
    let curl = service_spec(curl);
    assert_eq!(curl.args, ["sh", "-c", "tail -f /dev/null"]);
    assert_eq!(
        curl.resources,
        Resources { memory_mib: 100, cpu_millicores: 1000, ..Resources::default() }
    );
    assert_eq!(curl.restart, RestartPolicy::Always);
    let nginx = service_spec(nginx);
    assert_eq!(nginx.image, "docker.io/library/nginx:latest");
    assert_eq!(nginx.ports, [PortMapping { host: 6080, workload: 60, transport: Transport::Tcp }]);
    assert_eq!(nginx.placement, Placement::default());
    assert_eq!(nginx.extra, r#"{"addresses":{"rr_ip":"10.30.30.30"}}"#);
}

#[test]
fn every_field_arrives_and_strange_ones_are_kept() {
    let document: Value = serde_json::from_str(FULL).unwrap();
    let sla = sla::parse(FULL.as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&sla).unwrap(), document);

    let service = &document["applications"][0]["microservices"][0];
    let spec = service_spec(&sla.applications[0].microservices[0]);
    let extra: Value = serde_json::from_str(&spec.extra).unwrap();
    for key in [
        "vtpus",
        "state",
        "args",
        "added_files",
        "sla_violation_strategy",
        "target_node",
        "addresses",
        "volumes",
        "constraints",
        "connectivity",
        "vm_images",
        "platform",
        "x_service",
    ] {
        assert_eq!(extra[key], service[key], "{key}");
    }
    let own = &service["marram"];
    let kept = json!({
        "x_marram": "kept",
        "mounts": own["mounts"],
        "patience": own["patience"],
        "placement": own["placement"],
    });
    assert_eq!(extra["marram"], kept);
    assert_eq!(extra.as_object().unwrap().len(), 14, "{extra}");
}

#[test]
fn what_decides_something_is_in_the_spec() {
    let sla = sla::parse(FULL.as_bytes()).unwrap();
    let spec = service_spec(&sla.applications[0].microservices[0]);
    assert_eq!(spec.runtime.as_deref(), Some("crun"));
    assert_eq!(spec.resources, Resources::of_amounts([100, 250, 1, 6, 512, 4, 5]));
    assert_eq!((spec.pids_max, spec.stop_grace_s, spec.log_kib_max), (64, 3, 64));
    assert!(spec.one_shot && spec.read_only_root && spec.private_namespaces);
    assert!(spec.allow_unlimited);
    assert_eq!(spec.restart, RestartPolicy::OnFailure);
    assert_eq!(spec.user.as_deref(), Some("1000:1000"));
    assert_eq!(spec.devices, ["/dev/ttyS0", "/dev/fuse"]);
    assert_eq!(spec.mounts, [Mount { source: "/a".into(), target: "/b".into(), read_only: true }]);
    assert_eq!(
        spec.patience,
        Patience { node_s: Some(60), cluster_s: Some(120), parent_s: Some(30) }
    );
    assert_eq!(spec.movement, MovePolicy::StopFirst);
    assert_eq!(sla.applications[0].microservices[0].vcpus.millicores, 2250);
}

#[test]
fn where_it_may_run_is_in_the_spec() {
    let sla = sla::parse(FULL.as_bytes()).unwrap();
    let spec = service_spec(&sla.applications[0].microservices[0]);
    let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let bound = |to, latency_us_max, distance_m_max, rigidness_permille| Proximity {
        to,
        latency_us_max,
        distance_m_max,
        rigidness_permille,
    };
    let munich = Geo { latitude_udeg: 48_137_200, longitude_udeg: 11_575_500 };
    let here = Geo { latitude_udeg: 48_260_000, longitude_udeg: 11_670_000 };
    let other = Anchor::Service("6b02c146095d85ec50ef2ebd".into());
    let placement = Placement {
        clusters: texts(&["c2"]),
        nodes: texts(&["n1", "n2"]),
        labels: "site=berlin,!lab".into(),
        addons: texts(&["image_builder", "fuse"]),
        proximity: vec![
            bound(Anchor::Place(munich), Some(100_000), None, 500),
            bound(Anchor::Place(here), None, Some(10_500), 1000),
            bound(other, Some(50_000), None, 100),
        ],
        spread: "rack".into(),
        with: texts(&["db"]),
        apart_from: texts(&["nginx.test", "a.b.c.d"]),
        policy: "ldp".into(),
        priority: -5,
        unsupported: texts(&["volumes"]),
    };
    assert_eq!(spec.placement, placement);
}

fn spec_with(changes: Value) -> ServiceSpec {
    let mut document: Value = serde_json::from_str(CLIENTSRVR).unwrap();
    let service = document["applications"][0]["microservices"][0].as_object_mut().unwrap();
    service.extend(changes.as_object().unwrap().clone());
    let sla = sla::check(document).unwrap();
    service_spec(&sla.applications[0].microservices[0])
}

#[test]
fn a_service_that_says_nothing_has_the_usual_patience() {
    let spec = spec_with(json!({}));
    assert_eq!(spec.patience, Patience::default());
    assert_eq!(spec.movement, MovePolicy::StartFirst);
    let spec = spec_with(json!({"marram": {"on_loss": "wait", "patience": {"parent_s": 900}}}));
    let expected = Patience { node_s: None, cluster_s: None, parent_s: Some(900) };
    assert_eq!(spec.patience, expected);
    let spec = spec_with(json!({"marram": {"on_loss": "replace", "patience": {"cluster_s": 5}}}));
    assert_eq!(spec.patience, Patience { cluster_s: Some(5), ..Patience::default() });
    let spec = spec_with(json!({"marram": {"move": "never"}}));
    assert_eq!(spec.movement, MovePolicy::Never);
}

#[test]
fn cores_are_whole_or_not() {
    for (vcpus, millicores) in [
        (json!(0.25), 250),
        (json!(0.001), 1),
        (json!(2.0), 2000),
        (json!(4096), 4_096_000),
        (json!(0.1), 100),
        (json!(1234.567), 1_234_567),
    ] {
        assert_eq!(spec_with(json!({"vcpus": vcpus})).resources.cpu_millicores, millicores);
    }
}

#[test]
fn constraints_of_one_kind_hold_together() {
    let table = [
        json!({"type": "direct", "cluster": "edge-*;c;site=berlin"}),
        json!({"type": "clusters", "allowed": ["edge-*"]}),
        json!({"type": "clusters", "allowed": ["x=y", "edge-1"]}),
    ];
    let second = json!({"type": "clusters", "allowed": ["edge-1", "c", "c&x=y"]});
    let clusters =
        |first: &Value| spec_with(json!({"constraints": [first, second]})).placement.clusters;
    let all = clusters(&table[0]);
    let expected = [
        "edge-1",
        "edge-*&c&x=y",
        "c",
        "c&c&x=y",
        "site=berlin&edge-1",
        "site=berlin&c",
        "site=berlin&c&x=y",
    ];
    assert_eq!(all, expected);
    assert_eq!(clusters(&table[1]), ["edge-1", "edge-*&c&x=y"]);
    assert_eq!(clusters(&table[2])[0], "x=y&edge-1");
}

#[test]
fn what_cannot_be_judged_is_named() {
    let connectivity = json!([{
        "target_microservice_id": "db",
        "con_constraints": [
            {"type": "bandwidth", "threshold": 5, "rigidness": 1, "convergence_time": 3},
            {"type": "geo", "threshold": 0.5, "rigidness": 0, "convergence_time": 3},
        ],
    }]);
    let latency = json!([{"type": "latency", "area": "atlantis", "threshold": 5}]);
    let spec = spec_with(json!({"constraints": latency, "connectivity": connectivity}));
    let expected = ["latency to \"atlantis\"", "connectivity of type \"bandwidth\""];
    assert_eq!(spec.placement.unsupported, expected);
    let near = Proximity {
        to: Anchor::Service("db".into()),
        latency_us_max: None,
        distance_m_max: Some(500),
        rigidness_permille: 0,
    };
    assert_eq!(spec.placement.proximity, [near]);
}

#[test]
fn constraints_without_a_common_name_leave_nobody() {
    let mut document: Value = serde_json::from_str(CLIENTSRVR).unwrap();
    document["applications"][0]["microservices"][0]["constraints"] = json!([
        {"type": "direct", "cluster": "a; b ;"},
        {"type": "clusters", "allowed": ["c"]},
    ]);
    let sla = sla::check(document).unwrap();
    let spec = service_spec(&sla.applications[0].microservices[0]);
    assert_eq!(spec.placement.clusters, [""]);
    assert!(spec.placement.nodes.is_empty());
}

#[test]
fn what_is_written_is_read_again() {
    let sla = sla::parse(CLIENTSRVR.as_bytes()).unwrap();
    let text = serde_json::to_string(&sla).unwrap();
    assert_eq!(sla::parse(text.as_bytes()).unwrap(), sla);
}

#[test]
fn two_of_the_longest_services_fit_a_message() {
    let mut document: Value = serde_json::from_str(FULL).unwrap();
    let service = &mut document["applications"][0]["microservices"][0];
    // Short texts and floats are where the encoded form is longest beside the JSON.
    service["environment"] = vec![json!("A="); 512].into();
    service["x_floats"] = vec![json!(1e15); 1000].into();
    service["cmd"] = json!([]);
    let room = SERVICE_BYTES_MAX - service.to_string().len() - 4;
    service["cmd"] = json!(["x".repeat(40_000), "x".repeat(room - 40_002)]);
    let bytes = service.to_string().len();
    assert!(bytes <= SERVICE_BYTES_MAX && bytes > SERVICE_BYTES_MAX - 10, "{bytes}");
    let sla = sla::check(document).unwrap();
    let workload = Workload {
        instance: InstanceId { service: ServiceId([1; 12]), number: u32::MAX },
        revision: u32::MAX,
        name: "x".repeat(4 * 30 + 3),
        spec: service_spec(&sla.applications[0].microservices[0]),
    };
    let generation = Generation { epoch: u64::MAX, number: u64::MAX };
    let bytes = postcard::to_stdvec(&workload).unwrap().len();
    assert!(bytes <= 96 * 1024, "{bytes}");
    let message = Down::Specs { generation, workloads: vec![workload; 2] };
    assert!(message.encode().unwrap().len() <= MESSAGE_BYTES_MAX);
}

/// Values that are wrong in most places and right in some.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..200i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0.0..2.0f64).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "[a-z0-9/:;=.]{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{}, null])),
        Just(json!({"type": "geo", "threshold": 18446744073709551615u64})),
    ]
}

/// All places of a document, as JSON pointers.
fn places(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| places(value, format!("{at}/{key}"), into));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, v)| places(v, format!("{at}/{n}"), into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    into.push(at);
}

/// Whether the table took what the typed model could not read.
fn is_gap(errors: &SlaErrors) -> bool {
    matches!(errors, SlaErrors::Fields(all)
        if all.iter().any(|e| e.found == "a document that cannot be read"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_document_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..6),
        removed in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut document: Value = serde_json::from_str(FULL).unwrap();
        for (at, value) in changes {
            let mut all = Vec::new();
            places(&document, String::new(), &mut all);
            *document.pointer_mut(&all[at.index(all.len())]).unwrap() = value;
        }
        if let Some(at) = removed {
            let mut all = Vec::new();
            places(&document, String::new(), &mut all);
            if let Some((parent, key)) = all[at.index(all.len())].rsplit_once('/')
                && let Some(Value::Object(object)) = document.pointer_mut(parent)
            {
                object.remove(key);
            }
        }
        match sla::parse(document.to_string().as_bytes()) {
            Ok(sla) => {
                let again = serde_json::to_string(&sla).unwrap();
                prop_assert_eq!(sla::parse(again.as_bytes()), Ok(sla.clone()));
                for service in sla.applications.iter().flat_map(|a| &a.microservices) {
                    let spec = service_spec(service);
                    prop_assert!(
                        spec.extra.is_empty() || serde_json::from_str::<Value>(&spec.extra).is_ok()
                    );
                }
            }
            Err(errors) => prop_assert!(!is_gap(&errors), "{}", errors),
        }
    }

    #[test]
    fn one_field_at_a_time_leaves_no_gap(at in any::<prop::sample::Index>(), value in value()) {
        let mut document: Value = serde_json::from_str(FULL).unwrap();
        let mut all = Vec::new();
        places(&document, String::new(), &mut all);
        *document.pointer_mut(&all[at.index(all.len())]).unwrap() = value;
        if let Err(errors) = sla::check(document) {
            prop_assert!(!is_gap(&errors), "{}", errors);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(sla::parse(&bytes).is_err());
    }

    #[test]
    fn a_damaged_text_is_read_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Err(errors) = sla::parse(&bytes) {
            prop_assert!(!is_gap(&errors), "{}", errors);
        }
    }
}
