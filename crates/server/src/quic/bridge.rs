//! The bytes of one connection, between its QUIC stream and the socket that a shard serves.
//!
//! Owns: copying both ways, how either end learns that the other is gone. Does not own: what the bytes mean. Start
//! reading at [`run`]. Invariants: nothing is read that the other side has no room for; nothing is kept while nothing
//! moves; what the shard has said last reaches the Client before the connection is closed, if it takes it; who takes nothing
//! keeps nothing here once the shard is gone.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::{NO_ERROR, RECEIVE_WINDOW_BYTES};

/// Copies until one side has ended, and closes the connection. `unanswered` is dropped when the shard says something.
pub(super) async fn run(
    connection: Connection,
    (mut writer, mut reader): (SendStream, RecvStream),
    mut shard: UnixStream,
    unanswered: impl Send,
) {
    let (mut from_shard, mut to_shard) = shard.split();
    tokio::select! {
        () = receive(&connection, &mut reader, &mut to_shard) => {}
        () = vanished(&connection) => {}
        () = send(&connection, &mut from_shard, &mut writer, unanswered) => {}
    }
    // The shard sees the end of its socket when this side of it is dropped.
    connection.close(NO_ERROR, b"");
}

/// What the Client says, until it is gone. Bytes that came before the end of its connection are handed on first: among
/// them may be a DISCONNECT.
async fn receive(connection: &Connection, reader: &mut RecvStream, to_shard: &mut WriteHalf<'_>) {
    loop {
        match reader.read_chunk(CHUNK_BYTES_MAX, true).await {
            Ok(Some(chunk)) => {
                if to_shard.write_all(&chunk.bytes).await.is_err() {
                    // The shard has closed. What it said before may still be on its way.
                    reader.stop(NO_ERROR).ok();
                    return std::future::pending().await;
                }
            }
            Ok(None) => {
                // The Client has said everything, and may still listen.
                to_shard.shutdown().await.ok();
                connection.closed().await;
                return;
            }
            // It has given the stream up, or is gone.
            Err(_) => return,
        }
    }
}

/// Waits until the Client is gone without a word. The shard is told so at once, also while it takes nothing.
async fn vanished(connection: &Connection) {
    match connection.closed().await {
        // What was said before still counts.
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => {
            std::future::pending::<()>().await;
        }
        _ => {}
    }
}

/// What the shard says, until it has said everything and the Client has it, or cannot have it any more.
async fn send(
    connection: &Connection,
    from_shard: &mut ReadHalf<'_>,
    writer: &mut SendStream,
    unanswered: impl Send,
) {
    let mut unanswered = Some(unanswered);
    loop {
        let bytes = match next(from_shard).await {
            Some(bytes) if !bytes.is_empty() => bytes,
            _ => break,
        };
        if unanswered.take().is_some() {
            // From here on the limits of the shard hold.
            connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
        }
        let written = tokio::select! {
            written = writer.write_chunk(bytes) => written,
            () = left_alone(from_shard) => return,
        };
        match written {
            Ok(()) => {}
            Err(WriteError::ConnectionLost(_)) => {
                // The Client is gone. What it has said before still counts, and the shard is read so that it
                // goes on to take it.
                while next(from_shard)
                    .await
                    .is_some_and(|bytes| !bytes.is_empty())
                {}
                return;
            }
            Err(_) => return,
        }
    }
    if writer.finish().is_ok() {
        // Until all of it is acknowledged.
        timeout(FAREWELL_MAX, writer.stopped()).await.ok();
    }
}

/// Waits until the shard has been gone for a while: who takes nothing then does not get what is left.
async fn left_alone(from_shard: &ReadHalf<'_>) {
    loop {
        tokio::time::sleep(FAREWELL_MAX).await;
        if is_hung_up(from_shard.as_ref()) {
            return;
        }
    }
}

/// Whether the other end of `socket` was dropped, whatever there still is to be read.
fn is_hung_up(socket: &UnixStream) -> bool {
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    let told = nix::poll::poll(&mut asked, PollTimeout::ZERO);
    let [asked] = asked;
    told.is_ok()
        && asked
            .revents()
            .is_some_and(|flags| flags.contains(PollFlags::POLLHUP))
}

/// The next bytes of the shard; none at the end.
async fn next(from_shard: &mut ReadHalf<'_>) -> Option<Bytes> {
    let read = std::future::poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            // Unlike `try_read`, this does not try again after a read that has left the buffer half empty.
            let read = Pin::new(&mut *from_shard).poll_read(context, &mut buffer);
            read.map_ok(|()| Bytes::copy_from_slice(buffer.filled()))
        })
    });
    read.await.ok()
}

thread_local! {
    /// One of each thread, so that a connection has none while it is idle.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES_MAX].into_boxed_slice());
}

/// Bytes that are handed on at once.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// How long a Client may take to acknowledge the last words.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
