//! The state of a tier and the way inputs take through it.
//!
//! Handlers change state and note what follows from it in [`Notes`]; `flush` then turns the
//! notes into effects in the one order that is safe: persist, children, parent, watchers.

use crate::cards::Deck;
use crate::child::Child;
use crate::claim::Claims;
use crate::foreign::Foreign;
use crate::instance::Instance;
use crate::kin::Above;
use crate::loss::Losses;
use crate::missed::History;
use crate::movement::Movements;
use crate::offer::Abilities;
use crate::operate::{Asker, Operations};
use crate::peers::PeerBooks;
use crate::records::{self, ChildRecord, InstanceRecord, Key, TierRecord};
use crate::ties::Ties;
use crate::upward::Reporting;
use crate::{Effect, Identity, Input, Now, WORKLOAD_BYTES_MAX};
use marram_placement::{BEST_FIT, Policy};
use marram_protocol::CLUSTER_INSTANCES_MAX;
use marram_protocol::desired::Desired;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    ChildKind, Generation, InstanceStatus, Kin, NodeRef, Workload, WorkloadUsage,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why a workload cannot be taken at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// Larger than messages carry.
    #[error("the service takes {0} bytes as a message, at most {WORKLOAD_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// The tier is full.
    #[error("{CLUSTER_INSTANCES_MAX} instances are the most that a tier takes")]
    TooMany,
    /// A number is given once.
    #[error("instance {0} exists")]
    Exists(InstanceId),
}

/// A cluster or the root, as a state machine.
#[derive(Debug)]
pub struct Tier {
    pub(crate) identity: Identity,
    pub(crate) epoch: u64,
    pub(crate) children: BTreeMap<ChildId, Child>,
    pub(crate) abilities: Abilities,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    /// Those placed that ask to be apart from others.
    pub(crate) shy: Ties,
    /// Where room is kept, and for whom.
    pub(crate) promises: BTreeMap<InstanceId, ChildId>,
    /// Those without a place that ask to be with others.
    pub(crate) followers: Ties,
    /// What the parent desires; the root has no parent.
    pub(crate) desired: Option<Desired>,
    pub(crate) policy: &'static dyn Policy,
    pub(crate) reporting: Reporting,
    pub(crate) peers: PeerBooks,
    pub(crate) losses: Losses,
    pub(crate) movements: Movements,
    pub(crate) operations: Operations,
    /// It takes nothing new, by an operator's wish.
    pub(crate) cordoned: bool,
    /// Generation that a new child begins with.
    pub(crate) first_number: u64,
    pub(crate) above: Above,
    pub(crate) deck: Deck,
    pub(crate) claims: Claims,
    pub(crate) history: History,
    /// Children of other trees that have asked.
    pub(crate) foreign: BTreeMap<ChildId, Foreign>,
    /// Those of them that an operator takes.
    pub(crate) released: BTreeSet<ChildId>,
    pub(crate) notes: Notes,
    pub(crate) effects: VecDeque<Effect>,
}

/// What follows from an input, not yet in order.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Records to be written, or deleted if what they name is gone.
    pub(crate) dirty: BTreeSet<Key>,
    /// For each child, the instances whose desired state there is other than before.
    pub(crate) retold: BTreeMap<ChildId, BTreeSet<InstanceId>>,
    /// Children to be welcomed, with what they hold.
    pub(crate) welcomes: BTreeMap<ChildId, Generation>,
    /// Children all of whose claims are settled.
    pub(crate) adopted: BTreeSet<ChildId>,
    /// Messages that wait for what is persisted with them.
    pub(crate) sends: Vec<Effect>,
    /// Instances whose status the parent and watchers shall hear.
    pub(crate) changed: BTreeSet<InstanceId>,
    /// Last words of instances that are no more.
    pub(crate) farewells: Vec<InstanceStatus>,
    /// The parent is to be told everything.
    pub(crate) snapshot: bool,
    /// Children may have to be told something else of the tree above them.
    pub(crate) kin_stale: bool,
    /// Children that have more room or can do more: look for places there.
    pub(crate) wake: BTreeSet<ChildId>,
}

