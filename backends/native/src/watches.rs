//! Who waits for the end of which workload.
//!
//! Why a FIFO: its end of file needs no polling, no process descriptor (kernels before 5.3
//! have none) and no trust in a process id, and works for a shim that another engine
//! started. The shim holds it open while it lives.
//!
//! Invariant: at most one task per workload and incarnation; all end with the backend.

use crate::workload::{Seen, Workload, exit, io_error};
use marram_backend_api::{Error, ErrorKind, Event, Events, Exit, Result, WorkloadId};
use marram_shim::files;
use marram_shim::log::Watch;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The end of a workload, to be awaited by any number.
type End = watch::Receiver<Option<Exit>>;

#[derive(Debug)]
struct Watched {
    incarnation: String,
    end: End,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All watches of a backend object.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    events: OnceLock<Arc<dyn Events>>,
    all: Mutex<BTreeMap<WorkloadId, Watched>>,
}

impl Watches {
    /// The sink of events; the first one given stays.
    pub(crate) fn set_events(&self, events: Arc<dyn Events>) {
        if self.events.set(events).is_err() {
            tracing::error!("a second sink of events was given and is not used");
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkloadId, Watched>> {
        // Nothing panics while it is held; if something did, the map is still whole.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a running workload from now on, if it is not watched already. `shim` is the
    /// child to be reaped, for the engine that started it.
    pub(crate) fn add(&self, workload: &Workload, incarnation: &str, shim: Option<Child>) {
        let mut all = self.all();
        if let Some(known) = all.get(&workload.id)
            && known.incarnation == incarnation
            && !known.task.is_finished()
        {
            return;
        }
        let (sender, end) = watch::channel(None);
        let events = self.events.get().cloned();
        let task = tokio::spawn(attend(workload.clone(), shim, sender, events)).abort_handle();
        let incarnation = incarnation.to_owned();
        all.insert(workload.id.clone(), Watched { incarnation, end, task });
    }

    /// Forgets a workload.
    pub(crate) fn remove(&self, id: &WorkloadId) {
        self.all().remove(id);
    }

    /// Waits for the end of a workload that is watched.
    pub(crate) async fn ended(&self, id: &WorkloadId) -> Result<Exit> {
        let lost = |why: &str| Error::new(ErrorKind::Transient, "waiting for the end", why);
        let watched = self.all().get(id).map(|watched| watched.end.clone());
        let Some(mut end) = watched else { return Err(lost("it is not watched any more")) };
        let ended = end.wait_for(Option::is_some).await;
        let ended = ended.map_err(|_| lost("it was destroyed meanwhile"))?;
        ended.clone().ok_or_else(|| lost("it has not ended"))
    }
}

/// The task: waits for the shim's end, tells everybody.
async fn attend(
    workload: Workload,
    shim: Option<Child>,
    sender: watch::Sender<Option<Exit>>,
    events: Option<Arc<dyn Events>>,
) {
    let ended = match until_end(&workload).await {
        Ok(ended) => ended,
        Err(error) => {
            tracing::error!(workload = %workload.id, error = error.chain(), "its end is not seen");
            if let Some(events) = events {
                events.push(Event::Resync);
            }
            return;
        }
    };
    if let Some(ended) = ended {
        // Whoever asks again on hearing the event must find it.
        sender.send_replace(Some(ended.clone()));
        if let Some(events) = events {
            events.push(Event::Exited(workload.id.clone(), ended));
        }
    }
    if let Some(mut shim) = shim
        && let Err(error) = shim.wait().await
    {
        tracing::warn!(workload = %workload.id, %error, "its shim was not reaped");
    }
}

/// How it ended; `None` if it was destroyed.
async fn until_end(workload: &Workload) -> Result<Option<Exit>> {
    let failed = io_error("waiting for the end");
    loop {
        end_of_file(&workload.dir.join(files::ALIVE)).await.map_err(&failed)?;
        match workload.seen().await? {
            Seen::Exited(ended) => return Ok(Some(exit(ended))),
            Seen::Absent | Seen::Prepared => return Ok(None),
            // The pipe ends a moment before the lock is free.
            Seen::Running(_) => tokio::task::yield_now().await,
        }
    }
}

/// Returns when nobody holds the FIFO for writing.
pub(crate) async fn end_of_file(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // The kernel tells only of writers that were there when we opened: a bare read tells
    // whether there was one.
    if matches!(rustix::io::read(&file, &mut [0u8; 1]), Ok(0)) {
        return Ok(());
    }
    let receiver = pipe::Receiver::from_owned_fd(file)?;
    let mut byte = [0u8; 1];
    loop {
        match receiver.try_read(&mut byte) {
            Ok(0) => return Ok(()),
            // Nobody writes; what a stranger wrote means nothing.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => receiver.readable().await?,
            Err(error) => return Err(error),
        }
    }
}

/// A directory whose changes wake a task.
#[derive(Debug)]
pub(crate) struct DirWatch(pipe::Receiver);

/// Room for some of the kernel's events, which say nothing that a look does not say better.
const EVENT_BYTES: usize = 4096;

impl DirWatch {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        // The descriptor is no pipe, and is waited for and read like one.
        pipe::Receiver::from_owned_fd_unchecked(Watch::new(dir)?.into()).map(Self)
    }

    /// Returns when something has changed since the watch was made or this was called.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        self.0.readable().await?;
        let mut room = [0u8; EVENT_BYTES];
        loop {
            match self.0.try_read(&mut room) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
