//! Any text as a selector, on any name; what is written of it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use marram_protocol::selector::{Labels, Selector};

fuzz_target!(|input: (&str, &str)| {
    let (text, name) = input;
    match text.parse::<Selector>() {
        Ok(selector) => {
            let again: Selector = selector.to_string().parse().expect("it was written by us");
            assert_eq!(selector.matches(name, &[name]), again.matches(name, &[name]));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(labels) = text.parse::<Labels>() {
        assert!(!labels.matches(&[name]) || labels.may_match_one_of(&[name, "other"]));
    }
});
