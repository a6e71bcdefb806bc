//! Any sequence of a parent's messages: what a child holds stays bounded and never goes back.
//!
//! The input is read as frames: one byte of length, then so many bytes of a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use marram_protocol::CLUSTER_INSTANCES_MAX;
use marram_protocol::desired::Desired;
use marram_protocol::v1::Down;

fuzz_target!(|input: &[u8]| {
    let mut desired = Desired::default();
    let mut rest = input;
    while let [length, after @ ..] = rest {
        let (frame, next) = after.split_at(after.len().min(usize::from(*length)));
        rest = next;
        let Ok(message) = Down::decode(frame) else { continue };
        if let Down::Welcome { epoch, .. } = &message {
            desired.welcome(*epoch);
        }
        let before = desired.generation();
        let _step = desired.receive(message);
        let now = desired.generation();
        assert!(now.epoch != before.epoch || now >= before, "{before:?} became {now:?}");
        assert!(desired.workloads().len() <= CLUSTER_INSTANCES_MAX);
    }
});
