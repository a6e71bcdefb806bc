//! The rules one by one, and a world in which the child must end where it can.

use super::*;
use crate::v1::Ancestor;

const PREFERRED: &str = "http://p:1";
const ALT: &str = "http://a:1";
const LEARNED: &str = "http://l:1";
const OWN: ChildId = ChildId([9; 12]);

const HABITS: Habits =
    Habits { patience_ms: 60_000, hysteresis_ms: 300_000, pause_ms: 1_000, needs_root: true };

fn machine(alternates: &[&str]) -> Parents {
    let alternates = alternates.iter().map(|a| (*a).to_owned()).collect();
    Parents::new(OWN, HABITS, PREFERRED.to_owned(), alternates, Known::default(), 0)
}

fn kin(rooted: bool, alternates: &[(u8, &str)]) -> Kin {
    let named = |(id, address): &(u8, &str)| Alternate {
        id: ChildId([*id; 12]),
        name: format!("c{id}"),
        address: (*address).to_owned(),
    };
    let parent = Ancestor { id: ChildId([1; 12]), name: "p".into(), ..Ancestor::default() };
    let alternates = alternates.iter().map(named).collect();
    Kin { tree: 7, rooted, path: vec![parent], alternates, ..Kin::default() }
}

/// The child, and what it has been told to do.
struct World {
    parents: Parents,
    now_ms: u64,
    /// Who can be reached, and whether the root can be from there.
    up: BTreeMap<&'static str, bool>,
    /// Who refuses guests.
    closed: BTreeSet<&'static str>,
    connected: Option<String>,
    log: Vec<(u64, String)>,
    random: u64,
    /// Probes find everybody well who is up.
    blind: bool,
}

impl World {
    fn new(parents: Parents, up: &[&'static str]) -> Self {
        let up = up.iter().map(|a| (*a, true)).collect();
        let (closed, log) = (BTreeSet::new(), Vec::new());
        Self { parents, now_ms: 0, up, closed, connected: None, log, random: 3, blind: false }
    }

    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        self.random >> 11
    }

    fn connect(&mut self, address: &str) {
        let random = self.draw();
        let Some(&rooted) = self.up.get(address) else {
            return self.parents.failed(self.now_ms, random);
        };
        self.parents.connected(self.now_ms);
        self.connected = Some(address.to_owned());
        if self.closed.contains(address) || (!rooted && address != PREFERRED) {
            return self.parents.refused(self.now_ms, random);
        }
        self.parents.welcomed(self.now_ms);
        let alternates: &[(u8, &str)] = if address == PREFERRED {
            &[(3, LEARNED)]
        } else {
            &[(1, PREFERRED), (9, "http://me")]
        };
        self.parents.kin(self.now_ms, &kin(rooted, alternates));
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            let Some(action) = self.parents.poll(self.now_ms) else {
                let due = self.parents.due_ms(self.now_ms);
                assert!(due.is_none_or(|at| at > self.now_ms), "{due:?} {:?}", self.parents);
                return;
            };
            match action {
                Action::Dial(address) => {
                    assert_eq!(self.connected, None, "one at a time: {:?}", self.log);
                    self.log.push((self.now_ms, address.clone()));
                    self.connect(&address);
                }
                Action::Leave(_) => {
                    assert!(self.connected.take().is_some(), "nothing to leave: {:?}", self.log);
                }
                Action::Probe(address) => {
                    let there = self.up.get(address.as_str());
                    let answers = there.is_some_and(|rooted| self.blind || *rooted);
                    self.parents.probed(self.now_ms, answers);
                }
            }
        }
        panic!("it does not come to rest: {:?}", self.parents);
    }

    fn run_until(&mut self, end_ms: u64) {
        loop {
            self.settle();
            match self.parents.due_ms(self.now_ms) {
                Some(at_ms) if at_ms <= end_ms => self.now_ms = at_ms,
                _ => break,
            }
        }
        self.now_ms = end_ms;
    }

    fn go_down(&mut self, address: &'static str) {
        self.up.remove(address);
        if self.connected.as_deref() == Some(address) {
            self.connected = None;
            let random = self.draw();
            self.parents.lost(self.now_ms, random);
        }
    }

    fn root_at(&mut self, address: &'static str, rooted: bool) {
        if let Some(there) = self.up.get_mut(address) {
            *there = rooted;
        }
        if self.connected.as_deref() == Some(address) {
            self.parents.kin(self.now_ms, &kin(rooted, &[(3, LEARNED)]));
        }
    }

    fn at(&self) -> Option<&str> {
        self.connected.as_deref()
    }
}

#[test]
fn the_preferred_parent_is_dialled_at_once_and_again_until_it_is_there() {
    let mut world = World::new(machine(&[]), &[]);
    world.run_until(600_000);
    let dials: Vec<u64> = world.log.iter().map(|(at, _)| *at).collect();
    assert_eq!(dials[0], 0);
    for pair in dials.windows(2) {
        assert!((500..=PAUSE_MS_MAX).contains(&(pair[1] - pair[0])), "{dials:?}");
    }
    assert!(dials.len() < 40, "{dials:?}");
    world.up.insert(PREFERRED, true);
    world.run_until(600_000 + PAUSE_MS_MAX);
    assert_eq!(world.at(), Some(PREFERRED));
    assert_eq!(world.parents.preferred(), None);
}

