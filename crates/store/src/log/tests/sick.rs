//! Blocks of the disk that cannot be read.
//!
//! Owns: tests of what a sick place costs, and of what goes on around it. Does not own: bytes that have changed (see
//! `files`), errors of the whole disk (see `errors`). Start reading at
//! [`a_block_that_cannot_be_read_costs_the_frames_in_it`]. Invariant: what lies elsewhere is served.

use std::collections::BTreeSet;
use std::ops::Range;

use super::super::folder::segment_path;
use super::super::scan::{Wanted, scan};
use super::{load_all, options, records, session_put};
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::{EncodedGroup, Log, LogOptions, Record, Recovered, SessionId};

const SESSION: SessionId = SessionId(1);
/// Of the messages in one frame.
const MESSAGES: u64 = 4;

fn large() -> LogOptions {
    LogOptions {
        segment_bytes: 64 * 1024,
        ..options()
    }
}

fn open(disk: &FaultDisk, options: &LogOptions) -> (Log<FaultDisk>, Recovered) {
    Log::open(disk.clone(), options.clone()).unwrap()
}

fn frame(number: u64) -> EncodedGroup {
    let seqs = MESSAGES * number + 1..=MESSAGES * (number + 1);
    records(seqs.map(|seq| super::enqueue(&[1], seq, 300)).collect())
}

/// Where a frame is: segment, bytes.
type Place = (u32, Range<u64>);

/// A Session, and so many frames of messages for it, all durable; and where those are.
fn log_of(frames: u64, options: &LogOptions) -> (FaultDisk, Vec<Place>) {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let (mut log, _) = open(&disk, options);
    let put = Record::SessionPut(Box::new(session_put(SESSION.0)));
    log.write(&records(vec![put])).unwrap();
    for number in 0..frames {
        log.write(&frame(number)).unwrap();
    }
    log.sync().unwrap();
    let mut places = Vec::new();
    for segment in 1.. {
        let Some(bytes) = disk.contents(&segment_path(segment)) else {
            break;
        };
        let log_id = None;
        let found = scan(&bytes, Wanted { segment, log_id }).frames;
        places.extend(found.iter().map(|at| (segment, at.offset.into()..at.end())));
    }
    assert_eq!(places.remove(0).1.start, 0, "the Session");
    (disk, places)
}

/// The messages in the frames that do not touch this block.
fn elsewhere(places: &[Place], segment: u32, block: u64) -> BTreeSet<u64> {
    let touches = |place: &Place| {
        let (start, end) = (block * 4096, (block + 1) * 4096);
        place.0 == segment && place.1.start < end && start < place.1.end
    };
    let frames = (0..).zip(places).filter(|(_, place)| !touches(place));
    frames
        .flat_map(|(number, _)| MESSAGES * number + 1..=MESSAGES * (number + 1))
        .collect()
}

fn served(log: &Log<FaultDisk>) -> BTreeSet<u64> {
    load_all(log, SESSION).into_keys().collect()
}

/// A write beside such a block failed, so every start was refused, or ended with the first frame.
#[test]
fn a_block_that_cannot_be_read_costs_the_frames_in_it() {
    let (whole, places) = log_of(120, &large());
    // But the block with the Session.
    let blocks = (1..=3).flat_map(|segment| (0..16).map(move |block| (segment, block)));
    for (segment, block) in blocks.skip(1) {
        let place = format!("block {block} of {segment}");
        let disk = whole.kill();
        assert!(disk.spoil(&segment_path(segment), block * 4096 + 7));
        let mut expected = elsewhere(&places, segment, block);
        let is_used = expected.len() < places.len() * 4;
        let (mut log, recovered) = open(&disk, &large());
        assert_eq!(served(&log), expected, "{place}");
        let damage = recovered.report.damage;
        assert_eq!(damage.len(), usize::from(is_used), "{place}");
        // It goes on over the place where it was.
        for number in 120..150 {
            log.write(&frame(number)).unwrap();
            log.sync().unwrap();
        }
        expected.extend(MESSAGES * 120 + 1..=MESSAGES * 150);
        let (log, recovered) = open(&disk.crash(block), &large());
        assert_eq!(recovered.report.damage, [], "{place}");
        assert_eq!(served(&log), expected, "{place}");
    }
}
