//! What is done to the files of a log between two processes.
//!
//! Owns: the end of the last segment as a crash in the middle of a write leaves it. Does not own: damage to
//! what was acknowledged (see `damage`). Start reading at [`tail`].
//! Invariant: no byte up to the last one that is not zero is changed, so nothing acknowledged is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::broker::{Kind, Plan};
use crate::random::Random;

/// What stands behind the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tail {
    /// The first bytes of the last frame once more: a write that was torn.
    Torn,
    /// The last frame once more, with a byte flipped.
    Flipped,
    /// A frame that was whole elsewhere: what an earlier use of the file left.
    Stale,
    /// Random bytes.
    Garbage,
    /// Nothing: the file is cut anywhere behind its last frame.
    Cut,
}

impl Tail {
    const ALL: [Self; 5] = [
        Self::Torn,
        Self::Flipped,
        Self::Stale,
        Self::Garbage,
        Self::Cut,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Flipped => "flipped",
            Self::Stale => "stale",
            Self::Garbage => "garbage",
            Self::Cut => "cut",
        }
    }
}

/// Spoils what is behind the end of the log. Only our own is spoilt; returns how.
pub(crate) fn tail(plan: &Plan, random: &mut Random) -> Result<Option<Tail>, String> {
    if plan.kind != Kind::Vencejo {
        return Ok(None);
    }
    let Some(path) = segments(&plan.folder.join("data/log")).pop() else {
        return Ok(None);
    };
    spoil_tail(&path, random)
        .map(Some)
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn spoil_tail(path: &Path, random: &mut Random) -> io::Result<Tail> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = fs::read(path)?;
    let last = bytes.iter().rposition(|byte| *byte != 0);
    let end = last.map_or(0, |at| at + 1);
    // Frames begin at multiples of 8, and the last one may end with zeros.
    let behind = end.next_multiple_of(8) + 8;
    let written = bytes.get(..end).unwrap_or_default();
    let start = written
        .windows(MAGIC.len())
        .rposition(|window| window == MAGIC)
        .unwrap_or(0);
    let frame = written.get(start..).unwrap_or_default();
    let choice = usize::try_from(random.below(Tail::ALL.len() as u64)).unwrap_or(0);
    let tail = Tail::ALL.get(choice).copied().unwrap_or(Tail::Garbage);
    match tail {
        Tail::Torn => {
            let len = usize::try_from(random.below(frame.len().max(1) as u64)).unwrap_or(0);
            file.write_all_at(frame.get(..len).unwrap_or_default(), behind as u64)?;
        }
        Tail::Flipped => {
            let mut frame = frame.to_vec();
            let at = usize::try_from(random.below(frame.len().max(1) as u64)).unwrap_or(0);
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
            file.write_all_at(&frame, behind as u64)?;
        }
        Tail::Stale => {
            let first = written.get(..end.min(4096)).unwrap_or_default();
            file.write_all_at(first, behind as u64)?;
        }
        Tail::Garbage => {
            let garbage: Vec<u8> = (0..=random.below(300)).map(|_| random.byte()).collect();
            file.write_all_at(&garbage, behind as u64)?;
        }
        Tail::Cut => cut_behind(&file, behind as u64, random)?,
    }
    Ok(tail)
}

fn cut_behind(file: &File, behind: u64, random: &mut Random) -> io::Result<()> {
    let len = file.metadata()?.len();
    file.set_len(behind.min(len) + random.below(len.saturating_sub(behind).max(1)))
}

/// The segments in a folder, in the order of their numbers.
pub(crate) fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut segments: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    segments
}

/// What every frame begins with.
const MAGIC: &[u8] = b"vlog";
