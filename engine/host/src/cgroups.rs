//! Which cgroup hierarchies this machine has, and which controllers can be used, or why not.
//!
//! Why so much about reasons: small boards ship with the memory controller off, and a limit
//! that is silently not enforced is worse than one that is refused.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::parse::{self, CgroupMounts};
use crate::root::Root;

/// Which versions are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMode {
    /// No cgroup file system is mounted.
    None,
    /// Only trees of version 1.
    V1,
    /// Only the tree of version 2.
    V2,
    /// Trees of version 1 with controllers, and one of version 2 beside.
    Hybrid,
}

impl CgroupMode {
    /// As told to people: `none`, `v1`, `v2`, `hybrid`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }
}

/// One controller that limits are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its name in version 2: `cpu`, `memory`, `pids`, `cpuset`, `io`, `freezer`.
    pub name: &'static str,
    /// The own cgroup's directory that it acts in; where new cgroups would be made.
    pub directory: Option<PathBuf>,
    /// Why it cannot be used; `None` if it can.
    pub unusable: Option<String>,
}

/// The machine's cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    /// Which versions.
    pub mode: CgroupMode,
    /// Where version 2 is mounted.
    pub v2_mount: Option<PathBuf>,
    /// The controllers that matter to Marram, always the same six.
    pub controllers: Vec<Controller>,
}

const CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "freezer"];

impl Cgroups {
    /// Reads it.
    pub fn read(root: &Root) -> Self {
        let mountinfo = root.text("/proc/self/mountinfo").unwrap_or_default();
        let mounts = parse::cgroup_mounts(&mountinfo);
        let with_controllers = mounts.v1.keys().any(|name| !name.starts_with("name="));
        let mode = match (&mounts.v2, with_controllers) {
            (Some(_), true) => CgroupMode::Hybrid,
            (Some(_), false) => CgroupMode::V2,
            (None, true) => CgroupMode::V1,
            (None, false) => CgroupMode::None,
        };
        let finder = Finder { root, mounts: &mounts, mode };
        let controllers = CONTROLLERS.iter().map(|name| finder.find(name)).collect();
        Self { mode, v2_mount: mounts.v2.clone(), controllers }
    }

    /// One of the six.
    pub fn controller(&self, name: &str) -> Option<&Controller> {
        self.controllers.iter().find(|controller| controller.name == name)
    }

    /// Whether limits by that controller can be enforced.
    pub fn usable(&self, name: &str) -> bool {
        self.controller(name).is_some_and(|controller| controller.unusable.is_none())
    }
}

struct Finder<'r> {
    root: &'r Root,
    mounts: &'r CgroupMounts,
    mode: CgroupMode,
}

impl Finder<'_> {
    fn find(&self, name: &'static str) -> Controller {
        let (directory, unusable) = match self.locate(name) {
            Ok(directory) => {
                let writable = access(self.root.path(&directory), Access::WRITE_OK);
                let unusable = writable
                    .err()
                    .map(|error| format!("{} cannot be written to: {error}", directory.display()));
                (Some(directory), unusable)
            }
            Err(reason) => (None, Some(reason)),
        };
        Controller { name, directory, unusable }
    }

    /// The directory that the controller acts in, or why there is none.
    fn locate(&self, name: &'static str) -> Result<PathBuf, String> {
        let own = parse::own_cgroups(&self.root.text("/proc/self/cgroup").unwrap_or_default());
        let v1_name = if name == "io" { "blkio" } else { name };
        if let Some(mount) = self.mounts.v1.get(v1_name) {
            return Ok(self.own_directory(mount, own.get(v1_name)));
        }
        if self.mode == CgroupMode::None {
            return Err("no cgroup file system is mounted".to_owned());
        }
        let Some(mount) = &self.mounts.v2 else {
            return Err(self.why_missing(name, v1_name));
        };
        let directory = self.own_directory(mount, own.get(""));
        // Freezing is part of version 2 itself and no controller there.
        if name == "freezer" || self.lists(&directory, name) {
            return Ok(directory);
        }
        if self.lists(mount, name) {
            let own = directory.display();
            return Err(format!("{name} is not delegated to {own} (systemd: Delegate=yes)"));
        }
        Err(self.why_missing(name, v1_name))
    }

    /// The own cgroup below a mount. In a container the path that /proc tells may lie outside
    /// of what is mounted; then the mount itself is the own cgroup.
    fn own_directory(&self, mount: &Path, own: Option<&String>) -> PathBuf {
        let below = own.map_or("", |own| own.trim_start_matches('/'));
        let inside = !below.is_empty() && below.split('/').all(|part| part != "..");
        let directory = mount.join(below);
        if inside && self.root.exists(&directory) { directory } else { mount.into() }
    }

    fn lists(&self, directory: &Path, name: &str) -> bool {
        let list = self.root.text(directory.join("cgroup.controllers")).unwrap_or_default();
        list.split_ascii_whitespace().any(|listed| listed == name)
    }

    fn why_missing(&self, name: &str, v1_name: &str) -> String {
        let cmdline = self.root.text("/proc/cmdline").unwrap_or_default();
        let asked_off = cmdline.split_ascii_whitespace().any(|word| {
            let list = word.strip_prefix("cgroup_disable=").unwrap_or_default();
            list.split(',').any(|off| off == name || off == v1_name)
        });
        let enabled =
            parse::controllers_enabled(&self.root.text("/proc/cgroups").unwrap_or_default());
        match enabled.get(v1_name).or_else(|| enabled.get(name)) {
            _ if asked_off => format!(
                "{name} is turned off by cgroup_disable={v1_name} on the kernel's command line"
            ),
            Some(false) => format!(
                "{name} is turned off in the kernel (cgroup_enable={v1_name} on its command line \
                 turns it on)"
            ),
            Some(true) => format!("{name} is mounted in no cgroup tree"),
            None => format!("the kernel was built without {name}"),
        }
    }
}
