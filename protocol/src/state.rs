//! The states of an instance: one enum inside, one table to the names that clients know.
//!
//! ```text
//! Requested ─► ClusterScheduled ─► NodeScheduled ─► Creating ─► Created ─► Running
//!     │              │                  │   ▲           │          │        │  ▲
//!     ▼              └──── Refused ◄────┘   └── retry ──┴──── Failed◄───────┘──┘
//!  Unplaceable                                                  │
//!                                        Completed ◄─ exit 0    ▼ budget spent
//!                                        Undeployed ◄─ removed  Dead
//! ```
//!
//! Names in [`InstanceState::oakestra`] are those of Oakestra's clients, some of which fail
//! on any other; hence no name of ours appears there.

use serde::{Deserialize, Serialize};

/// Where an instance stands. Grows at the end only: it is part of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InstanceState {
    /// Accepted at the root, no child chosen yet.
    Requested,
    /// A cluster was chosen and told.
    ClusterScheduled,
    /// A node was chosen and told.
    NodeScheduled,
    /// The node fetches and prepares.
    Creating,
    /// Prepared, not started.
    Created,
    /// The program runs.
    Running,
    /// Ended otherwise than it should; will be started again.
    Failed,
    /// Ended too often; not started again here.
    Dead,
    /// A one-shot that ended with code 0.
    Completed,
    /// Removed at the operator's wish and gone.
    Undeployed,
    /// The child cannot run it; the detail says why. The parent tries the next one.
    Refused,
    /// No child can take it now; the detail says why. Tried again when something changes.
    Unplaceable,
    /// Placed, and nobody can say how it is: the way to it is broken.
    Unknown,
    /// The way to it has been broken for longer than its service waits, and nobody else here
    /// takes it, as the detail says: whoever is above may place it elsewhere. Where it was it
    /// may still run.
    Lost,
}

impl InstanceState {
    /// All states, in the order of their wire numbers.
    pub const ALL: [Self; 14] = [
        Self::Requested,
        Self::ClusterScheduled,
        Self::NodeScheduled,
        Self::Creating,
        Self::Created,
        Self::Running,
        Self::Failed,
        Self::Dead,
        Self::Completed,
        Self::Undeployed,
        Self::Refused,
        Self::Unplaceable,
        Self::Unknown,
        Self::Lost,
    ];

    /// The name that Oakestra's clients know.
    pub fn oakestra(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::ClusterScheduled => "CLUSTER_SCHEDULED",
            // They have no word for "no news": the node is chosen, that much is sure.
            Self::NodeScheduled | Self::Unknown | Self::Lost => "NODE_SCHEDULED",
            Self::Creating => "CREATING",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failed => "FAILED",
            Self::Dead => "DEAD",
            Self::Completed => "COMPLETED",
            Self::Undeployed => "UNDEPLOYED",
            Self::Refused => "NO_QUALIFIED_WORKER_FOUND",
            Self::Unplaceable => "NoActiveClusterWithCapacity",
        }
    }

    /// Our own name, as in tables, the clean API and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::ClusterScheduled => "cluster-scheduled",
            Self::NodeScheduled => "node-scheduled",
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Completed => "completed",
            Self::Undeployed => "undeployed",
            Self::Refused => "refused",
            Self::Unplaceable => "unplaceable",
            Self::Unknown => "unknown",
            Self::Lost => "lost",
        }
    }

    /// Whether nothing of the instance is left to hold resources for.
    pub fn is_over(self) -> bool {
        match self {
            Self::Completed | Self::Undeployed | Self::Refused | Self::Dead => true,
            Self::Requested
            | Self::ClusterScheduled
            | Self::NodeScheduled
            | Self::Creating
            | Self::Created
            | Self::Running
            | Self::Failed
            | Self::Unplaceable
            | Self::Unknown
            | Self::Lost => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strings that the strictest known client accepts.
    const KNOWN: &[&str] = &[
        "REQUESTED",
        "CLUSTER_SCHEDULED",
        "NODE_SCHEDULED",
        "CREATING",
        "CREATED",
        "RUNNING",
        "FAILED",
        "DEAD",
        "COMPLETED",
        "UNDEPLOYED",
        "TargetClusterNotFound",
        "TargetClusterNotActive",
        "TargetClusterNoCapacity",
        "NoActiveClusterWithCapacity",
        "NO_WORKER_CAPACITY",
        "NO_QUALIFIED_WORKER_FOUND",
        "NO_NODE_FOUND",
    ];

    #[test]
    fn clients_see_only_names_they_know() {
        for state in InstanceState::ALL {
            assert!(KNOWN.contains(&state.oakestra()), "{state:?}");
        }
    }

    #[test]
    fn wire_numbers_follow_the_list() {
        for (number, state) in InstanceState::ALL.into_iter().enumerate() {
            assert_eq!(postcard::to_stdvec(&state).unwrap(), [u8::try_from(number).unwrap()]);
        }
    }
}
