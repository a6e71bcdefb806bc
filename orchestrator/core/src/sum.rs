//! What a tier can do, as the sum of its children. Its size is bounded whatever their number.

use crate::child::Child;
use crate::offer::{on_globe, position};
use crate::tier::Tier;
use marram_placement::near::Point;
use marram_placement::points::geometric_median;
use marram_protocol::place;
use marram_protocol::v1::{Coordinate, Geo, SUMMARY_LIST_MAX, Summary};
use std::collections::BTreeSet;

/// Children whose coordinates decide where the middle is; of more, every n-th. How far the
/// farthest is comes from all.
const MIDDLE_MAX: usize = 256;

impl Tier {
    /// What all connected children can do together.
    pub fn own_summary(&self) -> Summary {
        let mut sum = Summary { cordoned: self.cordoned, ..Summary::default() };
        let mut lists: [Words<'_>; 5] = Default::default();
        for child in self.children.values() {
            let Some(summary) = child.summary() else { continue };
            sum.capacity = sum.capacity.plus(summary.capacity);
            sum.reserved = sum.reserved.plus(child.reserved());
            sum.cut |= summary.cut;
            if child.is_cordoned() {
                continue;
            }
            let (_, slot) = child.free();
            sum.nodes = sum.nodes.saturating_add(summary.nodes);
            sum.largest_free = sum.largest_free.max(slot);
            let told = [
                &summary.architectures,
                &summary.virtualizations,
                &summary.labels,
                &summary.addons,
                &summary.gpu_models,
            ];
            for (list, words) in lists.iter_mut().zip(told) {
                list.add(words);
            }
        }
        sum.cut |= lists.iter().any(|list| list.cut);
        let [architectures, virtualizations, labels, addons, gpu_models] = lists.map(Words::list);
        let (coordinate, reach_us) = self.middle();
        Summary {
            architectures,
            virtualizations,
            labels,
            addons,
            gpu_models,
            location: self.extent(),
            coordinate,
            reach_us,
            echoes: self.peers.echoes(),
            ..sum
        }
    }

    fn located(&self) -> impl Iterator<Item = (&Child, &Summary)> {
        self.children.values().filter_map(|child| Some((child, child.summary()?)))
    }

    /// The tier's place with a radius in which all its children are; without a place of its
    /// own, around the first child that has one.
    fn extent(&self) -> String {
        let own = place::parse(&self.identity.location);
        let first = || self.located().find_map(|(_, summary)| place::parse(&summary.location));
        let Some((geo, own_radius_m)) = own.or_else(first) else {
            return self.identity.location.clone();
        };
        let middle = on_globe(geo);
        let reaches = self.located().filter_map(|(_, summary)| {
            let there = position(summary);
            Some(there.place?.distance_m(middle).saturating_add(there.radius_m))
        });
        let radius_m = reaches.fold(own_radius_m, u32::max);
        match own.is_some() && radius_m == own_radius_m {
            true => self.identity.location.clone(),
            false => written(geo, radius_m),
        }
    }

    /// The middle of the children in the space of latencies, and how far the farthest is from
    /// it. No way from a child is shorter than the middle's less that reach: its height is the
    /// least of all.
    fn middle(&self) -> (Option<Coordinate>, u32) {
        let all = self.located().filter_map(|(_, s)| Some((position(s), s.coordinate?)));
        let all: Vec<_> = all.filter_map(|(at, c)| Some((at.point?, at.reach_us, c))).collect();
        let step = all.len().div_ceil(MIDDLE_MAX).max(1);
        let some: Vec<Point> = all.iter().step_by(step).map(|(point, ..)| *point).collect();
        let Some(middle) = geometric_median(&some) else { return (None, 0) };
        let reach = all.iter().map(|(p, reach, _)| p.apart_us(middle) + u64::from(*reach)).max();
        let errors = all.iter().map(|(.., c)| u64::from(c.error_permille)).sum::<u64>();
        let count = u64::try_from(all.len()).unwrap_or(u64::MAX).max(1);
        let coordinate = Coordinate {
            x_us: middle.x_us,
            y_us: middle.y_us,
            height_us: all.iter().map(|(point, ..)| point.height_us).min().unwrap_or_default(),
            error_permille: u16::try_from(errors / count).unwrap_or(u16::MAX),
        };
        (Some(coordinate), u32::try_from(reach.unwrap_or_default()).unwrap_or(u32::MAX))
    }
}

/// Words of all children, each once.
#[derive(Debug, Default)]
struct Words<'a> {
    words: BTreeSet<&'a str>,
    cut: bool,
}

impl<'a> Words<'a> {
    fn add(&mut self, words: &'a [String]) {
        for word in words {
            if self.words.len() >= SUMMARY_LIST_MAX && !self.words.contains(word.as_str()) {
                self.cut = true;
                continue;
            }
            self.words.insert(word);
        }
    }

    fn list(self) -> Vec<String> {
        self.words.into_iter().map(str::to_owned).collect()
    }
}

/// As [`place::parse`] reads it.
fn written(Geo { latitude_udeg, longitude_udeg }: Geo, radius_m: u32) -> String {
    let degrees = |udeg: i32| {
        let (sign, udeg) = (if udeg < 0 { "-" } else { "" }, udeg.unsigned_abs());
        format!("{sign}{}.{:06}", udeg / 1_000_000, udeg % 1_000_000)
    };
    format!("{},{},{radius_m}", degrees(latitude_udeg), degrees(longitude_udeg))
}

#[cfg(test)]
mod tests;
