//! Requests, answers, and what is neither.

use super::*;
use marram_protocol::v1::Peer;
use proptest::prelude::*;

const KEY: EchoKey = EchoKey(7);
const HERE: Coordinate = Coordinate { x_us: -5, y_us: 6, height_us: 70, error_permille: 800 };

fn peers(count: u8) -> Peers {
    let peer = |n| Peer { id: ChildId([n; 12]), address: format!("192.0.2.{n}:7") };
    Peers { key: KEY, peers: (1..=count).map(peer).collect() }
}

#[test]
fn the_tag_is_that_of_the_paper() {
    // Appendix A of the paper on SipHash: key 00 01 … 0f, message 00 01 … 0e.
    let key = EchoKey(u128::from_le_bytes(std::array::from_fn(|n| u8::try_from(n).unwrap())));
    let message: Vec<u8> = (0..15).collect();
    assert_eq!(siphash(key, &message), 0xa129_ca61_49be_45e5);
}

#[test]
fn a_round_trip_is_a_sample_once() {
    let (mut asks, mut answers) = (Prober::new(1), Answerer::default());
    assert_eq!(asks.pause_ms(0), None);
    assert_eq!(asks.ask(0, 99), None, "nobody to ask");
    asks.meet(peers(1));
    let request = asks.ask(1_000, 99).unwrap();
    assert_eq!(request.address, "192.0.2.1:7");
    let answer = answers.answer(0, KEY, &request.bytes, HERE).unwrap();
    assert_eq!(answer.len(), request.bytes.len(), "nothing is amplified");
    assert_eq!(asks.answered(3_000, &request.bytes), None, "a request is no answer");
    asks.answered(3_000, &answer);
    assert_eq!(asks.place.samples(), 1);
    asks.answered(3_001, &answer);
    assert_eq!(asks.place.samples(), 1, "the same answer again");
    // An old answer to a new question.
    asks.ask(4_000, 100).unwrap();
    asks.answered(4_001, &answer);
    assert_eq!(asks.place.samples(), 1);
}

#[test]
fn who_does_not_know_the_key_gets_nothing() {
    let mut asks = Prober::new(1);
    asks.meet(Peers { key: EchoKey(8), ..peers(1) });
    let request = asks.ask(0, 1).unwrap().bytes;
    assert_eq!(Answerer::default().answer(0, KEY, &request, HERE), None);
    let none = EchoKey::default();
    let open = seal(none, REQUEST, 1, HERE);
    assert_eq!(Answerer::default().answer(0, none, &open, HERE), None, "no key yet");
    // And an answer under another key is no sample.
    asks.answered(1, &seal(KEY, ANSWER, 1, HERE));
    assert_eq!(asks.place.samples(), 0);
}

#[test]
fn answers_are_bounded_in_number() {
    let request = seal(KEY, REQUEST, 1, HERE);
    let mut answers = Answerer::default();
    let mut count = |from_ms: u64, to_ms: u64| {
        (from_ms..to_ms).filter(|ms| answers.answer(*ms, KEY, &request, HERE).is_some()).count()
    };
    assert_eq!(count(0, 1_000), 60 + 24);
    assert!((249..=251).contains(&count(1_000, 11_000)));
    assert!(count(100_000, 100_060) >= 60, "after a pause");
}

#[test]
fn an_idle_node_asks_seldom_and_a_new_one_soon() {
    let mut asks = Prober::new(1);
    asks.meet(peers(3));
    assert_eq!((asks.pause_ms(0), asks.pause_ms(1_999)), (Some(1_000), Some(2_999)));
    for sample in 0..u64::from(SAMPLES_NEW) {
        asks.ask(0, sample).unwrap();
        asks.answered(900, &seal(KEY, ANSWER, sample, HERE));
    }
    assert_eq!((asks.pause_ms(0), asks.pause_ms(14_999)), (Some(7_500), Some(22_499)));
    // Both ways with headers, as who asks and as who is asked.
    let wire_bytes = 2 * 2 * (u64::try_from(ECHO_BYTES).unwrap() + 28);
    assert!(wire_bytes * 1000 / PAUSE_MS < 20, "of the 100 bytes/s that a node may take");
}

#[test]
fn the_least_of_the_last_round_trips_counts() {
    let mut asks = Prober::new(1);
    asks.meet(peers(1));
    for (nonce, trip) in [(1, 90_000), (2, 20_000), (3, 80_000), (4, 900_000), (5, 70_000)] {
        asks.ask(0, nonce).unwrap();
        asks.answered(trip, &seal(KEY, ANSWER, nonce, HERE));
    }
    let trips = &asks.trips[&ChildId([1; 12])];
    assert_eq!(trips.iter().copied().collect::<Vec<_>>(), [20_000, 80_000, 900_000, 70_000]);
    asks.meet(Peers { key: KEY, peers: Vec::new() });
    assert!(asks.trips.is_empty(), "nothing is remembered of who is no peer");
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(Answerer::default().answer(0, KEY, &bytes, HERE), None);
        let mut asks = Prober::new(1);
        asks.meet(peers(2));
        asks.ask(0, 1);
        prop_assert_eq!(asks.answered(1, &bytes), None);
        prop_assert_eq!(asks.place.samples(), 0);
    }

    #[test]
    fn a_changed_answer_is_no_sample(at in 0..ECHO_BYTES, bit in 0..8u32) {
        let mut asks = Prober::new(1);
        asks.meet(peers(2));
        asks.ask(0, 1);
        let mut answer = seal(KEY, ANSWER, 1, HERE);
        answer[at] ^= 1 << bit;
        prop_assert_eq!(asks.answered(9, &answer), None);
        prop_assert_eq!(asks.place.samples(), 0);
    }
}
