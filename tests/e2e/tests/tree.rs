//! A root, two clusters, a sub-cluster and four nodes, each on a machine of its own, through
//! cuts, kills and power failures. Prints how long things take.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may end where it fails")]

use marram_e2e::{FAILBACK_S, FAILOVER_S, Place, Process, Tier, Tree, wait_for, wait_up_to};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

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

/// A node that nobody answers is noticed by its keep-alive: 60 s and half as much.
const SILENCE: Duration = Duration::from_secs(150);

fn long<T>(tree: &Tree, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    wait_up_to(SILENCE, what, || {
        let answer = ask();
        if answer.is_none() {
            // Each question lists all processes; nothing here is a matter of milliseconds.
            std::thread::sleep(Duration::from_millis(45));
        }
        answer
    })
    .unwrap_or_else(|error| {
        let instances = tree.api().map(|api| api.instances());
        panic!("{error}\n{instances:#?}\n{}", tree.logs())
    })
}

fn on(tree: &Tree, names: &[&'static str], line: &str) -> Vec<(&'static str, Process)> {
    let of = |name: &&'static str| {
        let name = *name;
        tree.workloads(name, line).unwrap().into_iter().map(move |process| (name, process))
    };
    names.iter().flat_map(of).collect()
}

fn isolate(tree: &Tree, one: &str, others: &[&str], cut: bool) {
    for other in others {
        match cut {
            true => tree.net.cut(one, other).unwrap(),
            false => tree.net.heal(one, other).unwrap(),
        }
    }
}

fn detail(tree: &Tree, name: &str) -> String {
    let api = tree.api().unwrap();
    let instance = api.instance(name).unwrap_or_default();
    format!("{} {}", instance["state"], instance["detail"])
}

/// What a lost node ran is started elsewhere after the service's patience, and the copy that it
/// still runs is stopped when it is back.
#[test]
fn a_lost_node_is_replaced_and_its_surplus_stopped() {
    const PATIENCE_S: u64 = 4;
    let tree = start();
    let mut more = only("sub");
    more["marram"] = json!({"patience": {"node_s": PATIENCE_S, "cluster_s": 900}});
    tree.api().unwrap().apply(&app(&[("t", 5021, more)])).unwrap();
    running(&tree, "the start", 1);
    let first = on(&tree, &["n3", "n4"], "/bin/sleep 5021");
    let [(lost, process)] = first.as_slice() else { panic!("{first:?}") };
    let other = if *lost == "n3" { "n4" } else { "n3" };
    let everybody = ["root", "c1", "c2", "sub"];

    let since = Instant::now();
    isolate(&tree, lost, &everybody, true);
    long(&tree, "the loss to be told", || {
        tree.log("sub").contains("node disconnected").then_some(())
    });
    told("a node without a link is noticed by its cluster", since);
    let noticed = Instant::now();
    long(&tree, "the replacement", || {
        (on(&tree, &[other], "/bin/sleep 5021").len() == 1).then_some(())
    });
    told(&format!("its instance runs elsewhere, with a patience of {PATIENCE_S} s"), noticed);
    running(&tree, "the replacement at the root", 1);
    assert_eq!(on(&tree, &[lost], "/bin/sleep 5021"), [(*lost, process.clone())], "it cannot know");

    let since = Instant::now();
    isolate(&tree, lost, &everybody, false);
    long(&tree, "the end of the surplus", || {
        on(&tree, &[lost], "/bin/sleep 5021").is_empty().then_some(())
    });
    told("the surplus is stopped after the link is back", since);
    assert_eq!(on(&tree, &[other], "/bin/sleep 5021").len(), 1);
    running(&tree, "one at the end", 1);
}

