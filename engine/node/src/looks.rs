//! Looks at backends: whether they serve, and what they have.
//!
//! Why apart: a backend that is away may take as long as it likes to say so, so each look is a
//! task; and it is looked at again until it is well.
//!
//! Invariants: one look at a backend at a time, however often it asks for one; every look ends
//! within bounds; people are told when something changes, and not again.

use crate::convert;
use crate::measure::{self, Seen};
use marram_backend_api::{Backend, Health, Observed};
use marram_protocol::id::InstanceId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// A backend that is not usable is looked at again after so long.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Hundreds of workloads are listed in some seconds even on a slow card; what takes longer
/// has hung.
const LIST_TIME_MAX: Duration = Duration::from_secs(60);

/// What a look at a backend has shown.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) name: &'static str,
    pub(crate) seen: Seen,
    /// What of ours it has; `None` if that could not be told.
    pub(crate) found: Option<Vec<(InstanceId, Observed)>>,
    /// Why it is not usable.
    trouble: Option<String>,
}

/// All backends.
#[derive(Debug)]
pub(crate) struct Looks {
    watched: BTreeMap<&'static str, Watched>,
    tasks: JoinSet<Look>,
}

#[derive(Debug)]
struct Watched {
    backend: Arc<dyn Backend>,
    /// When to look; never before the look that is under way is over.
    due: Option<Instant>,
    busy: bool,
    /// What people were told last: why it is not usable, or that it is.
    told: Option<Option<String>>,
}

impl Looks {
    /// Each is looked at at once.
    pub(crate) fn new(backends: &BTreeMap<&'static str, Arc<dyn Backend>>) -> Self {
        let now = Instant::now();
        let watched = backends.iter().map(|(name, backend)| {
            let backend = Arc::clone(backend);
            (*name, Watched { backend, due: Some(now), busy: false, told: None })
        });
        Self { watched: watched.collect(), tasks: JoinSet::new() }
    }

    /// A backend asks to be looked at.
    pub(crate) fn ask(&mut self, name: &str) {
        if let Some(watched) = self.watched.get_mut(name) {
            watched.due = Some(Instant::now());
        }
    }

    /// The next look that is done. Cancel-safe.
    ///
    /// # Errors
    /// A look broke.
    pub(crate) async fn next(&mut self) -> Result<Look, JoinError> {
        loop {
            self.start();
            let idle = self.watched.values().filter(|watched| !watched.busy);
            let due = idle.filter_map(|watched| watched.due).min();
            tokio::select! {
                Some(look) = self.tasks.join_next() => {
                    let look = look?;
                    self.done(&look);
                    return Ok(look);
                }
                () = crate::shell::until(due) => {}
            }
        }
    }

    fn start(&mut self) {
        let now = Instant::now();
        for (name, watched) in &mut self.watched {
            if !watched.busy && watched.due.is_some_and(|due| due <= now) {
                watched.due = None;
                watched.busy = true;
                self.tasks.spawn(look(name, Arc::clone(&watched.backend)));
            }
        }
    }

    fn done(&mut self, look: &Look) {
        let Some(watched) = self.watched.get_mut(look.name) else { return };
        watched.busy = false;
        if look.trouble.is_some() {
            watched.due.get_or_insert(Instant::now() + LOOK_AGAIN);
        }
        if watched.told.as_ref() == Some(&look.trouble) {
            return;
        }
        watched.told = Some(look.trouble.clone());
        let backend = look.name;
        match (&look.trouble, &look.seen.fingerprint.health) {
            (None, _) => {
                let workloads = look.found.as_ref().map_or(0, Vec::len);
                tracing::info!(backend, workloads, "healthy");
            }
            (Some(why), Health::Undetected(_)) => {
                tracing::info!(backend, why, "not on this host; watched for");
            }
            (Some(why), _) => tracing::warn!(backend, why, "not usable now; watched"),
        }
    }
}

async fn look(name: &'static str, backend: Arc<dyn Backend>) -> Look {
    let seen = measure::look_at(&backend).await;
    if let Some(why) = &seen.facts.trouble {
        let trouble = Some(why.clone());
        return Look { name, seen, found: None, trouble };
    }
    match tokio::time::timeout(LIST_TIME_MAX, backend.list()).await {
        Ok(Ok(found)) => {
            let ours = |(id, observed)| Some((convert::instance_id(&id)?, observed));
            let found = Some(found.into_iter().filter_map(ours).collect());
            Look { name, seen, found, trouble: None }
        }
        Ok(Err(error)) => {
            let trouble = Some(format!("cannot be listed: {}", error.chain()));
            Look { name, seen, found: None, trouble }
        }
        Err(_) => {
            let trouble = Some(format!("its list did not come within {LIST_TIME_MAX:?}"));
            Look { name, seen, found: None, trouble }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moody::{Mood, Moody};

    fn looks(moody: &Moody) -> Looks {
        Looks::new(&BTreeMap::from([("moody", Arc::new(moody.clone()) as Arc<dyn Backend>)]))
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_away_is_looked_at_again_until_it_is_back() {
        let moody = Moody::new(Mood::Away);
        let mut looks = looks(&moody);
        let start = Instant::now();
        for times in 0..3 {
            let look = looks.next().await.unwrap();
            assert!(look.found.is_none() && look.seen.facts.trouble.is_some());
            assert_eq!(start.elapsed() / 1000, times * LOOK_AGAIN / 1000);
        }
        moody.be(Mood::Well);
        let look = looks.next().await.unwrap();
        assert_eq!((look.found.unwrap().len(), look.seen.facts.trouble), (0, None));
        // One that is well is left alone until it asks.
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, looks.next()).await.is_err());
        looks.ask("moody");
        looks.next().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn looks_do_not_multiply() {
        let moody = Moody::new(Mood::Away);
        let mut looks = looks(&moody);
        for _ in 0..50 {
            looks.ask("moody");
        }
        looks.next().await.unwrap();
        let before = moody.looks();
        let minute = tokio::time::timeout(Duration::from_secs(61), async {
            loop {
                looks.next().await.unwrap();
            }
        });
        assert!(minute.await.is_err());
        assert_eq!((before, moody.looks() - before), (1, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_in_trouble() {
        let moody = Moody::new(Mood::Hangs);
        let mut looks = looks(&moody);
        let look = looks.next().await.unwrap();
        assert!(look.found.is_none() && look.trouble.unwrap().contains("did not come"));
        assert!(look.seen.facts.trouble.is_none(), "it answered for itself");
    }
}
