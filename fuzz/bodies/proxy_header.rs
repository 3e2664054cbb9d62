//! Any bytes as what a proxy says before its Client: a header ends where it ends, whatever follows and however it comes.
//!
//! Owns: [`run`]. Does not own: what a header may say (see `shard::proxied` of the server). Start reading at [`run`].
//! Invariant: a header that is taken was not taken before its last byte.

use vencejo_server::fuzzing::header_len;

/// `data` is what a connection begins with.
pub(crate) fn run(data: &[u8]) {
    judge(data);
    // What a mutation rarely finds: version 2 from its signature on, and its command and family.
    judge(&[&b"\r\n\r\n\0\r\nQUIT\n"[..], data].concat());
    judge(&[&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], data].concat());
    judge(&[&b"PROXY TCP4 "[..], data].concat());
}

fn judge(data: &[u8]) {
    let Ok(Some(len)) = header_len(data) else {
        return;
    };
    assert!(len <= data.len(), "it ends behind its end");
    for end in 0..len {
        // An empty one is none yet.
        let early = header_len(&data[..end]);
        assert_eq!(early, Ok(None), "complete or refused at {end} of {len}");
    }
    assert_eq!(header_len(&data[..len]), Ok(Some(len)));
    let followed = [&data[..len], b"\x10\x0C\0\x04MQTT"].concat();
    assert_eq!(header_len(&followed), Ok(Some(len)));
}
