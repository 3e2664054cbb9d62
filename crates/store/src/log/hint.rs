//! Hints: what is in a segment without its payloads, so that a start need not read all of it.
//!
//! Owns: the file beside a sealed segment, its bytes. Does not own: when one is believed (see `walk`).
//! Start reading at [`HintBuilder`]. Invariants: a hint is whole or does not count, by a checksum of its own, and
//! what it tells is decoded before any of it counts; one that is missing costs time only; it is never
//! large: a segment of small messages has none.
//!
//! ```text
//! hint   = magic u32 | crc32c u32 (of what follows) | version u16 | 0 u16 | log_id u32 | segment u32 | frame*
//! frame  = its header, 48 bytes | bytes of records u32 | record*
//! record = bytes with its length varint | bytes of fields varint | the fields: kind and all but the payload
//! ```

use std::ops::Range;

use super::frame::{FrameHeader, HEADER_BYTES, VERSION};
use super::location;
use super::scan::FrameAt;
use crate::Index;
use crate::codec::{self, RecordRef, Records};

/// Takes the frames of a segment while they are written.
#[derive(Debug, Default)]
pub(super) struct HintBuilder {
    segment: u32,
    bytes: Vec<u8>,
    /// Of a segment, as far as that is known here.
    segment_bytes: u64,
    last: Option<FrameAt>,
    /// Something is not in it, or it would be too large.
    is_broken: bool,
}

impl HintBuilder {
    /// For segments of this size. The one that is written to has no hint unless it begins from now on.
    pub(super) fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            is_broken: true,
            ..Self::default()
        }
    }

    /// Takes the next frame, header included. If it begins a segment, returns the number and the hint of the
    /// one before, unless that has none.
    pub(super) fn push(
        &mut self,
        segment: u32,
        offset: u32,
        frame: &[u8],
    ) -> Option<(u32, Vec<u8>)> {
        let mut ended = None;
        if segment != self.segment {
            ended = self.finish();
            self.begin(segment, offset == 0);
        }
        if !self.is_broken {
            self.is_broken = self.push_frame(offset, frame).is_none();
        }
        if self.is_broken {
            self.bytes = Vec::new();
        }
        ended
    }

    fn begin(&mut self, segment: u32, is_whole: bool) {
        self.segment = segment;
        self.is_broken = !is_whole;
        self.last = None;
        self.bytes = vec![0; PREFIX_BYTES];
    }

    /// `None` if there can be no hint of this segment.
    fn push_frame(&mut self, offset: u32, frame: &[u8]) -> Option<()> {
        let header = FrameHeader::parse(frame)?;
        let frame_at = FrameAt { offset, header };
        if !follows(self.last.as_ref(), &frame_at) {
            return None;
        }
        self.last = Some(frame_at);
        self.bytes.extend_from_slice(frame.get(..HEADER_BYTES)?);
        let len_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let body = HEADER_BYTES..HEADER_BYTES + header.body_len as usize;
        push_records(frame.get(body)?, &mut self.bytes).ok()?;
        let len = u32::try_from(self.bytes.len() - len_at - 4).ok()?;
        let place = self.bytes.get_mut(len_at..len_at + 4)?;
        place.copy_from_slice(&len.to_le_bytes());
        // Reading it has to pay.
        let bytes_max = frame_at.end() / 8 + self.segment_bytes / 64;
        (self.bytes.len() as u64 <= bytes_max).then_some(())
    }

    fn finish(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let last = self.last.filter(|_| !self.is_broken)?;
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&last.header.log_id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.segment.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        Some((self.segment, bytes))
    }
}

/// Whether `frame` is what a hint can tell of, right behind `last`, or at the front of the segment.
fn follows(last: Option<&FrameAt>, frame: &FrameAt) -> bool {
    let is_next = match last {
        Some(last) => {
            let (before, header) = (&last.header, &frame.header);
            before.lsn + 1 == header.lsn
                && last.end() == u64::from(frame.offset)
                && (before.segment, before.log_id) == (header.segment, header.log_id)
        }
        None => frame.offset == 0,
    };
    is_next && !frame.header.is_hole()
}

fn push_records(body: &[u8], out: &mut Vec<u8>) -> Result<(), codec::DecodeError> {
    for found in Records::new(body) {
        let (start, len, record) = found?;
        let (fields, _) = codec::split(body.get(start..).unwrap_or_default())?;
        let fields = fields
            .get(..fields.len() - record.payload().len())
            .unwrap_or_default();
        push_varint(len, out);
        push_varint(fields.len(), out);
        out.extend_from_slice(fields);
    }
    Ok(())
}

