//! Waits for instances to come up or to be gone: the decision, apart from the waiting.
//!
//! Why pure: what counts as up, as failed and as "give it a moment" is where such a command is
//! right or wrong, and none of it needs a server or a clock to be tested.
//!
//! ```text
//! events ──► heard(now) ──► verdict(now): Pending(until) | Done | Failed
//! ```
//!
//! Invariants: nothing is decided before the stream has told everything there is (`ready`), and
//! nothing while it is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::instance::{Instance, Standing};
use crate::sse::Event;

/// How long an instance may stay without a place before that counts as failed: a node that is
/// just joining should still get it.
pub(crate) const STUCK_SECONDS_MAX: u64 = 5;

/// How long an instance must have been running to count as up: one that ends at once was never
/// of use, and would be reported as up for the blink of an eye.
pub(crate) const SETTLE_MS: u64 = 1_000;

/// How long the server may be away: a root that restarts is back by then.
pub(crate) const AWAY_SECONDS_MAX: u64 = 30;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Running or completed.
    Up,
    /// Gone from the server.
    Gone,
}

/// How it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again when something is heard, and at the latest then.
    Pending(Option<Instant>),
    /// The goal is reached.
    Done,
    /// It will not be.
    Failed,
}

/// What was heard so far.
#[derive(Debug)]
pub(crate) struct Wait {
    goal: Goal,
    instances: BTreeMap<String, Followed>,
    complete: bool,
}

#[derive(Debug)]
struct Followed {
    /// `None` while nothing was heard of it, and once it is gone.
    last: Option<Instance>,
    /// Since when it is as it is now, in the sense of its standing and restarts.
    since: Option<Instant>,
}

impl Wait {
    /// Waits for these instances.
    pub(crate) fn new(goal: Goal, ids: impl IntoIterator<Item = String>) -> Self {
        let followed = |id| (id, Followed { last: None, since: None });
        Self { goal, instances: ids.into_iter().map(followed).collect(), complete: false }
    }

    /// A stream was opened: it tells everything anew.
    pub(crate) fn opened(&mut self) {
        self.complete = false;
        for followed in self.instances.values_mut() {
            followed.last = None;
        }
    }

    /// The stream broke: nothing is known to be complete.
    pub(crate) fn lost(&mut self) {
        self.complete = false;
    }

    /// Takes an event and returns the instance if it changed one that is waited for.
    pub(crate) fn heard(&mut self, event: &Event, now: Instant) -> Option<&Instance> {
        if event.name == "ready" {
            self.complete = true;
            return None;
        }
        let item: Value = serde_json::from_str(&event.data).ok()?;
        let mut instance = Instance::read(&item);
        let followed = self.instances.get_mut(&instance.id)?;
        match event.name.as_str() {
            "instance" => {}
            "removed" => {
                let last = followed.last.take();
                // With the goal to have it up, it stays as something that is over.
                if let (Goal::Up, Some(last)) = (self.goal, last) {
                    instance = Instance { state: "undeployed".into(), ..last };
                } else {
                    return None;
                }
            }
            _ => return None,
        }
        let as_before = |last: &Instance| {
            last.standing() == instance.standing() && last.restarts == instance.restarts
        };
        if !followed.last.as_ref().is_some_and(as_before) {
            followed.since = Some(now);
        }
        followed.last = Some(instance);
        followed.last.as_ref()
    }

    /// How it stands at a time.
    pub(crate) fn verdict(&self, now: Instant) -> Verdict {
        if !self.complete {
            return Verdict::Pending(None);
        }
        match self.goal {
            Goal::Up => self.verdict_up(now),
            Goal::Gone if self.instances.values().all(|followed| followed.last.is_none()) => {
                Verdict::Done
            }
            Goal::Gone => Verdict::Pending(None),
        }
    }

    fn verdict_up(&self, now: Instant) -> Verdict {
        let mut pending = false;
        let mut until: Option<Instant> = None;
        for followed in self.instances.values() {
            // The stream is complete and does not tell of it: removed by somebody else.
            let Some(last) = &followed.last else { return Verdict::Failed };
            let since = followed.since.unwrap_or(now);
            let end = match last.standing() {
                Standing::Over => return Verdict::Failed,
                Standing::Up if last.state == "completed" => continue,
                Standing::Up => since + Duration::from_millis(SETTLE_MS),
                Standing::Stuck => since + Duration::from_secs(STUCK_SECONDS_MAX),
                Standing::Pending => {
                    pending = true;
                    continue;
                }
            };
            match last.standing() {
                Standing::Stuck if end <= now => return Verdict::Failed,
                Standing::Up if end <= now => {}
                _ => {
                    pending = true;
                    until = Some(until.map_or(end, |earlier| earlier.min(end)));
                }
            }
        }
        if pending { Verdict::Pending(until) } else { Verdict::Done }
    }

