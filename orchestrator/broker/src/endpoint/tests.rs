//! One connection fed by hand: any bytes in any portions, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use proptest::prelude::*;

use super::Endpoint;
use crate::auth::{AllowAll, PeerIdentity};
use crate::config::{Config, Quota, WRITE_STALL_MS_MAX};
use crate::reason::Reason;
use crate::shared::Shared;

/// CONNECT, version 5, keep alive 10 s, id "a".
const CONNECT: &[u8] = &[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 10, 0, 0, 1, b'a'];
const SUBSCRIBE_ALL: &[u8] = &[0x82, 7, 0, 1, 0, 0, 1, b'#', 0];
/// PUBLISH, QoS 1, packet id 9, topic "t", payload "x".
const PUBLISH: &[u8] = &[0x32, 7, 0, 1, b't', 0, 9, 0, b'x'];
const PING: &[u8] = &[0xC0, 0];

fn endpoint(config: Config) -> Endpoint {
    let shared = Arc::new(Shared::new(config, Arc::new(AllowAll)));
    Endpoint::new(shared, PeerIdentity::Anonymous, None, 10_000)
}

/// All output since the last call.
fn output(endpoint: &mut Endpoint, now: u64) -> Vec<u8> {
    endpoint.fill(now, Waker::noop()).ok();
    let bytes = endpoint.output().to_vec();
    endpoint.wrote(now, bytes.len());
    bytes
}

#[tokio::test]
async fn packets_may_come_in_any_portions() {
    let stream = [CONNECT, SUBSCRIBE_ALL, PUBLISH, PING].concat();
    for portion in 1..=stream.len() {
        let mut endpoint = endpoint(Config::default());
        let mut answer = Vec::new();
        for bytes in stream.chunks(portion) {
            endpoint.receive(5, bytes).expect("a valid stream");
            answer.extend(output(&mut endpoint, 5));
        }
        let kinds = ["20", "90", "40", "d0", "30"].map(|k| u8::from_str_radix(k, 16).expect("hex"));
        let mut seen = Vec::new();
        let mut rest = answer.as_slice();
        while let Some(frame) = crate::codec::frame::first(rest, 10_000).expect("well-formed") {
            seen.push(frame.header);
            rest = &rest[frame.len..];
        }
        seen.sort_unstable();
        let mut kinds = kinds.to_vec();
        kinds.sort_unstable();
        assert_eq!(seen, kinds, "in portions of {portion}");
        assert!(endpoint.incoming.is_empty() && endpoint.incoming.capacity() == 0);
        assert_eq!(endpoint.outgoing.capacity(), 0, "an idle connection holds no buffer");
    }
}

#[tokio::test]
async fn silence_ends_the_handshake_and_the_keep_alive() {
    let mut silent = endpoint(Config::default());
    assert_eq!(silent.poll_timeout(), Some(10_000));
    assert_eq!(silent.handle_timeout(9_999), Ok(()));
    assert_eq!(silent.handle_timeout(10_000).map_err(|c| c.0), Err(Reason::Lost));
    let mut client = endpoint(Config::default());
    client.receive(100, CONNECT).expect("let in");
    output(&mut client, 100);
    assert_eq!(client.poll_timeout(), Some(15_100));
    client.receive(5_000, PING).expect("alive");
    output(&mut client, 5_000);
    assert_eq!(client.handle_timeout(15_100), Ok(()));
    assert_eq!(client.handle_timeout(20_000).map_err(|c| c.0), Err(Reason::KeepAlive));
    assert_eq!(client.output(), [0xE0, 1, Reason::KeepAlive.code()]);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let mut client = endpoint(Config::default());
    client.receive(100, CONNECT).expect("let in");
    client.fill(100, Waker::noop()).expect("open");
    let due = 100 + WRITE_STALL_MS_MAX;
    client.receive(due - 1, PING).expect("alive");
    assert_eq!(client.handle_timeout(due - 1), Ok(()));
    assert_eq!(client.handle_timeout(due).map_err(|c| c.0), Err(Reason::Lost));
}

#[tokio::test]
async fn a_client_over_its_quota_is_not_read_from_and_not_cut_off() {
    let quota = Quota { messages_per_s: 1, bytes_per_s: 1_000, burst_s: 2 };
    let mut client = endpoint(Config { quota, ..Config::default() });
    client.receive(0, CONNECT).expect("let in");
    output(&mut client, 0);
    client.receive(0, &PUBLISH.repeat(5)).expect("within the protocol");
    assert!(!client.wants_input());
    let acknowledged = |bytes: &[u8]| bytes.iter().filter(|&&b| b == 0x40).count();
    // A bucket of two, which the third takes below zero.
    assert_eq!(acknowledged(&output(&mut client, 0)), 3);
    let mut now = 0;
    let mut later = 0;
    while !client.wants_input() {
        now = client.poll_timeout().expect("waits for the quota");
        assert_eq!(client.handle_timeout(now), Ok(()));
        later += acknowledged(&output(&mut client, now));
    }
    assert_eq!((later, now), (2, 2_000), "one a second, none lost");
}

#[tokio::test]
async fn topic_aliases_are_set_used_and_refused() {
    // PUBLISH, QoS 0: topic "t" with alias 1; then alias 1 alone; then alias 2, never set.
    let set = [0x30, 8, 0, 1, b't', 3, 35, 0, 1, b'x'];
    let used = [0x30, 7, 0, 0, 3, 35, 0, 1, b'y'];
    let unset = [0x30, 7, 0, 0, 3, 35, 0, 2, b'z'];
    let mut client = endpoint(Config::default());
    client.receive(0, &[CONNECT, SUBSCRIBE_ALL].concat()).expect("let in");
    output(&mut client, 0);
    client.receive(0, &[set.as_slice(), &used].concat()).expect("valid");
    let got = output(&mut client, 0);
    assert_eq!(got, [0x30, 5, 0, 1, b't', 0, b'x', 0x30, 5, 0, 1, b't', 0, b'y']);
    assert_eq!(client.receive(0, &unset).map_err(|c| c.0), Err(Reason::TopicAlias));
}

