//! `exec` against a WebSocket server, without and with a terminal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use double::{A, Double, answer};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

type Socket = WebSocket<TcpStream>;

fn double(program: impl Fn(&str, &mut Socket) + Send + Sync + 'static) -> Double {
    let double = Double::new(move |asked, stream| {
        if asked.token.as_deref() == Some("old") {
            answer(stream, 401, &serde_json::json!({"title": "unauthorised"}));
        } else if asked.line == "POST /api/auth/refresh" {
            answer(stream, 200, &serde_json::json!({"token": "new"}));
        } else if asked.line.contains("arg=refused") {
            answer(stream, 404, &serde_json::json!({"title": "not found", "detail": "no such"}));
        } else {
            let accept = derive_accept_key(asked.key.as_ref().unwrap().as_bytes());
            let head = format!(
                "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            let stream = stream.try_clone().unwrap();
            program(&asked.line, &mut WebSocket::from_raw_socket(stream, Role::Server, None));
        }
    });
    double.log_in("new", "r");
    double
}

fn send(socket: &mut Socket, kind: u8, bytes: &[u8]) {
    let message = [&[kind], bytes].concat();
    socket.send(Message::binary(message)).unwrap();
}

/// The next frame; `None` once the client is gone.
fn next(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn instance() -> String {
    format!("{A}.0")
}

#[test]
fn input_output_and_code_go_through() {
    let double = double(|line, socket| {
        assert_eq!(
            line,
            format!("GET /api/v1/instances/{A}.0/exec?tty=false&arg=wc&arg=-c&arg=a%20b%26c")
        );
        let mut count = 0;
        while let Some(frame) = next(socket) {
            assert_eq!(frame[0], 0);
            if frame.len() == 1 {
                break;
            }
            count += frame.len() - 1;
        }
        send(socket, 1, format!("{count}\n").as_bytes());
        send(socket, 2, b"warning\xff\n");
        socket.send(Message::Ping("x".into())).unwrap();
        send(socket, 3, b"{\"code\":42}");
        assert_eq!(next(socket), None);
    });
    // More than any buffer on the way holds.
    let input = double.home.path().join("input");
    std::fs::write(&input, vec![b'x'; 3_000_000]).unwrap();
    let mut command = double.command(&["exec", &instance(), "--", "wc", "-c", "a b&c"]);
    let output = command.stdin(File::open(&input).unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(output.stdout, b"3000000\n");
    assert_eq!(output.stderr, b"warning\xff\n");
}

#[test]
fn ends_have_their_codes() {
    let double = double(|line, socket| {
        let end: &[u8] = match line.rsplit_once("arg=").unwrap().1 {
            "fine" => b"{\"code\":0}",
            "killed" => b"{\"signal\":9}",
            "error" => b"{\"error\":\"no such program\"}",
            "huge" => b"{\"code\":300}",
            "nonsense" => b"{}",
            _ => return,
        };
        send(socket, 3, end);
        next(socket);
    });
    let run = |program: &str| double.run(&["exec", &instance(), "--", program]);
    assert_eq!((run("fine").code, run("killed").code, run("huge").code), (0, 137, 255));
    assert_eq!(run("killed").err, "");
    let ran = run("error");
    assert_eq!((ran.code, ran.err.as_str()), (125, "error: no such program\n"));
    assert_eq!(run("nonsense").code, 125);
    let ran = run("lost");
    assert_eq!(ran.code, 125);
    assert!(ran.err.contains("no server answers"), "{ran:?}");
    let ran = run("refused");
    assert_eq!(ran.code, 125);
    assert!(ran.err.contains("404: not found: no such"), "{ran:?}");
    let ran = double.run(&["exec", &instance(), "-t", "--", "sh"]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (125, "error: exec -t needs a terminal as standard input\n")
    );
}

#[test]
fn a_token_that_ran_out_is_renewed_here_too() {
    let double = double(|_, socket| {
        assert_eq!(next(socket), Some(vec![0]), "-n closes the input at once");
        send(socket, 3, b"{\"code\":0}");
        next(socket);
    });
    double.log_in("old", "r");
    let ran = double.run(&["exec", &instance(), "-n", "--", "true"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// A terminal: our side, and the side for the program.
fn terminal() -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    resize(&ours, 24, 80);
    (File::from(ours), theirs)
}

fn resize(terminal: impl AsFd, ws_row: u16, ws_col: u16) {
    tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

fn is_raw(theirs: &OwnedFd) -> bool {
    !tcgetattr(theirs).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn start(double: &Double, theirs: &OwnedFd, program: &str) -> Child {
    let mut command = double.command(&["exec", "-t", &instance(), "--", program]);
    let copy = || Stdio::from(theirs.try_clone().unwrap());
    command.stdin(copy()).stdout(copy()).stderr(Stdio::piped()).spawn().unwrap()
}

fn read_until(from: &mut File, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        assert_eq!(from.read(&mut byte).unwrap(), 1);
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn a_terminal_is_raw_meanwhile_and_told_its_size() {
    let double = double(|line, socket| {
        assert!(line.contains("tty=true&arg=sh&rows=24&columns=80"), "{line}");
        send(socket, 1, b"$ ");
        // An interrupt is a byte for the program, not a signal for us.
        assert_eq!(next(socket), Some(vec![0, 3]));
        send(socket, 1, b"^C");
        let resize = next(socket).unwrap();
        assert_eq!(resize[0], 4);
        let size: serde_json::Value = serde_json::from_slice(&resize[1..]).unwrap();
        assert_eq!(size, serde_json::json!({"rows": 50, "columns": 132}));
        send(socket, 3, b"{\"code\":7}");
        next(socket);
    });
    let (mut ours, theirs) = terminal();
    assert!(!is_raw(&theirs));
    let mut child = start(&double, &theirs, "sh");
    assert_eq!(read_until(&mut ours, "$ "), "$ ");
    assert!(is_raw(&theirs));
    ours.write_all(&[3]).unwrap();
    read_until(&mut ours, "^C");
    resize(&ours, 50, 132);
    // The terminal is not the child's controlling one, so the kernel tells it nothing.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(!is_raw(&theirs), "given back as it was");
}

#[test]
fn a_terminal_is_given_back_on_each_way_out() {
    let double = double(|line, socket| {
        send(socket, 1, b"$ ");
        if line.contains("arg=wait") {
            next(socket);
        }
        // Otherwise the connection breaks.
    });
    for program in ["wait", "break"] {
        let (mut ours, theirs) = terminal();
        let mut child = start(&double, &theirs, program);
        assert_eq!(read_until(&mut ours, "$ "), "$ ");
        if program == "wait" {
            wait_until("it became raw", || is_raw(&theirs));
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(125), "{program}");
        assert!(!is_raw(&theirs), "{program}");
    }
}

#[test]
fn a_password_is_typed_unseen() {
    let double = Double::new(|asked, stream| {
        let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(body["password"], "gehäim");
        answer(stream, 200, &serde_json::json!({"token": "t", "refresh_token": "r"}));
    });
    let (mut ours, theirs) = terminal();
    let copy = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = double.command(&["login", "--server", &double.url]);
    let mut child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
    assert_eq!(read_until(&mut ours, ": "), "password of Admin: ");
    wait_until("the echo is off", || is_raw(&theirs));
    ours.write_all("gehöö\x7f\x7fäim\r".as_bytes()).unwrap();
    assert_eq!(read_until(&mut ours, "config.toml\r\n").matches("geh").count(), 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!is_raw(&theirs));
}
