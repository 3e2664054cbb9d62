//! WebSocket frames: out of bytes that were read, in their place, and around bytes that are sent.
//!
//! Owns: [`Frames`], every rule of RFC 6455, sections 5 and 7, that a peer can break. Does not own: the opening
//! handshake (see `opening`), where bytes come from. Start reading at [`Frames::decode`].
//! Invariant: nothing is kept of a frame but its head and, of a control frame, its payload of at most 125 bytes.

/// What a peer sends, while it is taken apart.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Payload of a control frame that is not complete.
    control: Vec<u8>,
    /// Whether a message has begun whose last frame is still to come.
    is_fragmented: bool,
}

/// A frame whose head was read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    /// Payload still to come.
    left: u64,
    /// The mask, turned so that it fits the next byte.
    mask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Close,
    Ping,
    Pong,
}

/// What a piece of input has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// So many bytes of payload are at its front now.
    pub(super) len: usize,
    /// What to answer the last Ping in it with.
    pub(super) pong: Option<Vec<u8>>,
    /// Why nothing behind it is looked at.
    pub(super) end: Option<End>,
}

/// Why a connection ends: the status code, and in words what rule was broken if it was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u16,
    pub(super) fault: Option<&'static str>,
}

impl Frames {
    /// Takes `bytes` apart: payload moves to their front, unmasked. O(bytes).
    /// [MQTT-6.0.0-2] [v3.1.1 MQTT-6.0.0-2] Nobody behind this sees where a frame ends.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Decoded {
        let mut decoded = Decoded::default();
        let mut from = 0;
        while from < bytes.len() {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.read_head(bytes, &mut from) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(end) => {
                        decoded.end = Some(end);
                        break;
                    }
                },
            };
            let rest = bytes.len() - from;
            let len = usize::try_from(frame.left).map_or(rest, |left| left.min(rest));
            let payload = bytes.get_mut(from..from + len).unwrap_or_default();
            unmask(payload, &mut frame.mask);
            if frame.kind == Kind::Data {
                bytes.copy_within(from..from + len, decoded.len);
                decoded.len += len;
            } else {
                self.control.extend_from_slice(payload);
            }
            from += len;
            frame.left = frame.left.saturating_sub(len as u64);
            self.frame = (frame.left > 0).then_some(frame);
            if self.frame.is_none() && frame.kind != Kind::Data {
                self.on_control(frame.kind, &mut decoded);
            }
            if decoded.end.is_some() {
                break;
            }
        }
        decoded
    }

    /// Reads on in a head, byte by byte, so that what is wrong with it shows at once.
    fn read_head(&mut self, bytes: &[u8], from: &mut usize) -> Result<Option<Frame>, End> {
        while let Some(byte) = bytes.get(*from) {
            if let Some(slot) = self.head.get_mut(self.head_len) {
                *slot = *byte;
            }
            self.head_len += 1;
            *from += 1;
            if let Some(frame) = self.judge_head()? {
                self.head_len = 0;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The frame, once its head is complete.
    fn judge_head(&mut self) -> Result<Option<Frame>, End> {
        let [first, second, ..] = self.head;
        let is_last = first & 0x80 != 0;
        let kind = self.judge_first(first)?;
        if self.head_len < 2 {
            return Ok(None);
        }
        // RFC 6455, section 5.1
        if second & 0x80 == 0 {
            return Err(broken("a frame is not masked"));
        }
        let short = second & 0x7F;
        if kind != Kind::Data && short > 125 {
            return Err(broken("a control frame is longer than 125 bytes"));
        }
        let len_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let complete = 2 + len_bytes + 4;
        if self.head_len < complete {
            return Ok(None);
        }
        let long = self.head.get(2..2 + len_bytes).unwrap_or_default();
        let long = long
            .iter()
            .fold(0_u64, |len, byte| len << 8 | u64::from(*byte));
        let left = match len_bytes {
            0 => u64::from(short),
            // RFC 6455, section 5.2: the shortest form.
            2 if long < 126 => return Err(broken("a length could be shorter")),
            8 if long <= u64::from(u16::MAX) => return Err(broken("a length could be shorter")),
            8 if long >> 63 != 0 => return Err(broken("a length has its highest bit set")),
            _ => long,
        };
        if left > FRAME_BYTES_MAX {
            return Err(End {
                code: TOO_BIG,
                fault: Some("a frame is longer than any packet"),
            });
        }
        let mut mask = [0; 4];
        for (to, from) in mask.iter_mut().zip(self.head.iter().skip(2 + len_bytes)) {
            *to = *from;
        }
        if kind == Kind::Data {
            self.is_fragmented = !is_last;
        }
        Ok(Some(Frame { kind, left, mask }))
    }

    fn judge_first(&self, first: u8) -> Result<Kind, End> {
        // RFC 6455, section 5.2: no extension was agreed on that would use them.
        if first & 0x70 != 0 {
            return Err(broken("a reserved bit is set"));
        }
        let kind = match first & 0x0F {
            0 if !self.is_fragmented => return Err(broken("a message goes on that has not begun")),
            2 if self.is_fragmented => return Err(broken("a message begins inside another")),
            0 | 2 => Kind::Data,
            // [MQTT-6.0.0-1] [v3.1.1 MQTT-6.0.0-1] Packets are sent in binary frames.
            1 => {
                return Err(End {
                    code: UNSUPPORTED,
                    fault: Some("a frame holds text"),
                });
            }
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return Err(broken("an opcode is reserved")),
        };
        if kind != Kind::Data && first & 0x80 == 0 {
            return Err(broken("a control frame is fragmented"));
        }
        Ok(kind)
    }

    fn on_control(&mut self, kind: Kind, decoded: &mut Decoded) {
        let payload = std::mem::take(&mut self.control);
        match kind {
            // RFC 6455, section 5.5.3: the last of several may be answered alone.
            Kind::Ping => decoded.pong = Some(payload),
            Kind::Close => decoded.end = Some(judge_close(&payload)),
            Kind::Data | Kind::Pong => {}
        }
    }
}

/// The answer to a Close frame with this payload. RFC 6455, section 7.4.
fn judge_close(payload: &[u8]) -> End {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => End {
                code: NORMAL,
                fault: None,
            },
            _ => broken("half a status code"),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return broken("a status code that may not be sent");
    }
    if std::str::from_utf8(reason).is_err() {
        return End {
            code: NOT_UTF8,
            fault: Some("a reason is not UTF-8"),
        };
    }
    End { code, fault: None }
}

const fn broken(fault: &'static str) -> End {
    End {
        code: BROKEN,
        fault: Some(fault),
    }
}

/// Takes `mask` off `bytes` and turns it for the byte that follows them.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    for piece in bytes.chunks_mut(4) {
        for (byte, mask) in piece.iter_mut().zip(*mask) {
            *byte ^= mask;
        }
    }
    mask.rotate_left(bytes.len() % 4);
}

