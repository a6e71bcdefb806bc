//! Which parent a child dials, when it gives up on one, and when it goes back.
//!
//! ```text
//!            preferred ──unwell for the patience──► round over all others ──► one that takes it
//!                ▲                                                                 │
//!                └── well for the hysteresis, by probes ◄──────────────────────────┘
//! ```
//!
//! Why here: clusters dial by one protocol and nodes by another, and both move by the same
//! rules. Pure: the shell brings clock and randomness, dials what [`Parents::poll`] says, tells
//! how that went, and keeps [`Known`] on disk.
//!
//! Invariants:
//! - one parent at a time: a dial comes only after the connection before has ended;
//! - a parent that was well is left for no other before it has been unwell for the patience;
//! - whatever is told, a parent is dialled again, and pauses are bounded.

mod habits;
mod known;

pub use habits::{FAILBACK_HYSTERESIS_MS, FAILOVER_PATIENCE_MS, Habits, WayUp};
pub use known::{KNOWN_BYTES_MAX, Known};

use crate::id::ChildId;
use crate::v1::{ALTERNATES_MAX, Alternate, Kin};
use std::collections::{BTreeMap, BTreeSet};

/// The longest pause between two dials: what an operator waits for a site to come back
/// without wondering.
pub const PAUSE_MS_MAX: u64 = 60_000;

/// How often a patience or hysteresis that led to nothing is doubled: an hour at most, as they
/// usually are.
const DOUBLINGS_MAX: u32 = 4;

/// From a connection to the word that it is of use: as long as opening one may take.
const SETTLE_MS: u64 = 10_000;

/// Between two probes of the preferred parent, at most and at least; a tenth of the hysteresis
/// lies between.
const PROBE_MS_MAX: u64 = 30_000;
const PROBE_MS_MIN: u64 = 100;

/// A connection that was well for so long was a good one: the next pause is a short one.
const WELL_AFTER_MS: u64 = 30_000;

/// Longest address that is remembered: what a name and a port take.
const ADDRESS_BYTES_MAX: usize = 300;

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect there, then tell [`Parents::connected`] or [`Parents::failed`].
    Dial(String),
    /// End the connection, for this reason. Nothing is to be told.
    Leave(&'static str),
    /// See whether a connection there would be of use, then tell [`Parents::probed`].
    Probe(String),
}

/// The state machine.
#[derive(Debug, Clone)]
pub struct Parents {
    own: ChildId,
    habits: Habits,
    /// The preferred one first; never empty.
    configured: Vec<String>,
    known: Known,
    /// The address that is dialled or connected.
    at: String,
    phase: Phase,
    /// Dials in a row that came to nothing.
    failures: u32,
    /// Nobody of use since then.
    unwell_since_ms: Option<u64>,
    /// Who was tried since the present one was given up.
    round: Option<BTreeSet<String>>,
    /// All were tried: the preferred one is the last resort.
    over: bool,
    /// Rounds in a row that found nobody while the preferred one could be reached.
    fruitless: u32,
    /// Who has refused, and until when it is not asked again.
    shut: BTreeMap<String, u64>,
    /// On the way back: where the child came from.
    back_from: Option<String>,
    /// Ways back that led to nothing.
    relapses: u32,
    probing: bool,
    probe_at_ms: u64,
    /// The preferred one has answered probes since then.
    answers_since_ms: Option<u64>,
    leave: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting { until_ms: u64 },
    Dialling,
    Connected { since_ms: u64, welcomed: bool, rooted: Option<bool> },
}

impl Parents {
    /// Begins with the preferred parent. `alternates` are the operator's, the best first.
    pub fn new(
        own: ChildId,
        habits: Habits,
        preferred: String,
        alternates: Vec<String>,
        known: Known,
        now_ms: u64,
    ) -> Self {
        let mut configured = vec![preferred.clone()];
        for address in alternates {
            if !configured.contains(&address) {
                configured.push(address);
            }
        }
        // Of another preferred parent, it says nothing of this one.
        let fits = known.preferred.as_ref().is_none_or(|there| there.address == preferred);
        Self {
            own,
            habits,
            configured,
            known: if fits { known } else { Known::default() },
            at: preferred,
            phase: Phase::Waiting { until_ms: now_ms },
            failures: 0,
            unwell_since_ms: Some(now_ms),
            round: None,
            over: false,
            fruitless: 0,
            shut: BTreeMap::new(),
            back_from: None,
            relapses: 0,
            probing: false,
            probe_at_ms: now_ms,
            answers_since_ms: None,
            leave: None,
        }
    }

