//! Real containers, through all three tiers, and everything killed around them.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use marram_e2e::{Site, Stack, Tier, wait_for};
use serde_json::Value;

fn example() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/clientsrvr.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Pids of all tasks with the times at which they were started.
fn tasks(stack: &Stack) -> Vec<(String, String)> {
    let listing = stack.ctr(&["tasks", "ls"]).unwrap();
    let mut tasks: Vec<(String, String)> = listing
        .lines()
        .skip(1)
        .filter(|line| line.contains("RUNNING"))
        .map(|line| {
            let pid = line.split_whitespace().nth(1).unwrap();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let time = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
            (pid.to_owned(), time.to_owned())
        })
        .collect();
    tasks.sort();
    tasks
}

fn running(site: &Site, what: &str) {
    let all = || site.api().ok()?.all_are("running", 2).then_some(());
    wait_for(what, all).unwrap_or_else(|error| panic!("{error}\n{}", site.logs()));
}

#[test]
fn the_example_runs_is_killed_around_and_goes_away() {
    let stack = Stack::start().unwrap();
    let mut site = Site::start(&stack.node_config()).unwrap();
    let api = site.api().unwrap();
    api.apply(&example()).unwrap();
    running(&site, "both containers");
    let page = || {
        let mut answer = ureq::get("http://127.0.0.1:6080/").call().ok()?;
        answer.body_mut().read_to_string().ok()
    };
    let text = wait_for("the page", page).unwrap();
    assert!(text.contains("Welcome to nginx"), "{text}");

    let before = tasks(&stack);
    assert_eq!(before.len(), 2);
    let rounds: [&[Tier]; 4] =
        [&[Tier::Node], &[Tier::Cluster], &[Tier::Root], &[Tier::Node, Tier::Cluster, Tier::Root]];
    for round in rounds {
        round.iter().for_each(|tier| site.kill(*tier).unwrap());
        assert!(page().is_some(), "no page while {round:?} is gone");
        round.iter().for_each(|tier| site.start_one(*tier).unwrap());
        running(&site, &format!("{round:?} back"));
        assert_eq!(tasks(&stack), before, "after {round:?}");
    }

    let api = site.api().unwrap();
    let nginx = api.instance("clientsrvr.test.nginx").unwrap();
    let id = nginx["instance_id"].as_str().unwrap();
    let logs = api.text(&format!("/api/v1/instances/{id}/logs")).unwrap();
    assert!(logs.contains("GET / HTTP"), "output went on over restarts: {logs}");

    let application = api.items("applications")[0]["application_id"].as_str().unwrap().to_owned();
    assert_eq!(api.delete(&format!("/api/v1/applications/{application}")).unwrap(), 202);
    wait_for("their end", || api.instances().is_empty().then_some(())).unwrap();
    assert_eq!(stack.ctr(&["tasks", "ls", "-q"]).unwrap(), "");
    assert_eq!(stack.ctr(&["containers", "ls", "-q"]).unwrap(), "");
    let rules = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&rules.stdout).contains("6080"));
}
