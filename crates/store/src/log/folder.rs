//! The names in the data folder, and whole files.
//!
//! Owns: which name means what; reading a whole segment; the marker of the format.
//! Does not own: what is in a segment. Start reading at [`Listing`].
//! Invariant: a name that is not exactly one of ours is left alone.

use std::collections::BTreeSet;
use std::io;

use super::options::{Doing, Failure, OpenError};
use crate::disk::{Disk, DiskFile};

/// What is in the folder of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Numbers of segments.
    pub(crate) segments: BTreeSet<u32>,
    /// Numbers of spares.
    pub(crate) spares: BTreeSet<u32>,
    /// Numbers of segments that have a hint.
    pub(crate) hints: BTreeSet<u32>,
    /// Files that something began to write and did not finish.
    pub(crate) drafts: Vec<String>,
}

impl Listing {
    /// Reads it; there is nothing in a folder that is not there.
    pub(crate) fn read<D: Disk>(disk: &D) -> Result<Self, Failure> {
        let mut listing = Self::default();
        let names = match disk.list(LOG_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.doing("list", LOG_DIR)?,
        };
        for name in names {
            if let Some(id) = number(&name, "", ".seg").filter(|&id| name == segment_name(id)) {
                listing.segments.insert(id);
            } else if let Some(id) = number(&name, "", ".hint").filter(|&id| name == hint_name(id))
            {
                listing.hints.insert(id);
            } else if let Some(id) = number(&name, "spare-", "") {
                listing.spares.insert(id);
            } else if name.ends_with(DRAFT) {
                listing.drafts.push(format!("{LOG_DIR}/{name}"));
            }
        }
        Ok(listing)
    }
}

/// Whether there is a marker of this format. Changes nothing.
pub(crate) fn has_marker<D: Disk>(disk: &D) -> Result<bool, OpenError> {
    let bytes = match open_if_there(disk, FORMAT)? {
        Some(file) => read_file(&file).doing("read", FORMAT)?,
        None => Vec::new(),
    };
    let version = std::str::from_utf8(&bytes).ok().and_then(|text| {
        text.trim_end()
            .strip_prefix(FORMAT_PREFIX)?
            .parse::<u32>()
            .ok()
    });
    if let Some(version) = version.filter(|&version| version > FORMAT_VERSION) {
        let file = FORMAT.to_owned();
        return Err(OpenError::NewerVersion { file, version });
    }
    // If it is unreadable: the frames say their version, too.
    Ok(version == Some(FORMAT_VERSION))
}

/// Makes the folders, and the marker of the format unless there is one.
pub(crate) fn prepare<D: Disk>(disk: &D, has_marker: bool) -> Result<(), Failure> {
    for dir in [LOG_DIR, SET_ASIDE_DIR] {
        disk.make_dir(dir).doing("make", dir)?;
    }
    if !has_marker {
        let marker = format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n");
        match replace(disk, "", FORMAT, marker.as_bytes()) {
            Err(failure) if failure.is_full() => {}
            result => result?,
        }
    }
    disk.sync_dir("").doing("sync", "the data folder")
}

/// Puts a whole file in the place of `name` in `dir`, durably, or does nothing.
pub(crate) fn replace<D: Disk>(
    disk: &D,
    dir: &str,
    name: &str,
    bytes: &[u8],
) -> Result<(), Failure> {
    let path = if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    };
    let draft = format!("{path}{DRAFT}");
    let file = create_anew(disk, &draft).doing("make", &draft)?;
    let result = file
        .write_at(bytes, 0)
        .and_then(|()| file.sync())
        .doing("write", &draft);
    if let Err(failure) = result {
        if failure.is_full() {
            disk.remove(&draft).doing("remove", &draft)?;
        }
        return Err(failure);
    }
    disk.rename(&draft, &path).doing("rename", &draft)?;
    disk.sync_dir(dir).doing("sync the folder of", &path)
}