    /// What outlives a restart.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The address that is dialled or connected.
    pub fn address(&self) -> &str {
        &self.at
    }

    /// For a hello: the preferred parent, if this is another one; all zeroes if it has not
    /// said who it is.
    pub fn preferred(&self) -> Option<ChildId> {
        let known = || self.known.preferred.as_ref().map(|there| there.id).unwrap_or_default();
        (!self.is_preferred()).then(known)
    }

    /// There is a way to the root, by the last word of a parent that is connected.
    pub fn is_rooted(&self) -> bool {
        matches!(self.phase, Phase::Connected { welcomed: true, rooted: Some(true), .. })
    }

    fn is_preferred(&self) -> bool {
        self.configured.first().is_some_and(|preferred| *preferred == self.at)
    }

    fn is_well(&self) -> bool {
        match self.phase {
            Phase::Connected { welcomed, rooted, .. } => {
                welcomed && !(self.habits.needs_root && rooted == Some(false))
            }
            Phase::Waiting { .. } | Phase::Dialling => false,
        }
    }

    /// The connection is there.
    pub fn connected(&mut self, now_ms: u64) {
        self.phase = Phase::Connected { since_ms: now_ms, welcomed: false, rooted: None };
    }

    /// There is no connection to be had.
    pub fn failed(&mut self, now_ms: u64, random: u64) {
        self.dropped(now_ms, random);
    }

    /// The connection has ended.
    pub fn lost(&mut self, now_ms: u64, random: u64) {
        if let Phase::Connected { since_ms, .. } = self.phase {
            let lasted_ms = now_ms.saturating_sub(since_ms);
            if self.is_well() && lasted_ms >= WELL_AFTER_MS {
                self.failures = 0;
            }
            if self.is_well() && self.is_preferred() && lasted_ms >= self.habits.hysteresis_ms {
                self.relapses = 0;
            }
            self.dropped(now_ms, random);
        }
    }

    /// The parent does not take this child, or the child must not stay there.
    pub fn refused(&mut self, now_ms: u64, random: u64) {
        if let Phase::Connected { .. } = self.phase {
            self.leave = Some("this parent does not do");
            let pause_ms = self.habits.patience_ms.max(SETTLE_MS);
            self.shut.insert(self.at.clone(), now_ms.saturating_add(pause_ms));
            self.dropped(now_ms, random);
        }
    }

    /// The parent does not take this child now; the child goes on asking on this connection.
    pub fn unwelcome(&mut self, now_ms: u64) {
        if let Phase::Connected { welcomed, .. } = &mut self.phase {
            *welcomed = false;
            self.unwell_since_ms.get_or_insert(now_ms);
        }
    }

    /// The parent has answered the hello.
    pub fn welcomed(&mut self, now_ms: u64) {
        if let Phase::Connected { welcomed, .. } = &mut self.phase {
            *welcomed = true;
            self.judge(now_ms);
        }
    }

    /// The parent tells of the tree. Says whether [`Parents::known`] has changed.
    pub fn kin(&mut self, now_ms: u64, kin: &Kin) -> bool {
        let Phase::Connected { rooted, .. } = &mut self.phase else { return false };
        *rooted = Some(kin.rooted);
        let before = self.known.clone();
        let alternates = self.acceptable(&kin.alternates);
        if self.is_preferred() {
            let parent = kin.path.last();
            let address = self.at.clone();
            self.known.preferred =
                parent.map(|a| Alternate { id: a.id, name: a.name.clone(), address });
            self.known.learned = alternates;
            self.known.elsewhere.clear();
        } else {
            self.known.elsewhere = alternates;
        }
        self.judge(now_ms);
        self.known != before
    }

    fn acceptable(&self, alternates: &[Alternate]) -> Vec<Alternate> {
        let preferred = self.known.preferred.as_ref().map(|there| there.id);
        let fits = |a: &&Alternate| {
            a.id != self.own
                && (Some(a.id) != preferred || self.is_preferred())
                && !a.address.is_empty()
                && a.address.len() <= ADDRESS_BYTES_MAX
                && !self.configured.contains(&a.address)
        };
        alternates.iter().filter(fits).take(ALTERNATES_MAX).cloned().collect()
    }

    /// How a probe of the preferred parent went.
    pub fn probed(&mut self, now_ms: u64, answers: bool) {
        (self.probing, self.probe_at_ms) = (false, self.next_probe_ms(now_ms));
        match answers {
            true => drop(self.answers_since_ms.get_or_insert(now_ms)),
            false => self.answers_since_ms = None,
        }
    }

