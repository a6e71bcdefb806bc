//! Any text as MQTT topic: the grammar has one way to write each topic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use marram_protocol::topic::Topic;

fuzz_target!(|text: &str| {
    if let Ok(topic) = text.parse::<Topic>() {
        assert_eq!(topic.to_string(), text);
    }
});
