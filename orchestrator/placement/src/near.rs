//! How near things are: on the globe and in the space of latencies.
//!
//! Invariants: a distance is the same both ways; what is not known is never taken for near
//! where certainty is asked for.

/// Mean radius of the Earth in metres (IUGG).
const RADIUS_M: f64 = 6_371_008.8;

/// Millionths of a degree in a full turn.
const TURN_UDEG: i64 = 360_000_000;

/// A rigidness of 0 leaves so much beyond a limit, in thousandths: LDP's tolerance.
pub const TOLERANCE_PERMILLE: u64 = 200;

/// What light in a fibre takes for a kilometre, there and back, in microseconds.
pub const LIGHT_US_PER_KM: u32 = 10;

/// A place on the globe: a vector of length 1 from its middle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    x: f64,
    y: f64,
    z: f64,
}

impl Place {
    /// From millionths of a degree north and east.
    pub fn new(latitude_udeg: i32, longitude_udeg: i32) -> Self {
        let (up, out) = sin_cos(latitude_udeg);
        let (y, x) = sin_cos(longitude_udeg);
        Self { x: out * x, y: out * y, z: up }
    }

    /// Along the great circle, in metres.
    pub fn distance_m(self, other: Self) -> u32 {
        let (x, y, z) = (self.x - other.x, self.y - other.y, self.z - other.z);
        let half_chord = (x * x + y * y + z * z).sqrt() / 2.0;
        whole(2.0 * RADIUS_M * asin(half_chord.min(1.0)))
    }
}

/// Sine and cosine. Folding is exact, since it is done in integers.
fn sin_cos(udeg: i32) -> (f64, f64) {
    let turned = i64::from(udeg).rem_euclid(TURN_UDEG);
    let (quarter, rest) = (turned / (TURN_UDEG / 4), turned % (TURN_UDEG / 4));
    let (sin, cos) = match rest > TURN_UDEG / 8 {
        true => {
            let (sin, cos) = small_sin_cos(radians(TURN_UDEG / 4 - rest));
            (cos, sin)
        }
        false => small_sin_cos(radians(rest)),
    };
    match quarter {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

fn radians(udeg: i64) -> f64 {
    // At most a quarter of a turn: well within what converts exactly.
    f64::from(i32::try_from(udeg).unwrap_or(i32::MAX)) * (std::f64::consts::PI / 180e6)
}

/// Of an angle up to an eighth of a turn, by its series: the first term left out is below
/// 1e-13.
fn small_sin_cos(x: f64) -> (f64, f64) {
    let square = x * x;
    let (mut sin, mut cos) = (0.0, 0.0);
    let (mut odd, mut even) = (x, 1.0);
    for n in [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0] {
        cos += even;
        sin += odd;
        even *= -square / (n * (n + 1.0));
        odd *= -square / ((n + 1.0) * (n + 2.0));
    }
    (sin, cos)
}

/// Of 0 to 1. Beyond a half the series would be slow, so the angle is halved.
fn asin(x: f64) -> f64 {
    if x > 0.5 {
        return std::f64::consts::FRAC_PI_2 - 2.0 * asin_series(((1.0 - x) / 2.0).sqrt());
    }
    asin_series(x)
}

fn asin_series(x: f64) -> f64 {
    let square = x * x;
    // Up to 600 km the rest is below a micrometre, and most ways are no longer.
    if x < 0.05 {
        return x * (1.0 + square * (1.0 / 6.0 + square * (3.0 / 40.0 + square * (15.0 / 336.0))));
    }
    let (mut sum, mut term, mut n) = (x, x, 1.0);
    // Half a centimetre on the globe.
    while term > 1e-9 {
        term *= square * n / (n + 1.0);
        sum += term / (n + 2.0);
        n += 2.0;
    }
    sum
}

/// The nearest whole number that the type holds.
fn whole(number: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "held at the bounds of the type")]
    let whole = number.round() as u32;
    whole
}

/// A place in the space of latencies: two dimensions, and a height that each way adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Point {
    /// Microseconds.
    pub x_us: i32,
    /// Microseconds.
    pub y_us: i32,
    /// Microseconds.
    pub height_us: u32,
}

impl Point {
    /// The round trip to be expected, in microseconds.
    pub fn distance_us(self, other: Self) -> u64 {
        self.apart_us(other) + u64::from(self.height_us) + u64::from(other.height_us)
    }

    /// Without the heights.
    pub fn apart_us(self, other: Self) -> u64 {
        let square = |a: i32, b: i32| {
            let apart = u64::from(a.abs_diff(b));
            apart.saturating_mul(apart)
        };
        let squares = square(self.x_us, other.x_us).saturating_add(square(self.y_us, other.y_us));
        squares.isqrt()
    }
}

