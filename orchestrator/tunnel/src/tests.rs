//! Both ends on loopback, and ends that do not keep to the rules.

use crate::codec::Raw;
use crate::*;
use marram_protocol::v1::{Down, StreamId, Up};
use marram_protocol::{MESSAGE_BYTES_MAX, v1::CodecError};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

/// Nothing here takes a second; a test that hangs says so before the runner's limit.
const PATIENCE: Duration = Duration::from_secs(30);

struct Parent {
    children: Children,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

async fn parent() -> Parent {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (children, run) = serve(listener, async { drop(stopped.await) });
    Parent { children, address, stop, served: tokio::spawn(run) }
}

impl Parent {
    fn dialer(&self) -> Dialer {
        Dialer::new(&format!("http://{}", self.address)).unwrap()
    }

    async fn with_child(&mut self) -> (ChildConnection, ParentConnection) {
        let dialer = self.dialer();
        let (child, parent) = tokio::join!(self.next(), dialer.connect());
        (child, parent.unwrap())
    }

    async fn next(&mut self) -> ChildConnection {
        timeout(PATIENCE, self.children.next()).await.unwrap().unwrap()
    }
}

fn up(incarnation: u64) -> Up {
    Up::Presence { online: true, incarnation }
}

fn down(epoch: u64) -> Down {
    Down::Welcome { epoch, unix_ms: 0 }
}

fn data(number: u32, bytes: usize) -> Up {
    let stream = StreamId(number);
    Up::StreamData { stream, output: marram_protocol::v1::Output::Stdout, bytes: vec![7; bytes] }
}

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    let mut parent = parent().await;
    let (mut child, mut up_there) = parent.with_child().await;
    assert!(child.peer.ip().is_loopback());
    for n in 0..100 {
        up_there.sender.send(&up(n)).await.unwrap();
        child.sender.send(&down(n)).await.unwrap();
        assert_eq!(child.receiver.recv().await, Ok(Some(up(n))));
        assert_eq!(up_there.receiver.recv().await, Ok(Some(down(n))));
    }
    let longest = MESSAGE_BYTES_MAX - 8;
    up_there.sender.send(&data(1, longest)).await.unwrap();
    assert_eq!(child.receiver.recv().await, Ok(Some(data(1, longest))));
}

#[tokio::test]
async fn a_message_that_is_too_long_is_not_sent_and_ends_nothing() {
    let mut parent = parent().await;
    let (mut child, up_there) = parent.with_child().await;
    let error = up_there.sender.send(&data(1, MESSAGE_BYTES_MAX)).await.unwrap_err();
    assert!(matches!(error, SendError::Message(CodecError::TooLong(_))), "{error}");
    assert!(matches!(up_there.sender.try_send(&data(1, MESSAGE_BYTES_MAX)), Err(e) if e == error));
    up_there.sender.send(&up(1)).await.unwrap();
    assert_eq!(child.receiver.recv().await, Ok(Some(up(1))));
}

#[tokio::test]
async fn when_the_parent_lets_go_the_child_is_told() {
    let mut parent = parent().await;
    let (child, mut up_there) = parent.with_child().await;
    child.sender.send(&down(1)).await.unwrap();
    drop(child);
    assert_eq!(timeout(PATIENCE, up_there.receiver.recv()).await.unwrap(), Ok(Some(down(1))));
    assert_eq!(timeout(PATIENCE, up_there.receiver.recv()).await.unwrap(), Ok(None));
    assert_eq!(up_there.receiver.recv().await, Ok(None));
    timeout(PATIENCE, up_there.sender.closed()).await.unwrap();
    assert_eq!(up_there.sender.send(&up(1)).await, Err(SendError::Ended));
}

#[tokio::test]
async fn when_the_child_lets_go_the_parent_is_told() {
    let mut parent = parent().await;
    let (mut child, up_there) = parent.with_child().await;
    up_there.sender.send(&up(1)).await.unwrap();
    assert_eq!(timeout(PATIENCE, child.receiver.recv()).await.unwrap(), Ok(Some(up(1))));
    drop(up_there);
    let end = timeout(PATIENCE, child.receiver.recv()).await.unwrap();
    assert!(matches!(end, Ok(None) | Err(ReceiveError::Broken(_))), "{end:?}");
    timeout(PATIENCE, child.sender.closed()).await.unwrap();
}

