//! From the words of the orchestrator to those of backends, and back.

use marram_backend_api::{
    Exit, ExitReason, Handle, Mount, Resources, Spec, WorkloadId, WorkloadIdError,
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

pub(crate) fn spec(service: &ServiceSpec) -> Spec {
    let family = FAMILIES.contains(&service.virtualization.as_str());
    let named = (!family).then(|| service.virtualization.clone());
    let limit = |amount: u32| (amount > 0).then_some(amount);
    let environment = service.environment.iter().filter_map(|entry| {
        entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    Spec {
        image: service.image.clone(),
        runtime: service.runtime.clone().or(named),
        args: service.args.clone(),
        environment: environment.collect(),
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
    }
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
            spec(&service).runtime
        };
        assert_eq!(with("container", None), None);
        assert_eq!(with("container", Some("crun")).as_deref(), Some("crun"));
        assert_eq!(with("runsc", None).as_deref(), Some("runsc"));
    }

    #[test]
    fn nothing_asked_is_no_limit() {
        let none = spec(&ServiceSpec::default());
        assert_eq!(none.resources, Resources::default());
        assert_eq!(none.log_bytes_max, LOG_BYTES);
    }
}
