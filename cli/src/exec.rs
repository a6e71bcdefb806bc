//! `marram exec`: a program inside an instance, with the operator's input and output.
//!
//! Why one loop and no threads: input, signals and the connection are polled together, so that
//! every way out passes through one place, where the terminal is given back.
//!
//! Frames are binary, the first byte says what follows (see [`frame`]).
//!
//! Invariant: while bytes wait to be sent, no more input is read; a slow program inside slows
//! the operator's pipe and fills nobody's memory.

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use serde::Deserialize;
use signal_hook::consts::SIGWINCH;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, HandshakeError, Message, WebSocket};

use crate::args::ExecArgs;
use crate::client::Client;
use crate::error::Error;
use crate::names::{Kind, resolve};
use crate::problem::Problem;
use crate::socket::Stream;
use crate::terminal::{self, ENDING, Raw, Signals};
use crate::text;
use crate::ui::Ui;

/// First bytes of frames.
mod frame {
    /// To the program; empty closes its input.
    pub(super) const STDIN: u8 = 0;
    /// From the program.
    pub(super) const STDOUT: u8 = 1;
    /// From the program; never with a terminal.
    pub(super) const STDERR: u8 = 2;
    /// From the server, last: how the program ended.
    pub(super) const END: u8 = 3;
    /// To the program's terminal.
    pub(super) const RESIZE: u8 = 4;
}

/// How long connecting may take, the answer of the node included.
const OPEN_SECONDS_MAX: u64 = 30;

/// Longest frame: what a tier sends at once, several times.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of input read at once: a pipe's usual capacity is four of them.
const INPUT_BYTES: usize = 16 * 1024;

/// Exit code of a shell for a program that a signal ended, less the signal's number.
const SIGNAL_BASE: u8 = 128;

/// How the program ended.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum End {
    Code(i64),
    Signal(i64),
    Error(String),
}

/// Runs `marram exec`.
pub(crate) fn run(ui: Ui, client: &Client, args: &ExecArgs) -> Result<(), Error> {
    let end = session(ui, client, args).map_err(|error| match error {
        Error::Closed => Error::Closed,
        error => Error::Exec(Box::new(error)),
    })?;
    match end {
        End::Code(0) => Ok(()),
        // The operating system knows codes of one byte only.
        End::Code(code) => Err(Error::Program(u8::try_from(code).unwrap_or(u8::MAX))),
        End::Signal(signal) => {
            let signal = u8::try_from(signal).unwrap_or(0);
            Err(Error::Program(SIGNAL_BASE.saturating_add(signal)))
        }
        End::Error(why) => Err(Error::Exec(Box::new(Error::Failed(text::line(&why))))),
    }
}

fn session(ui: Ui, client: &Client, args: &ExecArgs) -> Result<End, Error> {
    if args.tty && !std::io::stdin().is_terminal() {
        return Err(Error::Usage("exec -t needs a terminal as standard input".into()));
    }
    let named = resolve(client, Kind::Instance, &args.instance)?;
    let mut path = format!("{}/exec?tty={}", Kind::Instance.item_path(&named.id), args.tty);
    for arg in &args.command {
        path.push_str("&arg=");
        path.push_str(&text::percent_encode(arg));
    }
    if let Some((rows, columns)) = terminal::size().filter(|_| args.tty) {
        path.push_str(&format!("&rows={rows}&columns={columns}"));
    }
    let socket = client.authorised(|token| open(client, &path, token))?;
    let resized = Signals::take(if args.tty { &[SIGWINCH] } else { &[] })?;
    let ending = Signals::take(if args.tty { &ENDING } else { &[] })?;
    let raw = if args.tty { Some(Raw::enter()?) } else { None };
    let mut exec =
        Exec { ui, client, socket, resized, ending, input: !args.no_stdin, waiting: false };
    if args.no_stdin {
        exec.send(frame::STDIN, &[])?;
    }
    let end = exec.pump();
    drop(raw);
    // The outcome is known; the server may already be gone.
    exec.socket.close(None).and_then(|()| exec.socket.flush()).ok();
    end
}

fn open(client: &Client, path: &str, token: &str) -> Result<WebSocket<Stream>, Error> {
    let limit = Duration::from_secs(OPEN_SECONDS_MAX);
    let stream = client.connect(limit).map_err(|error| client.lost(&error))?;
    let uri = format!("ws://{}{path}", client.host()).parse();
    let uri = uri.map_err(|error| Error::Usage(format!("the command is too long: {error}")))?;
    let mut request = ClientRequestBuilder::new(uri);
    if !token.is_empty() {
        request = request.with_header("Authorization", format!("Bearer {token}"));
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let opened = tungstenite::client::client_with_config(request, stream, Some(config));
    let (socket, _) = opened.map_err(|error| match error {
        HandshakeError::Interrupted(_) => {
            Error::Timeout(format!("no answer to exec within {OPEN_SECONDS_MAX} s"))
        }
        HandshakeError::Failure(tungstenite::Error::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Error::Server(Problem::read(answer.status().as_u16(), body))
        }
        HandshakeError::Failure(error) => broken(client, error),
    })?;
    let polled = socket.get_ref().set_nonblocking(true);
    polled.map_err(|error| client.lost(&error))?;
    Ok(socket)
}

fn broken(client: &Client, error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Io(error) => client.lost(&error),
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            client.lost(&std::io::Error::other("it closed the connection before the program ended"))
        }
        error => Error::Failed(format!("the connection to the program broke: {error}")),
    }
}

