//! The bytes of version 1, one file for each message in `golden/`: what is written there was
//! sent by programs that are still running, so it is read for ever and written the same.
//!
//! `UPDATE=1` writes files that are missing; one that is there never changes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the golden files are read here, not in the crate")]

use marram_protocol::MESSAGE_BYTES_MAX;
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::port::{PortMapping, Transport};
use marram_protocol::state::InstanceState;
use marram_protocol::topic::Topic;
use marram_protocol::v1::*;
use proptest::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};

fn instance() -> InstanceId {
    let service = ServiceId([0x6b, 2, 0xc1, 0x46, 9, 0x5d, 0x85, 0xec, 0x50, 0xef, 0x2e, 0xbc]);
    InstanceId { service, number: 300 }
}

fn generation() -> Generation {
    Generation { epoch: 0x0123_4567_89ab_cdef, number: 41 }
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn resources(n: u32) -> Resources {
    Resources::of_amounts([n, n * 10, n + 1, n + 2, n + 3, n + 4, n + 5])
}

fn coordinate() -> Coordinate {
    Coordinate { x_us: -300, y_us: 70_000, height_us: 12, error_permille: 250 }
}

fn card() -> ClusterCard {
    ClusterCard {
        id: ChildId([3; 12]),
        parent: ChildId([4; 12]),
        name: "hall-2".into(),
        labels: texts(&["site=berlin"]),
        location: "48.26,11.67,1000".into(),
        address: "http://10.0.0.1:10001".into(),
        node_address: "mqtt://10.0.0.1:1883".into(),
        nodes: 12,
        connected: true,
        cordoned: false,
    }
}

fn kin() -> Kin {
    let ancestor = Ancestor {
        id: ChildId([1; 12]),
        name: "root".into(),
        labels: texts(&["site=berlin"]),
        address: "http://10.0.0.3:10000".into(),
        node_address: String::new(),
    };
    let alternate = Alternate {
        id: ChildId([2; 12]),
        name: "hall-1".into(),
        address: "http://10.0.0.2:10001".into(),
    };
    let node_alternate = Alternate { address: "mqtt://10.0.0.2:1883".into(), ..alternate.clone() };
    Kin {
        tree: 5,
        rooted: true,
        path: vec![ancestor],
        alternates: vec![alternate],
        node_alternates: vec![node_alternate],
    }
}

fn summary() -> Summary {
    Summary {
        nodes: 3,
        capacity: resources(4096),
        reserved: resources(100),
        largest_free: resources(1000),
        architectures: texts(&["amd64", "arm64"]),
        virtualizations: texts(&["container", "native"]),
        location: "48.26,11.67,1000".into(),
        labels: texts(&["site=berlin"]),
        addons: texts(&["overlay"]),
        gpu_models: texts(&["Orin"]),
        cut: true,
        coordinate: Some(coordinate()),
        reach_us: 900,
        cordoned: true,
        echoes: vec![peer()],
    }
}

fn peer() -> Peer {
    Peer { id: ChildId([8; 12]), address: "192.0.2.1:10007".into() }
}

fn workload() -> Workload {
    let spec = ServiceSpec {
        virtualization: "container".into(),
        runtime: Some("crun".into()),
        image: "docker.io/library/nginx:latest".into(),
        args: texts(&["sh", "-c", "true"]),
        environment: texts(&["A=b"]),
        resources: resources(100),
        pids_max: 64,
        ports: vec![
            PortMapping { host: 6080, workload: 60, transport: Transport::Tcp },
            PortMapping { host: 53, workload: 53, transport: Transport::Udp },
        ],
        one_shot: true,
        restart: RestartPolicy::OnFailure,
        stop_grace_s: 10,
        architectures: texts(&["arm64"]),
        placement: Placement {
            clusters: texts(&["c"]),
            nodes: texts(&["n"]),
            unsupported: texts(&["geo"]),
            labels: "gpu,tier!=lab".into(),
            addons: texts(&["overlay"]),
            proximity: vec![
                Proximity {
                    to: Anchor::Service("a.b.c.d".into()),
                    latency_us_max: Some(20_000),
                    distance_m_max: None,
                    rigidness_permille: 1000,
                },
                Proximity {
                    to: Anchor::Place(Geo { latitude_udeg: 48_100_000, longitude_udeg: -5 }),
                    latency_us_max: None,
                    distance_m_max: Some(120_000),
                    rigidness_permille: 500,
                },
                Proximity {
                    to: Anchor::Coordinate(coordinate()),
                    latency_us_max: Some(1),
                    distance_m_max: None,
                    rigidness_permille: 0,
                },
            ],
            spread: "zone".into(),
            with: texts(&["e.f.g.h"]),
            apart_from: texts(&["i.j.k.l"]),
            policy: "spread".into(),
            priority: -3,
        },
        patience: Patience { node_s: Some(60), cluster_s: None, parent_s: Some(30) },
        movement: MovePolicy::StopFirst,
        user: Some("1000:1000".into()),
        working_dir: Some("/srv".into()),
        mounts: vec![Mount { source: "/a".into(), target: "/b".into(), read_only: true }],
        devices: texts(&["/dev/fuse"]),
        read_only_root: true,
        private_namespaces: false,
        allow_unlimited: true,
        log_kib_max: 512,
        extra: r#"{"x":1}"#.into(),
    };
    Workload { instance: instance(), revision: 2, name: "a.b.c.d".into(), spec }
}

fn status(exit: Option<ExitCause>) -> InstanceStatus {
    InstanceStatus {
        instance: instance(),
        revision: 2,
        state: InstanceState::Failed,
        detail: "exit code 3".into(),
        restarts: 5,
        exit,
        since_unix_ms: 1_780_000_000_123,
        node: Some(NodeRef {
            id: ChildId([7; 12]),
            name: "board".into(),
            address: "192.0.2.1".into(),
        }),
    }
}

fn telemetry() -> Telemetry {
    Telemetry {
        incarnation: 99,
        sequence: 1000,
        cpu_permille: 250,
        memory_used_mib: 333,
        disk_free_mib: 100_000,
        temperature_decidegrees: Some(-55),
        pressure: Some(Pressure { cpu_permille: 1, memory_permille: 2, io_permille: 3 }),
        workloads: vec![WorkloadUsage { instance: instance(), cpu_permille: 1500, memory_mib: 64 }],
    }
}

fn ups() -> Vec<Up> {
    let stream = StreamId(17);
    let scope = Scope::Snapshot { first: true, last: false };
    let claim = Claim {
        instance: instance(),
        revision: 2,
        node: Some(ChildId([9; 12])),
        state: InstanceState::Running,
    };
    let missed = Missed {
        instance: instance(),
        unix_ms: 1_780_000_000_123,
        state: InstanceState::Failed,
        detail: "exit code 3".into(),
    };
    let hello = Hello {
        child: ChildId([7; 12]),
        kind: ChildKind::Cluster,
        name: "site".into(),
        version: "0.1.0".into(),
        incarnation: u64::MAX,
        generation: generation(),
        summary: summary(),
        facts: vec![("kernel".into(), "6.1".into())],
        tree: 5,
        preferred: Some(ChildId([8; 12])),
        address: "http://10.0.0.1:10001".into(),
        node_address: "mqtt://10.0.0.1:1883".into(),
        labels: texts(&["site=berlin"]),
    };
    let exits = [
        None,
        Some(ExitCause::Code(-1)),
        Some(ExitCause::Signal(9)),
        Some(ExitCause::OutOfMemory),
        Some(ExitCause::Lost),
    ];
    vec![
        Up::Hello(hello),
        Up::Presence { online: true, incarnation: 99 },
        Up::Observed {
            generation: Generation { epoch: 7, number: 300 },
            scope: Scope::Snapshot { first: true, last: false },
            statuses: exits.into_iter().map(status).collect(),
        },
        Up::Resync(generation()),
        Up::Fetch { generation: generation(), instances: vec![instance()] },
        Up::Summary(summary()),
        Up::Telemetry(telemetry()),
        Up::StreamData { stream, output: Output::Stderr, bytes: b"oh".to_vec() },
        Up::StreamEnd { stream, end: StreamEnd::Fault(StreamFault::TooMany, "32".into()) },
        Up::StreamCredit { stream, bytes: 300 },
        Up::Claim(vec![claim]),
        Up::Clusters { scope, cards: vec![card()], gone: vec![ChildId([9; 12])] },
        Up::Operated { operation: OperationId(7), end: OperationEnd::Refused("no".into()) },
        Up::Missed { entries: vec![missed], dropped: 3 },
    ]
}

fn downs() -> Vec<Down> {
    let stream = StreamId(17);
    let peers = Peers { key: EchoKey(0x0102_0304), peers: vec![peer()] };
    let exec = StreamRequest::Exec {
        instance: instance(),
        argv: texts(&["sh"]),
        terminal: Some((24, 80)),
    };
    vec![
        Down::Welcome { epoch: generation().epoch, unix_ms: 1_780_000_000_123 },
        Down::Rejected { reason: "the name board is taken".into() },
        Down::Change {
            base: generation(),
            generation: Generation { number: 42, ..generation() },
            upserts: vec![workload()],
            removes: vec![instance()],
        },
        Down::Manifest {
            generation: generation(),
            entries: vec![ManifestEntry { instance: instance(), digest: 0xfedc_ba98_7654_3210 }],
        },
        Down::Specs { generation: generation(), workloads: vec![workload()] },
        Down::StreamOpen { stream, request: exec },
        Down::StreamData { stream, bytes: b"ls\n".to_vec() },
        Down::StreamCredit { stream, bytes: CREDIT_BYTES },
        Down::StreamClose { stream },
        Down::StreamResize { stream, rows: 50, columns: 200 },
        Down::Kin(kin()),
        Down::Disown(vec![instance()]),
        Down::Operate {
            operation: OperationId(7),
            cluster: ChildId([8; 12]),
            child: Some("board".into()),
            verb: Verb::Drain,
        },
        Down::Peers(peers),
    ]
}

/// A new message does not compile until it has a name here, and fails until it has a file.
fn up_name(message: &Up) -> &'static str {
    match message {
        Up::Hello(_) => "up-hello",
        Up::Presence { .. } => "up-presence",
        Up::Observed { .. } => "up-observed",
        Up::Resync(_) => "up-resync",
        Up::Fetch { .. } => "up-fetch",
        Up::Summary(_) => "up-summary",
        Up::Telemetry(_) => "up-telemetry",
        Up::StreamData { .. } => "up-stream-data",
        Up::StreamEnd { .. } => "up-stream-end",
        Up::StreamCredit { .. } => "up-stream-credit",
        Up::Claim(_) => "up-claim",
        Up::Clusters { .. } => "up-clusters",
        Up::Operated { .. } => "up-operated",
        Up::Missed { .. } => "up-missed",
    }
}

