//! Shows that the simulator has teeth: breaks the cores on purpose, one small change at a time
//! in a copy of the repository, and lets worlds run until one ends badly.
//!
//! `cargo run -p marram-sim --bin mutations [NAME]` from anywhere in the repository; NAME is
//! part of a mutation's name. The list is tests/sim/mutations.txt: `=== name`, `--- file`, the
//! lines to be found, `>>>`, the lines that take their place. It fails if a mutation does not
//! apply to exactly one place, does not compile, or is not caught. The result is a table.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Worlds that may fail to catch a mutation before it counts as not caught.
const WORLDS: &str = "700";

/// What is broken, and how.
struct Mutation<'a> {
    name: &'a str,
    file: &'a str,
    find: String,
    with: String,
}

/// The scratch copy.
struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is left to tell if this fails.
            drop(writeln!(std::io::stderr(), "{why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &str) -> Result<(), Box<dyn Error>> {
    let root =
        PathBuf::from(output("git", &["rev-parse", "--show-toplevel"], Path::new("."))?.trim());
    let text = fs::read_to_string(root.join("tests/sim/mutations.txt"))?;
    let mutations = read(&text)?;
    for Mutation { name, file, find, .. } in &mutations {
        let places = fs::read_to_string(root.join(file))?.matches(find).count();
        if places != 1 {
            return Err(format!("{name:?} applies to {places} places in {file}").into());
        }
    }
    let scratch = Scratch::make(&root)?;
    scratch.build()?;
    if let Some(failure) = scratch.hunt()? {
        return Err(format!("the unbroken cores fail already:\n{failure}").into());
    }
    say("| mutation | file | caught by |\n|---|---|---|")?;
    let mut missed = Vec::new();
    for mutation in mutations.iter().filter(|mutation| mutation.name.contains(wanted)) {
        let path = scratch.tree.join(mutation.file);
        let before = fs::read_to_string(&path)?;
        fs::write(&path, before.replacen(&mutation.find, &mutation.with, 1))?;
        scratch.build()?;
        let caught = scratch.hunt()?;
        fs::write(&path, before)?;
        let told = caught.as_deref().unwrap_or("**nothing**").replace('|', "/");
        say(&format!("| {} | {} | {told} |", mutation.name, mutation.file))?;
        if caught.is_none() {
            missed.push(mutation.name);
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {missed:?}").into()) }
}

fn read(text: &str) -> Result<Vec<Mutation<'_>>, Box<dyn Error>> {
    let mut mutations = Vec::new();
    for block in text.split("=== ").skip(1) {
        let odd = || format!("tests/sim/mutations.txt: not understood: {block}");
        let (name, rest) = block.split_once("\n--- ").ok_or_else(odd)?;
        let (file, rest) = rest.split_once('\n').ok_or_else(odd)?;
        let (find, with) = rest.split_once(">>>\n").ok_or_else(odd)?;
        // An empty line before the next mutation is no part of this one.
        let with = with.strip_suffix("\n\n").map_or(with.to_owned(), |with| format!("{with}\n"));
        mutations.push(Mutation { name, file, find: find.to_owned(), with });
    }
    Ok(mutations)
}

impl Scratch {
    /// Copies what git knows of, as it lies there now.
    fn make(root: &Path) -> Result<Self, Box<dyn Error>> {
        let base = root.join("target/mutations");
        let scratch = Self { tree: base.join("tree"), target: base.join("target") };
        if scratch.tree.exists() {
            fs::remove_dir_all(&scratch.tree)?;
        }
        let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        for name in output("git", &listed, root)?.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (root.join(name), scratch.tree.join(name));
            if !from.is_file() {
                continue;
            }
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::copy(from, to)?;
        }
        Ok(scratch)
    }

    fn build(&self) -> Result<(), Box<dyn Error>> {
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--offline", "-p", "marram-sim", "--bin", "marram-sim"])
            .env("CARGO_TARGET_DIR", &self.target)
            .current_dir(&self.tree)
            .status()?;
        if built.success() { Ok(()) } else { Err("it does not compile".into()) }
    }

    /// What the first world that ends badly says, if one does.
    fn hunt(&self) -> Result<Option<String>, Box<dyn Error>> {
        let program = self.target.join("debug/marram-sim");
        let hunted = Command::new(program).args(["hunt", "0", WORLDS]).output()?;
        if hunted.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&hunted.stdout);
        let line = said.lines().find(|line| !line.is_empty()).unwrap_or("it ended").to_owned();
        Ok(Some(line))
    }
}

fn output(program: &str, args: &[&str], at: &Path) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).args(args).current_dir(at).output()?;
    if !output.status.success() {
        return Err(format!("{program} {args:?} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn say(line: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}