/// Where something is, as far as that is known, and how far it extends from there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Position {
    /// On the globe.
    pub place: Option<Place>,
    /// Its farthest part is so far from there.
    pub radius_m: u32,
    /// In the space of latencies.
    pub point: Option<Point>,
    /// Its farthest part is so far from there.
    pub reach_us: u32,
}

/// What a bound is to say of two things that extend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// It holds for all their parts. What is not known does not hold.
    All,
    /// It may hold for some of their parts. What is not known may.
    Some,
}

/// Longest way that is allowed, its tolerance included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    latency_us_max: Option<u64>,
    distance_m_max: Option<u64>,
}

/// Why a bound does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// One of the two is nowhere in the space of latencies.
    #[error("the latency is not known")]
    LatencyUnknown,
    /// One of the two is nowhere on the globe.
    #[error("the distance is not known")]
    DistanceUnknown,
    /// In microseconds.
    #[error("{us} us away, {us_max} us are allowed")]
    Latency {
        /// Expected.
        us: u64,
        /// Allowed, the tolerance included.
        us_max: u64,
    },
    /// In metres.
    #[error("{m} m away, {m_max} m are allowed")]
    Distance {
        /// Along the great circle.
        m: u64,
        /// Allowed, the tolerance included.
        m_max: u64,
    },
}

impl Bound {
    /// `rigidness_permille` of 1000 holds the limits as they stand, less leaves a tolerance.
    pub fn new(
        latency_us_max: Option<u32>,
        distance_m_max: Option<u32>,
        rigidness_permille: u16,
    ) -> Self {
        let slack = TOLERANCE_PERMILLE * (1000 - u64::from(rigidness_permille.min(1000)));
        let widen = |limit: u32| u64::from(limit) + u64::from(limit) * slack / 1_000_000;
        Self {
            latency_us_max: latency_us_max.map(widen),
            distance_m_max: distance_m_max.map(widen),
        }
    }

    /// Longest latency, its tolerance included.
    pub fn latency_us_max(&self) -> Option<u64> {
        self.latency_us_max
    }

    /// How much of the limits is used up, in thousandths; the larger of both.
    pub fn strain(&self, a: &Position, b: &Position, sense: Sense) -> Result<u32, Excess> {
        let mut strain = 0;
        if let Some(m_max) = self.distance_m_max {
            match (a.place, b.place) {
                (Some(here), Some(there)) => {
                    let m = u64::from(here.distance_m(there));
                    let m = extend(m, u64::from(a.radius_m) + u64::from(b.radius_m), sense);
                    strain = share(m, m_max).ok_or(Excess::Distance { m, m_max })?;
                }
                _ if sense == Sense::All => return Err(Excess::DistanceUnknown),
                _ => {}
            }
        }
        if let Some(us_max) = self.latency_us_max {
            match (a.point, b.point) {
                (Some(here), Some(there)) => {
                    let us = here.distance_us(there);
                    let us = extend(us, u64::from(a.reach_us) + u64::from(b.reach_us), sense);
                    strain = share(us, us_max).ok_or(Excess::Latency { us, us_max })?.max(strain);
                }
                _ if sense == Sense::All => return Err(Excess::LatencyUnknown),
                _ => {}
            }
        }
        Ok(strain)
    }

    /// The same for the latency to something of which only the place is known: at least what
    /// light needs.
    pub fn light_strain(&self, a: &Position, to: Place, sense: Sense) -> Result<u32, Excess> {
        let Some(us_max) = self.latency_us_max else { return Ok(0) };
        let Some(here) = a.place else {
            return if sense == Sense::All { Err(Excess::LatencyUnknown) } else { Ok(0) };
        };
        let m = extend(u64::from(here.distance_m(to)), u64::from(a.radius_m), sense);
        let us = m * u64::from(LIGHT_US_PER_KM) / 1000;
        share(us, us_max).ok_or(Excess::Latency { us, us_max })
    }
}

/// The distance of the farthest parts, or of the nearest ones.
fn extend(distance: u64, extent: u64, sense: Sense) -> u64 {
    match sense {
        Sense::All => distance + extent,
        Sense::Some => distance.saturating_sub(extent),
    }
}

/// Thousandths of a limit, if it holds.
fn share(value: u64, limit: u64) -> Option<u32> {
    let permille = value.saturating_mul(1000) / limit.max(1);
    (value <= limit).then(|| u32::try_from(permille).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
