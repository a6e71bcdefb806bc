//! The crate graph is the one that ARCHITECTURE.md describes: no arrow more, no arrow less.
//!
//! An edge that is wanted is added to the table here, in the same change; that is the place where
//! a reviewer sees it.

use std::collections::{BTreeMap, BTreeSet};

use marram_tidy::graph::{self, Crate};

/// A crate and the crates of the workspace that it may use.
type Edges = &'static [(&'static str, &'static [&'static str])];

const NORMAL: Edges = &[
    ("marram", &["marram-protocol"]),
    ("marram-backend-api", &[]),
    ("marram-backend-mock", &["marram-backend-api"]),
    (
        "marram-bench",
        &[
            "marram-backend-api",
            "marram-e2e",
            "marram-engine-core",
            "marram-orchestrator-core",
            "marram-protocol",
        ],
    ),
    ("marram-broker", &[]),
    (
        "marram-cluster",
        &[
            "marram-broker",
            "marram-orchestrator-core",
            "marram-protocol",
            "marram-rest",
            "marram-store",
            "marram-tunnel",
        ],
    ),
    ("marram-containerd", &["marram-backend-api", "marram-shim"]),
    ("marram-e2e", &[]),
    ("marram-engine-core", &["marram-backend-api", "marram-protocol"]),
    ("marram-host", &[]),
    ("marram-native", &["marram-backend-api", "marram-shim"]),
    (
        "marram-node",
        &[
            "marram-backend-api",
            "marram-containerd",
            "marram-engine-core",
            "marram-host",
            "marram-native",
            "marram-protocol",
        ],
    ),
    ("marram-orchestrator-core", &["marram-placement", "marram-protocol"]),
    ("marram-placement", &[]),
    ("marram-protocol", &[]),
    ("marram-rest", &["marram-orchestrator-core", "marram-protocol", "marram-tunnel"]),
    (
        "marram-root",
        &[
            "marram-orchestrator-core",
            "marram-protocol",
            "marram-rest",
            "marram-store",
            "marram-tunnel",
        ],
    ),
    ("marram-shim", &[]),
    (
        "marram-sim",
        &[
            "marram-backend-api",
            "marram-engine-core",
            "marram-orchestrator-core",
            "marram-protocol",
        ],
    ),
    ("marram-store", &[]),
    ("marram-tidy", &[]),
    ("marram-tunnel", &["marram-protocol"]),
];

/// What tests use beyond that, or with more features: the contract's conformance suite, and the
/// endpoint that nodes connect to.
const DEV: Edges = &[
    ("marram-backend-mock", &["marram-backend-api"]),
    ("marram-containerd", &["marram-backend-api"]),
    ("marram-native", &["marram-backend-api"]),
    ("marram-node", &["marram-broker"]),
];

/// Crates without I/O, and the outside crates that they may name: no runtime, clock or randomness.
const PURE: Edges = &[
    ("marram-engine-core", &["postcard", "serde", "thiserror"]),
    ("marram-orchestrator-core", &["postcard", "serde", "thiserror"]),
    ("marram-placement", &["thiserror"]),
    ("marram-protocol", &["postcard", "serde", "serde_json", "thiserror"]),
];

fn crates() -> BTreeMap<String, Crate> {
    graph::read(&marram_tidy::root()).expect("the workspace can be read")
}

/// Each `NAME -> OTHER` in which both are ours.
fn inner(
    crates: &BTreeMap<String, Crate>,
    side: impl Fn(&Crate) -> &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut edges = BTreeSet::new();
    for (name, found) in crates {
        for other in side(found).iter().filter(|other| crates.contains_key(*other)) {
            edges.insert(format!("{name} -> {other}"));
        }
    }
    edges
}

fn allowed(edges: Edges) -> BTreeSet<String> {
    let one = |(name, others): &(&str, &[&str])| -> Vec<String> {
        others.iter().map(|other| format!("{name} -> {other}")).collect()
    };
    edges.iter().flat_map(one).collect()
}

fn compare(found: &BTreeSet<String>, allowed: &BTreeSet<String>) {
    let new: Vec<_> = found.difference(allowed).collect();
    let gone: Vec<_> = allowed.difference(found).collect();
    assert!(new.is_empty(), "edges that no table allows: {new:#?}");
    assert!(gone.is_empty(), "edges in the table that nobody uses any more: {gone:#?}");
}

#[test]
fn crates_use_only_whom_they_may() {
    let crates = crates();
    compare(&inner(&crates, |found| &found.normal), &allowed(NORMAL));
    let listed: BTreeSet<_> = NORMAL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let present: BTreeSet<_> = crates.into_keys().collect();
    assert_eq!(present, listed, "each crate of the workspace has a line in the table");
}

#[test]
fn tests_use_only_whom_they_may() {
    compare(&inner(&crates(), |found| &found.dev), &allowed(DEV));
}

#[test]
fn pure_crates_name_no_runtime() {
    let crates = crates();
    for (name, outside) in PURE {
        for dependency in &crates[*name].normal {
            assert!(
                crates.contains_key(dependency) || outside.contains(&dependency.as_str()),
                "{name} does no I/O and may not depend on {dependency}; it may on {outside:?}",
            );
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for (name, found) in crates() {
        let manifest = std::fs::read_to_string(&found.manifest).expect("Cargo just read it");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name}: `[lints] workspace = true` is missing in its Cargo.toml"
        );
    }
}

#[test]
fn every_crate_is_on_the_map() {
    let map = std::fs::read_to_string(marram_tidy::root().join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md exists");
    for name in crates().keys() {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name `{name}`");
    }
}
