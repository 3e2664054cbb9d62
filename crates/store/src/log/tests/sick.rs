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
use crate::disk::Disk;
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::{
    Damage, DamageKind, EncodedGroup, Load, Log, LogOptions, Record, Recovered, SessionId,
    UnixMillis,
};

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

/// It has no space for a copy of the damaged file, so the block stays, beside what has to be read.
#[test]
fn a_block_that_cannot_be_read_does_not_refuse_a_start_on_a_full_disk() {
    let (whole, places) = log_of(120, &large());
    for block in 1..16 {
        let disk = whole.kill();
        assert!(disk.spoil(&segment_path(1), block * 4096));
        disk.set_plan(FaultPlan {
            quota_bytes: Some(disk.used_bytes()),
            ..FaultPlan::default()
        });
        let (log, recovered) = open(&disk, &large());
        assert_eq!(recovered.sessions.len(), 1, "block {block}");
        assert_eq!(served(&log), elsewhere(&places, 1, block), "block {block}");
    }
}

fn by_hints() -> LogOptions {
    LogOptions {
        hints_above_bytes: 0,
        clean_segments: 1,
        clean_percent: 100,
        ..large()
    }
}

/// The numbers of the frames that touch this block.
fn lsns_at(places: &[Place], segment: u32, block: u64) -> BTreeSet<u64> {
    let lost = |number: &u64| !elsewhere(places, segment, block).contains(&(MESSAGES * number + 1));
    let numbers = 0..places.len() as u64;
    // The first frame is that of the Session.
    numbers.filter(lost).map(|number| number + 2).collect()
}

fn lsns_of(damage: &[Damage]) -> BTreeSet<u64> {
    let missing = damage.iter().filter_map(|damage| damage.missing);
    missing
        .flat_map(|(first, last)| first.unwrap()..=last)
        .collect()
}

/// A start by hints reads little of a segment: where that could not be read, every start was refused, and what was
/// found later made its Clients wait for ever.
#[test]
fn a_block_that_cannot_be_read_costs_the_frames_in_it_with_hints_too() {
    let (whole, places) = log_of(120, &by_hints());
    let (_, recovered) = open(&whole.kill(), &by_hints());
    assert!(recovered.report.segments_by_hint >= 2);
    let blocks = (1..=3).flat_map(|segment| (0..16).map(move |block| (segment, block)));
    // But the block with the Session.
    for (segment, block) in blocks.skip(1) {
        let place = format!("block {block} of {segment}");
        let disk = whole.kill();
        assert!(disk.spoil(&segment_path(segment), block * 4096 + 7));
        let expected = elsewhere(&places, segment, block);
        let (mut log, recovered) = open(&disk, &by_hints());
        assert_eq!(served(&log), expected, "{place}");
        log.tick(UnixMillis(0)).unwrap();
        let found_later = log.status().damage;
        let mut told = lsns_of(&recovered.report.damage);
        told.extend(lsns_of(&found_later));
        assert_eq!(told, lsns_at(&places, segment, block), "{place}");
        let alarms = disk.list("alarms").unwrap_or_default();
        assert_eq!(alarms.is_empty(), told.is_empty(), "{place}");
        // The next start reads that segment as a whole, and sets the damage aside.
        let disk = disk.kill();
        let (log, recovered) = open(&disk, &by_hints());
        let is_new = recovered.report.damage.len() == 1;
        assert_eq!(is_new, !found_later.is_empty(), "{place}");
        assert_eq!(served(&log), expected, "{place}");
        let (log, recovered) = open(&disk.crash(block), &by_hints());
        assert_eq!(recovered.report.damage, [], "{place}");
        assert_eq!(served(&log), expected, "{place}");
    }
}

