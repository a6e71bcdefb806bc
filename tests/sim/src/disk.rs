//! What survives a crash, as the shells' stores promise it.
//!
//! - A node's ledger (`engine/node/src/ledger.rs`, `disk.rs`): a write that was acknowledged is
//!   there; one that was not is there as a whole or not at all. On a full disk the shell waits
//!   and tries again, and does nothing else meanwhile.
//! - A tier's store (`orchestrator/cluster/src/storage.rs`, redb): transactions, each as a whole
//!   or not at all, one after the other. What does not fit one is parted: children, instances,
//!   the rest. If the store fails the program ends.

use std::collections::BTreeMap;

/// Writes of one transaction of `marram-store`.
const TXN_OPS_MAX: usize = 512;

/// Bytes of one transaction of `marram-store`.
const TXN_BYTES_MAX: usize = 1536 * 1024;

/// A change of one record; `None` deletes.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// The records of a tier.
#[derive(Debug, Default)]
pub(crate) struct Store {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) full: bool,
}

impl Store {
    /// All records, as they are read at a start.
    pub(crate) fn records(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.records.clone()
    }

    /// Parts writes as the shells do.
    pub(crate) fn transactions(mut writes: Vec<Write>) -> Vec<Vec<Write>> {
        let rank = |key: &[u8]| match key.first() {
            Some(b'c') => 0,
            Some(b'i') => 1,
            _ => 2,
        };
        writes.sort_by_key(|(key, _)| rank(key));
        let mut parts: Vec<Vec<Write>> = Vec::new();
        let mut bytes = 0;
        for (key, value) in writes {
            let size = key.len() + value.as_ref().map_or(0, Vec::len);
            match parts.last_mut() {
                Some(part) if part.len() < TXN_OPS_MAX && bytes + size <= TXN_BYTES_MAX => {
                    part.push((key, value));
                    bytes += size;
                }
                _ => {
                    parts.push(vec![(key, value)]);
                    bytes = size;
                }
            }
        }
        parts
    }

    pub(crate) fn commit(&mut self, writes: Vec<Write>) {
        for (key, value) in writes {
            match value {
                Some(value) => drop(self.records.insert(key, value)),
                None => drop(self.records.remove(&key)),
            }
        }
    }
}

/// The ledger of a node.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger {
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) full: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_parted_children_first() {
        let write = |key: &[u8]| (key.to_vec(), Some(vec![0; 10]));
        let mut writes = vec![write(b"p"), write(b"c1")];
        writes.extend((0..600u32).map(|n| write(&[b"i".as_slice(), &n.to_be_bytes()].concat())));
        let parts = Store::transactions(writes);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [512, 90]);
        assert_eq!(parts[0][0].0, b"c1");
        assert_eq!(parts[1][89].0, b"p");
    }
}
