//! Any bytes as a WebSocket, from its request on or from its first frame: what comes out does not depend on the pieces
//! it came in, and is never more than what went in.
//!
//! Owns: [`run`]. Does not own: the rules of frames and of the request (see `shard::websocket` of the server).
//! Start reading at [`run`]. Invariant: the same bytes are fed whole and in pieces.

use vencejo_server::fuzzing::open_websocket;

const REQUEST: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The first byte of `data` says how large pieces are; the rest is a request, or frames behind a good one.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let piece = 1 + usize::from(first & 0x3F);
    judge(rest, piece);
    judge(&[REQUEST, rest].concat(), piece);
}

fn judge(input: &[u8], piece: usize) {
    let whole = open_websocket(input, input.len().max(1), 64 * 1024);
    assert!(whole.payload.len() <= input.len(), "more than there was");
    // An answer to the request, a Pong for each Ping at most, and a Close.
    assert!(whole.said.len() <= 1024 + input.len(), "it says too much");
    for (piece, room) in [(piece, 64 * 1024), (input.len().max(1), piece), (piece, 7)] {
        let pieces = open_websocket(input, piece, room);
        assert_eq!(
            (&whole.payload, whole.is_broken),
            (&pieces.payload, pieces.is_broken),
            "pieces of {piece}, reads of {room}"
        );
    }
}
