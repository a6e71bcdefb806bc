//! One test per rule of the standard or of this broker.

use bytes::Bytes;

use super::{Bench, input, message, subscription, text};
use crate::codec::{Qos, RetainHandling};
use crate::config::Config;
use crate::core::topic::{is_topic, literal_prefix, matches, parse_filter};
use crate::core::{ConnectionEvent, session::Pending};
use crate::core::{Ending, Link, Pull, Refusal, Will};
use crate::reason::Reason;

const LOST: Ending = Ending::Will { expiry_s: None, reason: Reason::Lost };
const CLEAN: Ending = Ending::Clean { expiry_s: None };

#[test]
fn filters_match_topics() {
    let table = [
        ("a/b", "a/b", true),
        ("a/b", "a/b/c", false),
        ("a/+", "a/b", true),
        ("a/+", "a/", true),
        ("a/+", "a", false),
        ("+/+", "/x", true),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("#", "a/b", true),
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("$SYS/#", "$SYS/x", true),
        ("+", "", true),
    ];
    for (filter, topic, expected) in table {
        assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
        assert!(!matches(filter, topic) || topic.starts_with(literal_prefix(filter)));
    }
}

#[test]
fn filters_and_topics_are_checked() {
    for bad in ["", "a#", "a/#/b", "a+/b", "$share/g", "$share//a", "$share/+/a", "$share/g/", "\0"]
    {
        assert_eq!(parse_filter(bad), None, "{bad:?}");
    }
    let shared = parse_filter("$share/g/a/#").expect("valid");
    assert_eq!((shared.group, shared.filter), (Some("g"), "a/#"));
    for (topic, valid) in [("a", true), ("a/+", false), ("#", false), ("", false), ("a\0", false)] {
        assert_eq!(is_topic(topic), valid, "{topic:?}");
    }
    assert!(!is_topic(&"a".repeat(257)), "longer than the limit");
    assert!(!is_topic(&"/".repeat(33)), "deeper than the limit");
}

#[test]
fn one_copy_per_client_with_the_highest_qos_and_all_ids() {
    let mut bench = Bench::new(Config::default());
    let (link, _) = bench.connect("a", true, 0);
    for (filter, qos, id) in [("t/#", Qos::AtMostOnce, 7), ("t/x", Qos::AtLeastOnce, 8)] {
        let input = crate::core::SubscribeInput { qos, id, ..subscription(filter) };
        bench.core.subscribe(bench.now, link, &input).expect("subscribed");
    }
    assert_eq!(bench.publish("t/x", "1", false), 1);
    let got = bench.drain_pending(link);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].qos, Qos::AtLeastOnce);
    let mut ids = got[0].subscription_ids.to_vec();
    ids.sort_unstable();
    assert_eq!(ids, [7, 8]);
}

#[test]
fn a_session_is_resumed_with_its_queue_or_starts_clean() {
    let mut bench = Bench::new(Config::default());
    let (link, present) = bench.connect("a", true, 60);
    assert!(!present);
    bench.subscribe(link, "t");
    bench.core.disconnect(bench.now, link, CLEAN);
    bench.publish("t", "1", false);
    let (link, present) = bench.connect("a", false, 60);
    assert!(present);
    assert_eq!(bench.drain(link), ["1"]);
    bench.core.disconnect(bench.now, link, CLEAN);
    let (link, present) = bench.connect("a", true, 60);
    assert!(!present);
    assert_eq!(bench.publish("t", "2", false), 0, "its subscription went with the session");
    assert!(bench.drain(link).is_empty());
}

#[test]
fn a_session_ends_when_its_client_stays_away() {
    let mut bench = Bench::new(Config { session_expiry_s_max: 100, ..Config::default() });
    let (link, _) = bench.connect("a", true, u32::MAX);
    bench.subscribe(link, "t");
    bench.core.disconnect(bench.now, link, LOST);
    bench.pass(99);
    assert_eq!(bench.core.snapshot().sessions, 1);
    bench.pass(1);
    let stats = bench.core.snapshot();
    assert_eq!((stats.sessions, stats.subscriptions, stats.sessions_expired), (0, 0, 1));
    assert_eq!(bench.core.poll_timeout(), None, "no timer is left behind");
}

