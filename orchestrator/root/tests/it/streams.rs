//! Logs and exec from a client through the root to a cluster and back.

use crate::cluster::{FakeCluster, Order, SLOW_BYTES};
use crate::harness::{Client, PATIENCE, Reply, TestRoot, document};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

struct Scene {
    _dir: tempfile::TempDir,
    root: TestRoot,
    cluster: FakeCluster,
    instance: String,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let root = TestRoot::start(dir.path());
    let cluster = FakeCluster::start(root.tunnel, 1, "c1");
    root.admin.post("/api/v1/apply", document("shop", &["web"])).expect(200);
    let running = |reply: &Reply| reply.text.contains("\"state\":\"running\"");
    let all = root.admin.until("/api/v1/instances", running).json();
    let instance = all["items"][0]["instance_id"].as_str().unwrap().to_owned();
    Scene { _dir: dir, root, cluster, instance }
}

#[test]
fn logs_come_whole_or_by_their_tail() {
    let scene = scene();
    let path = format!("/api/v1/instances/{}/logs", scene.instance);
    let all = scene.root.admin.get(&path).expect(200);
    assert_eq!(all.content_type, "application/octet-stream");
    assert_eq!(all.text, format!("{}\none\ntwo\nthree\n", scene.instance));
    let tail = scene.root.admin.get(&format!("{path}?tail=1&follow=false")).expect(200);
    assert_eq!(tail.text, format!("{}\nthree\n", scene.instance));
    scene.root.admin.get(&format!("{path}?tail=x")).expect(400);
    let gone = format!("{}9", scene.instance);
    scene.root.admin.get(&format!("/api/v1/instances/{gone}/logs")).expect(404);
    scene.cluster.leave();
    scene.root.admin.until(&path, |reply| reply.status == 503);
}

#[test]
fn followed_logs_bring_what_comes_and_end_with_the_cluster() {
    let scene = scene();
    let stream = TcpStream::connect(scene.root.listen).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    write!(
        writer,
        "GET /api/v1/instances/{}/logs?tail=0&follow=true HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {}\r\n\r\n",
        scene.instance, scene.root.admin.token
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut until = |wanted: &str| {
        for line in lines.by_ref() {
            if line.unwrap().contains(wanted) {
                return true;
            }
        }
        false
    };
    assert!(until("200 OK"));
    assert!(until(&scene.instance));
    // More than is ever on its way at once: it only comes if credit is given back.
    for number in 0..200 {
        let mut chunk = vec![b'.'; 4000];
        chunk.extend_from_slice(format!(" line-{number}\n").as_bytes());
        scene.cluster.order(Order::Output(chunk));
        assert!(until(&format!("line-{number}")));
    }
    scene.cluster.leave();
    assert!(!until("nothing more"), "the response ends with the connection");
}

struct Terminal(WebSocket<TcpStream>);

impl Terminal {
    fn open(scene: &Scene, client: &Client, query: &str) -> Self {
        let path = format!("/api/v1/instances/{}/exec?{query}", scene.instance);
        let address = scene.root.listen;
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        let token = format!("Bearer {}", client.token).parse().unwrap();
        request.headers_mut().insert("Authorization", token);
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(tungstenite::client(request, stream).unwrap().0)
    }

    fn send(&mut self, kind: u8, bytes: &[u8]) {
        let frame = [&[kind], bytes].concat();
        self.0.send(Message::Binary(frame.into())).unwrap();
    }

    fn next(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Message::Binary(frame) = self.0.read().unwrap() {
                return (frame[0], frame[1..].to_vec());
            }
        }
    }

    fn end(&mut self) -> Value {
        loop {
            if let (3, end) = self.next() {
                return serde_json::from_slice(&end).unwrap();
            }
        }
    }
}

#[test]
fn exec_carries_input_output_sizes_and_the_exit_code() {
    let scene = scene();
    let admin = &scene.root.admin;
    let query = "arg=sh&arg=-c&arg=echo%20hi&tty=true&rows=50&columns=132";
    let mut terminal = Terminal::open(&scene, admin, query);
    let (kind, first) = terminal.next();
    let first = String::from_utf8(first).unwrap();
    assert_eq!((kind, first.as_str()), (1, r#"["sh", "-c", "echo hi"] Some((50, 132))"#));
    terminal.send(0, b"typed");
    assert_eq!(terminal.next(), (1, b"typed".to_vec()));
    terminal.send(4, br#"{"rows":24,"columns":80}"#);
    assert_eq!(terminal.next(), (1, b"24x80".to_vec()));
    terminal.send(0, b"");
    assert_eq!(terminal.end(), json!({"code": 7}));
}

#[test]
fn input_goes_on_only_as_far_as_the_program_takes_it() {
    let scene = scene();
    let mut terminal = Terminal::open(&scene, &scene.root.admin, "arg=slow");
    terminal.next();
    // What comes back is what was passed on.
    let long: Vec<u8> = (0..60_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    terminal.send(0, &long);
    terminal.send(0, b"");
    let mut back = Vec::new();
    let mut until = |terminal: &mut Terminal, wanted: usize| {
        while back.len() < wanted {
            let (kind, bytes) = terminal.next();
            assert_eq!(kind, 1, "{bytes:?} after {} bytes", back.len());
            back.extend(bytes);
        }
        assert_eq!(back.len(), wanted);
        back.clone()
    };
    let first = usize::try_from(SLOW_BYTES).unwrap();
    until(&mut terminal, first);
    // What goes the same way afterwards overtakes nothing, so nothing more was sent meanwhile.
    let logs = format!("/api/v1/instances/{}/logs", scene.instance);
    scene.root.admin.get(&logs).expect(200);
    scene.cluster.order(Order::Grant(10_000));
    until(&mut terminal, first + 10_000);
    // Less than the shortest piece costs is saved up.
    scene.cluster.order(Order::Grant(255));
    scene.cluster.order(Order::Grant(1));
    until(&mut terminal, first + 10_256);
    for _ in 0..4 {
        scene.cluster.order(Order::Grant(16_384));
    }
    assert_eq!(until(&mut terminal, long.len()), long);
    assert_eq!(terminal.end(), json!({"code": 7}));
}

#[test]
fn exec_that_fails_says_why() {
    let scene = scene();
    let admin = &scene.root.admin;
    let mut terminal = Terminal::open(&scene, admin, "arg=missing");
    let why = "not found: looking for the program: \"missing\" is nowhere";
    assert_eq!(terminal.end(), json!({"error": why}));
    let mut terminal = Terminal::open(&scene, admin, "arg=cat");
    terminal.send(9, b"nonsense");
    assert!(terminal.end()["error"].as_str().unwrap().contains("must begin with"));
    let path = format!("/api/v1/instances/{}/exec", scene.instance);
    admin.get(&format!("{path}?arg=sh")).expect(400);
    admin.get(&path).expect(400);
    // The end of the root is told, and the program does not keep it from ending.
    let mut terminal = Terminal::open(&scene, admin, "arg=cat");
    terminal.next();
    let Scene { root, cluster, .. } = scene;
    root.stop();
    assert!(terminal.end()["error"].as_str().unwrap().contains("stopping"));
    cluster.leave();
}
