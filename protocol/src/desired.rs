//! How a child follows its parent's desired state, and never falls behind for good.
//!
//! Why here: a node follows its cluster and a cluster its parent by the same rule, so the
//! rule stands once. It is pure: the owner persists what changed before acting on it.
//!
//! - a [`Down::Change`] on top of what is held is applied; one from before is ignored; one
//!   that skips something is answered by [`Up::Resync`];
//! - a [`Down::Manifest`] removes what it does not name, and what it names and is not held is
//!   fetched; it takes effect when all of it is here, so a half-received set never runs.
//!
//! Invariants: within one epoch the generation never decreases; what is held is always what
//! the parent wanted at that generation, never a mixture of two.

use crate::CLUSTER_INSTANCES_MAX;
use crate::id::InstanceId;
use crate::v1::{Down, Generation, ManifestEntry, Up, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// Workloads asked for in one message: their specs come back in messages of their own.
pub const FETCH_MAX: usize = 256;

/// The desired state of one child, as far as its parent has told it.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    generation: Generation,
    workloads: BTreeMap<InstanceId, Workload>,
    epoch: Option<u64>,
    pending: Option<Pending>,
}

/// A manifest that waits for workloads.
#[derive(Debug, Clone)]
struct Pending {
    generation: Generation,
    entries: BTreeMap<InstanceId, u64>,
    arrived: BTreeMap<InstanceId, Workload>,
    /// Asked for and not here yet; the next are asked for when these have come.
    asked: BTreeSet<InstanceId>,
}

/// What a message meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Known already, older, or not about desired state.
    Ignored,
    /// Persist, then act.
    Applied {
        /// These instances are new, other, or not desired; of the last, some may never have
        /// been known, and the parent waits to hear that nothing of them is here.
        changed: BTreeSet<InstanceId>,
        /// A whole was taken over: the parent cannot name what it holds and is not known
        /// here, so it is to be told everything.
        whole: bool,
    },
    /// Something is missing: send this up.
    Ask(Box<Up>),
    /// The parent wants more than this tier takes.
    TooMany(usize),
}

impl Desired {
    /// What was persisted, after a restart.
    pub fn restore(generation: Generation, workloads: Vec<Workload>) -> Self {
        let workloads = workloads.into_iter().map(|w| (w.instance, w)).collect();
        Self { generation, workloads, epoch: None, pending: None }
    }

    /// What is held.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// All desired workloads.
    pub fn workloads(&self) -> &BTreeMap<InstanceId, Workload> {
        &self.workloads
    }

    /// The connection is new: the parent's [`Down::Welcome`] tells its epoch. A child that never
    /// had one takes nothing before; [`Desired::receive`] does this for a welcome it is given.
    pub fn welcome(&mut self, epoch: u64) {
        self.epoch = Some(epoch);
        self.pending = None;
    }

    /// Takes a message of the parent.
    pub fn receive(&mut self, message: Down) -> Step {
        match message {
            Down::Change { base, generation, upserts, removes } => {
                self.change(base, generation, upserts, removes)
            }
            Down::Manifest { generation, entries } => self.manifest(generation, entries),
            Down::Specs { generation, workloads } => self.specs(generation, workloads),
            Down::Welcome { epoch, .. } => {
                self.welcome(epoch);
                Step::Ignored
            }
            Down::Rejected { .. }
            | Down::StreamOpen { .. }
            | Down::StreamData { .. }
            | Down::StreamCredit { .. }
            | Down::StreamClose { .. }
            | Down::StreamResize { .. }
            | Down::Kin(_)
            | Down::Disown(_)
            | Down::Operate { .. }
            | Down::Peers(_) => Step::Ignored,
        }
    }

    fn change(
        &mut self,
        base: Generation,
        generation: Generation,
        upserts: Vec<Workload>,
        removes: Vec<InstanceId>,
    ) -> Step {
        if self.is_stale(generation) || generation == self.generation {
            return Step::Ignored;
        }
        if base != self.generation {
            // While a manifest is being completed its own answer will bring the change.
            return match self.pending {
                Some(ref pending) if !newer(generation, pending.generation) => Step::Ignored,
                _ => Step::Ask(Box::new(Up::Resync(self.generation))),
            };
        }
        let count = self.count_after(&upserts, &removes);
        if count > CLUSTER_INSTANCES_MAX {
            return Step::TooMany(count);
        }
        let mut changed = BTreeSet::new();
        for instance in removes {
            self.workloads.remove(&instance);
            changed.insert(instance);
        }
        for workload in upserts {
            let instance = workload.instance;
            if self.workloads.get(&instance) != Some(&workload) {
                self.workloads.insert(instance, workload);
                changed.insert(instance);
            }
        }
        self.generation = generation;
        // A manifest beyond this change is still being fetched, and nobody will send it again.
        if self.pending.as_ref().is_some_and(|pending| !newer(pending.generation, generation)) {
            self.pending = None;
        }
        Step::Applied { changed, whole: false }
    }

