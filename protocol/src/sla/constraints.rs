//! From Oakestra's `constraints` and `connectivity` to what tiers judge by.
//!
//! Several constraints hold at once: lists of the same kind are intersected, and what cannot
//! be judged is named, so that nothing is placed against it.

use super::model::{Connectivity, Constraint, Microservice};
use crate::place;
use crate::selector::{SELECTOR_BYTES_MAX, Selector};
use crate::v1::{Anchor, Placement, Proximity};
use serde_json::Number;

/// Selectors that are left of several constraints together; each is tried on each candidate.
pub(super) const SELECTORS_MAX: usize = 512;

/// Bytes of selectors made of several constraints: more would not fit a message beside the
/// rest of a service.
const SELECTORS_BYTES_MAX: usize = 8 * 1024;

/// A name that no child can have: what is left of two lists without a common name.
const NOBODY: &str = "";

/// Constraints that combine to more than [`SELECTORS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// Where the constraints allow a service.
pub(super) fn placement(service: &Microservice) -> Placement {
    let mut placement = Placement::default();
    for constraint in &service.constraints {
        if let Err(kind) = apply(&mut placement, constraint) {
            placement.unsupported.push(kind);
        }
    }
    for connectivity in &service.connectivity {
        connect(&mut placement, connectivity);
    }
    placement
}

/// Applies a constraint, or says which cannot be judged.
fn apply(placement: &mut Placement, constraint: &Constraint) -> Result<(), String> {
    let all = |text: &str| names(text).map(str::to_owned).collect();
    let too_many = |TooMany| "too many patterns".to_owned();
    let rigidness = constraint.rigidness.as_ref();
    let threshold = constraint.threshold.as_ref().map(amount).unwrap_or_default();
    match constraint.kind.as_str() {
        "direct" => {
            narrow(&mut placement.clusters, all(&constraint.cluster)).map_err(too_many)?;
            narrow(&mut placement.nodes, all(&constraint.node)).map_err(too_many)?;
        }
        "clusters" => {
            narrow(&mut placement.clusters, constraint.allowed.clone()).map_err(too_many)?;
        }
        "addons" => add_new(&mut placement.addons, constraint.needs.clone()),
        "geo" => {
            let place = place::parse(&constraint.location);
            let (geo, _) = place.ok_or_else(|| format!("geo around {:?}", constraint.location))?;
            let latency = None;
            placement.proximity.push(bound(
                Anchor::Place(geo),
                latency,
                Some(threshold),
                rigidness,
            ));
        }
        "latency" => {
            let area = match constraint.area.is_empty() {
                true => &constraint.location,
                false => &constraint.area,
            };
            let geo = place::area(area).ok_or_else(|| format!("latency to {area:?}"))?;
            placement.proximity.push(bound(Anchor::Place(geo), Some(threshold), None, rigidness));
        }
        kind => return Err(kind.to_owned()),
    }
    Ok(())
}

fn connect(placement: &mut Placement, connectivity: &Connectivity) {
    for constraint in &connectivity.con_constraints {
        let to = Anchor::Service(connectivity.target_microservice_id.clone());
        let threshold = Some(amount(&constraint.threshold));
        let (latency, distance) = match constraint.kind.as_str() {
            "latency" => (threshold, None),
            "geo" => (None, threshold),
            kind => {
                placement.unsupported.push(format!("connectivity of type {kind:?}"));
                continue;
            }
        };
        placement.proximity.push(bound(to, latency, distance, Some(&constraint.rigidness)));
    }
}

/// Without a rigidness the bound holds as it stands.
fn bound(
    to: Anchor,
    latency_us_max: Option<u32>,
    distance_m_max: Option<u32>,
    rigidness: Option<&Number>,
) -> Proximity {
    let permille = rigidness.map_or(1000, amount);
    let rigidness_permille = u16::try_from(permille).unwrap_or(1000);
    Proximity { to, latency_us_max, distance_m_max, rigidness_permille }
}

/// Thousandths of a number: milliseconds in microseconds, kilometres in metres.
fn amount(number: &Number) -> u32 {
    let thousandths = (number.as_f64().unwrap_or_default() * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, reason = "held at the bounds of the type")]
    let thousandths = thousandths as u32;
    thousandths
}

/// Names joined by `;`.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|name| !name.is_empty())
}

/// Adds what is not there yet.
pub(super) fn add_new(list: &mut Vec<String>, more: Vec<String>) {
    for word in more {
        if !list.contains(&word) {
            list.push(word);
        }
    }
}

/// Leaves what both lists allow. An empty list allows everything.
pub(super) fn narrow(list: &mut Vec<String>, by: Vec<String>) -> Result<(), TooMany> {
    if by.is_empty() {
        return Ok(());
    }
    if list.is_empty() {
        *list = by;
        return Ok(());
    }
    let mut both = Vec::new();
    let mut bytes = 0;
    for mine in list.iter() {
        for theirs in &by {
            let Some(selector) = intersection(mine, theirs) else { continue };
            if both.contains(&selector) {
                continue;
            }
            bytes += selector.len();
            let is_readable = selector.len() <= SELECTOR_BYTES_MAX
                && (selector.is_empty() || selector.parse::<Selector>().is_ok());
            if both.len() >= SELECTORS_MAX || bytes > SELECTORS_BYTES_MAX || !is_readable {
                return Err(TooMany);
            }
            both.push(selector);
        }
    }
    if both.is_empty() {
        both.push(NOBODY.to_owned());
    }
    *list = both;
    Ok(())
}

/// A selector of what both choose, if that can be anything.
fn intersection(a: &str, b: &str) -> Option<String> {
    if a == b {
        return Some(a.to_owned());
    }
    if a == NOBODY || b == NOBODY {
        return None;
    }
    let (mine, theirs) = (a.parse::<Selector>().ok()?, b.parse::<Selector>().ok()?);
    if let (Some(mine), Some(theirs)) = (mine.pattern(), theirs.pattern()) {
        for (exact, other) in [(mine, theirs), (theirs, mine)] {
            if let Some(name) = exact.exact() {
                return other.matches(name).then(|| name.to_owned());
            }
        }
    }
    Some(format!("{a}&{b}"))
}
