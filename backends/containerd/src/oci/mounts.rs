//! What a container sees of the host: file systems, files, devices.
//!
//! Invariant: a path that a request names is followed to its end first, and only then
//! compared with what the operator allows; what is mounted is the path that was compared.

use super::Built;
use marram_backend_api::{Error, ErrorKind, Limits, Result, Spec};
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    Mount, MountBuilder,
};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Most mounts and devices of one workload; far above real use, far below what slows a
/// start down.
const MOUNTS_MAX: usize = 64;

/// What every container has: destination, type, source, options.
const STANDARD: &[(&str, &str, &str, &[&str])] = &[
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

/// Files of the host that go with its network.
const NETWORK: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

fn refused(why: String) -> Error {
    Error::new(ErrorKind::Invalid, "checking mounts and devices", why)
}

/// Refuses mounts that are malformed or not allowed.
pub(crate) fn check_mounts(spec: &Spec, limits: &Limits) -> Result<()> {
    requested(spec, limits).map(drop)
}

/// Refuses devices that are not allowed or not there.
pub(crate) fn check_devices(spec: &Spec, limits: &Limits) -> Result<()> {
    devices(spec, limits).map(drop)
}

/// Every mount in order.
pub(super) fn mounts(spec: &Spec, limits: &Limits) -> Result<Vec<Mount>> {
    let requested = requested(spec, limits)?;
    let build = || -> Built<Vec<Mount>> {
        let mut all = Vec::new();
        for (destination, typ, source, options) in STANDARD {
            all.push(mount(Path::new(destination), typ, Path::new(source), options)?);
        }
        let taken = |path: &str| requested.iter().any(|(_, target, _)| target == Path::new(path));
        for file in NETWORK.iter().filter(|file| Path::new(file).is_file() && !taken(file)) {
            all.push(mount(Path::new(file), "bind", Path::new(file), &["rbind", "ro"])?);
        }
        for (source, target, read_only) in &requested {
            let how = if *read_only { "ro" } else { "rw" };
            let options = ["rbind", "rprivate", "nosuid", "nodev", how];
            all.push(mount(target, "bind", source, &options)?);
        }
        Ok(all)
    };
    build().map_err(|error| refused(error.to_string()))
}

fn mount(target: &Path, typ: &str, source: &Path, options: &[&str]) -> Built<Mount> {
    MountBuilder::default()
        .destination(target)
        .typ(typ)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
}

/// The request's own mounts: true source, target, read-only.
fn requested(spec: &Spec, limits: &Limits) -> Result<Vec<(PathBuf, PathBuf, bool)>> {
    if spec.mounts.len() > MOUNTS_MAX {
        return Err(refused(format!("{} mounts, {MOUNTS_MAX} are allowed", spec.mounts.len())));
    }
    let roots: Vec<PathBuf> =
        limits.mount_roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
    let mut all = Vec::new();
    for wanted in &spec.mounts {
        let (source, target) = (&wanted.source, &wanted.target);
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !target.is_absolute() || !target.components().all(plain) || target == Path::new("/") {
            return Err(refused(format!("{target:?} is no absolute path inside a container")));
        }
        if !source.is_absolute() {
            return Err(refused(format!("{source:?} is no absolute path on the host")));
        }
        let real = source.canonicalize().map_err(|error| {
            let why = format!("{} cannot be mounted", source.display());
            Error::caused(ErrorKind::NotFound, "checking mounts and devices", why, error)
        })?;
        if !roots.iter().any(|root| real.starts_with(root)) {
            let why = format!("{} is not below a folder that may be mounted", real.display());
            return Err(Error::new(ErrorKind::Unsupported, "checking mounts and devices", why));
        }
        all.push((real, target.clone(), wanted.read_only));
    }
    Ok(all)
}

/// The request's devices, and who may use which: nobody any, but these.
pub(super) fn devices(
    spec: &Spec,
    limits: &Limits,
) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>)> {
    if spec.devices.len() > MOUNTS_MAX {
        return Err(refused(format!("{} devices, {MOUNTS_MAX} are allowed", spec.devices.len())));
    }
    let mut devices = Vec::new();
    // Runtimes add the harmless ones (null, zero, random, …) by themselves.
    let mut rules = vec![rule(false, None)?];
    for path in &spec.devices {
        if !limits.devices.contains(path) {
            let why = format!("{} is not among the devices that may be used", path.display());
            return Err(Error::new(ErrorKind::Unsupported, "checking mounts and devices", why));
        }
        let file = std::fs::metadata(path).map_err(|error| {
            let why = format!("{} is not there", path.display());
            Error::caused(ErrorKind::NotFound, "checking mounts and devices", why, error)
        })?;
        let typ = match file.file_type() {
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_block_device() => LinuxDeviceType::B,
            _ => return Err(refused(format!("{} is no device", path.display()))),
        };
        let number =
            (i64::from(rustix::fs::major(file.rdev())), i64::from(rustix::fs::minor(file.rdev())));
        rules.push(rule(true, Some((typ, number)))?);
        let device = LinuxDeviceBuilder::default()
            .path(path)
            .typ(typ)
            .major(number.0)
            .minor(number.1)
            .file_mode(file.mode() & 0o777)
            .uid(file.uid())
            .gid(file.gid())
            .build();
        devices.push(device.map_err(|error| refused(error.to_string()))?);
    }
    Ok((devices, rules))
}

fn rule(allow: bool, device: Option<(LinuxDeviceType, (i64, i64))>) -> Result<LinuxDeviceCgroup> {
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm");
    if let Some((typ, (major, minor))) = device {
        builder = builder.typ(typ).major(major).minor(minor);
    }
    builder.build().map_err(|error| refused(error.to_string()))
}
