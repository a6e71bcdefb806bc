//! Which runtimes are on this host and how containerd is told to use one.
//!
//! A runtime that is installed and cannot work here is not offered: crun refuses hosts on
//! which cgroup v1 and v2 share the controllers between them.
//!
//! A runtime is a shim that containerd starts (`io.containerd.runc.v2` is the program
//! `containerd-shim-runc-v2`) and options for it. Four are known by name; the others come
//! from containerd's own configuration, where an administrator lists them.

use crate::config::Config;
use marram_backend_api::{Error, ErrorKind, Result};
use prost::Message;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where programs are looked for besides `PATH`: containerd's own may be longer than ours.
const FOLDERS: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/opt/kata/bin",
];

/// Largest containerd configuration that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

const RUNC: &str = "io.containerd.runc.v2";

/// Name of the script below.
const RUNSC_SCRIPT: &str = "runsc-on-host-network";

/// A runtime that is there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Runtime {
    /// As asked for: `runc`, `crun`, `kata`, …
    pub(crate) name: String,
    /// As containerd calls it.
    pub(crate) handler: String,
    /// For its shim.
    pub(crate) options: Option<prost_types::Any>,
    /// A script that must be there, and its text.
    script: Option<(PathBuf, String)>,
}

/// `containerd.runc.v1.Options`, the fields that are set here.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "6")]
    binary_name: String,
}

/// `runtimeoptions.v1.Options`, the fields that are set here.
#[derive(Clone, PartialEq, Message)]
struct OtherOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
}

/// The runtimes that are there; the first is what containerd itself would take.
pub(crate) fn detect(config: &Config) -> Vec<Runtime> {
    let mut found =
        detect_in(&folders(), &read_config(&config.containerd_config), &config.state_dir);
    if shares_controllers(&root_of_daemon(config)) {
        found.retain(|one| !one.is_crun());
    }
    found
}

/// The runtime called `name`, or the default.
pub(crate) fn choose(config: &Config, name: Option<&str>) -> Result<Runtime> {
    const DOING: &str = "choosing the runtime";
    let all = detect(config);
    let there = || all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
    let wanted = name.or(config.default_runtime.as_deref());
    let found = all.iter().find(|one| wanted.is_none_or(|wanted| wanted == one.name));
    found.cloned().ok_or_else(|| {
        let wanted = wanted.unwrap_or("any");
        let why = format!("{wanted:?} does not work on this host, which has [{}]", there());
        Error::new(ErrorKind::Unsupported, DOING, why)
    })
}

impl Runtime {
    /// Makes what containerd needs to find.
    pub(crate) fn ready(&self) -> Result<()> {
        let Some((path, text)) = &self.script else { return Ok(()) };
        if std::fs::read_to_string(path).is_ok_and(|there| there == *text) {
            return Ok(());
        }
        write_program(path, text).map_err(|error| {
            let why = format!("{} cannot be written", path.display());
            Error::caused(ErrorKind::Internal, "making the runtime ready", why, error)
        })
    }

    fn is_crun(&self) -> bool {
        let program = self.options.as_ref().and_then(binary_name);
        program.is_some_and(|program| Path::new(&program).ends_with("crun"))
    }
}

/// The file system as containerd sees it: it may live in a mount namespace of its own.
fn root_of_daemon(config: &Config) -> PathBuf {
    let daemon = std::os::unix::net::UnixStream::connect(&config.socket).ok();
    let peer = daemon.and_then(|daemon| rustix::net::sockopt::socket_peercred(daemon).ok());
    match peer {
        Some(peer) => PathBuf::from(format!("/proc/{}/root", peer.pid.as_raw_nonzero())),
        None => PathBuf::from("/"),
    }
}

/// Whether the v2 tree beside a v1 one holds controllers.
fn shares_controllers(root: &Path) -> bool {
    let file = root.join("sys/fs/cgroup/unified/cgroup.controllers");
    std::fs::read_to_string(file).is_ok_and(|text| !text.trim().is_empty())
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    all.extend(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
    all
}

/// Whole or not at all: another workload may be starting it at this moment.
fn write_program(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o700))?;
    std::fs::rename(new, path)
}