/// The frames of a segment as its hint tells them.
#[derive(Debug)]
pub(super) struct Hint {
    /// One right behind the other, from the front of the segment.
    pub(super) frames: Vec<FrameAt>,
    bytes: Vec<u8>,
    /// Where the records of each frame are in it.
    records: Vec<Range<usize>>,
}

impl Hint {
    /// Reads a hint; `None` if it is not whole, or not that of this segment, or tells what can not be.
    pub(super) fn parse(bytes: Vec<u8>, segment: u32, log_id: u32) -> Option<Self> {
        let is_whole = bytes.starts_with(&MAGIC)
            && u32_at(&bytes, 4)? == crc32c::crc32c(bytes.get(8..)?)
            && bytes.get(8..10)? == VERSION.to_le_bytes()
            && u32_at(&bytes, 12)? == log_id
            && u32_at(&bytes, 16)? == segment;
        if !is_whole {
            return None;
        }
        let (mut frames, mut records) = (Vec::new(), Vec::new());
        let mut at = PREFIX_BYTES;
        while at < bytes.len() {
            let header = FrameHeader::parse(bytes.get(at..)?)?;
            let offset = frames.last().map_or(0, FrameAt::end);
            let offset = u32::try_from(offset).ok()?;
            let frame = FrameAt { offset, header };
            let is_ours = (header.segment, header.log_id) == (segment, log_id);
            if !is_ours || header.version > VERSION || !follows(frames.last(), &frame) {
                return None;
            }
            let len = u32_at(&bytes, at + HEADER_BYTES)? as usize;
            at += HEADER_BYTES + 4;
            let of_frame = at..at.checked_add(len)?;
            if records_end(bytes.get(of_frame.clone())?)? != header.body_len as usize {
                return None;
            }
            at = of_frame.end;
            frames.push(frame);
            records.push(of_frame);
        }
        (!frames.is_empty()).then_some(Self {
            frames,
            bytes,
            records,
        })
    }

    /// Where the last frame ends.
    pub(super) fn end(&self) -> u64 {
        self.frames.last().map_or(0, FrameAt::end)
    }

    /// Each frame, and its records for [`apply`].
    pub(super) fn iter(&self) -> impl Iterator<Item = (&FrameAt, &[u8])> {
        let records = self.records.iter();
        let records = records.map(|range| self.bytes.get(range.clone()).unwrap_or_default());
        self.frames.iter().zip(records)
    }
}

/// Records as a hint tells them.
struct Hinted<'a>(&'a [u8]);

impl<'a> Hinted<'a> {
    /// The bytes of the next record in the segment, and itself without its payload.
    fn next(&mut self) -> Option<(usize, RecordRef<'a>)> {
        let len = take_varint(&mut self.0)?;
        let fields_len = take_varint(&mut self.0)?;
        let (fields, rest) = self.0.split_at_checked(fields_len)?;
        self.0 = rest;
        Some((len, RecordRef::decode_body(fields).ok()?))
    }
}

/// Where the last of these records ends in the body of its frame; `None` if they are not records.
fn records_end(records: &[u8]) -> Option<usize> {
    let (mut hinted, mut end) = (Hinted(records), 0_usize);
    while !hinted.0.is_empty() {
        end = end.checked_add(hinted.next()?.0)?;
    }
    Some(end)
}

/// Takes in the records of the frame at `offset`; returns how many.
pub(super) fn apply(index: &mut Index, segment: u32, offset: u32, records: &[u8]) -> u64 {
    let (mut hinted, mut start, mut count) = (Hinted(records), 0, 0);
    while !hinted.0.is_empty() {
        let (len, record) = hinted
            .next()
            .expect("invariant: all records were decoded when the hint was read");
        index.apply(location(segment, offset, start, len), &record);
        start += len;
        count += 1;
    }
    count
}

fn push_varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

