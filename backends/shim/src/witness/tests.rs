//! The witness beside a shim that says what a test wants.

use super::*;
use crate::ttrpc::tests::answer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::unix::net::UnixListener;

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    dir: tempfile::TempDir,
    listener: Option<UnixListener>,
    witness: Witness,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = dir.path().join("shim.sock");
        let listener = Some(UnixListener::bind(&address).unwrap());
        let counter = dir.path().join("memory.events");
        let shim = Shim { address, namespace: "n".into(), id: "ab.0".into() };
        let witness = Witness::new(shim, dir.path(), Some(counter));
        Self { dir, listener, witness }
    }

    /// Lets the witness act until it has asked or is done.
    fn turn(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "it neither asks nor ends");
            if let Some(fd) = self.witness.wakes() {
                let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
                poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap();
            } else if let Some(pause) = self.witness.pause() {
                std::thread::sleep(pause);
            }
            self.witness.attend();
            if self.witness.wakes().is_some() || self.witness.is_done() {
                return;
            }
        }
    }

    fn accept(&mut self) -> UnixStream {
        self.turn();
        let (shim, _) = self.listener.as_ref().unwrap().accept().unwrap();
        shim.set_read_timeout(Some(PATIENCE)).unwrap();
        shim
    }

    fn end(&self, pid: u32) -> Option<TaskEnd> {
        TaskEnd::of(self.dir.path(), pid)
    }
}

/// The stream, service and method of the next question.
fn asked(shim: &mut UnixStream) -> (u32, String, String) {
    let mut head = [0; 10];
    shim.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes(head[..4].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap()];
    shim.read_exact(&mut body).unwrap();
    let body = Message::parse(&body).unwrap();
    let text = |field| String::from_utf8(body.bytes(field).unwrap().to_vec()).unwrap();
    assert_eq!(Message::parse(body.bytes(3).unwrap()).unwrap().bytes(1), Some(&b"ab.0"[..]));
    (u32::from_be_bytes(head[4..8].try_into().unwrap()), text(1), text(2))
}

/// A state with process 77.
const STATE: [u8; 2] = [3 << 3, 77];

/// Status 137, 2 s and 5 ms after the epoch.
const END: [u8; 12] = [1 << 3, 0x89, 1, 2 << 3 | 2, 7, 1 << 3, 2, 2 << 3, 0xc0, 0x96, 0xb1, 2];

#[test]
fn an_end_is_written_down_with_its_process() {
    let mut scene = Scene::new();
    std::fs::write(scene.dir.path().join("memory.events"), "oom 2\noom_kill 1\n").unwrap();
    let mut shim = scene.accept();
    let (stream, service, method) = asked(&mut shim);
    assert_eq!((service.as_str(), method.as_str()), (SERVICES[0], "State"));
    shim.write_all(&answer(stream, 0, &STATE)).unwrap();
    scene.turn();
    let (stream, _, method) = asked(&mut shim);
    assert_eq!(method, "Wait");
    assert!(scene.end(77).is_none() && !scene.witness.is_done());
    shim.write_all(&answer(stream, 0, &END)).unwrap();
    scene.turn();
    assert!(scene.witness.is_done());
    let boot_id = process::boot_id().unwrap();
    let end = TaskEnd { pid: 77, boot_id, status: 137, at_unix_ms: 2005, memory_kills: 1 };
    assert_eq!(scene.end(77), Some(end.clone()));
    assert_eq!(scene.end(78), None, "of another task");
    let old = TaskEnd { boot_id: "another".into(), ..end };
    files::store(scene.dir.path(), files::EXIT, &old).unwrap();
    assert_eq!(scene.end(77), None, "of another boot");
}

#[test]
fn the_format_is_these_bytes() {
    let golden = r#"{"pid":7,"boot_id":"b","status":137,"at_unix_ms":9,"memory_kills":1}"#;
    let end = TaskEnd { pid: 7, boot_id: "b".into(), status: 137, at_unix_ms: 9, memory_kills: 1 };
    assert_eq!(serde_json::to_string(&end).unwrap(), golden);
    assert_eq!(serde_json::from_str::<TaskEnd>(golden).unwrap(), end);
}

#[test]
fn an_older_shim_and_a_task_that_is_not_made_yet_are_asked_again() {
    let mut scene = Scene::new();
    let mut shim = scene.accept();
    let (stream, service, _) = asked(&mut shim);
    assert_eq!(service, SERVICES[0]);
    shim.write_all(&answer(stream, 12, b"")).unwrap();
    let mut shim = scene.accept();
    let (stream, service, _) = asked(&mut shim);
    assert_eq!(service, SERVICES[1]);
    shim.write_all(&answer(stream, 5, b"")).unwrap();
    let mut shim = scene.accept();
    let (stream, service, _) = asked(&mut shim);
    assert_eq!(service, SERVICES[1]);
    shim.write_all(&answer(stream, 12, b"")).unwrap();
    scene.turn();
    assert!(scene.witness.is_done(), "a shim that knows neither service");
}

#[test]
fn in_a_hurry_it_asks_once_more() {
    let mut scene = Scene::new();
    let mut shim = scene.accept();
    let (stream, _, _) = asked(&mut shim);
    shim.write_all(&answer(stream, 5, b"")).unwrap();
    let (fd, limit) = (scene.witness.wakes().unwrap(), Timespec { tv_sec: 30, tv_nsec: 0 });
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap();
    scene.witness.attend();
    assert!(scene.witness.pause().is_some(), "refused, it waits");
    scene.witness.hurry();
    assert_eq!(scene.witness.pause(), Some(Duration::ZERO));
    let mut shim = scene.accept();
    let (stream, _, _) = asked(&mut shim);
    shim.write_all(&answer(stream, 5, b"")).unwrap();
    scene.turn();
    assert!(scene.witness.is_done());
}

#[test]
fn a_shim_that_is_gone_tells_nothing() {
    let mut scene = Scene::new();
    let mut shim = scene.accept();
    let (stream, _, _) = asked(&mut shim);
    shim.write_all(&answer(stream, 0, &STATE)).unwrap();
    scene.turn();
    drop((shim, scene.listener.take()));
    scene.turn();
    assert!(scene.witness.is_done());
    assert!(!scene.dir.path().join(files::EXIT).exists());
}

#[test]
fn addresses_of_every_containerd_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    assert_eq!(address(dir.path()), None);
    write("address", "unix:///run/containerd/s/ab");
    assert_eq!(address(dir.path()), Some("/run/containerd/s/ab".into()));
    write("bootstrap.json", r#"{"version":3,"address":"unix:///run/s/cd","protocol":"ttrpc"}"#);
    assert_eq!(address(dir.path()), Some("/run/s/cd".into()));
    write("bootstrap.json", r#"{"version":3,"address":"unix:///run/s/cd","protocol":"grpc"}"#);
    assert_eq!(address(dir.path()), None);
    write("bootstrap.json", "{");
    assert_eq!(address(dir.path()), None);
}
