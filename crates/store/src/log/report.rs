//! What recovery found, in words that an operator can act on.
//!
//! Owns: [`RecoveryReport`], [`Damage`], [`TornTail`]. Does not own: who reads it (see the server).
//! Start reading at [`RecoveryReport`]. Invariant: nothing that was acknowledged can be missing without a
//! [`Damage`] that names it.

use std::fmt;

use super::folder;

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments that belong to the log.
    pub segments: u64,
    /// Those of them that were not read, because a hint says what is in them.
    pub segments_by_hint: u64,
    /// Intact frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The end of what was being written when the process or the machine stopped: cut, never acknowledged.
    pub torn_tail: Option<TornTail>,
    /// Damage that no crash explains.
    pub damage: Vec<Damage>,
    /// Ranges of frames that an earlier start has reported as missing.
    pub known_holes: u64,
    /// Messages whose publishers were not answered, and will send them again: dropped.
    pub uncommitted_dropped: u64,
    /// Sessions that ended with the process: dropped.
    pub sessions_ended: u64,
}

/// Where the log was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Which segment.
    pub segment: u32,
    /// Where the first frame began that is not whole.
    pub offset: u64,
    /// Whole frames after it that were dropped with it, since nothing may follow what is lost.
    pub frames_dropped: u64,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a torn tail was cut at byte {} of {}, with {} whole frames after it; nothing in it was acknowledged",
            self.offset,
            folder::segment_path(self.segment),
            self.frames_dropped
        )
    }
}

/// One place where the log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which segment.
    pub segment: u32,
    /// Where in it.
    pub offset: u64,
    /// Bytes that mean nothing any more.
    pub bytes: u64,
    /// What it is.
    pub kind: DamageKind,
    /// The first number of a frame that is missing, if it is known, and the last.
    pub missing: Option<(Option<u64>, u64)>,
    /// Where a copy of the damaged file is, in the data folder; `None` if there is no file, or no space.
    pub set_aside: Option<String>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// Bytes have changed; what follows them is intact.
    Changed,
    /// The segment ends before the log does.
    EndMissing,
    /// Whole segments before this one are missing.
    SegmentsMissing,
    /// A whole file has nothing in it that belongs to this log.
    Foreign,
    /// A frame is as it was written, and holds what is no record.
    Undecodable,
    /// While the log was in use: so much of a segment could not be read that nothing of it was given up.
    Unreadable,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = folder::segment_path(self.segment);
        match self.kind {
            DamageKind::Changed => {
                write!(
                    f,
                    "{file}: {} bytes at byte {} have changed",
                    self.bytes, self.offset
                )?;
            }
            DamageKind::EndMissing => {
                write!(f, "{file}: what followed byte {} is missing", self.offset)?;
            }
            DamageKind::SegmentsMissing => write!(f, "{file}: segments before it are missing")?,
            DamageKind::Foreign => write!(f, "{file}: nothing in it belongs to this log")?,
            DamageKind::Unreadable => {
                write!(
                    f,
                    "{file}: next to nothing of it can be read; it is kept as it is, and until the next start no \
                     space of the log is given back"
                )?;
            }
            DamageKind::Undecodable => {
                write!(
                    f,
                    "{file}: the frame at byte {} holds what is no record",
                    self.offset
                )?;
            }
        }
        match self.missing {
            Some((Some(first), last)) => write!(f, "; frames {first} to {last}")?,
            Some((None, last)) => write!(f, "; frames up to {last}")?,
            None => f.write_str("; no frame is known to be missing")?,
        }
        if self.missing.is_some() {
            f.write_str(
                " are missing: messages, Subscriptions, Sessions and retained messages of that time may be lost, \
                 and what was finished then may come again",
            )?;
        }
        match &self.set_aside {
            Some(copy) => write!(f, "; the file is kept as {copy}"),
            None => Ok(()),
        }
    }
}
