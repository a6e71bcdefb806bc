//! Rules on the text itself: openings, lengths, forbidden words, links.
//!
//! `allowed.txt` names what is longer than the rule says, with its length. The list only shrinks:
//! an entry that is not needed any more, or whose file got shorter, fails as well.

use std::collections::{BTreeMap, BTreeSet};

use marram_tidy::{File, files, markdown, root, rust};

/// Lines of a file, its tests included: beyond that nobody reads it whole.
const FILE_LINES: usize = 500;
/// Lines of a function: what fits on one screen.
const FUNCTION_LINES: usize = 70;
/// Columns of a comment, but for commands and addresses in it; of code rustfmt takes care.
const COLUMNS: usize = 100;

/// Unfinished work, and what belongs to one machine or one person's tools.
const FORBIDDEN: [&str; 12] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("unimpl", "emented!"),
    concat!("to", "do!("),
    concat!("/wo", "rk/"),
    concat!("/tmp/bri", "ef"),
    concat!("index.crat", "es.io"),
    concat!("static.crat", "es.io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
];

fn rust_files() -> Vec<File> {
    let mut all = files().expect("the repository can be read");
    all.retain(|file| file.has_extension("rs"));
    assert!(all.len() > 20, "only {} Rust files were found: is the walk broken?", all.len());
    all
}

fn fail_with(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let mut found = Vec::new();
    for file in rust_files() {
        if !file.text.starts_with("//! ") {
            found.push(file.path);
        }
    }
    fail_with("files that do not open with `//! `", &found);
}

#[test]
fn lengths_keep_to_the_rule_or_to_the_list() {
    let list = std::fs::read_to_string(root().join("tests/tidy/allowed.txt"))
        .expect("tests/tidy/allowed.txt exists");
    let mut allowed = BTreeMap::new();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (what, lines) = line.rsplit_once(' ').expect("an entry is `PATH[:FUNCTION] LINES`");
        allowed.insert(what.to_owned(), lines.parse::<usize>().expect("LINES is a number"));
    }
    let mut long = BTreeMap::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            long.insert(file.path.clone(), lines);
        }
        for function in rust::functions(&file.text) {
            if function.lines > FUNCTION_LINES {
                long.insert(format!("{}:{}", file.path, function.name), function.lines);
            }
        }
    }
    let names: BTreeSet<_> = long.keys().chain(allowed.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        match (long.get(name), allowed.get(name)) {
            (Some(lines), None) => found.push(format!("{name} has {lines} lines")),
            (Some(lines), Some(most)) if lines > most => {
                found.push(format!("{name} has {lines} lines, more than the {most} allowed"));
            }
            (Some(lines), Some(most)) if lines < most => {
                found.push(format!("{name} shrank to {lines} lines: write that in the list"));
            }
            (None, Some(_)) => found.push(format!("{name} keeps to the rule: leave it out")),
            _ => {}
        }
    }
    fail_with(
        &format!("longer than {FILE_LINES} lines a file or {FUNCTION_LINES} a function"),
        &found,
    );
}

#[test]
fn comments_fit_the_page() {
    let mut found = Vec::new();
    for file in rust_files() {
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            let breakable = !line.contains('`') && !line.contains("://");
            if columns > COLUMNS && breakable && line.trim_start().starts_with("//") {
                found.push(format!("{}:{}: {columns} columns", file.path, index + 1));
            }
        }
    }
    fail_with(&format!("comments longer than {COLUMNS} columns"), &found);
}

#[test]
fn nothing_is_unfinished_or_of_one_machine() {
    let mut found = Vec::new();
    for file in files().expect("the repository can be read") {
        if file.path == "Cargo.lock" || file.path.ends_with("/Cargo.lock") {
            continue;
        }
        for (index, line) in file.text.lines().enumerate() {
            for word in FORBIDDEN.iter().filter(|word| line.contains(*word)) {
                found.push(format!("{}:{}: {word}", file.path, index + 1));
            }
        }
    }
    fail_with("words that do not belong here", &found);
}

#[test]
fn every_limit_has_a_reason() {
    let mut found = Vec::new();
    for file in rust_files() {
        for (line, name) in rust::undocumented_limits(&file.text) {
            found.push(format!("{}:{line}: {name}", file.path));
        }
    }
    fail_with("limits without a doc comment that gives the reason", &found);
}

#[test]
fn links_lead_somewhere() {
    let all = files().expect("the repository can be read");
    let mut found = Vec::new();
    let mut links = 0;
    for file in all.iter().filter(|file| file.has_extension("md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, link) in markdown::links(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                root().join(&file.path)
            } else {
                root().join(folder).join(path)
            };
            let leads = target.exists()
                && (anchor.is_empty()
                    || std::fs::read_to_string(&target)
                        .is_ok_and(|text| markdown::anchors(&text).iter().any(|a| a == anchor)));
            if !leads {
                found.push(format!("{}:{line}: {link}", file.path));
            }
        }
    }
    assert!(links > 10, "only {links} links were found: is the reader broken?");
    fail_with("links that lead nowhere", &found);
}

#[test]
fn documents_named_in_code_exist() {
    let mut found = Vec::new();
    for file in rust_files() {
        for (index, line) in file.text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric() && !"/._-".contains(c));
            for word in words.filter(|word| word.starts_with("docs/") && word.ends_with(".md")) {
                if !root().join(word).exists() {
                    found.push(format!("{}:{}: {word}", file.path, index + 1));
                }
            }
        }
    }
    fail_with("documents that don't exist", &found);
}
