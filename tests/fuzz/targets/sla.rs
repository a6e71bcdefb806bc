//! Any bytes as deployment descriptor: read or refused, and what was read is read again the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use marram_protocol::sla;

fuzz_target!(|bytes: &[u8]| {
    match sla::parse(bytes) {
        Ok(first) => {
            let text = serde_json::to_vec(&first).expect("a descriptor can be written");
            let second = sla::parse(&text).expect("what was written can be read");
            assert_eq!(first, second);
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
});