#[tokio::test]
async fn qos_2_is_refused_to_5_and_taken_once_from_3_1_1() {
    let mut v5 = endpoint(Config::default());
    v5.receive(0, CONNECT).expect("let in");
    let publish = [0x34, 7, 0, 1, b't', 0, 9, 0, b'x'];
    assert_eq!(v5.receive(0, &publish).map_err(|c| c.0), Err(Reason::Qos));
    let connect = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 10, 0, 1, b'a'];
    let subscribe = [0x82, 6, 0, 1, 0, 1, b'#', 2];
    let publish = [0x34, 6, 0, 1, b't', 0, 9, b'x'];
    let mut v311 = endpoint(Config::default());
    v311.receive(0, &[connect.as_slice(), &subscribe].concat()).expect("let in");
    assert_eq!(output(&mut v311, 0), [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1], "granted qos 1");
    let pubrec = [0x50, 2, 0, 9];
    v311.receive(0, &publish).expect("valid");
    let got = output(&mut v311, 0);
    assert_eq!(got, [&pubrec[..], &[0x32, 6, 0, 1, b't', 0, 1, b'x']].concat());
    v311.receive(0, &publish).expect("the same again");
    assert_eq!(output(&mut v311, 0), pubrec, "answered, not delivered again");
    v311.receive(0, &[0x62, 2, 0, 9]).expect("released");
    assert_eq!(output(&mut v311, 0), [0x70, 2, 0, 9]);
    v311.receive(0, &publish).expect("a new one");
    assert_eq!(output(&mut v311, 0).len(), pubrec.len() + 8);
}

#[tokio::test]
async fn refused_clients_are_told_why() {
    let level = |level| {
        let mut bytes = CONNECT.to_vec();
        bytes[8] = level;
        bytes
    };
    let mut bad_id =
        [0x10, 13 + 129, 1, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 10, 0, 0, 129].to_vec();
    bad_id.extend([b'x'; 129]);
    let nameless = vec![0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 10, 0, 0];
    let table = [
        (level(3), Reason::UnsupportedVersion, vec![0x20, 2, 0, 1]),
        (level(6), Reason::UnsupportedVersion, vec![0x20, 2, 0, 1]),
        (bad_id, Reason::ClientId, vec![0x20, 3, 0, Reason::ClientId.code(), 0]),
        (nameless, Reason::ClientId, vec![0x20, 2, 0, 2]),
        (PING.to_vec(), Reason::Protocol, vec![]),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Reason::Protocol, vec![]),
    ];
    for (bytes, reason, answer) in table {
        let mut client = endpoint(Config::default());
        let result = client.receive(0, &bytes);
        assert_eq!(result.map_err(|c| c.0), Err(reason), "{bytes:?}");
        assert_eq!(client.output(), answer, "{bytes:?}");
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn who_lost_its_session_does_not_take_the_wake_ups_of_who_has_it() {
    let mut old = endpoint(Config::default());
    let shared = Arc::clone(&old.shared);
    let mut new = Endpoint::new(shared, PeerIdentity::Anonymous, None, 10_000);
    let (old_count, new_count) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let (old_waker, new_waker) = (Waker::from(old_count.clone()), Waker::from(new_count.clone()));
    old.receive(0, CONNECT).expect("let in");
    old.fill(0, &old_waker).expect("open");
    new.receive(0, &[CONNECT, SUBSCRIBE_ALL].concat()).expect("let in");
    assert_eq!(old_count.0.load(Ordering::Relaxed), 1, "told that it is over");
    new.fill(0, &new_waker).expect("open");
    assert_eq!(old.fill(0, &old_waker).map_err(|c| c.0), Err(Reason::TakenOver));
    drop(old);
    let mut other = Endpoint::new(Arc::clone(&new.shared), PeerIdentity::Anonymous, None, 10_000);
    let mut connect = CONNECT.to_vec();
    *connect.last_mut().expect("an id") = b'b';
    let before = new_count.0.load(Ordering::Relaxed);
    other.receive(0, &[&connect, PUBLISH].concat()).expect("taken");
    assert_eq!(new_count.0.load(Ordering::Relaxed), before + 1);
}

proptest! {
    #[test]
    fn no_bytes_make_a_connection_panic(
        connected in any::<bool>(),
        portions in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _entered = runtime.enter();
        let mut client = endpoint(Config::default());
        if connected {
            client.receive(0, CONNECT).expect("let in");
        }
        for (now, portion) in portions.iter().enumerate() {
            let now = now as u64;
            if client.receive(now, portion).is_err() {
                break;
            }
            output(&mut client, now);
        }
    }

    /// Random bytes seldom get past the first checks; mutations of valid packets do.
    #[test]
    fn no_mutation_makes_a_connection_panic(
        order in prop::collection::vec(0..4_usize, 1..12),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _entered = runtime.enter();
        let mut client = endpoint(Config::default());
        let packets = [CONNECT, SUBSCRIBE_ALL, PUBLISH, PING];
        let mut stream: Vec<u8> = order.iter().flat_map(|&at| packets[at].to_vec()).collect();
        for (at, value) in flips {
            let at = at.index(stream.len());
            stream[at] = value;
        }
        client.receive(0, CONNECT).expect("let in");
        if client.receive(0, &stream).is_ok() {
            output(&mut client, 0);
        }
    }
}
