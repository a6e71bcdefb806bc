//! The crate graph as Cargo sees it: who depends on whom, and for what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a crate names in its own manifest.
#[derive(Debug, Default)]
pub struct Crate {
    /// Path of its `Cargo.toml`.
    pub manifest: String,
    /// Needed to run it, inside the workspace and outside.
    pub normal: BTreeSet<String>,
    /// Needed by its tests only.
    pub dev: BTreeSet<String>,
}

/// The crates of the workspace by name.
///
/// # Errors
/// What Cargo printed, when it cannot read the workspace.
pub fn read(root: &Path) -> Result<BTreeMap<String, Crate>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("metadata: {error}"))?;
    Ok(parse(&metadata))
}

fn parse(metadata: &Value) -> BTreeMap<String, Crate> {
    let mut crates = BTreeMap::new();
    for package in members(&metadata["packages"]) {
        let mut found = Crate { manifest: text(&package["manifest_path"]), ..Crate::default() };
        for dependency in members(&package["dependencies"]) {
            let name = text(&dependency["name"]);
            match dependency["kind"].as_str() {
                None => found.normal.insert(name),
                Some("dev") => found.dev.insert(name),
                Some(_) => continue,
            };
        }
        crates.insert(text(&package["name"]), found);
    }
    crates
}

fn members(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let metadata = serde_json::json!({"packages": [{
            "name": "a", "manifest_path": "/a/Cargo.toml",
            "dependencies": [
                {"name": "b", "kind": null},
                {"name": "c", "kind": "dev"},
                {"name": "d", "kind": "build"},
            ],
        }]});
        let crates = parse(&metadata);
        assert_eq!(crates["a"].normal, BTreeSet::from(["b".to_owned()]));
        assert_eq!(crates["a"].dev, BTreeSet::from(["c".to_owned()]));
    }
}
