//! The stream of a connection, whose other side must go on taking what is written to it, and not too slowly: what it
//! has not taken stays in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Number of bytes per second that the other side must accept while something waits for it.
pub(crate) const SLOWEST: u64 = 16 * 1024;

/// A stream to which writing fails when the other side has taken nothing for as long as `limit`, or, over as much time
/// in which something waited for it, less than it must.
pub(crate) struct Stream<S> {
    inner: S,
    limit: Duration,
    /// There while nothing is taken.
    stalled: Option<Stall>,
    /// Time for which data has waited, and the amount that was accepted since the last check.
    waited: Duration,
    taken: u64,
}

/// A wait for the other side.
struct Stall {
    since: Instant,
    until: Pin<Box<Sleep>>,
}

/// Returns whether the other side has taken too little in the time in which something waited for it.
fn is_too_slow(waited: Duration, taken: u64) -> bool {
    taken < SLOWEST.saturating_mul(waited.as_secs())
}

impl<S> Stream<S> {
    pub(crate) fn new(inner: S, limit: Duration) -> Stream<S> {
        Stream { inner, limit, stalled: None, waited: Duration::ZERO, taken: 0 }
    }

    fn bounded(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &written {
            self.taken += result.as_ref().map_or(0, |bytes| *bytes as u64);
            if let Some(stall) = self.stalled.take() {
                self.waited += stall.since.elapsed();
            }
            if self.waited >= self.limit {
                let slow = is_too_slow(self.waited, self.taken);
                (self.waited, self.taken) = (Duration::ZERO, 0);
                if slow {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Stall {
            since: Instant::now(),
            until: Box::pin(tokio::time::sleep(limit)),
        });
        stalled.until.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_reader_slower_than_the_least_rate_is_too_slow() {
        let waited = Duration::from_secs(30);
        for (kib, slow) in [(0, true), (3 * 30, true), (16 * 30 - 1, true), (16 * 30, false)] {
            assert_eq!(is_too_slow(waited, kib * 1024), slow, "{kib} KiB in {waited:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_cut_off() {
        let (ours, _theirs) = tokio::io::duplex(1_024);
        let mut stream = Stream::new(ours, Duration::from_millis(50));
        let cut = stream.write_all(&[0; 4_096]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_reader_that_takes_what_there_is_gets_all() {
        let (ours, mut theirs) = tokio::io::duplex(1_024);
        let reader = tokio::spawn(async move {
            let mut taken = Vec::new();
            theirs.read_to_end(&mut taken).await.map(|_| taken.len())
        });
        let mut stream = Stream::new(ours, Duration::from_secs(30));
        stream.write_all(&vec![0; 1024 * 1024]).await.unwrap();
        drop(stream);
        assert_eq!(reader.await.unwrap().unwrap(), 1024 * 1024);
    }
}
