//! Any bytes as a parent's message: what can be read can be written and read again the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use marram_protocol::v1::Down;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(first) = Down::decode(bytes) {
        let written = first.encode().expect("what fitted can be written");
        assert_eq!(Down::decode(&written), Ok(first));
    }
});
