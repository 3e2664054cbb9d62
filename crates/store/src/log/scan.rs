//! The frames in the bytes of one segment, whatever is between them.
//!
//! Owns: [`scan`]: which bytes are frames of this segment. Does not own: what the gaps mean (see `chain`),
//! files. Start reading at [`scan`].
//! Invariant: never fails and never believes a claimed length; only frames that pass their checksum, name this
//! segment and this log, and have larger numbers than those before them are found, and right behind a frame
//! only the next number.

use super::frame::{self, ALIGNMENT, FrameHeader, HEADER_BYTES};

/// A frame, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    /// Of its first byte in the file.
    pub(crate) offset: u32,
    /// Its header.
    pub(crate) header: FrameHeader,
}

impl FrameAt {
    /// Of the first byte after it.
    pub(crate) const fn end(&self) -> u64 {
        self.offset as u64 + self.header.frame_bytes()
    }

    /// Where its body is in the bytes of the segment.
    pub(crate) const fn body(&self) -> std::ops::Range<usize> {
        let start = self.offset as usize + HEADER_BYTES;
        start..start + self.header.body_len as usize
    }
}

/// What is in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Its frames, in order; where one does not begin at the end of the one before it, there is something else.
    pub(crate) frames: Vec<FrameAt>,
    /// Whether, after the last of them, frames of this segment begin that are not whole.
    pub(crate) is_torn: bool,
    /// A frame is whole, and of a version that this program does not know.
    pub(crate) newer_version: Option<u16>,
}

impl Scan {
    /// Where the next frame would begin.
    pub(crate) fn end(&self) -> u64 {
        self.frames.last().map_or(0, FrameAt::end)
    }
}

/// Which frames to look for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The segment's number.
    pub(crate) segment: u32,
    /// The log's number; `None` if no frame is known that tells.
    pub(crate) log_id: Option<u32>,
}

/// Finds the frames in `bytes`, a whole segment.
pub(crate) fn scan(bytes: &[u8], mut wanted: Wanted) -> Scan {
    let mut scan = Scan::default();
    let mut at = 0;
    while let Some(frame) = next_frame(bytes, at, wanted, &scan) {
        wanted.log_id.get_or_insert(frame.header.log_id);
        if frame.header.version > frame::VERSION {
            scan.newer_version = Some(frame.header.version);
        }
        scan.frames.push(frame);
        let Ok(end) = usize::try_from(frame.end()) else {
            break;
        };
        at = end;
    }
    scan.is_torn = candidates(bytes, at)
        .filter_map(|at| FrameHeader::parse(bytes.get(at..)?))
        .any(|header| is_ours(&header, wanted));
    scan
}

/// Where frames may begin, at `from` or after it. Nearly all of a segment may be zeros: this has to be fast.
fn candidates(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> {
    let magic = frame::MAGIC.to_le_bytes();
    let rest = bytes.get(from..).unwrap_or_default();
    let found = memchr::memmem::Finder::new(&magic).into_owned();
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next + found.find(rest.get(next..)?)?;
        next = at + 1;
        Some(from + at)
    })
    .filter(|at| at % ALIGNMENT == 0)
}

/// The first frame at `from` or after it.
fn next_frame(bytes: &[u8], from: usize, wanted: Wanted, found: &Scan) -> Option<FrameAt> {
    let lsn = found.frames.last().map_or(0, |frame| frame.header.lsn);
    let frame_at = |at: usize| frame_at(bytes, at, wanted, lsn);
    let follows = |frame: &FrameAt| {
        let previous = found.frames.last();
        previous.is_none_or(|previous| frame.header.first_lsn() == previous.header.lsn + 1)
    };
    if let Some(frame) = frame_at(from).filter(follows) {
        return Some(frame);
    }
    // What is damaged is rather a body than a length, and a body may hold what looks like a frame.
    let claimed = bytes
        .get(from..)
        .and_then(FrameHeader::parse)
        .filter(|header| is_ours(header, wanted))
        .and_then(|header| usize::try_from(header.frame_bytes()).ok())
        .and_then(|len| frame_at(from.checked_add(len)?));
    if claimed.is_some() {
        return claimed;
    }
    // What is damaged was a frame, and the mark of it needs that space.
    let next = from.checked_add(HEADER_BYTES)?;
    candidates(bytes, next).find_map(frame_at)
}

