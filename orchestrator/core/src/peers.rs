//! Hands out whom children measure the distance to.
//!
//! ```text
//!   children's summaries: who answers ─┐            ┌─► each child: a few of the others
//!   parent: some of other subtrees ────┴─► a ring ──┴─► the parent: a few of ours
//! ```
//!
//! Who answers stands on a ring at a place of its own, and a child gets those that come next
//! behind a few places of its own: the choice looks random, is the same whoever computes it,
//! and one that comes or goes concerns a handful of others only. Some of each child's peers
//! are from other subtrees, so that coordinates of the whole tree are of one space.
//!
//! Why apart: no decision depends on it, and nothing of it is kept on disk.
//!
//! Invariant: lists are bounded, whatever children and parents say, and one is sent only if it
//! is other than the last.

use crate::child::{Child, WORD_BYTES_MAX};
use crate::tier::Tier;
use crate::{Effect, Now};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Down, ECHOES_MAX, EchoKey, PEERS_MAX, Peer, Peers};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

/// Of a child's peers, so many are from beyond this tier where the parent has named any.
const FAR_MAX: usize = 2;

/// Shortest time between two looks at everybody's list: nodes that come back together then
/// cause one change of each list.
const INTERVAL_MS: u64 = 10_000;

/// Who answers, and who was told of whom.
#[derive(Debug, Default)]
pub(crate) struct PeerBooks {
    /// Each answering node below at its place, with the child that named it.
    ring: BTreeMap<(u64, ChildId), (ChildId, Peer)>,
    /// Where on the ring each child's nodes stand.
    places: BTreeMap<ChildId, Vec<(u64, ChildId)>>,
    /// What the parent has handed out.
    far: Option<Peers>,
    /// Fingerprint of the last list of each child.
    told: BTreeMap<ChildId, u64>,
    /// Everybody's list may be another.
    stale: bool,
    /// These have come since.
    new: BTreeSet<ChildId>,
    looked_ms: Option<u64>,
}

impl PeerBooks {
    /// A few of the nodes below that answer, for the parent.
    pub(crate) fn echoes(&self) -> Vec<Peer> {
        self.ring.values().take(ECHOES_MAX).map(|(_, peer)| peer.clone()).collect()
    }

    /// When lists are to be looked at again.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let due = self.looked_ms.map_or(0, |at| at.saturating_add(INTERVAL_MS));
        (self.stale || !self.new.is_empty()).then_some(due)
    }

    /// What a child says of its nodes that answer; `true` if that is news.
    fn note(&mut self, child: ChildId, echoes: &[Peer]) -> bool {
        let before = self.places.remove(&child).unwrap_or_default();
        let removed: Vec<Peer> =
            before.iter().filter_map(|place| Some(self.ring.remove(place)?.1)).collect();
        for peer in bounded_echoes(echoes) {
            let place = (scatter(&peer.id, 0), peer.id);
            // Named by two children, it is the first one's.
            if let Entry::Vacant(free) = self.ring.entry(place) {
                free.insert((child, peer));
                self.places.entry(child).or_default().push(place);
            }
        }
        let places = self.places.get(&child).into_iter().flatten();
        let now: Vec<&Peer> = places.filter_map(|p| Some(&self.ring.get(p)?.1)).collect();
        removed.iter().ne(now)
    }

    /// Whom a child shall measure.
    fn choose(&self, child: ChildId) -> Vec<Peer> {
        let far = self.far.as_ref().map_or(&[][..], |far| &far.peers);
        let mut chosen: Vec<Peer> = Vec::with_capacity(PEERS_MAX);
        let first = usize::try_from(scatter(&child, 1) >> 32).unwrap_or(0);
        for index in 0..far.len().min(FAR_MAX) {
            chosen.push(far[(first % far.len() + index) % far.len()].clone());
        }
        if self.ring.len() <= 2 * PEERS_MAX {
            // So few that leaving it to chance would give some children hardly any.
            let others = self.ring.values().filter(|(by, _)| *by != child);
            let others = others.map(|(_, peer)| peer.clone());
            chosen.extend(others.take(PEERS_MAX - chosen.len()));
            return chosen;
        }
        for salt in 2..2 + 2 * PEERS_MAX {
            if chosen.len() >= PEERS_MAX {
                break;
            }
            let from = (scatter(&child, salt), ChildId([0; 12]));
            let behind = self.ring.range(from..).chain(self.ring.iter());
            // Past a cluster's own few nodes there is another's.
            let mut others = behind.take(PEERS_MAX).filter(|(_, (by, _))| *by != child);
            if let Some((_, (_, peer))) = others.next()
                && !chosen.iter().any(|known| known.id == peer.id)
            {
                chosen.push(peer.clone());
            }
        }
        chosen
    }
}

