//! Random histories: the invariants of the core's documentation after every step.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Bench, input, message, subscription};
use crate::config::Config;
use crate::config::Quota;
use crate::core::quota::Buckets;
use crate::core::topic::{matches, parse_filter};
use crate::core::{Core, Ending, Link, Pull};
use crate::reason::Reason;

#[derive(Debug, Clone)]
enum Step {
    Connect { who: usize, clean: bool, expiry_s: u32 },
    Disconnect { who: usize, clean: bool },
    Subscribe { who: usize, filter: usize },
    Unsubscribe { who: usize, filter: usize },
    Publish { topic: usize, retain: bool, empty: bool, expiry_s: Option<u8> },
    Pull { who: usize, acknowledge: bool },
    Pass { seconds: u8 },
    Kick { who: usize },
}

const WHO: [&str; 3] = ["a", "b", "c"];
const FILTERS: [&str; 6] = ["#", "t/+", "t/1", "$share/g/t/#", "+/2", "t/1/#"];
const TOPICS: [&str; 4] = ["t/1", "t/2", "t", "x/2"];

fn step() -> impl Strategy<Value = Step> {
    let who = 0..WHO.len();
    let filter = 0..FILTERS.len();
    prop_oneof![
        (who.clone(), any::<bool>(), 0..20_u32).prop_map(|(who, clean, expiry_s)| Step::Connect {
            who,
            clean,
            expiry_s
        }),
        (who.clone(), any::<bool>()).prop_map(|(who, clean)| Step::Disconnect { who, clean }),
        (who.clone(), filter.clone()).prop_map(|(who, filter)| Step::Subscribe { who, filter }),
        (who.clone(), filter).prop_map(|(who, filter)| Step::Unsubscribe { who, filter }),
        (0..TOPICS.len(), any::<bool>(), any::<bool>(), any::<Option<u8>>()).prop_map(
            |(topic, retain, empty, expiry_s)| Step::Publish { topic, retain, empty, expiry_s }
        ),
        (who.clone(), any::<bool>()).prop_map(|(who, acknowledge)| Step::Pull { who, acknowledge }),
        any::<u8>().prop_map(|seconds| Step::Pass { seconds }),
        who.prop_map(|who| Step::Kick { who }),
    ]
}

/// Checks what the core's documentation promises.
fn check(core: &Core) {
    let sessions = || core.slots.iter().flatten();
    let bytes: usize = sessions().map(|s| s.bytes).sum();
    assert_eq!(core.queued_bytes, bytes);
    let filters: usize = sessions().map(|s| s.filters.len()).sum();
    assert_eq!(core.tree.len(), filters);
    let timers =
        sessions().map(|s| usize::from(s.will_at.is_some()) + usize::from(s.ends_at.is_some()));
    let retained = core.retained.expiring();
    assert_eq!(core.timers.len(), timers.sum::<usize>() + retained);
    assert_eq!(core.stats.connected, sessions().filter(|s| s.connected).count());
    assert_eq!(core.by_id.len() + core.free.len(), core.slots.len());
    for session in sessions() {
        assert!(session.sent <= session.inflight.len());
        assert!(session.inflight.len() <= usize::from(session.window));
        assert_eq!(session.connected, session.ends_at.is_none());
        let max = core.limits.queue_messages_max;
        assert!(session.outbox.len() + session.inflight.len() <= max + usize::from(session.window));
    }
}

