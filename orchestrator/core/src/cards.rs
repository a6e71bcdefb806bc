//! Cards: what all tiers above know of each cluster of a subtree.
//!
//! ```text
//!   greeting and summary of a child cluster ──► its card ─┐
//!   cards that it tells of clusters below it ─────────────┴─► cards() ─► parent, changes only
//! ```
//!
//! Why apart: cards serve finding (selectors, operations, lists for people). No instance
//! depends on them, so they are kept in memory only and told again on each connection.
//!
//! Invariants:
//! - one card for each id: a cluster that is known in two places is where it is connected, or
//!   where it was heard of last;
//! - a card says connected only if the whole way from here to the cluster is;
//! - cards of a tree are bounded, whoever tells them.

use crate::Effect;
use crate::Now;
use crate::child::{Child, clip};
use crate::kin::{bounded_address, bounded_labels, location};
use crate::tier::{Notes, Tier};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{CARDS_MAX, CLUSTERS_MAX, ClusterCard, Scope, Up};
use std::collections::BTreeMap;

/// Shortest time between two reports of changed cards: counts of nodes change often.
const CARDS_INTERVAL_MS: u64 = 1_000;

/// Bytes of the cards in one message: one more of the largest still fits the message limit.
const PART_BYTES_MAX: usize = 128 * 1024;

/// The cards that a child has told.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Told {
    /// Each with the moment of its arrival, as a count.
    cards: BTreeMap<ChildId, (u64, ClusterCard)>,
    /// A snapshot that is coming in; it replaces the others when it is whole.
    coming: Option<BTreeMap<ChildId, (u64, ClusterCard)>>,
}

impl Told {
    /// Cards of clusters to which the way is whole, as far as the child knows.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &ClusterCard> {
        self.cards.values().map(|(_, card)| card).filter(|card| card.connected)
    }
}

/// What the parent knows of the cards.
#[derive(Debug, Default)]
pub(crate) struct Deck {
    /// Counts arrivals.
    arrivals: u64,
    told: BTreeMap<ChildId, ClusterCard>,
    told_ms: Option<u64>,
    /// A card may be other than the parent was told.
    pub(crate) stale: bool,
}

impl Deck {
    /// When changes may be told, if there may be any.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.told_ms.filter(|_| self.stale).map(|at| at.saturating_add(CARDS_INTERVAL_MS))
    }

    /// Something has arrived: later than all before.
    pub(crate) fn arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }
}

impl Tier {
    /// All clusters below this tier.
    pub fn cards(&self) -> Vec<ClusterCard> {
        self.deck_of_all().into_values().map(|(_, _, card)| card).collect()
    }

    /// The child on the way to a cluster below this tier, or the cluster itself if it is a
    /// child.
    pub fn towards(&self, cluster: ChildId) -> Option<ChildId> {
        self.deck_of_all().get(&cluster).map(|(_, via, _)| *via)
    }

    /// Each cluster's card, with the arrival that it is of and the child it was heard from.
    fn deck_of_all(&self) -> BTreeMap<ChildId, (u64, ChildId, ClusterCard)> {
        let mut deck: BTreeMap<ChildId, (u64, ChildId, ClusterCard)> = BTreeMap::new();
        let mut put = |arrival: u64, via: ChildId, card: ClusterCard| {
            let rank = |arrival: u64, card: &ClusterCard| (card.connected, arrival);
            match deck.get(&card.id) {
                Some((known, _, other)) if rank(*known, other) >= rank(arrival, &card) => {}
                _ => drop(deck.insert(card.id, (arrival, via, card))),
            }
        };
        for child in self.clusters() {
            put(child.arrival, child.id, self.card_of(child));
            for (arrival, card) in child.told.cards.values() {
                let connected = card.connected && child.is_connected();
                put(*arrival, child.id, ClusterCard { connected, ..card.clone() });
            }
        }
        deck
    }

    fn card_of(&self, child: &Child) -> ClusterCard {
        let summary = child.summary();
        let below = child.told.cards.values().filter(|(_, card)| card.connected);
        let below = below.fold(0u32, |sum, (_, card)| sum.saturating_add(card.nodes));
        ClusterCard {
            id: child.id,
            parent: self.identity.id,
            name: child.name.clone(),
            labels: child.site.labels.clone(),
            location: location(summary, &child.site).to_owned(),
            address: child.site.address.clone(),
            node_address: child.site.node_address.clone(),
            nodes: summary.map_or(0, |summary| summary.nodes.saturating_sub(below)),
            connected: child.is_connected(),
            cordoned: child.cordoned || summary.is_some_and(|summary| summary.cordoned),
        }
    }

