//! Takes a request's body, within limits of size and time.

use crate::refusal::Refusal;
use axum::body::Body;
use std::time::Duration;
use tokio::time::Instant;
use tokio_stream::StreamExt;

/// From the head of a request to the end of its body.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A body that is too long is read up to here and thrown away, so that a client that sends
/// all of it before it listens still hears why; beyond that it only finds a closed door.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The whole body, or why not.
pub async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let until = Instant::now() + BODY_TIME_MAX;
    let mut frames = body.into_data_stream();
    let mut taken = Vec::new();
    let mut total = 0_usize;
    loop {
        let frame = tokio::time::timeout_at(until, frames.next()).await;
        let Some(frame) = frame.map_err(|_| Refusal::Slow(BODY_TIME_MAX.as_secs()))? else { break };
        let bytes = frame.map_err(|error| Refusal::BadRequest(format!("broken body: {error}")))?;
        total = total.saturating_add(bytes.len());
        if total <= bytes_max {
            taken.extend_from_slice(&bytes);
        } else {
            taken = Vec::new();
            if total > DISCARD_BYTES_MAX {
                break;
            }
        }
    }
    if total > bytes_max { Err(Refusal::TooLarge(bytes_max)) } else { Ok(taken) }
}