#[test]
fn a_disconnect_can_change_how_long_the_session_waits_but_not_revive_it() {
    let mut bench = Bench::new(Config::default());
    let (link, _) = bench.connect("a", true, 100);
    bench.core.disconnect(bench.now, link, Ending::Clean { expiry_s: Some(0) });
    assert_eq!(bench.core.snapshot().sessions, 0);
    let (link, _) = bench.connect("a", true, 0);
    bench.core.disconnect(bench.now, link, Ending::Clean { expiry_s: Some(100) });
    assert_eq!(bench.core.snapshot().sessions, 0);
}

#[test]
fn what_was_not_acknowledged_comes_again_in_order() {
    let mut bench = Bench::new(Config::default());
    let (link, _) = bench.connect("a", true, 60);
    bench.subscribe(link, "t");
    for payload in ["1", "2", "3"] {
        bench.publish("t", payload, false);
    }
    let mut ids = Vec::new();
    while let Pull::Send { packet_id, dup, .. } = bench.pull(link) {
        assert!(!dup);
        ids.push(packet_id);
    }
    bench.core.acknowledge(link, ids[1]);
    bench.core.disconnect(bench.now, link, LOST);
    bench.publish("t", "4", false);
    let (link, _) = bench.connect("a", false, 60);
    let mut again = Vec::new();
    while let Pull::Send { pending, packet_id, dup } = bench.pull(link) {
        again.push((text(&pending), packet_id, dup));
    }
    let expected = [("1", ids[0], true), ("3", ids[2], true), ("4", 4, false)];
    assert_eq!(again, expected.map(|(p, id, dup)| (p.to_owned(), id, dup)));
}

#[test]
fn no_more_than_the_window_is_unacknowledged() {
    let mut bench = Bench::new(Config::default());
    let (link, _) =
        bench.connect_with(crate::core::ConnectInput { window: 2, ..input("a", true, 0) });
    bench.subscribe(link, "t");
    for _ in 0..5 {
        bench.publish("t", "x", false);
    }
    let mut sent = Vec::new();
    while let Pull::Send { packet_id, .. } = bench.pull(link) {
        sent.push(packet_id);
    }
    assert_eq!(sent.len(), 2);
    bench.core.acknowledge(link, sent[0]);
    assert!(matches!(bench.pull(link), Pull::Send { .. }));
    assert!(matches!(bench.pull(link), Pull::Empty));
}

#[test]
fn queues_are_bounded_by_count_bytes_and_in_all() {
    let count = Config { queue_messages_max: 3, ..Config::default() };
    let bytes = Config { queue_bytes_max: 3 * 132, ..Config::default() };
    let total = Config { queues_bytes_max: 3 * 132, ..Config::default() };
    for limits in [count, bytes, total] {
        let mut bench = Bench::new(limits);
        let (link, _) = bench.connect("a", true, 60);
        bench.subscribe(link, "t");
        bench.core.disconnect(bench.now, link, CLEAN);
        for _ in 0..5 {
            // 128 bytes of bookkeeping, 1 of topic, 3 of payload.
            bench.publish("t", "abc", false);
        }
        assert_eq!(bench.core.snapshot().messages_dropped, 2);
        let (link, _) = bench.connect("a", false, 60);
        assert_eq!(bench.drain(link).len(), 3, "the oldest are kept");
        assert_eq!(bench.core.snapshot().queued_bytes, 0);
    }
}

#[test]
fn expired_messages_make_room_and_are_not_delivered() {
    let mut bench = Bench::new(Config { queue_messages_max: 2, ..Config::default() });
    let (link, _) = bench.connect("a", true, 600);
    bench.subscribe(link, "t");
    bench.core.disconnect(bench.now, link, CLEAN);
    for (payload, lives_s) in [("old", 5), ("longer", 60), ("late", 60)] {
        let at = Some(bench.now + lives_s * 1000);
        let result = bench.core.publish(bench.now, None, message("t", payload, at), false);
        assert_eq!(result, Ok(1));
        bench.pass(5);
    }
    let (link, _) = bench.connect("a", false, 600);
    let got = bench.drain_pending(link);
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["longer", "late"]);
    assert_eq!(got[0].message.expiry_left_s(bench.now), Some(50));
    assert_eq!(bench.core.snapshot().messages_expired, 1);
}

