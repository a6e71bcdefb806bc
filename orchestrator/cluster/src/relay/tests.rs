//! Streams step by step, and under any order of messages.

use super::*;
use marram_protocol::id::{InstanceId, ServiceId};
use proptest::prelude::*;

const NODE: ChildId = ChildId([7; 12]);

fn logs() -> StreamRequest {
    let instance = InstanceId { service: ServiceId([1; 12]), number: 0 };
    StreamRequest::Logs { instance, tail_lines: None, follow: true }
}

fn credit(stream: StreamId, bytes: u32) -> Down {
    Down::StreamCredit { stream, bytes }
}

/// A relay with one stream to the node, 5 for the parent, and our number there.
fn opened() -> (Relay, StreamId) {
    let mut relay = Relay::default();
    relay.open((Asker::Parent, StreamId(5)), Source::Child(NODE, logs())).unwrap();
    let [(NODE, Down::StreamOpen { stream, .. })] = relay.take_orders()[..] else {
        panic!("the node is told of the stream");
    };
    (relay, stream)
}

fn outputs(relay: &mut Relay) -> Vec<Up> {
    std::iter::from_fn(|| relay.next_output(Asker::Parent)).collect()
}

fn data(stream: StreamId, bytes: &[u8]) -> Up {
    Up::StreamData { stream, output: Output::Stdout, bytes: bytes.to_vec() }
}

fn fault(up: &Up) -> Option<StreamFault> {
    match up {
        Up::StreamEnd { end: StreamEnd::Fault(fault, _), .. } => Some(*fault),
        _ => None,
    }
}

#[test]
fn numbers_are_translated_both_ways() {
    let (mut relay, ours) = opened();
    let theirs = StreamId(5);
    relay.asker_says(Asker::Parent, credit(theirs, 100));
    relay.child_credit(NODE, ours, 1000);
    assert_eq!(outputs(&mut relay), [Up::StreamCredit { stream: theirs, bytes: 1000 }]);
    relay.asker_says(Asker::Parent, Down::StreamData { stream: theirs, bytes: b"in".to_vec() });
    relay.asker_says(Asker::Parent, Down::StreamResize { stream: theirs, rows: 1, columns: 2 });
    assert_eq!(
        relay.take_orders(),
        [
            (NODE, credit(ours, 100)),
            (NODE, Down::StreamData { stream: ours, bytes: b"in".to_vec() }),
            (NODE, Down::StreamResize { stream: ours, rows: 1, columns: 2 }),
        ]
    );
    relay.child_output(NODE, ours, Output::Stdout, b"out".to_vec());
    relay.child_end(NODE, ours, StreamEnd::Done);
    assert_eq!(
        outputs(&mut relay),
        [data(theirs, b"out"), Up::StreamEnd { stream: theirs, end: StreamEnd::Done }]
    );
    assert!(
        !relay.has_output(Asker::Parent) && relay.streams.is_empty() && relay.by_child.is_empty()
    );
    relay.asker_says(Asker::Parent, Down::StreamData { stream: theirs, bytes: b"late".to_vec() });
    assert!(relay.take_orders().is_empty());
}

#[test]
fn a_node_that_sends_more_than_was_granted_is_cut_off() {
    let (mut relay, ours) = opened();
    relay.child_output(NODE, ours, Output::Stdout, vec![0]);
    assert_eq!(relay.take_orders(), [(NODE, Down::StreamClose { stream: ours })]);
    assert_eq!(
        outputs(&mut relay).iter().map(fault).collect::<Vec<_>>(),
        [Some(StreamFault::Failed)]
    );
    let (mut relay, ours) = opened();
    relay.asker_says(Asker::Parent, credit(StreamId(5), CREDIT_BYTES));
    relay.child_output(NODE, ours, Output::Stdout, vec![0; CHUNK_BYTES_MAX + 1]);
    assert_eq!(
        outputs(&mut relay).iter().map(fault).collect::<Vec<_>>(),
        [Some(StreamFault::Failed)]
    );
}

fn input(relay: &mut Relay, bytes: usize) -> Vec<(ChildId, Down)> {
    relay
        .asker_says(Asker::Parent, Down::StreamData { stream: StreamId(5), bytes: vec![0; bytes] });
    relay.take_orders()
}

