//! An engine with one instance on a modelled backend, and what must hold.

use marram_backend_api::{ErrorKind, Exit, ExitReason, Observed};
use marram_engine_core::{
    BackendFacts, Effect, Engine, HandleBytes, Identity, Input, Now, Outcome,
};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    Down, Generation, Kin, ManifestEntry, Patience, Resources, RestartPolicy, ServiceSpec, Summary,
    Workload,
};

const INSTANCE: InstanceId = InstanceId { service: ServiceId([9; 12]), number: 0 };

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Revision 1 is a one-shot, 2 runs always, 3 runs once; 0 removes.
    Desire(u32),
    /// The effect in flight is performed.
    Ok,
    /// It fails and has done nothing.
    Fail(ErrorKind),
    /// It is performed and reported as failed.
    HalfDone,
    /// The workload ends.
    Exit(i32),
    /// Time passes until something is due.
    Wait,
    /// The backend is listed.
    List,
    /// An older list arrives.
    OldList,
    /// The backend cannot be asked.
    Trouble,
    /// The engine is restarted; what is in flight may have been performed, nobody knows.
    Restart { performed: bool },
    /// The host loses everything but its disk.
    Reboot,
    /// An operator drains the node.
    Drain,
    /// The way to the root is broken.
    RootGone,
    /// It is whole, and the list that was asked for comes.
    RootBack,
}

impl Action {
    pub(crate) const ALL: [Self; 20] = [
        Self::Ok,
        Self::Desire(0),
        Self::Desire(1),
        Self::Desire(2),
        Self::Desire(3),
        Self::Fail(ErrorKind::Transient),
        Self::Fail(ErrorKind::Unsupported),
        Self::HalfDone,
        Self::Exit(0),
        Self::Exit(1),
        Self::Wait,
        Self::List,
        Self::OldList,
        Self::Trouble,
        Self::Restart { performed: false },
        Self::Restart { performed: true },
        Self::Reboot,
        Self::Drain,
        Self::RootGone,
        Self::RootBack,
    ];
}

/// What the backend has, and of which revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Prepared(u32),
    Running(u32),
    Exited(u32, i32),
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    engine: Engine,
    ledger: Option<Vec<u8>>,
    now_ms: u64,
    number: u64,
    desired: u32,
    run: Option<Run>,
    listed: Option<Run>,
    flying: Option<Effect>,
    draining: bool,
    drained: u32,
    /// The engine has been told that it runs, and of no failure since.
    well: bool,
    /// Revision that the engine has called finished, and in which way.
    finished: Option<(u32, InstanceState)>,
    /// Attempts were reported as failed since the desire was told, or nothing served it.
    failures: u32,
    trouble: bool,
    /// Whether what is desired may only run with the root's word, for how long that holds,
    /// and whether it was had since the engine's start.
    fenced: bool,
    word_until_ms: Option<u64>,
    had_word: bool,
    story: Vec<Action>,
}

