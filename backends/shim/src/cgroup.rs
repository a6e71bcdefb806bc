//! A workload's cgroup as far as its supervisor needs it: join, kill, freeze, and whether
//! the kernel killed for memory.
//!
//! Why here and not in the backend: when the first process ends the shim takes the others
//! away, with or without an engine. Making groups and setting limits is the backend's.
//!
//! A group is a set of directories, because on version 1 each controller has a tree of its
//! own. Names of controllers are the kernel's.

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The directories of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    /// Version 1: directory of each controller. Controllers mounted together share one.
    #[serde(default)]
    pub v1: BTreeMap<String, PathBuf>,
    /// Version 2: the one directory.
    #[serde(default)]
    pub v2: Option<PathBuf>,
}

impl Group {
    /// Each directory once.
    pub fn dirs(&self) -> Vec<&Path> {
        let mut dirs: Vec<&Path> =
            self.v1.values().chain(self.v2.iter()).map(PathBuf::as_path).collect();
        dirs.sort_unstable();
        dirs.dedup();
        dirs
    }

    /// Puts the calling process, which must have one thread only, into the group.
    ///
    /// On version 1 by way of its thread: moving a process makes the kernel wait for a grace
    /// period of RCU (8 to 16 ms were measured), moving the calling thread does not.
    pub fn join(&self) -> io::Result<()> {
        for dir in self.dirs() {
            let file = if self.v2.as_deref() == Some(dir) { "cgroup.procs" } else { "tasks" };
            write(&dir.join(file), "0")?;
        }
        Ok(())
    }

    /// Processes in the group now; none if it is gone.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for dir in self.dirs() {
            match fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        // A process of another pid namespace shows as 0 and cannot be ours.
        pids.retain(|pid| *pid != 0);
        Ok(pids)
    }

    /// Kills every process once and returns how many there were. A killed process takes a
    /// moment to go, and a forking one may have slipped through: call again until it says 0.
    pub fn kill(&self) -> io::Result<usize> {
        let before = self.pids()?;
        if before.is_empty() {
            return Ok(0);
        }
        if let Some(v2) = &self.v2
            && write(&v2.join("cgroup.kill"), "1").is_ok()
            && self.v1.is_empty()
        {
            return Ok(before.len());
        }
        // Kernels before 5.14, and version 1: hold them still, so that none forks away.
        let freezes = self.freeze(true).is_ok();
        let all = self.pids()?;
        for pid in &all {
            crate::process::kill(*pid, Signal::KILL);
        }
        if freezes {
            // The killed die when they thaw.
            self.freeze(false)?;
        }
        Ok(all.len())
    }

    /// Whether the group can be frozen at all.
    pub fn can_freeze(&self) -> bool {
        self.freezer().is_some()
    }

    /// Freezes or thaws. Freezing takes a moment; see [`Group::is_frozen`].
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        match self.freezer() {
            Some((file, words)) => write(&file, words[usize::from(frozen)]),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "no freezer on this host")),
        }
    }

    /// Whether a freeze was asked for and not taken back.
    pub fn is_freezing(&self) -> bool {
        let Some((file, words)) = self.freezer() else { return false };
        fs::read_to_string(file).is_ok_and(|state| {
            // Version 1 says FREEZING until the last task is still.
            let state = state.trim();
            state == words[1] || state == "FREEZING"
        })
    }

    /// Whether every process is still.
    pub fn is_frozen(&self) -> bool {
        if let Some(dir) = self.v1.get("freezer") {
            return fs::read_to_string(dir.join("freezer.state"))
                .is_ok_and(|state| state.trim() == "FROZEN");
        }
        self.v2.as_ref().is_some_and(|dir| counter(&dir.join("cgroup.events"), "frozen") == Some(1))
    }

    /// The file to write and the words for thawed and frozen.
    fn freezer(&self) -> Option<(PathBuf, [&'static str; 2])> {
        if let Some(dir) = self.v1.get("freezer") {
            return Some((dir.join("freezer.state"), ["THAWED", "FROZEN"]));
        }
        let file = self.v2.as_ref()?.join("cgroup.freeze");
        file.exists().then_some((file, ["0", "1"]))
    }

    /// How often the kernel killed for the memory limit. `None` if it does not count (before
    /// 4.13 on version 1): then see [`OomNotice`].
    pub fn oom_kills(&self) -> Option<u64> {
        if let Some(dir) = self.v1.get("memory") {
            return counter(&dir.join("memory.oom_control"), "oom_kill");
        }
        counter(&self.v2.as_ref()?.join("memory.events"), "oom_kill")
    }

    /// Removes the directories. `ResourceBusy` while a killed process has not gone yet.
    pub fn remove(&self) -> io::Result<()> {
        for dir in self.dirs() {
            match fs::remove_dir(dir) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    // Reading `cgroup.procs` of a removed directory says "no such device".
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Version 1's notice of an out-of-memory state, for kernels that do not count kills.
#[derive(Debug)]
pub struct OomNotice {
    notice: OwnedFd,
    /// The registration lives as long as this.
    _control: File,
}

impl OomNotice {
    /// Registers with the group; `None` if its memory is not under version 1.
    pub fn register(group: &Group) -> io::Result<Option<Self>> {
        let Some(dir) = group.v1.get("memory") else { return Ok(None) };
        let control = File::open(dir.join("memory.oom_control"))?;
        let notice = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let line = format!("{} {}", notice.as_raw_fd(), control.as_raw_fd());
        write(&dir.join("cgroup.event_control"), &line)?;
        Ok(Some(Self { notice, _control: control }))
    }

    /// Whether the group ran out of memory since it was registered.
    pub fn happened(&self) -> bool {
        let mut count = [0u8; 8];
        rustix::io::read(&self.notice, &mut count).is_ok()
    }
}

/// Writes one value to a file of the kernel, in one call, without making or cutting it.
pub fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    io::Write::write_all(&mut file, value.as_bytes())
}

/// The number after `key` in a file of lines `key number`.
pub fn counter(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_share_a_directory_are_written_once() {
        let both = PathBuf::from("/c/cpu,cpuacct/m");
        let v1 =
            [("cpu", both.clone()), ("cpuacct", both.clone()), ("memory", "/c/memory/m".into())];
        let v1 = v1.into_iter().map(|(name, dir)| (name.to_owned(), dir)).collect();
        let group = Group { v1, v2: Some("/c/unified/m".into()) };
        let expected =
            [both.as_path(), Path::new("/c/memory/m"), Path::new("/c/unified/m")].to_vec();
        assert_eq!(group.dirs(), expected);
    }

    #[test]
    fn a_group_that_is_gone_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group { v1: BTreeMap::new(), v2: Some(dir.path().join("gone")) };
        assert_eq!(group.pids().unwrap(), Vec::<u32>::new());
        assert_eq!(group.kill().unwrap(), 0);
        assert!(!group.is_frozen() && !group.is_freezing() && !group.can_freeze());
        assert_eq!(group.oom_kills(), None);
        group.remove().unwrap();
        let file = dir.path().join("memory.events");
        fs::write(&file, "oom 1\noom_kill 3\n").unwrap();
        assert_eq!(counter(&file, "oom_kill"), Some(3));
        assert_eq!(counter(&file, "oom_group_kill"), None);
    }
}
