//! A containerd, a registry and images of the test's own, and their end whatever happens.
//!
//! Everything lies in one temporary folder: the daemon's root, state and socket, the
//! registry's files, the backend's state. A guard ends what was started, by process id, also
//! when a test panics.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

pub(crate) mod daemon;
pub(crate) mod image;
pub(crate) mod proxy;
pub(crate) mod registry;

use daemon::Daemon;
use marram_backend_api::conformance::{Harness, Program};
use marram_backend_api::{Backend, BoxFuture, Event, Events, Spec, WorkloadId};
use marram_containerd::{Config, Containerd, Mirror, Registry};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The image that most tests run.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";

/// Names the folder of the containerd that is tested; unset, that is the installed one.
const UNDER_TEST: &str = "MARRAM_TEST_CONTAINERD";

/// What that folder has to hold.
const PROGRAMS: [&str; 3] = ["containerd", "ctr", "containerd-shim-runc-v2"];

/// How long anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The output of a command that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("PATH", search_path()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; run `make setup`"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The folder of the containerd that is tested, if it is not the installed one.
pub(crate) fn folder_under_test() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(UNDER_TEST)?);
    for program in PROGRAMS {
        let path = folder.join(program);
        let there = path.is_absolute() && path.is_file();
        assert!(there, "{UNDER_TEST} asks for {path:?}, which is not there: run `make setup`");
    }
    Some(folder)
}

/// Where a program is found: the folder of the containerd that is tested comes first.
pub(crate) fn search_path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = folder_under_test().into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(all).unwrap()
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The shim, which cargo builds as an example of this package: `target/PROFILE/examples/…`
/// beside this test's `target/PROFILE/deps/…`.
pub(crate) fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/marram-shim-for-containerd");
    assert!(path.exists(), "{} was not built beside this test", path.display());
    path
}

/// A host with the image present.
#[derive(Debug)]
pub(crate) struct Host {
    // First, so that it ends before its folder goes.
    pub(crate) daemon: Daemon,
    pub(crate) runtime: &'static str,
    pub(crate) dir: TempDir,
}

impl Host {
    /// A daemon that has the image.
    pub(crate) fn new(runtime: &'static str) -> Self {
        let host = Self::empty(runtime);
        let archive = host.dir.path().join("image.tar");
        image::Builder::busybox().archive(&host.dir.path().join("layout"), IMAGE, &archive);
        host.ctr(&["image", "import", "--snapshotter", "overlayfs", archive.to_str().unwrap()]);
        host
    }

    /// A daemon without images whose whole store has this many MiB.
    pub(crate) fn on_small_disk(runtime: &'static str, mib: u32) -> Self {
        Self::on(runtime, Some(mib))
    }

    /// A daemon without images.
    pub(crate) fn empty(runtime: &'static str) -> Self {
        Self::on(runtime, None)
    }

    fn on(runtime: &'static str, disk_mib: Option<u32>) -> Self {
        for program in PROGRAMS.into_iter().chain(["setpriv", "tar", runtime]) {
            let found = run("sh", &["-c", &format!("command -v {program} || true")]);
            assert!(!found.is_empty(), "{program} is not installed: run `make setup`");
        }
        let dir = tempfile::Builder::new().prefix("marram-ctd-").tempdir().unwrap();
        if let Some(mib) = disk_mib {
            let root = dir.path().join("root");
            std::fs::create_dir(&root).unwrap();
            let size = format!("size={mib}m");
            run("mount", &["-t", "tmpfs", "-o", &size, "none", root.to_str().unwrap()]);
        }
        let daemon = Daemon::start(dir.path(), runtime);
        Self { daemon, runtime, dir }
    }

