//! The host's cgroups: which there are, groups with limits, and what they count.
//!
//! Why an own writer: what is needed are a dozen files of the kernel, on version 1, version
//! 2 and hosts that have both (hybrid); the kept libraries bring an async runtime of their
//! own.
//!
//! Each controller is taken where the host has it: from its version 1 tree if one is
//! mounted, else from the version 2 tree.

use marram_backend_api::{Resources, Usage};
use marram_shim::cgroup::{self, Group};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod counts;
mod detect;

/// Controllers that are of use, by the kernel's names.
const CONTROLLERS: [&str; 6] = ["memory", "cpu", "cpuacct", "pids", "freezer", "blkio"];

/// Name of the group where the engine puts itself when its own cgroup becomes the parent:
/// version 2 allows processes in leaves only.
const ENGINE_LEAF: &str = "engine";

/// Before a workload's id, so that no id is the name of one of the kernel's files.
const PREFIX: &str = "w-";

/// Period of the processor quota: the kernel's own default, short enough not to be felt.
const CPU_PERIOD_USEC: u64 = 100_000;

/// Period for quotas below a hundredth of a core, which the kernel refuses in the short one
/// (a quota has at least 1 ms).
const CPU_LONG_PERIOD_USEC: u64 = 1_000_000;

/// Smallest quota, in thousandths of a core, that fits the short period.
const CPU_SHORT_MILLICORES_MIN: u64 = 10;

/// Where groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// Version 1: the parent directory of each controller.
    v1: BTreeMap<String, PathBuf>,
    /// Version 2.
    v2: Option<Unified>,
}

/// A place in the version 2 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unified {
    /// From here down controllers have to be passed on by us.
    from: PathBuf,
    /// Parent of the workloads' groups.
    parent: PathBuf,
}

/// The limits by their names in the fingerprint, with the file that sets each on version 1
/// and on version 2.
const LIMIT_FILES: [(&str, &str, &str); 3] = [
    ("memory", "memory.limit_in_bytes", "memory.max"),
    ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    ("pids", "pids.max", "pids.max"),
];

impl Cgroups {
    /// Finds what the host has and makes the parents. The error says what is missing.
    pub(crate) fn find(parent: Option<&Path>) -> Result<Self, String> {
        let found = detect::host(parent)?;
        found.make_parents().map_err(|error| format!("cgroups cannot be written: {error}"))?;
        Ok(found)
    }

    /// The directories of a workload's group, whether they exist or not.
    pub(crate) fn group(&self, id: &str) -> Group {
        let name = format!("{PREFIX}{id}");
        Group {
            v1: self.v1.iter().map(|(key, parent)| (key.clone(), parent.join(&name))).collect(),
            v2: self.v2.as_ref().map(|unified| unified.parent.join(&name)),
        }
    }

    /// Makes a group and sets its limits; repeatable. A limit without a file is left out:
    /// the caller has asked [`Cgroups::enforced`] before.
    pub(crate) fn make(&self, id: &str, resources: &Resources) -> io::Result<Group> {
        let group = self.group(id);
        for dir in group.dirs() {
            make_dir(dir)?;
        }
        limit(&group, resources)?;
        Ok(group)
    }

    /// For each limit whether it is held here, tried with a group that is removed again.
    pub(crate) fn enforced(&self) -> io::Result<Vec<(&'static str, Result<(), String>)>> {
        let probe = self.make(&format!("probe.{}", std::process::id()), &Resources::default())?;
        let checked = LIMIT_FILES.map(|(name, v1, v2)| (name, has_file(&probe, name, v1, v2)));
        probe.remove()?;
        Ok(checked.into())
    }

    /// One sample of what a group uses.
    pub(crate) fn usage(group: &Group) -> Usage {
        counts::usage(group)
    }

