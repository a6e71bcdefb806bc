//! A root, two clusters, a sub-cluster and four nodes, each on a machine of its own, through
//! cuts, kills and power failures. Prints how long things take.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may end where it fails")]

use marram_e2e::{Place, Process, Tier, Tree, wait_for};
use serde_json::{Value, json};
use std::time::Instant;

const fn place(name: &'static str, tier: Tier, parent: &'static str) -> Place {
    Place { name, tier, parent }
}

const ALL: [Place; 8] = [
    place("root", Tier::Root, ""),
    place("c1", Tier::Cluster, "root"),
    place("c2", Tier::Cluster, "root"),
    place("sub", Tier::Cluster, "c1"),
    place("n1", Tier::Node, "c1"),
    place("n2", Tier::Node, "c2"),
    place("n3", Tier::Node, "sub"),
    place("n4", Tier::Node, "sub"),
];

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// Services of one instance each, that run for so many seconds: that tells them apart.
fn app(services: &[(&str, u32, Value)]) -> Value {
    let service = |(name, seconds, more): &(&str, u32, Value)| {
        let mut service = json!({
            "microserviceID": "", "microservice_name": name, "microservice_namespace": "test",
            "virtualization": "native", "code": "/bin/sleep", "cmd": [seconds.to_string()],
            "memory": 20, "vcpus": 0
        });
        for (key, value) in more.as_object().unwrap() {
            service[key] = value.clone();
        }
        service
    };
    let services: Vec<Value> = services.iter().map(service).collect();
    json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "applicationID": "", "application_name": "app", "application_namespace": "test",
            "application_desc": "", "microservices": services
        }]
    })
}

fn only(cluster: &str) -> Value {
    json!({"constraints": [{"type": "clusters", "allowed": [cluster]}]})
}

fn start() -> Tree {
    let tree = Tree::start(&ALL).unwrap();
    let api = tree.api().unwrap();
    wait_for("all nodes at the root", || {
        let here = |node: &Value| node["connected"] == true;
        (api.items("nodes").into_iter().filter(here).count() == NODES.len()).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", tree.logs()));
    tree
}

fn running(tree: &Tree, what: &str, count: usize) {
    let all = || tree.api().ok()?.all_are("running", count).then_some(());
    wait_for(what, all).unwrap_or_else(|error| {
        let instances = tree.api().map(|api| api.instances());
        panic!("{error}\n{instances:#?}\n{}", tree.logs())
    });
}

/// All workloads, by their machine.
fn everything(tree: &Tree) -> Vec<(&'static str, Vec<Process>)> {
    let on = |name| (name, tree.workloads(name, "/bin/sleep ").unwrap());
    NODES.into_iter().map(on).collect()
}

fn told(what: &str, since: Instant) {
    println!("measured: {what}: {:.1} s", since.elapsed().as_secs_f64());
}

/// Kill -9 of every program in turn, and of many at once, touches no workload.
#[test]
fn killed_programs_touch_no_workload_at_any_depth() {
    let mut tree = start();
    let api = tree.api().unwrap();
    let services = [
        ("a", 5001, only("c1")),
        ("b", 5002, only("c2")),
        ("c", 5003, only("sub")),
        ("d", 5004, json!({})),
    ];
    api.apply(&app(&services)).unwrap();
    running(&tree, "the start", 4);
    let before = everything(&tree);
    assert_eq!(before.iter().map(|(_, on)| on.len()).sum::<usize>(), 4);
    let rounds: [&[&str]; 6] = [
        &["c1"],
        &["sub", "n3"],
        &["root"],
        &["n1", "n2", "n4"],
        &["root", "c1", "sub"],
        &["n4", "n3", "n2", "n1", "sub", "c2", "c1", "root"],
    ];
    for round in rounds {
        let since = Instant::now();
        round.iter().for_each(|name| tree.kill(name).unwrap());
        round.iter().for_each(|name| tree.boot(name).unwrap());
        running(&tree, &format!("{round:?} back"), 4);
        told(&format!("all known again after {round:?} were killed"), since);
        assert_eq!(everything(&tree), before, "after {round:?}");
    }
    // And nothing is the worse for it: through all tiers.
    let id = api.instance("app.test.c").unwrap()["instance_id"].as_str().unwrap().to_owned();
    wait_for("its logs", || tree.api().ok()?.text(&format!("/api/v1/instances/{id}/logs")).ok())
        .unwrap();
}

/// A site without power and without anybody above comes up again, in any order.
#[test]
fn a_site_cold_boots_in_any_order_with_nobody_above() {
    let mut tree = start();
    let api = tree.api().unwrap();
    let services = [("x", 5011, only("sub")), ("y", 5012, only("sub"))];
    api.apply(&app(&services)).unwrap();
    running(&tree, "the start", 2);
    for other in ["root", "c1", "c2"] {
        tree.net.cut("sub", other).unwrap();
    }
    for order in [["n4", "n3", "sub"], ["sub", "n3", "n4"], ["n3", "sub", "n4"]] {
        tree.power_off(&["sub", "n3", "n4"]).unwrap();
        assert!(tree.net.processes("n3").unwrap().is_empty());
        let since = Instant::now();
        order.iter().for_each(|name| tree.boot(name).unwrap());
        wait_for("all that ran", || {
            let on = |name: &str| tree.workloads(name, "/bin/sleep 50").unwrap().len();
            (on("n3") + on("n4") == 2).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", tree.logs()));
        told(&format!("cold boot {order:?} until all runs"), since);
    }
    let alone = everything(&tree);
    for other in ["root", "c1", "c2"] {
        tree.net.heal("sub", other).unwrap();
    }
    let since = Instant::now();
    running(&tree, "the site back at the root", 2);
    told("the site known at the root after the link is back", since);
    assert_eq!(everything(&tree), alone, "the return moved nothing");
}
