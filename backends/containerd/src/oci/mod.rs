//! A workload's specification and its image become the description that runtimes take.
//!
//! Why apart: it is a function of plain data, so what a container may do can be read and
//! tested in one place without a container.
//!
//! What every container gets: own mount, process, IPC and host-name namespaces (on cgroup v2
//! also its own view of cgroups), the host's network, a closed list of devices, fourteen or
//! fewer capabilities, the default seccomp filter, no new privileges, hidden and read-only
//! parts of `/proc` and `/sys`, a cgroup of its own.

mod limits;
mod mounts;
mod seccomp;
pub(crate) mod user;

use crate::image::info::Image;
use marram_backend_api::{Error, ErrorKind, Limits, Result, Spec, WorkloadId};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Process,
    ProcessBuilder, RootBuilder, SpecBuilder, UserBuilder,
};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use user::User;

pub(crate) use limits::CPU_MILLICORES_MIN;
pub(crate) use mounts::{check_devices, check_mounts};

/// What builders of descriptions give.
type Built<T> = std::result::Result<T, OciSpecError>;

/// The version of the description that runc 1.1 and crun 1.8 both take.
const OCI_VERSION: &str = "1.0.2";

/// Search path of images that name none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// When memory runs out on the whole host, workloads go before the engine, containerd
/// (-999) and the system's services (0).
const OOM_SCORE: i32 = 200;

/// Open files: the soft limit that programs using `select` still survive, and systemd's
/// hard limit, or our own where that is lower: on hosts that took the right to raise limits
/// from root, containerd could not raise it either.
const FILES_SOFT: u64 = 1024;
const FILES_HARD: u64 = 524_288;

/// Docker's set less `NET_RAW`: on the host's network raw sockets would let any container
/// read and forge other programs' traffic.
const CAPABILITIES: [Capability; 13] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Files of `/proc` and `/sys` that tell about the host or its memory.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

/// Files of `/proc` that change the host.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the description depends on besides the workload's own specification.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) cgroups: &'a crate::cgroup::Cgroups,
    /// The workload's cgroup.
    pub(crate) cgroup: String,
    pub(crate) limits: &'a Limits,
}

/// Builds the description.
pub(crate) fn describe(
    id: &WorkloadId,
    spec: &Spec,
    image: &Image,
    user: &User,
    host: &Host<'_>,
) -> Result<oci_spec::runtime::Spec> {
    let arguments = arguments(spec, image)?;
    let (devices, rules) = mounts::devices(spec, host.limits)?;
    let mounts = mounts::mounts(spec, host.limits)?;
    let build = || -> Built<oci_spec::runtime::Spec> {
        let linux = LinuxBuilder::default()
            .namespaces(namespaces(host.cgroups.unified())?)
            .cgroups_path(PathBuf::from(&host.cgroup))
            .resources(limits::resources(spec, host.cgroups, rules)?)
            .devices(devices)
            .seccomp(seccomp::profile()?)
            .masked_paths(MASKED.map(str::to_owned).to_vec())
            .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
            .build()?;
        let root = RootBuilder::default().path("rootfs").readonly(spec.read_only_root).build()?;
        SpecBuilder::default()
            .version(OCI_VERSION)
            .root(root)
            .mounts(mounts)
            .process(process(spec, image, user, arguments)?)
            .hostname(id.as_str())
            .linux(linux)
            .build()
    };
    build().map_err(|error| {
        let why = "the runtime's description cannot be built";
        Error::caused(ErrorKind::Internal, "describing the container", why, error)
    })
}

/// The workload's arguments replace all of the image's, its entry point too: a descriptor's
/// `cmd` is a whole command line.
fn arguments(spec: &Spec, image: &Image) -> Result<Vec<String>> {
    let all: Vec<String> = match spec.args.is_empty() {
        false => spec.args.clone(),
        true => image.entrypoint.iter().chain(&image.command).cloned().collect(),
    };
    if all.first().is_none_or(String::is_empty) {
        let why = "neither the request nor the image says what to run";
        return Err(Error::new(ErrorKind::Invalid, "describing the container", why));
    }
    Ok(all)
}

fn process(spec: &Spec, image: &Image, user: &User, arguments: Vec<String>) -> Built<Process> {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let hard = own.unwrap_or(FILES_HARD).min(FILES_HARD);
    let files = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(FILES_SOFT.min(hard))
        .hard(hard)
        .build()?;
    let who = UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.groups.clone())
        .build()?;
    ProcessBuilder::default()
        .terminal(false)
        .user(who)
        .args(arguments)
        .env(environment(spec, image, user))
        .cwd(working_dir(spec, image))
        .capabilities(capabilities()?)
        .rlimits(vec![files])
        .no_new_privileges(true)
        .oom_score_adj(OOM_SCORE)
        .build()
}

/// The image's variables, then the workload's over them; a search path and a home for
/// images that name none.
fn environment(spec: &Spec, image: &Image, user: &User) -> Vec<String> {
    let home = user.home.clone().unwrap_or_else(|| "/".into());
    let defaults = [PATH.to_owned(), format!("HOME={home}")];
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for entry in defaults.iter().chain(&image.environment) {
        if let Some((key, value)) = entry.split_once('=') {
            all.insert(key.to_owned(), value.to_owned());
        }
    }
    all.extend(spec.environment.clone());
    all.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn working_dir(spec: &Spec, image: &Image) -> PathBuf {
    match &spec.working_dir {
        Some(path) => path.clone(),
        // A relative one, which images may have, starts at the root.
        None => PathBuf::from("/").join(&image.working_dir),
    }
}

fn capabilities() -> Built<LinuxCapabilities> {
    let all: HashSet<Capability> = CAPABILITIES.into_iter().collect();
    LinuxCapabilitiesBuilder::default()
        .bounding(all.clone())
        .permitted(all.clone())
        .effective(all)
        // Empty on purpose: inherited ones would outlive a change of user.
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
}

fn namespaces(unified: bool) -> Built<Vec<LinuxNamespace>> {
    let mut all = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if unified {
        all.push(LinuxNamespaceType::Cgroup);
    }
    all.into_iter().map(|typ| LinuxNamespaceBuilder::default().typ(typ).build()).collect()
}

#[cfg(test)]
mod tests;
