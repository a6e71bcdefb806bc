//! Where a node is in the space of latencies: Vivaldi, after Dabek, Cox, Kaashoek and Morris,
//! "Vivaldi: a decentralized network coordinate system" (SIGCOMM 2004).
//!
//! ```text
//!   round trip to a peer ─┐         pushed away from the peer if the way is longer than
//!   the peer's coordinate ┴─► node  the coordinates say, drawn nearer if it is shorter
//! ```
//!
//! Two dimensions and a height: the height is what the way from the node to the net costs,
//! which adds up whichever way the peer lies. The distance of two nodes is that of their
//! points and both heights. With `e` for errors and `w = e / (e + e of the peer)`:
//!
//! ```text
//!   error    := |distance - round trip| / round trip · ce·w  +  error · (1 - ce·w)
//!   position := position + cc·w · (round trip - distance) · direction away from the peer
//! ```
//!
//! Why apart: it is arithmetic, and a simulator wants it without sockets.
//!
//! Invariants:
//! - only `+ - * /` and `sqrt` are used, which every machine rounds alike, so a replay is exact;
//! - what a peer says is believed within bounds only, and no sample moves a node by more than
//!   a quarter of what it is off.

use marram_protocol::v1::Coordinate;

/// How fast the estimate of the error follows, and how far a sample moves the node. The
/// values of the paper, and of Oakestra.
const CE: f64 = 0.25;
const CC: f64 = 0.25;

/// The error of a node that knows nothing; no error grows beyond.
const ERROR_MAX: f64 = 1.5;

/// Below this an error would make a node deaf for ever.
const ERROR_MIN: f64 = 0.001;

/// The way to the net costs something; and two nodes never are in one place.
const HEIGHT_MIN_US: f64 = 10.0;

/// A longer round trip says more about a broken host than about the net.
pub const ROUND_TRIP_US_MAX: u32 = 10_000_000;

/// No place is farther from the middle: six of the longest round trips.
const PLACE_US_MAX: i32 = 60_000_000;

/// Samples before a node tells where it is: earlier it is on its way.
const SAMPLES_MIN: u32 = 16;

/// A node that is off by more than the way is long does not know where it is.
const ERROR_TOLD_MAX: f64 = 1.0;

/// Moves are told from this on, or from an eighth of the usual round trip if that is more:
/// placement does not look closer, and nodes tremble for ever.
const DEAD_BAND_US: f64 = 1_000.0;
const DEAD_BAND_PART: f64 = 0.125;

/// Why a sample was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// It took no time at all, or too long.
    #[error("a round trip of {0} us is not believed, 1 to {ROUND_TRIP_US_MAX} are")]
    RoundTrip(u32),
    /// The peer is nowhere near.
    #[error("a peer's coordinate is not believed beyond {PLACE_US_MAX} us")]
    Place,
    /// The peer tells an error that no node has.
    #[error("a peer's error of {0} thousandths is not believed, at most 1500 is")]
    Error(u16),
}

/// A node's own coordinate, as it finds out.
#[derive(Debug, Clone, PartialEq)]
pub struct Vivaldi {
    x: f64,
    y: f64,
    height: f64,
    error: f64,
    samples: u32,
    /// What round trips usually take.
    usual: f64,
    told: Option<Coordinate>,
    /// State of the numbers that give nodes in one place a direction to part in.
    noise: u64,
}

impl Vivaldi {
    /// A node that knows nothing yet. Nodes with different seeds part in different
    /// directions.
    pub fn new(seed: u64) -> Self {
        Self {
            x: 0.0,
            y: 0.0,
            height: HEIGHT_MIN_US,
            error: ERROR_MAX,
            samples: 0,
            usual: 0.0,
            told: None,
            noise: seed,
        }
    }

    /// Learns from a round trip to a peer that says where it is.
    pub fn learn(&mut self, peer: Coordinate, round_trip_us: u32) -> Result<(), SampleError> {
        check(peer, round_trip_us)?;
        let round_trip = f64::from(round_trip_us);
        let peer_height = f64::from(peer.height_us).max(HEIGHT_MIN_US);
        let peer_error = (f64::from(peer.error_permille) / 1000.0).max(ERROR_MIN);
        let (away_x, away_y, apart) = self.away_from(peer);
        let distance = apart + self.height + peer_height;
        let weight = self.error / (self.error + peer_error);
        let off = (distance - round_trip).abs() / round_trip;
        let error = off * CE * weight + self.error * (1.0 - CE * weight);
        self.error = error.clamp(ERROR_MIN, ERROR_MAX);
        let force = CC * weight * (round_trip - distance);
        // The height has its share of the whole way, and the plane has the rest.
        let on_the_plane = apart.max(HEIGHT_MIN_US) / distance;
        let limit = f64::from(PLACE_US_MAX);
        self.x = (self.x + force * on_the_plane * away_x).clamp(-limit, limit);
        self.y = (self.y + force * on_the_plane * away_y).clamp(-limit, limit);
        let heights = (self.height + peer_height) / distance;
        self.height = (self.height + force * heights).clamp(HEIGHT_MIN_US, limit);
        self.usual = match self.samples {
            0 => round_trip,
            _ => self.usual + (round_trip - self.usual) / 16.0,
        };
        self.samples = self.samples.saturating_add(1);
        Ok(())
    }

