//! What the tiers say to each other, and the descriptor that enters at the root.
//!
//! Why apart: these are the only types that leave a machine. Everything here is plain data
//! with total parsers; there is no I/O, no clock and no runtime, so that cores, shells,
//! simulator and fuzz targets share it.
//!
//! Rooms:
//! - [`id`]: what things are called;
//! - [`sla`]: the Oakestra SLA document, checked whole;
//! - [`port`]: the port strings inside it;
//! - [`selector`]: how clusters and nodes are addressed;
//! - [`place`]: places on the globe, as texts;
//! - [`reference`]: how a service names another;
//! - [`state`]: the states of an instance and the names clients know them by;
//! - [`v1`]: messages between a parent and a child, and their envelope;
//! - [`topic`]: where these messages go on MQTT;
//! - [`desired`]: how a child follows its parent's desired state;
//! - [`parents`]: which parent it dials, and when another one.
//!
//! Invariants: message types of a published version never change, enums grow at the end
//! (golden bytes in `tests/` hold them); nothing parsed here can panic or allocate more than
//! its input is long, times a constant.

pub mod assurance;
pub mod desired;
pub mod id;
pub mod parents;
pub mod place;
pub mod port;
pub mod reference;
pub mod selector;
pub mod sla;
pub mod state;
pub mod topic;
pub mod v1;

/// Longest message on any hop: what a 64 MB board can hold several of, and what brokers
/// accept without being configured.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Instances in one cluster: a manifest of so many entries still fits one message.
pub const CLUSTER_INSTANCES_MAX: usize = 10_000;

/// Instances on one node: more processes than a board of this class schedules well.
pub const NODE_INSTANCES_MAX: usize = 512;
