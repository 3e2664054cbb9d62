//! From a folder to the end of a log that can be written to.
//!
//! Owns: the order of the steps of a start. Does not own: the steps (see `walk`, `repair`, `writer`), records.
//! Start reading at [`start`]. Invariant: an alarm is durable before what it tells of is repaired.

use super::checkpoint::Checkpoint;
use super::folder::{self, Listing};
use super::options::{Doing, Failure, LogOptions, OpenError, RecoveryMode, is_full};
use super::repair;
use super::report::RecoveryReport;
use super::walk::{self, Visitor, Walk};
use super::writer::Writer;
use crate::Alarms;
use crate::disk::Disk;

/// A log as it lies there.
#[derive(Debug)]
pub(crate) struct Look<F> {
    pub(crate) has_marker: bool,
    pub(crate) checkpoint: Checkpoint<F>,
    pub(crate) listing: Listing,
    pub(crate) walk: Walk,
}

/// Reads the folder and changes nothing; `visitor` sees every frame that counts, by hints if the log is larger
/// than that.
pub(crate) fn look<D: Disk>(
    disk: &D,
    hints_above_bytes: Option<u64>,
    visitor: &mut dyn Visitor,
) -> Result<Look<D::File>, OpenError> {
    let has_marker = folder::has_marker(disk)?;
    let checkpoint = Checkpoint::read(disk)?;
    let listing = Listing::read(disk)?;
    let walk = loop {
        let walk = walk::walk(disk, &listing, checkpoint.found, hints_above_bytes, visitor)?;
        if !visitor.begins_again() {
            break walk;
        }
    };
    Ok(Look {
        has_marker,
        checkpoint,
        listing,
        walk,
    })
}

/// Opens the folder; `visitor` sees every frame that counts, by hints if the log is larger than that.
pub(crate) fn start<D: Disk>(
    disk: &D,
    options: &LogOptions,
    hints_above_bytes: Option<u64>,
    visitor: &mut dyn Visitor,
) -> Result<(Writer<D>, RecoveryReport), OpenError> {
    let Look {
        has_marker,
        mut checkpoint,
        listing,
        mut walk,
    } = look(disk, hints_above_bytes, visitor)?;
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
        segments_by_hint: walk.by_hint.len() as u64,
        frames: walk.frames,
        records: walk.records,
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
