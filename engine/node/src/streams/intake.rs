//! What has come for a stream and was not taken yet: input, the terminal's size, grants, the end.
//!
//! Why not a channel: what is bounded is bytes, and single letters must not cost an entry each.
//! And nothing may wait behind input that the program does not read: neither a grant of output
//! (a program that copies its input to its output would stand still for ever) nor the news that
//! nobody listens any more.
//!
//! Invariant: no more than [`CREDIT_BYTES`] of input are held, since no more are granted; who
//! sends more ends the stream.

use marram_backend_api::ExecInput;
use marram_protocol::v1::{CHUNK_BYTES_MAX, CREDIT_BYTES, StreamEnd, StreamFault, input_cost};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Input that was taken is granted anew in parts of this size at least: a message for each
/// letter that is typed would cost more than the letter.
const GRANT_BYTES_MIN: u32 = CREDIT_BYTES / 4;

/// Between the link, which puts in, and the stream's task, which takes out.
#[derive(Debug)]
pub(super) struct Intake {
    state: Mutex<State>,
    /// Something to be taken.
    arrived: Notify,
    /// The stream is over.
    ended: Notify,
    /// Bytes of output that may be sent.
    pub(super) output: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    /// Input that was granted and has not come.
    window: u32,
    bytes: Vec<u8>,
    /// What the sender paid for `bytes`, at least their length.
    paid: u32,
    size: Option<(u16, u16)>,
    closing: bool,
    /// How the stream is over: `Some(None)` if nobody listens.
    over: Option<Option<StreamEnd>>,
}

/// Something for the program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Input, and what it had cost.
    Input(Vec<u8>, u32),
    /// Rows and columns.
    Size(u16, u16),
    /// There is no more input.
    Close,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            ended: Notify::new(),
            // The opener grants the first bytes as well.
            output: Semaphore::new(0),
        }
    }
}

impl Intake {
    /// Takes input from the link; empty closes it.
    pub(super) fn put(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let cost = input_cost(bytes.len());
        if cost > state.window {
            let why = format!("{cost} bytes of input came, {} were granted", state.window);
            let end = StreamEnd::Fault(StreamFault::TooMany, why);
            state.over.get_or_insert(Some(end));
            drop(state);
            return self.ended.notify_one();
        }
        state.window -= cost;
        state.paid += cost;
        state.bytes.extend_from_slice(bytes);
        state.closing |= bytes.is_empty();
        drop(state);
        self.arrived.notify_one();
    }

    /// The terminal has another size; only the last one counts.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        self.lock().size = Some((rows, columns));
        self.arrived.notify_one();
    }

    /// So much output more may be sent.
    pub(super) fn grant_output(&self, bytes: u32) {
        // What is granted beyond the window is the parent's mistake and not held against it.
        let room = (CREDIT_BYTES as usize).saturating_sub(self.output.available_permits());
        self.output.add_permits(room.min(bytes as usize));
    }

    /// Nobody listens any more.
    pub(super) fn close(&self) {
        self.lock().over.get_or_insert(None);
        self.ended.notify_one();
    }

    /// Waits until the stream is over but for the program: with an end that is to be told, or
    /// without one if nobody listens.
    pub(super) async fn over(&self) -> Option<StreamEnd> {
        loop {
            let ended = self.ended.notified();
            if let Some(end) = self.lock().over.clone() {
                return end;
            }
            ended.await;
        }
    }

    async fn next(&self) -> Taken {
        loop {
            // Registered before looking, so that what comes in between is not missed.
            let arrived = self.arrived.notified();
            if let Some(taken) = self.lock().take() {
                return taken;
            }
            arrived.await;
        }
    }

    fn open_window(&self, bytes: u32) {
        self.lock().window += bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before the lock is given back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Taken> {
        if let Some((rows, columns)) = self.size.take() {
            return Some(Taken::Size(rows, columns));
        }
        if self.bytes.is_empty() {
            return std::mem::take(&mut self.closing).then_some(Taken::Close);
        }
        let count = self.bytes.len().min(CHUNK_BYTES_MAX);
        // What single letters cost beyond their length is given back with the last of them.
        let paid = match count == self.bytes.len() {
            true => self.paid,
            false => u32::try_from(count).unwrap_or(u32::MAX),
        };
        self.paid -= paid;
        Some(Taken::Input(self.bytes.drain(..count).collect(), paid))
    }
}

/// Hands a program what comes for it, and lets `grant` tell how much more it takes. Never ends:
/// the stream is over when the program is, or when nobody listens.
pub(super) async fn feed<G: Future<Output = ()>>(
    intake: &Intake,
    input: &mut dyn ExecInput,
    grant: impl Fn(u32) -> G,
) {
    let mut owed = CREDIT_BYTES;
    // Of one that reads no more nothing is granted: its client waits for the end. What it
    // still writes is wanted all the same.
    let mut reads = true;
    loop {
        if reads && owed >= GRANT_BYTES_MIN {
            let bytes = std::mem::take(&mut owed);
            intake.open_window(bytes);
            grant(bytes).await;
        }
        let written = match intake.next().await {
            Taken::Size(rows, columns) => {
                if let Err(error) = input.resize(rows, columns).await {
                    tracing::debug!(error = error.chain(), "a terminal's size was not set");
                }
                continue;
            }
            Taken::Input(..) | Taken::Close if !reads => continue,
            Taken::Input(bytes, cost) => {
                owed += cost;
                input.write(&bytes).await
            }
            Taken::Close => {
                reads = false;
                input.write(&[]).await
            }
        };
        if let Err(error) = written {
            tracing::debug!(error = error.chain(), "input of an exec was lost");
            reads = false;
        }
    }
}

#[cfg(test)]
mod tests;
