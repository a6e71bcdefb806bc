//! What an embedder sees: in-process clients, events, authority, limits, shutdown.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::client::{Client, Options, Received};
use common::{DEADLINE, Ours, Target};
use marram_broker::{
    AllowAll, Authorizer, Broker, Config, ConnectRequest, ConnectionEvent, Identity, LocalClient,
    LocalItem, LocalMessage, PeerIdentity, PublishError, Qos, Reason, Refused, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn message(client: &mut LocalClient) -> LocalMessage {
    match timeout(DEADLINE, client.recv()).await.expect("a message comes") {
        LocalItem::Message(message) => message,
        LocalItem::Event(event) => panic!("instead of a message: {event:?}"),
    }
}

async fn event(client: &mut LocalClient) -> ConnectionEvent {
    match timeout(DEADLINE, client.recv()).await.expect("an event comes") {
        LocalItem::Event(event) => event,
        LocalItem::Message(message) => panic!("instead of an event: {message:?}"),
    }
}

/// Waits until a condition holds, giving other tasks their turn.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_local_client_speaks_with_clients_on_connections() {
    let ours = Ours::start().await;
    let mut local = ours.broker.local();
    local.subscribe(&["up/#"]).expect("valid");
    let mut remote = Client::connect(ours.port(), &Options::v5("a")).await;
    remote.subscribe("down/#", 1).await;
    remote.publish("up/1", b"hello", 1, false).await;
    let got = message(&mut local).await;
    assert_eq!((&*got.topic, &got.payload[..], got.qos), ("up/1", &b"hello"[..], Qos::AtLeastOnce));
    let expiry = Some(Duration::from_secs(60));
    let payload = Bytes::from_static(b"order");
    local.publish("down/1", payload, Qos::AtLeastOnce, true, expiry).await.expect("taken");
    let got = remote.message().await;
    assert_eq!((got.text().as_str(), got.qos, got.retain), ("order", 1, false));
    assert_eq!(got.properties, [2, 0, 0, 0, 60]);
    let mut late = ours.broker.local();
    late.subscribe(&["down/+"]).expect("valid");
    assert!(message(&mut late).await.retain);
    let bad = local.subscribe(&["a/#/b"]).expect_err("invalid");
    assert_eq!(bad.to_string(), "cannot subscribe to 'a/#/b': topic filter invalid");
    let bad = ours.broker.try_publish("a/+", Bytes::new(), Qos::AtMostOnce, false, None);
    assert_eq!(bad, Err(PublishError::Topic("a/+".into())));
}

#[tokio::test]
async fn events_tell_of_every_connection() {
    let ours = Ours::start().await;
    let mut watcher = ours.broker.local_with_events();
    let client = Client::connect(ours.port(), &Options::v5("a").lasting(true)).await;
    let ConnectionEvent::Connected { client_id, connection, session_present, .. } =
        event(&mut watcher).await
    else {
        panic!("not connected")
    };
    assert_eq!((&*client_id, session_present), ("a", false));
    client.abort();
    let gone = ConnectionEvent::Disconnected {
        client_id: "a".into(),
        identity: "a".into(),
        connection,
        reason: Reason::Lost,
        session_kept: true,
    };
    assert_eq!(event(&mut watcher).await, gone);
    let client = Client::connect(ours.port(), &Options::v5("a").lasting(false)).await;
    let back = event(&mut watcher).await;
    assert!(matches!(back, ConnectionEvent::Connected { session_present: true, .. }), "{back:?}");
    client.disconnect().await;
    let gone = event(&mut watcher).await;
    assert!(matches!(gone, ConnectionEvent::Disconnected { reason: Reason::Normal, .. }));
}

