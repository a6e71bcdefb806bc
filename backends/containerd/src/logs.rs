//! Output of workloads: kept by marram-shim, read from its files.
//!
//! containerd starts marram-shim beside each task and keeps its pipes open until the task is
//! removed. So the end of the output does not show in the pipes; when a workload has ended we
//! tell its marram-shim, which then takes what is left and marks the log as ended.

use crate::backend::{Containerd, Inner};
use crate::task;
use containerd_client::types::v1::Status;
use marram_backend_api::{BoxFuture, Cursor, Error, ErrorKind, LogChunk, Logs, Result, WorkloadId};
use marram_shim::log;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;

/// How often a wait asks for the task although nothing has changed: an exit that was missed
/// while containerd was away leaves a log whose writer waits for ever.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Room for some dozens of notices of changes.
const EVENT_BYTES: usize = 4096;

const DOING: &str = "reading the output";

impl Inner {
    /// Has the output of a workload that ended marked as ended, in the background: looking
    /// for its writer reads the whole table of processes.
    pub(crate) fn finish_log(&self, id: &WorkloadId) {
        let dir = self.log(id);
        if !dir.exists() || log::has_ended(&dir) {
            return;
        }
        let shim = self.config.shim_path.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = finish(&shim, &dir) {
                tracing::debug!(%error, log = %dir.display(), "the output was not finished");
            }
        });
    }
}

/// Asks the writer of `dir` to finish; without one, marks the end.
fn finish(shim: &Path, dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        if !writes(&entry.path(), shim, dir) {
            continue;
        }
        // Opened, then looked at again: the number may have been given to another.
        let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if writes(&entry.path(), shim, dir) {
            return Ok(rustix::process::pidfd_send_signal(process, Signal::TERM)?);
        }
    }
    if !log::has_ended(dir) && dir.exists() {
        log::RotatedLog::open(dir, u64::MAX)?.close()?;
    }
    Ok(())
}

/// Whether the process at `proc` is the marram-shim that keeps `dir`.
fn writes(proc: &Path, shim: &Path, dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(line) = std::fs::read(proc.join("cmdline")) else { return false };
    let mut words = line.split(|&byte| byte == 0);
    words.next() == Some(shim.as_os_str().as_bytes())
        && words.any(|word| word == dir.as_os_str().as_bytes())
}

impl Logs for Containerd {
    fn read<'a>(
        &'a self,
        id: &'a WorkloadId,
        from: Cursor,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<LogChunk>> {
        let dir = self.inner().log(id);
        Box::pin(async move {
            let chunk = off(move || log::read(&dir, from.0, bytes_max)).await?;
            let (start, next) = (Cursor(chunk.start), Cursor(chunk.next));
            Ok(LogChunk { start, next, bytes: chunk.bytes })
        })
    }

    fn tail<'a>(&'a self, id: &'a WorkloadId, lines: u32) -> BoxFuture<'a, Result<Cursor>> {
        let dir = self.inner().log(id);
        Box::pin(async move { Ok(Cursor(off(move || log::tail(&dir, lines)).await?)) })
    }

    fn wait<'a>(&'a self, id: &'a WorkloadId, from: Cursor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(wait(self.inner(), id, from))
    }
}

/// File work off the runtime's thread.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(error),
        Err(broken) => {
            Err(Error::caused(ErrorKind::Internal, DOING, "the reader broke off", broken))
        }
    }
}

fn error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::caused(ErrorKind::NotFound, DOING, "there is no such workload", error)
        }
        _ => Error::caused(ErrorKind::Internal, DOING, "its files cannot be read", error),
    }
}

async fn wait(inner: &Arc<Inner>, id: &WorkloadId, from: Cursor) -> Result<bool> {
    let dir = inner.log(id);
    let watch = log::Watch::new(&dir).map_err(error)?;
    // Not a pipe, but read like one: what comes are events, and only that they come counts.
    let watch = pipe::Receiver::from_owned_fd_unchecked(watch.into()).map_err(error)?;
    let mut room = vec![0; EVENT_BYTES];
    loop {
        if let Some(more) = look(&dir, from).await? {
            return Ok(more);
        }
        tokio::select! {
            ready = watch.readable() => {
                ready.map_err(error)?;
                loop {
                    match watch.try_read(&mut room) {
                        Ok(1..) => {}
                        Ok(0) => return Err(error(io::ErrorKind::UnexpectedEof.into())),
                        Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => break,
                        Err(failure) => return Err(error(failure)),
                    }
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                // An end that nobody was there to hear of.
                let ended = match task::get(inner, id).await? {
                    Some(task) => task.status() == Status::Stopped,
                    None => inner.started(id).is_some(),
                };
                if ended {
                    inner.finish_log(id);
                }
            }
        }
    }
}

/// `Some(true)`: there is more. `Some(false)`: there never will be.
async fn look(dir: &Path, from: Cursor) -> Result<Option<bool>> {
    let dir: PathBuf = dir.to_path_buf();
    off(move || {
        // In this order: what was written before the mark is seen.
        let ended = log::has_ended(&dir);
        let end = log::end(&dir)?;
        Ok(match (end > from.0, ended) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        })
    })
    .await
}