fn down_name(message: &Down) -> &'static str {
    match message {
        Down::Welcome { .. } => "down-welcome",
        Down::Rejected { .. } => "down-rejected",
        Down::Change { .. } => "down-change",
        Down::Manifest { .. } => "down-manifest",
        Down::Specs { .. } => "down-specs",
        Down::StreamOpen { .. } => "down-stream-open",
        Down::StreamData { .. } => "down-stream-data",
        Down::StreamCredit { .. } => "down-stream-credit",
        Down::StreamClose { .. } => "down-stream-close",
        Down::StreamResize { .. } => "down-stream-resize",
        Down::Kin(_) => "down-kin",
        Down::Disown(_) => "down-disown",
        Down::Operate { .. } => "down-operate",
        Down::Peers(_) => "down-peers",
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn hex(bytes: &[u8]) -> String {
    let line = |part: &[u8]| part.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    assert_eq!(digits.len() % 2, 0, "an odd number of digits");
    digits
        .chunks(2)
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, hex(now)).unwrap();
    }
    let text = std::fs::read_to_string(&path);
    unhex(&text.unwrap_or_else(|error| panic!("{}: {error}, run with UPDATE=1", path.display())))
}

#[test]
fn every_message_is_written_and_read_as_ever() {
    for message in ups() {
        let name = up_name(&message);
        let bytes = message.encode().unwrap();
        let golden = golden(name, &bytes);
        assert_eq!(hex(&bytes), hex(&golden), "{name}");
        assert_eq!(Up::decode(&golden).as_ref(), Ok(&message), "{name}");
    }
    for message in downs() {
        let name = down_name(&message);
        let bytes = message.encode().unwrap();
        let golden = golden(name, &bytes);
        assert_eq!(hex(&bytes), hex(&golden), "{name}");
        assert_eq!(Down::decode(&golden).as_ref(), Ok(&message), "{name}");
    }
}

