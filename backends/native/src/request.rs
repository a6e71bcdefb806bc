//! From what the engine asks for to orders for the shim: all checks, and the form on disk.
//!
//! Why the request is kept beside the orders: "the same specification again" must mean what
//! was asked for, not what the host made of it at the time.

use crate::config::Config;
use crate::host::Host;
use crate::users::{self, User};
use marram_backend_api::{Error, ErrorKind, Resources, Result, Spec};
use marram_shim::launch::{Bind, Program};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The one runtime of this backend.
pub(crate) const RUNTIME: &str = "native";

/// Name of the request's file.
pub(crate) const REQUEST: &str = "request.json";

/// Capabilities of a program that runs as root: those that containers' root has by default.
/// Bits by `linux/capability.h`: chown, dac_override, fowner, fsetid, kill, setgid, setuid,
/// setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
const ROOT_CAPABILITIES: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 10
    | 1 << 13
    | 1 << 18
    | 1 << 27
    | 1 << 29
    | 1 << 31;

/// Fewer bytes than this cannot even hold the stage that starts the program.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// A specification as it is kept on disk. Grows only, with defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    image: String,
    runtime: Option<String>,
    args: Vec<String>,
    environment: BTreeMap<String, String>,
    working_dir: Option<PathBuf>,
    user: Option<String>,
    memory_bytes_max: Option<u64>,
    cpu_millicores_max: Option<u32>,
    pids_max: Option<u32>,
    mounts: Vec<(PathBuf, PathBuf, bool)>,
    devices: Vec<PathBuf>,
    private_namespaces: bool,
    allow_unlimited: bool,
    log_bytes_max: u64,
}

impl Request {
    pub(crate) fn of(spec: &Spec) -> Self {
        let mounts = spec.mounts.iter();
        Self {
            image: spec.image.clone(),
            runtime: spec.runtime.clone(),
            args: spec.args.clone(),
            environment: spec.environment.clone(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            memory_bytes_max: spec.resources.memory_bytes_max,
            cpu_millicores_max: spec.resources.cpu_millicores_max,
            pids_max: spec.resources.pids_max,
            mounts: mounts.map(|m| (m.source.clone(), m.target.clone(), m.read_only)).collect(),
            devices: spec.devices.clone(),
            private_namespaces: spec.private_namespaces,
            allow_unlimited: spec.allow_unlimited,
            log_bytes_max: spec.log_bytes_max,
        }
    }

    pub(crate) fn resources(&self) -> Resources {
        Resources {
            memory_bytes_max: self.memory_bytes_max,
            cpu_millicores_max: self.cpu_millicores_max,
            pids_max: self.pids_max,
        }
    }
}

const DOING: &str = "checking the specification";

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, DOING, why)
}

fn unsupported(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, DOING, why)
}

/// Checks everything that needs no program to exist, and says what to become.
pub(crate) fn check(spec: &Spec, config: &Config, host: &Host) -> Result<Program> {
    if let Some(runtime) = spec.runtime.as_deref().filter(|runtime| *runtime != RUNTIME) {
        return Err(unsupported(format!("runtime {runtime:?} is not {RUNTIME:?}")));
    }
    if spec.read_only_root {
        return Err(unsupported("native programs share the host's root file system"));
    }
    check_texts(spec)?;
    check_resources(&spec.resources, spec.allow_unlimited, host)?;
    let working_dir = spec.working_dir.clone().unwrap_or_else(|| "/".into());
    if !working_dir.is_absolute() {
        return Err(invalid(format!(
            "working directory {} is not absolute",
            working_dir.display()
        )));
    }
    let mut user = check_user(spec, config)?;
    for device in &spec.devices {
        user.groups.extend(device_group(device, &user, config)?);
    }
    let mut argv = vec![spec.image.clone()];
    argv.extend(spec.args.iter().cloned());
    Ok(Program {
        argv,
        environment: environment(spec, config, &user),
        working_dir,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        capabilities: if user.uid == 0 { ROOT_CAPABILITIES } else { 0 },
        mounts: check_mounts(spec, config)?,
    })
}

fn check_texts(spec: &Spec) -> Result<()> {
    if spec.image.is_empty() {
        return Err(invalid("no program is named"));
    }
    let values = spec.environment.values();
    let texts = std::iter::once(&spec.image).chain(&spec.args).chain(values);
    if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
        return Err(invalid(format!("{text:?} holds a zero byte")));
    }
    let bad = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = spec.environment.keys().find(bad) {
        return Err(invalid(format!("{name:?} is no name for the environment")));
    }
    Ok(())
}

