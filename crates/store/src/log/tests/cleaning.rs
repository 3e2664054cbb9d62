//! The log does not grow with what does not count, and a copy of it can be made meanwhile.
//!
//! Owns: tests of [`crate::Log::clean`], of spares and of backups. Does not own: what counts (see the index).
//! Start reading at [`ten_turns_of_a_backlog_do_not_make_the_log_grow`]. Invariant: cleaning changes nothing
//! that a start finds.

use std::path::Path;

use super::{Model, Work, group, load_all, open, options, records, session_put};
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::disk::{Disk, RealDisk};
use crate::{Cleaned, EncodedGroup, Log, Record, SessionId, UnixMillis};

fn new_disk() -> FaultDisk {
    FaultDisk::new(1, FaultPlan::default())
}

fn enqueue(sessions: &[u64], seq: u64) -> Record {
    super::enqueue(sessions, seq, 90)
}

fn dequeue(session: u64, first_seq: u64, count: u64) -> Record {
    Record::Dequeue {
        session: SessionId(session),
        first_seq,
        count,
    }
}

fn put(session: u64) -> Record {
    Record::SessionPut(Box::new(session_put(session)))
}

/// Writes, syncs and cleans as the writer thread does; returns what was cleaned.
fn write<D: Disk>(log: &mut Log<D>, group: &EncodedGroup) -> Cleaned {
    log.write(group).unwrap();
    let budget = log.clean_budget();
    let cleaned = log.clean(budget).unwrap();
    assert!(
        cleaned.moved_bytes <= budget + 200,
        "{cleaned:?} of {budget}"
    );
    log.sync().unwrap();
    log.tick(UnixMillis(0)).unwrap();
    cleaned
}

#[test]
fn ten_turns_of_a_backlog_do_not_make_the_log_grow() {
    let disk = new_disk();
    let (mut log, _) = open(&disk);
    let mut model = Model::default();
    let long = [put(1), put(2), enqueue(&[2], 1), enqueue(&[2], 2)];
    long.iter().for_each(|record| model.apply(record));
    write(&mut log, &records(long.to_vec()));
    let (mut accepted, mut moved) = (0, 0);
    let backlog = 200;
    for seq in 1..=10 * backlog {
        let mut batch = vec![enqueue(&[1], seq)];
        if seq > backlog {
            batch.push(dequeue(1, seq - backlog, 1));
        }
        batch.iter().for_each(|record| model.apply(record));
        let group = records(batch);
        accepted += group.bytes().len() as u64;
        moved += write(&mut log, &group).moved_bytes;
        let status = log.status();
        let limit = (status.live_bytes * 5 / 2).max(4 * 4096);
        assert!(
            status.bytes <= limit,
            "{} of {limit} at {seq}",
            status.bytes
        );
    }
    assert!(moved <= accepted, "{moved} moved for {accepted}");
    write(&mut log, &records(vec![dequeue(1, 1, 10 * backlog)]));
    model.apply(&dequeue(1, 1, 10 * backlog));
    while log.clean(1 << 20).unwrap().has_more {}
    log.sync().unwrap();
    assert!(log.status().segments < 5, "{:?}", log.status());
    assert!(disk.used_bytes() <= 7 * 4096 + 8192);
    let (log, recovered) = open(&disk.crash(1));
    assert_eq!(Model::read(&log, &recovered), model);
}

#[test]
fn what_counts_for_long_is_moved_again_and_again() {
    let disk = new_disk();
    let (mut log, _) = open(&disk);
    let mut model = Model::default();
    let mut work = Work::new(3);
    for _ in 0..40 {
        write(&mut log, &group(&work.batch(&mut model)));
    }
    let begin = vec![put(1000), put(1001)];
    begin.iter().for_each(|record| model.apply(record));
    write(&mut log, &records(begin));
    for seq in 1..1500 {
        // For two, of whom one takes it at once.
        let batch = vec![enqueue(&[1000, 1001], seq), dequeue(1000, seq, 1)];
        batch.iter().for_each(|record| model.apply(record));
        write(&mut log, &records(batch));
        if seq > 20 {
            model.apply(&dequeue(1001, seq - 20, 1));
            write(&mut log, &records(vec![dequeue(1001, seq - 20, 1)]));
        }
        if seq % 300 == 0 {
            let (again, recovered) = open(&disk.crash(seq));
            assert_eq!(Model::read(&again, &recovered), model, "at {seq}");
        }
    }
    assert!(log.status().bytes <= 5 * 4096, "{:?}", log.status());
}

#[test]
fn frames_of_one_small_record_each_are_cleaned_to_an_end() {
    for sessions in 1..=200 {
        let disk = new_disk();
        let (mut log, _) = open(&disk);
        for _ in 0..4 {
            for session in 1..=sessions {
                write(&mut log, &records(vec![put(session)]));
            }
        }
        let (mut moved, live) = (0, log.status().live_bytes);
        let mut has_more = true;
        while has_more {
            let cleaned = log.clean(1 << 10).unwrap();
            log.sync().unwrap();
            has_more = cleaned.has_more;
            moved += cleaned.moved_bytes;
            assert!(moved <= 3 * live, "{moved} moved of {live} at {sessions}");
        }
    }
}

