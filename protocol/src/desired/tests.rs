//! The rule followed step by step, and by a model parent over a network that loses, doubles and
//! delays.

use super::*;
use crate::id::ServiceId;
use crate::v1::ServiceSpec;
use proptest::prelude::*;
use std::collections::VecDeque;

fn id(n: u8) -> InstanceId {
    InstanceId { service: ServiceId([n; 12]), number: 0 }
}

fn workload(n: u8, revision: u32) -> Workload {
    Workload { instance: id(n), revision, name: format!("a.b.{n}.d"), spec: ServiceSpec::default() }
}

fn generation(epoch: u64, number: u64) -> Generation {
    Generation { epoch, number }
}

fn entry(workload: &Workload) -> ManifestEntry {
    ManifestEntry { instance: workload.instance, digest: workload.digest() }
}

fn change(base: Generation, upserts: Vec<Workload>, removes: Vec<InstanceId>) -> Down {
    let generation = Generation { number: base.number + 1, ..base };
    Down::Change { base, generation, upserts, removes }
}

fn welcomed(held: Generation, workloads: Vec<Workload>) -> Desired {
    let mut desired = Desired::restore(held, workloads);
    desired.welcome(held.epoch);
    desired
}

fn applied(ids: &[u8]) -> Step {
    Step::Applied { changed: ids.iter().map(|n| id(*n)).collect(), whole: false }
}

fn taken_over(ids: &[u8]) -> Step {
    Step::Applied { changed: ids.iter().map(|n| id(*n)).collect(), whole: true }
}

fn fetch(generation: Generation, ids: &[u8]) -> Step {
    let instances = ids.iter().map(|n| id(*n)).collect();
    Step::Ask(Box::new(Up::Fetch { generation, instances }))
}

#[test]
fn a_change_on_top_of_what_is_held_is_applied_once() {
    let mut desired = welcomed(generation(7, 1), vec![workload(1, 0), workload(2, 0)]);
    let message = change(generation(7, 1), vec![workload(2, 1), workload(3, 0)], vec![id(1)]);
    assert_eq!(desired.receive(message.clone()), applied(&[1, 2, 3]));
    assert_eq!(desired.generation(), generation(7, 2));
    assert_eq!(desired.receive(message), Step::Ignored);
    assert_eq!(desired.workloads().keys().copied().collect::<Vec<_>>(), [id(2), id(3)]);
}

#[test]
fn a_gap_is_asked_about() {
    let mut desired = welcomed(generation(7, 1), vec![]);
    let step = desired.receive(change(generation(7, 2), vec![workload(1, 0)], vec![]));
    assert_eq!(step, Step::Ask(Box::new(Up::Resync(generation(7, 1)))));
    assert!(desired.workloads().is_empty());
}

#[test]
fn a_manifest_takes_effect_when_the_last_workload_has_come() {
    let mut desired = welcomed(generation(7, 1), vec![workload(1, 0), workload(9, 0)]);
    let wanted = [workload(1, 0), workload(2, 0), workload(3, 0)];
    let at = generation(7, 5);
    let manifest = Down::Manifest { generation: at, entries: wanted.iter().map(entry).collect() };
    assert_eq!(desired.receive(manifest), fetch(at, &[2, 3]));
    let specs = |workloads| Down::Specs { generation: at, workloads };
    assert_eq!(desired.receive(specs(vec![workload(3, 0)])), Step::Ignored);
    assert_eq!(desired.generation(), generation(7, 1));
    assert!(desired.workloads().contains_key(&id(9)));
    // Another revision than the manifest names does not count.
    assert_eq!(desired.receive(specs(vec![workload(2, 8)])), Step::Ignored);
    assert_eq!(desired.receive(specs(vec![workload(2, 0)])), taken_over(&[2, 3, 9]));
    assert_eq!(desired.generation(), at);
}