#[tokio::test]
async fn a_client_is_cut_off_at_once_and_told_why() {
    let ours = Ours::start().await;
    let mut client = Client::connect(ours.port(), &Options::v5("a")).await;
    assert!(ours.broker.disconnect("a", Reason::Administrative));
    assert!(!ours.broker.disconnect("a", Reason::Administrative), "it has no connection now");
    assert_eq!(client.farewell().await, Some(0x98));
    let mut old = Client::connect(ours.port(), &Options::v5("a")).await;
    let _new = Client::connect(ours.port(), &Options::v5("a")).await;
    assert_eq!(old.farewell().await, Some(0x8E), "taken over");
    let options = Options { keep_alive_s: 1, ..Options::v5("b") };
    let mut silent = Client::connect(ours.port(), &options).await;
    assert_eq!(silent.farewell().await, Some(0x8D), "keep alive");
}

/// Node `x` may use `nodes/x/...`; nobody may connect as "stranger" or without a name.
#[derive(Debug)]
struct OwnTopics;

impl Authorizer for OwnTopics {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<Identity, Refused> {
        let refused = |reason, why: &str| Err(Refused { reason, why: why.into() });
        match (request.username, request.peer) {
            (Some("stranger"), _) => refused(Reason::Credentials, "unknown user"),
            (Some(name), _) => Ok(Identity::new(name)),
            (None, PeerIdentity::Certificate(der)) => {
                Ok(Identity::new(String::from_utf8_lossy(der).into_owned()))
            }
            (None, PeerIdentity::Anonymous) => refused(Reason::NotAuthorized, "no name"),
        }
    }

    fn publish(&self, identity: &Identity, topic: &str) -> bool {
        topic.starts_with(&format!("nodes/{}/", identity.name()))
    }

    fn subscribe(&self, identity: &Identity, filter: &str) -> bool {
        self.publish(identity, filter)
    }
}

#[tokio::test]
async fn a_client_does_what_its_identity_may() {
    let ours = Ours::with(Config::default(), Arc::new(OwnTopics)).await;
    let port = ours.port();
    let named = |name| Options { username: Some(name), ..Options::v5("a") };
    let code = async |options: Options| Client::try_connect(port, &options).await.err();
    assert_eq!(code(named("stranger")).await, Some(0x86));
    assert_eq!(code(Options { v5: false, ..named("stranger") }).await, Some(4));
    assert_eq!(code(Options::v5("a")).await, Some(0x87));
    assert_eq!(code(Options::v311("a")).await, Some(5));
    assert_eq!(code(named("x").will("nodes/y/z", "", 0)).await, Some(0x87), "a foreign will");
    let mut local = ours.broker.local();
    local.subscribe(&["#"]).expect("valid");
    let mut client = Client::connect(port, &named("x").lasting(true)).await;
    assert_eq!(client.subscribe("nodes/x/#", 1).await, 1);
    assert_eq!(client.subscribe("nodes/#", 1).await, 0x87);
    assert_eq!(client.subscribe("$share/g/nodes/y/#", 1).await, 0x87);
    assert_eq!(client.publish("nodes/y/z", b"forged", 1, true).await, 0x87);
    client.publish("nodes/y/z", b"forged", 0, true).await;
    assert_eq!(client.publish("nodes/x/z", b"own", 1, false).await, 0);
    assert_eq!(&*message(&mut local).await.topic, "nodes/x/z");
    assert_eq!(code(named("y")).await, Some(0x85), "the session is another's");
    assert_eq!(client.pending().await.len(), 1, "and its connection goes on");
    assert_eq!(ours.broker.stats().publishes_refused, 2);
}

