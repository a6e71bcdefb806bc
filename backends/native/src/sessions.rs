//! The two halves of a program that was started by exec.
//!
//! Invariant: when both halves are gone the program is killed, unless it has ended.

use crate::exec::size;
use crate::workload::io_error;
use marram_backend_api::{
    BoxFuture, ExecEvent, ExecInput, ExecOutput, ExecSession, Exit, ExitReason, Result, Stream,
};
use marram_shim::process::{Identity, unix_ms};
use rustix::process::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStderr, ChildStdout};

/// One piece of output; the contract's bound.
const PIECE_BYTES_MAX: usize = 64 * 1024;

const READING: &str = "reading from the program";
const WRITING: &str = "writing to the program";

/// Our ends of a program's streams.
pub(crate) enum Ends {
    /// Its input, before its outputs are known.
    Input(pipe::Sender),
    /// Three pipes.
    Pipes { input: pipe::Sender, out: ChildStdout, err: ChildStderr },
    /// A terminal for all.
    Terminal(OwnedFd),
}

/// Kills on drop. Shared by the halves.
#[derive(Debug)]
struct Life(Option<Identity>);

impl Drop for Life {
    fn drop(&mut self) {
        // Its start time is compared: an ended program's id may be another's by now.
        if let Some(identity) = &self.0 {
            identity.signal(Signal::KILL);
        }
    }
}

/// Makes the halves.
pub(crate) fn session(ends: Ends, child: Child, identity: Option<Identity>) -> Result<ExecSession> {
    let life = Arc::new(Life(identity));
    Ok(match ends {
        Ends::Terminal(near) => {
            let failed = io_error(READING);
            let (second, third) = (near.try_clone(), near.try_clone());
            // No pipes, but waited for, read and written like them.
            let output = pipe::Receiver::from_owned_fd_unchecked(near).map_err(&failed)?;
            let input = second.and_then(pipe::Sender::from_owned_fd_unchecked).map_err(&failed)?;
            let near = third.map_err(&failed)?;
            ExecSession {
                input: Box::new(TerminalInput { near, input, _life: life.clone() }),
                output: Box::new(TerminalOutput {
                    output: Some(output),
                    room: vec![0; PIECE_BYTES_MAX],
                    end: End { child, _life: life },
                }),
            }
        }
        Ends::Pipes { input, out, err } => ExecSession {
            input: Box::new(PipeInput { pipe: Some(input), _life: life.clone() }),
            output: Box::new(PipeOutput {
                out: Some(out),
                err: Some(err),
                room: vec![0; PIECE_BYTES_MAX],
                end: End { child, _life: life },
            }),
        },
        Ends::Input(_) => return Err(io_error(READING)(io::Error::other("it has no outputs"))),
    })
}

/// The process, and how it ended.
#[derive(Debug)]
struct End {
    child: Child,
    _life: Arc<Life>,
}

impl End {
    async fn exited(&mut self) -> Result<ExecEvent> {
        let status = self.child.wait().await.map_err(io_error("waiting for the program"))?;
        Ok(ExecEvent::Exited(Exit { reason: reason(status), at_unix_ms: unix_ms() }))
    }
}

fn reason(status: ExitStatus) -> ExitReason {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitReason::Code(code),
        (None, Some(signal)) => ExitReason::Signal(signal),
        (None, None) => ExitReason::Lost,
    }
}

#[derive(Debug)]
struct PipeInput {
    /// `None` once it was closed.
    pipe: Option<pipe::Sender>,
    _life: Arc<Life>,
}

impl ExecInput for PipeInput {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if bytes.is_empty() {
                self.pipe = None;
                return Ok(());
            }
            let closed = || io_error(WRITING)(io::Error::other("its input was closed"));
            let pipe = self.pipe.as_mut().ok_or_else(closed)?;
            pipe.write_all(bytes).await.map_err(io_error(WRITING))
        })
    }

    fn resize(&mut self, _rows: u16, _columns: u16) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Debug)]
struct PipeOutput {
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    room: Vec<u8>,
    end: End,
}

impl ExecOutput for PipeOutput {
    fn next(&mut self) -> BoxFuture<'_, Result<ExecEvent>> {
        Box::pin(async move {
            let mut other_room = [0u8; 4096];
            while self.out.is_some() || self.err.is_some() {
                // Both arms are cancel safe: a read that was not finished has read nothing.
                let (stream, bytes) = tokio::select! {
                    read = read(&mut self.out, &mut self.room) => {
                        let read = read.map_err(io_error(READING))?;
                        (Stream::Stdout, self.room[..read].to_vec())
                    }
                    read = read(&mut self.err, &mut other_room) => {
                        let read = read.map_err(io_error(READING))?;
                        (Stream::Stderr, other_room[..read].to_vec())
                    }
                };
                if !bytes.is_empty() {
                    return Ok(ExecEvent::Output(stream, bytes));
                }
                match stream {
                    Stream::Stdout => self.out = None,
                    Stream::Stderr => self.err = None,
                }
            }
            self.end.exited().await
        })
    }
}

/// Reads from a pipe; never ready once it has ended.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, room: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(room).await,
        None => std::future::pending().await,
    }
}

#[derive(Debug)]
struct TerminalInput {
    near: OwnedFd,
    input: pipe::Sender,
    _life: Arc<Life>,
}

/// What a terminal takes for the end of input (control-D).
const END_OF_INPUT: &[u8] = &[4];

impl ExecInput for TerminalInput {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        let bytes = if bytes.is_empty() { END_OF_INPUT } else { bytes };
        Box::pin(async move { self.input.write_all(bytes).await.map_err(io_error(WRITING)) })
    }

    fn resize(&mut self, rows: u16, columns: u16) -> BoxFuture<'_, Result<()>> {
        let done = rustix::termios::tcsetwinsize(&self.near, size(rows, columns));
        Box::pin(async move { done.map_err(|error| io_error("resizing")(error.into())) })
    }
}

#[derive(Debug)]
struct TerminalOutput {
    /// `None` once it has ended.
    output: Option<pipe::Receiver>,
    room: Vec<u8>,
    end: End,
}

impl ExecOutput for TerminalOutput {
    fn next(&mut self) -> BoxFuture<'_, Result<ExecEvent>> {
        Box::pin(async move {
            if self.output.is_some() {
                let read = match read(&mut self.output, &mut self.room).await {
                    // What a terminal says when nobody has its far end any more.
                    Err(error) if is_io(&error) => 0,
                    other => other.map_err(io_error(READING))?,
                };
                if read > 0 {
                    return Ok(ExecEvent::Output(Stream::Stdout, self.room[..read].to_vec()));
                }
                self.output = None;
            }
            self.end.exited().await
        })
    }
}

fn is_io(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
