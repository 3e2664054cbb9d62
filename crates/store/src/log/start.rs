//! From a folder to the end of a log that can be written to.
//!
//! Owns: the order of the steps of a start. Does not own: the steps (see `walk`, `repair`, `writer`), records.
//! Start reading at [`start`]. Invariant: an alarm is durable before what it tells of is repaired.

use super::checkpoint::Checkpoint;
use super::folder::{self, Listing};
use super::options::{Doing, Failure, LogOptions, OpenError, RecoveryMode, is_full};
use super::repair;
use super::report::RecoveryReport;
use super::scan::FrameAt;
use super::walk::{self, Walk};
use super::writer::Writer;
use crate::Alarms;
use crate::disk::Disk;

/// What a start is told of the frames that count, in order.
pub(crate) trait Visitor {
    /// A frame; returns how many records are in it, or `None` if they cannot be read.
    fn on_frame(&mut self, segment: u32, frame: &FrameAt, body: &[u8]) -> Option<u64>;

    /// Whether it has to see all frames once more, since it took in a part of one that cannot be read to
    /// its end; if so, it has forgotten everything else.
    fn begins_again(&mut self) -> bool;
}

/// A log as it lies there.
#[derive(Debug)]
pub(crate) struct Look<F> {
    pub(crate) has_marker: bool,
    pub(crate) checkpoint: Checkpoint<F>,
    pub(crate) listing: Listing,
    pub(crate) walk: Walk,
    /// Records in the frames that count.
    pub(crate) records: u64,
}

/// Reads the folder and changes nothing; `visitor` sees every frame that counts.
pub(crate) fn look<D: Disk>(
    disk: &D,
    visitor: &mut dyn Visitor,
) -> Result<Look<D::File>, OpenError> {
    let has_marker = folder::has_marker(disk)?;
    let checkpoint = Checkpoint::read(disk)?;
    let listing = Listing::read(disk)?;
    let (walk, records) = loop {
        let mut records = 0;
        let mut visit = |segment, frame: &FrameAt, body: &[u8]| {
            let found = visitor.on_frame(segment, frame, body);
            records += found.unwrap_or(0);
            found.is_some()
        };
        let walk = walk::walk(disk, &listing, checkpoint.found, &mut visit)?;
        if !visitor.begins_again() {
            break (walk, records);
        }
    };
    Ok(Look {
        has_marker,
        checkpoint,
        listing,
        walk,
        records,
    })
}

/// Opens the folder; `visitor` sees every frame that counts.
pub(crate) fn start<D: Disk>(
    disk: &D,
    options: &LogOptions,
    visitor: &mut dyn Visitor,
) -> Result<(Writer<D>, RecoveryReport), OpenError> {
    let Look {
        has_marker,
        mut checkpoint,
        listing,
        mut walk,
        records,
    } = look(disk, visitor)?;
    if options.recovery == RecoveryMode::Strict && !walk.damage.is_empty() {
        return Err(OpenError::Damaged(walk.damage));
    }
    checkpoint.make(disk)?;
    folder::prepare(disk, has_marker)?;
    repair::set_aside(disk, &mut walk)?;
    raise_alarms(disk, &walk, options)?;
    repair::repair(disk, &listing, &mut walk, options.segment_bytes)?;
    let mut writer = Writer::open(disk.clone(), options, &walk, &listing, checkpoint)?;
    if walk.needs_mark {
        match writer.append_mark().and_then(|()| writer.sync()) {
            Err(failure) if failure.is_full() => {}
            result => result?,
        }
    }
    let report = RecoveryReport {
        segments: walk.segments.len() as u64,
        segments_by_hint: 0,
        frames: walk.frames,
        records,
        bytes: walk.bytes,
        torn_tail: walk.torn,
        damage: walk.damage,
        known_holes: walk.known_holes,
        uncommitted_dropped: 0,
        sessions_ended: 0,
    };
    Ok((writer, report))
}

fn raise_alarms<D: Disk>(disk: &D, walk: &Walk, options: &LogOptions) -> Result<(), Failure> {
    if walk.damage.is_empty() {
        return Ok(());
    }
    let mut alarms = Alarms::open(disk.clone()).doing("open", "the alarms")?;
    for damage in &walk.damage {
        match alarms.raise(&damage.to_string(), options.now) {
            // It is in the report, and what cannot be repaired without space is found again.
            Err(error) if is_full(&error) => {}
            result => result.doing("raise", "an alarm")?,
        }
    }
    Ok(())
}