/// A retained message is wanted at once.
#[test]
fn a_start_by_hints_that_wants_what_cannot_be_read_is_one_without_hints() {
    let (whole, _) = log_of(120, &by_hints());
    let (mut log, _) = open(&whole, &by_hints());
    let keep = |log: &mut Log<FaultDisk>, numbers: Range<u64>| {
        for number in numbers {
            log.write(&frame(number)).unwrap();
        }
    };
    // The segment that was begun before the start has no hint.
    keep(&mut log, 120..170);
    // Over whole blocks, so that the headers of its frame and of the next can be read.
    let message = super::message(1, 9000);
    log.write(&records(vec![Record::RetainedPut { message }]))
        .unwrap();
    let at = log.status().written_lsn;
    keep(&mut log, 170..250);
    log.sync().unwrap();
    drop(log);
    let (segment, frame) = (1..)
        .find_map(|segment| {
            let bytes = whole.contents(&segment_path(segment)).unwrap();
            let log_id = None;
            let found = scan(&bytes, Wanted { segment, log_id }).frames;
            let frame = found.iter().find(|frame| frame.header.lsn == at);
            frame.map(|frame| (segment, *frame))
        })
        .unwrap();
    let disk = whole.kill();
    let middle = u64::from(frame.offset) + 4500;
    assert!(disk.spoil(&segment_path(segment), middle));
    let (_, recovered) = open(&disk, &by_hints());
    assert_eq!((recovered.sessions.len(), recovered.retained.len()), (1, 0));
    assert_eq!(recovered.report.segments_by_hint, 0);
    assert!(lsns_of(&recovered.report.damage).contains(&at));
}

/// It ended the process with each start.
#[test]
fn the_cleaner_goes_on_over_a_block_that_cannot_be_read() {
    for block in 1..16 {
        let (disk, places) = log_of(120, &by_hints());
        let (mut log, _) = open(&disk, &by_hints());
        assert!(disk.spoil(&segment_path(1), block * 4096));
        let mut expected = elsewhere(&places, 1, block);
        for number in 120..180 {
            log.write(&frame(number)).unwrap();
            log.sync().unwrap();
            log.clean(log.clean_budget()).unwrap();
            log.sync().unwrap();
            log.tick(UnixMillis(0)).unwrap();
        }
        expected.extend(MESSAGES * 120 + 1..=MESSAGES * 180);
        assert_eq!(served(&log), expected, "block {block}");
        let damage = log.status().damage;
        assert_eq!(
            lsns_of(&damage),
            lsns_at(&places, 1, block),
            "block {block}"
        );
        let aside = disk.contents("set-aside/0000000001.seg.read");
        assert!(aside.is_some(), "block {block}");
        let (log, recovered) = open(&disk.kill(), &by_hints());
        assert_eq!(recovered.report.damage, [], "block {block}");
        assert_eq!(served(&log), expected, "block {block}");
    }
}

/// Not the bytes are damaged then, but the disk or the way to it: nothing is given up for it.
#[test]
fn a_segment_of_which_next_to_nothing_can_be_read_is_left_as_it_is() {
    let options = LogOptions {
        segment_bytes: 512 * 1024,
        ..by_hints()
    };
    let (disk, places) = log_of(900, &options);
    let (log, _) = open(&disk, &options);
    let read = places.iter().filter(|(segment, _)| *segment == 1).count();
    drop(log);
    for block in 2..110 {
        assert!(disk.spoil(&segment_path(1), block * 4096));
    }
    let before = disk.contents(&segment_path(1));
    let mut next = 900;
    for _ in 0..2 {
        let (mut log, recovered) = open(&disk, &options);
        assert_eq!(recovered.report.damage, []);
        for _ in 0..400 {
            log.write(&frame(next)).unwrap();
            next += 1;
            log.sync().unwrap();
            log.clean(log.clean_budget()).unwrap();
            log.tick(UnixMillis(0)).unwrap();
        }
        let damage = log.status().damage;
        let kinds: Vec<_> = damage.iter().map(|of| (of.segment, of.kind)).collect();
        assert_eq!(kinds, [(1, DamageKind::Unreadable)]);
        // A few of its frames may be damaged; for the others it is waited.
        let load = Load {
            session: SESSION,
            from_seq: 1,
            messages_max: read,
            bytes_max: usize::MAX,
        };
        assert!(log.reader().load(load).is_err());
        assert_eq!(disk.contents(&segment_path(1)), before);
    }
}
