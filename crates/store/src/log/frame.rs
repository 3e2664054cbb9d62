//! Frames: what is written, and is there, as a whole or not at all.
//!
//! Owns: [`FrameHeader`], the checksum over a frame. Does not own: what is in a body (see `codec`), where
//! frames are (see `scan`). Start reading at [`FrameHeader`]; `docs/storage-format.md` has the same in words.
//! Invariant: no byte of a frame can change without [`check`] seeing it, the padding included; a
//! frame that was left in a file by an earlier segment never passes as one of a later segment.

/// The first bytes of a frame. All numbers are little-endian.
///
/// ```text
///  0 magic u32        4 body_len u32     8 crc32c u32      12 segment u32
/// 16 lsn u64                            24 durable_lsn u64
/// 32 flags u16       34 version u16     36 prev_crc u32    40 log_id u32    44 oldest_segment u32
/// ```
///
/// The checksum covers all of the header but itself, the body, and the zeros that fill it up to 8 bytes; in a
/// [`FLAG_HOLE`] it covers the header only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes that follow.
    pub(crate) body_len: u32,
    /// Over all the rest.
    pub(crate) crc: u32,
    /// The segment it was written to: never the same for two segments of a log.
    pub(crate) segment: u32,
    /// Its number in the log, from 1 without gaps. In a hole: the last number that is missing.
    pub(crate) lsn: u64,
    /// What was known to be durable when it was written. In a hole: the first number that is missing, 0
    /// if that is not known.
    pub(crate) durable_lsn: u64,
    /// [`FLAG_HOLE`] or nothing.
    pub(crate) flags: u16,
    /// [`VERSION`].
    pub(crate) version: u16,
    /// The checksum of the frame before it in the log; not checked after a hole.
    pub(crate) prev_crc: u32,
    /// The log it belongs to: chosen at random once, so that neither a segment of another log nor the
    /// payload of a message can pass as a frame of this one.
    pub(crate) log_id: u32,
    /// Once this frame is durable, no segment before this one is needed.
    pub(crate) oldest_segment: u32,
}

impl FrameHeader {
    /// Reads the fields; `None` if `bytes` is too short or does not begin like a frame, or if it has
    /// numbers that no log comes to.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let u16_at = |at: usize| u16::from_le_bytes([0, 1].map(|i| bytes[at + i]));
        let u64_at =
            |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
        let header = (u32_at(0) == MAGIC).then(|| Self {
            body_len: u32_at(4),
            crc: u32_at(8),
            segment: u32_at(12),
            lsn: u64_at(16),
            durable_lsn: u64_at(24),
            flags: u16_at(32),
            version: u16_at(34),
            prev_crc: u32_at(36),
            log_id: u32_at(40),
            oldest_segment: u32_at(44),
        });
        header.filter(|header| header.lsn.max(header.durable_lsn) <= LSN_MAX)
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.crc.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable_lsn.to_le_bytes());
        bytes[32..34].copy_from_slice(&self.flags.to_le_bytes());
        bytes[34..36].copy_from_slice(&self.version.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.prev_crc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.oldest_segment.to_le_bytes());
        bytes
    }

    /// Whether it stands for frames that are missing.
    pub(crate) const fn is_hole(&self) -> bool {
        self.flags & FLAG_HOLE != 0
    }

    /// The number of the first frame it is or stands for.
    pub(crate) const fn first_lsn(&self) -> u64 {
        if self.is_hole() && self.durable_lsn > 0 {
            self.durable_lsn
        } else {
            self.lsn
        }
    }

    /// Bytes of the whole frame in the file.
    pub(crate) const fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_len as u64)
    }
}

/// Bytes of a frame with a body of `body_bytes`.
pub(crate) const fn frame_bytes(body_bytes: u64) -> u64 {
    HEADER_BYTES as u64 + body_bytes.next_multiple_of(ALIGNMENT as u64)
}

/// Completes the frame in `buffer`: [`HEADER_BYTES`] of anything, then the body. Sets `body_len`, `crc` and
/// `version` of `header`, and returns the checksum.
pub(crate) fn seal(buffer: &mut Vec<u8>, mut header: FrameHeader) -> u32 {
    let body_bytes = buffer.len() - HEADER_BYTES;
    header.body_len =
        u32::try_from(body_bytes).expect("invariant: a group is cut long before that");
    header.version = VERSION;
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT), 0);
    header.crc = checksum(&header.to_bytes(), &buffer[HEADER_BYTES..]);
    buffer[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    header.crc
}

/// The bytes that stand at the place of missing frames. What is there after them, up to `body_len`, is
/// passed over by readers.
pub(crate) fn seal_hole(mut header: FrameHeader) -> [u8; HEADER_BYTES] {
    header.flags |= FLAG_HOLE;
    header.version = VERSION;
    header.crc = checksum(&header.to_bytes(), &[]);
    header.to_bytes()
}

/// Whether `bytes`, which begin with the frame `header` and may go on after it, are as they were written.
pub(crate) fn check(header: &FrameHeader, bytes: &[u8]) -> bool {
    let Some((start, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    if header.is_hole() {
        return checksum(start, &[]) == header.crc;
    }
    let Ok(rest_bytes) = usize::try_from(header.frame_bytes() - HEADER_BYTES as u64) else {
        return false;
    };
    rest.get(..rest_bytes)
        .is_some_and(|body| checksum(start, body) == header.crc)
}

fn checksum(header: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&header[..8]);
    let crc = crc32c::crc32c_append(crc, &header[12..]);
    crc32c::crc32c_append(crc, body)
}

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 48;
/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// The frame stands for frames that are missing.
pub(crate) const FLAG_HOLE: u16 = 1;
/// No frame and no checkpoint has a larger number, so that the next one can be told.
pub(crate) const LSN_MAX: u64 = 1 << 62;
/// Of the format of frames and records.
pub(crate) const VERSION: u16 = 1;
/// Frames begin with it.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"vlog");

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(body: &[u8]) -> (FrameHeader, Vec<u8>) {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(body);
        let header = FrameHeader {
            segment: 7,
            lsn: 9,
            durable_lsn: 8,
            prev_crc: 3,
            log_id: 4,
            oldest_segment: 5,
            ..FrameHeader::default()
        };
        seal(&mut bytes, header);
        (FrameHeader::parse(&bytes).unwrap(), bytes)
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let (header, bytes) = sealed(b"records");
        assert_eq!(bytes.len() as u64, header.frame_bytes());
        assert_eq!(header.body_len, 7);
        assert_eq!((header.segment, header.lsn, header.durable_lsn), (7, 9, 8));
        assert_eq!((header.log_id, header.oldest_segment), (4, 5));
        assert!(check(&header, &bytes));
        assert!(!check(&header, &bytes[..bytes.len() - 1]));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (_, bytes) = sealed(b"records");
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let passes = FrameHeader::parse(&bytes).is_some_and(|header| check(&header, &bytes));
            assert!(!passes, "bit {bit}");
        }
    }

    #[test]
    fn a_hole_covers_what_it_stands_for_without_its_bytes() {
        let header = FrameHeader {
            body_len: 100,
            lsn: 9,
            ..FrameHeader::default()
        };
        let bytes = seal_hole(header);
        let header = FrameHeader::parse(&bytes).unwrap();
        assert!(header.is_hole() && check(&header, &bytes));
        assert_eq!(header.frame_bytes(), 48 + 104);
    }
}