#[tokio::test]
async fn a_full_local_client_holds_publishers_back_and_loses_nothing() {
    let config = Config { local_messages_max: 8, ..Config::default() };
    let ours = Ours::with(config, Arc::new(AllowAll)).await;
    let mut local = ours.broker.local();
    local.subscribe(&["t"]).expect("valid");
    let mut remote = Client::connect(ours.port(), &Options::v5("a")).await;
    let publishing = tokio::spawn(async move {
        for at in 0..100_u8 {
            remote.publish("t", &[at], 1, false).await;
        }
        remote
    });
    let broker = ours.broker.clone();
    until("the queue is full", || broker.stats().messages_received == 8).await;
    let busy = broker.try_publish("t", Bytes::from_static(b"x"), Qos::AtLeastOnce, false, None);
    assert_eq!(busy, Err(PublishError::Busy));
    let publisher = broker.clone();
    let waiting = tokio::spawn(async move {
        publisher.publish("t", Bytes::from_static(&[200]), Qos::AtLeastOnce, false, None).await
    });
    let mut got = Vec::new();
    while got.len() < 101 {
        got.push(message(&mut local).await.payload[0]);
        assert!(broker.stats().queued_bytes <= 8 * 200, "the bound holds");
    }
    waiting.await.expect("no panic").expect("taken");
    let mut expected: Vec<u8> = (0..100).collect();
    expected.push(200);
    got.sort_unstable();
    assert_eq!(got, expected);
    publishing.await.expect("no panic").disconnect().await;
}

#[tokio::test]
async fn silent_clients_keep_nobody_waiting_and_are_closed() {
    let config = Config { handshake_ms_max: 300, connections_max: 60, ..Config::default() };
    let ours = Ours::with(config, Arc::new(AllowAll)).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(("127.0.0.1", ours.port())).await.expect("listens"));
    }
    let mut client = Client::connect(ours.port(), &Options::v5("a")).await;
    client.publish("t", b"x", 1, false).await;
    for mut socket in silent {
        let read = timeout(DEADLINE, socket.read(&mut [0; 8])).await.expect("closed in time");
        assert!(matches!(read, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn connections_are_bounded_and_places_come_back() {
    let config = Config { connections_max: 2, ..Config::default() };
    let ours = Ours::with(config, Arc::new(AllowAll)).await;
    let first = Client::connect(ours.port(), &Options::v5("a")).await;
    let _second = Client::connect(ours.port(), &Options::v5("b")).await;
    let mut third = TcpStream::connect(("127.0.0.1", ours.port())).await.expect("listens");
    let read = timeout(DEADLINE, third.read(&mut [0; 8])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)));
    assert_eq!(ours.broker.stats().connections_refused, 1);
    first.disconnect().await;
    let _again = Client::connect(ours.port(), &Options::v5("c")).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_more_than_its_bound() {
    let config = Config { queue_bytes_max: 100_000, ..Config::default() };
    let ours = Ours::with(config, Arc::new(AllowAll)).await;
    let mut deaf = Client::connect(ours.port(), &Options::v5("deaf")).await;
    deaf.subscribe("t", 0).await;
    let mut hearing = ours.broker.local();
    hearing.subscribe(&["t"]).expect("valid");
    let payload = Bytes::from(vec![0; 10_000]);
    for _ in 0..2_000 {
        let sent = ours.broker.publish("t", payload.clone(), Qos::AtLeastOnce, false, None);
        timeout(DEADLINE, sent).await.expect("nobody waits for the deaf").expect("taken");
        message(&mut hearing).await;
        tokio::task::yield_now().await;
    }
    let stats = ours.broker.stats();
    assert!(stats.queued_bytes <= 100_000, "{stats:?}");
    assert!(stats.messages_dropped > 0, "{stats:?}");
}

#[tokio::test]
async fn a_shutdown_tells_clients_and_waits_for_nobody_else() {
    let ours = Ours::start().await;
    let mut watcher = ours.broker.local();
    watcher.subscribe(&["will"]).expect("valid");
    let _silent = TcpStream::connect(("127.0.0.1", ours.port())).await.expect("listens");
    let mut client = Client::connect(ours.port(), &Options::v5("a").will("will", "x", 0)).await;
    let began = std::time::Instant::now();
    ours.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2), "the silent one is not waited for");
    assert_eq!(client.farewell().await, Some(0x8B));
    assert_eq!(watcher.try_recv(), None, "the client did not go, so no will");
}

