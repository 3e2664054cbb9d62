//! The frames in the bytes of one segment, whatever is between them.
//!
//! Owns: [`scan`]: which bytes are frames of this segment. Does not own: what the gaps mean (see `chain`),
//! files. Start reading at [`scan`].
//! Invariant: never fails and never believes a claimed length; only frames that pass their checksum, name this
//! segment and this log, and have larger numbers than those before them are found, and right behind a frame
//! only the next number.

use memchr::memmem::Finder;

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

/// Finds the frames in `bytes`, a whole segment. O(bytes), however they are spoilt: only what begins with the mark
/// of a frame and names this segment is looked at more closely, see [`Cost`].
pub(crate) fn scan(bytes: &[u8], wanted: Wanted) -> Scan {
    scan_counting(bytes, wanted).0
}

fn scan_counting(bytes: &[u8], wanted: Wanted) -> (Scan, Cost) {
    let mut scan = Scan::default();
    let mark = frame::MAGIC.to_le_bytes();
    let mut search = Search {
        bytes,
        written: written(bytes),
        wanted,
        lsn: 0,
        mark: Finder::new(&mark),
        cost: Cost::default(),
    };
    let mut at = 0;
    loop {
        let frame = match search.next_frame(at, scan.frames.last()) {
            Ok(frame) => frame,
            Err(is_torn) => {
                scan.is_torn = is_torn;
                break;
            }
        };
        search.wanted.log_id.get_or_insert(frame.header.log_id);
        if frame.header.version > frame::VERSION {
            scan.newer_version = Some(frame.header.version);
        }
        search.lsn = frame.header.lsn;
        scan.frames.push(frame);
        let Ok(end) = usize::try_from(frame.end()) else {
            break;
        };
        at = end;
    }
    (scan, search.cost)
}

/// What a scan had to do, to be bounded by tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Bytes looked through for the mark of a frame.
    searched_bytes: u64,
    /// Bytes of which a checksum was computed.
    checked_bytes: u64,
}

struct Search<'a> {
    bytes: &'a [u8],
    /// There are only zeros from here on.
    written: usize,
    wanted: Wanted,
    /// Of the last frame that was found.
    lsn: u64,
    mark: Finder<'a>,
    cost: Cost,
}

impl Search<'_> {
    /// The first frame at `from` or after it; if there is none, whether one begins there that is not whole.
    fn next_frame(&mut self, from: usize, previous: Option<&FrameAt>) -> Result<FrameAt, bool> {
        let follows = |frame: &FrameAt| {
            previous.is_none_or(|previous| frame.header.first_lsn() == previous.header.lsn + 1)
        };
        if let Some(frame) = self.frame_at(from).filter(follows) {
            return Ok(frame);
        }
        // What is damaged is rather a body than a length, and a body may hold what looks like a frame.
        let claimed = self
            .header_at(from)
            .and_then(|header| usize::try_from(header.frame_bytes()).ok())
            .and_then(|len| self.frame_at(from.checked_add(len)?));
        if let Some(frame) = claimed {
            return Ok(frame);
        }
        // What is damaged was a frame, and the mark of it needs that space.
        let first = from.saturating_add(HEADER_BYTES);
        let (mut at, mut is_torn) = (from, false);
        while let Some(mark) = self.next_mark(at) {
            is_torn |= self.header_at(mark).is_some();
            if mark >= first
                && let Some(frame) = self.frame_at(mark)
            {
                return Ok(frame);
            }
            at = mark + ALIGNMENT;
        }
        Err(is_torn)
    }

    /// The frame that begins at `at`, if one does and it comes after those before.
    fn frame_at(&mut self, at: usize) -> Option<FrameAt> {
        let header = self.header_at(at).filter(|header| header.lsn > self.lsn)?;
        let rest = self.bytes.get(at..)?;
        self.cost.checked_bytes += header.frame_bytes().min(rest.len() as u64);
        let offset = u32::try_from(at).ok()?;
        frame::check(&header, rest).then_some(FrameAt { offset, header })
    }

    /// The header at `at`, if it names this segment; what follows it may be anything.
    fn header_at(&self, at: usize) -> Option<FrameHeader> {
        let Wanted { segment, log_id } = self.wanted;
        FrameHeader::parse(self.bytes.get(at..)?).filter(|header| {
            header.segment == segment && log_id.is_none_or(|log_id| header.log_id == log_id)
        })
    }

    /// Where, from `from` on, the mark of a frame is next, at a place where one can begin. `from` is such a place.
    fn next_mark(&mut self, mut from: usize) -> Option<usize> {
        loop {
            let rest = self.bytes.get(from..self.written)?;
            let found = self.mark.find(rest);
            self.cost.searched_bytes += found.unwrap_or(rest.len()) as u64;
            let at = from + found?;
            if at.is_multiple_of(ALIGNMENT) {
                return Some(at);
            }
            from = at.next_multiple_of(ALIGNMENT);
        }
    }
}

