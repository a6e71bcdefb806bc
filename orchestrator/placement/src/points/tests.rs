//! Against a search of the whole plane, in small steps.

use super::*;
use proptest::prelude::*;

fn point(x_us: i32, y_us: i32) -> Point {
    Point { x_us, y_us, height_us: 0 }
}

fn sum_of_distances(points: &[Point], at: (f64, f64)) -> f64 {
    let away = |p: &Point| length(f64::from(p.x_us) - at.0, f64::from(p.y_us) - at.1);
    points.iter().map(away).sum()
}

/// The least value on a grid over the plane, finer around the best place found.
fn least(value: impl Fn((f64, f64)) -> f64, half_side: f64) -> f64 {
    let (mut middle, mut half) = ((0.0, 0.0), half_side);
    let mut best = value(middle);
    for _ in 0..6 {
        let mut next = middle;
        for east in -20..=20 {
            for north in -20..=20 {
                let step = half / 20.0;
                let at = (middle.0 + f64::from(east) * step, middle.1 + f64::from(north) * step);
                if value(at) < best {
                    (best, next) = (value(at), at);
                }
            }
        }
        (middle, half) = (next, half / 8.0);
    }
    best
}

#[test]
fn middles_of_simple_figures() {
    let table: &[(&[Point], Option<Point>)] = &[
        (&[], None),
        (&[point(5, 6)], Some(point(5, 6))),
        (&[point(1000, 1000); 3], Some(point(1000, 1000))),
        (
            &[point(0, 0), point(100_000, 0), point(0, 100_000), point(100_000, 100_000)],
            Some(point(50_000, 50_000)),
        ),
        // Two of three in one place hold the middle there.
        (&[point(0, 0), point(0, 0), point(90_000, 0)], Some(point(0, 0))),
    ];
    for (points, expected) in table {
        match (geometric_median(points), expected) {
            (Some(found), Some(expected)) => {
                let off = found.distance_us(*expected);
                assert!(off <= 5, "{points:?}: {found:?}");
            }
            (found, expected) => assert_eq!(found, *expected),
        }
    }
    let high = |height_us| Point { height_us, ..point(0, 0) };
    assert_eq!(geometric_median(&[high(9), high(1), high(5)]).unwrap().height_us, 5);
}

#[test]
fn a_user_is_found_from_three_nodes() {
    let user = (12_000.0, -7_000.0);
    let nodes = [point(0, 0), point(40_000, 3_000), point(5_000, -30_000)];
    let references = nodes.map(|node| {
        let away = length(user.0 - f64::from(node.x_us), user.1 - f64::from(node.y_us));
        let node = Point { height_us: 2_000, ..node };
        (node, u32::try_from(whole(away)).unwrap() + 2_000)
    });
    let found = multilaterate(&references).unwrap();
    assert!(found.distance_us(point(12_000, -7_000)) <= 50, "{found:?}");
    assert_eq!(multilaterate(&references[..2]), None);
}

#[test]
fn senseless_numbers_lead_nowhere_wild() {
    let edge = Point { x_us: i32::MAX, y_us: i32::MIN, height_us: u32::MAX };
    assert!(multilaterate(&[(edge, 0), (edge, u32::MAX), (point(0, 0), u32::MAX)]).is_some());
    assert!(geometric_median(&[edge, point(i32::MIN, i32::MAX)]).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 48, ..ProptestConfig::default()
    })]

    #[test]
    fn no_middle_is_better(
        points in prop::collection::vec((-1000..1000i32, -1000..1000i32), 1..8),
    ) {
        let points: Vec<Point> = points.into_iter().map(|(x, y)| point(x * 50, y * 50)).collect();
        let found = geometric_median(&points).unwrap();
        let mine = sum_of_distances(&points, (f64::from(found.x_us), f64::from(found.y_us)));
        let best = least(|at| sum_of_distances(&points, at), 50_000.0);
        // Near a point that nearly is the middle the steps are short: two thousandths are
        // little enough.
        prop_assert!(mine <= best * 1.002 + 20.0, "{} against {}", mine, best);
    }

    #[test]
    fn no_place_explains_the_measurements_much_better(
        nodes in prop::collection::vec((-100..100i32, -100..100i32, 1..300u32), 3..7),
    ) {
        let references: Vec<(Point, u32)> =
            nodes.into_iter().map(|(x, y, us)| (point(x * 500, y * 500), us * 500)).collect();
        let found = multilaterate(&references).unwrap();
        let mine = residual(&references, (f64::from(found.x_us), f64::from(found.y_us)));
        let best = least(|at| residual(&references, at), 200_000.0);
        let root = |sum: f64| sum.sqrt();
        prop_assert!(root(mine) <= root(best) * 1.05 + 200.0, "{} against {}", root(mine), root(best));
    }
}
