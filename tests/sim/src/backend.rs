//! A simulated backend: it outlives the engine, it may fail, hang and lie, and what it was
//! asked for may come about when the one who asked is gone.

use crate::Random;
use marram_backend_api::{ErrorKind, Exit, ExitReason, Observed};
use marram_engine_core::{BackendFacts, Effect, HandleBytes, Outcome};
use marram_protocol::id::InstanceId;
use std::collections::BTreeMap;

/// Name of the one backend.
pub(crate) const NAME: &str = "sim";

/// Longest time of an effect that goes well.
const EFFECT_MS: u64 = 200;

/// An effect that hangs takes up to about two to the power of this.
const HANG_DOUBLINGS: u64 = 18;

/// What the backend has of an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Run {
    Prepared,
    Running,
    Exited(Exit),
}

/// How the backend is disposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Everything fails.
    Failing,
    /// Everything takes very long.
    Hanging,
    /// It says what is not so.
    Lying,
}

/// What runs workloads on a machine.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    /// With the memory of each.
    pub(crate) runs: BTreeMap<InstanceId, (Run, u32)>,
    pub(crate) mood: Mood,
    /// What it has said may be wrong, until it is listed again in a better mood.
    pub(crate) lied: bool,
    /// It has said something wrong in its life.
    pub(crate) has_lied: bool,
}

/// An effect on its way to the host.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) effect: Effect,
    course: Course,
}

/// How it will go.
#[derive(Debug)]
enum Course {
    Done,
    /// Nothing is done.
    Fails(ErrorKind, &'static str),
    /// It is done, and nobody hears of it.
    DoneAndFails,
    /// Only said to be done.
    Lie,
}

impl Backend {
    pub(crate) fn new() -> Self {
        Self { runs: BTreeMap::new(), mood: Mood::Well, lied: false, has_lied: false }
    }

    /// Takes an effect up: the task, and how long it takes. Of a hundred, `faults` are not well
    /// treated even in the best mood.
    pub(crate) fn take(&mut self, effect: Effect, random: &mut Random, faults: u32) -> (Task, u64) {
        let prepares = matches!(effect, Effect::Prepare { .. });
        let usual_ms = random.below(EFFECT_MS);
        let transient = Course::Fails(ErrorKind::Transient, "it did not answer");
        let (course, takes_ms) = match self.mood {
            Mood::Failing => (transient, usual_ms),
            Mood::Hanging => (Course::Done, random.span_ms(HANG_DOUBLINGS)),
            Mood::Lying if random.chance(50) => (Course::Lie, usual_ms),
            Mood::Well | Mood::Lying if random.chance(u64::from(faults)) => {
                let course = match random.below(20) {
                    0..10 => transient,
                    10..13 if prepares => {
                        Course::Fails(ErrorKind::Exhausted, "no space left on the disk")
                    }
                    13 if prepares => {
                        Course::Fails(ErrorKind::Unsupported, "this kernel cannot do it")
                    }
                    _ => Course::DoneAndFails,
                };
                (course, usual_ms)
            }
            Mood::Well | Mood::Lying => (Course::Done, usual_ms),
        };
        (Task { effect, course }, takes_ms)
    }

    /// The task reaches the host. What comes of it, and an instance that has ended by it
    /// though nobody meant that.
    pub(crate) fn land(&mut self, task: Task) -> Option<(InstanceId, Outcome)> {
        let instance = instance_of(&task.effect)?;
        let late = "it did not answer in time";
        let outcome = match task.course {
            Course::Done => self.succeed(task.effect)?,
            Course::Fails(kind, why) => Outcome::Failed(kind, why.to_owned()),
            Course::DoneAndFails => {
                self.succeed(task.effect)?;
                Outcome::Failed(ErrorKind::Transient, late.to_owned())
            }
            Course::Lie => self.lie(task.effect)?,
        };
        Some((instance, outcome))
    }

