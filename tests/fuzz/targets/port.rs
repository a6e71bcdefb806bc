//! Any text as the port string of a descriptor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use marram_protocol::port;

fuzz_target!(|text: &str| {
    if let Err(error) = port::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});