fn find(folders: &[PathBuf], program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).is_file().then(|| program.into());
    }
    folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// `io.containerd.runc.v2` → `containerd-shim-runc-v2`.
fn shim(handler: &str) -> Option<String> {
    if handler.starts_with('/') {
        return Some(handler.to_owned());
    }
    let mut parts = handler.rsplit('.');
    let (version, name) = (parts.next()?, parts.next()?);
    Some(format!("containerd-shim-{name}-{version}"))
}

fn detect_in(folders: &[PathBuf], config: &toml::Table, state_dir: &Path) -> Vec<Runtime> {
    let there = |program: &str| find(folders, program);
    let has_shim = |handler: &str| shim(handler).and_then(|program| there(&program)).is_some();
    let plain = |name: &str, handler: &str| Runtime {
        name: name.into(),
        handler: handler.into(),
        options: None,
        script: None,
    };
    let mut all = Vec::new();
    if has_shim(RUNC) {
        if there("runc").is_some() {
            all.push(plain("runc", RUNC));
        }
        if let Some(path) = there("crun") {
            all.push(Runtime { options: Some(runc_options(&path)), ..plain("crun", RUNC) });
        }
        if let Some(path) = there("runsc") {
            all.push(gvisor(&path, state_dir));
        }
    }
    if has_shim("io.containerd.kata.v2") {
        all.push(plain("kata", "io.containerd.kata.v2"));
    }
    for listed in configured(config) {
        let program = listed.options.as_ref().and_then(binary_name);
        let complete =
            has_shim(&listed.handler) && program.is_none_or(|program| there(&program).is_some());
        if complete && !all.iter().any(|known| known.name == listed.name) {
            all.push(listed);
        }
    }
    all
}

/// gVisor behind runc's shim, whose command line it shares: its own shim knows no program that
/// takes the output, and Debian does not package it. gVisor takes the host's network only if
/// a flag says so, and runc's shim passes no flags, so a script adds it.
fn gvisor(program: &Path, state_dir: &Path) -> Runtime {
    let script = state_dir.join(RUNSC_SCRIPT);
    let text = format!("#!/bin/sh\nexec {} --network=host \"$@\"\n", program.display());
    Runtime {
        name: "runsc".into(),
        handler: RUNC.into(),
        options: Some(runc_options(&script)),
        script: Some((script, text)),
    }
}

fn runc_options(program: &Path) -> prost_types::Any {
    let options = RuncOptions { binary_name: program.to_string_lossy().into_owned() };
    let value = options.encode_to_vec();
    prost_types::Any { type_url: "containerd.runc.v1.Options".into(), value }
}

fn binary_name(options: &prost_types::Any) -> Option<String> {
    if options.type_url != "containerd.runc.v1.Options" {
        return None;
    }
    let name = RuncOptions::decode(options.value.as_slice()).ok()?.binary_name;
    (!name.is_empty()).then_some(name)
}