    fn succeed(&mut self, effect: Effect) -> Option<Outcome> {
        Some(match effect {
            Effect::Prepare { workload, .. } => {
                let memory_mib = workload.spec.resources.memory_mib;
                self.runs.entry(workload.instance).or_insert((Run::Prepared, memory_mib));
                Outcome::Prepared(handle())
            }
            Effect::Start { instance, .. } => match self.runs.get_mut(&instance) {
                Some((run @ (Run::Prepared | Run::Running), _)) => {
                    *run = Run::Running;
                    Outcome::Started(handle())
                }
                Some(_) => Outcome::Failed(ErrorKind::Invalid, "has ended".into()),
                None => Outcome::Failed(ErrorKind::NotFound, "not prepared".into()),
            },
            Effect::Recover { instance, .. } => {
                Outcome::Recovered(observed(self.runs.get(&instance).map(|(run, _)| run)))
            }
            Effect::Stop { instance, .. } => Outcome::Stopped(match self.runs.get_mut(&instance) {
                Some((run @ Run::Running, _)) => {
                    let exit = Exit { reason: ExitReason::Signal(15), at_unix_ms: 0 };
                    *run = Run::Exited(exit.clone());
                    exit
                }
                Some((Run::Exited(exit), _)) => exit.clone(),
                Some((Run::Prepared, _)) | None => lost(),
            }),
            Effect::Destroy { instance, .. } => {
                self.runs.remove(&instance);
                Outcome::Destroyed
            }
            Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => return None,
        })
    }

    /// Something is said to have happened that has not.
    fn lie(&mut self, effect: Effect) -> Option<Outcome> {
        (self.lied, self.has_lied) = (true, true);
        Some(match effect {
            Effect::Prepare { .. } => Outcome::Prepared(handle()),
            Effect::Start { .. } => Outcome::Started(handle()),
            Effect::Recover { instance, .. } => {
                Outcome::Recovered(match self.runs.get(&instance) {
                    Some((Run::Running, memory)) if memory % 2 == 0 => Observed::Absent,
                    Some((Run::Running, _)) => Observed::Exited(lost()),
                    Some((Run::Prepared, _)) => Observed::Unknown("it cannot be told".into()),
                    Some((Run::Exited(_), _)) | None => {
                        Observed::Running { pid: 1, started_unix_ms: 0, paused: false }
                    }
                })
            }
            Effect::Stop { .. } => Outcome::Stopped(lost()),
            Effect::Destroy { .. } => Outcome::Destroyed,
            Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => return None,
        })
    }

    /// Everything there is, as the engine hears it.
    pub(crate) fn listing(&mut self) -> (BackendFacts, Option<Vec<(InstanceId, Observed)>>) {
        let facts =
            |serves: Vec<String>, trouble| BackendFacts { name: NAME.into(), serves, trouble };
        if let Mood::Failing | Mood::Hanging = self.mood {
            return (facts(Vec::new(), Some("it does not answer".into())), None);
        }
        let all = self.runs.iter().map(|(id, (run, _))| (*id, observed(Some(run))));
        let found = match self.mood {
            // Each second one is kept quiet about.
            Mood::Lying => all.step_by(2).collect(),
            _ => all.collect(),
        };
        self.lied = self.mood == Mood::Lying;
        (facts(vec!["container".into()], None), Some(found))
    }

    /// The workload ends by itself.
    pub(crate) fn end(&mut self, instance: InstanceId, exit: Exit) {
        if let Some((run, _)) = self.runs.get_mut(&instance) {
            *run = Run::Exited(exit);
        }
    }

    /// Memory of what runs.
    pub(crate) fn used_mib(&self) -> u32 {
        self.runs.values().filter(|(run, _)| *run == Run::Running).map(|(_, mib)| mib).sum()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = InstanceId> {
        self.runs.iter().filter(|(_, (run, _))| *run == Run::Running).map(|(id, _)| *id)
    }
}

/// Which instance an effect is about; `None` for what backends are not asked for.
pub(crate) fn instance_of(effect: &Effect) -> Option<InstanceId> {
    match effect {
        Effect::Prepare { workload, .. } => Some(workload.instance),
        Effect::Start { instance, .. }
        | Effect::Recover { instance, .. }
        | Effect::Stop { instance, .. }
        | Effect::Destroy { instance, .. } => Some(*instance),
        Effect::Persist { .. } | Effect::Send(_) | Effect::Drained => None,
    }
}

fn handle() -> HandleBytes {
    HandleBytes { version: 1, state: vec![7] }
}

fn lost() -> Exit {
    Exit { reason: ExitReason::Lost, at_unix_ms: 0 }
}

fn observed(run: Option<&Run>) -> Observed {
    match run {
        None => Observed::Absent,
        Some(Run::Prepared) => Observed::Prepared,
        Some(Run::Running) => Observed::Running { pid: 1, started_unix_ms: 0, paused: false },
        Some(Run::Exited(exit)) => Observed::Exited(exit.clone()),
    }
}