/// Patience of what may only run with the root's word.
const PARENT_S: u32 = 60;

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            engine: engine(None, Now::default()),
            ledger: None,
            now_ms: 0,
            number: 0,
            desired: 0,
            run: None,
            listed: None,
            flying: None,
            draining: false,
            drained: 0,
            well: false,
            finished: None,
            failures: 0,
            trouble: false,
            fenced: false,
            word_until_ms: None,
            had_word: false,
            story: Vec::new(),
        };
        world.boot();
        world
    }

    /// In which everything may only run with the root's word.
    pub(crate) fn fenced() -> Self {
        Self { fenced: true, ..Self::new() }
    }

    pub(crate) fn is_possible(&self, action: Action) -> bool {
        match action {
            Action::Ok | Action::Fail(_) | Action::HalfDone => self.flying.is_some(),
            Action::Exit(_) => matches!(self.run, Some(Run::Running(_))),
            Action::Wait => self.engine.poll_timeout().is_some(),
            Action::Desire(revision) => revision != self.desired,
            Action::Restart { performed } => !performed || self.flying.is_some(),
            Action::Drain => !self.draining,
            Action::RootGone | Action::RootBack => self.fenced,
            Action::List | Action::OldList | Action::Trouble | Action::Reboot => true,
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.story.push(action);
        let listed = self.run;
        match action {
            Action::Desire(revision) => self.desire(revision),
            Action::Ok => {
                let outcome = self.perform();
                self.done(outcome);
            }
            Action::Fail(kind) => self.done(Outcome::Failed(kind, "as the story goes".into())),
            Action::HalfDone => {
                self.perform();
                let why = "performed, and nobody knows".to_owned();
                self.done(Outcome::Failed(ErrorKind::Transient, why));
            }
            Action::Exit(code) => {
                let Some(Run::Running(revision)) = self.run else { return };
                self.run = Some(Run::Exited(revision, code));
                self.give(Input::Exited(INSTANCE, exit(code)));
            }
            Action::Wait => {
                let due_ms = self.engine.poll_timeout().unwrap_or(self.now_ms);
                self.now_ms = self.now_ms.max(due_ms);
                let now = self.now();
                self.engine.handle_timeout(now);
                self.take_effects();
            }
            Action::List => self.list(Some(self.run)),
            Action::OldList => self.list(Some(self.listed)),
            Action::Trouble => self.list(None),
            Action::Restart { performed } => {
                if performed {
                    self.perform();
                }
                self.boot();
            }
            Action::Reboot => {
                self.run = None;
                self.boot();
            }
            Action::Drain => {
                self.draining = true;
                self.give(Input::Drain);
            }
            Action::RootGone => self.root_gone(),
            Action::RootBack => self.root_back(),
        }
        self.listed = listed;
        self.check();
    }

    fn root_gone(&mut self) {
        let until_ms = self.now_ms + u64::from(PARENT_S) * 1_000;
        self.word_until_ms.get_or_insert(until_ms);
        self.give(Input::Parent(Down::Kin(Kin { tree: 9, ..Kin::default() })));
    }

    fn root_back(&mut self) {
        let kin = Kin { tree: 9, rooted: true, ..Kin::default() };
        self.give(Input::Parent(Down::Kin(kin)));
        (self.word_until_ms, self.had_word) = (None, true);
        if self.number == 0 {
            return;
        }
        let generation = Generation { epoch: 7, number: self.number };
        let entries = match self.desired {
            0 => Vec::new(),
            revision => {
                let digest = workload(revision, self.fenced).digest();
                vec![ManifestEntry { instance: INSTANCE, digest }]
            }
        };
        self.give(Input::Parent(Down::Manifest { generation, entries }));
    }

    /// Whether it may run now, and whether it may be started.
    fn allowance(&self) -> (bool, bool) {
        let runs = !self.fenced || self.word_until_ms.is_none_or(|until| self.now_ms < until);
        (runs, runs && (!self.fenced || self.had_word))
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix_ms: self.now_ms }
    }

    /// Starts the engine from what it has written down.
    fn boot(&mut self) {
        self.flying = None;
        self.draining = false;
        self.drained = 0;
        self.well = false;
        self.word_until_ms = Some(self.now_ms + u64::from(PARENT_S) * 1_000);
        self.had_word = false;
        self.engine = engine(self.ledger.as_deref(), self.now());
        let capacity = Resources { memory_mib: 100, ..Resources::default() };
        let summary = Summary { nodes: 1, capacity, ..Summary::default() };
        self.give(Input::Parent(Down::Welcome { epoch: 7, unix_ms: 0 }));
        self.give(Input::Host { summary, facts: Vec::new() });
        self.list(Some(self.run));
    }

    fn list(&mut self, run: Option<Option<Run>>) {
        self.trouble = run.is_none();
        self.failures += u32::from(self.trouble);
        self.give(list(run));
    }

    fn desire(&mut self, revision: u32) {
        self.desired = revision;
        self.finished = None;
        self.failures = u32::from(self.trouble);
        let base = match self.number {
            0 => Generation::default(),
            number => Generation { epoch: 7, number },
        };
        self.number += 1;
        let generation = Generation { epoch: 7, number: self.number };
        let (upserts, removes) = match revision {
            0 => (Vec::new(), vec![INSTANCE]),
            _ => (vec![workload(revision, self.fenced)], Vec::new()),
        };
        self.give(Input::Parent(Down::Change { base, generation, upserts, removes }));
    }

    fn give(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(now, input);
        self.take_effects();
    }

    fn done(&mut self, outcome: Outcome) {
        self.flying = None;
        match outcome {
            Outcome::Started(_) | Outcome::Recovered(Observed::Running { .. }) => self.well = true,
            Outcome::Failed(..) => {
                self.well = false;
                self.failures += 1;
            }
            _ => {}
        }
        self.give(Input::Done(INSTANCE, outcome));
    }

    fn take_effects(&mut self) {
        let mut acted = false;
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Persist { bytes, .. } => {
                    assert!(!acted, "written down after the deed: {:?}", self.story);
                    self.ledger = Some(bytes);
                }
                Effect::Send(_) => {}
                Effect::Drained => self.drained += 1,
                effect => {
                    acted = true;
                    assert!(self.flying.is_none(), "two effects at once: {:?}", self.story);
                    self.judge(&effect);
                    self.flying = Some(effect);
                }
            }
        }
        let Some(view) = self.engine.slot(INSTANCE) else { return };
        let state = view.status.state;
        if state.is_over() && view.desired.is_some() {
            self.finished = Some((self.desired, state));
        }
    }

    /// An effect nobody wants.
    fn judge(&self, effect: &Effect) {
        let (may_run, may_start) = self.allowance();
        let wanted = self.run == Some(Run::Running(self.desired)) && !self.draining && may_run;
        match effect {
            Effect::Prepare { .. } | Effect::Start { .. } if !may_start => {
                panic!("started without the root's word: {:?}", self.story)
            }
            Effect::Stop { .. } => assert!(!wanted, "stopped: {:?}", self.story),
            Effect::Destroy { .. } => {
                assert!(!(wanted && self.well), "destroyed: {:?}", self.story);
            }
            Effect::Prepare { workload, .. } => {
                assert!(!self.draining, "prepared while drained: {:?}", self.story);
                assert_eq!(self.finished, None, "made again: {:?}", self.story);
                assert_eq!(workload.revision, self.desired, "not desired: {:?}", self.story);
            }
            Effect::Start { .. } => {
                assert!(!self.draining, "started while drained: {:?}", self.story);
                assert_eq!(self.finished, None, "started again: {:?}", self.story);
            }
            _ => {}
        }
    }

    /// Does what is in flight, as the contract says.
    fn perform(&mut self) -> Outcome {
        let handle = HandleBytes { version: 1, state: vec![0] };
        let lost = Exit { reason: ExitReason::Lost, at_unix_ms: 0 };
        match self.flying.clone() {
            Some(Effect::Prepare { workload, .. }) => match self.run {
                Some(Run::Prepared(is) | Run::Running(is)) if is == workload.revision => {
                    Outcome::Prepared(handle)
                }
                Some(other) => panic!("prepared over {other:?}: {:?}", self.story),
                None => {
                    self.run = Some(Run::Prepared(workload.revision));
                    Outcome::Prepared(handle)
                }
            },
            Some(Effect::Start { .. }) => match self.run {
                Some(Run::Prepared(revision) | Run::Running(revision)) => {
                    self.run = Some(Run::Running(revision));
                    Outcome::Started(HandleBytes { state: vec![1], ..handle })
                }
                Some(Run::Exited(..)) => Outcome::Failed(ErrorKind::Invalid, "has ended".into()),
                None => Outcome::Failed(ErrorKind::NotFound, "nothing is there".into()),
            },
            Some(Effect::Recover { .. }) => Outcome::Recovered(observed(self.run)),
            Some(Effect::Stop { .. }) => {
                let ended = match self.run {
                    Some(Run::Running(revision)) => {
                        self.run = Some(Run::Exited(revision, 143));
                        exit(143)
                    }
                    Some(Run::Exited(_, code)) => exit(code),
                    Some(Run::Prepared(_)) | None => lost,
                };
                Outcome::Stopped(ended)
            }
            Some(Effect::Destroy { .. }) => {
                self.run = None;
                Outcome::Destroyed
            }
            other => panic!("not in flight: {other:?}"),
        }
    }

    /// What holds after every step.
    fn check(&mut self) {
        let now = self.now();
        self.engine.handle_timeout(now);
        assert_eq!(self.engine.poll_effect(), None, "was due and not done: {:?}", self.story);
        if let Some(due_ms) = self.engine.poll_timeout() {
            assert!(due_ms > self.now_ms, "spins: {:?}", self.story);
        }
        assert!(self.drained <= 1, "drained twice: {:?}", self.story);
        let now = self.now();
        Engine::restore(identity(), self.ledger.as_deref(), now).expect("it wrote this itself");
    }

    /// Nothing fails any more: what is desired comes true.
    pub(crate) fn peace(mut self) {
        if self.fenced {
            self.act(Action::RootBack);
        }
        self.list(Some(self.run));
        for _ in 0..100 {
            if self.is_possible(Action::Ok) {
                self.act(Action::Ok);
            } else if !self.is_settled() && self.is_possible(Action::Wait) {
                self.act(Action::Wait);
            }
        }
        assert!(
            self.is_settled(),
            "stuck with {:?}, {:?}: {:?}",
            self.run,
            self.view(),
            self.story
        );
    }

    fn is_settled(&self) -> bool {
        if self.flying.is_some() {
            return false;
        }
        if self.draining {
            return !matches!(self.run, Some(Run::Running(_))) && self.drained == 1;
        }
        match (self.desired, self.finished) {
            (0, _) => self.run.is_none() && self.engine.slot(INSTANCE).is_none(),
            (revision, None) => self.run == Some(Run::Running(revision)),
            (_, Some((revision, state))) => {
                let excused = match state {
                    InstanceState::Completed => revision == 1 || revision == 3,
                    InstanceState::Dead => revision == 3,
                    InstanceState::Refused => self.failures > 0,
                    _ => false,
                };
                excused && !matches!(self.run, Some(Run::Running(_)))
            }
        }
    }

    fn view(&self) -> Option<InstanceState> {
        self.engine.slot(INSTANCE).map(|view| view.status.state)
    }
}