fn perform(bench: &mut Bench, links: &mut BTreeMap<usize, Link>, step: &Step) {
    let now = bench.now;
    match *step {
        Step::Connect { who, clean, expiry_s } => {
            let (link, _) = bench.connect_with(input(WHO[who], clean, expiry_s));
            if let Some(old) = links.insert(who, link) {
                assert!(matches!(bench.core.pull(now, old), Pull::Closed(_)));
            }
        }
        Step::Disconnect { who, clean } => {
            let Some(link) = links.remove(&who) else { return };
            let ending = if clean {
                Ending::Clean { expiry_s: None }
            } else {
                Ending::Will { expiry_s: None, reason: Reason::Lost }
            };
            bench.core.disconnect(now, link, ending);
        }
        Step::Subscribe { who, filter } => {
            let Some(&link) = links.get(&who) else { return };
            // A kicked client's connection may still try; it is told.
            let result = bench.core.subscribe(now, link, &subscription(FILTERS[filter]));
            assert!(matches!(result, Ok(_) | Err(Reason::Lost)));
        }
        Step::Unsubscribe { who, filter } => {
            let Some(&link) = links.get(&who) else { return };
            bench.core.unsubscribe(link, FILTERS[filter]);
        }
        Step::Publish { topic, retain, empty, expiry_s } => {
            let at = expiry_s.map(|seconds| now + u64::from(seconds) * 1000);
            let payload = if empty { "" } else { "x" };
            let message = message(TOPICS[topic], payload, at);
            bench.core.publish(now, None, message, retain).expect("bounds are wide enough");
        }
        Step::Pull { who, acknowledge } => {
            let Some(&link) = links.get(&who) else { return };
            if let Pull::Send { packet_id, pending, .. } = bench.core.pull(now, link) {
                let topic = &pending.message.topic;
                let known = |f: &str| parse_filter(f).is_some_and(|p| matches(p.filter, topic));
                assert!(FILTERS.iter().any(|f| known(f)));
                if acknowledge {
                    bench.core.acknowledge(link, packet_id);
                }
            }
        }
        Step::Pass { seconds } => bench.pass(u64::from(seconds)),
        Step::Kick { who } => {
            bench.core.kick(now, WHO[who], Reason::Administrative);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_step(steps in vec(step(), 1..80)) {
        let mut bench = Bench::new(Config { queue_messages_max: 5, ..Config::default() });
        let mut links = BTreeMap::new();
        for step in &steps {
            perform(&mut bench, &mut links, step);
            check(&bench.core);
        }
        bench.pass(100_000);
        for (_, link) in links {
            bench.core.disconnect(bench.now, link, Ending::Clean { expiry_s: Some(0) });
        }
        bench.pass(100_000);
        check(&bench.core);
        prop_assert_eq!(bench.core.snapshot().queued_bytes, 0);
        prop_assert!(bench.core.ended.is_empty());
    }

    #[test]
    fn the_tree_finds_what_the_matcher_says(
        filters in vec("[ab+]{1,2}(/[ab+]{1}){0,2}(/#)?", 1..12),
        topic in "[ab]{1,2}(/[ab]{1}){0,3}",
    ) {
        let mut bench = Bench::new(Config::default());
        let mut expected = 0;
        for (at, filter) in filters.iter().enumerate() {
            let (link, _) = bench.connect(&at.to_string(), true, 0);
            let result = bench.core.subscribe(bench.now, link, &subscription(filter));
            prop_assert_eq!(result.is_ok(), parse_filter(filter).is_some());
            expected += usize::from(result.is_ok() && matches(filter, &topic));
        }
        prop_assert_eq!(bench.publish(&topic, "x", true), expected);
        // And the retained store finds the topic by the same filters.
        let found = filters.iter().filter(|f| {
            parse_filter(f).is_some() && bench.core.retained.next(f, None).is_some()
        });
        prop_assert_eq!(found.count(), expected);
    }

    #[test]
    fn a_quota_lets_its_rate_through_and_one_burst_more(
        rate in 1..1000_u32, burst_s in 1..5_u32, seconds in 1..60_u64,
    ) {
        let quota = Quota { messages_per_s: rate, bytes_per_s: u32::MAX, burst_s };
        let mut buckets = Buckets::new(quota, 0);
        let (mut now, mut sent) = (0, 0_u64);
        while now <= seconds * 1000 {
            match buckets.blocked_until(now) {
                Some(until) => {
                    prop_assert!(until > now);
                    now = until;
                }
                None => {
                    buckets.charge(now, 1);
                    sent += 1;
                }
            }
        }
        let allowed = u64::from(rate) * (seconds + u64::from(burst_s));
        prop_assert!(sent <= allowed + 2, "{sent} of {allowed}");
        prop_assert!(sent + u64::from(rate) >= allowed, "{sent} of {allowed}");
    }
}