fn frame_at(bytes: &[u8], at: usize, wanted: Wanted, after_lsn: u64) -> Option<FrameAt> {
    let rest = bytes.get(at..)?;
    let header = FrameHeader::parse(rest)?;
    let is_frame =
        is_ours(&header, wanted) && header.lsn > after_lsn && frame::check(&header, rest);
    let offset = u32::try_from(at).ok()?;
    is_frame.then_some(FrameAt { offset, header })
}

fn is_ours(header: &FrameHeader, wanted: Wanted) -> bool {
    header.segment == wanted.segment && wanted.log_id.is_none_or(|log_id| header.log_id == log_id)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const WANTED: Wanted = Wanted {
        segment: 3,
        log_id: Some(77),
    };

    /// A frame of segment 3 with a body of `body_bytes`.
    pub(crate) fn frame(lsn: u64, body_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend((0..body_bytes).map(|i| i.to_le_bytes()[0]));
        let header = FrameHeader {
            segment: WANTED.segment,
            lsn,
            log_id: 77,
            ..FrameHeader::default()
        };
        frame::seal(&mut bytes, header);
        bytes
    }

    fn lsns(scan: &Scan) -> Vec<u64> {
        scan.frames.iter().map(|frame| frame.header.lsn).collect()
    }

    fn three() -> Vec<u8> {
        [frame(5, 20), frame(6, 100), frame(7, 0)].concat()
    }

    #[test]
    fn frames_follow_each_other_up_to_what_is_none() {
        let mut bytes = three();
        let end = bytes.len() as u64;
        assert_eq!(lsns(&scan(&bytes, WANTED)), [5, 6, 7]);
        bytes.extend([0; 300]);
        let found = scan(&bytes, WANTED);
        assert_eq!(
            (lsns(&found), found.end(), found.is_torn),
            (vec![5, 6, 7], end, false)
        );
        assert_eq!(scan(&[], WANTED), Scan::default());
    }

    #[test]
    fn a_frame_cut_short_is_torn_and_one_behind_damage_is_found() {
        let bytes = three();
        let first = frame(5, 20).len();
        let found = scan(&bytes[..first + 60], WANTED);
        assert_eq!((lsns(&found), found.is_torn), (vec![5], true));
        for at in first..first + frame(6, 100).len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert_eq!(lsns(&scan(&bytes, WANTED)), [5, 7], "byte {at}");
        }
    }

    #[test]
    fn frames_of_another_segment_or_log_or_of_the_past_are_not_found() {
        let bytes = three();
        for (segment, log_id) in [(4, Some(77)), (3, Some(78))] {
            assert!(scan(&bytes, Wanted { segment, log_id }).frames.is_empty());
        }
        let any = Wanted {
            log_id: None,
            ..WANTED
        };
        assert_eq!(lsns(&scan(&bytes, any)), [5, 6, 7]);
        let again = [frame(5, 20), frame(5, 20), frame(6, 1)].concat();
        assert_eq!(lsns(&scan(&again, WANTED)), [5, 6]);
    }

    #[test]
    fn a_hole_is_passed_as_a_whole() {
        let mut bytes = three();
        let (at, len) = (frame(5, 20).len(), frame(6, 100).len());
        let header = FrameHeader {
            body_len: u32::try_from(len - HEADER_BYTES).unwrap(),
            segment: 3,
            lsn: 6,
            log_id: 77,
            ..FrameHeader::default()
        };
        bytes[at..at + HEADER_BYTES].copy_from_slice(&frame::seal_hole(header));
        let found = scan(&bytes, WANTED);
        assert_eq!(lsns(&found), [5, 6, 7]);
        assert!(found.frames[1].header.is_hole());
    }
}
