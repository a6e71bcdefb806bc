//! The ledger as the shell uses it: off the event loop's thread, and patient.
//!
//! Why apart: a card that is worn or full may take seconds for a write, and meanwhile pings
//! are to be answered and output is to flow. What may follow only when a write is durable
//! waits here for it.
//!
//! A write is acknowledged when one copy is durable, so that a start waits for half as many
//! trips to the card; the second copy follows when nothing more has come for a moment.
//!
//! Invariant: an order is never taken out of its channel here; who gave it is answered by the
//! shell.

use crate::ledger::{Ledger, LedgerError};
use crate::shell::{Order, unix_ms};
use anyhow::Context;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Wait between attempts on a disk that fails or is full.
const AGAIN: Duration = Duration::from_secs(2);

/// Quiet time before the second copy is made: a start is one or two writes, and one copy
/// serves them all.
const MIRROR_AFTER: Duration = Duration::from_millis(500);

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is durable.
    Yes,
    /// It is not, and what follows must happen all the same.
    No,
    /// It is not, and the program is to end: nothing may follow.
    Ending,
}

/// The node's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Away while it is being written.
    ledger: Option<Ledger>,
    /// The last attempt failed, and people were told.
    failing: bool,
    /// When the second copy is to be made.
    mirror_at: Option<Instant>,
}

impl Disk {
    /// Opens the ledger. One that is damaged beyond reading is put aside: the node starts with
    /// nothing desired, touches nothing that runs, and waits for its cluster.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<(Self, Option<Vec<u8>>)> {
        let (ledger, bytes) = match Ledger::open(directory) {
            Ok((mut ledger, record)) => {
                if let Some(record) = &record
                    && ledger.damage().next().is_some()
                {
                    tracing::warn!("one copy of the ledger was damaged and is mended");
                    ledger.write(record.generation, &record.bytes)?;
                }
                (ledger, record.map(|record| record.bytes))
            }
            Err(error @ LedgerError::Damaged { .. }) => {
                let aside = directory.with_extension(format!("damaged-{}", unix_ms()));
                tracing::error!(error = chain(&error), aside = %aside.display(), "starting anew");
                std::fs::rename(directory, &aside)
                    .with_context(|| format!("{} cannot be put aside", directory.display()))?;
                (Ledger::open(directory)?.0, None)
            }
            Err(error) => return Err(error.into()),
        };
        Ok((Self { ledger: Some(ledger), failing: false, mirror_at: None }, bytes))
    }

    /// Writes, however long the disk makes it wait, unless somebody orders otherwise.
    ///
    /// # Errors
    /// The writing thread broke.
    pub(crate) async fn keep(
        &mut self,
        generation: u64,
        mut bytes: Vec<u8>,
        orders: &watch::Receiver<Order>,
    ) -> anyhow::Result<Kept> {
        // Looked at through a copy, so that the shell still finds a change of it.
        let mut orders = orders.clone();
        loop {
            let result;
            (bytes, result) = self.write(generation, bytes).await?;
            let error = match result {
                Ok(()) => {
                    self.mirror_at = Some(Instant::now() + MIRROR_AFTER);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("the ledger can be written again");
                    }
                    return Ok(Kept::Yes);
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!(error = chain(&error), "the ledger cannot be written");
            }
            if let LedgerError::TooLong { .. } = error {
                // Waiting cannot help, and only what comes next can make it shorter.
                return Ok(Kept::No);
            }
            let order = *orders.borrow_and_update();
            match order {
                Order::Run => {}
                // What is stopped need not be remembered; a restart finds what is left.
                Order::Drain => return Ok(Kept::No),
                Order::Stop => return Ok(Kept::Ending),
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                changed = orders.changed() => changed.context("nobody can give orders any more")?,
            }
        }
    }

    /// When [`Disk::mirror`] has something to do.
    pub(crate) fn mirror_due(&self) -> Option<Instant> {
        self.mirror_at
    }

    /// Makes the second copy of what was written. If that fails it is tried again later: the
    /// first copy is what counts.
    ///
    /// # Errors
    /// The writing thread broke.
    pub(crate) async fn mirror(&mut self) -> anyhow::Result<()> {
        if self.mirror_at.take().is_none() {
            return Ok(());
        }
        let mut ledger = self.ledger.take().context("a write of the ledger was given up")?;
        let copying = tokio::task::spawn_blocking(move || {
            let result = ledger.mirror();
            (ledger, result)
        });
        let (ledger, result) = copying.await.context("writing the ledger broke")?;
        self.ledger = Some(ledger);
        if let Err(error) = result {
            tracing::warn!(error = chain(&error), "the ledger's second copy is not made yet");
            self.mirror_at = Some(Instant::now() + AGAIN * 30);
        }
        Ok(())
    }

    async fn write(
        &mut self,
        generation: u64,
        bytes: Vec<u8>,
    ) -> anyhow::Result<(Vec<u8>, Result<(), LedgerError>)> {
        let mut ledger = self.ledger.take().context("a write of the ledger was given up")?;
        let writing = tokio::task::spawn_blocking(move || {
            let result = ledger.append(generation, &bytes);
            (ledger, bytes, result)
        });
        let (ledger, bytes, result) = writing.await.context("writing the ledger broke")?;
        self.ledger = Some(ledger);
        Ok((bytes, result))
    }
}

