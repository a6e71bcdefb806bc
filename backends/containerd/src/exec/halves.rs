//! The two ends of a program in a container that the engine holds.

use super::{DOING, Session, broken};
use crate::rpc::{QUICK, found};
use containerd_client::services::v1::{CloseIoRequest, ResizePtyRequest};
use marram_backend_api::{BoxFuture, ExecEvent, ExecInput, ExecOutput, Result, Stream};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// One piece of output: half a pipe, and within the contract's 64 KiB.
const PIECE_BYTES: usize = 32 * 1024;

/// How long output may be silent after the program has ended before it is taken to be
/// complete: children that it left behind may hold its outputs for ever.
const SILENCE: Duration = Duration::from_secs(2);

/// To the program.
#[derive(Debug)]
pub(super) struct Input {
    session: Arc<Session>,
    /// `None` once it was closed, by us or by the program's end.
    pipe: Option<pipe::Sender>,
    terminal: bool,
}

impl Input {
    pub(super) fn new(session: Arc<Session>, pipe: Option<pipe::Sender>, terminal: bool) -> Self {
        Self { session, pipe, terminal }
    }

    pub(super) async fn set_size(&mut self, rows: u16, columns: u16) -> Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let rpc = &self.session.inner.rpc;
        let request = ResizePtyRequest {
            container_id: self.session.workload.as_str().into(),
            exec_id: self.session.exec_id.clone(),
            width: columns.into(),
            height: rows.into(),
        };
        let answer = rpc.tasks().await?.resize_pty(rpc.request(QUICK, request)).await;
        match found(DOING, answer) {
            // It has ended meanwhile, which is told elsewhere.
            Err(error) if !error.why.contains("finished") => Err(error),
            _ => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<()> {
        if self.pipe.take().is_none() {
            return Ok(());
        }
        // The shim holds a writing end as well and drops it when asked.
        let rpc = &self.session.inner.rpc;
        let request = CloseIoRequest {
            container_id: self.session.workload.as_str().into(),
            exec_id: self.session.exec_id.clone(),
            stdin: true,
        };
        let answer = rpc.tasks().await?.close_io(rpc.request(QUICK, request)).await;
        match found(DOING, answer) {
            Ok(_) => Ok(()),
            Err(error) if error.why.contains("finished") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl ExecInput for Input {
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if bytes.is_empty() {
                return self.close().await;
            }
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            let session = self.session.clone();
            // A program that has ended reads nothing more, and its shim may still hold the
            // other end for a moment.
            let written = tokio::select! {
                written = pipe.write_all(bytes) => Some(written),
                _ = session.exit() => None,
            };
            match written {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(broken(error)),
                Some(Err(_)) | None => {
                    self.pipe = None;
                    Ok(())
                }
            }
        })
    }

    fn resize(&mut self, rows: u16, columns: u16) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.set_size(rows, columns))
    }
}

/// From the program.
#[derive(Debug)]
pub(super) struct Output {
    session: Arc<Session>,
    /// Standard output and error; `None` once at the end.
    pipes: [Option<pipe::Receiver>; 2],
    room: Vec<u8>,
}

impl Output {
    pub(super) fn new(session: Arc<Session>, pipes: [Option<pipe::Receiver>; 2]) -> Self {
        Self { session, pipes, room: vec![0; PIECE_BYTES] }
    }

    async fn piece(&mut self) -> Result<ExecEvent> {
        loop {
            if self.pipes.iter().all(Option::is_none) {
                return Ok(ExecEvent::Exited(self.session.exit().await?));
            }
            let (first, second) = self.room.split_at_mut(PIECE_BYTES / 2);
            let [out, err] = &mut self.pipes;
            let session = self.session.clone();
            let over = async {
                let ended = session.exit().await;
                tokio::time::sleep(SILENCE).await;
                ended
            };
            let (stream, read) = tokio::select! {
                read = read(out, first) => (Stream::Stdout, read),
                read = read(err, second) => (Stream::Stderr, read),
                ended = over => return Ok(ExecEvent::Exited(ended?)),
            };
            let read = read.map_err(broken)?;
            let from = match stream {
                Stream::Stdout => 0,
                Stream::Stderr => PIECE_BYTES / 2,
            };
            if read > 0 {
                let bytes = self.room[from..from + read].to_vec();
                return Ok(ExecEvent::Output(stream, bytes));
            }
            match stream {
                Stream::Stdout => self.pipes[0] = None,
                Stream::Stderr => self.pipes[1] = None,
            }
        }
    }
}

/// Reads from a pipe, or never ends if there is none.
async fn read(pipe: &mut Option<pipe::Receiver>, room: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(room).await,
        None => std::future::pending().await,
    }
}

impl ExecOutput for Output {
    fn next(&mut self) -> BoxFuture<'_, Result<ExecEvent>> {
        Box::pin(self.piece())
    }
}