#[test]
fn every_message_has_its_number_and_a_file() {
    let number = |n: usize| u8::try_from(n).unwrap();
    for (n, message) in ups().iter().enumerate() {
        assert_eq!(message.encode().unwrap()[..3], [1, 1, number(n)], "{message:?}");
    }
    for (n, message) in downs().iter().enumerate() {
        assert_eq!(message.encode().unwrap()[..3], [1, 2, number(n)], "{message:?}");
    }
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, ups().len() + downs().len(), "a file for each message and no other");
}

fn numbers<T: Serialize + std::fmt::Debug>(all: &[T]) {
    for (number, value) in all.iter().enumerate() {
        let bytes = postcard::to_stdvec(value).unwrap();
        assert_eq!(usize::from(bytes[0]), number, "{value:?}");
    }
}

#[test]
fn words_inside_messages_have_their_numbers() {
    use StreamFault::{Failed, NotFound, TooMany, Unreachable, Unsupported};
    use StreamRequest::{Children, ChildrenOf, Exec, Explain, Logs};
    numbers(&[ChildKind::Node, ChildKind::Cluster]);
    numbers(&[Scope::Change, Scope::Snapshot { first: false, last: false }]);
    numbers(&[RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]);
    numbers(&[Transport::Tcp, Transport::Udp]);
    numbers(&[ExitCause::Code(0), ExitCause::Signal(0), ExitCause::OutOfMemory, ExitCause::Lost]);
    numbers(&[Output::Stdout, Output::Stderr]);
    numbers(&[NotFound, Unsupported, Unreachable, TooMany, Failed]);
    let fault = StreamEnd::Fault(Failed, String::new());
    numbers(&[StreamEnd::Done, StreamEnd::Exited(ExitCause::Lost), fault]);
    let (instance, cluster) = (instance(), ChildId([1; 12]));
    let logs = Logs { instance, tail_lines: None, follow: false };
    let exec = Exec { instance, argv: vec![], terminal: None };
    numbers(&[logs, exec, Children, Explain { instance }, ChildrenOf { cluster }]);
}

