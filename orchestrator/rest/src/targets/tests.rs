//! Names, paths, ids and selectors over a tree of four clusters and three nodes.

use super::*;

fn id(number: u8) -> ChildId {
    ChildId([number; 12])
}

fn tree() -> Tree {
    let card = |number: u8, parent: u8, name: &str, label: &str| ClusterCard {
        id: id(number),
        parent: id(parent),
        name: name.into(),
        labels: vec![label.to_owned()],
        location: String::new(),
        address: String::new(),
        node_address: String::new(),
        nodes: 1,
        connected: number != 3,
        cordoned: false,
    };
    let branch = |card: ClusterCard, path: &[&str]| Branch {
        via: card.id,
        card,
        path: path.iter().map(|&name| name.to_owned()).collect(),
    };
    Tree {
        own: id(9),
        name: "root".into(),
        branches: vec![
            branch(card(1, 9, "edge-a", "site=berlin"), &["edge-a"]),
            branch(card(2, 1, "mitte", "site=berlin"), &["edge-a", "mitte"]),
            branch(card(3, 9, "edge-b", "site=hamburg"), &["edge-b"]),
            branch(card(4, 3, "mitte", "site=hamburg"), &["edge-b", "mitte"]),
        ],
    }
}

fn nodes() -> Vec<Node> {
    let node = |number: u8, name: &str, cluster: u8, path: &str| Node {
        id: id(number),
        name: name.into(),
        labels: vec!["gpu".into()],
        cluster: id(cluster),
        path: path.into(),
    };
    vec![
        node(21, "pi", 1, "edge-a"),
        node(22, "pi", 2, "edge-a/mitte"),
        node(23, "jetson", 4, "edge-b/mitte"),
    ]
}

fn wish(verb: Verb, targets: &[&str], selector: &str) -> Wish {
    Wish {
        verb,
        targets: targets.iter().map(|&text| text.to_owned()).collect(),
        selector: (!selector.is_empty()).then(|| selector.parse().unwrap()),
        nodes: false,
    }
}

fn found(wish: &Wish) -> Result<Vec<(String, u8, Option<String>)>, Refusal> {
    let targets = wish.resolve(&tree(), &nodes())?;
    let one = |target: Target| (target.path, target.order.cluster.0[0], target.order.child);
    Ok(targets.into_iter().map(one).collect())
}

#[test]
fn what_becomes_of_a_child_is_its_parents_matter() {
    let hex = |number: u8| Some(id(number).to_string());
    for (text, path, by, child) in [
        ("edge-a", "edge-a", 9, hex(1)),
        ("edge-a/mitte", "edge-a/mitte", 1, hex(2)),
        ("edge-b/mitte", "edge-b/mitte", 3, hex(4)),
        ("jetson", "edge-b/mitte/jetson", 4, hex(23)),
        ("edge-a/mitte/pi", "edge-a/mitte/pi", 2, hex(22)),
        ("edge-a/pi", "edge-a/pi", 1, hex(21)),
        ("171717171717171717171717", "edge-b/mitte/jetson", 4, hex(23)),
        ("040404040404040404040404", "edge-b/mitte", 3, hex(4)),
    ] {
        assert_eq!(
            found(&wish(Verb::Drain, &[text], "")).unwrap(),
            [(path.to_owned(), by, child)],
            "{text}"
        );
    }
    assert_eq!(
        found(&wish(Verb::Rebalance, &["edge-b/mitte"], "")).unwrap(),
        [("edge-b/mitte".to_owned(), 4, None)]
    );
}

#[test]
fn a_text_that_fits_nothing_or_several_is_refused_whole() {
    let refused = |text: &str| found(&wish(Verb::Cordon, &["edge-a", text], "")).unwrap_err();
    assert_eq!(refused("munich").status(), 404);
    assert_eq!(refused("edge").status(), 404);
    let several = refused("mitte");
    assert_eq!(several.status(), 409);
    assert_eq!(several.detail(), "\"mitte\" fits several: edge-a/mitte, edge-b/mitte");
    assert_eq!(refused("pi").detail(), "\"pi\" fits several: edge-a/pi, edge-a/mitte/pi");
}

#[test]
fn a_selector_reaches_each_match_once_and_nothing_else() {
    let paths = |wish: &Wish| -> Vec<String> {
        found(wish).unwrap().into_iter().map(|(path, _, _)| path).collect()
    };
    assert_eq!(paths(&wish(Verb::Cordon, &[], "edge-*")), ["edge-a", "edge-b"]);
    assert_eq!(paths(&wish(Verb::Cordon, &[], "edge-*&site=berlin")), ["edge-a"]);
    let both = wish(Verb::Cordon, &["edge-a/mitte", "edge-a/mitte"], "site=berlin,site=*");
    assert_eq!(paths(&both), ["edge-a/mitte", "edge-a"]);
    assert!(paths(&wish(Verb::Cordon, &[], "dge-*")).is_empty());
    let of_nodes = Wish { nodes: true, ..wish(Verb::Cordon, &[], "pi") };
    assert!(of_nodes.needs_nodes(&tree()));
    assert_eq!(paths(&of_nodes), ["edge-a/pi", "edge-a/mitte/pi"]);
}

#[test]
fn a_rebalance_without_a_name_goes_to_all_that_are_there() {
    let all = found(&wish(Verb::Rebalance, &[], "")).unwrap();
    let by: Vec<u8> = all.iter().map(|(_, by, _)| *by).collect();
    assert_eq!(by, [9, 1, 2, 4]);
    assert!(all.iter().all(|(_, _, child)| child.is_none()));
}

#[test]
fn nodes_are_asked_for_only_where_they_may_be_meant() {
    assert!(!wish(Verb::Drain, &["edge-a", "root"], "edge-*").needs_nodes(&tree()));
    assert!(wish(Verb::Drain, &["edge-a", "jetson"], "").needs_nodes(&tree()));
}

#[test]
fn nodes_are_read_from_lists() {
    let line = serde_json::json!({
        "node_id": "171717171717171717171717", "name": "jetson", "labels": ["gpu", 7],
        "cluster": {"id": "040404040404040404040404", "name": "mitte", "path": "edge-b/mitte"},
    });
    let node = Node::read(&line).unwrap();
    assert_eq!(
        (node.path().as_str(), &node.labels),
        ("edge-b/mitte/jetson", &vec!["gpu".to_owned()])
    );
    assert_eq!(Node::read(&serde_json::json!({"node_id": 7})), None);
}