#[test]
fn input_goes_on_as_far_as_the_node_has_granted() {
    let (mut relay, ours) = opened();
    // The parent is told once of what came in parts, and may use it from then on.
    relay.child_credit(NODE, ours, 1000);
    relay.child_credit(NODE, ours, 24);
    assert_eq!(outputs(&mut relay), [Up::StreamCredit { stream: StreamId(5), bytes: 1024 }]);
    for bytes in [1, 512, 0, 256, 0] {
        let order = Down::StreamData { stream: ours, bytes: vec![0; bytes] };
        assert_eq!(input(&mut relay, bytes), [(NODE, order)], "{bytes}");
    }
    assert_eq!(input(&mut relay, 1), [(NODE, Down::StreamClose { stream: ours })]);
    let [Up::StreamEnd { end: StreamEnd::Fault(StreamFault::TooMany, why), .. }] =
        &outputs(&mut relay)[..]
    else {
        panic!("the parent is told why");
    };
    assert_eq!(why, "256 bytes of input came, 0 were granted");
    assert!(input(&mut relay, 1).is_empty() && relay.streams.is_empty());
    // A piece that is too long ends it too, whatever was granted.
    let (mut relay, ours) = opened();
    relay.child_credit(NODE, ours, CREDIT_BYTES);
    outputs(&mut relay);
    let orders = input(&mut relay, CHUNK_BYTES_MAX + 1);
    assert_eq!(orders, [(NODE, Down::StreamClose { stream: ours })]);
}

#[test]
fn a_node_that_grants_too_much_is_held_to_the_limit() {
    let (mut relay, ours) = opened();
    relay.child_credit(NODE, ours, u32::MAX);
    relay.child_credit(NODE, ours, u32::MAX);
    let all = Up::StreamCredit { stream: StreamId(5), bytes: CREDIT_BYTES };
    assert_eq!(outputs(&mut relay), [all]);
    relay.child_credit(NODE, ours, 1);
    assert!(outputs(&mut relay).is_empty());
    input(&mut relay, 300);
    relay.child_credit(NODE, ours, u32::MAX);
    let again = Up::StreamCredit { stream: StreamId(5), bytes: 300 };
    assert_eq!(outputs(&mut relay), [again]);
    // Of what has ended nothing more is granted.
    input(&mut relay, 300);
    relay.child_credit(NODE, ours, 300);
    relay.child_end(NODE, ours, StreamEnd::Done);
    assert_eq!(outputs(&mut relay), [Up::StreamEnd { stream: StreamId(5), end: StreamEnd::Done }]);
    relay.child_credit(NODE, ours, 300);
    relay.child_credit(NODE, StreamId(77), 300);
    assert!(outputs(&mut relay).is_empty());
}

