//! Being told that a directory has changed, without polling.
//!
//! Why inotify: the writer is another process that outlives the reader and must not know
//! of it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// Room for some events; what does not fit is read with the next call.
const EVENT_BYTES: usize = 4096;

/// Becomes readable when a file in a directory is made, written, moved there or removed.
///
/// A program with a runtime takes the descriptor, which is non-blocking; what is read from
/// it are events, to be thrown away. With tokio, whose `AsyncFd` has no safe constructor any
/// more: `pipe::Receiver::from_owned_fd_unchecked(watch.into())`, then `readable` and
/// `try_read` until it would block.
///
/// Order of use: make the watch, look at the directory, wait, look again. What happens
/// between making and waiting is not lost.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Watches `dir`, which must exist.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, dir, what)?;
        Ok(Self { fd })
    }

    /// Takes away what made it readable. `WouldBlock` if nothing did.
    pub fn drain(&self) -> io::Result<()> {
        let mut room = [0u8; EVENT_BYTES];
        let mut any = false;
        loop {
            match rustix::io::read(&self.fd, &mut room) {
                Ok(_) => any = true,
                Err(rustix::io::Errno::AGAIN) if any => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Blocks until a change or the timeout; tells whether there was one. For programs
    /// without a runtime.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout))? == 0 {
            return Ok(false);
        }
        self.drain()?;
        Ok(true)
    }
}

impl From<Watch> for OwnedFd {
    fn from(watch: Watch) -> Self {
        watch.fd
    }
}