/// Hands every socket on with a name in place of a certificate.
#[derive(Debug)]
struct Certified;

impl Transport for Certified {
    type Io = TcpStream;

    async fn accept(&self, socket: TcpStream) -> io::Result<(TcpStream, PeerIdentity)> {
        Ok((socket, PeerIdentity::Certificate(b"x".to_vec())))
    }
}

#[tokio::test]
async fn the_transport_says_who_the_client_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let broker = Broker::new(Config::default(), Arc::new(OwnTopics));
    let served = tokio::spawn(async move {
        broker.serve_with(listener, Arc::new(Certified), std::future::pending()).await;
    });
    let mut client = Client::connect(port, &Options::v5("a")).await;
    assert_eq!(client.subscribe("nodes/x/#", 1).await, 1);
    assert_eq!(client.subscribe("nodes/y/#", 1).await, 0x87);
    served.abort();
}

#[tokio::test]
async fn any_stream_can_be_served() {
    let broker = Broker::new(Config::default(), Arc::new(AllowAll));
    let (mut near, far) = tokio::io::duplex(64);
    let served =
        tokio::spawn(async move { broker.serve_stream(far, PeerIdentity::Anonymous).await });
    let connect = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a'];
    near.write_all(&connect).await.expect("takes bytes");
    let mut answer = [0; 4];
    near.read_exact(&mut answer).await.expect("answers");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    drop(near);
    timeout(DEADLINE, served).await.expect("ends with its stream").expect("no panic");
}

#[tokio::test]
async fn a_burst_of_large_messages_arrives_whole() {
    let ours = Ours::start().await;
    let mut to = Client::connect(ours.port(), &Options::v5("to")).await;
    to.subscribe("t", 1).await;
    let mut from = Client::connect(ours.port(), &Options::v5("from")).await;
    let payload: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
    for _ in 0..3 {
        assert_eq!(from.publish("t", &payload, 1, false).await, 0);
        assert_eq!(to.message().await.payload, payload);
    }
    let mut rude = Client::connect(ours.port(), &Options::v5("rude")).await;
    rude.send_raw(&[0x30, 0xFF, 0xFF, 0x7F]).await;
    assert_eq!(rude.receive().await, Received::Other(0xE0, vec![0x95]), "before the body comes");
}

/// On several threads a wake-up that gets lost would leave a message lying.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_gets_stuck_when_all_talk_at_once() {
    const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    const EACH: usize = 300;
    let config = Config { local_messages_max: 4, ..Config::default() };
    let ours = Ours::with(config, Arc::new(AllowAll)).await;
    let mut local = ours.broker.local();
    local.subscribe(&["t/#"]).expect("valid");
    let mut talking = Vec::new();
    for id in IDS {
        let mut client = Client::connect(ours.port(), &Options::v5(id)).await;
        client.subscribe("down", 1).await;
        talking.push(tokio::spawn(async move {
            for _ in 0..EACH {
                client.publish(&format!("t/{id}"), b"up", 1, false).await;
                assert_eq!(client.message().await.text(), "down");
            }
            client.disconnect().await;
        }));
    }
    let publisher = ours.broker.clone();
    let down = tokio::spawn(async move {
        for _ in 0..EACH {
            let payload = Bytes::from_static(b"down");
            publisher.publish("down", payload, Qos::AtLeastOnce, false, None).await.expect("taken");
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..IDS.len() * EACH {
        assert_eq!(&message(&mut local).await.payload[..], b"up");
    }
    for task in talking {
        timeout(DEADLINE, task).await.expect("all was delivered").expect("no panic");
    }
    down.await.expect("no panic");
    assert_eq!(ours.broker.stats().messages_dropped, 0);
    assert_eq!(ours.broker.stats().queued_bytes, 0);
}
