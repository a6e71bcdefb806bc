//! Selectors, failure domains, affinity, distances: table by table.

use super::*;
use marram_protocol::v1::{
    Anchor, ChildKind, ClusterCard, Coordinate, Geo, Placement, Proximity, Scope,
};

/// A service of its own for each name, of which the placement is given.
fn service(name: &str, number: u32, placement: Placement) -> Workload {
    let mut id = [0; 12];
    id[..name.len()].copy_from_slice(name.as_bytes());
    let spec = ServiceSpec {
        virtualization: "container".into(),
        resources: Resources { memory_mib: 10, ..Resources::default() },
        placement,
        ..ServiceSpec::default()
    };
    let instance = InstanceId { service: ServiceId(id), number };
    Workload { instance, revision: 1, name: format!("app.ns.{name}.ns.{number}"), spec }
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

/// Deploys, and says on which child it is.
fn put(tier: &mut Tier, workload: Workload) -> Option<ChildId> {
    let id = workload.instance;
    tier.handle(at(1), Input::Deploy(workload));
    tier.instances[&id].placed
}

fn why(tier: &Tier, workload: &Workload) -> String {
    tier.status(workload.instance).unwrap().detail
}

fn cluster(tier: &mut Tier, number: u32, name: &str, labels: &[&str], summary: Summary) {
    let mut hello = hello(number, summary);
    hello.kind = ChildKind::Cluster;
    hello.name = name.into();
    hello.labels = texts(labels);
    tier.handle(at(0), Input::Child(child(number), Up::Hello(hello)));
    tier.handle(at(0), Input::Child(child(number), snapshot(0, Vec::new())));
}

fn card(number: u32, name: &str, connected: bool) -> ClusterCard {
    ClusterCard {
        id: child(number),
        parent: child(2),
        name: name.into(),
        labels: texts(&["tier=lab"]),
        location: String::new(),
        address: String::new(),
        node_address: String::new(),
        nodes: 1,
        connected,
        cordoned: false,
    }
}

#[test]
fn clusters_are_chosen_by_name_pattern_and_label_at_any_depth() {
    let mut tier = root();
    cluster(&mut tier, 1, "edge-1", &["site=berlin"], summary(100));
    cluster(&mut tier, 2, "far", &["site=rome"], summary(900));
    come(&mut tier, 3, summary(20));
    let scope = Scope::Snapshot { first: true, last: true };
    let cards = vec![card(7, "deep", true), card(8, "cut-off", false)];
    let told = Up::Clusters { scope, cards, gone: Vec::new() };
    tier.handle(at(0), Input::Child(child(2), told));
    let table: &[(&[&str], Option<u32>)] = &[
        (&["edge-1"], Some(1)),
        (&["edge"], None),
        (&["edge-*"], Some(1)),
        (&["nowhere", "site=rome"], Some(2)),
        (&["site=berlin,tier!=lab"], Some(1)),
        (&["site=berlin&far"], None),
        (&["deep"], Some(2)),
        (&["tier=lab"], Some(2)),
        (&["cut-off"], None),
        // All is below this tier, and the fullest node comes first.
        (&["tier"], Some(3)),
        (&[""], None),
    ];
    for (number, (selectors, expected)) in (0..).zip(table) {
        let placement = Placement { clusters: texts(selectors), ..Placement::default() };
        let workload = service("a", number, placement);
        let found = put(&mut tier, workload.clone());
        assert_eq!(found, expected.map(child), "{selectors:?}");
        if expected.is_none() {
            let why = why(&tier, &workload);
            assert!(why.contains("in no cluster"), "{why}");
        }
        tier.handle(at(2), Input::Remove(workload.instance));
    }
}

#[test]
fn nodes_are_chosen_by_name_pattern_and_label() {
    let mut tier = root();
    let labelled = |labels: &[&str]| Summary { labels: texts(labels), ..summary(100) };
    come(&mut tier, 1, labelled(&["rack=1", "gpu"]));
    come(&mut tier, 2, labelled(&["rack=2"]));
    let table: &[(&[&str], &str, Option<u32>)] = &[
        (&["n?"], "", Some(1)),
        (&["n2"], "", Some(2)),
        (&["rack=2"], "", Some(2)),
        (&[], "rack=2", Some(2)),
        (&[], "!gpu", Some(2)),
        (&["n1"], "!gpu", None),
        (&[], "gpu,rack=2", None),
    ];
    for (number, (nodes, labels, expected)) in (0..).zip(table) {
        let (nodes, labels) = (texts(nodes), (*labels).to_owned());
        let placement = Placement { nodes, labels, ..Placement::default() };
        let workload = service("a", number, placement);
        assert_eq!(put(&mut tier, workload), expected.map(child), "{number}");
    }
}

#[test]
fn lists_of_a_cluster_that_are_cut_prove_nothing() {
    let mut tier = root();
    let has = Summary { labels: texts(&["rack=1", "lab"]), ..summary(100) };
    cluster(&mut tier, 1, "whole", &[], has.clone());
    let wants = |labels: &str, addons: &[&str]| Placement {
        labels: labels.into(),
        addons: texts(addons),
        ..Placement::default()
    };
    // One of its nodes may have no label `lab`.
    assert_eq!(put(&mut tier, service("a", 0, wants("rack=1,!lab", &[]))), Some(child(1)));
    assert_eq!(put(&mut tier, service("a", 1, wants("rack=2", &[]))), None);
    assert_eq!(put(&mut tier, service("a", 2, wants("", &["fuse"]))), None);
    cluster(&mut tier, 2, "cut", &[], Summary { cut: true, ..has });
    assert_eq!(put(&mut tier, service("a", 3, wants("rack=2", &["fuse"]))), Some(child(2)));
}

#[test]
fn instances_are_spread_over_failure_domains() {
    let mut tier = root();
    for (number, rack) in [(1, "rack=a"), (2, "rack=a"), (3, "rack=b"), (4, "other")] {
        come(&mut tier, number, Summary { labels: texts(&[rack]), ..summary(100) });
    }
    let placement = Placement { spread: "rack".into(), ..Placement::default() };
    let mut domains = [0, 0, 0];
    for number in 0..9 {
        let on = put(&mut tier, service("a", number, placement.clone())).unwrap();
        let domain = [1, 2, 3, 4].map(child).iter().position(|c| *c == on).unwrap();
        domains[[0, 0, 1, 2][domain]] += 1;
        let (least, most) = (domains.iter().min().unwrap(), domains.iter().max().unwrap());
        assert!(most - least <= 1, "{domains:?}");
    }
    let placement = Placement { policy: "spread".into(), ..Placement::default() };
    let on: BTreeSet<_> =
        (0..4).map(|n| put(&mut tier, service("b", n, placement.clone())).unwrap()).collect();
    assert_eq!(on.len(), 4);
}

#[test]
fn instances_keep_together_and_apart() {
    let mut tier = root();
    for number in 1..4 {
        come(&mut tier, number, summary(100));
    }
    let with = |name: &str| Placement { with: texts(&[name]), ..Placement::default() };
    let apart = |name: &str| Placement { apart_from: texts(&[name]), ..Placement::default() };
    // Whom it follows is not there yet; it goes there when it is.
    let follower = service("c", 0, with("app.ns.b.ns"));
    assert_eq!(put(&mut tier, follower.clone()), None);
    assert!(why(&tier, &follower).contains("n1: app.ns.b.ns is not there"), "{follower:?}");
    let placement = Placement { nodes: texts(&["n2"]), ..Placement::default() };
    assert_eq!(put(&mut tier, service("b", 0, placement)), Some(child(2)));
    assert_eq!(tier.instances[&follower.instance].placed, Some(child(2)));
    // One to a node, then no more.
    let alone = |number| service("d", number, apart("app.ns.d.ns"));
    let on: BTreeSet<_> = (0..3).filter_map(|n| put(&mut tier, alone(n))).collect();
    assert_eq!(on.len(), 3);
    assert_eq!(put(&mut tier, alone(3)), None);
    assert!(why(&tier, &alone(3)).contains("has to be apart from app.ns.d.ns"));
    // Who is there may not want the one that comes.
    let shy = Placement { apart_from: texts(&["app.ns.f.ns"]), nodes: texts(&["n1"]), ..apart("") };
    assert_eq!(put(&mut tier, service("e", 0, shy)), Some(child(1)));
    let named = Placement { nodes: texts(&["n1"]), ..Placement::default() };
    assert_eq!(put(&mut tier, service("f", 0, named)), None);
    // Two that follow each other: the first goes anywhere.
    assert_eq!(put(&mut tier, service("g", 0, with("app.ns.h.ns"))), None);
    let on = put(&mut tier, service("h", 0, with("app.ns.g.ns")));
    assert!(on.is_some());
    let id = service("g", 0, Placement::default()).instance;
    assert_eq!(tier.instances[&id].placed, on);
}

fn near(to: Anchor, latency_us_max: Option<u32>, distance_m_max: Option<u32>) -> Placement {
    let bound = Proximity { to, latency_us_max, distance_m_max, rigidness_permille: 1000 };
    Placement { proximity: vec![bound], ..Placement::default() }
}

fn located(x_us: i32, longitude: &str) -> Summary {
    let coordinate = Coordinate { x_us, y_us: 0, height_us: 500, error_permille: 100 };
    Summary {
        coordinate: Some(coordinate),
        location: if longitude.is_empty() { String::new() } else { format!("0,{longitude}") },
        ..summary(100)
    }
}

#[test]
fn services_are_near_each_other() {
    let mut tier = root();
    for (number, x_us) in [(1, 0), (2, 4_000), (3, 20_000)] {
        come(&mut tier, number, located(x_us, ""));
    }
    come(&mut tier, 4, summary(20));
    let db = Placement { nodes: texts(&["n1"]), ..Placement::default() };
    let server = || Anchor::Service("app.ns.db.ns".into());
    // Nothing is bound before there is one.
    assert!(put(&mut tier, service("c", 0, near(server(), Some(1), None))).is_some());
    put(&mut tier, service("db", 0, db));
    let ldp = |latency| Placement { policy: "ldp".into(), ..near(server(), Some(latency), None) };
    assert_eq!(put(&mut tier, service("c", 1, ldp(5_000))), Some(child(1)));
    let elsewhere = |name: &str, latency| Placement { nodes: texts(&[name]), ..ldp(latency) };
    assert_eq!(put(&mut tier, service("c", 2, elsewhere("n2", 5_000))), Some(child(2)));
    let far = service("c", 3, elsewhere("n2", 4_999));
    assert_eq!(put(&mut tier, far.clone()), None);
    let why_far = "n2: too far from app.ns.db.ns: 5000 us away, 4999 us are allowed";
    assert!(why(&tier, &far).contains(why_far), "{}", why(&tier, &far));
    let unknown = service("c", 4, elsewhere("n4", 1_000_000));
    assert_eq!(put(&mut tier, unknown.clone()), None);
    assert!(why(&tier, &unknown).contains("the latency is not known"));
}

#[test]
fn places_are_near_enough() {
    let mut tier = root();
    // A degree is 111 km.
    for (number, longitude) in [(1, "0"), (2, "1"), (3, "10")] {
        come(&mut tier, number, located(0, longitude));
    }
    come(&mut tier, 4, summary(1000));
    let here = || Anchor::Place(Geo { latitude_udeg: 0, longitude_udeg: 1_100_000 });
    assert_eq!(put(&mut tier, service("a", 0, near(here(), None, Some(12_000)))), Some(child(2)));
    assert_eq!(put(&mut tier, service("a", 1, near(here(), None, Some(11_000)))), None);
    let mut tier = root();
    cluster(&mut tier, 1, "wide", &[], located(0, "3,200000"));
    cluster(&mut tier, 2, "small", &[], located(0, "3,1000"));
    // Only a part of the wide one is so near.
    assert_eq!(put(&mut tier, service("a", 0, near(here(), None, Some(50_000)))), Some(child(1)));
}

#[test]
fn users_are_where_the_nodes_around_them_are() {
    let mut tier = root();
    for (number, x_us, longitude) in
        [(1, 0, "0.00"), (2, 300, "0.01"), (3, 150, "0.02"), (4, 40_000, "0.03"), (5, 200, "30")]
    {
        come(&mut tier, number, located(x_us, longitude));
    }
    let users = || Anchor::Place(Geo { latitude_udeg: 0, longitude_udeg: 10_000 });
    let on = |name: &str, latency| Placement {
        nodes: texts(&[name]),
        ..near(users(), Some(latency), None)
    };
    // Near on the globe and far on the net; far on the globe and near on the net.
    assert_eq!(put(&mut tier, service("a", 0, on("n4", 20_000))), None);
    assert_eq!(put(&mut tier, service("a", 1, on("n5", 20_000))), Some(child(5)));
    // Without nodes that know where they are on the net, what light needs counts.
    let mut tier = root();
    come(&mut tier, 1, Summary { coordinate: None, ..located(0, "0") });
    come(&mut tier, 2, Summary { coordinate: None, ..located(0, "10") });
    assert_eq!(put(&mut tier, service("a", 0, on("n2", 11_000))), None);
    assert_eq!(put(&mut tier, service("a", 1, on("n1", 11_000))), Some(child(1)));
}

#[test]
fn services_on_different_clusters_are_judged_with_all_their_extent() {
    let mut tier = root();
    let wide = |x_us, reach_us| Summary { reach_us, ..located(x_us, "") };
    cluster(&mut tier, 1, "one", &[], wide(0, 1_000));
    cluster(&mut tier, 2, "two", &[], wide(10_000, 2_000));
    let db = Placement { clusters: texts(&["one"]), ..Placement::default() };
    put(&mut tier, service("db", 0, db));
    let server = || Anchor::Service("app.ns.db.ns".into());
    let on = |name: &str, latency| Placement {
        clusters: texts(&[name]),
        ..near(server(), Some(latency), None)
    };
    // The cluster that has it judges for itself.
    assert_eq!(put(&mut tier, service("a", 0, on("one", 1))), Some(child(1)));
    assert_eq!(put(&mut tier, service("a", 1, on("two", 14_000))), Some(child(2)));
    assert_eq!(put(&mut tier, service("a", 2, on("two", 13_999))), None);
}

#[test]
fn a_burst_reserves_as_it_goes() {
    let mut tier = root();
    for number in 0..10 {
        come(&mut tier, number, summary(100));
    }
    for policy in ["", "spread", "ldp"] {
        let placement = Placement { policy: policy.into(), ..Placement::default() };
        for number in 0..33 {
            put(&mut tier, service(&format!("s{policy}"), number, placement.clone()));
        }
    }
    assert!(tier.children.values().all(|c| c.reserved().memory_mib <= 100));
    assert_eq!(tier.instances.values().filter(|i| i.placed.is_some()).count(), 99);
}
