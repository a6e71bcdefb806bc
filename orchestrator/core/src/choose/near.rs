//! Bounds on latency and distance, as far as a tier can judge them.
//!
//! - Instances of a service on other children: by where those children are, with all their
//!   extent, since nobody below can judge it.
//! - Instances of a service on the same child: by that child, if it is a cluster; on one node
//!   there is no way.
//! - A place, as to distance: by where a node is; of a cluster by its nearest part.
//! - Users at a place, as to latency: by where users of the nodes around that place would be;
//!   without such nodes by what light needs.
//! - A coordinate: by where a node is; of a cluster by its nearest part.
//!
//! Instances that have no place yet bound nothing: of two services that name each other the
//! first goes anywhere.

use crate::child::Child;
use crate::instance::Instance;
use crate::offer::{Offer, on_globe};
use crate::tier::Tier;
use marram_placement::near::{Bound, Excess, LIGHT_US_PER_KM, Place, Point, Position, Sense};
use marram_placement::points::{geometric_median, multilaterate};
use marram_protocol::id::ChildId;
use marram_protocol::v1::{Anchor, ChildKind, Proximity};

/// Nodes around a place that say where its users are in the space of latencies: enough to
/// tell an odd one from the rest.
const AROUND_MAX: usize = 8;

/// A bound, ready to be judged.
pub(super) struct Near<'a> {
    /// To what, for people.
    pub(super) what: &'a str,
    latency: Bound,
    distance: Bound,
    to: To,
}

enum To {
    /// Instances, by the child that has them.
    Others(Vec<(ChildId, Position)>),
    /// Users at a place; the point is not known without nodes around.
    Users(Place, Position),
    Point(Position),
}

/// All bounds of an instance.
pub(super) fn read<'a>(tier: &'a Tier, instance: &'a Instance) -> Vec<Near<'a>> {
    let all = instance.workload.spec.placement.proximity.iter();
    all.map(|proximity| one(tier, instance, proximity)).collect()
}

fn one<'a>(tier: &'a Tier, instance: &'a Instance, proximity: &'a Proximity) -> Near<'a> {
    let Proximity { to, latency_us_max, distance_m_max, rigidness_permille } = proximity;
    let latency = Bound::new(*latency_us_max, None, *rigidness_permille);
    let distance = Bound::new(None, *distance_m_max, *rigidness_permille);
    let (what, to) = match to {
        Anchor::Service(service) => (service.as_str(), others(tier, instance, service)),
        Anchor::Place(geo) => {
            let place = on_globe(*geo);
            let point = latency_us_max.and_then(|_| users(tier, place));
            ("the place asked for", To::Users(place, Position { point, ..Position::default() }))
        }
        Anchor::Coordinate(c) => {
            let point = Point { x_us: c.x_us, y_us: c.y_us, height_us: c.height_us };
            let position = Position { point: Some(point), ..Position::default() };
            ("the coordinate asked for", To::Point(position))
        }
    };
    Near { what, latency, distance, to }
}

fn others(tier: &Tier, instance: &Instance, service: &str) -> To {
    let mut holders: Vec<ChildId> =
        tier.referred(service, instance.workload.instance).map(|(_, child)| child).collect();
    holders.sort_unstable();
    holders.dedup();
    let known = holders.into_iter().filter_map(|id| {
        // A child that is silent does not say where it is, and bounds nothing meanwhile.
        let summary = tier.children.get(&id)?.summary()?;
        Some((id, crate::offer::position(summary)))
    });
    To::Others(known.collect())
}

/// Where users at a place are in the space of latencies: as far from the nodes around as light
/// takes, on the same nets. Three nodes or more are needed to find that point; of fewer, the
/// middle is taken, which is right for nodes at the place itself.
fn users(tier: &Tier, place: Place) -> Option<Point> {
    let nodes = tier.children.values().filter(|child| child.kind == ChildKind::Node);
    let positions = nodes.filter_map(|child| child.offer.as_ref().map(|offer| offer.position));
    let located = positions.filter_map(|at| Some((at.place?.distance_m(place), at.point?)));
    let mut around: Vec<(u32, Point)> = located.collect();
    if around.len() > AROUND_MAX {
        around.select_nth_unstable_by_key(AROUND_MAX, |(m, point)| (*m, point.x_us, point.y_us));
        around.truncate(AROUND_MAX);
    }
    around.sort_unstable_by_key(|(m, point)| (*m, point.x_us, point.y_us));
    let ways: Vec<(Point, u32)> = around
        .iter()
        .map(|(m, point)| (*point, light_us(*m).saturating_add(point.height_us)))
        .collect();
    let points: Vec<Point> = around.iter().map(|(_, point)| *point).collect();
    let found = multilaterate(&ways).or_else(|| geometric_median(&points))?;
    // Over the node next to them the way is no shorter than light takes to it.
    let height_us = around.first().map_or(0, |(m, _)| light_us(*m));
    Some(Point { height_us: if ways.len() < 3 { height_us } else { 0 }, ..found })
}

fn light_us(m: u32) -> u32 {
    u32::try_from(u64::from(m) * u64::from(LIGHT_US_PER_KM) / 1000).unwrap_or(u32::MAX)
}

impl Near<'_> {
    /// How much of the bounds is used up at a child.
    pub(super) fn strain(&self, child: &Child, offer: &Offer) -> Result<u32, Excess> {
        let here = &offer.position;
        let sense = match child.kind {
            ChildKind::Node => Sense::All,
            ChildKind::Cluster => Sense::Some,
        };
        match &self.to {
            To::Others(others) => {
                let others = others.iter().filter(|(holder, _)| *holder != child.id);
                others
                    .map(|(_, there)| self.both(here, there, Sense::All))
                    .try_fold(0, |most, strain| strain.map(|strain| strain.max(most)))
            }
            To::Point(there) => self.both(here, there, sense),
            To::Users(place, users) => {
                let at = Position { place: Some(*place), ..Position::default() };
                let distance = self.distance.strain(here, &at, sense)?;
                let latency = match users.point {
                    Some(_) if here.point.is_some() => self.latency.strain(here, users, sense)?,
                    _ => self.latency.light_strain(here, *place, sense)?,
                };
                Ok(distance.max(latency))
            }
        }
    }

    fn both(&self, here: &Position, there: &Position, sense: Sense) -> Result<u32, Excess> {
        let latency = self.latency.strain(here, there, sense)?;
        Ok(latency.max(self.distance.strain(here, there, sense)?))
    }
}
