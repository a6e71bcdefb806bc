//! What a tier keeps on disk, as keys and values of bytes.
//!
//! Only decisions are kept: who the children are, what is desired and where it was placed.
//! What is observed is asked for again after a start, so that nothing is written while
//! nothing is decided.
//!
//! A value begins with the version of its layout; an unknown one is an error, never a guess.

use crate::child::Child;
use crate::decisions::Decision;
use crate::instance::Instance;
use crate::kin::Site;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{ChildKind, Generation, Kin, Workload};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// Layout of all values.
const VERSION: u8 = 2;

/// Why what was on disk cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key is none of ours.
    #[error("unknown record {0:02x?}")]
    Key(Vec<u8>),
    /// The layout is not known to this program.
    #[error("record {key:02x?} has layout {version:?}, known is {VERSION}")]
    Version {
        /// Of which record.
        key: Vec<u8>,
        /// Found; `None` for an empty value.
        version: Option<u8>,
    },
    /// The value does not fit its layout.
    #[error("record {key:02x?} is damaged: {why}")]
    Damaged {
        /// Of which record.
        key: Vec<u8>,
        /// In the decoder's words.
        why: String,
    },
}

/// Names a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The tier's epoch.
    Epoch,
    /// What else the tier knows of itself.
    Tier,
    /// What is held of the parent's desired state.
    Parent,
    /// What the parent has told of the tree above.
    Kin,
    /// A child.
    Child(ChildId),
    /// An instance.
    Instance(InstanceId),
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Epoch(u64),
    Tier(TierRecord),
    Parent(Generation),
    Kin(Box<Kin>),
    Child(ChildRecord),
    Instance(Box<InstanceRecord>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TierRecord {
    pub(crate) cordoned: bool,
    pub(crate) first_number: u64,
    /// Children of other trees that an operator takes.
    pub(crate) released: BTreeSet<ChildId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChildRecord {
    pub(crate) name: String,
    pub(crate) kind: ChildKind,
    pub(crate) number: u64,
    pub(crate) cordoned: bool,
    pub(crate) draining: bool,
    pub(crate) guest: bool,
    pub(crate) site: Site,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    pub(crate) workload: Workload,
    pub(crate) placed: Option<ChildId>,
    pub(crate) removing: bool,
    pub(crate) handed_back: bool,
    pub(crate) leaving: Option<ChildId>,
    pub(crate) claimed: bool,
    pub(crate) stopping: bool,
    pub(crate) decisions: VecDeque<Decision>,
}

impl Key {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Epoch => b"e".to_vec(),
            Self::Tier => b"t".to_vec(),
            Self::Parent => b"p".to_vec(),
            Self::Kin => b"k".to_vec(),
            Self::Child(id) => [b"c".as_slice(), &id.0].concat(),
            Self::Instance(id) => {
                [b"i".as_slice(), &id.service.0, &id.number.to_be_bytes()].concat()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let bad = || RecordError::Key(bytes.to_vec());
        match bytes.split_first() {
            Some((b'e', [])) => Ok(Self::Epoch),
            Some((b't', [])) => Ok(Self::Tier),
            Some((b'p', [])) => Ok(Self::Parent),
            Some((b'k', [])) => Ok(Self::Kin),
            Some((b'c', id)) => Ok(Self::Child(ChildId(id.try_into().map_err(|_| bad())?))),
            Some((b'i', rest)) => {
                let (service, number) = rest.split_at_checked(12).ok_or_else(bad)?;
                let service = service.try_into().map_err(|_| bad())?;
                let number = number.try_into().map_err(|_| bad())?;
                Ok(Self::Instance(InstanceId {
                    service: marram_protocol::id::ServiceId(service),
                    number: u32::from_be_bytes(number),
                }))
            }
            _ => Err(bad()),
        }
    }
}

impl From<&Child> for ChildRecord {
    fn from(child: &Child) -> Self {
        Self {
            name: child.name.clone(),
            kind: child.kind,
            number: child.number,
            cordoned: child.cordoned,
            draining: child.draining,
            guest: child.guest,
            site: child.site.clone(),
        }
    }
}

impl From<&Instance> for InstanceRecord {
    fn from(instance: &Instance) -> Self {
        Self {
            workload: instance.workload.clone(),
            placed: instance.placed,
            removing: instance.removing,
            handed_back: instance.handed_back,
            leaving: instance.leaving(),
            claimed: instance.claimed,
            stopping: instance.stopping,
            decisions: instance.decisions.clone(),
        }
    }
}

/// A value as it goes to disk.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Types of this module cannot refuse to be written, and a vector takes any length.
    postcard::to_extend(value, vec![VERSION]).expect("plain types encode into memory")
}

/// A record as it came from disk.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<(Key, Record), RecordError> {
    let name = Key::decode(key)?;
    let Some((&VERSION, body)) = value.split_first() else {
        return Err(RecordError::Version { key: key.to_vec(), version: value.first().copied() });
    };
    let record = match name {
        Key::Epoch => whole(body).map(Record::Epoch),
        Key::Tier => whole(body).map(Record::Tier),
        Key::Parent => whole(body).map(Record::Parent),
        Key::Kin => whole(body).map(Record::Kin),
        Key::Child(_) => whole(body).map(Record::Child),
        Key::Instance(_) => whole(body).map(Record::Instance),
    };
    Ok((name, record.map_err(|why| RecordError::Damaged { key: key.to_vec(), why })?))
}

/// Reads a value that takes up all bytes.
fn whole<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes too long", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
