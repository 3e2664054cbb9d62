//! Starts against reading the same bytes raw.
//!
//! Owns: row 10. Does not own: how it is printed (see the parent). Start reading at [`restart`].
//! Invariant: what is opened was written by a log, and read once before: both readings are from memory.

use std::fs;
use std::path::Path;
use std::time::Instant;

use vencejo_store::disk::{Disk, DiskFile};
use vencejo_store::{Batch, EncodedGroup, Level, Load, Log, LogOptions, Record, Seq, SessionId};

use super::{
    Bed, ROUNDS, TOPIC, files, median, message, resident, row, session_record, target, timed,
};

/// Row 10, small: a segment with 1 MB of log in it, and what a crash or a bad disk may leave behind that.
pub(super) fn ends(folder: &Path) {
    let ends = ["nothing", "4 KiB of noise", "half a frame", "an older log"];
    for (end, what) in ends.into_iter().enumerate() {
        let mut ratios = Vec::new();
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let mut bed = Bed::new(folder, LogOptions::default());
            while bed.log.status().bytes < 1 << 20 {
                let group = bed.group(16, 1, 64);
                bed.commit(&group);
            }
            let (disk, path) = (bed.disk.clone(), bed.path.clone());
            let at = bed.log.status().bytes;
            drop(bed.log);
            let file = disk.open("log/0000000001.seg").unwrap();
            let mut frames = vec![0; usize::try_from(at).unwrap()];
            file.read_at(&mut frames, 0).unwrap();
            match end {
                0 => {}
                1 => file.write_at(&noise(4096), at).unwrap(),
                2 => file.write_at(&frames[..700], at).unwrap(),
                _ => {
                    // As in a file that is used again: frames of another segment up to its end.
                    let mut at = at;
                    while at + (frames.len() as u64) < 64 << 20 {
                        file.write_at(&older(&frames), at).unwrap();
                        at += frames.len() as u64;
                    }
                }
            }
            let read = timed(|| read_all(&path));
            let started = Instant::now();
            drop(Log::open(disk, LogOptions::default()).unwrap());
            times.push(started.elapsed());
            ratios.push(started.elapsed().as_secs_f64() / read.as_secs_f64());
            fs::remove_dir_all(&path).unwrap();
        }
        let what = format!("1 MB of log, then {what}: to open / to read raw");
        row(10, &what, median(ratios), false, 1.5);
        times.sort_unstable();
        println!("     {:.1} ms", times[times.len() / 2].as_secs_f64() * 1e3);
    }
}

/// Bytes that mean nothing, always the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The same frames as of another segment.
fn older(frames: &[u8]) -> Vec<u8> {
    let mut bytes = frames.to_vec();
    for at in (0..bytes.len() - 48).step_by(8) {
        if bytes[at..].starts_with(b"vlog") {
            bytes[at + 12..at + 16].copy_from_slice(&77_u32.to_le_bytes());
        }
    }
    bytes
}

/// Row 10: time to open against the time to read the bytes.
pub(super) fn restart(folder: &Path, is_big: bool) {
    let (sessions, entries, retained) = if is_big {
        (1_000_000, 10_000_000, 1_000_000)
    } else {
        (50_000, 1_000_000, 50_000)
    };
    let options = LogOptions::default();
    let bed = filled(folder, sessions, entries, retained);
    let (disk, segments) = (bed.disk.clone(), bed.log.status().segments);
    let path = bed.path.clone();
    drop(bed.log);
    let read = timed(|| read_all(&path));
    let before = resident();
    let started = Instant::now();
    let (log, recovered) = Log::open(disk.clone(), options.clone()).unwrap();
    let took = started.elapsed();
    assert_eq!(recovered.sessions.len() as u64, sessions);
    assert_eq!(log.status().counts.entries, entries);
    let with_state = resident() - before;
    drop(recovered);
    let report = format!(
        "start: {sessions} Sessions, {retained} retained, {entries} queued, {segments} segments: {:.2} s, \
         raw read {:.2} s, {} MB with all state, {} MB after",
        took.as_secs_f64(),
        read.as_secs_f64(),
        with_state >> 20,
        (resident() - before) >> 20,
    );
    let loaded = log.reader().load(Load {
        session: SessionId(1),
        from_seq: 1,
        messages_max: 5,
        bytes_max: 1 << 20,
    });
    assert!(!loaded.unwrap().messages.is_empty());
    drop(log);
    row(
        10,
        "time to open / to read the log raw, from memory",
        took.as_secs_f64() / read.as_secs_f64(),
        false,
        1.5,
    );
    println!("     {report}");
    forget(&path);
    let raw = timed(|| read_all(&path)).as_secs_f64();
    forget(&path);
    let started = Instant::now();
    let opened = Log::open(disk, options).unwrap();
    let took = started.elapsed().as_secs_f64();
    drop(opened);
    row(
        10,
        "time to open / to read the log raw, from the disk",
        took / raw,
        false,
        1.5,
    );
    println!("     {took:.2} s, raw read {raw:.2} s");
}

/// Makes the system read the files of the log from the disk next time.
fn forget(folder: &Path) {
    for (path, _) in files(&folder.join("log")) {
        let file = fs::File::open(path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

fn filled(folder: &Path, sessions: u64, entries: u64, retained: u64) -> Bed {
    let mut bed = Bed::new(folder, LogOptions::default());
    let mut group = EncodedGroup::new();
    let mut push = |bed: &mut Bed, record: Record, is_last: bool| {
        let records = vec![record];
        group.push(&Batch {
            seq: Seq(0),
            records,
            level: Level::Written,
        });
        if group.bytes().len() > 1 << 20 || is_last {
            bed.log.write(&group).unwrap();
            group.clear(usize::MAX);
        }
    };
    for session in 1..=sessions {
        push(&mut bed, session_record(session), false);
    }
    for number in 0..retained {
        let topic = format!("site/{}/device/{number}/state", number % 1000);
        let message = message(&topic, 64);
        push(&mut bed, Record::RetainedPut { message }, false);
    }
    for entry in 0..entries {
        let record = Record::Enqueue {
            message: message(TOPIC, 64),
            targets: vec![target(1 + entry % sessions, 1 + entry / sessions)],
            origin: None,
        };
        push(&mut bed, record, entry + 1 == entries);
    }
    bed.log.sync().unwrap();
    bed
}

fn read_all(folder: &Path) {
    let mut bytes = 0;
    for (path, _) in files(&folder.join("log")) {
        bytes += fs::read(path).unwrap().len();
    }
    std::hint::black_box(bytes);
}
