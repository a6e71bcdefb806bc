//! A tree as an operator keeps it, by `marram` alone: explanations, scaling, draining, and a
//! cluster at its own socket when the root is gone.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use marram_e2e::{programs, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};

/// A root, a cluster, two clusters below it with a node each.
struct Site {
    folder: tempfile::TempDir,
    marram: PathBuf,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("mro").tempdir_in("/tmp").unwrap();
        let site = Self { marram: programs().unwrap().join("marram"), folder };
        let dir = site.dir();
        site.done(&["up", "--dir", &dir, "--port", "0", "--tree", "1x1x2x1"]);
        site
    }

    fn dir(&self) -> String {
        self.folder.path().join("site").display().to_string()
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.marram)
            .args(args)
            .env("MARRAM_CONFIG", self.folder.path().join("config.toml"))
            .output()
            .unwrap()
    }

    /// What it printed, if it went well.
    fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let output = self.run(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{args:?}: {} {}", text(&output.stdout), text(&output.stderr))),
        }
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        self.try_run(args).unwrap_or_else(|why| panic!("{why}"))
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let text = self.done(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// State and node of each instance, by number.
    fn instances(&self, before: &[&str]) -> Vec<(String, String)> {
        let Ok(text) = self.try_run(&[before, &["get", "instances", "-o", "json"]].concat()) else {
            return Vec::new();
        };
        let all: Value = serde_json::from_str(&text).unwrap();
        let mut all = all["items"].as_array().unwrap().clone();
        all.sort_by_key(|one| one["number"].as_u64());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.iter().map(|one| (text(&one["state"]), text(&one["node"]["name"]))).collect()
    }

    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&[(String, String)]) -> bool) {
        let mut last = Vec::new();
        let waited = wait_for(what, || {
            last = self.instances(&[]);
            wanted(&last).then_some(())
        });
        waited.unwrap_or_else(|error| panic!("{error}: {last:?}"));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let dir = self.dir();
        drop(self.run(&["down", "--dir", &dir, "--purge"]));
    }
}

fn descriptor() -> String {
    json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "applicationID": "", "application_name": "app", "application_namespace": "test",
            "application_desc": "", "microservices": [{
                "microserviceID": "", "microservice_name": "web",
                "microservice_namespace": "test", "virtualization": "native",
                "code": "/bin/sh", "cmd": ["-c", "echo up; exec sleep 4731"],
                "memory": 20, "vcpus": 0, "marram": {"replicas": 2}
            }]
        }]
    })
    .to_string()
}

fn all(count: usize, state: &str) -> impl Fn(&[(String, String)]) -> bool {
    move |instances| instances.len() == count && instances.iter().all(|(found, _)| found == state)
}