    /// The direction away from a peer, of length 1, and the distance on the plane. Nodes in
    /// one place part in a direction of chance.
    fn away_from(&mut self, peer: Coordinate) -> (f64, f64, f64) {
        let (x, y) = (self.x - f64::from(peer.x_us), self.y - f64::from(peer.y_us));
        let apart = (x * x + y * y).sqrt();
        if apart > 1.0 {
            return (x / apart, y / apart, apart);
        }
        // Every point of the circle but one is at ((1 - t²) / (1 + t²), 2t / (1 + t²)); here
        // t runs from -1 to 1, which is half of it, and the other half has the signs turned.
        self.noise = scatter(self.noise);
        let t = f64::from(u16::try_from(self.noise & 0xffff).unwrap_or(0)) / 32_767.5 - 1.0;
        let sign = if self.noise >> 63 == 0 { 1.0 } else { -1.0 };
        let below = 1.0 + t * t;
        (sign * (1.0 - t * t) / below, sign * 2.0 * t / below, apart)
    }

    /// Where the node takes itself to be, for peers that ask. Rounded to microseconds.
    pub fn coordinate(&self) -> Coordinate {
        Coordinate {
            x_us: whole(self.x),
            y_us: whole(self.y),
            height_us: whole(self.height).unsigned_abs(),
            error_permille: u16::try_from(whole(self.error * 1000.0)).unwrap_or(u16::MAX),
        }
    }

    /// The coordinate to tell the cluster, if it is other than the one told last by more than
    /// the dead band.
    pub fn news(&mut self) -> Option<Coordinate> {
        if self.samples < SAMPLES_MIN || self.error > ERROR_TOLD_MAX {
            return None;
        }
        let now = self.coordinate();
        let band = DEAD_BAND_US.max(self.usual * DEAD_BAND_PART);
        if self.told.is_some_and(|told| moved(told, now) <= band) {
            return None;
        }
        self.told = Some(now);
        self.told
    }

    /// Samples that were learned from.
    pub fn samples(&self) -> u32 {
        self.samples
    }
}

fn check(peer: Coordinate, round_trip_us: u32) -> Result<(), SampleError> {
    if !(1..=ROUND_TRIP_US_MAX).contains(&round_trip_us) {
        return Err(SampleError::RoundTrip(round_trip_us));
    }
    let limit = PLACE_US_MAX.unsigned_abs();
    if peer.x_us.unsigned_abs() > limit
        || peer.y_us.unsigned_abs() > limit
        || peer.height_us > limit
    {
        return Err(SampleError::Place);
    }
    if f64::from(peer.error_permille) > ERROR_MAX * 1000.0 {
        return Err(SampleError::Error(peer.error_permille));
    }
    Ok(())
}

/// The round trip between two nodes, by their coordinates.
pub fn round_trip_us(a: Coordinate, b: Coordinate) -> f64 {
    let (x, y) = (f64::from(a.x_us) - f64::from(b.x_us), f64::from(a.y_us) - f64::from(b.y_us));
    (x * x + y * y).sqrt() + f64::from(a.height_us) + f64::from(b.height_us)
}

/// How far a node has moved, its height included.
fn moved(from: Coordinate, to: Coordinate) -> f64 {
    let flat = |c: Coordinate| Coordinate { height_us: 0, ..c };
    round_trip_us(flat(from), flat(to)) + f64::from(from.height_us.abs_diff(to.height_us))
}

/// The next of a row of numbers without a pattern (SplitMix64).
fn scatter(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[allow(clippy::cast_possible_truncation, reason = "clamped, and a NaN would become 0")]
fn whole(value: f64) -> i32 {
    let limit = f64::from(PLACE_US_MAX);
    value.clamp(-limit, limit).round() as i32
}

#[cfg(test)]
mod tests;
