//! Large answers on their way: bounded in bytes, and shared out between namespaces, however slowly they are taken.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::shares::Share;

/// Responses up to this size are not counted: connections bound their number.
pub(crate) const SMALL: u64 = 64 * 1024;

type Room = Arc<Share<Arc<str>>>;

/// Bytes that hold their room until they are written.
struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body whose bytes hold room.
struct Roomy {
    inner: Body,
    room: Room,
}

impl HttpBody for Roomy {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let room = Arc::clone(&self.room);
        Pin::new(&mut self.inner)
            .poll_frame(context)
            .map_ok(|frame| frame.map_data(|bytes| Bytes::from_owner(Held { bytes, _room: room })))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Returns the size of an answer, if it is so large that it needs room.
pub(crate) fn needs_room(response: &Response) -> Option<usize> {
    let size = response.body().size_hint().exact().filter(|size| *size > SMALL)?;
    usize::try_from(size).ok()
}

/// Returns the response, which holds `room` until it is written or its connection has ended.
pub(crate) fn hold(response: Response, room: Share<Arc<str>>) -> Response {
    let room = Arc::new(room);
    response.map(|inner| Body::new(Roomy { inner, room }))
}

/// Returns bytes that hold `room` until they are written or their connection has ended.
pub(crate) fn held(bytes: Bytes, room: Share<Arc<str>>) -> Bytes {
    Bytes::from_owner(Held { bytes, _room: Arc::new(room) })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::shares::Shares;

    #[tokio::test]
    async fn room_is_held_until_the_last_bytes_are_gone() {
        let shares = Shares::new(1_000_000);
        let answer = Response::new(Body::from(vec![7; 100_000]));
        let size = needs_room(&answer).unwrap();
        let mut held = hold(answer, shares.take(&"a".into(), size).unwrap()).into_body();
        assert_eq!(held.size_hint().exact(), Some(100_000));
        let bytes = held.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(held.frame().await.is_none());
        drop(held);
        assert_eq!((bytes.len(), shares.taken()), (100_000, 100_000));
        drop(bytes);
        assert_eq!(shares.taken(), 0);
    }

    #[test]
    fn small_answers_need_no_room() {
        assert_eq!(needs_room(&Response::new(Body::from(vec![7; 65_536]))), None);
        assert_eq!(needs_room(&Response::new(Body::from(vec![7; 65_537]))), Some(65_537));
    }
}
