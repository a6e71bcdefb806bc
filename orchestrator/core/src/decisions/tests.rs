//! What is kept of decisions, and what is not.

use super::*;
use crate::tier::tests::{at, workload};

fn nowhere(reason: &str) -> Verdict {
    Verdict::Nowhere { reason: reason.into(), handed_back: false }
}

#[test]
fn the_last_few_are_kept_and_repetitions_are_counted() {
    let mut instance = Instance::new(workload(1, 0), at(0));
    for turn in 0..5 {
        instance.decide(nowhere("full"), at(turn));
    }
    let expected = Decision { unix_ms: 4, times: 5, verdict: nowhere("full") };
    assert_eq!(instance.decisions, [expected]);
    for turn in 0..20 {
        instance.decide(nowhere(&turn.to_string()), at(turn));
    }
    let kept: Vec<u64> = instance.decisions.iter().map(|decision| decision.unix_ms).collect();
    assert_eq!(kept, (12..20).collect::<Vec<_>>());
}

#[test]
fn long_reasons_are_cut_between_characters() {
    let mut instance = Instance::new(workload(1, 0), at(0));
    instance.decide(nowhere(&"ü".repeat(1000)), at(0));
    let Verdict::Nowhere { reason, .. } = &instance.decisions[0].verdict else { panic!() };
    assert_eq!(*reason, format!("{}…", "ü".repeat(120)));
}

#[test]
fn people_can_read_them() {
    let table = [
        (
            Verdict::Placed { on: "a".into(), candidates: 2, of: 5, policy: "ldp".into() },
            "placed on a by ldp, one of 2 that fit among 5",
        ),
        (Verdict::Refused { by: "a".into(), reason: "full".into() }, "refused by a: full"),
        (nowhere("a: full"), "no place: a: full"),
        (
            Verdict::Nowhere { reason: "a: full".into(), handed_back: true },
            "no place here, handed back: a: full",
        ),
        (
            Verdict::MakesRoom { on: "a".into(), victims: vec!["b.0".into(), "c.1".into()] },
            "waits for room on a, which is taken from b.0, c.1",
        ),
        (Verdict::Yielded { on: "a".into(), to: "b.0".into() }, "had to leave a for b.0"),
        (Verdict::Other("as it is".into()), "as it is"),
    ];
    for (verdict, expected) in table {
        assert_eq!(verdict.to_string(), expected);
    }
}