impl Tier {
    /// A child has come, or says something new of itself.
    pub(crate) fn note_echoes(&mut self, id: ChildId, has_come: bool) {
        let link = self.children.get(&id).and_then(|child| child.link.as_ref());
        let echoes = link.map_or(&[][..], |link| &link.summary.echoes);
        let news = self.peers.note(id, echoes);
        self.peers.stale |= news;
        self.reporting.summary_stale |= news;
        if has_come {
            self.peers.told.remove(&id);
            let any = !self.peers.ring.is_empty() || self.peers.far.is_some();
            self.peers.new.extend(any.then_some(id));
        }
    }

    /// A child is not there: others are not to wait for its answers.
    pub(crate) fn forget_echoes(&mut self, id: ChildId) {
        self.peers.told.remove(&id);
        self.peers.new.remove(&id);
        if self.peers.note(id, &[]) {
            self.peers.stale = true;
            self.reporting.summary_stale = true;
        }
    }

    /// The parent names nodes of other subtrees.
    pub(crate) fn hear_peers(&mut self, mut peers: Peers) {
        peers.peers = bounded_echoes(&peers.peers).take(PEERS_MAX).collect();
        self.peers.stale |= self.peers.far.as_ref() != Some(&peers);
        self.peers.far = Some(peers);
    }

    /// Tells each child its peers, if they are others than before.
    pub(crate) fn tell_peers(&mut self, now: Now) {
        if self.peers.due_ms().is_none_or(|due| due > now.mono_ms) {
            return;
        }
        self.peers.looked_ms = Some(now.mono_ms);
        let new = std::mem::take(&mut self.peers.new);
        let all = std::mem::take(&mut self.peers.stale);
        let key = self.echo_key();
        let due = |child: &&Child| child.is_connected() && (all || new.contains(&child.id));
        let due: Vec<ChildId> = self.children.values().filter(due).map(|c| c.id).collect();
        for id in due {
            let peers = Peers { key, peers: self.peers.choose(id) };
            let fingerprint = fingerprint(&peers);
            let known = self.peers.told.get(&id);
            if known == Some(&fingerprint) || (known.is_none() && peers.peers.is_empty()) {
                continue;
            }
            self.peers.told.insert(id, fingerprint);
            self.notes.sends.push(Effect::ToChild(id, Down::Peers(peers)));
        }
    }

    /// The key that came from above. Without a parent, one of two numbers of chance: children
    /// know the one and the parent knows the other, and nobody beside them knows either.
    fn echo_key(&self) -> EchoKey {
        let own = u128::from(self.identity.incarnation) << 64 | u128::from(self.epoch);
        self.peers.far.as_ref().map_or(EchoKey(own), |far| far.key)
    }
}

/// What is believed of a list.
pub(crate) fn bounded_echoes(echoes: &[Peer]) -> impl Iterator<Item = Peer> {
    let echoes = echoes.iter().filter(|peer| peer.address.len() <= WORD_BYTES_MAX);
    echoes.take(PEERS_MAX.max(ECHOES_MAX)).cloned()
}

/// A number without a pattern for an id: FNV-1a, and a finish that spreads its last bytes.
fn scatter(id: &ChildId, salt: usize) -> u64 {
    let salt = u8::try_from(salt % 256).unwrap_or(0);
    let hash = id.0.iter().chain([&salt]).fold(0xcbf2_9ce4_8422_2325_u64, fnv);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

fn fingerprint(peers: &Peers) -> u64 {
    let key = peers.key.0.to_be_bytes();
    let mut hash = key.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    for peer in &peers.peers {
        hash = peer.id.0.iter().chain(peer.address.as_bytes()).chain(&[0]).fold(hash, fnv);
    }
    hash
}

fn fnv(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

#[cfg(test)]
mod tests;