fn would_block(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}

struct Exec<'a> {
    ui: Ui,
    client: &'a Client,
    socket: WebSocket<Stream>,
    resized: Signals,
    ending: Signals,
    /// Whether there may be more input.
    input: bool,
    /// Whether bytes wait to be sent.
    waiting: bool,
}

impl Exec<'_> {
    fn pump(&mut self) -> Result<End, Error> {
        loop {
            if let Some(end) = self.receive()? {
                return Ok(end);
            }
            match self.socket.flush() {
                Ok(()) => self.waiting = false,
                Err(error) if would_block(&error) => self.waiting = true,
                Err(error) => return Err(broken(self.client, error)),
            }
            self.wait()?;
        }
    }

    /// Takes all that arrived: what the library holds would not wake the poll.
    fn receive(&mut self) -> Result<Option<End>, Error> {
        loop {
            let bytes = match self.socket.read() {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Text(_)) => {
                    return Err(Error::Failed("the server sent text, which exec never has".into()));
                }
                // Pings are answered by the library; after a close the next read says so.
                Ok(_) => continue,
                Err(error) if would_block(&error) => return Ok(None),
                Err(error) => return Err(broken(self.client, error)),
            };
            match bytes.split_first() {
                Some((&frame::STDOUT, output)) => self.ui.print_bytes(output)?,
                Some((&frame::STDERR, output)) => {
                    // As for any program: nobody reads it, it is lost.
                    std::io::stderr().lock().write_all(output).ok();
                }
                Some((&frame::END, end)) => {
                    let end = serde_json::from_slice(end);
                    return end.map(Some).map_err(|error| {
                        Error::Failed(format!("the server's word on the program's end: {error}"))
                    });
                }
                Some((kind, _)) => {
                    return Err(Error::Failed(format!("the server sent a frame of kind {kind}")));
                }
                None => return Err(Error::Failed("the server sent an empty frame".into())),
            }
        }
    }

    fn wait(&mut self) -> Result<(), Error> {
        let stdin = std::io::stdin();
        let (input, resized, ending);
        {
            let socket = self.socket.get_ref();
            let out = if self.waiting { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds = vec![
                PollFd::new(socket, PollFlags::IN | out),
                self.resized.poll_fd(),
                self.ending.poll_fd(),
            ];
            if self.input && !self.waiting {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            terminal::poll(&mut fds)?;
            input = fds.get(3).is_some_and(|stdin| !stdin.revents().is_empty());
            resized = self.resized.arrived();
            ending = self.ending.arrived();
        }
        if ending {
            return Err(Error::Failed("ended by a signal".into()));
        }
        if resized && let Some((rows, columns)) = terminal::size() {
            let size = serde_json::json!({"rows": rows, "columns": columns});
            self.send(frame::RESIZE, size.to_string().as_bytes())?;
        }
        if input { self.forward(stdin.as_fd()) } else { Ok(()) }
    }

    fn forward(&mut self, stdin: impl AsFd) -> Result<(), Error> {
        let mut buffer = [0; INPUT_BYTES];
        match rustix::io::read(stdin, &mut buffer) {
            // EIO: the terminal went away.
            Ok(0) | Err(Errno::IO) => {
                self.input = false;
                self.send(frame::STDIN, &[])
            }
            Ok(read) => self.send(frame::STDIN, &buffer[..read]),
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(error) => Err(Error::io("read", "standard input", error.into())),
        }
    }

    fn send(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Error> {
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(kind);
        message.extend_from_slice(bytes);
        match self.socket.write(Message::binary(message)) {
            Ok(()) => Ok(()),
            // The library keeps it for the next flush.
            Err(error) if would_block(&error) => {
                self.waiting = true;
                Ok(())
            }
            Err(error) => Err(broken(self.client, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read() {
        let read = |text: &str| serde_json::from_str::<End>(text).unwrap();
        assert_eq!(read(r#"{"code":3}"#), End::Code(3));
        assert_eq!(read(r#"{"signal":9}"#), End::Signal(9));
        assert_eq!(read(r#"{"error":"no"}"#), End::Error("no".into()));
        assert!(serde_json::from_str::<End>("{}").is_err());
    }
}
