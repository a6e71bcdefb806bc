//! What this host's cgroups enforce, and how often they had to kill for memory.
//!
//! Why read them here although runtimes set them up: containerd refuses or drops a limit
//! whose controller is missing only when the container starts, and it forgets an
//! out-of-memory event that nobody listened to, while the kernel's counter stays until the
//! workload is destroyed.

use marram_backend_api::Limit;
use std::path::{Path, PathBuf};

/// The host's tree of cgroups.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    root: PathBuf,
    unified: bool,
}

impl Cgroups {
    pub(crate) fn of_host() -> Self {
        Self::at(Path::new("/sys/fs/cgroup"))
    }

    fn at(root: &Path) -> Self {
        let unified = root.join("cgroup.controllers").exists();
        Self { root: root.to_path_buf(), unified }
    }

    /// One tree for all controllers (version 2); else one each, as on hybrid hosts.
    pub(crate) fn unified(&self) -> bool {
        self.unified
    }

    /// For each limit of the contract whether it holds here.
    pub(crate) fn limits(&self) -> Vec<Limit> {
        let names = [("memory", "memory.limit_in_bytes"), ("cpu", "cpu.cfs_quota_us")];
        let mut limits: Vec<Limit> =
            names.iter().map(|(name, file)| self.limit(name, file)).collect();
        // The root cgroup has no pids.max, in neither version.
        limits.push(self.limit("pids", "cgroup.procs"));
        limits
    }

    /// Whether one limit holds here.
    pub(crate) fn enforces(&self, name: &str) -> bool {
        self.limits().iter().any(|limit| limit.name == name && limit.enforced.is_ok())
    }

    fn limit(&self, name: &'static str, file: &str) -> Limit {
        let enforced = if self.unified {
            let controllers = std::fs::read_to_string(self.root.join("cgroup.controllers"));
            let there = controllers.unwrap_or_default().split_whitespace().any(|one| one == name);
            there.then_some(()).ok_or_else(|| format!("no cgroup v2 controller {name:?}"))
        } else {
            let path = self.root.join(name).join(file);
            path.exists().then_some(()).ok_or_else(|| format!("no {}", path.display()))
        };
        Limit { name, enforced }
    }

    /// Whether memory that is swapped out can be counted: only then may the limit name it.
    pub(crate) fn counts_swap(&self) -> bool {
        // The first line is a heading.
        let active = std::fs::read_to_string("/proc/swaps")
            .is_ok_and(|swaps| swaps.lines().nth(1).is_some());
        let file = "memory/memory.memsw.limit_in_bytes";
        active && (self.unified || self.root.join(file).exists())
    }

    /// The file that counts the kernel's kills in the cgroup at `path`.
    pub(crate) fn memory_counter(&self, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        match self.unified {
            true => self.root.join(path).join("memory.events"),
            false => self.root.join("memory").join(path).join("memory.oom_control"),
        }
    }

    /// How often the kernel killed in the cgroup at `path` because of its memory limit.
    pub(crate) fn memory_kills(&self, path: &str) -> u64 {
        let file = self.memory_counter(path);
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
        text.lines().find_map(count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn version_two_lists_its_controllers() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cgroup.controllers", "cpuset cpu io memory\n");
        write(dir.path(), "m/a/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n");
        let cgroups = Cgroups::at(dir.path());
        assert!(cgroups.unified() && cgroups.enforces("memory") && cgroups.enforces("cpu"));
        assert!(!cgroups.enforces("pids"));
        assert_eq!(cgroups.memory_kills("/m/a"), 2);
        assert_eq!(cgroups.memory_kills("/m/b"), 0);
    }

    #[test]
    fn version_one_has_a_tree_each() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "memory/memory.limit_in_bytes", "1");
        write(dir.path(), "pids/cgroup.procs", "");
        write(dir.path(), "memory/m/a/memory.oom_control", "under_oom 0\noom_kill 1\n");
        let cgroups = Cgroups::at(dir.path());
        assert!(!cgroups.unified() && cgroups.enforces("memory") && cgroups.enforces("pids"));
        let cpu = cgroups.limits().into_iter().find(|limit| limit.name == "cpu").unwrap();
        assert!(cpu.enforced.unwrap_err().contains("cpu.cfs_quota_us"));
        assert_eq!(cgroups.memory_kills("/m/a"), 1);
    }
}
