//! A simulated orchestrator: a tier and its disk.

use marram_orchestrator_core::{Identity, Now, Tier};
use marram_protocol::id::ChildId;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Orchestrator {
    pub(crate) id: ChildId,
    pub(crate) is_root: bool,
    pub(crate) tier: Option<Tier>,
    pub(crate) disk: BTreeMap<Vec<u8>, Vec<u8>>,
    incarnation: u64,
}

impl Orchestrator {
    pub(crate) fn new(id: ChildId, is_root: bool) -> Self {
        Self { id, is_root, tier: None, disk: BTreeMap::new(), incarnation: 0 }
    }

    /// Starts it from its disk.
    pub(crate) fn boot(&mut self, now: Now) {
        self.incarnation += 1;
        let identity = Identity {
            id: self.id,
            name: format!("tier-{}", self.id.0[0]),
            location: String::new(),
            version: "sim".into(),
            incarnation: self.incarnation,
        };
        let epoch = 1000 + u64::from(self.id.0[0]);
        let tier = Tier::restore(identity, self.is_root, epoch, self.disk.clone(), now)
            .expect("records that a tier wrote");
        self.tier = Some(tier);
    }

    pub(crate) fn persist(&mut self, records: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        for (key, value) in records {
            match value {
                Some(value) => drop(self.disk.insert(key, value)),
                None => drop(self.disk.remove(&key)),
            }
        }
    }
}
