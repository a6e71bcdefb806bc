//! What to run: the engine's request to a backend, free of any orchestrator's words.
//!
//! Why its own types: the SLA grows and differs between APIs; what a process, a container
//! or a machine needs does not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Longest workload id. Ids become names of files, cgroups, containers and unix sockets,
/// whose paths end at 108 bytes.
pub const ID_BYTES_MAX: usize = 48;

/// Names one workload on this host; safe as a file name, a cgroup and a container id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId(String);

/// Why a text is no workload id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadIdError {
    /// Empty, or longer than [`ID_BYTES_MAX`].
    #[error("a workload id has 1 to {ID_BYTES_MAX} bytes, got {0}")]
    Length(usize),
    /// Holds something else than `a-z 0-9 . - _`, or starts with another than `a-z 0-9`.
    #[error("a workload id is of a-z, 0-9, '.', '-' and '_' and starts with a letter or digit")]
    Characters,
}

impl WorkloadId {
    /// Checks and wraps a name.
    pub fn new(text: impl Into<String>) -> Result<Self, WorkloadIdError> {
        let text = text.into();
        if text.is_empty() || text.len() > ID_BYTES_MAX {
            return Err(WorkloadIdError::Length(text.len()));
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        if !plain(bytes[0]) || !bytes.iter().all(|&b| plain(b) || b".-_".contains(&b)) {
            return Err(WorkloadIdError::Characters);
        }
        Ok(Self(text))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whole description of a workload. A backend refuses in `validate` what it cannot honour;
/// it never drops a field silently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// What to run: a program's path (native), an image reference (containerd), …
    pub image: String,
    /// Runtime inside the backend (`runc`, `kata`, …); `None` takes the backend's default.
    pub runtime: Option<String>,
    /// Arguments. Native: argv after the program. Containers: replaces the image's command,
    /// empty keeps it.
    pub args: Vec<String>,
    /// Environment on top of the backend's or the image's own.
    pub environment: BTreeMap<String, String>,
    /// Working directory inside the workload; `None` takes the image's or `/`.
    pub working_dir: Option<PathBuf>,
    /// User as `name`, `uid`, `uid:gid`; `None` takes the image's, or for native the
    /// operator's unprivileged default.
    pub user: Option<String>,
    /// What it may use.
    pub resources: Resources,
    /// Host files and folders made visible.
    pub mounts: Vec<Mount>,
    /// Host devices made visible, as `/dev/…` paths.
    pub devices: Vec<PathBuf>,
    /// Root file system read-only.
    pub read_only_root: bool,
    /// Own mount and process-id namespaces, for backends where that is a choice (native).
    pub private_namespaces: bool,
    /// Run although limits cannot be enforced here.
    pub allow_unlimited: bool,
    /// How much output is kept.
    pub log_bytes_max: u64,
}

/// What a workload may use; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Hard limit; above it the kernel kills.
    pub memory_bytes_max: Option<u64>,
    /// Share of processor time in thousandths of one core; above it the kernel throttles.
    pub cpu_millicores_max: Option<u32>,
    /// Number of processes and threads.
    pub pids_max: Option<u32>,
}

/// A host path inside the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// On the host; must exist.
    pub source: PathBuf,
    /// Inside; absolute.
    pub target: PathBuf,
    /// No writes.
    pub read_only: bool,
}

/// What the operator's configuration allows on this host; given to a backend once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Workloads may run as user 0 if their specification asks so.
    pub allow_root: bool,
    /// Host folders of which mounts may come; nothing else may be mounted.
    pub mount_roots: Vec<PathBuf>,
    /// Devices that may be given away.
    pub devices: Vec<PathBuf>,
}

/// Name and password of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token; never printed.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What the engine keeps on disk for a backend to find its workload again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Whose it is.
    pub workload: WorkloadId,
    /// Layout of `state`; a backend refuses versions it does not know.
    pub version: u16,
    /// The backend's own bytes; a few hundred at most.
    pub state: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_as_file_names() {
        for good in ["a", "0", "6b02c146095d85ec50ef2ebc.0", "a-b_c.d"] {
            assert!(WorkloadId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "A", "-a", "a b", "ä", &"a".repeat(49)] {
            assert!(WorkloadId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials = Credentials { username: "u".into(), password: "secret".into() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