/// Appends the head of a binary frame of `len` bytes that is a whole message. The Server does not mask.
pub(super) fn put_data_head(out: &mut Vec<u8>, len: usize) {
    out.push(0x82);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if len < 126 => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Appends a Close frame.
pub(super) fn put_close(out: &mut Vec<u8>, code: u16) {
    let [high, low] = code.to_be_bytes();
    out.extend_from_slice(&[0x88, 2, high, low]);
}

/// Appends the answer to a Ping; `payload` is at most 125 bytes.
pub(super) fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    let len = u8::try_from(payload.len()).unwrap_or(0);
    out.extend_from_slice(&[0x8A, len]);
    out.extend_from_slice(payload.get(..usize::from(len)).unwrap_or_default());
}

/// Status codes of RFC 6455, section 7.4.1.
pub(super) const NORMAL: u16 = 1000;
const BROKEN: u16 = 1002;
const UNSUPPORTED: u16 = 1003;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;
/// Two bytes, eight of the length, four of the mask.
const HEAD_BYTES_MAX: usize = 14;
/// The largest packet MQTT can say, section 2.1.4.
const FRAME_BYTES_MAX: u64 = 268_435_460;

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A masked frame of this first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_data_head(&mut bytes, payload.len());
        bytes[0] = first;
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&MASK);
        let mut masked = payload.to_vec();
        unmask(&mut masked, &mut MASK.clone());
        bytes.extend_from_slice(&masked);
        bytes
    }

    /// What `bytes` come to, given in pieces of `step`.
    fn decode(bytes: &[u8], step: usize) -> (Vec<u8>, Vec<Vec<u8>>, Option<End>) {
        let mut frames = Frames::default();
        let (mut payload, mut pongs) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            let mut piece = piece.to_vec();
            let decoded = frames.decode(&mut piece);
            payload.extend_from_slice(&piece[..decoded.len]);
            pongs.extend(decoded.pong);
            if decoded.end.is_some() {
                return (payload, pongs, decoded.end);
            }
        }
        (payload, pongs, None)
    }

    /// Verifies [MQTT-6.0.0-2] and [v3.1.1 MQTT-6.0.0-2]: where frames end says nothing about where packets do.
    #[test]
    fn payload_comes_out_whole_whatever_the_pieces() {
        let mut all = Vec::new();
        let mut expected = Vec::new();
        for (first, len) in [
            (0x82, 0),
            (0x82, 1),
            (0x82, 125),
            (0x02, 126),
            (0x89, 7),
            (0x00, 3),
            (0x80, 65_535),
            (0x82, 70_000),
        ] {
            let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
            all.extend_from_slice(&frame(first, &payload));
            if first != 0x89 {
                expected.extend_from_slice(&payload);
            }
        }
        for step in [1, 2, 3, 5, 13, 125, 4096, 1 << 20] {
            let (payload, pongs, end) = decode(&all, step);
            assert!(payload == expected, "step {step}");
            assert_eq!(pongs, [[0, 1, 2, 3, 4, 5, 6]], "step {step}");
            assert_eq!(end, None, "step {step}");
        }
    }

    /// Verifies [MQTT-6.0.0-1] and [v3.1.1 MQTT-6.0.0-1], and every rule of RFC 6455, sections 5 and 7, that the
    /// frames of a Client can break.
    #[test]
    fn each_broken_rule_ends_the_connection_with_its_code() {
        let cases: &[(&str, u16, Vec<u8>)] = &[
            ("not masked", 1002, vec![0x82, 1, b'a']),
            ("not masked ping", 1002, vec![0x89, 0]),
            ("RSV1", 1002, frame(0xC2, b"a")),
            ("RSV2", 1002, frame(0xA2, b"a")),
            ("RSV3", 1002, frame(0x92, b"a")),
            ("opcode 3", 1002, frame(0x83, b"a")),
            ("opcode 7", 1002, frame(0x87, b"a")),
            ("opcode 11", 1002, frame(0x8B, b"a")),
            ("opcode 15", 1002, frame(0x8F, b"a")),
            ("text", 1003, frame(0x81, b"a")),
            ("text in fragments", 1003, frame(0x01, b"a")),
            ("continues nothing", 1002, frame(0x80, b"a")),
            (
                "begins inside another",
                1002,
                [frame(0x02, b"a"), frame(0x82, b"b")].concat(),
            ),
            (
                "continues what has ended",
                1002,
                [frame(0x02, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(),
            ),
            ("fragmented ping", 1002, frame(0x09, b"a")),
            ("fragmented pong", 1002, frame(0x0A, b"a")),
            ("fragmented close", 1002, frame(0x08, b"")),
            ("long ping", 1002, frame(0x89, &[0; 126])),
            ("long pong", 1002, frame(0x8A, &[0; 126])),
            ("long close", 1002, frame(0x88, &[0; 126])),
            (
                "length of 125 in two bytes",
                1002,
                [&[0x82, 0xFE, 0, 125][..], &MASK].concat(),
            ),
            (
                "length of 65535 in eight bytes",
                1002,
                [&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF][..], &MASK].concat(),
            ),
            (
                "highest bit of a length",
                1002,
                [&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0][..], &MASK].concat(),
            ),
            (
                "longer than any packet",
                1009,
                [&[0x82, 0xFF, 0, 0, 0, 0, 0x10, 0, 0, 5][..], &MASK].concat(),
            ),
            ("half a status code", 1002, frame(0x88, &[3])),
            ("status 999", 1002, frame(0x88, &999_u16.to_be_bytes())),
            ("status 1004", 1002, frame(0x88, &1004_u16.to_be_bytes())),
            ("status 1005", 1002, frame(0x88, &1005_u16.to_be_bytes())),
            ("status 1006", 1002, frame(0x88, &1006_u16.to_be_bytes())),
            ("status 1015", 1002, frame(0x88, &1015_u16.to_be_bytes())),
            ("status 2999", 1002, frame(0x88, &2999_u16.to_be_bytes())),
            ("status 5000", 1002, frame(0x88, &5000_u16.to_be_bytes())),
            ("reason in Latin-1", 1007, frame(0x88, &[3, 0xE8, 0xE9])),
        ];
        for (name, code, bytes) in cases {
            for step in [1, 1 << 20] {
                let (_, _, end) = decode(bytes, step);
                let end = end.unwrap_or_else(|| panic!("{name} is taken"));
                assert_eq!(end.code, *code, "{name}");
                assert!(end.fault.is_some(), "{name}");
            }
        }
    }

    #[test]
    fn close_is_answered_with_its_own_code() {
        let cases: [(&[u8], u16); 4] = [
            (&[], 1000),
            (&[3, 0xE8], 1000),
            (&[3, 0xE9, b'b', b'y', b'e'], 1001),
            (&[0x0F, 0xA0], 4000),
        ];
        for (payload, code) in cases {
            let (_, _, end) = decode(&frame(0x88, payload), 1);
            assert_eq!(end, Some(End { code, fault: None }), "{payload:?}");
        }
    }

    #[test]
    fn what_was_said_before_a_fault_is_heard_and_nothing_after_it() {
        let bytes = [frame(0x82, b"heard"), frame(0x81, b"x"), frame(0x82, b"no")].concat();
        let (payload, _, end) = decode(&bytes, 1 << 20);
        assert_eq!(payload, b"heard");
        assert_eq!(end.map(|end| end.code), Some(UNSUPPORTED));
    }

    #[test]
    fn claimed_length_takes_no_memory() {
        let mut frames = Frames::default();
        let mut head = [&[0x82, 0xFF, 0, 0, 0, 0, 0x10, 0, 0, 0][..], &MASK].concat();
        assert_eq!(frames.decode(&mut head), Decoded::default());
        assert_eq!(frames.control.capacity(), 0);
    }
}
