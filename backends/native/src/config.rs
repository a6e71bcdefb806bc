//! What the operator decides about native programs.

use marram_backend_api::Limits;
use std::path::PathBuf;

/// Configuration of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the state of workloads is kept; made if absent. Of no use after a reboot: a
    /// directory in memory spares flash.
    pub state_dir: PathBuf,
    /// The program `marram-shim`.
    pub shim: PathBuf,
    /// User of programs that ask for none.
    pub user: String,
    /// Where programs are looked for that are not given by their path.
    pub search_path: Vec<PathBuf>,
    /// The cgroup for workloads, from the root of each hierarchy, as in `/marram`. `None`
    /// takes the engine's own delegated cgroup (version 2 under systemd) or `/marram`.
    pub cgroup_parent: Option<PathBuf>,
    /// What specifications may ask for.
    pub limits: Limits,
}

impl Config {
    /// The defaults of everything that has one.
    pub fn new(state_dir: impl Into<PathBuf>, shim: impl Into<PathBuf>) -> Self {
        let search_path = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin"];
        Self {
            state_dir: state_dir.into(),
            shim: shim.into(),
            user: "nobody".into(),
            search_path: search_path.map(PathBuf::from).to_vec(),
            cgroup_parent: None,
            limits: Limits::default(),
        }
    }
}
