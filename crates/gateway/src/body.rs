//! Bodies: the bounded reading of what a client sends, and what the gateway answers with.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::{memory::Share, refusal::Refusal};

/// An answer that is there, or one that is still coming from the task that owns the upstream body.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    Full(Option<Bytes>),
    /// Bounded: a slow client holds a few frames, never a worker.
    Stream(mpsc::Receiver<Piece>),
}

/// What comes of a stream. Small: a channel makes room for 32 of them.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    BrokenOff,
}

/// The connection is cut: there is no other way to say that bytes without frames of their own are not all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backend broke off its answer")]
pub(crate) struct BrokenOff;

impl ResponseBody {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => pieces.poll_recv(context).map(|piece| {
                piece.map(|piece| match piece {
                    Piece::Data(bytes) => Ok(Frame::data(bytes)),
                    Piece::Trailers(fields) => Ok(Frame::trailers(*fields)),
                    Piece::BrokenOff => Err(BrokenOff),
                })
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Reads a request body of at most `max` bytes within `within`, as far as `share` has room for it. One that declares
/// more is refused before a byte is read.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: &mut B,
    max: usize,
    within: Duration,
    share: &mut Share,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        let encoding = encoding.to_str().unwrap_or("(not text)").to_owned();
        return Err(Refusal::BodyEncoded { encoding });
    }
    let declared = body.size_hint().lower();
    if declared > max as u64 {
        return Err(Refusal::BodyTooLarge { max });
    }
    let reading = async {
        let mut length = 0;
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else { continue };
            length += data.len();
            if length > max {
                return Err(Refusal::BodyTooLarge { max });
            }
            share.cover(length).await;
            // Most bodies are one frame: those are not copied.
            if length == data.len() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.reserve(length.max(declared as usize));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    match tokio::time::timeout(within, reading).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::BodyTimeout { ms: within.as_millis() as u64 }),
    }
}

/// Reads on and throws away, so that the client hears the refusal instead of a reset. Bounded in time.
pub(crate) async fn discard<B>(mut body: B, within: Duration)
where
    B: Body<Data = Bytes> + Unpin,
{
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    // Elapsed: the client has had its chance.
    let _ = tokio::time::timeout(within, reading).await;
}
