//! Places on the globe, as texts: `latitude,longitude`, with a radius or without.
//!
//! Why apart: descriptors, configurations and summaries write places the same way.

use crate::v1::Geo;

/// Millionths of a degree in a degree.
const UDEG: f64 = 1e6;

/// Largest radius: half the way around the globe, in metres.
const RADIUS_M_MAX: f64 = 20_100_000.0;

/// Areas that Oakestra's scheduler knows by name, as a point in their middle.
const AREAS: &[(&str, Geo)] = &[
    ("munich", Geo { latitude_udeg: 48_137_200, longitude_udeg: 11_575_500 }),
    ("garching", Geo { latitude_udeg: 48_248_900, longitude_udeg: 11_653_200 }),
    ("germany", Geo { latitude_udeg: 51_163_700, longitude_udeg: 10_447_800 }),
];

/// Reads `latitude,longitude[,radius in metres]`, in degrees north and east. `None` if it is
/// none, or off the globe.
pub fn parse(text: &str) -> Option<(Geo, u32)> {
    let mut numbers = text.split(',');
    let mut next = |limits: (f64, f64)| {
        let number: f64 = numbers.next()?.trim().parse().ok()?;
        (limits.0..=limits.1).contains(&number).then_some(number)
    };
    let latitude = next((-90.0, 90.0))?;
    let longitude = next((-180.0, 180.0))?;
    let radius_m = if text.split(',').count() > 2 { next((0.0, RADIUS_M_MAX))? } else { 0.0 };
    if numbers.next().is_some() {
        return None;
    }
    let geo =
        Geo { latitude_udeg: whole(latitude * UDEG), longitude_udeg: whole(longitude * UDEG) };
    Some((geo, u32::try_from(whole(radius_m)).unwrap_or_default()))
}

/// The middle of an area: one that is known by name, or a place.
pub fn area(text: &str) -> Option<Geo> {
    let name = text.trim();
    let known = AREAS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|(_, geo)| *geo).or_else(|| parse(text).map(|(geo, _)| geo))
}

/// Names that [`area`] knows.
pub fn area_names() -> impl Iterator<Item = &'static str> {
    AREAS.iter().map(|(name, _)| *name)
}

#[expect(clippy::cast_possible_truncation, reason = "rounded, and within bounds by the caller")]
fn whole(number: f64) -> i32 {
    number.round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let geo = |latitude_udeg, longitude_udeg| Geo { latitude_udeg, longitude_udeg };
        let table = [
            ("48.26,11.67", Some((geo(48_260_000, 11_670_000), 0))),
            (" -0.0000005 , 180 , 250.4 ", Some((geo(-1, 180_000_000), 250))),
            ("90,-180,0", Some((geo(90_000_000, -180_000_000), 0))),
            ("90.1,0", None),
            ("0,180.1", None),
            ("0,0,-1", None),
            ("0,0,1e9", None),
            ("0,0,1,1", None),
            ("0,0,", None),
            ("0", None),
            ("", None),
            ("nan,0", None),
            ("north,east", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(area("Garching"), Some(geo(48_248_900, 11_653_200)));
        assert_eq!(area("1,2,3"), Some(geo(1_000_000, 2_000_000)));
        assert_eq!(area("atlantis"), None);
    }
}