    /// The backend's configuration on this host.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path().join("marram"), shim());
        config.socket = self.daemon.socket();
        config.namespace = self.daemon.name().into();
        config.cgroup_parent = self.daemon.cgroup_parent();
        config.containerd_config = self.dir.path().join("no-such-file");
        let registry = Registry { mirrors: Vec::new(), mirrors_only: true };
        config.registries.insert("docker.io".into(), registry);
        config
    }

    /// The same with a mirror of docker.io on this machine.
    pub(crate) fn config_with_mirror(&self, port: u16) -> Config {
        let mut config = self.config();
        let mirror = Mirror { url: format!("http://127.0.0.1:{port}"), insecure: true };
        let registry = Registry { mirrors: vec![mirror], mirrors_only: true };
        config.registries.insert("docker.io".into(), registry);
        config
    }

    pub(crate) fn backend(&self) -> Containerd {
        Containerd::new(self.config()).unwrap()
    }

    /// Asks containerd by its own command.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> String {
        let socket = self.daemon.socket();
        let namespace = self.daemon.name();
        let mut all = vec!["--address", socket.to_str().unwrap(), "--namespace", namespace];
        all.extend(arguments);
        run("ctr", &all)
    }

    /// The process that keeps a workload's output and how it ends.
    pub(crate) fn driver(&self, id: &str) -> u32 {
        let folder = self.dir.path().join("marram").join(id).join("log").display().to_string();
        let all = self.daemon.descendants_named();
        let line = all.iter().find(|line| line.split(' ').any(|word| word == folder));
        let line = line.unwrap_or_else(|| panic!("no driver of {id} in {all:#?}"));
        line.split(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn script(&self, script: &str) -> Spec {
        Spec {
            image: IMAGE.into(),
            runtime: Some(self.runtime.into()),
            args: vec!["sh".into(), "-c".into(), script.into()],
            log_bytes_max: 1 << 20,
            ..Spec::default()
        }
    }

    /// Everything that any workload could have left, one line each.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut add = |what: &str, lines: Vec<String>| {
            found.extend(lines.into_iter().map(|line| format!("{what}: {line}")));
        };
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        add("task", lines(self.ctr(&["task", "ls", "-q"])));
        add("container", lines(self.ctr(&["container", "ls", "-q"])));
        let snapshots = lines(self.ctr(&["snapshot", "--snapshotter", "overlayfs", "ls"]));
        let active = snapshots.into_iter().filter(|line| line.contains(" Active"));
        add("snapshot", active.collect());
        add("lease", lines(self.ctr(&["leases", "ls", "-q"])));
        add("process", self.daemon.descendants_named());
        add("mount", self.daemon.mounts());
        add("cgroup", self.daemon.cgroups());
        let state = std::fs::read_dir(self.dir.path().join("marram"));
        let files = state.into_iter().flatten().flatten();
        add("file", files.map(|file| file.path().display().to_string()).collect());
        found
    }

    fn left_of(&self, id: &WorkloadId) -> Vec<String> {
        let all = self.leftovers();
        all.into_iter().filter(|line| line.contains(id.as_str())).collect()
    }
}

impl Harness for Host {
    fn backend(&self) -> BoxFuture<'_, Arc<dyn Backend>> {
        Box::pin(async { Arc::new(Host::backend(self)) as Arc<dyn Backend> })
    }

    fn spec(&self, program: Program) -> Spec {
        self.script(&program.script())
    }

    fn enforces(&self, limit: &str) -> bool {
        let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
        match unified {
            Ok(text) => text.split_whitespace().any(|controller| controller == limit),
            Err(_) => Path::new("/sys/fs/cgroup").join(limit).join("cgroup.procs").exists(),
        }
    }

    fn remains<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async {
            // Shims end by themselves a moment after their task was removed.
            let end = Instant::now() + Duration::from_secs(5);
            loop {
                let left = self.left_of(id);
                if left.is_empty() || Instant::now() > end {
                    return left;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }
}

/// Keeps every event.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<Event>>);

impl Events for Recorder {
    fn push(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    /// Waits for the first event that `wanted` takes.
    pub(crate) async fn first<T>(&self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.0.lock().unwrap().iter().find_map(&wanted) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) fn id(text: &str) -> WorkloadId {
    WorkloadId::new(text).unwrap()
}
