//! A host for the tests: a state directory and a cgroup parent of their own, and a count of
//! what is left.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]
#![allow(dead_code, reason = "each test file uses its part")]

use marram_backend_api::Spec;
use marram_backend_api::conformance::Program;
use marram_native::Config;
use marram_shim::process;
use std::path::{Path, PathBuf};

/// The shim that was built with these tests: `target/PROFILE/examples/marram-shim`, seen from
/// `target/PROFILE/deps/TEST`.
pub(crate) fn shim() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let shim = test.ancestors().nth(2).unwrap().join("examples/marram-shim");
    assert!(shim.exists(), "{} is missing: build this package's examples", shim.display());
    shim
}

/// A directory for one test that programs of any user can enter, and its cgroups.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Config,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("marram-native-").tempdir().unwrap();
        let mut config = Config::new(dir.path().join("state"), shim());
        let name = dir.path().file_name().unwrap();
        config.cgroup_parent = Some(Path::new("marram-tests").join(name));
        Self { dir, config }
    }

    /// Everything on the host whose name or command line names this place and `id`.
    pub(crate) fn remains(&self, id: &str) -> Vec<String> {
        let mut found = Vec::new();
        let state = self.config.state_dir.join(id);
        let state = state.to_str().unwrap();
        for entry in std::fs::read_dir(&self.config.state_dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(format!("file {}", entry.path().display()));
            }
        }
        for pid in pids() {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.split(' ').any(|word| word == state) {
                found.push(format!("process {pid}: {command}"));
            }
        }
        let parent = self.config.cgroup_parent.as_ref().unwrap();
        let group = parent.join(format!("w-{id}"));
        let group = group.to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mounts.lines() {
            let point = line.split(' ').nth(4).unwrap();
            if line.contains(state) {
                found.push(format!("mount {line}"));
            }
            if line.contains(" - cgroup") && Path::new(point).join(group).exists() {
                found.push(format!("cgroup {point}/{group}"));
            }
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A test that has failed leaves its workloads; those are of this place only.
        let state = self.config.state_dir.to_str().unwrap().to_owned();
        for pid in pids() {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&state) {
                for child in process::descendants(pid).unwrap_or_default() {
                    process::kill(child, rustix::process::Signal::KILL);
                }
            }
        }
        let parent = self.config.cgroup_parent.clone().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for point in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            clear_away(&Path::new(point.split(' ').nth(4).unwrap()).join(&parent));
        }
    }
}

/// Removes a cgroup and those below, killing what is in them.
fn clear_away(dir: &Path) {
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for group in below.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()) {
        // A few hundred times is a second or so: long enough for what was killed to go.
        for _ in 0..300 {
            let inside = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in inside.lines().filter_map(|line| line.parse().ok()) {
                process::kill(pid, rustix::process::Signal::KILL);
            }
            if std::fs::remove_dir(&group).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }
    drop(std::fs::remove_dir(dir));
    // The last test takes the folder of all of them along.
    drop(dir.parent().map(std::fs::remove_dir));
}

fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A specification for a program of the suite.
pub(crate) fn spec(program: Program) -> Spec {
    Spec {
        image: "sh".into(),
        args: vec!["-c".into(), program.script()],
        log_bytes_max: 1 << 20,
        ..Spec::default()
    }
}