    /// Of another epoch than the parent's, or older than what is held. Before the parent's
    /// welcome only what goes on from the state held can be trusted to be of the same parent.
    fn is_stale(&self, generation: Generation) -> bool {
        self.epoch.unwrap_or(self.generation.epoch) != generation.epoch
            || newer(self.generation, generation)
    }

    /// Workloads held after a change; an instance in both lists stays.
    fn count_after(&self, upserts: &[Workload], removes: &[InstanceId]) -> usize {
        let upserts: BTreeSet<InstanceId> = upserts.iter().map(|w| w.instance).collect();
        let removes: BTreeSet<InstanceId> = removes.iter().copied().collect();
        let held = |id: &&InstanceId| self.workloads.contains_key(id);
        let new = upserts.iter().filter(|id| !held(id)).count();
        let gone = removes.difference(&upserts).filter(held).count();
        self.workloads.len() - gone + new
    }

    fn manifest(&mut self, generation: Generation, entries: Vec<ManifestEntry>) -> Step {
        let overtaken = self.pending.as_ref().is_some_and(|p| newer(p.generation, generation));
        if self.is_stale(generation) || overtaken {
            return Step::Ignored;
        }
        if entries.len() > CLUSTER_INSTANCES_MAX {
            return Step::TooMany(entries.len());
        }
        let entries = entries.into_iter().map(|e| (e.instance, e.digest)).collect();
        // The same list once more: what has come of it already is not fetched again.
        let arrived = match self.pending.take() {
            Some(pending) if pending.generation == generation => pending.arrived,
            _ => BTreeMap::new(),
        };
        self.pending = Some(Pending { generation, entries, arrived, asked: BTreeSet::new() });
        self.complete()
    }

    fn specs(&mut self, generation: Generation, workloads: Vec<Workload>) -> Step {
        let Some(pending) = &mut self.pending else { return Step::Ignored };
        if pending.generation != generation {
            return Step::Ignored;
        }
        for workload in workloads {
            if pending.entries.get(&workload.instance) == Some(&workload.digest()) {
                pending.asked.remove(&workload.instance);
                pending.arrived.insert(workload.instance, workload);
            }
        }
        if pending.asked.is_empty() { self.complete() } else { Step::Ignored }
    }

    /// Takes the pending manifest into force if everything it names is here.
    fn complete(&mut self) -> Step {
        let Some(mut pending) = self.pending.take() else { return Step::Ignored };
        let held = |id: &InstanceId, digest: u64| {
            self.workloads.get(id).is_some_and(|workload| workload.digest() == digest)
        };
        let missing: Vec<InstanceId> = pending
            .entries
            .iter()
            .filter(|(id, digest)| !pending.arrived.contains_key(id) && !held(id, **digest))
            .map(|(id, _)| *id)
            .take(FETCH_MAX)
            .collect();
        if !missing.is_empty() {
            let generation = pending.generation;
            pending.asked = missing.iter().copied().collect();
            self.pending = Some(pending);
            return Step::Ask(Box::new(Up::Fetch { generation, instances: missing }));
        }
        let mut next = BTreeMap::new();
        for id in pending.entries.keys() {
            let workload = pending.arrived.remove(id).or_else(|| self.workloads.get(id).cloned());
            next.extend(workload.map(|w| (*id, w)));
        }
        self.commit(pending.generation, next)
    }

    fn commit(&mut self, generation: Generation, next: BTreeMap<InstanceId, Workload>) -> Step {
        let mut changed: BTreeSet<InstanceId> =
            self.workloads.keys().filter(|id| !next.contains_key(id)).copied().collect();
        changed.extend(
            next.iter().filter(|(id, w)| self.workloads.get(id) != Some(w)).map(|(id, _)| *id),
        );
        self.generation = generation;
        self.workloads = next;
        self.pending = None;
        Step::Applied { changed, whole: true }
    }
}

/// Whether `a` is after `b` in the same epoch; between epochs there is no order.
fn newer(a: Generation, b: Generation) -> bool {
    a.epoch == b.epoch && a.number > b.number
}

#[cfg(test)]
mod tests;
