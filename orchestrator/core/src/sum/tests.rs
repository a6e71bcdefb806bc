//! Sums of children that differ in everything.

use super::*;
use crate::Input;
use crate::tier::tests::{at, child, hello, root, snapshot};
use marram_protocol::v1::{Resources, Up};

fn come(tier: &mut Tier, number: u32, summary: Summary) {
    tier.handle(at(0), Input::Child(child(number), Up::Hello(hello(number, summary))));
    tier.handle(at(0), Input::Child(child(number), snapshot(0, Vec::new())));
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

fn node(memory_mib: u32) -> Summary {
    let capacity = Resources { memory_mib, ..Resources::default() };
    Summary { nodes: 1, capacity, largest_free: capacity, ..Summary::default() }
}

#[test]
fn lists_are_united_and_cordoned_nodes_take_nothing() {
    let mut tier = root();
    let first = Summary { labels: words(&["b", "a=1"]), addons: words(&["x"]), ..node(100) };
    let second = Summary { labels: words(&["a=2", "b"]), gpu_models: words(&["g"]), ..node(50) };
    come(&mut tier, 1, first);
    come(&mut tier, 2, second);
    come(&mut tier, 3, Summary { cordoned: true, labels: words(&["c"]), ..node(900) });
    let sum = tier.own_summary();
    assert_eq!(sum.labels, ["a=1", "a=2", "b"]);
    assert_eq!((&sum.addons[..], &sum.gpu_models[..]), (&words(&["x"])[..], &words(&["g"])[..]));
    assert_eq!((sum.nodes, sum.capacity.memory_mib, sum.largest_free.memory_mib), (2, 1050, 100));
    assert!(!sum.cut);
}

#[test]
fn long_lists_are_cut_and_say_so() {
    let mut tier = root();
    for number in 0..40 {
        let labels = vec![format!("rack={number:02}"), "site=x".into()];
        come(&mut tier, number, Summary { labels, ..node(1) });
    }
    let sum = tier.own_summary();
    assert_eq!(sum.labels.len(), SUMMARY_LIST_MAX);
    assert!(sum.cut);
    let mut tier = root();
    come(&mut tier, 1, Summary { cut: true, ..node(1) });
    assert!(tier.own_summary().cut);
}

#[test]
fn the_middle_and_the_reach_hold_all_nodes() {
    let mut tier = root();
    let at = |x_us, y_us, height_us| {
        let error_permille = 200;
        Some(Coordinate { x_us, y_us, height_us, error_permille })
    };
    assert_eq!(tier.own_summary().coordinate, None);
    let places = [(0, 0, 700), (10_000, 0, 500), (0, 10_000, 900), (10_000, 10_000, 600)];
    for (number, (x, y, height)) in (0u32..).zip(places) {
        come(&mut tier, number, Summary { coordinate: at(x, y, height), ..node(1) });
    }
    let sum = tier.own_summary();
    assert_eq!(sum.coordinate, at(5_000, 5_000, 500));
    assert!((7_071..=7_072).contains(&sum.reach_us), "{}", sum.reach_us);
}

#[test]
fn the_place_reaches_to_all_nodes() {
    let mut tier = root();
    let located = |location: &str| Summary { location: location.into(), ..node(1) };
    come(&mut tier, 1, located(""));
    assert_eq!(tier.own_summary().location, "");
    come(&mut tier, 2, located("-0.5,10"));
    assert_eq!(tier.own_summary().location, "-0.500000,10.000000,0");
    come(&mut tier, 3, located("-0.5,11,100"));
    // One degree near the equator.
    assert_eq!(tier.own_summary().location, "-0.500000,10.000000,111291");
}
