//! A root as a test double: speaks HTTP by hand, so that a test decides about every byte, also
//! about how answers are cut, delayed and broken off.
//!
//! Why not the real root: what is tested with it is how the client takes answers that a healthy
//! root gives rarely or never. The way through all real programs is tested end to end elsewhere.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A service's id.
pub(crate) const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";
/// Another's.
pub(crate) const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbb";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /path?query`.
    pub(crate) line: String,
    /// The token, if there was one.
    pub(crate) token: Option<String>,
    /// `sec-websocket-key`, if there was one.
    pub(crate) key: Option<String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// The double and the operator's home.
pub(crate) struct Double {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// Every request so far.
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    /// Where the configuration is.
    pub(crate) home: TempDir,
}

impl Double {
    /// A double that answers each request by `answer`, one after the other on one thread each.
    pub(crate) fn new(answer: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Some(asked) = read(&stream) {
                        log.lock().unwrap().push(asked.clone());
                        answer(&asked, &mut stream);
                    }
                });
            }
        });
        let home = tempfile::tempdir().unwrap();
        Self { url: format!("http://{address}"), address, asked, home }
    }

    /// Where the configuration is.
    pub(crate) fn config(&self) -> PathBuf {
        self.home.path().join("config.toml")
    }

    /// Writes a configuration with a login.
    pub(crate) fn log_in(&self, token: &str, refresh_token: &str) {
        let text = format!(
            "server = {0:?}\n[logins.{0:?}]\nusername = 'Admin'\ntoken = '{token}'\n\
             refresh_token = '{refresh_token}'\n",
            self.url
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// The program, with the configuration of this double.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_marram"));
        command.args(args).env_clear().env("MARRAM_CONFIG", self.config());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).stdin(std::process::Stdio::null()).output().unwrap().into()
    }

    /// The lines of all requests.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
    }
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let line = first.trim().strip_suffix(" HTTP/1.1")?.to_owned();
    let (mut token, mut key, mut length) = (None, None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            "sec-websocket-key" => key = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line, token, key, body })
}

/// Answers with a status and JSON.
pub(crate) fn answer(stream: &mut TcpStream, status: u16, body: &Value) {
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    // The client may have gone, which some tests want.
    stream.write_all(format!("{head}{body}").as_bytes()).ok();
}

/// Begins an answer of unknown length.
pub(crate) fn begin(stream: &mut TcpStream, kind: &str) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
}

/// Sends a piece of it; false once the client is gone.
pub(crate) fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut piece = format!("{:x}\r\n", bytes.len()).into_bytes();
    piece.extend_from_slice(bytes);
    piece.extend_from_slice(b"\r\n");
    stream.write_all(&piece).is_ok()
}

/// An event.
pub(crate) fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// An instance as the root shows it.
pub(crate) fn instance(service: &str, name: &str, number: u32, state: &str, detail: &str) -> Value {
    json!({
        "instance_id": format!("{service}.{number}"), "service_id": service,
        "application_id": B, "name": format!("{name}.{number}"), "number": number,
        "state": state, "detail": detail, "restarts": 0, "exit": null,
        "since_unix_ms": 1, "cluster": null, "node": {"id": A, "name": "pi", "address": ""},
        "tried": [], "revision": 1,
    })
}
