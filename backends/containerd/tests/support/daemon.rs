//! A containerd of the test's own.

use super::until;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug)]
pub(crate) struct Daemon {
    dir: PathBuf,
    name: String,
    child: Option<Child>,
    /// In a mount namespace of its own without the cgroup v2 tree: crun refuses to run
    /// beside one that has controllers.
    alone_with_v1: bool,
}

impl Daemon {
    pub(crate) fn start(dir: &Path, runtime: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("marram-test-{}-{count}", std::process::id());
        let beside = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers");
        let alone_with_v1 = runtime == "crun" && beside.is_ok_and(|text| !text.trim().is_empty());
        let mut daemon = Self { dir: dir.to_path_buf(), name, child: None, alone_with_v1 };
        let at = dir.display();
        let config = format!(
            r#"version = 2
root = "{at}/root"
state = "{at}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{at}/c.sock"
[metrics]
  address = ""
"#
        );
        std::fs::write(dir.join("containerd.toml"), config).unwrap();
        daemon.up();
        daemon
    }

    /// Starts it, again after `down`.
    pub(crate) fn up(&mut self) {
        let mut append = std::fs::OpenOptions::new();
        let append = append.create(true).append(true);
        let log = append.open(self.dir.join("containerd.log")).unwrap();
        // The daemon dies with this process even if no guard can act.
        let toml = self.dir.join("containerd.toml");
        let run = format!("exec containerd -c {}", toml.display());
        let run = match self.alone_with_v1 {
            true => format!("umount /sys/fs/cgroup/unified && {run}"),
            false => run,
        };
        let namespace: &[&str] = if self.alone_with_v1 { &["unshare", "--mount"] } else { &[] };
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(namespace)
            .args(["sh", "-c", &run])
            .env("PATH", super::search_path())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("containerd: run `make setup`");
        self.child = Some(child);
        let socket = self.socket();
        let socket = socket.to_str().unwrap();
        until("containerd to answer", || {
            let path = super::search_path();
            let version = ["--address", socket, "version"];
            let asked = Command::new("ctr").args(version).env("PATH", path).output();
            asked.is_ok_and(|output| output.status.success())
        });
    }

    /// Ends it and leaves everything that it started running.
    pub(crate) fn down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill(child.id(), 15);
        child.wait().unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// Unlike all others': runtimes keep their state by namespace and id, for all daemons of
    /// a host in one place.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn cgroup_parent(&self) -> String {
        format!("/{}", self.name)
    }

    /// Shims of this daemon and all below them: process id and command line.
    fn descendants(&self) -> Vec<(u32, String)> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            let stat = String::from_utf8_lossy(&read("stat")).into_owned();
            let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
            let mut fields = fields.split(' ');
            let state = fields.next().unwrap_or_default().to_owned();
            let parent: u32 = fields.next().and_then(|text| text.parse().ok()).unwrap_or(0);
            if state != "Z" {
                all.push((pid, parent, line));
            }
        }
        let address = self.socket().display().to_string();
        let is_shim = |line: &str| line.contains("containerd-shim") && line.contains(&address);
        let mut found: Vec<(u32, String)> = all
            .iter()
            .filter(|(_, _, line)| is_shim(line))
            .map(|(pid, _, line)| (*pid, line.clone()))
            .collect();
        let mut index = 0;
        while index < found.len() {
            let parent = found[index].0;
            let children = all.iter().filter(|(_, of, line)| *of == parent && !is_shim(line));
            found.extend(children.map(|(pid, _, line)| (*pid, line.clone())));
            index += 1;
        }
        found
    }

    /// The same as lines.
    pub(crate) fn descendants_named(&self) -> Vec<String> {
        self.descendants().into_iter().map(|(pid, line)| format!("{pid} {line}")).collect()
    }

    /// Mounts below the daemon's folder, as the daemon sees them.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let pid = self.child.as_ref().map_or(std::process::id(), Child::id);
        mounts_below(&self.dir, pid)
    }

    /// Cgroups of workloads, in any hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<String> {
        let mut found = Vec::new();
        for parent in self.cgroup_parents() {
            let children = std::fs::read_dir(&parent).into_iter().flatten().flatten();
            let folders = children.filter(|child| child.path().is_dir());
            found.extend(folders.map(|child| child.path().display().to_string()));
        }
        found
    }

    fn cgroup_parents(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let mut all = vec![root.join(&self.name)];
        let children = std::fs::read_dir(root).into_iter().flatten().flatten();
        all.extend(children.map(|child| child.path().join(&self.name)));
        all.retain(|path| path.is_dir());
        all
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Children first: a shim that ends by itself would leave them to init.
        for (pid, _) in self.descendants().into_iter().rev() {
            kill(pid, 9);
        }
        if let Some(mut child) = self.child.take() {
            kill(child.id(), 15);
            drop(child.wait());
        }
        // A namespace of its own takes its mounts with it.
        for mount in mounts_below(&self.dir, std::process::id()).into_iter().rev() {
            drop(Command::new("umount").args(["-l", &mount]).output());
        }
        drop(std::fs::remove_dir_all(Path::new("/run/containerd/runc").join(&self.name)));
        // What was killed needs a moment to be gone; a guard must not panic, so not for ever.
        for _ in 0..100 {
            for parent in self.cgroup_parents() {
                for child in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
                    drop(std::fs::remove_dir(child.path()));
                }
                drop(std::fs::remove_dir(parent));
            }
            if self.cgroup_parents().is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

pub(crate) fn kill(pid: u32, signal: i32) {
    drop(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).output());
}

fn mounts_below(dir: &Path, pid: u32) -> Vec<String> {
    let all = std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap_or_default();
    let points = all.lines().filter_map(|line| line.split(' ').nth(1));
    let below = points.filter(|point| Path::new(point).starts_with(dir));
    below.map(str::to_owned).collect()
}