fn identity() -> Identity {
    Identity { id: ChildId([1; 12]), name: "node".into(), version: "0".into(), incarnation: 1 }
}

fn engine(ledger: Option<&[u8]>, now: Now) -> Engine {
    Engine::restore(identity(), ledger, now).expect("it wrote this itself")
}

fn workload(revision: u32, fenced: bool) -> Workload {
    let (one_shot, restart) = match revision {
        1 => (true, RestartPolicy::Always),
        2 => (false, RestartPolicy::Always),
        _ => (false, RestartPolicy::Never),
    };
    let spec = ServiceSpec {
        virtualization: "container".into(),
        resources: Resources { memory_mib: 60, ..Resources::default() },
        one_shot,
        restart,
        patience: Patience { parent_s: fenced.then_some(PARENT_S), ..Patience::default() },
        ..ServiceSpec::default()
    };
    Workload { instance: INSTANCE, revision, name: "a.b.c.d".into(), spec }
}

fn exit(code: i32) -> Exit {
    Exit { reason: ExitReason::Code(code), at_unix_ms: 0 }
}

fn observed(run: Option<Run>) -> Observed {
    match run {
        None => Observed::Absent,
        Some(Run::Prepared(_)) => Observed::Prepared,
        Some(Run::Running(_)) => Observed::Running { pid: 1, started_unix_ms: 0, paused: false },
        Some(Run::Exited(_, code)) => Observed::Exited(exit(code)),
    }
}

/// The backend's word: what it has, or that it cannot be asked.
fn list(run: Option<Option<Run>>) -> Input {
    let serves = run.iter().map(|_| "container".to_owned()).collect();
    let trouble = run.is_none().then(|| "does not answer".to_owned());
    let facts = BackendFacts { name: "model".into(), serves, trouble };
    let found = run.map(|run| run.iter().map(|_| (INSTANCE, observed(run))).collect());
    Input::Backend { facts, found }
}