#[test]
fn when_the_parent_dies_the_child_is_told() {
    let ours = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let theirs =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut parent = theirs.block_on(parent());
    let mut up_there = ours.block_on(parent.dialer().connect()).unwrap();
    let child = theirs.block_on(parent.next());
    // As after kill -9: tasks stop where they are, sockets are closed.
    theirs.shutdown_background();
    let end = ours.block_on(async { timeout(PATIENCE, up_there.receiver.recv()).await.unwrap() });
    assert!(matches!(end, Err(ReceiveError::Broken(_))), "{end:?}");
    drop(child);
}

#[tokio::test]
async fn the_server_ends_when_told_and_takes_nobody_afterwards() {
    let mut parent = parent().await;
    let (child, mut up_there) = parent.with_child().await;
    let dialer = parent.dialer();
    parent.stop.send(()).unwrap();
    drop(child);
    assert_eq!(timeout(PATIENCE, up_there.receiver.recv()).await.unwrap(), Ok(None));
    timeout(PATIENCE, parent.served).await.unwrap().unwrap().unwrap();
    assert!(parent.children.next().await.is_none());
    let error = dialer.connect().await.unwrap_err();
    assert!(matches!(&error, DialError::Connect { why, .. } if why.contains("refused")), "{error}");
}

#[tokio::test]
async fn who_does_not_read_stops_who_sends() {
    let mut parent = parent().await;
    let (mut child, up_there) = parent.with_child().await;
    let mut sent = 0;
    // Only a sender that is stopped takes this long: nobody reads.
    while let Ok(result) =
        timeout(Duration::from_millis(500), up_there.sender.send(&data(sent, 16 * 1024))).await
    {
        result.unwrap();
        sent += 1;
    }
    // The queue, the window, and what tonic and HTTP/2 hold at both ends.
    let most = u32::try_from(QUEUE_MESSAGES_MAX).unwrap() + 12;
    assert!(sent <= most, "{sent} messages were taken");
    assert_eq!(up_there.sender.try_send(&data(sent, 16 * 1024)), Err(SendError::Full));
    for n in 0..sent {
        assert_eq!(child.receiver.recv().await, Ok(Some(data(n, 16 * 1024))));
    }
    up_there.sender.send(&up(1)).await.unwrap();
    assert_eq!(child.receiver.recv().await, Ok(Some(up(1))));
}

#[tokio::test]
async fn two_hundred_children_each_get_their_own() {
    const CHILDREN: u64 = 200;
    let mut parent = parent().await;
    let mut dialing = tokio::task::JoinSet::new();
    for n in 0..CHILDREN {
        let dialer = parent.dialer();
        dialing.spawn(async move {
            let mut up_there = dialer.connect().await.unwrap();
            up_there.sender.send(&up(n)).await.unwrap();
            assert_eq!(up_there.receiver.recv().await, Ok(Some(down(n))));
            up_there
        });
    }
    let mut connections = Vec::new();
    for _ in 0..CHILDREN {
        let mut child = parent.next().await;
        let Ok(Some(Up::Presence { incarnation, .. })) = child.receiver.recv().await else {
            panic!("a child said something else");
        };
        child.sender.send(&down(incarnation)).await.unwrap();
        connections.push(child);
    }
    let children = timeout(PATIENCE, dialing.join_all()).await.unwrap();
    assert_eq!(children.len(), connections.len());
}

/// A child that sends whatever it likes.
async fn rude_child(
    address: SocketAddr,
    path: &'static str,
) -> Result<(mpsc::Sender<Vec<u8>>, Streaming<Vec<u8>>), Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let (queue, messages) = mpsc::channel(4);
    let request = Request::new(ReceiverStream::new(messages));
    let response = grpc.streaming(request, PathAndQuery::from_static(path), Raw).await?;
    Ok((queue, response.into_inner()))
}

