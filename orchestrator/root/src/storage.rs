//! The root's own records in the store, beside those of the orchestrator core.
//!
//! ```text
//! root/organization     id of the one organization
//! root/u/NAME           user
//! root/a/<12 bytes>     application
//! root/s/<12 bytes>     service, with its document
//! root/n/<12 bytes>     what changes of a service: next number, removed
//! core/…                the core's records, whose keys are the core's own
//! ```
//!
//! A value begins with the version of its layout; an unknown one is an error, never a guess.

use marram_protocol::id::{ApplicationId, ServiceId};
use marram_store::{Error, Store, Txn};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Layout of all values.
const VERSION: u8 = 1;

/// Entries read at once at start: keeps the largest page small.
const PAGE_MAX: usize = 256;

/// Before the name of each user.
pub const USER_PREFIX: &[u8] = b"root/u/";
/// Before the id of each application.
pub const APPLICATION_PREFIX: &[u8] = b"root/a/";
/// Before the id of each service.
pub const SERVICE_PREFIX: &[u8] = b"root/s/";
/// Before the id of each service, for its changing part.
pub const COUNTER_PREFIX: &[u8] = b"root/n/";
/// Before each key of the core.
pub const CORE_PREFIX: &[u8] = b"core/";

/// A key with its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// A change of one key; `None` deletes.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store.
    #[error("the store failed")]
    Store(#[from] Error),
    /// A record of another layout.
    #[error("record {key:?} has layout {version:?}, known is {VERSION}")]
    Version {
        /// Which record.
        key: String,
        /// Its layout; `None` for an empty value.
        version: Option<u8>,
    },
    /// A record that does not fit its layout.
    #[error("record {key:?} is damaged: {why}")]
    Damaged {
        /// Which record.
        key: String,
        /// In the decoder's words.
        why: String,
    },
}

/// Names a record of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The one organization.
    Organization,
    /// A user.
    User(String),
    /// An application.
    Application(ApplicationId),
    /// A service.
    Service(ServiceId),
    /// The changing part of a service.
    Counter(ServiceId),
}

impl Key {
    /// As in the store.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Organization => b"root/organization".to_vec(),
            Self::User(name) => [USER_PREFIX, name.as_bytes()].concat(),
            Self::Application(id) => [APPLICATION_PREFIX, &id.0].concat(),
            Self::Service(id) => [SERVICE_PREFIX, &id.0].concat(),
            Self::Counter(id) => [COUNTER_PREFIX, &id.0].concat(),
        }
    }
}

/// A value as it goes to the store.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("plain types encode into memory")
}

/// What [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StorageError> {
    let name = || key.escape_ascii().to_string();
    match value.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body)
            .map_err(|error| StorageError::Damaged { key: name(), why: error.to_string() }),
        other => {
            Err(StorageError::Version { key: name(), version: other.map(|(version, _)| *version) })
        }
    }
}

/// All entries under a prefix, with their whole keys.
pub fn load(store: &dyn Store, prefix: &[u8]) -> Result<Vec<Record>, StorageError> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.as_slice());
        let page = store.range(prefix, after, PAGE_MAX)?;
        all.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value)));
        if !page.more {
            return Ok(all);
        }
    }
}

/// One record.
pub fn read<T: DeserializeOwned>(store: &dyn Store, key: &Key) -> Result<Option<T>, StorageError> {
    let key = key.encode();
    store.get(&key)?.map(|entry| decode(&key, &entry.value)).transpose()
}

/// Writes one record; durable when it returns.
pub fn put(store: &dyn Store, key: &Key, value: &impl Serialize) -> Result<(), StorageError> {
    store.txn(&Txn::new().put(key.encode(), encode(value)))?;
    Ok(())
}

/// Makes changes durable: in one transaction if they fit one, else in as few as they fit,
/// in their order. A later change of the same key replaces an earlier one.
pub fn commit(store: &dyn Store, writes: Vec<Write>) -> Result<(), StorageError> {
    use marram_store::{TXN_BYTES_MAX, TXN_OPS_MAX};
    let mut txn = Txn::new();
    let (mut bytes, mut count) = (0_usize, 0_usize);
    for (key, value) in latest(writes) {
        let size = key.len().saturating_add(value.as_ref().map_or(0, Vec::len));
        if count > 0 && (count >= TXN_OPS_MAX || bytes.saturating_add(size) > TXN_BYTES_MAX) {
            store.txn(&std::mem::take(&mut txn))?;
            (bytes, count) = (0, 0);
        }
        txn = match value {
            Some(value) => txn.put(key, value),
            None => txn.delete(key),
        };
        bytes = bytes.saturating_add(size);
        count += 1;
    }
    if count > 0 {
        store.txn(&txn)?;
    }
    Ok(())
}

/// The last change of each key, where the first one stood.
fn latest(writes: Vec<Write>) -> Vec<Write> {
    let mut order: Vec<Write> = Vec::with_capacity(writes.len());
    let mut places = std::collections::BTreeMap::new();
    for (key, value) in writes {
        match places.get(&key) {
            Some(&place) => {
                let slot: &mut Write = &mut order[place];
                slot.1 = value;
            }
            None => {
                places.insert(key.clone(), order.len());
                order.push((key, value));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_store::MemoryStore;

    #[test]
    fn more_than_one_transaction_holds_is_written_in_order() {
        let store = MemoryStore::new();
        let writes = (0..1200_u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![0; 2000])));
        commit(&store, writes.collect()).unwrap();
        assert_eq!(load(&store, &[0]).unwrap().len(), 1200);
        assert!(store.revision() >= 3);
        commit(&store, Vec::new()).unwrap();
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        let store = MemoryStore::new();
        let (key, value) = (b"root/a/x".to_vec(), |byte| Some(vec![byte]));
        let other = (b"root/a/y".to_vec(), Some(vec![9]));
        commit(&store, vec![(key.clone(), value(1)), other, (key.clone(), value(2))]).unwrap();
        assert_eq!(store.revision(), 1);
        assert_eq!(store.get(&key).unwrap().unwrap().value, [2]);
        commit(&store, vec![(key.clone(), value(3)), (key.clone(), None)]).unwrap();
        assert_eq!(store.get(&key).unwrap(), None);
    }

    #[test]
    fn records_of_another_layout_are_refused() {
        let bytes = encode(&"text".to_owned());
        assert_eq!(decode::<String>(b"k", &bytes).unwrap(), "text");
        let future = [&[2], &bytes[1..]].concat();
        let error = decode::<String>(b"k", &future).unwrap_err().to_string();
        assert_eq!(error, "record \"k\" has layout Some(2), known is 1");
        assert!(decode::<String>(b"k", &[]).is_err());
        assert!(decode::<String>(b"k", &[1, 200]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damaged_records_are_errors(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            type Both = (crate::catalog::Service, crate::auth::User);
            // Whether it fits by chance or not, it must not panic nor take much memory.
            drop(decode::<Both>(b"k", &bytes));
            proptest::prop_assert!(decode::<Both>(b"k", &[&[2], bytes.as_slice()].concat()).is_err());
        }
    }
}