    fn next_probe_ms(&self, now_ms: u64) -> u64 {
        let pause_ms = (self.habits.hysteresis_ms / 10).clamp(PROBE_MS_MIN, PROBE_MS_MAX);
        now_ms.saturating_add(pause_ms)
    }

    /// What the last word of the parent means.
    fn judge(&mut self, now_ms: u64) {
        let Phase::Connected { rooted, .. } = self.phase else { return };
        if !self.is_well() {
            self.unwell_since_ms.get_or_insert(now_ms);
            if rooted == Some(false) && self.back_from.is_some() {
                self.relapse(now_ms);
            }
            return;
        }
        // Where it is looked for a parent that is well, its word on the root is waited for.
        let on_trial = self.round.is_some() || self.over || self.back_from.is_some();
        if rooted.is_some() || !self.habits.needs_root || !on_trial {
            self.settle();
        }
    }

    /// This parent does.
    fn settle(&mut self) {
        (self.unwell_since_ms, self.round, self.over) = (None, None, false);
        self.shut.remove(&self.at);
        self.back_from = None;
        if self.is_preferred() {
            self.fruitless = 0;
        }
    }

    /// The way back has led to nothing: to where the child came from.
    fn relapse(&mut self, now_ms: u64) {
        let Some(from) = self.back_from.take() else { return };
        self.relapses = (self.relapses + 1).min(DOUBLINGS_MAX);
        if let Phase::Connected { .. } = self.phase {
            self.leave = Some("the preferred parent is not well yet");
        }
        self.go(from, now_ms);
        (self.answers_since_ms, self.unwell_since_ms) = (None, Some(now_ms));
        self.probe_at_ms = self.next_probe_ms(now_ms);
    }

    fn go(&mut self, to: String, at_ms: u64) {
        if self.is_preferred() && self.configured.first() != Some(&to) {
            // What is known of it by probes is out of date.
            (self.answers_since_ms, self.probe_at_ms) = (None, at_ms);
        }
        self.at = to;
        self.phase = Phase::Waiting { until_ms: at_ms };
    }

    fn patience_ms(&self) -> u64 {
        self.habits.patience_ms.saturating_mul(1 << self.fruitless.min(DOUBLINGS_MAX))
    }

    fn hysteresis_ms(&self) -> u64 {
        self.habits.hysteresis_ms.saturating_mul(1 << self.relapses.min(DOUBLINGS_MAX))
    }

    /// Nobody is connected any more.
    fn dropped(&mut self, now_ms: u64, random: u64) {
        let unwell_since_ms = *self.unwell_since_ms.get_or_insert(now_ms);
        if self.back_from.is_some() {
            return self.relapse(now_ms);
        }
        let pause_ms = self.pause_ms(random);
        self.failures = self.failures.saturating_add(1);
        let patience_end_ms = unwell_since_ms.saturating_add(self.patience_ms());
        if self.round.is_none() && now_ms < patience_end_ms {
            let until_ms = now_ms.saturating_add(pause_ms).min(patience_end_ms);
            self.phase = Phase::Waiting { until_ms };
            return;
        }
        // The first of many that move shall not take all the others along at once.
        let short_ms = random % self.habits.pause_ms.max(1);
        let next = self.next(now_ms);
        match next {
            Some(next) => self.go(next, now_ms.saturating_add(short_ms)),
            None => self.last_resort(now_ms.saturating_add(pause_ms)),
        }
    }

    fn last_resort(&mut self, at_ms: u64) {
        (self.round, self.over) = (None, true);
        let preferred = self.configured.first().cloned().unwrap_or_default();
        self.go(preferred, at_ms);
    }

    /// The pause after one more failure: doubled each time, less a random part of up to half,
    /// so that the children of a parent that restarts do not come back all at once.
    fn pause_ms(&self, random: u64) -> u64 {
        let doubled = self.habits.pause_ms.saturating_mul(1 << self.failures.min(16));
        let whole = doubled.clamp(1, PAUSE_MS_MAX);
        whole - random % (whole / 2 + 1)
    }

    /// All that could be parents, the best first.
    fn candidates(&self) -> impl Iterator<Item = &String> {
        let learned = self.known.learned.iter().chain(&self.known.elsewhere);
        self.configured.iter().chain(learned.map(|a| &a.address))
    }