#[test]
fn what_a_manifest_lacks_is_fetched_in_portions() {
    let service = ServiceId([5; 12]);
    let many: Vec<Workload> = (0..600)
        .map(|number| Workload { instance: InstanceId { service, number }, ..workload(0, 0) })
        .collect();
    let at = generation(1, 3);
    let mut desired = welcomed(generation(1, 0), vec![]);
    let entries = many.iter().map(entry).collect();
    let mut step = desired.receive(Down::Manifest { generation: at, entries });
    let mut portions = Vec::new();
    while let Step::Ask(up) = step {
        let Up::Fetch { generation, instances } = *up else { panic!("{up:?}") };
        portions.push(instances.len());
        let workloads = many.iter().filter(|w| instances.contains(&w.instance)).cloned().collect();
        step = desired.receive(Down::Specs { generation, workloads });
    }
    assert_eq!(portions, [256, 256, 88]);
    assert_eq!(desired.workloads().len(), 600);
}

#[test]
fn the_same_manifest_once_more_does_not_fetch_what_has_come() {
    let at = generation(7, 5);
    let wanted = [workload(1, 0), workload(2, 0)];
    let manifest = Down::Manifest { generation: at, entries: wanted.iter().map(entry).collect() };
    let mut desired = welcomed(generation(7, 1), vec![]);
    assert_eq!(desired.receive(manifest.clone()), fetch(at, &[1, 2]));
    desired.receive(Down::Specs { generation: at, workloads: vec![workload(1, 0)] });
    assert_eq!(desired.receive(manifest), fetch(at, &[2]));
    let rest = Down::Specs { generation: at, workloads: vec![workload(2, 0)] };
    assert_eq!(desired.receive(rest), taken_over(&[1, 2]));
}

#[test]
fn a_late_change_does_not_drop_the_manifest_beyond_it() {
    let mut desired = welcomed(generation(7, 1), vec![]);
    let at = generation(7, 3);
    let wanted = workload(2, 0);
    let manifest = Down::Manifest { generation: at, entries: vec![entry(&wanted)] };
    assert_eq!(desired.receive(manifest), fetch(at, &[2]));
    let late = change(generation(7, 1), vec![workload(1, 0)], vec![]);
    assert_eq!(desired.receive(late), applied(&[1]));
    let old = Down::Manifest { generation: generation(7, 2), entries: vec![] };
    assert_eq!(desired.receive(old), Step::Ignored);
    let specs = Down::Specs { generation: at, workloads: vec![wanted] };
    assert_eq!(desired.receive(specs), taken_over(&[1, 2]));
    assert_eq!(desired.generation(), at);
}

#[test]
fn another_epoch_counts_only_after_its_welcome() {
    let mut desired = Desired::restore(generation(7, 9), vec![workload(1, 0)]);
    let at = generation(8, 1);
    let manifest = Down::Manifest { generation: at, entries: vec![] };
    assert_eq!(desired.receive(manifest.clone()), Step::Ignored);
    assert_eq!(desired.receive(Down::Welcome { epoch: 8, unix_ms: 0 }), Step::Ignored);
    assert_eq!(desired.receive(change(generation(7, 9), vec![], vec![id(1)])), Step::Ignored);
    assert_eq!(desired.receive(manifest), taken_over(&[1]));
    assert_eq!(desired.generation(), at);
    assert_eq!(Desired::default().receive(change(generation(0, 0), vec![], vec![])), applied(&[]));
}

#[test]
fn a_full_child_takes_updates_and_refuses_more() {
    let service = ServiceId([5; 12]);
    let numbered = |number, revision| Workload {
        instance: InstanceId { service, number },
        ..workload(0, revision)
    };
    let last = u32::try_from(CLUSTER_INSTANCES_MAX).unwrap();
    let mut desired =
        welcomed(generation(7, 1), (0..last).map(|number| numbered(number, 0)).collect());
    let update = change(generation(7, 1), vec![numbered(3, 1)], vec![]);
    assert!(matches!(desired.receive(update), Step::Applied { changed, .. } if changed.len() == 1));
    let unknown = InstanceId { service, number: last + 1 };
    let more = change(generation(7, 2), vec![numbered(last, 0)], vec![unknown]);
    assert_eq!(desired.receive(more), Step::TooMany(CLUSTER_INSTANCES_MAX + 1));
    let swap = change(generation(7, 2), vec![numbered(last, 0)], vec![numbered(0, 0).instance]);
    assert!(matches!(desired.receive(swap), Step::Applied { changed, .. } if changed.len() == 2));
    let entries = vec![entry(&numbered(0, 0)); CLUSTER_INSTANCES_MAX + 1];
    let manifest = Down::Manifest { generation: generation(7, 9), entries };
    assert_eq!(desired.receive(manifest), Step::TooMany(CLUSTER_INSTANCES_MAX + 1));
}

