//! A connection whose waits have deadlines: the first bytes must come, and what is written must be taken.
//!
//! hyper bounds the reading of headers itself, but neither the detection of the protocol before it nor a client that
//! stops reading. A connection that misses a deadline fails, and with it whatever it carries.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// The length of HTTP/2's preface: after this many bytes the protocol is known and hyper's own timeouts hold.
const DETECTION_BYTES: usize = 24;

#[derive(Debug)]
pub(crate) struct TimedIo<T> {
    inner: T,
    /// Until the protocol is known.
    detection: Option<Pin<Box<Sleep>>>,
    read_bytes: usize,
    write_within: Duration,
    write_deadline: Pin<Box<Sleep>>,
    /// The last write was not taken yet.
    write_pending: bool,
}

impl<T> TimedIo<T> {
    pub(crate) fn new(inner: T, first_bytes_within: Duration, write_within: Duration) -> Self {
        Self {
            inner,
            detection: Some(Box::pin(sleep(first_bytes_within))),
            read_bytes: 0,
            write_within,
            write_deadline: Box::pin(sleep(write_within)),
            write_pending: false,
        }
    }

    /// Passes a finished write on; an unfinished one fails at its deadline.
    fn written<R>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.write_pending = false;
            return result;
        }
        if !self.write_pending {
            self.write_pending = true;
            self.write_deadline.as_mut().reset(Instant::now() + self.write_within);
        }
        ready!(self.write_deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(context, buffer);
        let Some(detection) = &mut this.detection else { return result };
        if result.is_ready() {
            this.read_bytes += buffer.filled().len() - before;
            if this.read_bytes >= DETECTION_BYTES {
                this.detection = None;
            }
            return result;
        }
        ready!(detection.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TimedIo<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.written(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.written(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(context);
        this.written(context, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_shutdown(context);
        this.written(context, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_stuck_reader_both_end() {
        let (near, mut far) = duplex(16);
        let mut timed = TimedIo::new(near, Duration::from_millis(50), Duration::from_millis(50));
        far.write_all(b"PRI").await.unwrap();
        assert_eq!(timed.read(&mut [0; 8]).await.unwrap(), 3);
        assert_eq!(timed.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(timed.write_all(&[0; 64]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_but_steady_is_fine() {
        let (near, mut far) = duplex(16);
        let mut timed = TimedIo::new(near, Duration::from_millis(50), Duration::from_millis(50));
        let reader = tokio::spawn(async move {
            let mut got = 0;
            while got < 160 {
                sleep(Duration::from_millis(40)).await;
                got += far.read(&mut [0; 16]).await.unwrap();
            }
        });
        timed.write_all(&[0; 160]).await.unwrap();
        reader.await.unwrap();
    }
}