    /// The next of this round, which begins now if there is none. The one that is left counts
    /// as tried.
    fn next(&mut self, now_ms: u64) -> Option<String> {
        self.shut.retain(|_, until_ms| *until_ms > now_ms);
        self.over = false;
        let mut tried = self.round.take().unwrap_or_default();
        tried.insert(self.at.clone());
        let open = |a: &&String| !tried.contains(*a) && !self.shut.contains_key(*a);
        let next = self.candidates().find(open).cloned();
        self.round = Some(tried);
        next
    }

    /// Whether, and else from when on, there is anybody else to try.
    fn other_from_ms(&self, now_ms: u64) -> Option<u64> {
        let others = self.candidates().filter(|a| **a != self.at);
        others.map(|a| self.shut.get(a).copied().unwrap_or(now_ms).max(now_ms)).min()
    }

    /// When the present connection is given up, if nothing changes.
    fn give_up_at_ms(&self, now_ms: u64) -> Option<u64> {
        let Phase::Connected { since_ms, .. } = self.phase else { return None };
        let settled_ms = since_ms.saturating_add(SETTLE_MS);
        if self.back_from.is_some() {
            return Some(settled_ms);
        }
        let unwell_since_ms = self.unwell_since_ms?;
        if self.round.is_some() || self.over {
            return Some(settled_ms);
        }
        let patience_end_ms = unwell_since_ms.saturating_add(self.patience_ms());
        Some(self.other_from_ms(now_ms)?.max(patience_end_ms))
    }

    /// When the child goes back, if nothing changes.
    fn back_at_ms(&self) -> Option<u64> {
        let preferred = self.configured.first().filter(|_| !self.is_preferred())?;
        let shut_ms = self.shut.get(preferred).copied().unwrap_or_default();
        let answers_since_ms = self.answers_since_ms?.max(shut_ms);
        match self.is_well() {
            true => Some(answers_since_ms.saturating_add(self.hysteresis_ms())),
            // There is nothing to lose; a dial is let run to its end.
            false => {
                let waits = matches!(self.phase, Phase::Waiting { .. });
                (waits && self.round.is_none()).then_some(answers_since_ms)
            }
        }
    }

    /// What to do now; to be asked until there is nothing.
    pub fn poll(&mut self, now_ms: u64) -> Option<Action> {
        if let Some(why) = self.leave.take() {
            return Some(Action::Leave(why));
        }
        if self.give_up_at_ms(now_ms).is_some_and(|at_ms| at_ms <= now_ms) {
            self.give_up(now_ms);
            return self.leave.take().map(Action::Leave);
        }
        if self.back_at_ms().is_some_and(|at_ms| at_ms <= now_ms) {
            let preferred = self.configured.first().cloned().unwrap_or_default();
            let was_well = self.is_well();
            self.back_from = Some(std::mem::replace(&mut self.at, preferred));
            self.phase = Phase::Waiting { until_ms: now_ms };
            if was_well {
                return Some(Action::Leave("the preferred parent is well again"));
            }
        }
        if let Phase::Waiting { until_ms } = self.phase
            && until_ms <= now_ms
        {
            self.phase = Phase::Dialling;
            return Some(Action::Dial(self.at.clone()));
        }
        if !self.is_preferred() && !self.probing && self.probe_at_ms <= now_ms {
            self.probing = true;
            return self.configured.first().cloned().map(Action::Probe);
        }
        None
    }

    /// The connection has been of no use for long enough.
    fn give_up(&mut self, now_ms: u64) {
        if self.is_well() {
            // It says nothing of the root, and all else is well.
            return self.settle();
        }
        if self.back_from.is_some() {
            return self.relapse(now_ms);
        }
        if self.over {
            // Nobody else would have this child: it stays, and looks again after longer.
            (self.over, self.unwell_since_ms) = (false, Some(now_ms));
            self.fruitless = (self.fruitless + 1).min(DOUBLINGS_MAX);
            return;
        }
        self.leave = Some("this parent has been of no use for too long");
        match self.next(now_ms) {
            Some(next) => self.go(next, now_ms),
            None => self.last_resort(now_ms),
        }
    }

    /// When [`Parents::poll`] has something, if nothing is told before.
    pub fn due_ms(&self, now_ms: u64) -> Option<u64> {
        if self.leave.is_some() {
            return Some(now_ms);
        }
        let dial = match self.phase {
            Phase::Waiting { until_ms } => Some(until_ms),
            Phase::Dialling | Phase::Connected { .. } => None,
        };
        let probe = (!self.is_preferred() && !self.probing).then_some(self.probe_at_ms);
        [dial, probe, self.give_up_at_ms(now_ms), self.back_at_ms()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