#[tokio::test]
async fn a_malformed_message_is_refused_with_the_reason() {
    let mut parent = parent().await;
    let table: [(Vec<u8>, Code, &str); 8] = [
        (vec![], Code::InvalidArgument, "begins with a version and a kind, got 0 bytes"),
        (vec![1], Code::InvalidArgument, "begins with a version and a kind, got 1 bytes"),
        (vec![9, 1, 1], Code::InvalidArgument, "version 9 is not known here, known is 1"),
        (vec![1, 2, 8, 1], Code::InvalidArgument, "kind 2 was not expected here"),
        (vec![1, 1, 99], Code::InvalidArgument, "malformed message body"),
        (vec![1, 1, 1, 1, 1, 0], Code::InvalidArgument, "1 bytes after the end"),
        (vec![1, 1, 7, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f], Code::InvalidArgument, "malformed"),
        (vec![1; MESSAGE_BYTES_MAX + 1], Code::OutOfRange, "at most 262144 bytes"),
    ];
    for (bytes, code, text) in table {
        let (queue, mut answers) = rude_child(parent.address, PATH).await.unwrap();
        let mut child = parent.next().await;
        queue.send(bytes.clone()).await.unwrap();
        let error = timeout(PATIENCE, child.receiver.recv()).await.unwrap().unwrap_err();
        assert!(matches!(error, ReceiveError::Message(_)), "{error:?}");
        let status = timeout(PATIENCE, answers.message()).await.unwrap().unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
        assert_eq!(child.receiver.recv().await, Ok(None));
        timeout(PATIENCE, child.sender.closed()).await.unwrap();
    }
    // The parent serves others as before.
    let (mut child, up_there) = parent.with_child().await;
    up_there.sender.send(&up(1)).await.unwrap();
    assert_eq!(child.receiver.recv().await, Ok(Some(up(1))));
}

#[tokio::test]
async fn a_child_does_not_take_malformed_messages_either() {
    let mut parent = parent().await;
    for bytes in [vec![], vec![1, 1, 1], vec![2, 2, 0], vec![1, 2, 77]] {
        let (child, mut up_there) = parent.with_child().await;
        child.sender.raw(bytes).await;
        let error = timeout(PATIENCE, up_there.receiver.recv()).await.unwrap().unwrap_err();
        assert!(matches!(error, ReceiveError::Message(_)), "{error:?}");
        assert_eq!(up_there.receiver.recv().await, Ok(None));
    }
}

#[tokio::test]
async fn a_probe_tells_whether_there_is_a_way_to_the_root_and_opens_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = Dialer::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (mut children, run) = serve_while(listener, well.clone(), std::future::pending());
    let serving = tokio::spawn(run);
    let error = dialer.probe().await.unwrap_err().to_string();
    assert!(error.contains("no way to the root"), "{error}");
    well.store(true, std::sync::atomic::Ordering::Relaxed);
    dialer.probe().await.unwrap();
    assert!(timeout(Duration::ZERO, children.next()).await.is_err(), "nobody has come");
    serving.abort();
    drop(serving.await);
    assert!(dialer.probe().await.is_err());
}

#[tokio::test]
async fn another_method_is_not_there() {
    let parent = parent().await;
    let status = rude_child(parent.address, "/marram.v1.Tunnel/Close").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains(PATH), "{status}");
}

#[tokio::test]
async fn noise_on_the_port_harms_nobody() {
    let mut parent = parent().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let noise: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 4096],
        preface,
        &[&preface[..], &[0xff; 64]].concat(),
    ];
    for bytes in noise {
        let mut io = TcpStream::connect(parent.address).await.unwrap();
        io.write_all(bytes).await.unwrap();
        io.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed properly or reset: both are an end.
        drop(timeout(PATIENCE, io.read_to_end(&mut answer)).await.unwrap());
    }
    let (_child, _up_there) = parent.with_child().await;
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_says_nothing_is_let_go() {
    let parent = parent().await;
    let mut io = TcpStream::connect(parent.address).await.unwrap();
    let mut answer = Vec::new();
    let started = tokio::time::Instant::now();
    drop(io.read_to_end(&mut answer).await);
    assert!(started.elapsed() >= OPEN_TIME_MAX && started.elapsed() < 2 * OPEN_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_may_be_silent_for_longer() {
    let mut parent = parent().await;
    let (mut child, up_there) = parent.with_child().await;
    tokio::time::advance(3 * OPEN_TIME_MAX).await;
    up_there.sender.send(&up(1)).await.unwrap();
    assert_eq!(child.receiver.recv().await, Ok(Some(up(1))));
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let error = Dialer::new(&url).unwrap().connect().await.unwrap_err();
    assert_eq!(error, DialError::Slow { url });
}

#[tokio::test]
async fn somebody_who_is_no_parent_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let error = Dialer::new(&url).unwrap().connect().await.unwrap_err();
    assert!(error.to_string().contains(&url), "{error}");
    answering.await.unwrap();
}
