//! The bare disk: how long it takes to write and sync so many bytes.
//!
//! Owns: one file that is written from front to back again and again, the name of its file system.
//! Does not own: what is compared with it. Start reading at [`sync_times`].
//! Invariant: no time is taken before every block of the file was written once.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long each `pwrite` of `bytes` with its `fdatasync` takes, for `lasts`, in a file of `folder`.
pub(crate) fn sync_times(
    folder: &Path,
    bytes: usize,
    lasts: Duration,
) -> Result<Vec<Duration>, String> {
    let path = folder.join("raw");
    let times = write_and_sync(&path, bytes, lasts);
    fs::remove_file(&path).unwrap_or_default();
    times.map_err(|error| format!("{}: {error}", path.display()))
}

fn write_and_sync(path: &Path, bytes: usize, lasts: Duration) -> std::io::Result<Vec<Duration>> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let block = vec![7; bytes.min(FILE_BYTES)];
    let (mut at, mut times) = (0, Vec::new());
    let began = Instant::now();
    while began.elapsed() < lasts {
        if at + block.len() > FILE_BYTES {
            at = 0;
        }
        let before = Instant::now();
        file.write_all_at(&block, at as u64)?;
        file.sync_data()?;
        times.push(before.elapsed());
        at += block.len();
    }
    Ok(times)
}

/// The file system `folder` is in, as the system calls it.
pub(crate) fn file_system(folder: &Path) -> Result<String, String> {
    let folder = folder.canonicalize().map_err(|error| error.to_string())?;
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    let found = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        folder.starts_with(place).then_some((place.len(), kind))
    });
    // Of two mounted over one another the later one is seen.
    let found = found.max_by_key(|(len, _)| *len);
    found
        .map(|(_, kind)| kind.to_owned())
        .ok_or_else(|| format!("{} is in no file system", folder.display()))
}

const FILE_BYTES: usize = 64 << 20;
