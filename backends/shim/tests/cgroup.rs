//! The supervisor's part of cgroups on the kernel's own trees: killing and freezing on
//! version 2, the notice of running out of memory on version 1. A tree that this host has
//! not mounted, or that this user may not write, is passed over with a word.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code outside of test functions")]

use marram_shim::cgroup::{Group, OomNotice, write};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// A directory in the tree of this kind, if there is one.
fn tree(kind: &str, option: &str, name: &str) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found = mounts.lines().find(|line| {
        let Some((_, kinds)) = line.split_once(" - ") else { return false };
        let words: Vec<&str> = kinds.split(' ').collect();
        words[0] == kind && words[2].split(',').any(|word| word == option)
    });
    let point = found.and_then(|line| line.split(' ').nth(4));
    let dir = Path::new(point?).join(format!("marram-shim-{name}.{}", std::process::id()));
    match std::fs::create_dir(&dir) {
        Ok(()) => Some(dir),
        Err(error) => {
            eprintln!("passed over: {}: {error}", dir.display());
            None
        }
    }
}

/// A shell in the group that says when it is there.
fn shell(group: &Group, script: &str) -> Child {
    let join: String = group
        .dirs()
        .iter()
        .map(|dir| format!("echo 0 > {}/cgroup.procs;", dir.display()))
        .collect();
    let mut child = Command::new("sh")
        .args(["-c", &format!("{join} echo up; {script}")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    child
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn version_two_freezes_and_kills_all() {
    let Some(dir) = tree("cgroup2", "rw", "v2") else { return };
    let group = Group { v2: Some(dir), ..Group::default() };
    let mut child = shell(&group, "sleep 1000 & sleep 1000 & wait");
    until("the children to be there", || group.pids().unwrap().len() == 3);
    assert!(group.can_freeze() && !group.is_freezing());
    group.freeze(true).unwrap();
    until("the group to be still", || group.is_frozen());
    assert!(group.is_freezing());
    // Frozen ones can be killed as they are.
    assert!(group.kill().unwrap() >= 3);
    until("the group to be empty", || group.kill().unwrap() == 0);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    until("the group to be removed", || group.remove().is_ok());
    group.remove().unwrap();
}

#[test]
fn version_one_tells_of_running_out_of_memory_without_a_counter() {
    let Some(dir) = tree("cgroup", "memory", "oom") else { return };
    let group = Group {
        v1: [("memory".to_owned(), dir.clone())].into_iter().collect(),
        ..Group::default()
    };
    write(&dir.join("memory.limit_in_bytes"), "16777216").unwrap();
    let notice = OomNotice::register(&group).unwrap().unwrap();
    assert!(!notice.happened());
    let mut child = shell(&group, "x=0123456789abcdef; while :; do x=$x$x; done");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(notice.happened(), "nothing was heard of it");
    assert!(group.oom_kills().unwrap_or(1) > 0);
    drop(notice);
    until("the group to be removed", || group.remove().is_ok());
}
