//! `up` and `down` with programs that do what the test wants: small scripts in place of the
//! three, and the double in place of what the root serves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use double::{A, Double, Ran, answer};
use serde_json::json;

struct Site {
    double: Double,
    dir: PathBuf,
    bin: PathBuf,
}

impl Site {
    fn new() -> Self {
        let double = Double::new(|asked, stream| match asked.line.as_str() {
            "POST /api/auth/login" => {
                assert_eq!(asked.body, br#"{"password":"from-the-root","username":"Admin"}"#);
                answer(stream, 200, &json!({"token": "t", "refresh_token": "r"}));
            }
            "GET /api/v1/nodes" => {
                let node = json!({"node_id": A, "name": "board", "connected": true});
                answer(stream, 200, &json!({"items": [node]}));
            }
            _ => answer(stream, 404, &json!({})),
        });
        let (dir, bin) = (double.home.path().join("site"), double.home.path().join("bin"));
        std::fs::create_dir(&bin).unwrap();
        let site = Self { double, dir, bin };
        let address = &site.double.address;
        site.program(
            "root",
            &format!(
                "mkdir -p \"$dir/root\"\necho from-the-root >\"$dir/root/admin-password\"\n\
                 printf 'listen={address}\\ntunnel_listen=127.0.0.1:7\\n' >\"$4.new\"\n\
                 mv \"$4.new\" \"$4\"\nexec sleep 600\n"
            ),
        );
        site.program(
            "cluster",
            "printf 'mqtt_listen=127.0.0.1:8\\n' >\"$4.new\"\nmv \"$4.new\" \"$4\"\n\
             exec sleep 600\n",
        );
        site.program(
            "node",
            "if [ \"$3\" = drain ]; then echo drained >>\"$dir/drained\"; exit 0; fi\n\
             echo ready=true >\"$4\"\nexec sleep 600\n",
        );
        site
    }

    fn program(&self, tier: &str, body: &str) {
        let path = self.bin.join(format!("marram-{tier}"));
        std::fs::write(&path, format!("#!/bin/sh\ndir=$(dirname \"$2\")\n{body}")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let paths = ["--dir", self.dir.to_str().unwrap(), "--bin-dir", self.bin.to_str().unwrap()];
        [&more[..1], &paths[..], &more[1..]].concat()
    }

    fn run(&self, more: &[&str]) -> Ran {
        self.double.run(&self.args(more))
    }

    /// The process that a pid file names, if it runs.
    fn pid(&self, tier: &str) -> Option<i32> {
        let text = std::fs::read_to_string(self.dir.join(format!("{tier}.pid"))).ok()?;
        let pid = text.split(' ').next().unwrap().parse().unwrap();
        runs(pid).then_some(pid)
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.join(file)).unwrap()
    }
}

/// Whatever a failed test leaves running is stopped, each by its pid file.
impl Drop for Site {
    fn drop(&mut self) {
        self.run(&["down", "--keep-workloads"]);
    }
}

fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn end(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn up_twice_and_down_twice() {
    let site = Site::new();
    let ran = site.run(&["up", "--port", "0", "--name", "home"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    for part in ["marram-root    started (pid ", "127.0.0.1:8)", "node board is here", "next: "] {
        assert!(ran.err.contains(part), "{part} in {ran:?}");
    }
    let pids: Vec<_> = ["root", "cluster", "node"].iter().map(|tier| site.pid(tier)).collect();
    assert!(pids.iter().all(Option::is_some), "{pids:?}");
    assert!(site.text("cluster.toml").contains("parent = \"http://127.0.0.1:7\""));
    assert!(site.text("cluster.toml").contains("name = \"home\""));
    assert!(site.text("node.toml").contains("cluster = \"mqtt://127.0.0.1:8\""));
    assert_eq!(site.double.run(&["get", "nodes", "-q"]).code, 0, "logged in by that");

    let ran = site.run(&["up"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.err.matches("runs already").count(), 3, "{ran:?}");
    assert!(!ran.err.contains("has changed"), "{ran:?}");
    let again: Vec<_> = ["root", "cluster", "node"].iter().map(|tier| site.pid(tier)).collect();
    assert_eq!(again, pids);
    let ran = site.run(&["up", "--port", "4000"]);
    assert_eq!(ran.code, 2, "{ran:?}");

    let ran = site.run(&["down"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.err.matches(" stopped\n").count(), 3, "{ran:?}");
    assert_eq!(site.text("drained"), "drained\n");
    assert!(pids.into_iter().flatten().all(|pid| !runs(pid)));
    let ran = site.run(&["down", "--purge"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!site.dir.exists());
    let config = std::fs::read_to_string(site.double.config()).unwrap();
    assert_eq!(config, "", "the login went with the site");
    let ran = site.run(&["down"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "there is no site here, so nothing to stop\n"));
}

#[test]
fn only_what_is_missing_is_started() {
    let site = Site::new();
    assert_eq!(site.run(&["up", "--port", "0"]).code, 0);
    let (root, cluster) = (site.pid("root").unwrap(), site.pid("cluster").unwrap());
    // At once: what was killed a moment ago is not taken for one that runs.
    end(cluster);
    let ran = site.run(&["up"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.err.matches("runs already").count(), 2, "{ran:?}");
    assert_eq!(site.pid("root"), Some(root));
    assert!(site.pid("cluster").is_some_and(|pid| pid != cluster));
}

#[test]
fn a_program_that_fails_shows_its_log_and_the_rest_is_stopped() {
    let site = Site::new();
    site.program("cluster", "echo 'cannot bind 127.0.0.1:8' >&2\nexit 64\n");
    let ran = site.run(&["up", "--port", "0"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("marram-cluster ended before it was ready (exit status: 64)"),
        "{ran:?}"
    );
    assert!(ran.err.contains("\n  | cannot bind 127.0.0.1:8\n"), "{ran:?}");
    assert!(ran.err.contains("marram-root    stopped again"), "{ran:?}");
    assert_eq!(site.pid("root"), None);
    std::fs::remove_file(site.bin.join("marram-cluster")).unwrap();
    let ran = site.run(&["up"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("--bin-dir"), "{ran:?}");
    assert_eq!(site.pid("root"), None);
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let site = Site::new();
    site.program("node", "exec sleep 600\n");
    let mut command = site.double.command(&site.args(&["up", "--port", "0"]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the node runs", || site.pid("node").is_some());
    let locked = site.run(&["up"]);
    assert_eq!(locked.code, 1, "{locked:?}");
    assert!(locked.err.contains("is at work in"), "{locked:?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.ends_with("error: interrupted\n"), "{ran:?}");
    for tier in ["root", "cluster", "node"] {
        assert_eq!(site.pid(tier), None, "{tier}");
    }
}

#[test]
fn the_nodes_configuration_is_laid_over_and_kept() {
    let site = Site::new();
    let extra = site.double.home.path().join("extra.toml");
    std::fs::write(&extra, "name = 'pi'\n[native]\nallow_root = true\n").unwrap();
    let ran = site.run(&["up", "--port", "0", "--node-config", extra.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(site.text("node.toml").contains("allow_root = true"));
    assert_eq!(site.run(&["up"]).code, 0);
    assert!(site.text("node.toml").contains("allow_root = true"), "kept for the next time");
    std::fs::write(&extra, "name = 'pi2'\n").unwrap();
    let ran = site.run(&["up", "--node-config", extra.to_str().unwrap()]);
    assert!(ran.err.contains("its configuration has changed"), "{ran:?}");
}

#[test]
fn what_could_not_be_drained_is_not_removed() {
    let site = Site::new();
    assert_eq!(site.run(&["up", "--port", "0"]).code, 0);
    site.program("node", "echo 'workload a.0 does not end' >&2\nexit 1\n");
    let ran = site.run(&["down", "--purge"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("some may still run"), "{ran:?}");
    assert!(ran.err.contains("\n  | workload a.0 does not end\n"), "{ran:?}");
    assert!(site.dir.exists());
    assert_eq!(site.pid("node"), None, "stopped all the same");
    assert_eq!(site.run(&["down", "--keep-workloads"]).code, 0);
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let site = Site::new();
    std::fs::create_dir(&site.dir).unwrap();
    std::fs::write(site.dir.join("letter"), "dear").unwrap();
    assert_eq!(site.run(&["up", "--port", "0"]).code, 2);
    assert_eq!(site.run(&["down", "--purge"]).code, 0);
    assert!(Path::new(&site.dir.join("letter")).exists());
}
