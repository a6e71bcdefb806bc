//! What containers may and may not, read off their descriptions.

use super::*;
use crate::cgroup::Cgroups;
use marram_backend_api::Mount;
use std::path::Path;

fn image() -> Image {
    Image {
        chain_id: String::new(),
        diff_ids: Vec::new(),
        environment: vec!["PATH=/opt/bin".into(), "LANG=C".into()],
        entrypoint: vec!["/entry".into()],
        command: vec!["serve".into()],
        working_dir: "srv".into(),
        user: String::new(),
        stop_signal: None,
    }
}

fn described(spec: &Spec, limits: &Limits) -> Result<serde_json::Value> {
    let id = WorkloadId::new("w-1").unwrap();
    let cgroups = Cgroups::of_host();
    let host = Host { cgroups: &cgroups, cgroup: "/marram/w-1".into(), limits };
    let user = User { uid: 33, gid: 34, groups: vec![29], home: None };
    let description = describe(&id, spec, &image(), &user, &host)?;
    Ok(serde_json::to_value(description).unwrap())
}

#[test]
fn a_container_is_confined_by_default() {
    let value = described(&Spec::default(), &Limits::default()).unwrap();
    let process = &value["process"];
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["user"]["uid"], 33);
    assert_eq!(process["user"]["additionalGids"][0], 29);
    let bounding = process["capabilities"]["bounding"].as_array().unwrap();
    let has = |name: &str| bounding.iter().any(|capability| capability == name);
    assert!(has("CAP_CHOWN") && !has("CAP_SYS_ADMIN") && !has("CAP_NET_RAW"));
    let linux = &value["linux"];
    assert_eq!(linux["cgroupsPath"], "/marram/w-1");
    assert_eq!(linux["resources"]["devices"][0]["allow"], false);
    assert_eq!(linux["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    let namespaces: Vec<&str> = linux["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|namespace| namespace["type"].as_str().unwrap())
        .collect();
    assert!(["pid", "ipc", "uts", "mount"].iter().all(|name| namespaces.contains(name)));
    assert!(!namespaces.contains(&"network") && !namespaces.contains(&"user"));
    assert_eq!(value["hostname"], "w-1");
    assert_eq!(value["root"]["readonly"], false);
}

#[test]
fn the_request_goes_over_the_image() {
    let mut spec = Spec::default();
    let value = described(&spec, &Limits::default()).unwrap();
    assert_eq!(value["process"]["args"], serde_json::json!(["/entry", "serve"]));
    assert_eq!(value["process"]["cwd"], "/srv");
    assert_eq!(value["process"]["env"], serde_json::json!(["HOME=/", "LANG=C", "PATH=/opt/bin"]));
    spec.args = vec!["sh".into(), "-c".into(), "true".into()];
    spec.working_dir = Some("/tmp".into());
    spec.environment.insert("LANG".into(), "de".into());
    spec.read_only_root = true;
    let value = described(&spec, &Limits::default()).unwrap();
    assert_eq!(value["process"]["args"], serde_json::json!(["sh", "-c", "true"]));
    assert_eq!(value["process"]["cwd"], "/tmp");
    assert!(value["process"]["env"].as_array().unwrap().iter().any(|entry| entry == "LANG=de"));
    assert_eq!(value["root"]["readonly"], true);
}

#[test]
fn mounts_are_followed_before_they_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("open")).unwrap();
    std::fs::create_dir(root.join("closed")).unwrap();
    std::os::unix::fs::symlink(root.join("closed"), root.join("open/way-out")).unwrap();
    let limits = Limits { mount_roots: vec![root.join("open")], ..Limits::default() };
    let kind = |source: &Path, target: &str| {
        let mounts = vec![Mount { source: source.into(), target: target.into(), read_only: true }];
        let spec = Spec { mounts, ..Spec::default() };
        check_mounts(&spec, &limits).err().map(|error| error.kind)
    };
    assert_eq!(kind(&root.join("open"), "/data"), None);
    assert_eq!(kind(&root.join("closed"), "/data"), Some(ErrorKind::Unsupported));
    assert_eq!(kind(&root.join("open/way-out"), "/data"), Some(ErrorKind::Unsupported));
    assert_eq!(kind(&root.join("open/../closed"), "/data"), Some(ErrorKind::Unsupported));
    assert_eq!(kind(&root.join("open/absent"), "/data"), Some(ErrorKind::NotFound));
    for target in ["data", "/", "/a/../b", ""] {
        assert_eq!(kind(&root.join("open"), target), Some(ErrorKind::Invalid), "{target}");
    }
    let mounts = vec![Mount { source: root.join("open"), target: "/data".into(), read_only: true }];
    let value = described(&Spec { mounts, ..Spec::default() }, &limits).unwrap();
    let last = value["mounts"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["destination"], "/data");
    assert!(last["options"].as_array().unwrap().iter().any(|option| option == "ro"));
}

#[test]
fn devices_are_given_only_if_allowed() {
    let spec = Spec { devices: vec!["/dev/null".into()], ..Spec::default() };
    let error = check_devices(&spec, &Limits::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    let limits = Limits { devices: vec!["/dev/null".into(), "/etc".into()], ..Limits::default() };
    let value = described(&spec, &limits).unwrap();
    assert_eq!(value["linux"]["devices"][0]["major"], 1);
    assert_eq!(value["linux"]["resources"]["devices"][1]["minor"], 3);
    let no_device = Spec { devices: vec!["/etc".into()], ..Spec::default() };
    assert_eq!(check_devices(&no_device, &limits).unwrap_err().kind, ErrorKind::Invalid);
}

#[test]
fn an_image_without_a_command_needs_one() {
    let mut image = image();
    image.entrypoint.clear();
    image.command.clear();
    assert_eq!(arguments(&Spec::default(), &image).unwrap_err().kind, ErrorKind::Invalid);
}
