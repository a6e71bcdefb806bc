//! The task of one connection: moves bytes between a stream and its [`Endpoint`].
//!
//! Why one hand-written poll and not a read task and a write task: both would need buffers and a
//! channel of their own, and an idle connection must cost next to nothing. Bytes are read into a
//! buffer that all connections of a thread share and are taken from it before the poll returns.

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
pub(crate) async fn run<S>(mut io: S, mut endpoint: Endpoint, shared: Arc<Shared>) -> Reason
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Closed(reason) = {
        let until = endpoint.poll_timeout().unwrap_or_else(|| shared.now());
        let timer = sleep_until(shared.instant(until));
        tokio::pin!(timer);
        poll_fn(|cx| poll(cx, Pin::new(&mut io), &mut endpoint, &shared, timer.as_mut())).await
    };
    let last_words = async {
        io.write_all(endpoint.output()).await?;
        io.shutdown().await
    };
    match timeout(Duration::from_millis(CLOSE_MS_MAX), last_words).await {
        Ok(Ok(())) => {}
        // The other side is gone already, which is what a connection that ends looks like.
        Ok(Err(error)) => tracing::trace!(%error, "last packet not written"),
        Err(_) => tracing::debug!("a closing client did not take its last packet"),
    }
    reason
}

fn poll<S>(
    cx: &mut Context<'_>,
    mut io: Pin<&mut S>,
    endpoint: &mut Endpoint,
    shared: &Shared,
    mut timer: Pin<&mut Sleep>,
) -> Poll<Closed>
where
    S: AsyncRead + AsyncWrite,
{
    for _ in 0..ROUNDS_MAX {
        let now = shared.now();
        let mut progress = false;
        if let Err(closed) = endpoint.fill(now, cx.waker()) {
            return Poll::Ready(closed);
        }
        match write(cx, io.as_mut(), endpoint, shared) {
            Poll::Ready(Ok(wrote)) => progress |= wrote,
            Poll::Ready(Err(closed)) => return Poll::Ready(closed),
            Poll::Pending => {}
        }
        if endpoint.wants_input() {
            match read(cx, io.as_mut(), endpoint, shared) {
                Poll::Ready(Ok(())) => progress = true,
                Poll::Ready(Err(closed)) => return Poll::Ready(closed),
                Poll::Pending => {}
            }
        }
        if !progress {
            return wait(cx, endpoint, shared, timer.as_mut());
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Writes what there is; true if something went out.
fn write<S: AsyncWrite>(
    cx: &mut Context<'_>,
    mut io: Pin<&mut S>,
    endpoint: &mut Endpoint,
    shared: &Shared,
) -> Poll<Result<bool, Closed>> {
    let mut wrote = false;
    while !endpoint.output().is_empty() {
        match io.as_mut().poll_write(cx, endpoint.output()) {
            Poll::Ready(Ok(count)) if count > 0 => {
                endpoint.wrote(shared.now(), count);
                wrote = true;
            }
            Poll::Ready(_) => return Poll::Ready(Err(endpoint.lost(shared.now()))),
            Poll::Pending if wrote => return Poll::Ready(Ok(true)),
            Poll::Pending => return Poll::Pending,
        }
    }
    if !wrote {
        return Poll::Ready(Ok(false));
    }
    // Streams that buffer, as TLS does, send only when told to.
    match io.poll_flush(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(Err(endpoint.lost(shared.now()))),
        _ => Poll::Ready(Ok(true)),
    }
}

/// Reads once and hands the bytes over.
fn read<S: AsyncRead>(
    cx: &mut Context<'_>,
    io: Pin<&mut S>,
    endpoint: &mut Endpoint,
    shared: &Shared,
) -> Poll<Result<(), Closed>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        let result = ready!(io.poll_read(cx, &mut buffer));
        let now = shared.now();
        Poll::Ready(match result {
            Ok(()) if !buffer.filled().is_empty() => endpoint.receive(now, buffer.filled()),
            _ => Err(endpoint.lost(now)),
        })
    })
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
