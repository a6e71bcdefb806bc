//! How many operations may be under way, and what an answer may be.

use super::*;
use crate::Input;
use crate::tier::tests::{at, child, effects, hello, root, summary};
use marram_protocol::v1::ChildKind;
use marram_protocol::v1::{DETAIL_BYTES_MAX, Hello};

fn parent_of_a_cluster() -> Tier {
    let mut tier = root();
    let hello = Hello { kind: ChildKind::Cluster, ..hello(1, summary(1000)) };
    tier.handle(at(0), Input::Child(child(1), Up::Hello(hello)));
    effects(&mut tier);
    tier
}

fn ask(tier: &mut Tier, number: u64) -> Vec<Effect> {
    let operation = OperationId(number);
    let input = Input::Operate { operation, cluster: child(1), child: None, verb: Verb::Cordon };
    tier.handle(at(0), input);
    effects(tier)
}

#[test]
fn so_many_operations_are_under_way_and_no_more() {
    let mut tier = parent_of_a_cluster();
    for number in 0..256 {
        assert!(matches!(ask(&mut tier, number)[..], [Effect::ToChild(_, Down::Operate { .. })]));
    }
    let why = "256 operations are under way, which is the most".to_owned();
    let end = OperationEnd::Refused(why);
    let operation = OperationId(256);
    assert_eq!(ask(&mut tier, 256), [Effect::Operated { operation, end }]);
    tier.handle_timeout(at(ANSWER_MS));
    assert_eq!(effects(&mut tier).len(), 256);
    assert_eq!(tier.operations.due_ms(), None);
}

#[test]
fn an_answer_is_cut_to_size_and_believed_of_who_was_asked() {
    let mut tier = parent_of_a_cluster();
    tier.handle(at(0), Input::Child(child(2), Up::Hello(hello(2, summary(1000)))));
    effects(&mut tier);
    let asked = ask(&mut tier, 9);
    let [Effect::ToChild(_, Down::Operate { operation, .. })] = asked[..] else {
        panic!("{asked:?}")
    };
    let end = OperationEnd::Refused("x".repeat(10_000));
    let answer = Up::Operated { operation, end };
    tier.handle(at(0), Input::Child(child(2), answer.clone()));
    assert_eq!(effects(&mut tier), []);
    tier.handle(at(0), Input::Child(child(1), answer));
    let end = OperationEnd::Refused("x".repeat(DETAIL_BYTES_MAX));
    assert_eq!(effects(&mut tier), [Effect::Operated { operation: OperationId(9), end }]);
}
