//! What a start does about what it found: keeps evidence, marks what is missing, cuts what was torn.
//!
//! Owns: every change of the disk before the log goes on. Does not own: what is damage (see `walk`).
//! Start reading at [`repair`]. Invariants: it can be broken off at any step, and the next start finds the
//! same and does the rest; nothing damaged is changed before a copy of it is durable; a full disk leaves
//! work for the next start, and the log opens.

use std::collections::{BTreeMap, BTreeSet};

use super::folder::{self, LOG_DIR, Listing, SET_ASIDE_DIR};
use super::frame::{self, FrameHeader, HEADER_BYTES};
use super::options::{Doing, Failure, is_full};
use super::report::{Damage, DamageKind};
use super::walk::{Hole, Walk};
use crate::disk::{Disk, DiskFile};

/// Keeps a copy of each damaged file and moves away the files that hold nothing of this log; says where in
/// `walk`. After that, the damage can be told to others.
pub(crate) fn set_aside<D: Disk>(disk: &D, walk: &mut Walk) -> Result<(), Failure> {
    if walk.damage.is_empty() {
        return Ok(());
    }
    let mut copies = BTreeMap::new();
    for damage in &mut walk.damage {
        let copy = match damage.kind {
            DamageKind::SegmentsMissing => None,
            DamageKind::Foreign => Some(move_aside(disk, damage.segment)?),
            DamageKind::Changed
            | DamageKind::EndMissing
            | DamageKind::Undecodable
            | DamageKind::Unreadable => match copies.get(&damage.segment) {
                Some(copy) => Option::clone(copy),
                None => {
                    let copy = copy_aside(disk, damage.segment)?;
                    copies.insert(damage.segment, copy.clone());
                    copy
                }
            },
        };
        damage.set_aside = copy;
    }
    disk.sync_dir(SET_ASIDE_DIR).doing("sync", SET_ASIDE_DIR)
}

/// Makes the log one that a next start finds in order, and all that counts durable.
pub(crate) fn repair<D: Disk>(
    disk: &D,
    listing: &Listing,
    walk: &mut Walk,
    segment_bytes: u64,
) -> Result<(), Failure> {
    let last = walk.segments.last_key_value().map(|(&id, _)| id);
    remove_hints(disk, listing, walk, last)?;
    replace_sick(disk, walk)?;
    if let Some(last) = last {
        settle_end(disk, walk, last, segment_bytes)?;
    }
    write_holes(disk, walk, last)?;
    for draft in &listing.drafts {
        folder::remove_if_there(disk, draft)?;
    }
    for &segment in &walk.leftovers {
        folder::remove_if_there(disk, &folder::segment_path(segment))?;
    }
    disk.sync_dir(LOG_DIR).doing("sync", LOG_DIR)
}

/// Removes the hints of segments that are not there, or not as they were when they ended: the last one is written
/// to again, and one that is damaged is to be read as a whole next time.
fn remove_hints<D: Disk>(
    disk: &D,
    listing: &Listing,
    walk: &Walk,
    last: Option<u32>,
) -> Result<(), Failure> {
    let damaged: BTreeSet<u32> = walk.damage.iter().map(|damage| damage.segment).collect();
    for &hint in &listing.hints {
        let is_kept = walk.segments.contains_key(&hint) && last != Some(hint);
        if !is_kept || damaged.contains(&hint) {
            folder::remove_if_there(disk, &folder::hint_path(hint))?;
        }
    }
    Ok(())
}

/// Puts what can be read of a segment in its place: what writes beside bytes that cannot be read fails. It stays as
/// it is if there is no space, and if it does not read as before: more of it may be read another time.
fn replace_sick<D: Disk>(disk: &D, walk: &Walk) -> Result<(), Failure> {
    for (&segment, &crc) in &walk.sick {
        let has_no_copy = |of: &Damage| {
            let is_here = of.segment == segment && of.kind != DamageKind::SegmentsMissing;
            is_here && of.set_aside.is_none()
        };
        if !walk.segments.contains_key(&segment) || walk.damage.iter().any(has_no_copy) {
            continue;
        }
        let bytes = read(disk, &folder::segment_path(segment))?;
        if crc32c::crc32c(&bytes) != crc {
            continue;
        }
        match folder::replace(disk, LOG_DIR, &folder::segment_name(segment), &bytes) {
            Err(failure) if failure.is_full() => {}
            result => result?,
        }
    }
    Ok(())
}