    fn make_parents(&self) -> io::Result<()> {
        for parent in self.v1.values() {
            make_dir(parent)?;
        }
        let Some(Unified { from, parent }) = &self.v2 else { return Ok(()) };
        make_dir(parent)?;
        leave_to_leaf(parent)?;
        // Each level must pass the controllers on.
        let mut levels: Vec<&Path> =
            parent.ancestors().take_while(|level| level.starts_with(from)).collect();
        levels.reverse();
        for level in levels {
            pass_on(level)?;
        }
        Ok(())
    }
}

/// Processes in a group that is to have groups below move to a leaf of their own.
fn leave_to_leaf(parent: &Path) -> io::Result<()> {
    let text = fs::read_to_string(parent.join("cgroup.procs"))?;
    if text.trim().is_empty() {
        return Ok(());
    }
    let leaf = parent.join(ENGINE_LEAF);
    make_dir(&leaf)?;
    for pid in text.lines() {
        match cgroup::write(&leaf.join("cgroup.procs"), pid) {
            // Ended meanwhile.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Switches the useful controllers on for the groups below.
fn pass_on(level: &Path) -> io::Result<()> {
    let here = fs::read_to_string(level.join("cgroup.controllers"))?;
    let control = level.join("cgroup.subtree_control");
    let already = fs::read_to_string(&control)?;
    for name in here.split_whitespace().filter(|name| is_useful_v2(name)) {
        if !already.split_whitespace().any(|on| on == name) {
            cgroup::write(&control, &format!("+{name}"))?;
        }
    }
    Ok(())
}

fn is_useful_v2(name: &str) -> bool {
    name == "io" || CONTROLLERS.contains(&name)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(named)
        }
        other => other.map_err(named),
    }
}

fn has_file(group: &Group, name: &str, v1: &str, v2: &str) -> Result<(), String> {
    let file = match (group.v1.get(name), &group.v2) {
        (Some(dir), _) => dir.join(v1),
        (None, Some(dir)) => dir.join(v2),
        (None, None) => return Err(format!("this host has no cgroup controller {name}")),
    };
    if file.exists() {
        return Ok(());
    }
    Err(format!("this kernel's cgroups have no {}", file.file_name().unwrap_or_default().display()))
}

fn limit(group: &Group, resources: &Resources) -> io::Result<()> {
    let set = |dir: &Path, file: &str, value: &str| {
        cgroup::write(&dir.join(file), value)
            .map_err(|error| io::Error::new(error.kind(), format!("{file} = {value}: {error}")))
    };
    // Older kernels have some of these files only: what is no limit of its own is left out.
    let set_if_there = |dir: &Path, file: &str, value: &str| match set(dir, file, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if let Some(bytes) = resources.memory_bytes_max.map(|bytes| bytes.to_string()) {
        if let Some(dir) = group.v1.get("memory") {
            set(dir, "memory.limit_in_bytes", &bytes)?;
            // Swap counts too, or it would be a way around.
            set_if_there(dir, "memory.memsw.limit_in_bytes", &bytes)?;
        } else if let Some(dir) = &group.v2 {
            set_if_there(dir, "memory.max", &bytes)?;
            set_if_there(dir, "memory.swap.max", "0")?;
            set_if_there(dir, "memory.oom.group", "1")?;
        }
    }
    if let Some(millicores) = resources.cpu_millicores_max.map(u64::from) {
        let short = millicores >= CPU_SHORT_MILLICORES_MIN;
        let period = if short { CPU_PERIOD_USEC } else { CPU_LONG_PERIOD_USEC };
        let quota = millicores * period / 1000;
        if let Some(dir) = group.v1.get("cpu") {
            set_if_there(dir, "cpu.cfs_period_us", &period.to_string())?;
            set_if_there(dir, "cpu.cfs_quota_us", &quota.to_string())?;
        } else if let Some(dir) = &group.v2 {
            set_if_there(dir, "cpu.max", &format!("{quota} {period}"))?;
        }
    }
    if let Some(pids) = resources.pids_max {
        let dir = group.v1.get("pids").or(group.v2.as_ref());
        if let Some(dir) = dir {
            set_if_there(dir, "pids.max", &pids.to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