/// Where the zeros begin that `bytes` end with: most of a segment that was begun a moment ago.
fn written(bytes: &[u8]) -> usize {
    let zeros = [0; 4096];
    let mut end = bytes.len();
    for chunk in bytes.rchunks(zeros.len()) {
        if !zeros.starts_with(chunk) {
            let last = chunk.iter().rposition(|&byte| byte != 0);
            return end - chunk.len() + last.map_or(0, |last| last + 1);
        }
        end -= chunk.len();
    }
    0
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

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

    /// What may follow the last whole frame of a segment of 1 MiB.
    fn spoilt_ends() -> Vec<(&'static str, Vec<u8>)> {
        let mut older = frame(1, 200);
        older[12] = 9;
        let mut broken = frame(8, 200);
        broken[100] ^= 1;
        let mut long = frame(8, 0);
        long[4..8].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        let noise = |at: usize| {
            (at as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()[7]
        };
        vec![
            ("nothing", Vec::new()),
            ("noise", (0..4096).map(noise).collect()),
            ("marks", b"vlog".repeat(100_000)),
            ("marks out of place", b"vlog\0".repeat(100_000)),
            ("an older segment", older.repeat(3000)),
            ("broken frames", broken.repeat(3000)),
            ("a frame that claims all", long),
        ]
    }

    #[test]
    fn the_cost_of_a_spoilt_end_is_bounded_by_its_bytes() {
        for (what, end) in spoilt_ends() {
            let mut bytes = three();
            bytes.extend(&end);
            let written = bytes.len() as u64;
            bytes.resize(1 << 20, 0);
            let (found, cost) = scan_counting(&bytes, WANTED);
            assert_eq!(lsns(&found), [5, 6, 7], "{what}");
            assert!(cost.searched_bytes <= written, "{what}: {cost:?}");
            let claimed = if what.contains("claims") { 1 << 20 } else { 0 };
            // What stands where a frame should is checked twice.
            let checked = written + 1000 + claimed;
            assert!(cost.checked_bytes <= checked, "{what}: {cost:?}");
        }
    }

    #[test]
    fn a_frame_behind_every_spoilt_end_is_found() {
        for (what, end) in spoilt_ends() {
            let mut bytes = [three(), end, vec![0; HEADER_BYTES]].concat();
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(frame(9, 0));
            bytes.extend([0; 5000]);
            assert_eq!(lsns(&scan(&bytes, WANTED)), [5, 6, 7, 9], "{what}");
        }
    }

    #[test]
    fn the_end_of_what_is_written_is_found_to_the_byte() {
        for len in [0, 1, 4095, 4096, 4097, 12_288] {
            let mut bytes = vec![0; len];
            assert_eq!(written(&bytes), 0, "{len} bytes");
            for at in (0..len).step_by(409) {
                bytes[at] = 1;
                assert_eq!(written(&bytes), at + 1, "{len} bytes");
            }
        }
    }

    /// As it is found by looking at every place: slow, and easy to believe.
    fn scan_slowly(bytes: &[u8], wanted: Wanted) -> (Vec<FrameAt>, bool) {
        let is_named = |header: &FrameHeader| {
            header.segment == wanted.segment && wanted.log_id == Some(header.log_id)
        };
        let mut frames: Vec<FrameAt> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let after = frames.last().map_or(0, |frame| frame.header.lsn);
            let is_here = |at: usize| {
                let rest = bytes.get(at..).unwrap_or_default();
                let header = FrameHeader::parse(rest)?;
                let is_ours =
                    is_named(&header) && header.lsn > after && frame::check(&header, rest);
                let offset = u32::try_from(at).ok()?;
                is_ours.then_some(FrameAt { offset, header })
            };
            let places = (at + HEADER_BYTES..bytes.len()).step_by(ALIGNMENT);
            let follows = |found: &FrameAt| after == 0 || found.header.lsn == after + 1;
            let claimed = FrameHeader::parse(&bytes[at..])
                .filter(is_named)
                .and_then(|header| is_here(at + usize::try_from(header.frame_bytes()).ok()?));
            let here = is_here(at).filter(follows);
            let Some(found) = here
                .or(claimed)
                .or_else(|| places.into_iter().find_map(is_here))
            else {
                break;
            };
            at = usize::try_from(found.end()).unwrap();
            frames.push(found);
        }
        let is_torn = (at..bytes.len())
            .step_by(ALIGNMENT)
            .filter_map(|at| FrameHeader::parse(&bytes[at..]))
            .any(|header| is_named(&header));
        (frames, is_torn)
    }

    proptest! {
        #[test]
        fn a_fast_search_finds_what_a_slow_one_does(
            pieces in vec((0..7_usize, 0..60_usize, 0..40_usize), 0..20),
            flips in vec((any::<Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = Vec::new();
            for (lsn, (kind, body, cut)) in (5..).zip(pieces) {
                let mut piece = match kind {
                    0 => b"vlog".repeat(body),
                    1 => vec![0; body],
                    _ => frame(lsn, body),
                };
                if kind == 2 {
                    piece[12] = 9;
                }
                if kind == 3 {
                    piece.truncate(piece.len().saturating_sub(cut));
                }
                bytes.extend(piece);
                bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            }
            for (at, bits) in flips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] ^= bits;
                }
            }
            let found = scan(&bytes, WANTED);
            prop_assert_eq!((found.frames, found.is_torn), scan_slowly(&bytes, WANTED));
        }
    }
}