#[test]
fn qos_0_is_not_kept_for_a_client_that_is_away() {
    let mut bench = Bench::new(Config::default());
    let (link, _) = bench.connect("a", true, 60);
    bench.subscribe(link, "t");
    let best_effort = |payload: &str| crate::core::Message {
        qos: Qos::AtMostOnce,
        ..message("t", payload, None)
    };
    bench.core.publish(bench.now, None, best_effort("queued"), false).expect("taken");
    bench.core.disconnect(bench.now, link, CLEAN);
    bench.core.publish(bench.now, None, best_effort("away"), false).expect("taken");
    let (link, _) = bench.connect("a", false, 60);
    assert!(bench.drain(link).is_empty());
    assert_eq!(bench.core.snapshot().queued_bytes, 0);
}

fn with_will(id: &str, expiry_s: u32, delay_s: u32) -> crate::core::ConnectInput {
    let will = Will {
        topic: "will".into(),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay_s,
        expiry_s: None,
        properties: Box::default(),
    };
    crate::core::ConnectInput { will: Some(will), ..input(id, false, expiry_s) }
}

/// What the watcher has got `at_once` and `later`, one second after the will's delay.
fn will_case(delay_s: u32, ending: Ending, back_after_s: Option<u64>) -> (usize, usize) {
    let mut bench = Bench::new(Config::default());
    let (watcher, _) = bench.connect("watcher", true, 0);
    bench.subscribe(watcher, "will");
    let (link, _) = bench.connect_with(with_will("a", 60, delay_s));
    bench.core.disconnect(bench.now, link, ending);
    let at_once = bench.drain(watcher).len();
    if let Some(seconds) = back_after_s {
        bench.pass(seconds);
        bench.connect("a", false, 60);
    }
    bench.pass(u64::from(delay_s) + 1);
    (at_once, bench.drain(watcher).len())
}

#[test]
fn a_will_is_published_at_once_or_late_or_not() {
    assert_eq!(will_case(0, LOST, None), (1, 0));
    assert_eq!(will_case(0, CLEAN, None), (0, 0));
    assert_eq!(will_case(10, LOST, None), (0, 1));
    assert_eq!(will_case(10, LOST, Some(5)), (0, 0), "back before the delay was over");
    assert_eq!(will_case(100, LOST, None), (0, 1), "the session's end is the latest");
    let asked = Ending::Will { expiry_s: None, reason: Reason::WithWill };
    assert_eq!(will_case(0, asked, None), (1, 0));
    let ends_now = Ending::Will { expiry_s: Some(0), reason: Reason::WithWill };
    assert_eq!(will_case(10, ends_now, None), (1, 0));
}

#[test]
fn a_takeover_ends_the_older_connection_and_keeps_the_session() {
    let mut bench = Bench::new(Config::default());
    let (old, _) = bench.connect("a", true, 60);
    bench.subscribe(old, "t");
    let (new, present) = bench.connect("a", false, 60);
    assert!(present);
    assert!(matches!(bench.pull(old), Pull::Closed(Reason::TakenOver)));
    bench.core.disconnect(bench.now, old, LOST);
    bench.publish("t", "1", false);
    assert_eq!(bench.drain(new), ["1"], "the late goodbye of the old one changes nothing");
    assert_eq!(bench.core.snapshot().connected, 1);
}

#[test]
fn a_client_id_belongs_to_the_identity_that_has_it() {
    let mut bench = Bench::new(Config::default());
    let (link, _) = bench.connect("a", true, 60);
    let other = crate::core::ConnectInput { owner: "other".into(), ..input("a", true, 60) };
    assert_eq!(bench.core.connect(bench.now, other).map(|_| ()), Err(Reason::ClientId));
    assert!(matches!(bench.pull(link), Pull::Empty), "the owner's connection goes on");
}

