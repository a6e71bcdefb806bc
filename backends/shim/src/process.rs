//! Processes as the shim and the native backend see them: who is who, and what comes out.
//!
//! Why start times: the kernel gives process ids again. A process is the one that was meant
//! only if its id, the tick at which it started and the boot are the same.

use crate::log::RotatedLog;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One read from a pipe: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

/// Reads from a pipe after the program's end: a pipe holds at most 1 MiB unless root enlarged
/// it.
const LAST_READS_MAX: usize = 16;

/// A process that cannot be mistaken for a later one of the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub pid: u32,
    /// When it started, in ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// Of which boot.
    pub boot_id: String,
}

impl Identity {
    /// Reads the identity of a process that runs now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = Stat::of(pid)?;
        Ok(Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id()? })
    }

    /// Whether that very process exists now; a zombie does not.
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot_id| boot_id == self.boot_id)
            && Stat::of(self.pid)
                .is_ok_and(|stat| stat.start_ticks == self.start_ticks && stat.state != b'Z')
    }

    /// Sends a signal if it is alive; tells whether it was.
    pub fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && kill(self.pid, signal)
    }
}

/// Sends a signal to a process; tells whether there was one to take it.
pub fn kill(pid: u32, signal: Signal) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

/// The id of this boot.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What `/proc/PID/stat` says, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// One letter.
    pub state: u8,
    /// Parent.
    pub ppid: u32,
    /// Processor time in ticks, both user and system.
    pub cpu_ticks: u64,
    /// Threads.
    pub threads: u32,
    /// Start in ticks since boot.
    pub start_ticks: u64,
    /// Resident memory in pages.
    pub resident_pages: u64,
}

impl Stat {
    /// Reads it.
    pub fn of(pid: u32) -> io::Result<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is strange")))
    }

    /// The name in brackets may hold anything, brackets and spaces too: the fields begin
    /// after the last closing one.
    fn parse(text: &[u8]) -> Option<Self> {
        let after = text.iter().rposition(|&byte| byte == b')')? + 1;
        let fields: Vec<&str> =
            std::str::from_utf8(&text[after..]).ok()?.split_whitespace().collect();
        // Field 3 of the manual is the first here.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            ppid: u32::try_from(number(4)?).ok()?,
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            threads: u32::try_from(number(20)?).ok()?,
            start_ticks: number(22)?,
            resident_pages: number(24)?,
        })
    }
}

/// All living descendants of a process. For hosts without cgroups: whoever left the tree by
/// a double fork is caught by the shim, which adopts orphans.
pub fn descendants(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Gone meanwhile: not a descendant any more.
        if let Ok(stat) = Stat::of(pid)
            && stat.state != b'Z'
        {
            parents.push((pid, stat.ppid));
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for &(pid, _) in parents.iter().filter(|(_, ppid)| *ppid == parent) {
            found.push(pid);
            next.push(pid);
        }
    }
    Ok(found)
}

/// Milliseconds of the wall clock.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Moves the outputs of a program into its log.
#[derive(Debug)]
pub struct Pump {
    log: RotatedLog,
    /// `None` once it has ended.
    pipes: [Option<File>; 2],
    room: Vec<u8>,
}

impl Pump {
    /// Both pipes must be non-blocking.
    pub fn new(log: RotatedLog, pipes: [File; 2]) -> Self {
        Self { log, pipes: pipes.map(Some), room: vec![0; READ_BYTES] }
    }

    /// Whether a pipe has not ended.
    pub fn is_open(&self) -> bool {
        self.pipes.iter().any(Option::is_some)
    }

    /// Waits until there is output, until `wake` or `other` is readable or `limit` has
    /// passed, and keeps what came. Tells whether `wake` is readable.
    pub fn wait(
        &mut self,
        wake: BorrowedFd<'_>,
        other: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> io::Result<bool> {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(4);
        fds.push(PollFd::new(&wake, PollFlags::IN));
        fds.extend(other.as_ref().map(|other| PollFd::new(other, PollFlags::IN)));
        fds.extend(self.pipes.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        // One that is too long for the kernel is as good as none.
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let woken = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        self.take();
        Ok(woken)
    }

    /// Keeps what is in the pipes now, without waiting.
    fn take(&mut self) {
        for pipe in &mut self.pipes {
            let Some(file) = pipe else { continue };
            match file.read(&mut self.room) {
                Ok(0) => *pipe = None,
                // A log that cannot be written must not stop the program: its output is lost.
                Ok(read) => drop(self.log.write(&self.room[..read])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => *pipe = None,
            }
        }
    }

    /// Keeps what is left in the pipes, whoever still holds their other ends, and marks the
    /// log as ended.
    pub fn finish(mut self) -> io::Result<()> {
        for pipe in self.pipes.iter_mut().filter_map(Option::take) {
            let mut pipe = pipe;
            // Who left the program's cgroup may hold the other end and write for ever.
            for _ in 0..LAST_READS_MAX {
                let Ok(read @ 1..) = pipe.read(&mut self.room) else { break };
                drop(self.log.write(&self.room[..read]));
            }
        }
        self.log.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_fields() {
        let stat = b"7 (a) Z 1 (b) R 1 (c) S 4 7 7 0 -1 0 1 2 3 4 10 20 0 0 20 0 3 0 999 5 66 7";
        let parsed = Stat::parse(stat).unwrap();
        assert_eq!((parsed.state, parsed.ppid, parsed.start_ticks), (b'S', 4, 999));
        assert_eq!((parsed.cpu_ticks, parsed.threads, parsed.resident_pages), (30, 3, 66));
        assert!(Stat::parse(b"").is_none());
        assert!(Stat::parse(b"7 (a) S 4").is_none());
    }

    #[test]
    fn an_identity_is_of_one_process_of_one_boot() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { start_ticks: own.start_ticks + 1, ..own.clone() }.is_alive());
        assert!(!Identity { boot_id: "another".into(), ..own }.is_alive());
    }

    #[test]
    fn children_of_children_are_descendants() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 1000 & echo up; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        shell.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        let found = descendants(std::process::id()).unwrap();
        assert!(found.contains(&shell.id()));
        let below = descendants(shell.id()).unwrap();
        assert_eq!(below.len(), 1, "{below:?}");
        assert!(kill(below[0], Signal::KILL));
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