#[test]
fn files_are_used_again() {
    let disk = new_disk();
    let (mut log, _) = open(&disk);
    write(&mut log, &records(vec![put(1)]));
    for seq in 1..300 {
        write(
            &mut log,
            &records(vec![enqueue(&[1], seq), dequeue(1, seq, 1)]),
        );
    }
    let used = disk.used_bytes();
    disk.set_plan(FaultPlan {
        // No more files than there are: a new one would not fit.
        quota_bytes: Some(used + 4000),
        ..FaultPlan::default()
    });
    for seq in 300..3000 {
        write(
            &mut log,
            &records(vec![enqueue(&[1], seq), dequeue(1, seq, 1)]),
        );
    }
    assert!(disk.used_bytes() <= used);
    let (log, recovered) = open(&disk.crash(1));
    assert_eq!(recovered.report.damage, []);
    assert_eq!(log.status().counts.entries, 0);
}

#[test]
fn an_empty_backlog_gives_its_space_back_without_any_more_work() {
    let disk = new_disk();
    let (mut log, _) = open(&disk);
    write(&mut log, &records(vec![put(1)]));
    for seq in 1..500 {
        write(&mut log, &records(vec![enqueue(&[1], seq)]));
    }
    assert!(log.status().segments > 10);
    log.write(&records(vec![dequeue(1, 1, 500)])).unwrap();
    log.sync().unwrap();
    for _ in 0..5 {
        log.clean(64 * 1024).unwrap();
        log.sync().unwrap();
        log.tick(UnixMillis(0)).unwrap();
    }
    assert!(log.status().segments < 5, "{:?}", log.status());
    assert!(log.status().spares <= options().spares);
    assert_eq!(
        disk.list("log").unwrap().len(),
        log.status().segments + log.status().spares
    );
}

#[test]
fn a_file_that_is_being_read_is_not_used_for_another_segment() {
    let disk = new_disk();
    let (mut log, _) = open(&disk);
    write(&mut log, &records(vec![put(1), put(2), enqueue(&[1], 1)]));
    let file = log.writer.files().file(1).unwrap();
    let mut before = vec![0; 180];
    crate::disk::DiskFile::read_at(&file.file, &mut before, 0).unwrap();
    for seq in 2..200 {
        write(
            &mut log,
            &records(vec![enqueue(&[2], seq), dequeue(2, seq, 1)]),
        );
    }
    assert!(log.writer.files().file(1).is_none(), "it is given up");
    let mut after = vec![0; 180];
    crate::disk::DiskFile::read_at(&file.file, &mut after, 0).unwrap();
    assert_eq!(before, after);
    let segments = log.status().segments;
    drop(file);
    log.tick(UnixMillis(0)).unwrap();
    assert_eq!(log.status().segments, segments - 1);
    assert_eq!(
        load_all(&log, SessionId(1)).len(),
        1,
        "the message was moved"
    );
}

#[test]
fn damage_that_comes_while_the_log_is_used_is_told_and_does_not_stop_the_cleaner() {
    let disk = new_disk();
    let (mut log, _) = open(&disk);
    write(&mut log, &records(vec![put(1), put(2)]));
    for seq in 1..20 {
        write(&mut log, &records(vec![enqueue(&[1], seq)]));
    }
    assert!(disk.flip("log/0000000001.seg", 600, 0x80));
    for seq in 1..300 {
        write(
            &mut log,
            &records(vec![enqueue(&[2], seq), dequeue(2, seq, 1)]),
        );
    }
    let damage = log.status().damage;
    assert_eq!((damage.len(), damage[0].segment), (1, 1), "{damage:?}");
    assert_eq!(disk.list("alarms").unwrap().len(), 1);
    assert!(disk.contents("set-aside/0000000001.seg.read").is_some());
    let queue = load_all(&log, SessionId(1));
    assert!(queue.len() >= 17 && queue.len() < 19, "{:?}", queue.keys());
    let (log, recovered) = open(&disk.crash(1));
    assert_eq!(recovered.report.damage, []);
    assert_eq!(load_all(&log, SessionId(1)), queue);
}

/// Links the files that a backup is made of, as the server does.
fn link(from: &Path, to: &Path, names: &[String]) {
    std::fs::create_dir_all(to.join("log")).unwrap();
    for name in names {
        std::fs::hard_link(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_copy_by_links_is_the_log_as_it_was_however_much_is_written_later() {
    let root = std::env::temp_dir().join(format!("vencejo-backup-{}", std::process::id()));
    if root.exists() {
        std::fs::remove_dir_all(&root).unwrap();
    }
    let disk = RealDisk::open(&root.join("data")).unwrap();
    let (mut log, _) = open(&disk);
    let mut model = Model::default();
    let mut work = Work::new(9);
    for _ in 0..60 {
        write(&mut log, &group(&work.batch(&mut model)));
    }
    let then = model.clone();
    let names = log.seal_for_backup().unwrap();
    for _ in 0..60 {
        write(&mut log, &group(&work.batch(&mut model)));
    }
    link(disk.root(), &root.join("copy"), &names);
    log.release_backup().unwrap();
    for _ in 0..300 {
        write(&mut log, &group(&work.batch(&mut model)));
    }
    let (copy, recovered) = open(&RealDisk::open(&root.join("copy")).unwrap());
    assert_eq!(
        (recovered.report.torn_tail, recovered.report.damage),
        (None, vec![])
    );
    let recovered = crate::Recovered {
        report: crate::RecoveryReport::default(),
        ..recovered
    };
    assert_eq!(Model::read(&copy, &recovered), then);
    drop(log);
    let (log, recovered) = open(&disk);
    assert_eq!(Model::read(&log, &recovered), model);
    std::fs::remove_dir_all(root).unwrap();
}
