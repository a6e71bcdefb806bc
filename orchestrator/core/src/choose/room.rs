//! Makes room for what is more important, at the cost of what is less.
//!
//! ```text
//!   no place ─► a node where it would fit without some of lower priority ─► these stop there
//!                                     │                                        │
//!                       their room is kept for it                 each is placed elsewhere
//!                                     └──────► all have stopped: it is placed     or waits
//! ```
//!
//! That happens where the children are nodes. A tier above hands the instance to a cluster that
//! holds something of lower priority, which then makes room or refuses.
//!
//! Invariants: the instances that go end before the one that they make room for is placed, so
//! that nothing is reserved twice; nobody else gets the room meanwhile; an instance makes only
//! those go that have a lower priority, so that this comes to an end.

use super::wish::{Judged, Wish};
use crate::Now;
use crate::child::Child;
use crate::decisions::Verdict;
use crate::instance::Instance;
use crate::tier::Tier;
use marram_placement::preempt::{Resident, victims};
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{ChildKind, Resources};

/// Nodes looked at for one instance: on each all combinations of a dozen residents may be
/// tried, and other inputs wait meanwhile.
const LOOKS_MAX: usize = 64;

/// Who has to go, and where.
pub(super) struct Room {
    on: ChildId,
    victims: Vec<InstanceId>,
}

impl Tier {
    /// Makes others go, if that helps the instance. What it waits for then, for people.
    pub(super) fn make_room(&mut self, id: InstanceId, now: Now) -> Option<String> {
        self.break_promise(id);
        let Room { on, victims } = self.room_for(self.instances.get(&id)?)?;
        let wanted = self.instances.get(&id)?.workload.spec.resources;
        self.children.get_mut(&on)?.promise(id, wanted);
        self.promises.insert(id, on);
        let name = |id: &InstanceId| {
            self.instances.get(id).map_or_else(|| id.to_string(), |i| i.workload.name.clone())
        };
        let (to, from) = (name(&id), self.name_of(on));
        let makes_room =
            Verdict::MakesRoom { on: from.clone(), victims: victims.iter().map(name).collect() };
        let why = makes_room.to_string();
        self.decide(id, makes_room, now);
        for victim in victims {
            self.decide(victim, Verdict::Yielded { on: from.clone(), to: to.clone() }, now);
            self.make_go(victim, now);
        }
        Some(why)
    }

    /// A child cluster that holds something less important is to make room among its nodes:
    /// only there it is known who would have to go. Whether there is one.
    pub(super) fn hand_to_cluster(&mut self, id: InstanceId, now: Now) -> bool {
        let Some(instance) = self.instances.get(&id) else { return false };
        let Some(on) = self.cluster_with_less(instance) else { return false };
        let why = format!("handed to {}, which holds what is less important", self.name_of(on));
        self.decide(id, Verdict::Other(why), now);
        self.place_on(id, on, now);
        true
    }

    fn cluster_with_less(&self, instance: &Instance) -> Option<ChildId> {
        let spec = &instance.workload.spec;
        let priority = spec.placement.priority;
        let wish = self.wish(instance);
        let mut judged = Judged::default();
        let mut best: Option<(i32, ChildId)> = None;
        for child in self.clusters() {
            let Some(lowest) = child.lowest_priority().filter(|lowest| *lowest < priority) else {
                continue;
            };
            let large = child.offer.as_ref().is_some_and(|o| spec.resources.fits(o.capacity));
            let better = best.is_none_or(|(least, _)| lowest < least);
            if large && better && wish.suits(child, &mut judged) {
                best = Some((lowest, child.id));
            }
        }
        best.map(|(_, child)| child)
    }

    /// No room is kept for it any more.
    pub(crate) fn break_promise(&mut self, id: InstanceId) {
        let Some(on) = self.promises.remove(&id) else { return };
        if let Some(child) = self.children.get_mut(&on) {
            child.break_promise(id);
            // Somebody else may have it.
            self.notes.wake.insert(on);
        }
    }

    pub(super) fn room_for(&self, instance: &Instance) -> Option<Room> {
        let priority = instance.workload.spec.placement.priority;
        let wish = self.wish(instance);
        let mut judged = Judged::default();
        let mut best: Option<((usize, i32), Room)> = None;
        let mut looks = 0;
        for child in self.children.values().filter(|child| child.kind == ChildKind::Node) {
            let may_leave = child.lowest_priority().is_some_and(|lowest| lowest < priority)
                || child.has_leaving();
            if looks >= LOOKS_MAX || !may_leave || !wish.suits(child, &mut judged) {
                continue;
            }
            looks += 1;
            let Some((cost, room)) = self.room_on(child, &wish) else { continue };
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, room));
            }
        }
        best.map(|(_, room)| room)
    }

    /// Who would have to go from the node: how many, how important, and who.
    fn room_on(&self, child: &Child, wish: &Wish<'_>) -> Option<((usize, i32), Room)> {
        let id = wish.instance.workload.instance;
        let (mut leaving, mut ids, mut residents) = (Resources::default(), Vec::new(), Vec::new());
        for (other, instance) in child.placed.union(&child.leaving).filter_map(|other| {
            self.instances.get_key_value(other).filter(|(_, instance)| instance.holds())
        }) {
            let amounts = instance.workload.spec.resources;
            if instance.removing || instance.stopping || child.leaving.contains(other) {
                leaving = leaving.plus(amounts);
            } else if instance.leaving.is_none() && instance.lost.is_none() {
                ids.push(*other);
                let priority = instance.workload.spec.placement.priority;
                residents.push(Resident { priority, amounts: amounts.amounts() });
            }
        }
        let (free, _) = child.offer.as_ref()?.free(child.taken_for(id).minus(leaving));
        let priority = wish.instance.workload.spec.placement.priority;
        let chosen = victims(&wish.demand, &free.amounts(), priority, &residents)?;
        let highest = chosen.iter().map(|at| residents[*at].priority).max().unwrap_or(i32::MIN);
        let cost = (chosen.len(), highest);
        let victims = chosen.into_iter().map(|at| ids[at]).collect();
        Some((cost, Room { on: child.id, victims }))
    }
}
