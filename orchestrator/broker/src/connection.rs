//! The task of one connection: moves bytes between a stream and its [`Endpoint`].
//!
//! Why one hand-written poll and not a read task and a write task: both would need buffers and a
//! channel of their own, and an idle connection must cost next to nothing. Bytes are read into a
//! buffer that all connections of a thread share and are taken from it before the poll returns.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout};

use crate::config::{CLOSE_MS_MAX, READ_CHUNK_BYTES};
use crate::endpoint::{Closed, Endpoint};
use crate::reason::Reason;
use crate::shared::Shared;

/// Rounds of reading and writing after which other tasks get their turn.
const ROUNDS_MAX: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_CHUNK_BYTES].into());
}

/// Serves one client until its connection ends; tells why it did.
pub(crate) async fn run<S>(io: S, endpoint: Endpoint, shared: Arc<Shared>) -> Reason
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pump = Pump { io, endpoint, shared, unflushed: false };
    let Closed(reason) = {
        let until = pump.endpoint.poll_timeout().unwrap_or_else(|| pump.shared.now());
        let timer = sleep_until(pump.shared.instant(until));
        tokio::pin!(timer);
        poll_fn(|cx| pump.poll(cx, timer.as_mut())).await
    };
    let last_words = async {
        pump.io.write_all(pump.endpoint.output()).await?;
        pump.io.shutdown().await
    };
    match timeout(Duration::from_millis(CLOSE_MS_MAX), last_words).await {
        Ok(Ok(())) => {}
        // The other side is gone already, which is what a connection that ends looks like.
        Ok(Err(error)) => tracing::trace!(%error, "last packet not written"),
        Err(_) => tracing::debug!("a closing client did not take its last packet"),
    }
    reason
}

/// A connection's two halves: the stream, and what is said on it.
struct Pump<S> {
    io: S,
    endpoint: Endpoint,
    shared: Arc<Shared>,
    /// The stream has taken bytes that it may not have sent. TCP never has; TLS may.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    fn poll(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Closed> {
        for _ in 0..ROUNDS_MAX {
            if let Err(closed) = self.endpoint.fill(self.shared.now(), cx.waker()) {
                return Poll::Ready(closed);
            }
            let mut progress = false;
            match self.poll_write(cx) {
                Ok(wrote) => progress |= wrote,
                Err(closed) => return Poll::Ready(closed),
            }
            if self.endpoint.wants_input() {
                match self.poll_read(cx) {
                    Poll::Ready(Ok(())) => progress = true,
                    Poll::Ready(Err(closed)) => return Poll::Ready(closed),
                    Poll::Pending => {}
                }
            }
            if !progress {
                return wait(cx, &mut self.endpoint, &self.shared, timer);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what it can; true if something went out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let mut wrote = false;
        while !self.endpoint.output().is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, self.endpoint.output()) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.endpoint.wrote(self.shared.now(), count);
                    self.unflushed = true;
                    wrote = true;
                }
                Poll::Ready(_) => return Err(self.endpoint.lost(self.shared.now())),
                Poll::Pending => break,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(self.endpoint.lost(self.shared.now())),
                Poll::Pending => {}
            }
        }
        Ok(wrote)
    }

    /// Reads once and hands the bytes over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let result = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            let now = self.shared.now();
            Poll::Ready(match result {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.endpoint.receive(now, buffer.filled())
                }
                _ => Err(self.endpoint.lost(now)),
            })
        })
    }
}

/// Nothing to do now: sets the timer, and does what is due if it is over already.
fn wait(
    cx: &mut Context<'_>,
    endpoint: &mut Endpoint,
    shared: &Shared,
    mut timer: Pin<&mut Sleep>,
) -> Poll<Closed> {
    let Some(at) = endpoint.poll_timeout() else { return Poll::Pending };
    let due = shared.instant(at);
    // A deadline that only moved away is looked at when the timer fires; setting it anew for each
    // packet would cost more than the packet.
    if due < timer.deadline() || timer.is_elapsed() {
        timer.as_mut().reset(due);
    }
    ready!(timer.as_mut().poll(cx));
    if let Err(closed) = endpoint.handle_timeout(shared.now()) {
        return Poll::Ready(closed);
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