#[test]
fn a_parent_that_grants_too_much_is_held_to_the_limit() {
    let (mut relay, ours) = opened();
    relay.asker_says(Asker::Parent, credit(StreamId(5), u32::MAX));
    relay.asker_says(Asker::Parent, credit(StreamId(5), u32::MAX));
    relay.child_output(NODE, ours, Output::Stdout, vec![0; 1000]);
    relay.asker_says(Asker::Parent, credit(StreamId(5), u32::MAX));
    let granted: u32 = relay
        .take_orders()
        .iter()
        .map(|(_, order)| match order {
            Down::StreamCredit { bytes, .. } => *bytes,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(granted, CREDIT_BYTES);
    // The piece has gone, so there is room again.
    assert_eq!(outputs(&mut relay).len(), 1);
    relay.asker_says(Asker::Parent, credit(StreamId(5), 1000));
    assert_eq!(relay.take_orders(), [(NODE, credit(ours, 1000))]);
}

#[test]
fn small_pieces_are_put_together_and_streams_take_turns() {
    let (mut relay, first) = opened();
    relay.open((Asker::Parent, StreamId(6)), Source::Child(NODE, logs())).unwrap();
    let second = StreamId(first.0 + 1);
    for id in [5, 6] {
        relay.asker_says(Asker::Parent, credit(StreamId(id), CREDIT_BYTES));
    }
    for _ in 0..3 {
        relay.child_output(NODE, first, Output::Stdout, vec![1; CHUNK_BYTES_MAX]);
    }
    for byte in b"abc" {
        relay.child_output(NODE, second, Output::Stdout, vec![*byte]);
    }
    relay.child_output(NODE, second, Output::Stderr, b"!".to_vec());
    let order: Vec<(u32, usize)> = outputs(&mut relay)
        .iter()
        .map(|up| match up {
            Up::StreamData { stream, bytes, .. } => (stream.0, bytes.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    let whole = CHUNK_BYTES_MAX;
    assert_eq!(order, [(5, whole), (6, 3), (5, whole), (6, 1), (5, whole)]);
}

#[test]
fn what_a_child_says_comes_after_what_is_said_here() {
    let mut relay = Relay::default();
    let source = Source::Both(b"here\n".to_vec(), NODE, logs());
    relay.open((Asker::Parent, StreamId(5)), source).unwrap();
    let [(NODE, Down::StreamOpen { stream: ours, .. })] = relay.take_orders()[..] else { panic!() };
    // Its end, without a word, does not overtake what waits for credit.
    let fault = StreamEnd::Fault(StreamFault::NotFound, "nothing".into());
    relay.child_end(NODE, ours, fault.clone());
    assert_eq!(outputs(&mut relay), []);
    relay.asker_says(Asker::Parent, credit(StreamId(5), 2));
    assert_eq!(outputs(&mut relay), [data(StreamId(5), b"he")]);
    relay.asker_says(Asker::Parent, credit(StreamId(5), 100));
    let end = Up::StreamEnd { stream: StreamId(5), end: fault };
    assert_eq!(outputs(&mut relay), [data(StreamId(5), b"re\n"), end]);

    // A child is granted what is left.
    let source = Source::Both(b"here\n".to_vec(), NODE, logs());
    relay.open((Asker::Parent, StreamId(6)), source).unwrap();
    let [(NODE, Down::StreamOpen { stream: ours, .. })] = relay.take_orders()[..] else { panic!() };
    relay.asker_says(Asker::Parent, credit(StreamId(6), 100));
    assert_eq!(relay.take_orders(), [(NODE, credit(ours, 95))]);
    relay.child_output(NODE, ours, Output::Stdout, b"there\n".to_vec());
    relay.child_end(NODE, ours, StreamEnd::Done);
    let end = Up::StreamEnd { stream: StreamId(6), end: StreamEnd::Done };
    assert_eq!(outputs(&mut relay), [data(StreamId(6), b"here\nthere\n"), end]);
}

#[test]
fn askers_have_numbers_and_ends_of_their_own() {
    let mut relay = Relay::default();
    for asker in [Asker::Parent, Asker::Local] {
        relay.open((asker, StreamId(1)), Source::Child(NODE, logs())).unwrap();
    }
    let ours: Vec<StreamId> = relay
        .take_orders()
        .iter()
        .filter_map(|(_, order)| match order {
            Down::StreamOpen { stream, .. } => Some(*stream),
            _ => None,
        })
        .collect();
    for asker in [Asker::Parent, Asker::Local] {
        relay.asker_says(asker, credit(StreamId(1), 10));
    }
    relay.take_orders();
    relay.child_output(NODE, ours[1], Output::Stdout, b"local".to_vec());
    assert!(!relay.has_output(Asker::Parent) && relay.has_output(Asker::Local));
    relay.asker_gone(Asker::Parent);
    assert_eq!(relay.take_orders(), [(NODE, Down::StreamClose { stream: ours[0] })]);
    assert_eq!(relay.next_output(Asker::Local), Some(data(StreamId(1), b"local")));
    relay.asker_gone(Asker::Local);
    assert!(relay.streams.is_empty() && relay.by_child.is_empty());
}

#[test]
fn what_this_cluster_says_itself_waits_for_credit_too() {
    let mut relay = Relay::default();
    let text: Vec<u8> = (0..40_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    relay.open((Asker::Parent, StreamId(1)), Source::Own(text.clone())).unwrap();
    assert!(!relay.has_output(Asker::Parent));
    let mut received = Vec::new();
    while received.len() < text.len() {
        relay.asker_says(Asker::Parent, credit(StreamId(1), 999));
        let mut round = 0;
        for up in outputs(&mut relay) {
            if let Up::StreamData { bytes, .. } = up {
                round += bytes.len();
                received.extend(bytes);
            }
        }
        assert!(round <= 999, "{round}");
    }
    assert_eq!(received, text);
    assert!(relay.streams.is_empty() && relay.take_orders().is_empty());
    relay.open((Asker::Parent, StreamId(2)), Source::Own(Vec::new())).unwrap();
    assert_eq!(outputs(&mut relay), [Up::StreamEnd { stream: StreamId(2), end: StreamEnd::Done }]);
}

#[test]
fn streams_end_when_either_side_goes() {
    let (mut relay, ours) = opened();
    relay.asker_says(Asker::Parent, credit(StreamId(5), 10));
    relay.child_output(NODE, ours, Output::Stdout, b"last".to_vec());
    relay.take_orders();
    relay.child_gone(ChildId([8; 12]));
    assert_eq!(relay.streams.len(), 1);
    relay.child_gone(NODE);
    let said = outputs(&mut relay);
    assert_eq!(said[0], data(StreamId(5), b"last"));
    assert_eq!(fault(&said[1]), Some(StreamFault::Unreachable));
    assert!(relay.take_orders().is_empty(), "nobody is there to be told");

    let (mut relay, ours) = opened();
    relay.asker_gone(Asker::Parent);
    assert_eq!(relay.take_orders(), [(NODE, Down::StreamClose { stream: ours })]);
    assert!(relay.streams.is_empty() && !relay.has_output(Asker::Parent));
    relay.child_output(NODE, ours, Output::Stdout, b"late".to_vec());
    assert!(!relay.has_output(Asker::Parent));
}

#[test]
fn streams_are_counted_and_numbers_used_once() {
    let mut relay = Relay::default();
    let most = u32::try_from(STREAMS_MAX).unwrap();
    for id in 0..most {
        relay.open((Asker::Parent, StreamId(id)), Source::Child(NODE, logs())).unwrap();
    }
    let end = relay.open((Asker::Parent, StreamId(most)), Source::Own(Vec::new())).unwrap_err();
    assert!(matches!(end, StreamEnd::Fault(StreamFault::TooMany, _)), "{end:?}");
    relay.asker_says(Asker::Parent, Down::StreamClose { stream: StreamId(0) });
    let end = relay.open((Asker::Parent, StreamId(1)), Source::Own(Vec::new())).unwrap_err();
    assert!(matches!(end, StreamEnd::Fault(StreamFault::Failed, _)), "{end:?}");
    relay.open((Asker::Parent, StreamId(most)), Source::Own(Vec::new())).unwrap();
}

#[derive(Debug, Clone)]
enum Event {
    Open(u32, bool),
    Grant(u32, u32),
    Close(u32),
    Output(u32, usize),
    NodeGrant(u32, u32),
    Input(u32, usize),
    End(u32),
    ChildGone,
    ParentGone,
    Take(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..4u32, any::<bool>()).prop_map(|(id, own)| Event::Open(id, own)),
        4 => (0..4u32, prop_oneof![0..70_000u32, any::<u32>()])
            .prop_map(|(id, bytes)| Event::Grant(id, bytes)),
        1 => (0..4u32).prop_map(Event::Close),
        6 => (0..12u32, 0..20_000usize).prop_map(|(id, bytes)| Event::Output(id, bytes)),
        3 => (0..12u32, prop_oneof![0..70_000u32, any::<u32>()])
            .prop_map(|(id, bytes)| Event::NodeGrant(id, bytes)),
        4 => (0..4u32, 0..17_000usize).prop_map(|(id, bytes)| Event::Input(id, bytes)),
        1 => (0..12u32).prop_map(Event::End),
        1 => Just(Event::ChildGone),
        1 => Just(Event::ParentGone),
        3 => (0..5usize).prop_map(Event::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_grows_and_every_end_is_told_once(events in prop::collection::vec(event(), 0..200)) {
        let mut relay = Relay::default();
        let mut open: BTreeMap<StreamId, bool> = BTreeMap::new();
        for event in events {
            let mut taken = 0;
            match event {
                Event::Open(id, own) => {
                    let source = match own {
                        true => Source::Own(vec![0; 30_000]),
                        false => Source::Child(NODE, logs()),
                    };
                    let fresh = relay.open((Asker::Parent, StreamId(id)), source).is_ok();
                    prop_assert_eq!(fresh, !open.contains_key(&StreamId(id)));
                    open.insert(StreamId(id), true);
                }
                Event::Grant(id, bytes) => relay.asker_says(Asker::Parent, credit(StreamId(id), bytes)),
                Event::Close(id) => {
                    relay.asker_says(Asker::Parent, Down::StreamClose { stream: StreamId(id) });
                    open.remove(&StreamId(id));
                }
                Event::Output(id, bytes) => {
                    relay.child_output(NODE, StreamId(id), Output::Stdout, vec![0; bytes]);
                }
                Event::NodeGrant(id, bytes) => relay.child_credit(NODE, StreamId(id), bytes),
                Event::Input(id, bytes) => {
                    let stream = StreamId(id);
                    relay.asker_says(Asker::Parent, Down::StreamData { stream, bytes: vec![0; bytes] });
                }
                Event::End(id) => relay.child_end(NODE, StreamId(id), StreamEnd::Done),
                Event::ChildGone => relay.child_gone(NODE),
                Event::ParentGone => {
                    relay.asker_gone(Asker::Parent);
                    open.clear();
                }
                Event::Take(count) => taken = count,
            }
            for _ in 0..taken {
                if let Some(Up::StreamEnd { stream, .. }) = relay.next_output(Asker::Parent) {
                    prop_assert!(open.remove(&stream).is_some(), "ended twice");
                }
            }
            relay.take_orders();
            for stream in relay.streams.values() {
                let limit = if stream.child.is_some() { CREDIT_BYTES } else { 30_000 };
                prop_assert!(stream.bytes <= usize::try_from(limit).unwrap());
                let held: usize = stream.pieces.iter().map(|(_, piece)| piece.len()).sum();
                prop_assert_eq!(held, stream.bytes);
                prop_assert_eq!(stream.ready, stream.has_output());
                prop_assert!(stream.input + stream.input_untold <= CREDIT_BYTES);
            }
            let ready: usize = relay.ready.values().map(VecDeque::len).sum();
            prop_assert!(ready <= relay.streams.len() + 200);
            prop_assert!(relay.by_child.len() <= relay.streams.len());
            prop_assert!(relay.streams.keys().map(|(_, id)| id).eq(open.keys()));
        }
    }
}