#[test]
fn a_tree_is_explained_scaled_drained_and_kept_without_its_root() {
    let site = Site::start();
    let file = site.folder.path().join("app.json");
    std::fs::write(&file, descriptor()).unwrap();
    let clusters = site.json(&["get", "clusters"]);
    let paths: Vec<&str> =
        clusters["items"].as_array().unwrap().iter().map(|c| c["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["cluster-1", "cluster-1/cluster-1-1", "cluster-1/cluster-1-2"]);
    assert_eq!(clusters["items"][2]["parent"]["name"], "cluster-1");
    let nodes = || {
        let nodes = site.json(&["get", "nodes"]);
        let here = |node: &&Value| node["connected"] == true;
        (nodes["items"].as_array().unwrap().iter().filter(here).count() == 2).then_some(nodes)
    };
    let nodes = wait_for("both nodes", nodes).unwrap();
    assert_eq!(nodes["items"][0]["cluster"]["path"], "cluster-1/cluster-1-1");

    // Two are asked for by the document.
    site.done(&["apply", file.to_str().unwrap(), "--wait", "--timeout", "60s"]);
    site.until("two", all(2, "running"));
    let grown = site.json(&["scale", "web", "4", "--wait"]);
    assert_eq!(grown["added"].as_array().unwrap().len(), 2);
    site.until("four", all(4, "running"));

    // Every tier says its part, down to the node.
    let why = site.json(&["describe", "instance", "web.0"]);
    let tiers: Vec<&str> =
        why["path"].as_array().unwrap().iter().map(|line| line["tier"].as_str().unwrap()).collect();
    assert_eq!(tiers, ["root", "cluster", "cluster", "node"], "{why:#}");
    assert_eq!(why["path"][0]["placed"]["name"], "cluster-1");
    assert_eq!(
        (&why["path"][3]["backend"], &why["path"][3]["restarts"]),
        (&json!("native"), &json!(0))
    );
    assert!(site.done(&["describe", "instance", "web.0"]).contains("why:\n  root: running"));

    let to = drained(&site);
    let unknown = site.run(&["drain", "nobody"]);
    assert_eq!(unknown.status.code(), Some(4));

    // Of those that are too many the highest numbers go.
    let shrunk = site.json(&["scale", "web", "1", "--wait"]);
    let removed: Vec<&str> =
        shrunk["removed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(removed.iter().all(|id| !id.ends_with(".0")) && removed.len() == 3, "{shrunk}");
    site.until("one", all(1, "running"));

    kept_without_the_root(&site, to);
}

/// A cluster is emptied by its parent, and takes nothing until it may again. Gives the node that
/// has all then.
fn drained(site: &Site) -> &'static str {
    let (from, to) = match site.instances(&[])[0].1.as_str() {
        "node-1-1-1" => ("cluster-1/cluster-1-1", "node-1-2-1"),
        _ => ("cluster-1/cluster-1-2", "node-1-1-1"),
    };
    let name = from.trim_start_matches("cluster-1/");
    let dry = site.json(&["drain", "-s", name, "--dry-run"]);
    assert_eq!(dry["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&dry["items"][0]["target"], &dry["items"][0]["result"]),
        (&json!(from), &json!("matched"))
    );
    site.done(&["drain", from]);
    site.until("all on the other node", |instances| {
        all(4, "running")(instances) && instances.iter().all(|(_, node)| node == to)
    });
    let shut = || {
        let clusters = site.done(&["get", "clusters"]);
        clusters.lines().any(|l| l.starts_with(from) && l.contains("cordoned")).then_some(())
    };
    wait_for("the root to know", shut).unwrap();
    site.done(&["uncordon", from]);
    let everywhere = site.json(&["rebalance", "--dry-run"]);
    assert_eq!(everywhere["items"].as_array().unwrap().len(), 4, "{everywhere}");
    to
}

/// The root is gone: its cluster's socket answers.
fn kept_without_the_root(site: &Site, node: &str) {
    let number = node.strip_prefix("node-").and_then(|path| path.strip_suffix("-1")).unwrap();
    let cluster = format!("cluster-{number}");
    let pid = std::fs::read_to_string(site.folder.path().join("site/root.pid")).unwrap();
    let pid: i32 = pid.split_whitespace().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let socket = format!("--cluster={}/{cluster}/cluster.sock", site.dir());
    assert_eq!(site.instances(&[&socket]), [("running".to_owned(), node.to_owned())]);
    let name = "app.test.web.test.0";
    assert_eq!(site.done(&[&socket, "logs", name]), "up\n");
    assert_eq!(site.done(&[&socket, "exec", name, "--", "echo", "inside"]), "inside\n");
    let why = site.done(&[&socket, "describe", "instance", name]);
    assert!(
        why.contains(&format!("cluster {cluster}: running"))
            && why.contains(&format!("node {node}")),
        "{why}"
    );
    site.done(&[&socket, "cordon", node]);
    let nodes = site.done(&[&socket, "get", "nodes"]);
    assert!(nodes.contains("connected, cordoned"), "{nodes}");
    site.done(&[&socket, "uncordon", node]);
}
