//! Streams that TCP is not: they keep what was written until they are flushed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::run;
use crate::auth::{AllowAll, PeerIdentity};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::shared::Shared;

/// Takes all bytes at once and lets them go only on every second flush, as TLS may over a socket
/// that is full.
struct Hesitant {
    io: DuplexStream,
    held: Vec<u8>,
    asked: bool,
}

impl AsyncRead for Hesitant {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Hesitant {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked = !self.asked;
        if self.asked {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let held = std::mem::take(&mut self.held);
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, &held))?;
        assert_eq!(written, held.len(), "the pipe is wide enough");
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_stream_that_is_not_flushed_at_once_is_flushed_later() {
    let shared = Arc::new(Shared::new(Config::default(), Arc::new(AllowAll)));
    let (mut near, far) = tokio::io::duplex(1024);
    let io = Hesitant { io: far, held: Vec::new(), asked: false };
    let endpoint = Endpoint::new(Arc::clone(&shared), PeerIdentity::Anonymous, None, 60_000);
    let served = tokio::spawn(run(io, endpoint, shared));
    let connect = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a'];
    near.write_all(&connect).await.expect("takes bytes");
    let mut answer = [0; 4];
    let reading = tokio::time::timeout(Duration::from_secs(10), near.read_exact(&mut answer));
    reading.await.expect("the answer is flushed").expect("open");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    drop(near);
    served.await.expect("no panic");
}