/// Makes an empty file, in the place of one that may be there.
pub(crate) fn create_anew<D: Disk>(disk: &D, path: &str) -> io::Result<D::File> {
    match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.create(path)
        }
        result => result,
    }
}

/// Opens a file that may not be there.
pub(crate) fn open_if_there<D: Disk>(disk: &D, path: &str) -> Result<Option<D::File>, Failure> {
    match disk.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("open", path),
    }
}

/// Takes a name away if it is there.
pub(crate) fn remove_if_there<D: Disk>(disk: &D, path: &str) -> Result<(), Failure> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.doing("remove", path),
    }
}

/// All of a small file.
pub(crate) fn read_file<F: DiskFile>(file: &F) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_all(file, &mut bytes)?;
    Ok(bytes)
}

/// Fills `buffer` with all of a segment. A few sectors that cannot be read even when they are asked for again
/// read as zeros: they are damage like any other. Returns whether there are any.
/// # Errors
/// More than a few cannot be read: not the bytes are damaged, but the disk or the way to it.
pub(crate) fn read_all<F: DiskFile>(file: &F, buffer: &mut Vec<u8>) -> io::Result<bool> {
    // No frame begins beyond what 32 bits can tell.
    let len = file.len()?.min(u32::MAX.into());
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if buffer.capacity() < len {
        // The system has zeros at hand.
        *buffer = vec![0; len];
    }
    buffer.resize(len, 0);
    if let Ok(read) = file.read_at(buffer, 0) {
        buffer.truncate(read);
        return Ok(false);
    }
    let mut unreadable = 0;
    for (index, chunk) in buffer.chunks_mut(CHUNK_BYTES).enumerate() {
        let offset = (index * CHUNK_BYTES) as u64;
        match file
            .read_at(chunk, offset)
            .or_else(|_| file.read_at(chunk, offset))
        {
            // What was in the buffer before is not in the file.
            Ok(read) => chunk.iter_mut().skip(read).for_each(|byte| *byte = 0),
            Err(error) => {
                unreadable += 1;
                if unreadable > UNREADABLE_MAX || len <= CHUNK_BYTES {
                    return Err(error);
                }
                chunk.fill(0);
            }
        }
    }
    Ok(unreadable > 0)
}

fn number(name: &str, before: &str, after: &str) -> Option<u32> {
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_number);
    number.filter(|number| *number <= NUMBER_MAX)
}

/// Of a segment in the folder of the log.
pub(crate) fn segment_name(id: u32) -> String {
    format!("{id:010}.seg")
}

fn hint_name(id: u32) -> String {
    format!("{id:010}.hint")
}

/// Of a segment in the data folder.
pub(crate) fn segment_path(id: u32) -> String {
    format!("{LOG_DIR}/{}", segment_name(id))
}

/// Of a hint in the data folder.
pub(crate) fn hint_path(id: u32) -> String {
    format!("{LOG_DIR}/{}", hint_name(id))
}

/// Of a spare in the data folder.
pub(crate) fn spare_path(number: u32) -> String {
    format!("{LOG_DIR}/spare-{number}")
}

/// Where segments, hints and spares are.
pub(crate) const LOG_DIR: &str = "log";
/// Where damaged files are kept.
pub(crate) const SET_ASIDE_DIR: &str = "set-aside";
/// Ending of files that do not count yet.
pub(crate) const DRAFT: &str = ".draft";
/// The marker of the format: one line of text.
pub(crate) const FORMAT: &str = "FORMAT";
const FORMAT_PREFIX: &str = "vencejo store ";
const FORMAT_VERSION: u32 = 1;
/// No file has a larger number, so that there is always a next one.
const NUMBER_MAX: u32 = u32::MAX / 2;
const CHUNK_BYTES: usize = 4096;
/// Chunks of a segment that may be unreadable.
const UNREADABLE_MAX: usize = 64;
