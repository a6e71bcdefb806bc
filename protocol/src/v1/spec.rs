//! What a child is told to run.
//!
//! A [`ServiceSpec`] is the part of an SLA's microservice that decides something, in units
//! of its own; what the SLA holds beyond travels in `extra` as it came.

use crate::id::InstanceId;
use crate::port::PortMapping;
use crate::v1::{Coordinate, Geo, Resources};
use serde::{Deserialize, Serialize};

/// One instance, as desired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Which.
    pub instance: InstanceId,
    /// Counts changes of the service's specification; another revision is another program.
    pub revision: u32,
    /// `app.appns.service.servicens`, for people, cgroups' descriptions and logs.
    pub name: String,
    /// What.
    pub spec: ServiceSpec,
}

/// What to run and what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Kind of workload, as in the SLA: `container`, `native`, `kata`, …
    pub virtualization: String,
    /// Runtime inside the backend; `None` leaves it to the node.
    pub runtime: Option<String>,
    /// Image reference or path.
    pub image: String,
    /// Arguments; what they replace depends on the backend.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// What is reserved and enforced.
    pub resources: Resources,
    /// Number of processes and threads; 0 is the node's default.
    pub pids_max: u32,
    /// Ports of the host.
    pub ports: Vec<PortMapping>,
    /// Ends by itself; exit code 0 is success.
    pub one_shot: bool,
    /// What to do when it ends.
    pub restart: RestartPolicy,
    /// Seconds between asking it to end and forcing it.
    pub stop_grace_s: u32,
    /// Processor architectures it runs on; empty is any.
    pub architectures: Vec<String>,
    /// Where it may run.
    pub placement: Placement,
    /// When it is given up for lost.
    pub patience: Patience,
    /// How it is moved.
    pub movement: MovePolicy,
    /// User as `name`, `uid` or `uid:gid`.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Host paths inside the workload.
    pub mounts: Vec<Mount>,
    /// Host devices inside the workload.
    pub devices: Vec<String>,
    /// Root file system read-only.
    pub read_only_root: bool,
    /// Own mount and process-id namespaces (native).
    pub private_namespaces: bool,
    /// Run even where limits cannot be enforced.
    pub allow_unlimited: bool,
    /// Kept output, in KiB; 0 is the node's default.
    pub log_kib_max: u32,
    /// A JSON object: properties that this version gives no meaning, as they came.
    pub extra: String,
}

/// A host path inside a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub source: String,
    /// Inside.
    pub target: String,
    /// No writes.
    pub read_only: bool,
}

/// Where an instance may run. Empty lists allow everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// Selectors of clusters (see [`crate::selector`]): one of them has to match a cluster on
    /// the way from the root to the node.
    pub clusters: Vec<String>,
    /// Names or patterns of nodes.
    pub nodes: Vec<String>,
    /// A selector over the node's labels; empty is any node.
    pub labels: String,
    /// What has to be installed there.
    pub addons: Vec<String>,
    /// Bounds on the way to users, services and places.
    pub proximity: Vec<Proximity>,
    /// A label's key: instances of the service are spread evenly over its values.
    pub spread: String,
    /// Services (full name or id) whose instances have to run on the same node.
    pub with: Vec<String>,
    /// Services whose instances must not run on the same node; its own name keeps a service's
    /// instances apart.
    pub apart_from: Vec<String>,
    /// Name of the policy that chooses among what is left; empty is the tier's.
    pub policy: String,
    /// Where there is no room, an instance makes room at the cost of those with a lower one.
    pub priority: i32,
    /// Constraints that no tier can judge yet: with one of these nothing is placed, since
    /// leaving out what was asked for would be worse than saying so.
    pub unsupported: Vec<String>,
}

/// A bound on the way from an instance to something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proximity {
    /// To what.
    pub to: Anchor,
    /// Longest round trip, in microseconds.
    pub latency_us_max: Option<u32>,
    /// Longest distance on the globe, in metres.
    pub distance_m_max: Option<u32>,
    /// How strictly it is held, in thousandths: 1000 is as it stands, less leaves a tolerance.
    pub rigidness_permille: u16,
}

/// What a bound is measured from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anchor {
    /// A service, by full name or id: each of its instances.
    Service(String),
    /// A place.
    Place(Geo),
    /// A place in the space of latencies, found out by a tier above.
    Coordinate(Coordinate),
}

/// When an instance is given up for lost, in seconds of silence. `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// The node is silent: its cluster places the instance elsewhere.
    pub node_s: Option<u32>,
    /// The cluster is silent: its parent places the instance elsewhere.
    pub cluster_s: Option<u32>,
    /// The parent is silent: the instance is stopped until the parent is back. For services
    /// that must never run twice, shorter than the two above.
    pub parent_s: Option<u32>,
}

impl Default for Patience {
    /// Links of edge sites come and go: five minutes for a node, fifteen for a site, and
    /// nothing stops because nobody above is there.
    fn default() -> Self {
        Self { node_s: Some(300), cluster_s: Some(900), parent_s: None }
    }
}

/// How an instance is moved to another place while both places are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MovePolicy {
    /// Started there, then stopped here.
    #[default]
    StartFirst,
    /// Stopped here, then started there.
    StopFirst,
    /// It stays where it is.
    Never,
}

/// What to do when a workload ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Start again, whatever the exit.
    #[default]
    Always,
    /// Start again unless it ended with code 0.
    OnFailure,
    /// Leave it.
    Never,
}

impl Workload {
    /// 64-bit FNV-1a over the encoded form: two sides compare what they hold. It protects
    /// from mistakes, not from forgery; the connection does that.
    pub fn digest(&self) -> u64 {
        // Writing into a vector cannot fail, and no type here can refuse to be written.
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}
