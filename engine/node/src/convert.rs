//! From the words of the orchestrator to those of backends, and back.

use marram_backend_api::{
    Error, ErrorKind, Exit, ExitReason, Handle, Mount, Resources, Spec, WorkloadId, WorkloadIdError,
};
use marram_engine_core::HandleBytes;
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{ExitCause, ServiceSpec};
use std::path::PathBuf;

/// Output kept of a workload that asks for nothing else: a board's memory holds hundreds.
const LOG_BYTES: u64 = 256 * 1024;

/// Values of `virtualization` that name a backend and not a runtime.
const FAMILIES: &[&str] = &["container", "docker", "native"];

const MIB: u64 = 1024 * 1024;

/// An instance's name on the host. It always fits: 24 digits, a dot and a number.
pub(crate) fn workload_id(instance: InstanceId) -> Result<WorkloadId, WorkloadIdError> {
    WorkloadId::new(instance.to_string())
}

/// The instance that a workload stands for; others are not ours.
pub(crate) fn instance_id(workload: &WorkloadId) -> Option<InstanceId> {
    workload.as_str().parse().ok()
}

pub(crate) fn handle(instance: InstanceId, bytes: HandleBytes) -> Result<Handle, WorkloadIdError> {
    Ok(Handle { workload: workload_id(instance)?, version: bytes.version, state: bytes.state })
}

pub(crate) fn handle_bytes(handle: Handle) -> HandleBytes {
    HandleBytes { version: handle.version, state: handle.state }
}

pub(crate) fn exit_cause(exit: &Exit) -> ExitCause {
    match exit.reason {
        ExitReason::Code(code) => ExitCause::Code(code),
        ExitReason::Signal(signal) => ExitCause::Signal(signal),
        ExitReason::OutOfMemory => ExitCause::OutOfMemory,
        ExitReason::Lost => ExitCause::Lost,
    }
}

/// What a backend is to run.
///
/// # Errors
/// The service says what no backend could do; nothing is left out in silence.
pub(crate) fn spec(service: &ServiceSpec) -> Result<Spec, Error> {
    let family = FAMILIES.contains(&service.virtualization.as_str());
    let named = (!family).then(|| service.virtualization.clone());
    let limit = |amount: u32| (amount > 0).then_some(amount);
    let variable = |(place, entry): (usize, &String)| match entry.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        // Not the entry itself: it may be a secret that lost its name.
        _ => {
            let why = format!("entry {place} is not of the form NAME=VALUE");
            Err(Error::new(ErrorKind::Invalid, "reading the environment", why))
        }
    };
    let environment = service.environment.iter().enumerate().map(variable);
    Ok(Spec {
        image: service.image.clone(),
        runtime: service.runtime.clone().or(named),
        args: service.args.clone(),
        environment: environment.collect::<Result<_, _>>()?,
        working_dir: service.working_dir.as_ref().map(PathBuf::from),
        user: service.user.clone(),
        resources: Resources {
            memory_bytes_max: limit(service.resources.memory_mib).map(|mib| u64::from(mib) * MIB),
            cpu_millicores_max: limit(service.resources.cpu_millicores),
            pids_max: limit(service.pids_max),
        },
        mounts: service
            .mounts
            .iter()
            .map(|mount| Mount {
                source: PathBuf::from(&mount.source),
                target: PathBuf::from(&mount.target),
                read_only: mount.read_only,
            })
            .collect(),
        devices: service.devices.iter().map(PathBuf::from).collect(),
        read_only_root: service.read_only_root,
        private_namespaces: service.private_namespaces,
        allow_unlimited: service.allow_unlimited,
        log_bytes_max: match service.log_kib_max {
            0 => LOG_BYTES,
            kib => u64::from(kib) * 1024,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_protocol::id::ServiceId;

    #[test]
    fn ids_go_there_and_back() {
        let instance = InstanceId { service: ServiceId([0xab; 12]), number: u32::MAX };
        let workload = workload_id(instance).unwrap();
        assert_eq!(instance_id(&workload), Some(instance));
        assert_eq!(instance_id(&WorkloadId::new("other").unwrap()), None);
    }

    #[test]
    fn a_runtime_can_stand_as_virtualization() {
        let with = |virtualization: &str, runtime: Option<&str>| {
            let service = ServiceSpec {
                virtualization: virtualization.into(),
                runtime: runtime.map(str::to_owned),
                ..ServiceSpec::default()
            };
            spec(&service).unwrap().runtime
        };
        assert_eq!(with("container", None), None);
        assert_eq!(with("container", Some("crun")).as_deref(), Some("crun"));
        assert_eq!(with("runsc", None).as_deref(), Some("runsc"));
    }

    #[test]
    fn nothing_asked_is_no_limit() {
        let none = spec(&ServiceSpec::default()).unwrap();
        assert_eq!(none.resources, Resources::default());
        assert_eq!(none.log_bytes_max, LOG_BYTES);
    }

    #[test]
    fn everything_that_is_asked_for_arrives() {
        let mount = marram_protocol::v1::Mount {
            source: "/srv".into(),
            target: "/data".into(),
            read_only: true,
        };
        let service = ServiceSpec {
            image: "docker.io/library/nginx:latest".into(),
            args: vec!["-g".into(), "daemon off;".into()],
            environment: vec!["A=1".into(), "EMPTY=".into(), "EQUATION=x=y".into()],
            working_dir: Some("/tmp".into()),
            user: Some("7:8".into()),
            resources: marram_protocol::v1::Resources {
                memory_mib: u32::MAX,
                cpu_millicores: 1500,
                ..Default::default()
            },
            pids_max: 9,
            mounts: vec![mount],
            devices: vec!["/dev/ttyUSB0".into()],
            read_only_root: true,
            private_namespaces: true,
            allow_unlimited: true,
            log_kib_max: u32::MAX,
            ..ServiceSpec::default()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = Spec {
            image: service.image.clone(),
            runtime: spec(&service).unwrap().runtime,
            args: service.args.clone(),
            environment: [pair("A", "1"), pair("EMPTY", ""), pair("EQUATION", "x=y")].into(),
            working_dir: Some("/tmp".into()),
            user: Some("7:8".into()),
            resources: Resources {
                memory_bytes_max: Some(u64::from(u32::MAX) * MIB),
                cpu_millicores_max: Some(1500),
                pids_max: Some(9),
            },
            mounts: vec![Mount { source: "/srv".into(), target: "/data".into(), read_only: true }],
            devices: vec!["/dev/ttyUSB0".into()],
            read_only_root: true,
            private_namespaces: true,
            allow_unlimited: true,
            log_bytes_max: u64::from(u32::MAX) * 1024,
        };
        assert_eq!(spec(&service).unwrap(), expected);
    }

    #[test]
    fn a_variable_without_a_name_is_refused_and_not_shown() {
        for bad in ["hunter2", "=hunter2", ""] {
            let environment = vec!["A=1".into(), bad.into()];
            let error = spec(&ServiceSpec { environment, ..ServiceSpec::default() }).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.why.contains("entry 1") && !error.chain().contains("hunter2"), "{error}");
        }
    }
}
