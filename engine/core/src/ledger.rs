//! What the engine remembers over a restart or a reboot, as bytes.
//!
//! The bytes begin with the version of their layout; an unknown one is an error, never a
//! guess. How they come to disk and back whole is the shell's matter.

use crate::HandleBytes;
use marram_protocol::id::InstanceId;
use marram_protocol::v1::{ExitCause, Generation, Workload};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 2;

/// Why a ledger cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Of another layout.
    #[error("the ledger has layout {0:?}, known is {VERSION}")]
    Version(Option<u8>),
    /// Does not fit its layout.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) writes: u64,
    pub(crate) generation: Generation,
    pub(crate) tree: u64,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) instance: InstanceId,
    /// `None`: to be removed.
    pub(crate) desired: Option<Workload>,
    pub(crate) held: Option<HeldEntry>,
    pub(crate) ending: Ending,
    pub(crate) restarts: u32,
    pub(crate) exit: Option<ExitCause>,
}

/// Why an instance is not run again, though it is desired. Whoever is above was told and
/// may have decided by it, so a restart changes nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It is run.
    None,
    /// It has done what it should.
    Completed,
    /// It ended too often.
    Dead,
    /// This node does not take it.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeldEntry {
    pub(crate) backend: String,
    pub(crate) digest: u64,
    pub(crate) handle: Option<(u16, Vec<u8>)>,
}

impl Ledger {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Types of this module cannot refuse to be written, and a vector takes any length.
        postcard::to_extend(self, vec![VERSION]).expect("plain types encode into memory")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LedgerError> {
        match bytes.split_first() {
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((ledger, [])) => Ok(ledger),
                Ok((_, rest)) => {
                    Err(LedgerError::Damaged(format!("{} bytes too long", rest.len())))
                }
                Err(error) => Err(LedgerError::Damaged(error.to_string())),
            },
            other => Err(LedgerError::Version(other.map(|(version, _)| *version))),
        }
    }
}

impl From<&HandleBytes> for (u16, Vec<u8>) {
    fn from(handle: &HandleBytes) -> Self {
        (handle.version, handle.state.clone())
    }
}

impl From<(u16, Vec<u8>)> for HandleBytes {
    fn from((version, state): (u16, Vec<u8>)) -> Self {
        Self { version, state }
    }
}

#[cfg(test)]
mod tests;
