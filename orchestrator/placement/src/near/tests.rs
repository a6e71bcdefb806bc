//! Distances against textbook formulas, bounds against tables.

use super::*;
use proptest::prelude::*;

/// By the standard library's functions, which may differ from machine to machine.
fn haversine_m(a: (i32, i32), b: (i32, i32)) -> f64 {
    let radians = |udeg: i32| (f64::from(udeg) / 1e6).to_radians();
    let (lat_a, lat_b) = (radians(a.0), radians(b.0));
    let half = |x: f64| (x / 2.0).sin().powi(2);
    let h = half(lat_b - lat_a) + lat_a.cos() * lat_b.cos() * half(radians(b.1) - radians(a.1));
    2.0 * RADIUS_M * h.sqrt().min(1.0).asin()
}

#[test]
fn known_distances() {
    let table = [
        // Munich to Berlin, London to Paris, a pole to the other, across the date line.
        ((48_137_154, 11_576_124), (52_520_008, 13_404_954), 504_000, 1_000),
        ((51_507_351, -127_758), (48_856_614, 2_352_222), 343_500, 1_000),
        ((90_000_000, 0), (-90_000_000, 77), 20_015_114, 2),
        ((0, 179_999_000), (0, -179_999_000), 222, 1),
        ((1, 1), (1, 1), 0, 0),
    ];
    for (a, b, expected, off) in table {
        let distance = Place::new(a.0, a.1).distance_m(Place::new(b.0, b.1));
        assert!(distance.abs_diff(expected) <= off, "{a:?} {b:?}: {distance}");
    }
}

#[test]
fn ways_in_the_space_of_latencies_have_both_heights() {
    let a = Point { x_us: 0, y_us: 0, height_us: 5 };
    let b = Point { x_us: 3000, y_us: -4000, height_us: 7 };
    assert_eq!(a.distance_us(b), 5012);
    let far = |x| Point { x_us: x, y_us: x, height_us: u32::MAX };
    assert!(far(i32::MAX).distance_us(far(i32::MIN)) > u64::from(u32::MAX));
}

#[test]
fn bounds_hold_with_their_tolerance() {
    let at = |x_us| Position {
        point: Some(Point { x_us, y_us: 0, height_us: 0 }),
        place: Some(Place::new(0, x_us)),
        ..Position::default()
    };
    let here = at(0);
    // Limit, rigidness, distance, expected thousandths.
    let table = [
        (1000, 1000, 1000, Some(1000)),
        (1000, 1000, 1001, None),
        (1000, 0, 1200, Some(1000)),
        (1000, 0, 1201, None),
        (1000, 500, 1100, Some(1000)),
        (1000, 500, 1101, None),
        (0, 1000, 0, Some(0)),
        (0, 1000, 1, None),
    ];
    for (limit, rigidness, away, expected) in table {
        let bound = Bound::new(Some(limit), None, rigidness);
        let strain = bound.strain(&here, &at(away), Sense::All);
        assert_eq!(strain.ok(), expected, "{limit} {rigidness} {away}");
    }
    // A millionth of a degree at the equator is eleven centimetres.
    let near = Bound::new(None, Some(100), 1000);
    assert_eq!(near.strain(&here, &at(899), Sense::All), Ok(1000));
    let excess = Excess::Distance { m: 101, m_max: 100 };
    assert_eq!(near.strain(&here, &at(910), Sense::All), Err(excess));
}

#[test]
fn what_extends_is_judged_as_a_whole_or_in_part() {
    let bound = Bound::new(Some(1000), None, 1000);
    let point = |x_us| Some(Point { x_us, y_us: 0, height_us: 0 });
    let here = Position { point: point(0), reach_us: 100, ..Position::default() };
    let there = Position { point: point(1050), reach_us: 60, ..Position::default() };
    assert_eq!(bound.strain(&here, &there, Sense::Some), Ok(890));
    let excess = Excess::Latency { us: 1210, us_max: 1000 };
    assert_eq!(bound.strain(&here, &there, Sense::All), Err(excess));
    let nowhere = Position::default();
    assert_eq!(bound.strain(&here, &nowhere, Sense::Some), Ok(0));
    assert_eq!(bound.strain(&here, &nowhere, Sense::All), Err(Excess::LatencyUnknown));
}

#[test]
fn light_takes_its_time() {
    let bound = Bound::new(Some(10_000), None, 1000);
    let here = Position { place: Some(Place::new(0, 0)), ..Position::default() };
    assert_eq!(bound.light_strain(&here, Place::new(0, 0), Sense::All), Ok(0));
    // Nine degrees of the equator are 1000.75 km, there and back 10.007 ms.
    let excess = Excess::Latency { us: 10_007, us_max: 10_000 };
    assert_eq!(bound.light_strain(&here, Place::new(0, 9_000_000), Sense::All), Err(excess));
    let nowhere = Position::default();
    let unknown = bound.light_strain(&nowhere, Place::new(0, 0), Sense::All);
    assert_eq!(unknown, Err(Excess::LatencyUnknown));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn great_circles_are_as_in_the_textbook(
        a in (-90_000_000..=90_000_000i32, -180_000_000..=180_000_000i32),
        b in (-90_000_000..=90_000_000i32, -180_000_000..=180_000_000i32),
        near in any::<bool>(),
    ) {
        // Half of them within a kilometre or two.
        let b = if near { (a.0 / 10 * 9 + b.0 % 10_000, a.1) } else { b };
        let (x, y) = (Place::new(a.0, a.1), Place::new(b.0, b.1));
        let expected = haversine_m(a, b);
        prop_assert!((f64::from(x.distance_m(y)) - expected).abs() <= 1.0, "{}", expected);
        prop_assert_eq!(x.distance_m(y), y.distance_m(x));
    }

    #[test]
    fn a_part_is_never_farther_than_the_whole(
        x_us in any::<i32>(), reach_us in 0..10_000u32, limit in any::<u32>(),
    ) {
        let bound = Bound::new(Some(limit), None, 1000);
        let point = Some(Point { x_us, y_us: 0, height_us: 3 });
        let a = Position { point, reach_us, ..Position::default() };
        let b = Position { point: Some(Point::default()), ..Position::default() };
        if let Ok(all) = bound.strain(&a, &b, Sense::All) {
            prop_assert!(bound.strain(&a, &b, Sense::Some).is_ok_and(|some| some <= all));
        }
    }
}