    /// A child cluster tells of the clusters below it.
    pub(crate) fn hear_cards(
        &mut self,
        by: ChildId,
        scope: Scope,
        cards: Vec<ClusterCard>,
        gone: &[ChildId],
    ) {
        let above =
            |id: &ChildId| *id == self.identity.id || self.path().iter().any(|a| a.id == *id);
        let cards: Vec<ClusterCard> = cards.into_iter().filter(|card| !above(&card.id)).collect();
        let arrival = self.deck.arrival();
        let others = self.clusters().filter(|child| child.id != by);
        let others: usize = others.map(|child| child.told.cards.len()).sum();
        let Some(child) = self.children.get_mut(&by).filter(|child| child.is_connected()) else {
            return;
        };
        let Told { cards: known, coming } = &mut child.told;
        if let Scope::Snapshot { first: true, .. } = scope {
            *coming = Some(BTreeMap::new());
        }
        let target = match scope {
            Scope::Snapshot { .. } => coming.get_or_insert_default(),
            Scope::Change => &mut *known,
        };
        gone.iter().for_each(|id| drop(target.remove(id)));
        for card in cards.into_iter().map(bounded_card) {
            // More than a tree has are not believed.
            if target.contains_key(&card.id) || target.len() + others < CLUSTERS_MAX {
                target.insert(card.id, (arrival, card));
            }
        }
        if let Scope::Snapshot { last: true, .. } = scope
            && let Some(whole) = coming.take()
        {
            *known = whole;
        }
        self.deck.stale = true;
        // It may have a cluster now that an instance waits for.
        self.notes.wake.insert(by);
    }

    /// Adds to `notes` what the parent shall hear of cards now.
    pub(crate) fn report_cards(&mut self, notes: &mut Notes, now: Now) {
        let waits = self.deck.due_ms().is_none_or(|due| now.mono_ms < due);
        if waits && !notes.snapshot {
            return;
        }
        self.deck.stale = false;
        self.deck.told_ms = Some(now.mono_ms);
        let cards: BTreeMap<ChildId, ClusterCard> =
            self.cards().into_iter().map(|card| (card.id, card)).collect();
        let told = std::mem::replace(&mut self.deck.told, cards);
        let cards = &self.deck.told;
        if notes.snapshot {
            let all = snapshot(cards.values().cloned().collect());
            return notes.sends.extend(all.into_iter().map(Effect::ToParent));
        }
        let gone: Vec<ChildId> =
            told.keys().filter(|id| !cards.contains_key(id)).copied().collect();
        let changed = cards.values().filter(|card| told.get(&card.id) != Some(card));
        let changes = changes(changed.cloned().collect(), &gone);
        notes.sends.extend(changes.into_iter().map(Effect::ToParent));
    }
}

/// Messages that tell all cards.
fn snapshot(cards: Vec<ClusterCard>) -> Vec<Up> {
    let parts = parts(cards);
    let last = parts.len().saturating_sub(1);
    let message = |(part, cards): (usize, Vec<ClusterCard>)| Up::Clusters {
        scope: Scope::Snapshot { first: part == 0, last: part == last },
        cards,
        gone: Vec::new(),
    };
    parts.into_iter().enumerate().map(message).collect()
}

fn changes(cards: Vec<ClusterCard>, gone: &[ChildId]) -> Vec<Up> {
    let scope = Scope::Change;
    let gone = gone.chunks(CARDS_MAX);
    let gone = gone.map(|gone| Up::Clusters { scope, cards: Vec::new(), gone: gone.to_vec() });
    let cards = parts(cards).into_iter().filter(|cards| !cards.is_empty());
    gone.chain(cards.map(|cards| Up::Clusters { scope, cards, gone: Vec::new() })).collect()
}

/// Parts of a list that each fit one message, one at least.
fn parts(cards: Vec<ClusterCard>) -> Vec<Vec<ClusterCard>> {
    let mut parts = vec![Vec::new()];
    let mut room = PART_BYTES_MAX;
    for card in cards {
        let size = postcard::experimental::serialized_size(&card).unwrap_or(PART_BYTES_MAX);
        if parts.last().is_none_or(|part| part.len() >= CARDS_MAX || room < size) {
            parts.push(Vec::new());
            room = PART_BYTES_MAX;
        }
        room = room.saturating_sub(size);
        parts.last_mut().into_iter().for_each(|part| part.push(card.clone()));
    }
    parts
}

/// A card whose size does not depend on who sent it.
fn bounded_card(card: ClusterCard) -> ClusterCard {
    ClusterCard {
        name: clip(&card.name),
        labels: bounded_labels(card.labels),
        location: clip(&card.location),
        address: bounded_address(card.address),
        node_address: bounded_address(card.node_address),
        ..card
    }
}
