//! What a child offers to placement, gathered in one place, since placement looks at every
//! child.
//!
//! Most children are alike in what they can run and how they are labelled: one of each kind
//! is kept, and shared.

use marram_placement::near::{Place, Point, Position};
use marram_protocol::place;
use marram_protocol::v1::{Geo, Resources, Summary};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a child offers while it can be given work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offer {
    pub(crate) capacity: Resources,
    /// The most that is free in one place, as the child has told; a node is one place.
    slot: Resources,
    pub(crate) ability: Arc<Ability>,
    pub(crate) traits: Arc<Traits>,
    /// Where it is, and how far it extends.
    pub(crate) position: Position,
    /// Its lists do not name everything.
    pub(crate) cut: bool,
}

/// What a child can run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ability {
    pub(crate) architectures: Vec<String>,
    pub(crate) virtualizations: Vec<String>,
}

/// What else is asked for by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Traits {
    pub(crate) labels: Vec<String>,
    pub(crate) addons: Vec<String>,
}

/// All kinds of children that there are.
#[derive(Debug, Default)]
pub(crate) struct Abilities {
    abilities: BTreeSet<Arc<Ability>>,
    traits: BTreeSet<Arc<Traits>>,
}

impl Offer {
    pub(crate) fn new(summary: &Summary, slot: Resources, known: &mut Abilities) -> Self {
        let ability = Ability {
            architectures: summary.architectures.clone(),
            virtualizations: summary.virtualizations.clone(),
        };
        let traits = Traits { labels: summary.labels.clone(), addons: summary.addons.clone() };
        Self {
            capacity: summary.capacity,
            slot,
            ability: share(&mut known.abilities, ability),
            traits: share(&mut known.traits, traits),
            position: position(summary),
            cut: summary.cut,
        }
    }

    /// What is free in all, and at most in one place, given what is reserved.
    pub(crate) fn free(&self, reserved: Resources) -> (Resources, Resources) {
        let free = self.capacity.minus(reserved);
        (free, free.min(self.slot))
    }
}

/// The same value, shared with all that have it.
fn share<T: Ord>(known: &mut BTreeSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(known) = known.get(&value) {
        return Arc::clone(known);
    }
    // A new one is rare, and the time to forget those that nobody has any more; where each
    // child has its own, that is done when their number has doubled.
    if known.len() < SHARED_FEW || known.len().is_power_of_two() {
        known.retain(|known| Arc::strong_count(known) > 1);
    }
    let value = Arc::new(value);
    known.insert(Arc::clone(&value));
    value
}

/// So few are looked through each time.
const SHARED_FEW: usize = 64;

/// Where the child is by its own word.
pub(crate) fn position(summary: &Summary) -> Position {
    let (place, radius_m) = match place::parse(&summary.location) {
        Some((geo, radius_m)) => (Some(on_globe(geo)), radius_m),
        None => (None, 0),
    };
    let point =
        summary.coordinate.map(|c| Point { x_us: c.x_us, y_us: c.y_us, height_us: c.height_us });
    Position { place, radius_m, point, reach_us: summary.reach_us }
}

/// A place as placement computes with it.
pub(crate) fn on_globe(geo: Geo) -> Place {
    Place::new(geo.latitude_udeg, geo.longitude_udeg)
}

/// The values that a label's key has among labels.
pub(crate) fn values<'a>(labels: &'a [String], key: &'a str) -> impl Iterator<Item = &'a str> {
    labels.iter().filter_map(move |label| {
        let (found, value) = label.split_once('=').unwrap_or((label, ""));
        (found == key).then_some(value)
    })
}
