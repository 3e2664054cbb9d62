//! What the log is told when it is opened, and what it says when it cannot go on.
//!
//! Owns: [`LogOptions`], [`OpenError`], [`LogError`]. Does not own: what happens then.
//! Start reading at [`LogOptions`]. Invariant: every size in here has a default that is documented.

use std::io;

use super::report::Damage;
use crate::UnixMillis;

/// How the log is kept. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Of a segment; a frame that is larger has one of its own. Default 64 MiB, at least 4 KiB.
    pub segment_bytes: u64,
    /// Segments kept ready for when the current one is full. Default 2.
    pub spares: usize,
    /// What to do about damage. Default [`RecoveryMode::SetAside`].
    pub recovery: RecoveryMode,
    /// The disk runs low when less than this is free. Default 64 MiB and two segments.
    pub disk_low_bytes: u64,
    /// Segments that may be there before cleaning begins. Default 4.
    pub clean_segments: u64,
    /// Percent of the live bytes that the log may have before cleaning begins. Default 250.
    pub clean_percent: u64,
    /// Up to this size of the log, every byte is read and checked at the start; above it, ended segments that
    /// have a hint are not, unless recovery is strict. Default 512 MiB.
    pub hints_above_bytes: u64,
    /// The time of the start.
    pub now: UnixMillis,
    /// Drawn at random for each start: keys of the index, and the number of a log that begins.
    pub random: [u64; 2],
}

/// What to do about damage that no crash explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Keep the damaged segment aside, serve what is intact, report what may be missing.
    #[default]
    SetAside,
    /// Refuse to open, and change nothing.
    Strict,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self::with_segments_of(64 << 20)
    }
}

impl LogOptions {
    /// The defaults for segments of this size.
    #[must_use]
    pub const fn with_segments_of(segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            spares: 2,
            recovery: RecoveryMode::SetAside,
            disk_low_bytes: (64 << 20) + 2 * segment_bytes,
            clean_segments: 4,
            clean_percent: 250,
            hints_above_bytes: 512 << 20,
            now: UnixMillis(0),
            random: [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03],
        }
    }

    /// A frame is cut when it would have more bytes than this, between batches.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        let of_segment = usize::try_from(self.segment_bytes / 2).unwrap_or(usize::MAX);
        of_segment.min(4 << 20)
    }
}

/// Why the log was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk failed, not the bytes on it.
    Disk {
        /// What was tried.
        doing: String,
        /// What the system says.
        error: io::Error,
    },
    /// A later version of this program wrote here.
    NewerVersion {
        /// Which file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// [`RecoveryMode::Strict`], and there is damage. Nothing was changed.
    Damaged(Vec<Damage>),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk { doing, error } => write!(f, "the disk failed: {doing}: {error}"),
            Self::NewerVersion { file, version } => {
                write!(
                    f,
                    "{file} is of version {version}, written by a later release"
                )
            }
            Self::Damaged(damage) => {
                f.write_str("the log is damaged, and recovery is strict")?;
                for one in damage {
                    write!(f, "; {one}")?;
                }
                f.write_str(
                    "; `vencejo store salvage DIR NEW` writes what is intact to a new folder",
                )
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk { error, .. } => Some(error),
            Self::NewerVersion { .. } | Self::Damaged(_) => None,
        }
    }
}

/// Why the log cannot go on. Nothing that was not durable by then may be called so any more; only opening it
/// anew tells what there is.
#[derive(Debug)]
pub enum LogError {
    /// The disk failed.
    Disk {
        /// What was tried.
        doing: String,
        /// What the system says.
        error: io::Error,
    },
    /// It failed before.
    Failed,
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk { doing, error } => write!(f, "the disk failed: {doing}: {error}"),
            Self::Failed => f.write_str("the log has failed before"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk { error, .. } => Some(error),
            Self::Failed => None,
        }
    }
}

/// A failed call on the disk with what it was for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) doing: String,
    pub(crate) error: io::Error,
}

impl Failure {
    /// Whether the disk is full, and nothing else is wrong with it.
    pub(crate) fn is_full(&self) -> bool {
        is_full(&self.error)
    }
}

impl From<Failure> for OpenError {
    fn from(Failure { doing, error }: Failure) -> Self {
        Self::Disk { doing, error }
    }
}

impl From<Failure> for LogError {
    fn from(Failure { doing, error }: Failure) -> Self {
        Self::Disk { doing, error }
    }
}

/// Says what a call was for when it fails.
pub(crate) trait Doing<T> {
    fn doing(self, what: &str, name: &str) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: &str, name: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            doing: format!("{what} {name}"),
            error,
        })
    }
}

/// Whether an error says that there is no space left, and nothing worse.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