impl Tier {
    /// A tier with an empty disk. A root has no parent. `epoch` is drawn at random, not 0.
    pub fn new(identity: Identity, is_root: bool, epoch: u64) -> Self {
        let mut tier = Self {
            losses: Losses::default(),
            movements: Movements::default(),
            operations: Operations::new(identity.incarnation),
            cordoned: false,
            first_number: 0,
            identity,
            epoch,
            children: BTreeMap::new(),
            abilities: Abilities::default(),
            instances: BTreeMap::new(),
            shy: Ties::default(),
            followers: Ties::default(),
            promises: BTreeMap::new(),
            desired: (!is_root).then(Desired::default),
            policy: BEST_FIT,
            reporting: Reporting::default(),
            peers: PeerBooks::default(),
            above: Above::default(),
            deck: Deck::default(),
            claims: Claims::default(),
            history: History::default(),
            foreign: BTreeMap::new(),
            released: BTreeSet::new(),
            notes: Notes::default(),
            effects: VecDeque::new(),
        };
        tier.notes.dirty.insert(Key::Epoch);
        tier.flush(Now::default());
        tier
    }

    /// Whether `workload` could be deployed by an operator; touches nothing.
    pub fn check(&self, workload: &Workload) -> Result<(), TierError> {
        let size = workload_bytes(workload);
        if size > WORKLOAD_BYTES_MAX {
            return Err(TierError::TooLarge(size));
        }
        if self.instances.contains_key(&workload.instance) {
            return Err(TierError::Exists(workload.instance));
        }
        if self.instances.len() >= CLUSTER_INSTANCES_MAX {
            return Err(TierError::TooMany);
        }
        Ok(())
    }