fn check_resources(resources: &Resources, allow_unlimited: bool, host: &Host) -> Result<()> {
    if let Some(bytes) = resources.memory_bytes_max.filter(|bytes| *bytes < MEMORY_BYTES_MIN) {
        return Err(invalid(format!("{bytes} bytes of memory; at least {MEMORY_BYTES_MIN}")));
    }
    if resources.cpu_millicores_max == Some(0) || resources.pids_max == Some(0) {
        return Err(invalid("a limit of zero processor time or processes"));
    }
    if allow_unlimited {
        return Ok(());
    }
    if let Err(reason) = host.cgroups() {
        return Err(unsupported(format!("no limit can be enforced here: {reason}")));
    }
    let asked = [
        ("memory", resources.memory_bytes_max.is_some()),
        ("cpu", resources.cpu_millicores_max.is_some()),
        ("pids", resources.pids_max.is_some()),
    ];
    for (name, _) in asked.into_iter().filter(|(_, asked)| *asked) {
        if let Err(reason) = host.enforces(name) {
            return Err(unsupported(format!("the {name} limit is not enforced here: {reason}")));
        }
    }
    Ok(())
}

fn check_user(spec: &Spec, config: &Config) -> Result<User> {
    let name = spec.user.as_deref().unwrap_or(&config.user);
    let user = users::find(name, Path::new("/etc")).map_err(unsupported)?;
    if (user.uid == 0 || user.gid == 0) && !(config.limits.allow_root && spec.user.is_some()) {
        return Err(unsupported(format!("user {name:?} is root, which is not allowed here")));
    }
    Ok(user)
}

/// The group that lets a user at a device, if one is needed.
fn device_group(device: &Path, user: &User, config: &Config) -> Result<Option<u32>> {
    if !config.limits.devices.iter().any(|allowed| allowed == device) {
        return Err(unsupported(format!("device {} is not allowed here", device.display())));
    }
    let metadata = std::fs::metadata(device).map_err(|error| {
        Error::caused(ErrorKind::Unsupported, DOING, device.display().to_string(), error)
    })?;
    let (mode, gid) = (metadata.mode(), metadata.gid());
    // Read and write for its group, for everybody.
    let (of_group, of_all) = (mode & 0o060 == 0o060, mode & 0o006 == 0o006);
    if of_all || user.uid == 0 || user.uid == metadata.uid() || user.groups.contains(&gid) {
        return Ok(None);
    }
    if of_group && gid != 0 {
        return Ok(Some(gid));
    }
    Err(unsupported(format!("device {} is for root only", device.display())))
}

fn environment(spec: &Spec, config: &Config, user: &User) -> Vec<(String, String)> {
    let path = config.search_path.iter().map(|dir| dir.display().to_string());
    let mut all = BTreeMap::from([("PATH".to_owned(), path.collect::<Vec<_>>().join(":"))]);
    if let Some(home) = &user.home {
        all.insert("HOME".into(), home.clone());
    }
    all.extend(spec.environment.clone());
    all.into_iter().collect()
}

fn check_mounts(spec: &Spec, config: &Config) -> Result<Vec<Bind>> {
    if !spec.mounts.is_empty() && !spec.private_namespaces {
        return Err(invalid("mounts of a native program need private namespaces"));
    }
    spec.mounts
        .iter()
        .map(|mount| {
            let shown = mount.source.display();
            if !mount.target.is_absolute() || !mount.source.is_absolute() {
                return Err(invalid(format!("mount {shown} has a path that is not absolute")));
            }
            let source = mount.source.canonicalize().map_err(|error| {
                Error::caused(ErrorKind::NotFound, DOING, format!("mount {shown}"), error)
            })?;
            let allowed = config.limits.mount_roots.iter().filter_map(|r| r.canonicalize().ok());
            if !allowed.into_iter().any(|root| source.starts_with(root)) {
                return Err(unsupported(format!("mount {shown} is not below an allowed folder")));
            }
            if !mount.target.exists() {
                let target = mount.target.display();
                return Err(unsupported(format!("mount target {target} does not exist here")));
            }
            Ok(Bind { source, target: mount.target.clone(), read_only: mount.read_only })
        })
        .collect()
}

/// The absolute path of a program.
pub(crate) fn program_path(name: &str, config: &Config) -> Result<String> {
    let doing = "looking for the program";
    let absent = |why: String| Error::new(ErrorKind::NotFound, doing, why);
    let path = Path::new(name);
    if path.is_absolute() {
        return match path.is_file() {
            true => Ok(name.to_owned()),
            false => Err(absent(format!("{name} is not a file"))),
        };
    }
    if name.contains('/') {
        return Err(Error::new(ErrorKind::Invalid, doing, format!("{name:?} is a relative path")));
    }
    let mut places = config.search_path.iter().map(|dir| dir.join(name));
    let found = places.find(|path| path.is_file());
    let found = found.and_then(|path| path.into_os_string().into_string().ok());
    found.ok_or_else(|| absent(format!("{name:?} is in none of the configured folders")))
}
