//! Where the cgroup hierarchies are mounted and which controllers the kernel has.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Where cgroups are mounted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CgroupMounts {
    /// The one tree of version 2.
    pub v2: Option<PathBuf>,
    /// The trees of version 1, by controller (`cpu`, `memory`, …; named ones as `name=…`).
    pub v1: BTreeMap<String, PathBuf>,
}

/// `/proc/self/mountinfo`. Of several mounts of one tree the first counts.
pub fn cgroup_mounts(mountinfo: &str) -> CgroupMounts {
    let mut mounts = CgroupMounts::default();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let Some(point) = front.split(' ').nth(4) else { continue };
        let mut back = back.split(' ');
        let (Some(kind), Some(options)) = (back.next(), back.nth(1)) else { continue };
        match kind {
            "cgroup2" => {
                mounts.v2.get_or_insert_with(|| unescape(point));
            }
            "cgroup" => {
                // Flags such as rw stand among the controllers; nobody looks for them.
                for option in options.split(',') {
                    mounts.v1.entry(option.to_owned()).or_insert_with(|| unescape(point));
                }
            }
            _ => {}
        }
    }
    for flag in ["rw", "ro", "noprefix", "xattr", "clone_children"] {
        mounts.v1.remove(flag);
    }
    mounts
}

/// Paths in mountinfo write space, tab, newline and backslash as `\040` and so on.
fn unescape(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| {
            digits.iter().try_fold(0_u8, |code, digit| {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
                code.checked_mul(8)?.checked_add(digit)
            })
        });
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// `/proc/self/cgroup`: the own cgroup's path by controller of version 1; that of version 2
/// under the empty name.
pub fn own_cgroups(text: &str) -> BTreeMap<String, String> {
    let mut own = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        for name in names.split(',') {
            own.insert(name.to_owned(), path.to_owned());
        }
    }
    own
}

/// `/proc/cgroups`: each controller that the kernel was built with, and whether it is on.
pub fn controllers_enabled(text: &str) -> BTreeMap<String, bool> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        Some((name.to_owned(), fields.nth(2)? != "0"))
    };
    lines.filter_map(row).collect()
}
