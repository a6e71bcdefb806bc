//! Why a call on a store failed.
//!
//! Why apart: callers match on three of these (compacted, lease gone, in use) and report
//! the others as they are.

use std::path::PathBuf;

use crate::limits::{
    KEY_BYTES_MAX, LEASE_TTL_MS_MAX, LEASES_MAX, TXN_BYTES_MAX, TXN_COMPARES_MAX, TXN_OPS_MAX,
    VALUE_BYTES_MAX,
};
use crate::store::LeaseId;

/// What a store answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the layer below, which differs from store to store.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a call on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key has no bytes.
    #[error("a key is empty, it must have 1 to {KEY_BYTES_MAX} bytes")]
    KeyEmpty,
    /// A key is too long.
    #[error("a key has {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")]
    KeyTooLong {
        /// How long it was.
        bytes: usize,
    },
    /// A value is too long.
    #[error("the value of {key:?} has {bytes} bytes, at most {VALUE_BYTES_MAX} are allowed")]
    ValueTooLong {
        /// Its key, as text.
        key: String,
        /// How long it was.
        bytes: usize,
    },
    /// The keys and values of a transaction are too long together.
    #[error("the transaction has {bytes} bytes, at most {TXN_BYTES_MAX} are allowed")]
    TxnTooLong {
        /// How long it was.
        bytes: usize,
    },
    /// A transaction has too many puts and deletes.
    #[error("the transaction has {count} puts and deletes, at most {TXN_OPS_MAX} are allowed")]
    TooManyOps {
        /// How many it had.
        count: usize,
    },
    /// A transaction has too many compares.
    #[error("the transaction has {count} compares, at most {TXN_COMPARES_MAX} are allowed")]
    TooManyCompares {
        /// How many it had.
        count: usize,
    },
    /// Two operations of one transaction concern the same key, so their order would matter.
    #[error("the transaction changes {key:?} twice")]
    KeyTwice {
        /// The key, as text.
        key: String,
    },
    /// The lease has expired, was revoked, or never was.
    #[error("lease {0} does not exist")]
    LeaseGone(LeaseId),
    /// A lease must live for at least a millisecond and at most [`LEASE_TTL_MS_MAX`].
    #[error("a lease of {ttl_ms} ms was asked for, 1 to {LEASE_TTL_MS_MAX} are allowed")]
    LeaseTtl {
        /// What was asked for.
        ttl_ms: u64,
    },
    /// [`LEASES_MAX`] leases are alive.
    #[error("{LEASES_MAX} leases exist already, no more are allowed")]
    TooManyLeases,
    /// The changes after this revision are no longer kept: list again.
    #[error("changes since revision {asked} are compacted, kept are those since {kept_since}")]
    Compacted {
        /// The revision that the caller saw last.
        asked: u64,
        /// The oldest revision that can still be asked for.
        kept_since: u64,
    },
    /// The store is not there yet: the caller's revision comes from another store.
    #[error("revision {asked} is in the future, the store is at {current}")]
    FutureRevision {
        /// What the caller asked for.
        asked: u64,
        /// The store's revision.
        current: u64,
    },
    /// The file was written by a newer version of this program.
    #[error("{} has format {found}, this program knows formats up to {known}", path.display())]
    FormatTooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest that is known here.
        known: u64,
    },
    /// No migration leads from the file's format to ours.
    #[error("{} has format {found}, there is no way from it to {wanted}", path.display())]
    FormatUnknown {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this program.
        wanted: u64,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged beyond what recovery mends.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The layer below failed: disk full, I/O error, connection lost.
    #[error("{doing} {at} failed")]
    Backing {
        /// What was being done.
        doing: &'static str,
        /// On which file or address.
        at: String,
        /// What the layer below said.
        #[source]
        source: Source,
    },
}

/// A key as text for a message.
pub(crate) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
