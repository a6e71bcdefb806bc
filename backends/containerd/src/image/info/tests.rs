//! Tables of good and bad manifests, indices and configurations.

use super::*;

fn id(n: u8) -> String {
    format!("sha256:{}", format!("{n:02x}").repeat(32))
}

fn entry(n: u8, platform: &str) -> String {
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let id = id(n);
    format!(r#"{{"mediaType":"{kind}","digest":"{id}","size":{n}{platform}}}"#)
}

fn platform(os: &str, architecture: &str, variant: &str) -> String {
    let variant = match variant {
        "" => String::new(),
        variant => format!(r#","variant":"{variant}""#),
    };
    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}"#)
}

fn chosen(entries: &[String], architecture: &str, variant: Option<&str>) -> Option<u64> {
    let text = format!("[{}]", entries.join(","));
    let entries: Vec<Entry> = serde_json::from_str(&text).unwrap();
    let host = Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: variant.map(str::to_owned),
    };
    choose(&entries, &host).ok().map(|descriptor| descriptor.size)
}

#[test]
fn the_platform_is_chosen_by_architecture_and_variant() {
    let entries = [
        entry(1, &platform("windows", "amd64", "")),
        entry(2, &platform("linux", "amd64", "")),
        entry(3, &platform("linux", "arm", "v5")),
        entry(4, &platform("linux", "arm", "v7")),
        entry(5, &platform("linux", "arm64", "v8")),
        entry(6, ""),
        entry(7, &platform("linux", "amd64", "")),
    ];
    assert_eq!(chosen(&entries, "amd64", None), Some(2));
    assert_eq!(chosen(&entries, "arm", Some("v7")), Some(4));
    assert_eq!(chosen(&entries, "arm", Some("v6")), Some(3));
    assert_eq!(chosen(&entries, "arm64", Some("v8")), Some(5));
    assert_eq!(chosen(&entries, "riscv64", None), None);
}

#[test]
fn a_manifest_is_read_whatever_its_format() {
    for kind in ["oci.image.manifest.v1", "docker.distribution.manifest.v2"] {
        let kind = format!("application/vnd.{kind}+json");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{},{}]}}"#,
            entry(1, ""),
            entry(2, ""),
            entry(3, "")
        );
        let (parsed, media_type) = parse(text.as_bytes(), &kind).unwrap();
        assert_eq!(media_type, kind);
        let Parsed::Manifest(manifest) = parsed else { panic!("an index") };
        assert_eq!(manifest.layers.len(), 2);
        assert_eq!(manifest.references()["containerd.io/gc.ref.content.l.1"], id(3));
        assert!(parse(text.as_bytes(), "application/json").is_err());
    }
}

#[test]
fn bad_manifests_are_refused_with_a_reason() {
    let one = entry(1, "");
    let many = vec![entry(1, ""); LAYERS_MAX + 1].join(",");
    let huge = one.replace("\"size\":1", &format!("\"size\":{}", u64::MAX));
    let with = |config: &str, layers: &str| {
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
    };
    let cases = [
        (String::new(), "no manifest"),
        ("[]".to_owned(), "no manifest"),
        (r#"{"schemaVersion":1}"#.to_owned(), "schema 1"),
        (r#"{"schemaVersion":2}"#.to_owned(), "no manifest for linux"),
        (with(&one, ""), "0 layers"),
        (with(&one, &many), "128 layers"),
        (with(&one, &format!("{huge},{huge}")), "larger"),
        (with(&huge, &one), "configuration"),
        (
            with(&one, &one).replacen(
                "\"config\"",
                &format!("\"manifests\":[{one}],\"config\""),
                1,
            ),
            "both",
        ),
        (with(&one, &one).replace("sha256:", "sha512:"), "only sha256"),
        (with(&one, &one).replace("layer.v1.tar", "other"), "layer of type"),
    ];
    for (text, expected) in cases {
        let error = parse(text.as_bytes(), "").unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn chains_are_named_as_the_format_says() {
    let ids = [id(1), id(2), id(3)];
    let chain = chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    assert_eq!(chain[1], sha256(format!("{} {}", ids[0], ids[1]).as_bytes()));
    assert_eq!(chain[2], sha256(format!("{} {}", chain[1], ids[2]).as_bytes()));
}

#[test]
fn a_configuration_without_the_right_layers_is_refused() {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux",
            "rootfs":{{"type":"layers","diff_ids":["{}"]}},
            "config":{{"Env":["A=b"],"Cmd":["c"],"User":"u","StopSignal":"SIGQUIT"}},"history":[]}}"#,
        id(1)
    );
    let image = configuration(text.as_bytes(), 1).unwrap();
    assert_eq!((image.chain_id, image.command), (id(1), vec!["c".to_owned()]));
    assert!(configuration(text.as_bytes(), 2).is_err());
    assert!(configuration(b"{}", 1).is_err());
    assert!(configuration(text.replace("sha256:", "md5:").as_bytes(), 1).is_err());
}
