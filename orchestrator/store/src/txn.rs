//! A transaction: what must hold, and what then happens at once.
//!
//! Why apart: checking a transaction against the limits needs no store, and every
//! implementation must refuse the same ones in the same words.

use std::collections::BTreeSet;

use crate::error::{Error, Result, text};
use crate::limits::{KEY_BYTES_MAX, TXN_BYTES_MAX, TXN_COMPARES_MAX, TXN_OPS_MAX, VALUE_BYTES_MAX};
use crate::store::LeaseId;

/// What must hold of a key for a transaction to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key exists.
    Exists {
        /// The key.
        key: Vec<u8>,
    },
    /// The key does not exist.
    Absent {
        /// The key.
        key: Vec<u8>,
    },
    /// The key was last put at this revision; 0 is the same as [`Compare::Absent`].
    ModRevision {
        /// The key.
        key: Vec<u8>,
        /// The revision.
        revision: u64,
    },
}

impl Compare {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Exists { key } | Self::Absent { key } | Self::ModRevision { key, .. } => key,
        }
    }

    /// Whether it holds for a key with that mod revision, `None` when the key is absent.
    pub(crate) fn holds(&self, mod_revision: Option<u64>) -> bool {
        match self {
            Self::Exists { .. } => mod_revision.is_some(),
            Self::Absent { .. } => mod_revision.is_none(),
            Self::ModRevision { revision, .. } => mod_revision.unwrap_or(0) == *revision,
        }
    }
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Gives a key a value and a lease, or none.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// The lease that takes the key with it.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; one that is absent stays absent.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Deletes every key that begins with this, which must not be empty.
    DeletePrefix {
        /// The beginning.
        prefix: Vec<u8>,
    },
}

impl Op {
    fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
            Self::DeletePrefix { prefix } => prefix,
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every compare held and the operations are done.
    Committed {
        /// The store's revision now.
        revision: u64,
    },
    /// A compare did not hold; nothing happened.
    Refused {
        /// The store's revision, for reading again.
        revision: u64,
    },
}

impl Outcome {
    /// Whether the operations are done.
    pub fn committed(self) -> bool {
        matches!(self, Self::Committed { .. })
    }

    /// The store's revision at that moment.
    pub fn revision(self) -> u64 {
        match self {
            Self::Committed { revision } | Self::Refused { revision } => revision,
        }
    }
}

/// Compares and operations, built up call by call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    compares: Vec<Compare>,
    ops: Vec<Op>,
}

impl Txn {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if the key exists.
    #[must_use]
    pub fn if_exists(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.compares.push(Compare::Exists { key: key.into() });
        self
    }

    /// Only if the key does not exist.
    #[must_use]
    pub fn if_absent(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.compares.push(Compare::Absent { key: key.into() });
        self
    }

    /// Only if the key was last put at that revision.
    #[must_use]
    pub fn if_mod_revision(mut self, key: impl Into<Vec<u8>>, revision: u64) -> Self {
        self.compares.push(Compare::ModRevision { key: key.into(), revision });
        self
    }

    /// Puts a value.
    #[must_use]
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// Puts a value that ends with a lease.
    #[must_use]
    pub fn put_leased(
        mut self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        lease: LeaseId,
    ) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Deletes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    /// Deletes every key that begins with `prefix`.
    #[must_use]
    pub fn delete_prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.ops.push(Op::DeletePrefix { prefix: prefix.into() });
        self
    }

    /// What must hold.
    pub fn compares(&self) -> &[Compare] {
        &self.compares
    }

    /// What happens then.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Holds the transaction against the limits; every store calls this before anything else.
    pub fn check(&self) -> Result<()> {
        if self.compares.len() > TXN_COMPARES_MAX {
            return Err(Error::TooManyCompares { count: self.compares.len() });
        }
        if self.ops.len() > TXN_OPS_MAX {
            return Err(Error::TooManyOps { count: self.ops.len() });
        }
        let mut bytes = 0_usize;
        for compare in &self.compares {
            check_key(compare.key())?;
            bytes = bytes.saturating_add(compare.key().len());
        }
        for op in &self.ops {
            check_key(op.key())?;
            bytes = bytes.saturating_add(op.key().len());
            if let Op::Put { key, value, .. } = op {
                if value.len() > VALUE_BYTES_MAX {
                    return Err(Error::ValueTooLong { key: text(key), bytes: value.len() });
                }
                bytes = bytes.saturating_add(value.len());
            }
        }
        if bytes > TXN_BYTES_MAX {
            return Err(Error::TxnTooLong { bytes });
        }
        self.check_overlaps()
    }

    fn check_overlaps(&self) -> Result<()> {
        let mut keys: BTreeSet<&[u8]> = BTreeSet::new();
        let mut prefixes: Vec<&[u8]> = Vec::new();
        for op in &self.ops {
            match op {
                Op::DeletePrefix { prefix } => prefixes.push(prefix),
                Op::Put { key, .. } | Op::Delete { key } => {
                    if !keys.insert(key) {
                        return Err(Error::KeyTwice { key: text(key) });
                    }
                }
            }
        }
        // Sorted, a prefix that covers another stands directly before something it covers.
        prefixes.sort_unstable();
        if let Some([_, second]) = prefixes.array_windows().find(|[a, b]| b.starts_with(a)) {
            return Err(Error::KeyTwice { key: text(second) });
        }
        for prefix in prefixes {
            let covered = keys.range(prefix..).next();
            if let Some(key) = covered.filter(|key| key.starts_with(prefix)) {
                return Err(Error::KeyTwice { key: text(key) });
            }
        }
        Ok(())
    }
}

/// Holds a key against the limits.
fn check_key(key: &[u8]) -> Result<()> {
    match key.len() {
        0 => Err(Error::KeyEmpty),
        bytes if bytes > KEY_BYTES_MAX => Err(Error::KeyTooLong { bytes }),
        _ => Ok(()),
    }
}
