//! Output of one stream that its client has not taken yet, and how much input may be sent.
//!
//! Why not a channel: what is bounded is bytes, and a program that writes single letters
//! must not cost an entry each.

use marram_protocol::v1::{
    CHUNK_BYTES_MAX, CREDIT_BYTES, INPUT_COST_MIN, Output, StreamEnd, StreamFault,
};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes held: what was granted. A child that sends more does not keep to the protocol.
const HELD_BYTES_MAX: usize = CREDIT_BYTES as usize;

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Output.
    Data(Output, Vec<u8>),
    /// Nothing comes after it.
    End(StreamEnd),
}

/// Between the connection, which puts in, and the client, which takes out.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    granted: Notify,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<(Output, Vec<u8>)>,
    bytes: usize,
    end: Option<StreamEnd>,
    /// Input that was granted and not sent.
    input: u32,
}

impl Inbox {
    /// Takes output from the connection.
    pub(super) fn put(&self, output: Output, bytes: Vec<u8>) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        if bytes.len() > HELD_BYTES_MAX - state.bytes {
            let why = format!("more than the {CREDIT_BYTES} bytes granted were sent");
            state.end = Some(StreamEnd::Fault(StreamFault::Failed, why));
        } else {
            state.bytes += bytes.len();
            match state.pieces.back_mut() {
                Some((last, held))
                    if *last == output && held.len() + bytes.len() <= CHUNK_BYTES_MAX =>
                {
                    held.extend_from_slice(&bytes);
                }
                _ => state.pieces.push_back((output, bytes)),
            }
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Nothing more will come; the first reason stays.
    pub(super) fn end(&self, end: StreamEnd) {
        self.lock().end.get_or_insert(end);
        self.arrived.notify_one();
    }

    /// The program takes so much input more.
    pub(super) fn grant(&self, bytes: u32) {
        let mut state = self.lock();
        // No more is on its way than this, whatever the child says.
        state.input = state.input.saturating_add(bytes).min(CREDIT_BYTES);
        drop(state);
        self.granted.notify_one();
    }

    /// How much input may be sent, once a piece may be; for one sender. Cancel-safe.
    pub(super) async fn granted(&self) -> u32 {
        loop {
            let granted = self.granted.notified();
            let input = self.lock().input;
            if input >= INPUT_COST_MIN {
                return input;
            }
            granted.await;
        }
    }

    /// Input is sent that costs so much.
    pub(super) fn spend(&self, cost: u32) {
        let mut state = self.lock();
        state.input = state.input.saturating_sub(cost);
    }

    /// The next piece. Cancel-safe. After the end it gives the end again.
    pub(super) async fn next(&self) -> Piece {
        loop {
            // Registered before looking, so that what comes in between is not missed.
            let arrived = self.arrived.notified();
            if let Some(piece) = self.take() {
                return piece;
            }
            arrived.await;
        }
    }

    fn take(&self) -> Option<Piece> {
        let mut state = self.lock();
        match state.pieces.pop_front() {
            Some((output, bytes)) => {
                state.bytes -= bytes.len();
                Some(Piece::Data(output, bytes))
            }
            None => state.end.clone().map(Piece::End),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before the lock is given back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Output::{Stderr, Stdout};

    #[test]
    fn letters_become_pieces_in_order_and_the_end_comes_last() {
        let inbox = Inbox::default();
        for letter in b"abc" {
            inbox.put(Stdout, vec![*letter]);
        }
        inbox.put(Stderr, b"oops".to_vec());
        inbox.put(Stdout, b"d".to_vec());
        inbox.end(StreamEnd::Done);
        inbox.end(StreamEnd::Fault(StreamFault::Failed, "late".into()));
        inbox.put(Stdout, b"late".to_vec());
        let taken: Vec<Piece> = std::iter::from_fn(|| inbox.take()).take(5).collect();
        assert_eq!(
            taken,
            [
                Piece::Data(Stdout, b"abc".to_vec()),
                Piece::Data(Stderr, b"oops".to_vec()),
                Piece::Data(Stdout, b"d".to_vec()),
                Piece::End(StreamEnd::Done),
                Piece::End(StreamEnd::Done),
            ]
        );
    }

    #[test]
    fn input_waits_until_a_piece_may_be_sent() {
        use std::task::{Context, Poll, Waker};
        let inbox = Inbox::default();
        let granted = || {
            let granted = std::pin::pin!(inbox.granted());
            granted.poll(&mut Context::from_waker(Waker::noop()))
        };
        assert_eq!(granted(), Poll::Pending);
        inbox.grant(INPUT_COST_MIN - 1);
        assert_eq!(granted(), Poll::Pending);
        inbox.grant(1);
        assert_eq!(granted(), Poll::Ready(INPUT_COST_MIN));
        inbox.grant(u32::MAX);
        assert_eq!(granted(), Poll::Ready(CREDIT_BYTES));
        inbox.spend(CREDIT_BYTES - 1);
        assert_eq!(granted(), Poll::Pending);
    }

    #[test]
    fn more_than_was_granted_ends_the_stream() {
        let inbox = Inbox::default();
        for _ in 0..HELD_BYTES_MAX / CHUNK_BYTES_MAX {
            inbox.put(Stdout, vec![0; CHUNK_BYTES_MAX]);
        }
        inbox.put(Stdout, vec![0]);
        let mut held = 0;
        while let Some(Piece::Data(_, bytes)) = inbox.take() {
            held += bytes.len();
        }
        assert_eq!(held, HELD_BYTES_MAX);
        let Some(Piece::End(StreamEnd::Fault(StreamFault::Failed, _))) = inbox.take() else {
            panic!("the stream must have ended");
        };
    }
}
