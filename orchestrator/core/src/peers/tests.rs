//! Who is handed out to whom.

use crate::{Effect, Identity, Input, Now, Tier};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{
    ChildKind, Down, ECHOES_MAX, EchoKey, Generation, Hello, PEERS_MAX, Peer, Peers, Summary, Up,
};
use std::collections::BTreeMap;

fn tier(is_root: bool) -> Tier {
    let identity = Identity {
        id: ChildId([1; 12]),
        name: "t".into(),
        location: String::new(),
        version: "0".into(),
        incarnation: 5,
        labels: Vec::new(),
        address: String::new(),
        node_address: String::new(),
    };
    let mut tier = Tier::new(identity, is_root, 9);
    while tier.poll_effect().is_some() {}
    tier
}

fn id(number: u32) -> ChildId {
    let mut id = [0; 12];
    id[8..].copy_from_slice(&number.to_be_bytes());
    ChildId(id)
}

fn peer(number: u32) -> Peer {
    Peer { id: id(number), address: format!("192.0.2.1:{number}") }
}

/// A child comes and names these.
fn come(tier: &mut Tier, at_ms: u64, number: u32, echoes: Vec<Peer>) -> BTreeMap<ChildId, Peers> {
    let hello = Hello {
        child: id(number),
        kind: ChildKind::Node,
        name: "n".into(),
        version: "0".into(),
        incarnation: 1,
        generation: Generation::default(),
        summary: Summary { nodes: 1, echoes, ..Summary::default() },
        facts: Vec::new(),
        tree: 0,
        preferred: None,
        address: String::new(),
        node_address: String::new(),
        labels: Vec::new(),
    };
    give(tier, at_ms, Input::Child(id(number), Up::Hello(hello)))
}

/// What is told by an input and by the time that passes.
fn give(tier: &mut Tier, at_ms: u64, input: Input) -> BTreeMap<ChildId, Peers> {
    tier.handle(Now { mono_ms: at_ms, unix_ms: 0 }, input);
    told(tier)
}

fn wait(tier: &mut Tier, at_ms: u64) -> BTreeMap<ChildId, Peers> {
    tier.handle_timeout(Now { mono_ms: at_ms, unix_ms: 0 });
    told(tier)
}

fn told(tier: &mut Tier) -> BTreeMap<ChildId, Peers> {
    let mut all = BTreeMap::new();
    while let Some(effect) = tier.poll_effect() {
        if let Effect::ToChild(child, Down::Peers(peers)) = effect {
            all.insert(child, peers);
        }
    }
    all
}

fn many(count: u32) -> (Tier, BTreeMap<ChildId, Peers>) {
    let mut tier = tier(true);
    let mut all = BTreeMap::new();
    for number in 0..count {
        all.extend(come(&mut tier, 0, number, vec![peer(number)]));
    }
    all.extend(wait(&mut tier, 20_000));
    (tier, all)
}

#[test]
fn nobody_is_told_of_nobody() {
    let mut tier = tier(true);
    for number in 0..9 {
        assert!(come(&mut tier, 0, number, Vec::new()).is_empty());
    }
    assert_eq!(tier.poll_timeout(), None, "and nothing is due");
}

#[test]
fn each_measures_a_few_others_and_each_is_measured() {
    let (tier, all) = many(200);
    assert_eq!(all.len(), 200);
    let mut asked: BTreeMap<ChildId, usize> = BTreeMap::new();
    for (child, peers) in &all {
        assert_eq!(peers.key, EchoKey(5 << 64 | 9));
        assert!((4..=PEERS_MAX).contains(&peers.peers.len()), "{}", peers.peers.len());
        for peer in &peers.peers {
            assert_ne!(peer.id, *child);
            *asked.entry(peer.id).or_default() += 1;
        }
    }
    assert!(asked.len() > 160, "{} of 200 are measured", asked.len());
    assert!(asked.values().all(|count| *count <= 60), "nobody is measured by all");
    assert_eq!(tier.own_summary().echoes.len(), ECHOES_MAX);
    let again = many(200).1;
    assert_eq!(all, again, "the choice is no matter of chance");
}

#[test]
fn who_comes_or_goes_concerns_a_few() {
    let (mut tier, all) = many(200);
    assert_eq!(tier.poll_timeout(), None);
    let gone = id(77);
    assert!(give(&mut tier, 25_000, Input::ChildGone(gone, None)).is_empty(), "not at once");
    assert_eq!(tier.poll_timeout(), Some(30_000));
    let changed = wait(&mut tier, 30_000);
    let had = |peers: &Peers| peers.peers.iter().any(|peer| peer.id == gone);
    let concerned = all.iter().filter(|(child, peers)| had(peers) && **child != gone).count();
    assert_eq!(changed.len(), concerned, "those who had it");
    assert!(concerned > 0 && !changed.values().any(had));
    // Back again, all is as it was.
    let mut back = come(&mut tier, 31_000, 77, vec![peer(77)]);
    back.extend(wait(&mut tier, 41_000));
    assert_eq!(back.len(), concerned + 1);
    assert!(back.iter().all(|(child, peers)| all[child] == *peers));
}

#[test]
fn a_part_of_the_tree_measures_the_others_and_takes_their_key() {
    let mut tier = tier(false);
    for number in 0..30 {
        come(&mut tier, 0, number, vec![peer(number)]);
    }
    wait(&mut tier, 10_000);
    let far = Peers { key: EchoKey(3), peers: (900..905).map(peer).collect() };
    give(&mut tier, 11_000, Input::Parent(Down::Peers(far)));
    let all = wait(&mut tier, 20_000);
    assert_eq!(all.len(), 30);
    for peers in all.values() {
        assert_eq!(peers.key, EchoKey(3));
        assert_eq!(peers.peers.iter().filter(|peer| peer.id >= id(900)).count(), 2);
    }
    let new = wait(&mut tier, 40_000);
    assert!(new.is_empty(), "the same again is not said again");
}

#[test]
fn what_a_child_claims_is_bounded() {
    let mut tier = tier(true);
    let long = Peer { address: "x".repeat(70_000), ..peer(3) };
    let mut echoes: Vec<Peer> = (100..400).map(peer).collect();
    echoes.insert(0, long);
    come(&mut tier, 0, 1, echoes);
    // Another one names the same nodes, which stay the first one's.
    come(&mut tier, 0, 2, (100..400).map(peer).collect());
    come(&mut tier, 0, 3, Vec::new());
    let all = wait(&mut tier, 10_000);
    assert_eq!(all[&id(3)].peers.len(), ECHOES_MAX);
    assert!(all[&id(3)].peers.iter().all(|peer| peer.address.len() < 70));
    assert!(all.get(&id(1)).is_none_or(|peers| peers.peers.is_empty()));
}