/// Cuts what is torn, and makes durable what was perhaps not.
fn settle_end<D: Disk>(
    disk: &D,
    walk: &Walk,
    last: u32,
    segment_bytes: u64,
) -> Result<(), Failure> {
    let path = folder::segment_path(last);
    let file = disk.open(&path).doing("open", &path)?;
    let end = walk.segments.get(&last).map_or(0, |found| found.end);
    if walk.needs_cut {
        file.set_len(end).doing("cut", &path)?;
        match file.allocate(segment_bytes.max(end)) {
            Err(error) if is_full(&error) => {}
            result => result.doing("allocate", &path)?,
        }
    }
    if let Some(from) = walk.unsure_from {
        // If the last sync failed, the system may take these bytes for written although they are not: only
        // what is written again is sure to be synced.
        let len = usize::try_from(end.saturating_sub(from)).unwrap_or(0);
        let mut bytes = vec![0; len];
        let read = file.read_at(&mut bytes, from).doing("read", &path)?;
        bytes.truncate(read);
        file.write_at(&bytes, from).doing("write", &path)?;
    }
    file.sync().doing("sync", &path)
}

fn write_holes<D: Disk>(disk: &D, walk: &mut Walk, last: Option<u32>) -> Result<(), Failure> {
    let holes = std::mem::take(&mut walk.holes);
    for hole in holes {
        let has_copy = walk
            .damage
            .get(hole.damage)
            .is_some_and(|damage| damage.set_aside.is_some());
        // Without a copy, it is found again by the next start, that may have the space for one.
        if has_copy {
            write_hole(disk, &hole, walk.log_id.unwrap_or(0))?;
        }
        let end = hole.offset + HEADER_BYTES as u64;
        if last == Some(hole.segment)
            && let Some(found) = walk.segments.get_mut(&hole.segment)
            && found.end == hole.offset
        {
            // Also if it is not written: its place is kept, so that it never takes that of a frame.
            found.end = end;
            found.file_bytes = found.file_bytes.max(end);
        }
    }
    Ok(())
}

/// Writes it if there is space for it.
fn write_hole<D: Disk>(disk: &D, hole: &Hole, log_id: u32) -> Result<(), Failure> {
    let path = folder::segment_path(hole.segment);
    let file = disk.open(&path).doing("open", &path)?;
    let body_bytes = hole.bytes.saturating_sub(HEADER_BYTES as u64);
    let bytes = frame::seal_hole(FrameHeader {
        body_len: u32::try_from(body_bytes).unwrap_or(u32::MAX),
        segment: hole.segment,
        lsn: hole.last_lsn,
        durable_lsn: hole.first_lsn,
        log_id,
        ..FrameHeader::default()
    });
    match file.write_at(&bytes, hole.offset) {
        Err(error) if is_full(&error) => return Ok(()),
        result => result.doing("write", &path)?,
    }
    file.sync().doing("sync", &path)
}

/// Copies a segment; returns the name of the copy, or of an equal one that is there; `None` if the disk is
/// full.
fn copy_aside<D: Disk>(disk: &D, segment: u32) -> Result<Option<String>, Failure> {
    let path = folder::segment_path(segment);
    let bytes = read(disk, &path)?;
    for number in 1.. {
        let copy = aside_path(segment, number);
        let Some(file) = folder::open_if_there(disk, &copy)? else {
            break;
        };
        if folder::read_file(&file).doing("read", &copy)? == bytes {
            file.sync().doing("sync", &copy)?;
            return Ok(Some(copy));
        }
    }
    let copy = free_path(disk, segment)?;
    let name = copy
        .trim_start_matches(SET_ASIDE_DIR)
        .trim_start_matches('/');
    match folder::replace(disk, SET_ASIDE_DIR, name, &bytes) {
        Err(failure) if failure.is_full() => Ok(None),
        result => result.map(|()| Some(copy)),
    }
}

fn move_aside<D: Disk>(disk: &D, segment: u32) -> Result<String, Failure> {
    let path = folder::segment_path(segment);
    let aside = free_path(disk, segment)?;
    disk.rename(&path, &aside).doing("move", &path)?;
    Ok(aside)
}

fn free_path<D: Disk>(disk: &D, segment: u32) -> Result<String, Failure> {
    let names = disk.list(SET_ASIDE_DIR).doing("list", SET_ASIDE_DIR)?;
    let taken: BTreeSet<String> = names
        .into_iter()
        .map(|name| format!("{SET_ASIDE_DIR}/{name}"))
        .collect();
    let free = (1..)
        .map(|number| aside_path(segment, number))
        .find(|path| !taken.contains(path));
    Ok(free.expect("invariant: there are more numbers than files"))
}

fn aside_path(segment: u32, number: u32) -> String {
    match number {
        1 => format!("{SET_ASIDE_DIR}/{segment:010}.seg"),
        _ => format!("{SET_ASIDE_DIR}/{segment:010}.seg.{number}"),
    }
}

fn read<D: Disk>(disk: &D, path: &str) -> Result<Vec<u8>, Failure> {
    let file = disk.open(path).doing("open", path)?;
    folder::read_file(&file).doing("read", path)
}