/// The same for a cluster that is cut off with its node, of which neither end is told.
#[test]
fn a_lost_cluster_is_replaced_and_its_surplus_stopped() {
    const PATIENCE_S: u64 = 4;
    let began = Instant::now();
    let tree = start();
    let marram = json!({
        "patience": {"node_s": 900, "cluster_s": PATIENCE_S}, "placement": {"policy": "spread"}
    });
    let more = json!({"marram": marram, "constraints": [{"type": "clusters", "allowed": ["c?"]}]});
    let services: Vec<(String, Value)> =
        (0..4).map(|number| (format!("u{number}"), more.clone())).collect();
    let services: Vec<(&str, u32, Value)> =
        services.iter().map(|(name, more)| (name.as_str(), 5031, more.clone())).collect();
    tree.api().unwrap().apply(&app(&services)).unwrap();
    running(&tree, "the start", 4);
    let there = on(&tree, &["n2"], "/bin/sleep 5031");
    let elsewhere = on(&tree, &["n1", "n3", "n4"], "/bin/sleep 5031");
    assert_eq!(there.len() + elsewhere.len(), 4);
    assert!(!there.is_empty(), "the root gives something to each cluster: {elsewhere:?}");

    let since = Instant::now();
    isolate(&tree, "c2", &["root", "c1", "sub"], true);
    long(&tree, "the loss to be told", || {
        let api = tree.api().unwrap();
        let clusters = api.items("clusters");
        let c2 = clusters.iter().find(|cluster| cluster["name"] == "c2")?;
        (c2["connected"] == false).then_some(())
    });
    told("a cluster without a link is noticed by the root", since);
    let noticed = Instant::now();
    long(&tree, "the replacements", || {
        (on(&tree, &["n1", "n3", "n4"], "/bin/sleep 5031").len() == 4).then_some(())
    });
    // The root takes nothing over in the first minute of its own.
    told(
        &format!(
            "its instances run elsewhere, with a patience of {PATIENCE_S} s; the root began {:.0} s \
             before",
            began.elapsed().as_secs_f64()
        ),
        noticed,
    );
    running(&tree, "the replacements at the root", 4);
    assert_eq!(on(&tree, &["n2"], "/bin/sleep 5031"), there, "it cannot know");

    let since = Instant::now();
    isolate(&tree, "c2", &["root", "c1", "sub"], false);
    long(&tree, "the end of the surplus", || {
        on(&tree, &["n2"], "/bin/sleep 5031").is_empty().then_some(())
    });
    told("the surplus is stopped after the link is back", since);
    running(&tree, "four at the end", 4);
}

/// A sub-cluster whose parent is out of reach goes to another one and comes back later; nothing
/// that runs below it notices.
#[test]
fn a_subtree_goes_to_another_parent_and_back_with_all_that_runs() {
    let tree = start();
    let services = [
        ("v", 5041, only("sub")),
        ("w", 5042, only("sub")),
        ("x", 5043, only("c1")),
        ("y", 5044, only("c2")),
    ];
    tree.api().unwrap().apply(&app(&services)).unwrap();
    running(&tree, "the start", 4);
    let before = everything(&tree);
    let parent = || {
        let api = tree.api().ok()?;
        let clusters = api.items("clusters");
        let sub = clusters.iter().find(|cluster| cluster["name"] == "sub")?;
        (sub["connected"] == true).then(|| sub["parent"]["name"].as_str().map(str::to_owned))?
    };
    assert_eq!(parent().as_deref(), Some("c1"));

    let since = Instant::now();
    tree.net.cut("sub", "c1").unwrap();
    long(&tree, "the loss", || tree.log("sub").contains("disconnected").then_some(()));
    told("a cluster without a link notices that its parent is away", since);
    let noticed = Instant::now();
    let guest_of = long(&tree, "another parent", || parent().filter(|name| name != "c1"));
    told(&format!("it is a child of {guest_of}, with a patience of {FAILOVER_S} s"), noticed);
    running(&tree, "all that runs, at the root", 4);
    assert_eq!(everything(&tree), before, "the move touched nothing: {}", detail(&tree, "app"));

    let since = Instant::now();
    tree.net.heal("sub", "c1").unwrap();
    long(&tree, "the way back", || parent().filter(|name| name == "c1"));
    told(&format!("it is back, with a hysteresis of {FAILBACK_S} s"), since);
    running(&tree, "all that runs, at the root", 4);
    assert_eq!(everything(&tree), before, "the way back touched nothing");
}

/// Nodes whose cluster is gone go to the cluster above it and come back later; nothing that runs
/// on them notices.
#[test]
fn nodes_go_to_another_cluster_and_back_with_all_that_runs() {
    let mut tree = start();
    let services = [("v", 5051, only("sub")), ("w", 5052, only("sub"))];
    tree.api().unwrap().apply(&app(&services)).unwrap();
    running(&tree, "the start", 2);
    let before = everything(&tree);
    tree.kill("sub").unwrap();
    let since = Instant::now();
    let cluster_of = |tree: &Tree, name: &str| {
        let nodes = tree_nodes(tree);
        let node = nodes.iter().find(|node| node["name"] == name && node["connected"] == true)?;
        node["cluster"]["name"].as_str().map(str::to_owned)
    };
    for node in ["n3", "n4"] {
        long(&tree, "another cluster", || cluster_of(&tree, node).filter(|name| name != "sub"));
    }
    told(&format!("nodes are at another cluster, with a patience of {FAILOVER_S} s"), since);
    running(&tree, "all that runs, at the root", 2);
    assert_eq!(everything(&tree), before, "the move touched nothing");

    tree.boot("sub").unwrap();
    let since = Instant::now();
    for node in ["n3", "n4"] {
        long(&tree, "the way back", || cluster_of(&tree, node).filter(|name| name == "sub"));
    }
    told(&format!("nodes are back, with a hysteresis of {FAILBACK_S} s"), since);
    running(&tree, "all that runs, at the root", 2);
    assert_eq!(everything(&tree), before, "the way back touched nothing");
}

fn tree_nodes(tree: &Tree) -> Vec<Value> {
    tree.api().map(|api| api.items("nodes")).unwrap_or_default()
}