#[test]
fn the_longest_manifest_fits_one_message() {
    let entry = ManifestEntry {
        instance: InstanceId { service: ServiceId([0xff; 12]), number: u32::MAX },
        digest: u64::MAX,
    };
    let entries = vec![entry; CLUSTER_INSTANCES_MAX];
    let manifest = Down::Manifest { generation: generation(u64::MAX, u64::MAX), entries };
    assert!(manifest.encode().unwrap().len() <= crate::MESSAGE_BYTES_MAX);
}

/// A parent, a child, and the way between them.
struct World {
    parent: Generation,
    workloads: BTreeMap<InstanceId, Workload>,
    /// Everything the parent ever wanted.
    history: BTreeMap<Generation, BTreeMap<InstanceId, Workload>>,
    child: Desired,
    /// Highest number that the child held, by epoch.
    highest: BTreeMap<u64, u64>,
    /// Of this session, in order; the first may be lost or doubled.
    down: VecDeque<Down>,
    up: VecDeque<Up>,
    /// Of earlier sessions, in no order.
    late: Vec<Down>,
}

#[derive(Debug, Clone)]
enum Event {
    Change { upserts: Vec<(u8, u32)>, removes: Vec<u8> },
    Down { lose: bool, double: bool },
    Up { lose: bool, double: bool },
    Late { which: prop::sample::Index, keep: bool },
    Reconnect,
    ChildRestart,
    ParentLoss,
}