const MAGIC: [u8; 4] = *b"vhnt";
/// What comes before the frames.
const PREFIX_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;
    use crate::{Record, SessionId};

    const LOG: u32 = 77;
    const SEGMENT: u32 = 3;

    /// A frame with a large record that has no payload left in a hint, and two small ones.
    fn frame(lsn: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        let session = SessionId(lsn);
        let message = crate::MessageRecord {
            topic: "a/b".into(),
            properties: bytes::Bytes::new(),
            payload: vec![7; 3000].into(),
            qos: 1,
            retain: true,
            expiry: None,
        };
        codec::encode(&Record::SessionDelete { session }, &mut bytes);
        codec::encode(&Record::RetainedPut { message }, &mut bytes);
        codec::encode(&Record::WillDelete { session }, &mut bytes);
        let header = FrameHeader {
            segment: SEGMENT,
            lsn,
            log_id: LOG,
            ..FrameHeader::default()
        };
        frame::seal(&mut bytes, header);
        bytes
    }

    fn hint() -> Vec<u8> {
        let mut builder = HintBuilder::new(1 << 16);
        let mut offset = 0;
        for lsn in 5..10 {
            let frame = frame(lsn);
            assert_eq!(builder.push(SEGMENT, offset, &frame), None);
            offset += u32::try_from(frame.len()).unwrap();
        }
        let (segment, bytes) = builder.push(SEGMENT + 1, 0, &frame(10)).unwrap();
        assert_eq!(segment, SEGMENT);
        bytes
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_hint_tells_where_each_record_is_and_is_small() {
        let bytes = hint();
        assert!(bytes.len() < 500, "{} bytes", bytes.len());
        let hint = Hint::parse(bytes, SEGMENT, LOG).unwrap();
        assert_eq!(hint.frames.len(), 5);
        for (found, records) in hint.iter() {
            let frame = frame(found.header.lsn);
            assert_eq!(FrameHeader::parse(&frame), Some(found.header));
            let body = &frame[HEADER_BYTES..HEADER_BYTES + found.header.body_len as usize];
            let mut hinted = Hinted(records);
            let mut at = 0;
            for record in Records::new(body) {
                let (start, len, record) = record.unwrap();
                let (hinted_len, hinted) = hinted.next().unwrap();
                assert_eq!((at, len), (start, hinted_len));
                assert_eq!(format!("{hinted:?}"), without_payload(&record));
                at += len;
            }
            assert!(hinted.0.is_empty());
        }
        assert_eq!(hint.end(), 5 * frame(5).len() as u64);
    }

    fn without_payload(record: &RecordRef<'_>) -> String {
        match *record {
            RecordRef::RetainedPut { mut message } => {
                message.payload = &[];
                format!("{:?}", RecordRef::RetainedPut { message })
            }
            _ => format!("{record:?}"),
        }
    }

    #[test]
    fn a_hint_of_another_segment_or_log_or_that_is_not_whole_is_none() {
        let bytes = hint();
        assert!(Hint::parse(bytes.clone(), SEGMENT, LOG).is_some());
        assert!(Hint::parse(bytes.clone(), SEGMENT + 1, LOG).is_none());
        assert!(Hint::parse(bytes.clone(), SEGMENT, LOG + 1).is_none());
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // The two bytes after the version, too: the checksum covers them.
            assert!(Hint::parse(bytes, SEGMENT, LOG).is_none(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            let cut = bytes[..len].to_vec();
            assert!(Hint::parse(cut, SEGMENT, LOG).is_none(), "{len} bytes");
        }
    }

    /// Whatever is in it, what is taken in of it was decoded before, and adds up.
    #[test]
    fn a_hint_with_a_good_checksum_and_bad_contents_never_panics_and_adds_up() {
        let bytes = hint();
        let mut refused = 0;
        for bit in 64..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Some(hint) = Hint::parse(sealed(bytes), SEGMENT, LOG) else {
                refused += 1;
                continue;
            };
            let mut index = Index::new(crate::HashKeys([1, 2]));
            for (frame, records) in hint.iter() {
                let end = records_end(records);
                assert_eq!(end, Some(frame.header.body_len as usize), "bit {bit}");
                apply(&mut index, SEGMENT, frame.offset, records);
            }
        }
        assert!(refused > 500, "{refused}");
        for len in PREFIX_BYTES..bytes.len() {
            let cut = sealed(bytes[..len].to_vec());
            let hint = Hint::parse(cut, SEGMENT, LOG);
            let is_between_frames =
                (len - PREFIX_BYTES).is_multiple_of((bytes.len() - PREFIX_BYTES) / 5);
            assert_eq!(
                hint.is_some(),
                is_between_frames && len > PREFIX_BYTES,
                "{len}"
            );
        }
    }

    #[test]
    fn a_segment_that_did_not_begin_here_or_has_small_messages_has_no_hint() {
        let mut builder = HintBuilder::new(1 << 16);
        builder.push(SEGMENT, 64, &frame(5));
        assert_eq!(builder.push(SEGMENT + 1, 0, &frame(6)), None);
        let mut builder = HintBuilder::new(1 << 16);
        let mut bytes = vec![0; HEADER_BYTES];
        for number in 0..5000 {
            let session = SessionId(number);
            codec::encode(&Record::SessionDelete { session }, &mut bytes);
        }
        frame::seal(
            &mut bytes,
            FrameHeader {
                segment: SEGMENT,
                lsn: 5,
                ..FrameHeader::default()
            },
        );
        builder.push(SEGMENT, 0, &bytes);
        assert_eq!(builder.bytes, []);
        assert_eq!(builder.push(SEGMENT + 1, 0, &frame(6)), None);
    }
}