/// An error with all its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LEDGER_BYTES_MAX;

    /// A disk on which nothing can be written until its folder is made again.
    fn broken() -> (tempfile::TempDir, std::path::PathBuf, Disk) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let (disk, none) = Disk::open(&path).unwrap();
        assert_eq!(none, None);
        std::fs::remove_dir_all(&path).unwrap();
        (directory, path, disk)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_the_disk() {
        let (_directory, path, mut disk) = broken();
        let (_give, orders) = watch::channel(Order::Run);
        let keeping = tokio::spawn(async move {
            let kept = disk.keep(1, b"state".to_vec(), &orders).await.unwrap();
            (kept, disk)
        });
        tokio::time::sleep(10 * AGAIN).await;
        assert!(!keeping.is_finished());
        std::fs::create_dir(&path).unwrap();
        let (kept, disk) = keeping.await.unwrap();
        assert_eq!(kept, Kept::Yes);
        drop(disk);
        assert_eq!(Disk::open(&path).unwrap().1.as_deref(), Some(&b"state"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_copy_follows_the_last_of_several_writes() {
        let directory = tempfile::tempdir().unwrap();
        let (mut disk, _) = Disk::open(directory.path()).unwrap();
        let (_give, orders) = watch::channel(Order::Run);
        assert_eq!(disk.mirror_due(), None);
        for generation in 1..4u8 {
            let kept = disk.keep(generation.into(), vec![generation], &orders).await.unwrap();
            assert_eq!(kept, Kept::Yes);
        }
        let slots = || ["slot-0", "slot-1"].map(|name| std::fs::read(directory.path().join(name)));
        let [first, second] = slots().map(Result::unwrap);
        assert_ne!(first, second);
        assert!(disk.mirror_due().is_some_and(|due| due > Instant::now()));
        disk.mirror().await.unwrap();
        let [first, second] = slots().map(Result::unwrap);
        assert_eq!(first, second);
        assert_eq!(disk.mirror_due(), None);
        drop(disk);
        assert_eq!(Disk::open(directory.path()).unwrap().1.as_deref(), Some(&[3][..]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_orders_an_end_is_heard_while_the_disk_fails() {
        for (order, expected) in [(Order::Stop, Kept::Ending), (Order::Drain, Kept::No)] {
            let (_directory, _path, mut disk) = broken();
            let (give, orders) = watch::channel(Order::Run);
            let mut shell = orders.clone();
            let keeping = tokio::spawn(async move { disk.keep(1, vec![7], &orders).await });
            tokio::time::sleep(3 * AGAIN).await;
            give.send_replace(order);
            assert_eq!(keeping.await.unwrap().unwrap(), expected);
            // The shell must see it as well, or it would go on.
            assert!(shell.has_changed().unwrap());
            assert_eq!(*shell.borrow_and_update(), order);
        }
    }

    #[tokio::test]
    async fn what_can_never_be_written_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (mut disk, _) = Disk::open(&directory.path().join("ledger")).unwrap();
        let (_give, orders) = watch::channel(Order::Run);
        let kept = disk.keep(1, vec![0; LEDGER_BYTES_MAX + 1], &orders).await.unwrap();
        assert_eq!(kept, Kept::No);
        assert_eq!(disk.keep(2, vec![0; 9], &orders).await.unwrap(), Kept::Yes);
    }
}