    /// Takes an input.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.tick(now);
        match input {
            Input::Deploy(workload) => {
                if self.check(&workload).is_ok() {
                    self.add(workload, now);
                }
            }
            Input::Remove(instance) => self.remove(instance, now),
            Input::Apply { upserts, removes } => self.apply(upserts, &removes, now),
            Input::Operate { operation, cluster, child, verb } => {
                self.operate(Asker::Owner(operation), cluster, child, verb, now);
            }
            Input::Adopt(child) => self.adopt(child),
            Input::ParentUp { preferred } => self.parent_up(preferred, now),
            Input::ParentGone => self.parent_gone(),
            Input::Parent(message) => self.hear_parent(message, now),
            Input::Child(child, message) => self.hear_child(child, message, now),
            Input::ChildGone(child, incarnation) => self.child_gone(child, incarnation, now),
        }
        self.flush(now);
    }

    /// Does what is due. Called early it does nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.tick(now);
        self.lose_due(now);
        self.move_due(now);
        self.expire_operations(now);
        self.ask_again(now);
        self.retry_due(now);
        self.flush(now);
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Tier::handle_timeout`] has something to do, on the clock of `mono_ms`.
    pub fn poll_timeout(&self) -> Option<u64> {
        let retries = self.instances.values().filter_map(|i| i.retry_at_ms).min();
        let cards = self.deck.due_ms().filter(|_| self.reporting.is_up());
        let own = [
            self.losses.due_ms(),
            self.movements.due_ms(),
            self.operations.due_ms(),
            self.peers.due_ms(),
            self.claims.due_ms(),
            cards,
            self.above.assurance.due_ms(),
        ];
        let due = [retries, self.reporting.due_ms()].into_iter().chain(own);
        due.flatten().min()
    }

    fn apply(&mut self, upserts: Vec<Workload>, removes: &[InstanceId], now: Now) {
        // First, since what goes makes room in the number of instances.
        removes.iter().for_each(|instance| self.remove(*instance, now));
        for workload in upserts {
            match self.check(&workload) {
                Ok(()) | Err(TierError::Exists(_)) => self.add(workload, now),
                Err(TierError::TooLarge(_) | TierError::TooMany) => {}
            }
        }
    }

    /// Takes a new or changed workload into the books and looks for a place.
    pub(crate) fn add(&mut self, workload: Workload, now: Now) {
        let id = workload.instance;
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        let Some(known) = self.instances.get(&id) else {
            self.instances.insert(id, Instance::new(workload, now));
            return self.place_new(id, now);
        };
        let placed = known.placed;
        self.account(id, |instance| {
            instance.workload = workload;
            instance.removing = false;
            instance.tried.clear();
            instance.handed_back = false;
            instance.retries = 0;
        });
        match placed {
            // The child judges whether it can go on with what is asked now.
            Some(child) => {
                let kind = self.children.get(&child).map_or(ChildKind::Node, |c| c.kind);
                self.set_state(id, scheduled(kind), "told of a new revision", now);
                self.answered(id);
                self.notes.wake.insert(child);
                self.retell(id);
            }
            None => self.place_new(id, now),
        }
    }

    fn place_new(&mut self, id: InstanceId, now: Now) {
        if !self.place_claimed(id, now) {
            self.place(id, now);
        }
    }

    /// Wants an instance gone: at once if no child has it, else when the child says so.
    pub(crate) fn remove(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.placed.is_none() {
            return self.gone(id, now);
        }
        instance.removing = true;
        instance.found();
        self.watch_instance(id);
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        self.retell(id);
    }

    /// All children that have the instance hear what is desired of it now.
    fn retell(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        for child in instance.placed.into_iter().chain(instance.leaving()) {
            self.notes.retold.entry(child).or_default().insert(id);
        }
    }

    /// Nothing of the instance is left anywhere.
    pub(crate) fn gone(&mut self, id: InstanceId, now: Now) {
        self.gone_since(id, "removed", now);
    }

    /// The same, and how that is known.
    pub(crate) fn gone_since(&mut self, id: InstanceId, why: &str, now: Now) {
        let child = self.instances.get(&id).and_then(|instance| instance.placed);
        self.notes.wake.extend(child);
        self.account(id, |instance| {
            instance.placed = None;
            instance.leaving = None;
        });
        self.forget_move(id);
        self.followers.note(id, &[]);
        self.break_promise(id);
        let Some(mut instance) = self.instances.remove(&id) else { return };
        instance.set_state(InstanceState::Undeployed, why, now);
        self.notes.farewells.push(instance.status);
        self.notes.dirty.insert(Key::Instance(id));
        self.notes.changed.insert(id);
        self.reporting.forget_usage(id);
    }

    /// Changes an instance and keeps the books of the child it is or was placed on.
    pub(crate) fn account(&mut self, id: InstanceId, change: impl FnOnce(&mut Instance)) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let before = instance.placed;
        if let Some(child) = before.and_then(|c| self.children.get_mut(&c)) {
            child.release(instance);
        }
        if let Some(child) = instance.leaving().and_then(|c| self.children.get_mut(&c)) {
            child.release_leaving(instance);
        }
        change(instance);
        if let Some(child) = instance.placed.and_then(|c| self.children.get_mut(&c)) {
            child.hold(instance);
        }
        if let Some(child) = instance.leaving().and_then(|c| self.children.get_mut(&c)) {
            child.hold_leaving(instance);
        }
        self.reporting.summary_stale = true;
        self.note_ties(id);
        self.watch_instance(id);
        if let Some(left) =
            before.filter(|c| self.children.get(c).is_some_and(Child::is_forgettable))
        {
            self.watch(left);
        }
    }

    /// Notes what an instance has to do with others, as it is placed or not.
    pub(crate) fn note_ties(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        let placement = &instance.workload.spec.placement;
        let (shy, follows) = match instance.placed {
            Some(_) => (&placement.apart_from[..], &[][..]),
            None => (&[][..], &placement.with[..]),
        };
        self.shy.note(id, shy);
        self.followers.note(id, follows);
    }

    pub(crate) fn set_state(&mut self, id: InstanceId, state: InstanceState, why: &str, now: Now) {
        self.account(id, |instance| instance.set_state(state, why, now));
        self.notes.changed.insert(id);
    }

    /// Turns notes into effects: persist first, then tell children, parent and watchers.
    fn flush(&mut self, now: Now) {
        self.greet_others(now);
        self.settle_claims(now);
        let woken = std::mem::take(&mut self.notes.wake);
        if !woken.is_empty() {
            self.place_waiting(&woken, now);
            self.settle_claims(now);
        }
        self.retell_children();
        self.welcome_children(now);
        self.tell_adopted();
        self.tell_peers(now);
        self.retell_kin();
        let mut notes = std::mem::take(&mut self.notes);
        self.report(&mut notes, now);
        if !notes.dirty.is_empty() {
            let records = notes.dirty.iter().map(|key| (key.encode(), self.record(*key)));
            let persist = Effect::Persist(records.collect());
            self.effects.push_back(persist);
        }
        self.effects.extend(notes.sends);
        self.effects.extend(notes.changed.into_iter().map(Effect::Changed));
    }

    fn record(&self, key: Key) -> Option<Vec<u8>> {
        match key {
            Key::Epoch => Some(records::encode(&self.epoch)),
            Key::Tier => {
                let Self { cordoned, first_number, .. } = *self;
                let released = self.released.clone();
                Some(records::encode(&TierRecord { cordoned, first_number, released }))
            }
            Key::Parent => self.desired.as_ref().map(|d| records::encode(&d.generation())),
            Key::Kin => Some(records::encode(&Kin { rooted: false, ..self.above.kin.clone() })),
            Key::Child(id) => {
                self.children.get(&id).map(|c| records::encode(&ChildRecord::from(c)))
            }
            Key::Instance(id) => {
                self.instances.get(&id).map(|i| records::encode(&InstanceRecord::from(i)))
            }
        }
    }

    /// What is believed of an instance: what its child said last, or unknown while nobody
    /// can say.
    pub fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        let instance = self.instances.get(&id)?;
        let (shown, mut status) = self.shown_copy(instance);
        let Some(child) = shown.and_then(|child| self.children.get(&child)) else {
            return Some(status);
        };
        if child.kind == ChildKind::Node {
            let address = child.fact("address").unwrap_or_default().to_owned();
            status.node = Some(NodeRef { id: child.id, name: child.name.clone(), address });
        }
        let silent = !child.link.as_ref().is_some_and(|link| link.complete);
        let dated = !status.state.is_over() && !matches!(status.state, InstanceState::Requested);
        if silent && dated {
            return Some(Self::silent_status(child, instance, status));
        }
        // The child has lost it itself, and says why.
        if let Some(why) = instance.lost.as_ref().filter(|why| !why.is_empty()) {
            let detail = format!("{}; no other place: {why}", status.detail);
            status.detail = InstanceStatus::detail(&detail);
        }
        Some(status)
    }

    /// All instances.
    pub fn instances(&self) -> &BTreeMap<InstanceId, Instance> {
        &self.instances
    }

    /// All children, connected or not.
    pub fn children(&self) -> &BTreeMap<ChildId, Child> {
        &self.children
    }

    /// The connected child to ask about an instance.
    pub fn route(&self, id: InstanceId) -> Option<ChildId> {
        let child = self.instances.get(&id)?.placed?;
        self.children.get(&child).filter(|c| c.is_connected()).map(|c| c.id)
    }

    /// What an instance uses, once its node has told.
    pub fn usage(&self, id: InstanceId) -> Option<&WorkloadUsage> {
        self.reporting.usage.get(&id)
    }

    /// The tier's own id, name and place.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// The state of an instance that was handed to a child of this kind.
pub(crate) fn scheduled(kind: ChildKind) -> InstanceState {
    match kind {
        ChildKind::Node => InstanceState::NodeScheduled,
        ChildKind::Cluster => InstanceState::ClusterScheduled,
    }
}

pub(crate) fn workload_bytes(workload: &Workload) -> usize {
    postcard::experimental::serialized_size(workload).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
