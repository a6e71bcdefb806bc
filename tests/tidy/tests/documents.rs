//! What operators and clients may write is written down: every configuration key, every field of
//! our own in a descriptor, every path of REST.

use std::fs;

fn read(path: &str) -> String {
    fs::read_to_string(marram_tidy::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Names of the fields of a struct, in its source.
fn fields<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("struct {name} {{\n");
    let at = source.find(&start).unwrap_or_else(|| panic!("there is no struct {name}"));
    let body = source[at + start.len()..].split("\n}").next().unwrap_or_default();
    let declared = body.lines().filter_map(|line| line.trim().split_once(": "));
    let names = declared.map(|(name, _)| name.trim_start_matches("pub "));
    let names = names.map(|name| name.trim_start_matches("r#"));
    names.filter(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).collect()
}

fn missing(page: &str, wanted: impl IntoIterator<Item = String>) -> Vec<String> {
    wanted.into_iter().filter(|word| !page.contains(word)).collect()
}

#[test]
fn every_configuration_key_is_written_down() {
    let page = read("docs/CONFIGURATION.md");
    let node = "engine/node/src/config.rs";
    let parts = [
        ("orchestrator/root/src/config.rs", "Config", ""),
        ("orchestrator/cluster/src/config.rs", "File", ""),
        (node, "Config", ""),
        (node, "Coordinates", "coordinates."),
        (node, "Reserved", "reserved."),
        (node, "Native", "native."),
        (node, "Containerd", "containerd."),
    ];
    for (path, name, prefix) in parts {
        let source = read(path);
        let tables = ["children", "coordinates", "reserved", "native", "containerd", "registries"];
        let keys = fields(&source, name);
        assert!(keys.len() > 1, "{path}: only {keys:?} were found: is the reader broken?");
        let keys = keys.into_iter().filter(|key| !tables.contains(key));
        let missing = missing(&page, keys.map(|key| format!("`{prefix}{key}`")));
        assert!(missing.is_empty(), "docs/CONFIGURATION.md does not name {missing:?} of {path}");
    }
}

#[test]
fn every_field_of_our_own_is_written_down() {
    let page = read("docs/CONFIGURATION.md");
    let source = read("protocol/src/sla/model.rs");
    let own = fields(&source, "MarramFields");
    assert!(own.len() > 10, "only {own:?} were found: is the reader broken?");
    let own = own.into_iter().filter(|field| *field != "extra");
    let missing = missing(&page, own.map(|field| format!("`{field}`")));
    assert!(missing.is_empty(), "docs/CONFIGURATION.md does not name {missing:?}");
}

#[test]
fn every_path_of_rest_is_written_down() {
    let page = read("docs/REST.md");
    let mut paths = Vec::new();
    for file in ["oakestra", "v1"] {
        let source = read(&format!("orchestrator/root/src/rest/{file}/mod.rs"));
        let routes = source.lines().filter_map(|line| line.trim().strip_prefix("(\"/"));
        paths.extend(routes.filter_map(|rest| Some(format!("/{}", rest.split_once('"')?.0))));
    }
    assert!(paths.len() > 20, "only {paths:?} were found: is the reader broken?");
    // The lists stand in one row, by their last word.
    let lists = ["services", "instances", "clusters", "nodes"];
    let shown = |path: &String| match path.strip_prefix("/api/v1/") {
        Some(kind) if lists.contains(&kind) => format!("`{kind}`"),
        _ => path.clone(),
    };
    let missing = missing(&page, paths.iter().map(shown));
    assert!(missing.is_empty(), "docs/REST.md does not name {missing:?}");
}
