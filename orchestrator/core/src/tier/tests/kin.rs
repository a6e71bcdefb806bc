//! Who is above and beside: limits, alternates, loops.

use super::*;
use marram_protocol::v1::{ALTERNATES_MAX, Alternate, Ancestor, CLUSTERS_MAX, DEPTH_MAX, Kin};

fn cluster(number: u32) -> Hello {
    Hello {
        kind: ChildKind::Cluster,
        address: format!("http://c{number}"),
        node_address: format!("mqtt://c{number}"),
        ..hello(number, summary(100))
    }
}

fn ancestor(number: u32) -> Ancestor {
    Ancestor {
        id: child(number),
        name: format!("above-{number}"),
        address: format!("http://above-{number}"),
        ..Ancestor::default()
    }
}

fn below(path: Vec<Ancestor>) -> Tier {
    let mut tier = Tier::new(identity(), false, EPOCH);
    tier.handle(at(0), Input::ParentUp { preferred: None });
    let kin = Kin { tree: 3, rooted: true, path, ..Kin::default() };
    tier.handle(at(0), Input::Parent(Down::Kin(kin)));
    tier.handle(at(0), Input::Parent(Down::Welcome { epoch: 3, unix_ms: 0 }));
    let generation = Generation { epoch: 3, number: 1 };
    tier.handle(at(0), Input::Parent(Down::Manifest { generation, entries: Vec::new() }));
    effects(&mut tier);
    tier
}

fn told(effects: &[Effect], id: ChildId) -> Option<Kin> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::ToChild(to, Down::Kin(kin)) if *to == id => Some(kin.clone()),
        _ => None,
    })
}

fn rejected(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::ToChild(_, Down::Rejected { reason }) => Some(reason.as_str()),
        _ => None,
    })
}

#[test]
fn siblings_share_the_load_of_a_lost_parent_and_the_grandparent_is_always_named() {
    let mut tier = below(vec![ancestor(90), ancestor(91)]);
    let mut all = Vec::new();
    (0..20).for_each(|number| {
        all.extend(give(&mut tier, Input::Child(child(number), Up::Hello(cluster(number)))));
    });
    let names = |id: u32| -> Vec<String> {
        let kin = told(&all, child(id)).unwrap();
        assert_eq!(kin.path.last().unwrap().id, tier.identity.id);
        assert_eq!(kin.node_alternates.len(), ALTERNATES_MAX);
        kin.alternates.into_iter().map(|alternate| alternate.address).collect()
    };
    let expected = ["http://c4", "http://c5", "http://c6", "http://c7", "http://c8", "http://c9"];
    let above = ["http://above-91", "http://above-90"];
    assert_eq!(names(3), [&expected[..], &above[..]].concat());
    assert_eq!(names(19)[0], "http://c0");
    assert_ne!(names(10), names(11));
}

#[test]
fn nodes_are_told_of_other_clusters_that_take_nodes() {
    let mut tier = below(vec![Ancestor { node_address: "mqtt://r".into(), ..ancestor(90) }]);
    let alternate =
        Alternate { id: child(5), name: "beside".into(), address: "mqtt://beside".into() };
    let path = tier.path().to_vec();
    let node_alternates = vec![alternate.clone()];
    let kin = Kin { tree: 3, rooted: true, path, node_alternates, ..Kin::default() };
    give(&mut tier, Input::Parent(Down::Kin(kin)));
    let effects = give(&mut tier, Input::Child(child(1), Up::Hello(hello(1, summary(1)))));
    let addresses: Vec<String> =
        told(&effects, child(1)).unwrap().alternates.into_iter().map(|a| a.address).collect();
    assert_eq!(addresses, ["mqtt://beside", "mqtt://r"]);
}

#[test]
fn a_tree_is_neither_deeper_nor_wider_than_its_limits() {
    let deepest = u32::try_from(DEPTH_MAX).unwrap() - 2;
    let mut tier = below((0..deepest + 1).map(|n| ancestor(n + 90)).collect());
    let effects = give(&mut tier, Input::Child(child(1), Up::Hello(cluster(1))));
    assert_eq!(rejected(&effects), Some("a tree has at most 8 tiers, it would be 9"));
    let path = (0..deepest + 2).map(|n| ancestor(n + 90)).collect();
    let kin = Kin { tree: 3, rooted: true, path, ..Kin::default() };
    let effects = give(&mut tier, Input::Parent(Down::Kin(kin)));
    let reason = "a tree has at most 8 tiers, this one is number 9".to_owned();
    assert_eq!(effects, [Effect::LeaveParent { reason }]);

    let mut tier = root();
    let most = u32::try_from(CLUSTERS_MAX).unwrap();
    for number in 0..most {
        let known = Child::new(child(number), number.to_string(), ChildKind::Cluster);
        tier.children.insert(child(number), known);
    }
    let effects = give(&mut tier, Input::Child(child(most), Up::Hello(cluster(most))));
    assert_eq!(rejected(&effects), Some("1024 clusters are the most that a tree has"));
}

#[test]
fn what_is_told_of_the_tree_is_cut_to_size() {
    let mut tier = below(Vec::new());
    let long = "x".repeat(10_000);
    let wide = Ancestor {
        name: long.clone(),
        labels: vec!["l".into(); 1_000],
        address: long.clone(),
        ..ancestor(90)
    };
    let alternate = Alternate { id: child(1), name: long.clone(), address: "http://a".into() };
    let kin = Kin {
        tree: 3,
        rooted: true,
        path: vec![wide],
        alternates: vec![alternate; 100],
        node_alternates: vec![Alternate { id: child(1), name: long.clone(), address: long }],
    };
    give(&mut tier, Input::Parent(Down::Kin(kin)));
    let known = &tier.above.kin;
    assert!(known.path[0].name.len() <= 64 && known.path[0].address.is_empty());
    assert_eq!(known.path[0].labels.len(), SUMMARY_LIST_MAX);
    assert_eq!(known.alternates.len(), ALTERNATES_MAX);
    assert!(known.alternates[0].name.len() <= 64 && known.node_alternates.is_empty());
}

#[test]
fn the_tree_is_known_after_a_restart_but_the_way_up_is_not() {
    let mut tier = Tier::new(identity(), false, EPOCH);
    let mut disk: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut keep = |tier: &mut Tier| {
        for effect in effects(tier) {
            if let Effect::Persist(records) = effect {
                disk.extend(records.into_iter().map(|(key, value)| (key, value.unwrap())));
            }
        }
    };
    keep(&mut tier);
    tier.handle(at(0), Input::ParentUp { preferred: None });
    let kin = Kin { tree: 3, rooted: true, path: vec![ancestor(90)], ..Kin::default() };
    tier.handle(at(0), Input::Parent(Down::Kin(kin.clone())));
    assert!(tier.is_rooted());
    keep(&mut tier);
    // The same again writes nothing.
    tier.handle(at(0), Input::Parent(Down::Kin(Kin { rooted: false, ..kin })));
    assert!(!effects(&mut tier).iter().any(|effect| matches!(effect, Effect::Persist(_))));
    let mut tier = Tier::restore(identity(), false, 99, disk, at(1)).unwrap();
    assert_eq!((tier.tree(), tier.path().len(), tier.is_rooted()), (3, 1, false));
    tier.handle(at(1), Input::ParentUp { preferred: Some(child(77)) });
    let hello = effects(&mut tier).into_iter().find_map(|effect| match effect {
        Effect::ToParent(Up::Hello(hello)) => Some(hello),
        _ => None,
    });
    let hello = hello.unwrap();
    assert_eq!((hello.tree, hello.preferred), (3, Some(child(77))));
}