#[test]
fn the_digest_of_a_workload_never_changes() {
    // A node that kept its state over an upgrade compares it with what its cluster says.
    assert_eq!(workload().digest(), 0x8656_380b_e0ac_361a);
    assert_ne!(workload().digest(), Workload { revision: 3, ..workload() }.digest());
}

#[test]
fn what_is_no_message_is_refused_with_the_reason() {
    let good = Up::Presence { online: true, incarnation: 1 }.encode().unwrap();
    assert_eq!(good, [1, 1, 1, 1, 1]);
    let table: &[(&[u8], CodecError, &str)] = &[
        (&[], CodecError::TooShort(0), "a message begins with a version and a kind, got 0 bytes"),
        (&[1], CodecError::TooShort(1), "a message begins with a version and a kind, got 1 bytes"),
        (&[0, 1, 1], CodecError::Version(0), "message version 0 is not known here, known is 1"),
        (&[2, 1, 1], CodecError::Version(2), "message version 2 is not known here, known is 1"),
        (&[1, 2, 1], CodecError::Kind(2), "message kind 2 was not expected here"),
        (&[1, 0, 1], CodecError::Kind(0), "message kind 0 was not expected here"),
        (&[1, 1, 1, 1, 1, 9, 9], CodecError::Trailing(2), "2 bytes after the end of the message"),
    ];
    for (bytes, error, text) in table {
        assert_eq!(Up::decode(bytes).as_ref(), Err(error));
        assert_eq!(error.to_string(), *text);
    }
    let down = Down::StreamClose { stream: StreamId(1) }.encode().unwrap();
    assert_eq!(Up::decode(&down), Err(CodecError::Kind(2)));
    assert_eq!(Down::decode(&good), Err(CodecError::Kind(1)));
    for body in [&[1, 1][..], &[1, 1, 9], &[1, 1, 200, 1], &[1, 1, 1, 2, 1], &[1, 1, 1, 1]] {
        assert!(matches!(Up::decode(body), Err(CodecError::Body(_))), "{body:?}");
    }
    let long = vec![1; MESSAGE_BYTES_MAX + 1];
    assert_eq!(Up::decode(&long), Err(CodecError::TooLong(long.len())));
    assert_eq!(Down::decode(&long), Err(CodecError::TooLong(long.len())));
    let data = Down::StreamData { stream: StreamId(1), bytes: vec![0; MESSAGE_BYTES_MAX] };
    assert_eq!(data.encode(), Err(CodecError::TooLong(MESSAGE_BYTES_MAX + 7)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for kind in [1, 2] {
            let message = [&[1, kind][..], &bytes].concat();
            for input in [&bytes, &message] {
                if let Ok(up) = Up::decode(input) {
                    prop_assert_eq!(Up::decode(&up.encode().unwrap()), Ok(up));
                }
                if let Ok(down) = Down::decode(input) {
                    prop_assert_eq!(Down::decode(&down.encode().unwrap()), Ok(down));
                }
            }
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            prop_assert!(text.parse::<Topic>().is_err() || bytes.len() > 30);
        }
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(
        which in 0..19usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let all: Vec<Vec<u8>> = ups()
            .iter()
            .map(|m| m.encode().unwrap())
            .chain(downs().iter().map(|m| m.encode().unwrap()))
            .collect();
        let mut bytes = all[which].clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(up) = Up::decode(&bytes) {
            prop_assert_eq!(Up::decode(&up.encode().unwrap()), Ok(up));
        }
        if let Ok(down) = Down::decode(&bytes) {
            prop_assert_eq!(Down::decode(&down.encode().unwrap()), Ok(down));
        }
    }
}
