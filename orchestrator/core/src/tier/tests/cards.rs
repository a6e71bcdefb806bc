//! Cards: where a cluster is known to be, who hears of it, and how many there may be.

use super::*;
use marram_protocol::v1::{CARDS_MAX, CLUSTERS_MAX, ClusterCard};

fn cluster(number: u32, nodes: u32) -> Up {
    let summary = Summary { nodes, ..summary(1000) };
    let labels = vec![format!("number={number}")];
    let name = format!("c{number}");
    Up::Hello(Hello { kind: ChildKind::Cluster, name, labels, ..hello(number, summary) })
}

fn card(number: u32, parent: u32, nodes: u32) -> ClusterCard {
    ClusterCard {
        id: child(number),
        parent: child(parent),
        name: format!("c{number}"),
        labels: Vec::new(),
        location: String::new(),
        address: String::new(),
        node_address: String::new(),
        nodes,
        connected: true,
        cordoned: false,
    }
}

fn whole(cards: Vec<ClusterCard>) -> Up {
    let scope = Scope::Snapshot { first: true, last: true };
    Up::Clusters { scope, cards, gone: Vec::new() }
}

fn change(cards: Vec<ClusterCard>, gone: Vec<ChildId>) -> Up {
    Up::Clusters { scope: Scope::Change, cards, gone }
}

fn known(tier: &Tier) -> Vec<(u32, u32, bool)> {
    let number = |id: ChildId| u32::from_be_bytes(id.0[8..].try_into().unwrap());
    let cards = tier.cards().into_iter();
    cards.map(|card| (number(card.id), card.nodes, card.connected)).collect()
}

fn clusters(effects: &[Effect]) -> Vec<&Up> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::ToParent(up @ Up::Clusters { .. }) => Some(up),
        _ => None,
    });
    told.collect()
}

#[test]
fn each_cluster_has_its_own_nodes_on_its_card_and_is_where_it_is_connected() {
    let mut tier = root();
    give(&mut tier, Input::Child(child(1), cluster(1, 10)));
    give(&mut tier, Input::Child(child(1), whole(vec![card(11, 1, 3), card(12, 11, 2)])));
    give(&mut tier, Input::Child(child(2), cluster(2, 4)));
    assert_eq!(known(&tier), [(1, 5, true), (2, 4, true), (11, 3, true), (12, 2, true)]);
    assert_eq!(tier.towards(child(12)), Some(child(1)));
    assert_eq!(tier.towards(child(2)), Some(child(2)));
    assert_eq!(tier.towards(child(3)), None);
    // The way to them is broken, so they are not connected.
    give(&mut tier, Input::ChildGone(child(1), None));
    assert_eq!(known(&tier), [(1, 0, false), (2, 4, true), (11, 3, false), (12, 2, false)]);
    // One has found another parent, which only that one knows yet.
    give(&mut tier, Input::Child(child(2), change(vec![card(12, 2, 2)], Vec::new())));
    assert_eq!(tier.towards(child(12)), Some(child(2)));
    // Its former parent comes back and does not know that it is gone: the later word counts.
    give(&mut tier, Input::Child(child(1), cluster(1, 10)));
    let mut gone = card(12, 11, 2);
    gone.connected = false;
    give(&mut tier, Input::Child(child(1), whole(vec![card(11, 1, 3), gone])));
    assert_eq!(tier.towards(child(12)), Some(child(2)));
    give(&mut tier, Input::Child(child(2), change(Vec::new(), vec![child(12)])));
    assert_eq!(tier.towards(child(12)), Some(child(1)));
}

#[test]
fn a_parent_hears_all_once_and_then_what_changes_but_not_too_often() {
    let mut tier = Tier::new(identity(), false, EPOCH);
    give(&mut tier, Input::Child(child(1), cluster(1, 1)));
    let all = give(&mut tier, Input::ParentUp { preferred: None });
    let [Up::Clusters { scope: Scope::Snapshot { first: true, last: true }, cards, .. }] =
        clusters(&all)[..]
    else {
        panic!("{all:?}")
    };
    assert_eq!(cards.len(), 1);
    assert_eq!(cards[0].labels, ["number=1"]);
    let quiet = give(&mut tier, Input::Child(child(1), change(vec![card(11, 1, 1)], Vec::new())));
    assert!(clusters(&quiet).is_empty(), "only so often");
    let due = tier.poll_timeout().unwrap();
    tier.handle_timeout(at(due));
    let later = effects(&mut tier);
    let [Up::Clusters { scope: Scope::Change, cards, gone }] = clusters(&later)[..] else {
        panic!("{later:?}")
    };
    // A node that moved from one card to the other changes both.
    assert_eq!((cards.len(), gone.len()), (2, 0));
    assert_eq!(tier.poll_timeout(), None, "nothing more is due");
    tier.handle(at(9_999), Input::Child(child(1), change(Vec::new(), vec![child(11)])));
    let later = effects(&mut tier);
    let [Up::Clusters { cards, gone, .. }, Up::Clusters { cards: more, .. }] = clusters(&later)[..]
    else {
        panic!("{later:?}")
    };
    assert_eq!((cards.len(), &gone[..], more.len()), (0, &[child(11)][..], 1));
}

#[test]
fn nobody_tells_more_clusters_than_a_tree_has_and_all_messages_fit() {
    let mut tier = Tier::new(identity(), false, EPOCH);
    give(&mut tier, Input::Child(child(1), cluster(1, 1)));
    give(&mut tier, Input::Child(child(2), cluster(2, 1)));
    let wide = |number: u32| ClusterCard {
        labels: vec!["l".repeat(64); 1_000],
        name: "n".repeat(1_000),
        address: "a".repeat(1_000),
        ..card(number, 1, 1)
    };
    for teller in [1, 2] {
        for part in 0..10 {
            let first = 1_000 * teller + part * 100;
            let cards = (first..first + 100).map(wide).collect();
            give(&mut tier, Input::Child(child(teller), change(cards, Vec::new())));
        }
    }
    assert_eq!(tier.cards().len(), CLUSTERS_MAX + 2);
    let effects = give(&mut tier, Input::ParentUp { preferred: None });
    let mut told = 0;
    for message in clusters(&effects) {
        message.encode().expect("fits");
        let Up::Clusters { cards, .. } = message else { continue };
        assert!(cards.len() <= CARDS_MAX);
        assert!(cards.iter().all(|card| card.name.len() <= 64 && card.address.is_empty()));
        told += cards.len();
    }
    assert_eq!(told, CLUSTERS_MAX + 2);
}

#[test]
fn nobody_tells_of_tiers_above() {
    let mut tier = root();
    give(&mut tier, Input::Child(child(1), cluster(1, 1)));
    let own = ClusterCard { id: tier.identity.id, ..card(9, 1, 1) };
    give(&mut tier, Input::Child(child(1), whole(vec![own])));
    assert_eq!(known(&tier), [(1, 1, true)]);
}
