//! Tables of what matches and what is refused, and properties over all of them.

use super::*;
use proptest::prelude::*;

#[test]
fn names_and_patterns_are_matched_whole() {
    let table = [
        ("edge", "edge", true),
        ("edge", "edge-1", false),
        ("edge", "my-edge", false),
        ("edge", "Edge", false),
        ("edge-*", "edge-", true),
        ("edge-*", "edge-1", true),
        ("edge-*", "my-edge-1", false),
        ("edge-?", "edge-1", true),
        ("edge-?", "edge-", false),
        ("edge-?", "edge-12", false),
        ("*", "", true),
        ("*a*a*", "aa", true),
        ("*a*a*", "a", false),
        ("*ab", "aab", true),
        ("a*b*c", "a-b-b-c", true),
        ("stra?e", "straße", true),
        (" edge ", "edge", true),
        ("two words", "two words", true),
    ];
    for (selector, name, expected) in table {
        let selector: Selector = selector.parse().unwrap();
        assert_eq!(selector.matches::<&str>(name, &[]), expected, "{selector} on {name}");
    }
}

#[test]
fn labels_are_asked_for_and_against() {
    let labels = ["site=berlin", "tier=edge", "gpu", "site=spandau"];
    let table = [
        ("site=berlin", true),
        ("site=spandau", true),
        ("site=ber*", true),
        ("site=ber", false),
        ("sit=berlin", false),
        ("site=berlin,tier!=lab", true),
        ("site=berlin,tier!=edge", false),
        ("site!=berlin", false),
        ("nothing!=there", true),
        ("gpu=*", true),
        ("gpu,tier", true),
        ("gpu,lab", false),
        ("!lab", true),
        ("!gpu", false),
        ("gpu=x", false),
        ("name&site=berlin", true),
        ("n*&tier=edge,gpu", true),
        ("other&site=berlin", false),
        ("gpu", false),
    ];
    for (text, expected) in table {
        let selector: Selector = text.parse().unwrap();
        assert_eq!(selector.matches("name", &labels), expected, "{text}");
    }
    let gpu: Labels = "gpu".parse().unwrap();
    assert!(gpu.matches(&labels) && !gpu.matches(&["gpus", "g=gpu"]));
}

#[test]
fn of_many_one_may_match() {
    let labels = ["site=berlin", "tier=lab", "site=munich"];
    let table =
        [("site=berlin,tier!=lab", true), ("site=rome", false), ("!tier", true), ("gpu", false)];
    for (text, expected) in table {
        let expression: Labels = text.parse().unwrap();
        assert_eq!(expression.may_match_one_of(&labels), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let table = [
        ("", "selector \"\", character 1: a word is missing"),
        ("a,,b", "selector \"a,,b\", character 3: a word is missing"),
        ("a=", "selector \"a=\", character 3: a word is missing"),
        ("=a", "selector \"=a\", character 1: a word is missing"),
        ("!", "selector \"!\", character 2: a word is missing"),
        ("a&", "selector \"a&\", character 3: a word is missing"),
        (
            "ü,a==b",
            "selector \"ü,a==b\", character 5: '=', '!', ',' and '&' cannot stand in a word",
        ),
        ("a!b", "selector \"a!b\", character 2: '=', '!', ',' and '&' cannot stand in a word"),
        ("a;b", "selector \"a;b\", character 2: ';' parts selectors and cannot stand in one"),
        ("a*=b", "selector \"a*=b\", character 1: a label's key is no pattern"),
        (
            "a\tb=\u{7}",
            "selector \"a\\tb=\\u{7}\", character 5: control characters cannot stand in a word",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), expected);
    }
    let long = "a".repeat(SELECTOR_BYTES_MAX + 1);
    let expected = "a selector has at most 512 bytes, got 513";
    assert_eq!(long.parse::<Selector>().unwrap_err().to_string(), expected);
    let many = ["a"; SELECTOR_TERMS_MAX + 1];
    for separator in [",", "&"] {
        let text = many.join(separator);
        assert_eq!(text.parse::<Selector>(), Err(SelectorError::TooManyTerms));
        let text = many[1..].join(separator);
        assert!(text.parse::<Selector>().is_ok());
    }
}

/// What a pattern means, said the slow way.
fn slow_glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|n| slow_glob(rest, &text[n..])),
        (['?', rest @ ..], [_, others @ ..]) => slow_glob(rest, others),
        ([a, rest @ ..], [b, others @ ..]) if a == b => slow_glob(rest, others),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_mean_what_they_say(pattern in "[ab*?]{1,7}", text in "[abc]{0,8}") {
        let selector: Selector = pattern.parse().unwrap();
        let chars = |text: &str| text.chars().collect::<Vec<char>>();
        let expected = slow_glob(&chars(&pattern), &chars(&text));
        prop_assert_eq!(selector.matches::<&str>(&text, &[]), expected);
    }

    #[test]
    fn what_is_written_reads_the_same(text in "[a-c=!,&*? ]{0,24}") {
        if let Ok(selector) = text.parse::<Selector>() {
            let again: Selector = selector.to_string().parse().unwrap();
            let labels = ["a", "b=c", "c=a"];
            for name in ["a", "b", "ab", ""] {
                prop_assert_eq!(selector.matches(name, &labels), again.matches(name, &labels));
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), name in any::<String>()) {
        match text.parse::<Selector>() {
            Ok(selector) => drop(selector.matches(&name, &[&name])),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn what_one_has_is_possible_for_many(
        text in "[ab]=?[xy*]?(,!?[ab]){0,2}",
        mine in prop::collection::vec("[ab](=[xy])?", 0..3),
        others in prop::collection::vec("[ab](=[xy])?", 0..3),
    ) {
        if let Ok(expression) = text.parse::<Labels>() {
            let all: Vec<String> = mine.iter().chain(&others).cloned().collect();
            prop_assert!(!expression.matches(&mine) || expression.may_match_one_of(&all));
        }
    }
}