fn event() -> impl Strategy<Value = Event> {
    let workloads = prop::collection::vec((0..6u8, 0..3u32), 0..3);
    prop_oneof![
        4 => (workloads, prop::collection::vec(0..6u8, 0..3))
            .prop_map(|(upserts, removes)| Event::Change { upserts, removes }),
        8 => (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(lose, double)| Event::Down { lose, double }),
        6 => (prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(lose, double)| Event::Up { lose, double }),
        4 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(which, keep)| Event::Late { which, keep }),
        2 => Just(Event::Reconnect),
        1 => Just(Event::ChildRestart),
        1 => Just(Event::ParentLoss),
    ]
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            parent: generation(1, 0),
            workloads: BTreeMap::new(),
            history: BTreeMap::from([(Generation::default(), BTreeMap::new())]),
            child: Desired::default(),
            highest: BTreeMap::new(),
            down: VecDeque::new(),
            up: VecDeque::new(),
            late: Vec::new(),
        };
        world.history.insert(world.parent, BTreeMap::new());
        world
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Change { upserts, removes } => self.change(&upserts, &removes),
            Event::Down { lose, double } => {
                let Some(message) = self.down.pop_front() else { return };
                if matches!(message, Down::Welcome { .. }) {
                    // Old welcomes can only come before the new one: connections have an order.
                    self.late.retain(|late| !matches!(late, Down::Welcome { .. }));
                } else if double {
                    self.late.push(message.clone());
                }
                if !lose {
                    self.child_takes(message);
                }
            }
            Event::Up { lose, double } => {
                let Some(message) = self.up.pop_front() else { return };
                for _ in 0..usize::from(!lose) + usize::from(double) {
                    self.parent_takes(&message);
                }
            }
            Event::Late { which, keep } => {
                if self.late.is_empty() {
                    return;
                }
                let at = which.index(self.late.len());
                let message = if keep { self.late[at].clone() } else { self.late.swap_remove(at) };
                self.child_takes(message);
            }
            Event::Reconnect => self.reconnect(),
            Event::ChildRestart => {
                let workloads = self.child.workloads().values().cloned().collect();
                self.child = Desired::restore(self.child.generation(), workloads);
                self.reconnect();
            }
            Event::ParentLoss => {
                self.parent = generation(self.parent.epoch + 1, 0);
                self.workloads.clear();
                self.history.insert(self.parent, BTreeMap::new());
                self.reconnect();
            }
        }
    }

    fn change(&mut self, upserts: &[(u8, u32)], removes: &[u8]) {
        let base = self.parent;
        self.parent.number += 1;
        removes.iter().for_each(|n| drop(self.workloads.remove(&id(*n))));
        let upserts: Vec<Workload> = upserts.iter().map(|(n, r)| workload(*n, *r)).collect();
        self.workloads.extend(upserts.iter().map(|w| (w.instance, w.clone())));
        self.history.insert(self.parent, self.workloads.clone());
        let removes = removes.iter().map(|n| id(*n)).collect();
        self.down.push_back(Down::Change { base, generation: self.parent, upserts, removes });
    }

    fn reconnect(&mut self) {
        self.late.extend(self.down.drain(..));
        self.up.clear();
        self.down.push_back(Down::Welcome { epoch: self.parent.epoch, unix_ms: 0 });
        self.parent_hears_of(self.child.generation());
    }

    fn parent_hears_of(&mut self, held: Generation) {
        if held != self.parent {
            let entries = self.workloads.values().map(entry).collect();
            self.down.push_back(Down::Manifest { generation: self.parent, entries });
        }
    }

    fn parent_takes(&mut self, message: &Up) {
        match message {
            Up::Resync(held) => self.parent_hears_of(*held),
            Up::Fetch { generation, instances } => {
                // One workload a message: parts of an answer get lost as well.
                for workload in instances.iter().filter_map(|id| self.workloads.get(id)) {
                    let workloads = vec![workload.clone()];
                    self.down.push_back(Down::Specs { generation: *generation, workloads });
                }
            }
            other => panic!("a child asked for {other:?}"),
        }
    }

    fn child_takes(&mut self, message: Down) {
        let before = (self.child.generation(), self.child.workloads().clone());
        match self.child.receive(message) {
            Step::Applied { changed, .. } => {
                let held = self.child.generation();
                assert_eq!(Some(self.child.workloads()), self.history.get(&held), "{held:?}");
                let ids: BTreeSet<_> =
                    before.1.keys().chain(self.child.workloads().keys()).collect();
                let differ =
                    |id: &&InstanceId| before.1.get(*id) != self.child.workloads().get(*id);
                let differing: BTreeSet<_> = ids.into_iter().filter(differ).copied().collect();
                // What a change removes is named even if it was never held.
                assert!(changed.is_superset(&differing), "{changed:?} lacks of {differing:?}");
                let highest = self.highest.entry(held.epoch).or_default();
                assert!(held.number >= *highest, "{held:?} after {highest}");
                *highest = held.number;
            }
            Step::Ask(up) => {
                self.up.push_back(*up);
                assert_eq!(before, (self.child.generation(), self.child.workloads().clone()));
            }
            Step::Ignored => {
                assert_eq!(before, (self.child.generation(), self.child.workloads().clone()));
            }
            Step::TooMany(count) => panic!("{count} workloads"),
        }
    }

    /// A session in which nothing of its own is lost, while old messages still come in between.
    fn settle(&mut self) {
        self.reconnect();
        self.late.retain(|late| !matches!(late, Down::Welcome { .. }));
        for _ in 0..10_000 {
            if let Some(message) = self.down.pop_front() {
                self.child_takes(message);
            } else if let Some(message) = self.up.pop_front() {
                self.parent_takes(&message);
            } else if self.late.is_empty() {
                return;
            }
            if let Some(message) = self.late.pop() {
                self.child_takes(message);
            }
        }
        panic!("parent and child still talk");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_child_converges_whatever_the_way_does(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.settle();
        prop_assert_eq!(world.child.generation(), world.parent);
        prop_assert_eq!(world.child.workloads(), &world.workloads);
    }
}
