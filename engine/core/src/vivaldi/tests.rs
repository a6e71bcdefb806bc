//! Spaces that nodes have to find their places in, and samples that no net could give.

use super::*;
use proptest::prelude::*;

/// A small generator, so that a run depends on its seed alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = scatter(self.0);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Round trips of nodes at points and heights of a plane, in microseconds.
fn plane(points: &[(i32, i32, u32)]) -> Vec<Vec<u32>> {
    let at = |&(x_us, y_us, height_us): &(i32, i32, u32)| Coordinate {
        x_us,
        y_us,
        height_us,
        error_permille: 0,
    };
    let row = |a| points.iter().map(move |b| whole(round_trip_us(at(a), at(b))).unsigned_abs());
    points.iter().map(|a| row(a).collect()).collect()
}

/// Lets each node measure six neighbours in turn, as peers are handed out.
fn run(trips: &[Vec<u32>], rounds: usize, seed: u64) -> Vec<Vivaldi> {
    let mut dice = Dice(seed);
    let count = trips.len();
    let mut nodes: Vec<Vivaldi> =
        (0..count).map(|n| Vivaldi::new(seed ^ u64::try_from(n).unwrap())).collect();
    let neighbours: Vec<Vec<usize>> = (0..count)
        .map(|n| (0..6).map(|_| (n + 1 + dice.below(count - 1)) % count).collect())
        .collect();
    for _ in 0..rounds {
        for node in 0..count {
            let peer = neighbours[node][dice.below(6)];
            // Each sample is off by up to a tenth, as real ones are.
            let trip = trips[node][peer];
            let noise = u32::try_from(dice.below(usize::try_from(trip / 10).unwrap() + 1)).unwrap();
            let seen = nodes[peer].coordinate();
            nodes[node].learn(seen, trip + noise).unwrap();
        }
    }
    nodes
}

/// The middle one of all pairs' relative errors.
fn median_error(trips: &[Vec<u32>], nodes: &[Vivaldi]) -> f64 {
    let mut errors = Vec::new();
    for (a, row) in trips.iter().enumerate() {
        for (b, trip) in row.iter().enumerate().filter(|(b, _)| *b != a) {
            let said = round_trip_us(nodes[a].coordinate(), nodes[b].coordinate());
            errors.push((said - f64::from(*trip)).abs() / f64::from(*trip));
        }
    }
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

#[test]
fn two_sites_find_their_distance() {
    // Ten nodes in each of two sites 40 ms apart, each node 0.5 ms from its net.
    let points: Vec<_> = (0..20).map(|n| (if n < 10 { 0 } else { 40_000 }, n * 10, 500)).collect();
    let trips = plane(&points);
    let nodes = run(&trips, 400, 7);
    let error = median_error(&trips, &nodes);
    assert!(error < 0.25, "off by {error}");
    let across = round_trip_us(nodes[0].coordinate(), nodes[19].coordinate());
    assert!((30_000.0..55_000.0).contains(&across), "{across} us");
}

#[test]
fn a_star_has_no_plane_and_is_found_by_heights() {
    // Every way leads through one middle: only heights can say that.
    let points: Vec<_> = (1..=15u32).map(|n| (0, 0, n * 2_000)).collect();
    let trips = plane(&points);
    let error = median_error(&trips, &run(&trips, 600, 3));
    assert!(error < 0.2, "off by {error}");
}

#[test]
fn a_run_is_the_same_wherever_it_runs() {
    let points: Vec<_> = (0..8).map(|n| (n * 5_000, n * n * 900, 300)).collect();
    let last = run(&plane(&points), 50, 11).pop().unwrap().coordinate();
    assert_eq!(run(&plane(&points), 50, 11).pop().unwrap().coordinate(), last);
    // The figures themselves, so that another machine or compiler that rounds otherwise shows.
    let Coordinate { x_us, y_us, height_us, error_permille } = last;
    assert_eq!((x_us, y_us, height_us, error_permille), RUN_ENDS_AT);
}

const RUN_ENDS_AT: (i32, i32, u32, u16) = (-731, -2_690, 30_454, 119);

#[test]
fn a_place_is_told_once_it_is_known_and_again_when_it_changes() {
    let mut node = Vivaldi::new(1);
    let peer = |x_us| Coordinate { x_us, y_us: 0, height_us: 100, error_permille: 50 };
    let mut told = Vec::new();
    for sample in 0..200 {
        node.learn(peer(if sample % 2 == 0 { 20_000 } else { -20_000 }), 20_000).unwrap();
        told.extend(node.news().map(|_| sample));
    }
    assert!(told.first().is_some_and(|first| *first >= 15), "{told:?}");
    assert!(told.len() < 12 && *told.last().unwrap() < 100, "it settles: {told:?}");
    for _ in 0..100 {
        node.learn(peer(20_000), 60_000).unwrap();
    }
    assert!(node.news().is_some(), "it is elsewhere now");
    assert_eq!(node.news(), None);
}

#[test]
fn what_no_net_gives_is_refused_and_changes_nothing() {
    let mut node = Vivaldi::new(1);
    let here = Coordinate { x_us: 0, y_us: 0, height_us: 0, error_permille: 0 };
    let before = node.clone();
    assert_eq!(node.learn(here, 0), Err(SampleError::RoundTrip(0)));
    let long = ROUND_TRIP_US_MAX + 1;
    assert_eq!(node.learn(here, long), Err(SampleError::RoundTrip(long)));
    for far in [
        Coordinate { x_us: i32::MIN, ..here },
        Coordinate { y_us: i32::MAX, ..here },
        Coordinate { height_us: u32::MAX, ..here },
    ] {
        assert_eq!(node.learn(far, 100), Err(SampleError::Place));
    }
    let unsure = Coordinate { error_permille: 1501, ..here };
    assert_eq!(node.learn(unsure, 100), Err(SampleError::Error(1501)));
    assert_eq!(node, before);
}

fn any_coordinate() -> impl Strategy<Value = Coordinate> {
    (any::<i32>(), any::<i32>(), any::<u32>(), 0..=1600u16).prop_map(|(x, y, h, error)| {
        Coordinate { x_us: x, y_us: y, height_us: h, error_permille: error }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the points, most pairs are told apart well.
    #[test]
    fn any_plane_is_found(
        points in prop::collection::vec(
            (-50_000..50_000i32, -50_000..50_000i32, 200..3_000u32), 12..30),
        seed in any::<u64>(),
    ) {
        let trips = plane(&points);
        let error = median_error(&trips, &run(&trips, 400, seed));
        prop_assert!(error < 0.35, "off by {error}");
    }

    /// Lies do not lead out of bounds, and one sample moves a node by a quarter of the gap
    /// at most.
    #[test]
    fn no_sample_leads_out_of_bounds(
        samples in prop::collection::vec((any_coordinate(), any::<u32>()), 1..200),
        seed in any::<u64>(),
    ) {
        let mut node = Vivaldi::new(seed);
        for (peer, trip) in samples {
            let before = node.coordinate();
            let gap = (round_trip_us(before, peer) - f64::from(trip)).abs();
            let used = node.learn(peer, trip).is_ok();
            let after = node.coordinate();
            let step = moved(before, after);
            prop_assert!(used || before == after);
            // Heights below the least count as the least, and places are rounded.
            prop_assert!(step <= (gap + 25.0) * CC * 1.42 + 3.0, "{step} of {gap}");
            prop_assert!(after.x_us.abs() <= PLACE_US_MAX && after.y_us.abs() <= PLACE_US_MAX);
            prop_assert!(after.height_us >= 10 && after.error_permille <= 1500);
        }
    }
}
