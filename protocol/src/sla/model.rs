//! The document, typed. Names of fields are Oakestra's where they are its fields.
//!
//! `extra` keeps what is not named here. What is absent stays absent below a service, since it
//! travels on as it came; numbers that nobody computes with keep the form they were written in.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Number, Value};

/// A whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sla {
    /// `v2.0`.
    pub sla_version: String,
    /// Ignored: the owner is who is logged in.
    #[serde(rename = "customerID")]
    pub customer_id: String,
    /// Ignored.
    #[serde(default)]
    pub args: Vec<String>,
    /// At least one.
    pub applications: Vec<Application>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Application {
    /// Empty for a new one; set when services are added.
    #[serde(rename = "applicationID", default)]
    pub application_id: String,
    /// 1 to 30 letters or digits.
    pub application_name: String,
    /// 1 to 30 letters or digits.
    pub application_namespace: String,
    /// For people.
    #[serde(default)]
    pub application_desc: String,
    /// May be empty.
    #[serde(default)]
    pub microservices: Vec<Microservice>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Microservice {
    /// Empty: ids are given by the root.
    #[serde(rename = "microserviceID")]
    pub microservice_id: String,
    /// 1 to 30 letters or digits.
    pub microservice_name: String,
    /// 1 to 30 letters or digits.
    pub microservice_namespace: String,
    /// What kind of workload: see `rules::VIRTUALIZATIONS`.
    pub virtualization: String,
    /// Image reference, or the path of a program for `native`.
    pub code: String,
    /// In MiB; 0 is no limit.
    pub memory: u32,
    /// Cores and parts of one; 0 is no limit.
    pub vcpus: Cores,
    /// Whole GPUs.
    pub vgpus: u32,
    /// Kept and passed on.
    pub vtpus: u32,
    /// Reserved, in kbit/s.
    pub bandwidth_in: u32,
    /// Reserved, in kbit/s.
    pub bandwidth_out: u32,
    /// In MiB.
    pub storage: u32,
    /// Image of a stateful service; kept and passed on.
    pub state: String,
    /// See [`crate::port`].
    pub port: String,
    /// Ends by itself.
    pub one_shot: bool,
    /// Oakestra adds `/dev/fuse` for it; here it asks for that device, which the node's
    /// operator has to allow.
    pub privileged: bool,
    /// Arguments: replaces the image's command.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Kept and passed on.
    pub args: Vec<String>,
    /// Kept and passed on.
    pub added_files: Vec<String>,
    /// Kept and passed on.
    pub sla_violation_strategy: String,
    /// Kept and passed on.
    pub target_node: String,
    /// Requested semantic addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// CSI volumes.
    pub volumes: Vec<Volume>,
    /// Where it may run.
    pub constraints: Vec<Constraint>,
    /// Constraints towards other services.
    pub connectivity: Vec<Connectivity>,
    /// Processor architectures.
    pub arch: Vec<String>,
    /// Images of virtual machines; kept and passed on.
    pub vm_images: Vec<String>,
    /// Kept and passed on.
    pub platform: String,
    /// Marram's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marram: Option<MarramFields>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Processor time: whole cores in Oakestra, parts of a core here too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cores {
    /// Thousandths of a core.
    pub millicores: u32,
}

impl Cores {
    /// From a number of cores; `None` if it is negative, too large or not a whole number of
    /// thousandths.
    pub fn new(cores: f64) -> Option<Self> {
        let millicores = (cores * 1000.0).round();
        if !(0.0..=f64::from(u32::MAX)).contains(&millicores) || millicores / 1000.0 != cores {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole and in bounds, see above")]
        let millicores = millicores as u32;
        Some(Self { millicores })
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.millicores % 1000 {
            0 => serializer.serialize_u32(self.millicores / 1000),
            _ => serializer.serialize_f64(f64::from(self.millicores) / 1000.0),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cores = f64::deserialize(deserializer)?;
        Self::new(cores).ok_or_else(|| de::Error::custom("not a whole number of millicores"))
    }
}

/// Requested semantic addresses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Addresses {
    /// Round robin, in 10.30.0.0/16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rr_ip: Option<String>,
    /// Round robin, in fdff:2000::/21.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rr_ip_v6: Option<String>,
    /// Closest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closest_ip: Option<String>,
    /// Closest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closest_ip_v6: Option<String>,
    /// Of single instances.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceAddress>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Requested addresses of single instances.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceAddress {
    /// First instance.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Last instance.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// First address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start: String,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A CSI volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Name.
    pub volume_id: String,
    /// Driver.
    pub csi_driver: String,
    /// Inside the workload.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mount_path: String,
    /// For the driver.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where a service may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraint {
    /// `direct`, `clusters`, `addons`, `latency` or `geo`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `latency`: see [`crate::place::area`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub area: String,
    /// Selectors joined by `;`, for `direct`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Selectors joined by `;`, for `direct`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// `latitude,longitude`, for `geo`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Milliseconds or kilometres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Number>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rigidness: Option<Number>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convergence_time: Option<u32>,
    /// For `addons`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// For `clusters`: selectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Constraints towards another service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connectivity {
    /// The other service: see [`crate::reference`].
    pub target_microservice_id: String,
    /// What is asked of the way there.
    pub con_constraints: Vec<ConnectivityConstraint>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What is asked of the way to another service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectivityConstraint {
    /// `latency` or `geo`; others are kept and cannot be met.
    #[serde(rename = "type")]
    pub kind: String,
    /// Milliseconds or kilometres.
    pub threshold: Number,
    /// 0 to 1.
    pub rigidness: Number,
    /// Seconds.
    pub convergence_time: u32,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Marram's own fields of a service, in an object `marram` of their own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MarramFields {
    /// Runtime inside the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Finer than `vcpus`, and instead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u32>,
    /// `always`, `on_failure` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// Seconds between asking to end and forcing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_s: Option<u32>,
    /// `name`, `uid` or `uid:gid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Host paths inside the workload, where the node's operator allows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountField>,
    /// Host devices inside the workload, where the node's operator allows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Root file system read-only.
    pub read_only_root: bool,
    /// Own mount and process-id namespaces (native).
    pub private_namespaces: bool,
    /// Run even where limits cannot be enforced.
    pub allow_unlimited: bool,
    /// Kept output in KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_kib_max: Option<u32>,
    /// Memory of GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mib: Option<u32>,
    /// Instances that there shall be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// `replace` or `wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<String>,
    /// When it is given up for lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<PatienceFields>,
    /// `start_first`, `stop_first` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#move: Option<String>,
    /// Where it may run, beyond `constraints`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementFields>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// When a service is given up for lost, in seconds of silence.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PatienceFields {
    /// Of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_s: Option<u32>,
    /// Of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_s: Option<u32>,
    /// Of the parent: then it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_s: Option<u32>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where a service may run, beyond Oakestra's `constraints`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementFields {
    /// An expression over the node's labels: see [`crate::selector::Labels`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// A label's key: instances are spread over its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// Services that have to be on the same node: see [`crate::reference`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// Services that must not be on the same node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apart_from: Vec<String>,
    /// `best-fit`, `spread` or `ldp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Makes room at the cost of a lower one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// What has to be installed on the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addons: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A host path inside the workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountField {
    /// On the host, absolute.
    pub source: String,
    /// Inside, absolute.
    pub target: String,
    /// No writes.
    #[serde(default)]
    pub read_only: bool,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