#[test]
fn a_short_outage_moves_nobody() {
    let mut world = World::new(machine(&[ALT]), &[PREFERRED, ALT]);
    world.run_until(1_000_000);
    world.go_down(PREFERRED);
    world.run_until(world.now_ms + HABITS.patience_ms - 1);
    world.up.insert(PREFERRED, true);
    world.run_until(world.now_ms + 100_000);
    assert_eq!(world.at(), Some(PREFERRED));
    assert!(world.log.iter().all(|(_, to)| to == PREFERRED), "{:?}", world.log);
}

#[test]
fn after_the_patience_a_learned_alternate_is_taken_and_left_after_the_hysteresis() {
    let mut world = World::new(machine(&[]), &[PREFERRED, LEARNED]);
    world.run_until(100_000);
    assert_eq!(world.parents.known().learned.len(), 1);
    world.go_down(PREFERRED);
    let lost_ms = world.now_ms;
    world.run_until(lost_ms + HABITS.patience_ms + 5_000);
    assert_eq!(world.at(), Some(LEARNED));
    assert_eq!(world.parents.preferred(), Some(ChildId([1; 12])));
    assert!(world.parents.known().elsewhere.is_empty(), "neither itself nor the preferred one");
    world.run_until(lost_ms + 1_000_000);
    assert_eq!(world.at(), Some(LEARNED), "{:?}", world.log);

    world.up.insert(PREFERRED, true);
    let well_ms = world.now_ms;
    world.run_until(well_ms + HABITS.hysteresis_ms - 1);
    assert_eq!(world.at(), Some(LEARNED));
    world.run_until(well_ms + HABITS.hysteresis_ms + PROBE_MS_MAX);
    assert_eq!(world.at(), Some(PREFERRED));
}

#[test]
fn a_preferred_parent_that_comes_and_goes_is_not_taken_back() {
    let mut world = World::new(machine(&[ALT]), &[ALT]);
    world.run_until(70_000);
    assert_eq!(world.at(), Some(ALT));
    for _ in 0..10 {
        world.up.insert(PREFERRED, true);
        world.run_until(world.now_ms + HABITS.hysteresis_ms - 2 * PROBE_MS_MAX);
        world.go_down(PREFERRED);
        world.run_until(world.now_ms + 2 * PROBE_MS_MAX);
        assert_eq!(world.at(), Some(ALT));
    }
}

#[test]
fn a_parent_without_a_root_is_left_for_one_that_has_it() {
    let mut world = World::new(machine(&[ALT]), &[PREFERRED, ALT]);
    world.run_until(100_000);
    assert!(world.parents.is_rooted());
    world.root_at(PREFERRED, false);
    assert!(!world.parents.is_rooted());
    world.run_until(100_000 + HABITS.patience_ms - 1);
    assert_eq!(world.at(), Some(PREFERRED));
    world.run_until(100_000 + HABITS.patience_ms);
    assert_eq!(world.at(), Some(ALT));
    world.root_at(PREFERRED, true);
    world.run_until(world.now_ms + HABITS.hysteresis_ms + PROBE_MS_MAX);
    assert_eq!(world.at(), Some(PREFERRED));
}

#[test]
fn where_nobody_has_a_root_the_child_stays_and_looks_less_and_less() {
    let mut world = World::new(machine(&[ALT]), &[PREFERRED, ALT]);
    world.run_until(100_000);
    world.root_at(PREFERRED, false);
    world.root_at(ALT, false);
    world.run_until(10_000_000);
    assert_eq!(world.at(), Some(PREFERRED));
    // Twice a round, which comes after 1, 2, 4, 8, 16, 16, … minutes.
    assert!((10..50).contains(&world.log.len()), "{:?}", world.log);
    world.root_at(PREFERRED, true);
    world.run_until(20_000_000);
    let before = world.log.len();
    world.run_until(30_000_000);
    assert_eq!((world.at(), world.log.len()), (Some(PREFERRED), before));
}

