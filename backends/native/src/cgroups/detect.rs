//! Finding the hierarchies: pure functions of two files of `/proc`, and the one look at a
//! mark that systemd leaves.

use super::{CONTROLLERS, Cgroups, Unified};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Parent of all workloads where nothing else is said.
const DEFAULT_PARENT: &str = "marram";

/// What is mounted where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mounted {
    /// Version 1: mount point of each controller.
    pub(super) v1: BTreeMap<String, PathBuf>,
    /// Version 2: its mount point.
    pub(super) v2: Option<PathBuf>,
}

/// Looks at this host.
pub(super) fn host(parent: Option<&Path>) -> Result<Cgroups, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let mounted = mounted(&read("/proc/self/mountinfo")?);
    let own = own_v2(&read("/proc/self/cgroup")?);
    let controllers = match &mounted.v2 {
        Some(root) => fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default(),
        None => String::new(),
    };
    let delegated = match (&mounted.v2, own) {
        (Some(root), Some(own)) => delegated(root, &own),
        _ => None,
    };
    choose(mounted, &controllers, parent, delegated)
}

/// Which hierarchies are used, and the parent in each.
pub(super) fn choose(
    mounted: Mounted,
    v2_controllers: &str,
    parent: Option<&Path>,
    delegated: Option<PathBuf>,
) -> Result<Cgroups, String> {
    let plain = parent.unwrap_or(Path::new(DEFAULT_PARENT));
    let plain = plain.strip_prefix("/").unwrap_or(plain);
    let is_plain = |part| matches!(part, std::path::Component::Normal(_));
    if plain.as_os_str().is_empty() || !plain.components().all(is_plain) {
        return Err(format!("the cgroup parent {} is no plain path", plain.display()));
    }
    let v1: BTreeMap<String, PathBuf> =
        mounted.v1.into_iter().map(|(name, root)| (name, root.join(plain))).collect();
    // The unified tree of a hybrid host has no controllers: nothing to gain there.
    let useful = v2_controllers
        .split_whitespace()
        .any(|name| !v1.contains_key(name) && super::is_useful_v2(name));
    let v2 = mounted.v2.filter(|_| useful).map(|root| {
        match (parent, delegated) {
            // The levels above a delegated group are its owner's, who passes on what we get.
            (None, Some(own)) => Unified { from: own.clone(), parent: own },
            _ => Unified { parent: root.join(plain), from: root },
        }
    });
    if v1.is_empty() && v2.is_none() {
        return Err("this host has no cgroup hierarchy with a useful controller mounted".into());
    }
    Ok(Cgroups { v1, v2 })
}

/// Reads `mountinfo`: the mount point is the fifth field, what comes after ` - ` are type,
/// source and options.
pub(super) fn mounted(mountinfo: &str) -> Mounted {
    let mut found = Mounted::default();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4).map(unescaped) else { continue };
        let kind: Vec<&str> = kind.split(' ').collect();
        match kind.as_slice() {
            ["cgroup", _, options] => {
                for name in options.split(',').filter(|name| CONTROLLERS.contains(name)) {
                    // The first mount is the usual one; others show the same tree.
                    found.v1.entry(name.to_owned()).or_insert_with(|| point.clone());
                }
            }
            ["cgroup2", ..] => {
                found.v2.get_or_insert(point);
            }
            _ => {}
        }
    }
    found
}

/// The kernel writes blanks in paths as `\040` and so on.
fn unescaped(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

/// Our own group in the version 2 tree, from `/proc/self/cgroup`.
pub(super) fn own_v2(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.trim_start_matches('/').into())
}

/// Our own group if systemd has handed it over (`Delegate=yes`), which it marks.
fn delegated(root: &Path, own: &Path) -> Option<PathBuf> {
    // An engine that was started before has put itself into a leaf.
    let own = match own.file_name() {
        Some(name) if name == super::ENGINE_LEAF => own.parent()?,
        _ => own,
    };
    let path = root.join(own);
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|mark| {
            let mut value = [0u8; 1];
            rustix::fs::getxattr(&path, *mark, &mut value).is_ok() && value == *b"1"
        })
        .then_some(path)
}