    /// What was last heard of each that is there.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter_map(|followed| followed.last.as_ref())
    }

    /// Ids of which nothing is known.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &str> {
        let without = self.instances.iter().filter(|(_, followed)| followed.last.is_none());
        without.map(|(id, _)| id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, id: &str, state: &str) -> Event {
        let data = serde_json::json!({"instance_id": id, "state": state}).to_string();
        Event { name: name.into(), data }
    }

    fn ready() -> Event {
        Event { name: "ready".into(), data: "{}".into() }
    }

    fn two(goal: Goal) -> Wait {
        let mut wait = Wait::new(goal, ["a.0".to_owned(), "b.0".to_owned()]);
        wait.opened();
        wait
    }

    #[test]
    fn all_must_be_up_at_the_same_time() {
        let now = Instant::now();
        let mut wait = two(Goal::Up);
        wait.heard(&event("instance", "a.0", "running"), now);
        wait.heard(&event("instance", "b.0", "completed"), now);
        assert_eq!(wait.verdict(now), Verdict::Pending(None), "the stream is not complete");
        wait.heard(&ready(), now);
        let settled = now + Duration::from_millis(SETTLE_MS);
        assert_eq!(wait.verdict(now), Verdict::Pending(Some(settled)), "it may end at once");
        assert_eq!(wait.verdict(settled), Verdict::Done);
        wait.heard(&event("instance", "a.0", "failed"), now);
        assert_eq!(wait.verdict(now), Verdict::Pending(None), "it is started again");
        assert!(wait.heard(&event("instance", "x.0", "dead"), now).is_none(), "not ours");
        wait.heard(&event("instance", "a.0", "dead"), now);
        assert_eq!(wait.verdict(now), Verdict::Failed);
    }

    #[test]
    fn an_instance_without_a_place_gets_a_moment() {
        let now = Instant::now();
        let patience = Duration::from_secs(STUCK_SECONDS_MAX);
        let mut wait = two(Goal::Up);
        wait.heard(&event("instance", "a.0", "unplaceable"), now);
        wait.heard(&event("instance", "b.0", "completed"), now);
        wait.heard(&ready(), now);
        assert_eq!(wait.verdict(now), Verdict::Pending(Some(now + patience)));
        let later = now + patience / 2;
        wait.heard(&event("instance", "a.0", "unplaceable"), later);
        assert_eq!(wait.verdict(later), Verdict::Pending(Some(now + patience)), "told twice");
        assert_eq!(wait.verdict(now + patience), Verdict::Failed);
        wait.heard(&event("instance", "a.0", "creating"), later);
        assert_eq!(wait.verdict(now + patience), Verdict::Pending(None));
    }

    #[test]
    fn what_was_removed_by_somebody_else_is_a_failure() {
        let now = Instant::now();
        let mut wait = two(Goal::Up);
        wait.heard(&event("instance", "a.0", "running"), now);
        wait.heard(&event("instance", "b.0", "creating"), now);
        wait.heard(&ready(), now);
        let gone = wait.heard(&event("removed", "b.0", ""), now).unwrap();
        assert_eq!(gone.state, "undeployed");
        assert_eq!(wait.verdict(now), Verdict::Failed);
        wait.opened();
        wait.heard(&ready(), now);
        assert_eq!(wait.verdict(now), Verdict::Failed);
        assert_eq!(wait.unknown().collect::<Vec<_>>(), ["a.0", "b.0"]);
    }

    #[test]
    fn gone_means_that_a_whole_stream_does_not_tell_of_it() {
        let now = Instant::now();
        let mut wait = two(Goal::Gone);
        assert_eq!(wait.verdict(now), Verdict::Pending(None));
        wait.heard(&event("instance", "a.0", "running"), now);
        wait.heard(&ready(), now);
        assert_eq!(wait.verdict(now), Verdict::Pending(None));
        wait.heard(&event("removed", "a.0", ""), now);
        assert_eq!(wait.verdict(now), Verdict::Done);
        wait.lost();
        assert_eq!(wait.verdict(now), Verdict::Pending(None));
    }

    #[test]
    fn what_is_no_object_changes_nothing() {
        let now = Instant::now();
        let mut wait = two(Goal::Up);
        for data in ["", "[", "7", "null", "{\"instance_id\":7}"] {
            let event = Event { name: "instance".into(), data: data.into() };
            assert!(wait.heard(&event, now).is_none());
        }
    }
}