#[test]
fn retained_messages_are_delivered_replaced_cleared_and_expire() {
    let mut bench = Bench::new(Config::default());
    bench.publish("r/1", "old", true);
    bench.publish("r/1", "one", true);
    bench.publish("r/2", "two", true);
    let at = Some(bench.now + 5_000);
    bench.core.publish(bench.now, None, message("r/3", "short", at), true).expect("taken");
    let (link, _) = bench.connect("a", true, 0);
    bench.subscribe(link, "r/#");
    let got = bench.drain_pending(link);
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["one", "two", "short"]);
    assert!(got.iter().all(|p| p.retain));
    bench.publish("r/1", "", true);
    assert_eq!(bench.drain(link), [""], "the clearing goes to subscribers as a message");
    bench.pass(5);
    assert_eq!(bench.core.snapshot().retained, 1);
    assert_eq!(bench.core.poll_timeout(), None);
    let (late, _) = bench.connect("b", true, 0);
    bench.subscribe(late, "+/+");
    assert_eq!(bench.drain(late), ["two"]);
}

#[test]
fn retained_messages_are_bounded() {
    let mut bench = Bench::new(Config { retained_max: 2, ..Config::default() });
    bench.publish("a", "1", true);
    bench.publish("b", "1", true);
    let third = bench.core.publish(bench.now, None, message("c", "1", None), true);
    assert_eq!(third, Err(Refusal::Retained));
    bench.publish("a", "2", true);
    bench.publish("b", "", true);
    bench.publish("c", "1", true);
    assert_eq!(bench.core.snapshot().retained, 2);
}

#[test]
fn subscription_options_are_kept() {
    let mut bench = Bench::new(Config::default());
    bench.publish("t", "kept", true);
    let (link, _) = bench.connect("a", true, 0);
    let quiet = crate::core::SubscribeInput {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
        ..subscription("t")
    };
    bench.core.subscribe(bench.now, link, &quiet).expect("subscribed");
    assert!(bench.drain(link).is_empty(), "retain handling 2");
    let own = bench.core.publish(bench.now, Some(link), message("t", "own", None), false);
    assert_eq!(own, Ok(0), "no local");
    bench.publish("t", "new", true);
    assert!(bench.drain_pending(link).iter().all(|p: &Pending| p.retain), "retain as published");
    let if_new =
        crate::core::SubscribeInput { retain_handling: RetainHandling::IfNew, ..subscription("t") };
    bench.core.subscribe(bench.now, link, &if_new).expect("subscribed");
    assert!(bench.drain(link).is_empty(), "retain handling 1 on an existing subscription");
    assert_eq!(bench.core.unsubscribe(link, "t"), Reason::Normal);
    assert_eq!(bench.core.unsubscribe(link, "t"), Reason::NoSubscriptionExisted);
    bench.core.subscribe(bench.now, link, &if_new).expect("subscribed");
    assert_eq!(bench.drain(link), ["new"], "retain handling 1 on a new subscription");
}

#[test]
fn subscriptions_are_bounded_per_session() {
    let mut bench = Bench::new(Config { subscriptions_max: 1, ..Config::default() });
    let (link, _) = bench.connect("a", true, 0);
    bench.subscribe(link, "t");
    bench.subscribe(link, "t");
    let second = bench.core.subscribe(bench.now, link, &subscription("u"));
    assert_eq!(second, Err(Reason::Quota));
}

#[test]
fn a_shared_subscription_takes_turns_and_prefers_who_is_there() {
    let mut bench = Bench::new(Config::default());
    let members: Vec<Link> = ["a", "b", "c"]
        .map(|id| {
            let (link, _) = bench.connect(id, true, 60);
            bench.subscribe(link, "$share/g/t/#");
            link
        })
        .into();
    for at in 0..9 {
        bench.publish("t/x", &at.to_string(), false);
    }
    assert!(members.iter().all(|&m| bench.drain(m).len() == 3));
    bench.core.disconnect(bench.now, members[0], CLEAN);
    for _ in 0..4 {
        bench.publish("t/x", "x", false);
    }
    assert_eq!(bench.drain(members[1]).len() + bench.drain(members[2]).len(), 4);
    bench.core.disconnect(bench.now, members[1], CLEAN);
    bench.core.disconnect(bench.now, members[2], CLEAN);
    bench.publish("t/x", "kept", false);
    let back: Vec<String> = ["a", "b", "c"]
        .iter()
        .flat_map(|id| {
            let (link, _) = bench.connect(id, false, 60);
            bench.drain(link)
        })
        .collect();
    assert_eq!(back, ["kept"], "one member that is away keeps it");
}