#[test]
fn who_refuses_is_passed_over() {
    let mut world = World::new(machine(&[ALT, LEARNED]), &[ALT, LEARNED]);
    world.closed.insert(ALT);
    world.run_until(70_000);
    assert_eq!(world.at(), Some(LEARNED));
    let asked = world.log.iter().filter(|(_, to)| to == ALT).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_parent_that_refuses_is_asked_again_with_pauses() {
    let mut world = World::new(machine(&[]), &[PREFERRED]);
    world.closed.insert(PREFERRED);
    world.run_until(3_600_000);
    assert!((60..200).contains(&world.log.len()), "{}", world.log.len());
    world.closed.clear();
    world.run_until(3_600_000 + PAUSE_MS_MAX);
    assert_eq!(world.at(), Some(PREFERRED));
}

#[test]
fn going_back_to_a_parent_that_has_lost_the_root_is_undone_and_not_repeated_soon() {
    let mut world = World::new(machine(&[ALT]), &[ALT]);
    world.run_until(70_000);
    let dialled = |world: &World| world.log.iter().filter(|(_, to)| to == PREFERRED).count();
    let before = dialled(&world);
    // It answers probes, and has no root when asked.
    world.up.insert(PREFERRED, false);
    world.blind = true;
    world.run_until(70_000 + HABITS.hysteresis_ms + PROBE_MS_MAX);
    assert_eq!((world.at(), dialled(&world)), (Some(ALT), before + 1));
    world.up.insert(PREFERRED, true);
    world.run_until(world.now_ms + 2 * HABITS.hysteresis_ms - PROBE_MS_MAX);
    assert_eq!((world.at(), dialled(&world)), (Some(ALT), before + 1));
    world.run_until(world.now_ms + 3 * PROBE_MS_MAX);
    assert_eq!(world.at(), Some(PREFERRED));
}

#[test]
fn a_lost_alternate_is_no_reason_to_wait_when_the_preferred_parent_answers() {
    let mut world = World::new(machine(&[ALT]), &[ALT]);
    world.run_until(70_000);
    world.up.insert(PREFERRED, true);
    world.run_until(world.now_ms + PROBE_MS_MAX);
    assert_eq!(world.at(), Some(ALT));
    world.go_down(ALT);
    world.settle();
    assert_eq!(world.at(), Some(PREFERRED));
}

#[test]
fn what_is_known_survives_a_restart_and_not_another_configuration() {
    let mut world = World::new(machine(&[]), &[PREFERRED]);
    world.run_until(1_000);
    let known = Known::from_text(&world.parents.known().to_text()).unwrap();
    assert_eq!(&known, world.parents.known());
    let start = |preferred: &str, up: &[&'static str]| {
        let parents = Parents::new(OWN, HABITS, preferred.to_owned(), Vec::new(), known.clone(), 0);
        let mut world = World::new(parents, up);
        world.run_until(70_000);
        world.at().map(str::to_owned)
    };
    assert_eq!(start(PREFERRED, &[LEARNED]).as_deref(), Some(LEARNED));
    assert_eq!(start("http://other:1", &[LEARNED]), None);
    assert!(Known::from_text("{}").is_err());
    assert!(Known::from_text(&" ".repeat(KNOWN_BYTES_MAX + 1)).is_err());
}

#[test]
fn a_node_stays_with_a_cluster_that_has_no_root() {
    let habits = Habits { needs_root: false, ..HABITS };
    let parents =
        Parents::new(OWN, habits, PREFERRED.into(), vec![ALT.into()], Known::default(), 0);
    let mut world = World::new(parents, &[PREFERRED, ALT]);
    world.run_until(1_000);
    world.root_at(PREFERRED, false);
    world.run_until(10_000_000);
    assert_eq!((world.at(), world.log.len()), (Some(PREFERRED), 1));
    // One that does not take it is left after the patience, once somebody else could.
    world.parents.unwelcome(world.now_ms);
    world.run_until(world.now_ms + HABITS.patience_ms);
    assert_eq!(world.at(), Some(ALT));
}

mod property {
    use super::*;
    use proptest::prelude::*;

    const ALL: [&str; 3] = [PREFERRED, ALT, LEARNED];

    proptest! {
        /// Whatever happened before: when all is well again the child ends at the preferred
        /// parent and stays, and while somebody takes it, it has a parent.
        #[test]
        fn it_ends_at_the_preferred_parent(
            steps in prop::collection::vec((0..5_usize, 0..3_usize, 0..400_000_u64), 0..40),
            random: u64,
        ) {
            let mut world = World::new(machine(&[ALT, LEARNED]), &[PREFERRED]);
            world.random = random;
            for (what, who, wait_ms) in steps {
                let who = ALL[who];
                match what {
                    0 => drop(world.up.insert(who, true)),
                    1 => world.go_down(who),
                    2 => world.root_at(who, false),
                    3 => world.root_at(who, true),
                    _ => drop(world.closed.insert(who)),
                }
                world.settle();
                world.run_until(world.now_ms + wait_ms);
            }
            world.closed.clear();
            world.go_down(PREFERRED);
            world.up.insert(ALT, true);
            world.run_until(world.now_ms + (1 << DOUBLINGS_MAX) * 2 * HABITS.patience_ms);
            prop_assert!(world.connected.is_some(), "{:?}", world.parents);
            for who in ALL {
                world.up.insert(who, true);
                world.root_at(who, true);
            }
            world.run_until(world.now_ms + (1 << DOUBLINGS_MAX) * 2 * HABITS.hysteresis_ms);
            prop_assert_eq!(world.at(), Some(PREFERRED), "{:?}", world.parents);
            let dials = world.log.len();
            world.run_until(world.now_ms + 100 * HABITS.hysteresis_ms);
            prop_assert_eq!(world.log.len(), dials, "no message but heartbeats");
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            drop(Known::from_text(&text));
        }
    }
}