fn read_config(path: &Path) -> toml::Table {
    let small = std::fs::metadata(path).is_ok_and(|file| file.len() <= CONFIG_BYTES_MAX);
    if !small {
        return toml::Table::new();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.parse().unwrap_or_else(|error: toml::de::Error| {
        let error = error.message().to_owned();
        tracing::warn!(path = %path.display(), error, "containerd's configuration is not read");
        toml::Table::new()
    })
}

/// The runtimes in containerd's configuration; 2.x keeps them under another plugin than 1.x.
fn configured(config: &toml::Table) -> Vec<Runtime> {
    let mut all = Vec::new();
    for plugin in ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"] {
        let runtimes = ["plugins", plugin, "containerd", "runtimes"]
            .iter()
            .try_fold(config, |table, key| table.get(*key)?.as_table());
        for (name, runtime) in runtimes.into_iter().flatten() {
            let Some(handler) = runtime.get("runtime_type").and_then(toml::Value::as_str) else {
                continue;
            };
            let option = |key: &str| runtime.get("options")?.get(key)?.as_str().map(str::to_owned);
            let options = match (option("BinaryName"), option("ConfigPath")) {
                (Some(program), _) if handler == RUNC => Some(runc_options(Path::new(&program))),
                (_, Some(config_path)) => {
                    let type_url = option("TypeUrl").unwrap_or_default();
                    let value = OtherOptions { type_url, config_path }.encode_to_vec();
                    Some(prost_types::Any { type_url: "runtimeoptions.v1.Options".into(), value })
                }
                _ => None,
            };
            all.push(Runtime {
                name: name.clone(),
                handler: handler.to_owned(),
                options,
                script: None,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(programs: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        for program in programs {
            std::fs::write(dir.path().join(program), "").unwrap();
        }
        let folders = vec![dir.path().to_path_buf()];
        (dir, folders)
    }

    #[test]
    fn only_complete_runtimes_are_found() {
        let (_dir, folders) = host(&["containerd-shim-runc-v2", "crun"]);
        let found = detect_in(&folders, &toml::Table::new(), Path::new("/state"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].name.as_str(), found[0].handler.as_str()), ("crun", RUNC));
        let program = binary_name(found[0].options.as_ref().unwrap()).unwrap();
        assert!(program.ends_with("/crun"), "{program}");
        let (_dir, folders) = host(&["containerd-shim-kata-v2", "runc"]);
        let found = detect_in(&folders, &toml::Table::new(), Path::new("/state"));
        assert_eq!(found[0].handler, "io.containerd.kata.v2");
    }

    #[test]
    fn crun_is_not_offered_where_it_refuses_to_run() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!shares_controllers(dir.path()));
        let tree = dir.path().join("sys/fs/cgroup/unified");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join("cgroup.controllers"), "\n").unwrap();
        assert!(!shares_controllers(dir.path()));
        std::fs::write(tree.join("cgroup.controllers"), "hugetlb\n").unwrap();
        assert!(shares_controllers(dir.path()));
        let (_dir, folders) = host(&["containerd-shim-runc-v2", "runc", "crun"]);
        let found = detect_in(&folders, &toml::Table::new(), Path::new("/state"));
        assert_eq!(found.iter().filter(|one| one.is_crun()).count(), 1);
    }

    #[test]
    fn gvisor_is_told_to_use_the_network_of_the_host() {
        let (dir, folders) = host(&["containerd-shim-runc-v2", "runsc"]);
        let state = dir.path().join("state");
        let found = detect_in(&folders, &toml::Table::new(), &state);
        let [runsc] = found.as_slice() else { panic!("{found:?}") };
        runsc.ready().unwrap();
        runsc.ready().unwrap();
        let script = state.join(RUNSC_SCRIPT);
        assert_eq!(binary_name(runsc.options.as_ref().unwrap()).unwrap(), script.to_str().unwrap());
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.contains("/runsc --network=host"), "{text}");
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
    }

    #[test]
    fn listed_runtimes_come_after_the_known() {
        let (_dir, folders) =
            host(&["containerd-shim-runc-v2", "runc", "youki", "containerd-shim-wasm-v1"]);
        let config = r#"
            version = 2
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
            runtime_type = "io.containerd.other.v1"
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.youki]
            runtime_type = "io.containerd.runc.v2"
            options = { BinaryName = "youki" }
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.gone]
            runtime_type = "io.containerd.runc.v2"
            options = { BinaryName = "/no/such/program" }
            [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.wasm]
            runtime_type = "io.containerd.wasm.v1"
            options = { ConfigPath = "/etc/wasm.toml" }
        "#;
        let found = detect_in(&folders, &config.parse().unwrap(), Path::new("/state"));
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["runc", "youki", "wasm"]);
        assert_eq!(found[0].handler, RUNC, "a known name is not redefined");
    }

    #[test]
    fn a_broken_configuration_lists_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "version = [").unwrap();
        assert!(read_config(&path).is_empty());
        assert!(read_config(&dir.path().join("absent")).is_empty());
        let odd: toml::Table = "plugins = 7".parse().unwrap();
        assert!(configured(&odd).is_empty());
    }
}
