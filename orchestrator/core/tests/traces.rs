//! Golden traces: what a tier does in a story, line by line.
//!
//! A line of `traces/*.txt` that begins with `> ` is something that happens (the words are in
//! `script`), the indented lines below it are all effects that follow. `UPDATE=1 cargo test`
//! writes the effects anew; what changed is then read in the diff.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "the stories are files")]

mod script;

use script::Script;
use std::path::Path;

fn replay(text: &str) -> String {
    let mut script = Script::default();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        out.push_str(line);
        out.push('\n');
        if let Some(input) = line.strip_prefix("> ") {
            for effect in script.run(input) {
                out.push_str(&format!("  {effect}\n"));
            }
        }
    }
    out
}

#[test]
fn stories_go_as_they_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 12, "only {} stories were found", files.len());
    let update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let replayed = replay(&text);
        if update {
            std::fs::write(&file, &replayed).unwrap();
        } else if replayed != text {
            differing.push(format!("{}:\n{}", file.display(), first_difference(&text, &replayed)));
        }
    }
    assert!(differing.is_empty(), "UPDATE=1 writes them anew\n{}", differing.join("\n"));
}

fn first_difference(expected: &str, found: &str) -> String {
    let pairs = expected.lines().zip(found.lines()).enumerate();
    match pairs.into_iter().find(|(_, (expected, found))| expected != found) {
        Some((line, (expected, found))) => {
            format!("line {}\n  expected {expected:?}\n  found    {found:?}", line + 1)
        }
        None => {
            format!("{} lines expected, {} found", expected.lines().count(), found.lines().count())
        }
    }
}