#[test]
fn a_full_local_client_stops_publishers_and_lets_them_go_on() {
    let mut bench = Bench::new(Config { local_messages_max: 4, ..Config::default() });
    let local = bench.core.connect_local(false);
    bench.subscribe(local, "t");
    let (remote, _) = bench.connect("a", true, 0);
    for _ in 0..4 {
        bench.publish("t", "x", false);
    }
    let full = bench.core.publish(bench.now, Some(remote), message("t", "y", None), false);
    assert_eq!(full, Err(Refusal::Busy));
    let best_effort = crate::core::Message { qos: Qos::AtMostOnce, ..message("t", "z", None) };
    assert_eq!(bench.core.publish(bench.now, Some(remote), best_effort, false), Ok(1));
    assert_eq!(bench.core.stats.messages_dropped, 1, "qos 0 does not wait");
    bench.core.take_wakes();
    assert!(matches!(bench.pull(local), Pull::Send { .. }));
    assert!(!bench.core.take_wakes().contains(&remote.key), "not half empty yet");
    assert!(matches!(bench.pull(local), Pull::Send { .. }));
    assert!(bench.core.take_wakes().contains(&remote.key));
    let again = bench.core.publish(bench.now, Some(remote), message("t", "y", None), false);
    assert_eq!(again, Ok(1));
    assert_eq!(bench.drain(local), ["x", "x", "y"]);
}

#[test]
fn a_watcher_sees_clients_come_and_go_in_order() {
    let mut bench = Bench::new(Config::default());
    bench.connect("early", true, 0);
    let watcher = bench.core.connect_local(true);
    bench.subscribe(watcher, "t");
    let (link, _) = bench.connect("a", true, 60);
    bench.core.publish(bench.now, Some(link), message("t", "1", None), false).expect("taken");
    bench.core.kick(bench.now, "a", Reason::Administrative);
    assert!(matches!(bench.pull(link), Pull::Closed(Reason::Administrative)));
    let mut seen = Vec::new();
    loop {
        match bench.pull(watcher) {
            Pull::Event(ConnectionEvent::Connected { client_id, .. }) => {
                seen.push(format!("+{client_id}"));
            }
            Pull::Event(ConnectionEvent::Disconnected { client_id, reason, .. }) => {
                seen.push(format!("-{client_id} {reason}"));
            }
            Pull::Send { pending, .. } => seen.push(text(&pending)),
            _ => break,
        }
    }
    assert_eq!(seen, ["+early", "+a", "1", "-a administrative action"]);
}

#[test]
fn a_packet_larger_than_the_client_takes_is_not_sent() {
    let mut bench = Bench::new(Config::default());
    let small = crate::core::ConnectInput { packet_bytes_max: 20, ..input("a", true, 0) };
    let (link, _) = bench.connect_with(small);
    bench.subscribe(link, "t");
    bench.publish("t", &"x".repeat(30), false);
    bench.publish("t", "fits", false);
    assert_eq!(bench.drain(link), ["fits"]);
    assert_eq!(bench.core.snapshot().queued_bytes, 0);
}

#[test]
fn sys_values_are_there_for_who_asks_and_stop_after() {
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.core.poll_timeout(), None);
    let (link, _) = bench.connect("a", true, 0);
    bench.subscribe(link, "$SYS/broker/clients/connected");
    assert_eq!(bench.drain(link), ["1"]);
    bench.connect("b", true, 0);
    bench.pass(10);
    assert_eq!(bench.drain(link), ["2"]);
    bench.core.unsubscribe(link, "$SYS/broker/clients/connected");
    bench.pass(20);
    assert_eq!(bench.core.poll_timeout(), None);
}

#[test]
fn a_shut_down_core_tells_its_clients_and_lets_nobody_in() {
    let mut bench = Bench::new(Config::default());
    let (watcher, _) = bench.connect("watcher", true, 60);
    bench.subscribe(watcher, "will");
    let (link, _) = bench.connect_with(with_will("a", 60, 0));
    bench.core.shut_down(bench.now);
    assert!(matches!(bench.pull(link), Pull::Closed(Reason::ShuttingDown)));
    assert_eq!(bench.core.snapshot().queued_bytes, 0, "no will was published");
    let late = bench.core.connect(bench.now, input("b", true, 0));
    assert_eq!(late.map(|_| ()), Err(Reason::ShuttingDown));
}
