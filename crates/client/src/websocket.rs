//! MQTT inside binary WebSocket frames, over any stream of bytes.
//!
//! Owns: the upgrade, frames to bytes and back. Does not own: the stream under it (see `socket`), frames themselves
//! (tungstenite). Start reading at [`upgrade`]. Invariant: a packet may span frames and a frame packets, both ways,
//! [MQTT-6.0.0-2].

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use futures_util::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::ConnectError;

/// Asks for the sub-protocol `mqtt` at `path` of `host`.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Debug + Unpin>(
    host: &str,
    path: &str,
    stream: S,
) -> Result<Framed<S>, ConnectError> {
    let failed = |error: Error| ConnectError::WebSocket(said(&error));
    // What matters of it are the path and the header Host; the stream is there.
    let request = format!("ws://{host}{path}").into_client_request();
    let mut request = request.map_err(failed)?;
    // [MQTT-6.0.0-3] The sub-protocol is offered.
    let headers = request.headers_mut();
    headers.insert(PROTOCOL, HeaderValue::from_static("mqtt"));
    let (stream, response) = client_async(request, stream).await.map_err(failed)?;
    check(&response)?;
    Ok(Framed {
        stream,
        rest: Bytes::new(),
    })
}

/// [MQTT-6.0.0-4] seen from here: the Server takes the sub-protocol.
fn check(response: &Response) -> Result<(), ConnectError> {
    let taken = response.headers().get(PROTOCOL);
    if taken.is_some_and(|taken| taken == "mqtt") {
        return Ok(());
    }
    let text = "the server does not take the sub-protocol mqtt".to_owned();
    Err(ConnectError::WebSocket(text))
}

/// In words that say what to look at.
fn said(error: &Error) -> String {
    match error {
        Error::Http(response) => format!("the server does not upgrade: HTTP {}", response.status()),
        error => error.to_string(),
    }
}

/// The bytes that frames carry.
#[derive(Debug)]
pub(crate) struct Framed<S> {
    stream: WebSocketStream<S>,
    /// What is left of the last frame.
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.stream).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => this.rest = bytes,
                // [MQTT-6.0.0-1] Nothing but binary frames.
                Some(Ok(Message::Text(_))) => {
                    let text = "the server sent a text frame";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                // tungstenite answers a Ping.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(end_of(error)),
            }
        }
        let len = this.rest.len().min(buffer.remaining());
        buffer.put_slice(this.rest.get(..len).unwrap_or_default());
        this.rest.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut stream = Pin::new(&mut self.get_mut().stream);
        ready!(stream.as_mut().poll_ready(context)).map_err(io_error)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        stream.start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.get_mut().stream);
        stream.poll_flush(context).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.get_mut().stream);
        match ready!(stream.poll_close(context)) {
            Err(error) => Poll::Ready(end_of(error)),
            Ok(()) => Poll::Ready(Ok(())),
        }
    }
}

/// An end is no error.
fn end_of(error: Error) -> io::Result<()> {
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(()),
        error => Err(io_error(error)),
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

const PROTOCOL: &str = "Sec-WebSocket-Protocol";
