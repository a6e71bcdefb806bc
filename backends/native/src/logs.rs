//! Reading of logs, and freezing: the two small optional faces.
//!
//! Files of the log are read on the calling task: they are local, recently written and read
//! in pieces of at most 64 KiB, which costs less than a thread would.

use crate::backend::NativeBackend;
use crate::watches::DirWatch;
use crate::workload::{Workload, io_error};
use marram_backend_api::{
    BoxFuture, Cursor, Error, ErrorKind, LogChunk, Logs, Pause, Result, WorkloadId,
};
use marram_shim::cgroup::Group;
use marram_shim::log;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How long the kernel may take to hold every process of a group still.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at a group that is freezing: no kernel file tells it on version 1.
const FREEZE_LOOK_EVERY: Duration = Duration::from_millis(2);

const DOING: &str = "reading the log";

fn log_error(workload: &Workload) -> impl Fn(io::Error) -> Error + '_ {
    |error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, DOING, format!("there is no workload {}", workload.id))
        }
        _ => io_error(DOING)(error),
    }
}

impl NativeBackend {
    async fn wait_now(&self, id: &WorkloadId, from: Cursor) -> Result<bool> {
        let workload = self.workload(id);
        let failed = log_error(&workload);
        let dir = workload.log_dir();
        let watch = DirWatch::new(&dir).map_err(&failed)?;
        loop {
            // First whether it has ended: what was written before that is seen by the next.
            let ended = log::has_ended(&dir);
            if log::end(&dir).map_err(&failed)? > from.0 {
                return Ok(true);
            }
            if ended {
                return Ok(false);
            }
            watch.changed().await.map_err(&failed)?;
        }
    }

    async fn freezer(&self, id: &WorkloadId) -> Result<Group> {
        let (workload, _) = self.running(id).await?;
        let group = workload.group().filter(Group::can_freeze);
        group.ok_or_else(|| {
            let why = "this host has no freezer for the workload";
            Error::new(ErrorKind::Unsupported, "looking for the freezer", why)
        })
    }

    async fn pause_now(&self, id: &WorkloadId) -> Result<()> {
        let failed = io_error("freezing the workload");
        let group = self.freezer(id).await?;
        group.freeze(true).map_err(&failed)?;
        let deadline = Instant::now() + FREEZE_DEADLINE;
        while !group.is_frozen() {
            if Instant::now() >= deadline {
                // Half frozen is worse than not.
                group.freeze(false).map_err(&failed)?;
                let why = format!("{id} is not still after {FREEZE_DEADLINE:?}");
                return Err(Error::new(ErrorKind::Transient, "freezing the workload", why));
            }
            tokio::time::sleep(FREEZE_LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn resume_now(&self, id: &WorkloadId) -> Result<()> {
        self.freezer(id).await?.freeze(false).map_err(io_error("thawing the workload"))
    }
}

impl Logs for NativeBackend {
    fn read<'a>(
        &'a self,
        id: &'a WorkloadId,
        from: Cursor,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<LogChunk>> {
        Box::pin(async move {
            let workload = self.workload(id);
            let chunk = log::read(&workload.log_dir(), from.0, bytes_max);
            let chunk = chunk.map_err(log_error(&workload))?;
            let (start, next) = (Cursor(chunk.start), Cursor(chunk.next));
            Ok(LogChunk { start, next, bytes: chunk.bytes })
        })
    }

    fn tail<'a>(&'a self, id: &'a WorkloadId, lines: u32) -> BoxFuture<'a, Result<Cursor>> {
        Box::pin(async move {
            let workload = self.workload(id);
            log::tail(&workload.log_dir(), lines).map(Cursor).map_err(log_error(&workload))
        })
    }

    fn wait<'a>(&'a self, id: &'a WorkloadId, from: Cursor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.wait_now(id, from))
    }
}

impl Pause for NativeBackend {
    fn pause<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.pause_now(id))
    }

    fn resume<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.resume_now(id))
    }
}
