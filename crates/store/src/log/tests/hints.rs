//! Starts that do not read all of the log.
//!
//! Owns: tests of hints. Does not own: starts without (see `records`). Start reading at
//! [`a_start_by_hints_finds_the_same`]. Invariant: a hint changes how long a start takes, and nothing else.

use super::{Model, Work, enqueue, group, load_all, options, records, session_put};
use crate::disk::Disk;
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::{
    Load, Log, LogOptions, OpenError, Record, Recovered, RecoveryMode, SessionId, UnixMillis,
};

fn by_hints() -> LogOptions {
    LogOptions {
        hints_above_bytes: 0,
        segment_bytes: 16 * 1024,
        ..options()
    }
}

fn open(disk: &FaultDisk) -> (Log<FaultDisk>, Recovered) {
    Log::open(disk.clone(), by_hints()).unwrap()
}

fn work(seed: u64) -> Work {
    Work {
        payload_bytes_max: 5000,
        ..Work::new(seed)
    }
}

/// A log of large messages, and what is in it.
fn log_of(seed: u64, batches: u64) -> (FaultDisk, Model) {
    let disk = FaultDisk::new(seed, FaultPlan::default());
    let mut model = Model::default();
    let mut work = work(seed);
    let (mut log, _) = open(&disk);
    for _ in 0..batches {
        log.write(&group(&work.batch(&mut model))).unwrap();
        log.sync().unwrap();
    }
    (disk, model)
}

fn hints(disk: &FaultDisk) -> Vec<String> {
    let mut names = disk.list("log").unwrap();
    names.retain(|name| name.ends_with(".hint"));
    names.sort();
    names
        .into_iter()
        .map(|name| format!("log/{name}"))
        .collect()
}

#[test]
fn a_start_by_hints_finds_the_same() {
    for seed in 0..10 {
        let (disk, model) = log_of(seed, 60);
        assert!(hints(&disk).len() > 3, "seed {seed}");
        let (log, recovered) = open(&disk.kill());
        assert!(recovered.report.segments_by_hint > 3, "seed {seed}");
        assert_eq!(Model::read(&log, &recovered), model, "seed {seed}");
        let (log, whole) = Log::open(disk.kill(), options()).unwrap();
        assert_eq!(whole.report.segments_by_hint, 0);
        assert_eq!(whole.report.records, recovered.report.records);
        assert_eq!(Model::read(&log, &whole), model, "seed {seed}");
    }
}

#[test]
fn a_hint_that_lies_is_not_believed() {
    let (disk, model) = log_of(4, 40);
    let (other, _) = log_of(5, 60);
    let names = hints(&disk);
    for (index, name) in names.iter().enumerate() {
        let bytes = disk.contents(name).unwrap();
        let mut lies: Vec<Vec<u8>> = vec![
            Vec::new(),
            bytes[..bytes.len() - 1].to_vec(),
            vec![7; 2000],
            disk.contents(&names[(index + 1) % names.len()]).unwrap(),
            other.contents(name).unwrap_or_default(),
        ];
        lies.extend((0..bytes.len()).step_by(53).map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            bytes
        }));
        for lie in lies {
            let disk = disk.kill();
            disk.plant(name, &lie);
            let (log, recovered) = open(&disk);
            assert_eq!(recovered.report.damage, [], "{name}");
            assert_eq!(Model::read(&log, &recovered), model, "{name}");
        }
    }
}

#[test]
fn a_hint_of_a_segment_that_went_on_is_not_believed() {
    // The next segment has begun, and its first frame is lost: the one before it is written on.
    let (disk, _) = log_of(6, 40);
    let last_hint = hints(&disk).pop().unwrap();
    let last = last_hint.replace("hint", "seg");
    let mut later = disk.list("log").unwrap();
    later.retain(|name| name.ends_with(".seg") && format!("log/{name}") > last);
    for name in later {
        disk.remove(&format!("log/{name}")).unwrap();
    }
    disk.remove("CHECKPOINT").unwrap();
    let stale = disk.contents(&last_hint).unwrap();
    let (mut log, recovered) = open(&disk);
    assert_eq!(recovered.report.damage, []);
    let mut model = Model::read(&log, &recovered);
    let mut work = work(77);
    work.next_session = 1000;
    for _ in 0..30 {
        log.write(&group(&work.batch(&mut model))).unwrap();
    }
    log.sync().unwrap();
    for is_back in [false, true] {
        let disk = disk.crash(1);
        if is_back {
            disk.plant(&last_hint, &stale);
        }
        let (log, recovered) = open(&disk);
        assert_eq!(recovered.report.damage, []);
        assert_eq!(Model::read(&log, &recovered), model, "{is_back}");
    }
}

/// Flips a bit of a segment that has a hint, at many places.
fn flipped(whole: &FaultDisk) -> impl Iterator<Item = (u64, FaultDisk)> {
    (0..14_000).step_by(397).map(|at| {
        let disk = whole.kill();
        let name = hints(&disk).last().unwrap().replace("hint", "seg");
        assert!(disk.flip(&name, at, 0x10));
        (at, disk)
    })
}

#[test]
fn a_byte_that_changed_where_nobody_looked_is_told_when_it_is_wanted() {
    let (whole, model) = log_of(8, 60);
    let mut told = 0;
    for (at, disk) in flipped(&whole) {
        let (mut log, recovered) = open(&disk);
        // Where it was told at once, what was finished may have come again.
        let is_told = !recovered.report.damage.is_empty();
        for (id, session) in &model.sessions {
            for (seq, loaded) in load_all(&log, *id) {
                let is_as_written = session.queue.get(&seq) == Some(&loaded);
                assert!(is_told || is_as_written, "byte {at}");
            }
        }
        log.tick(UnixMillis(0)).unwrap();
        let damage = log.status().damage;
        let is_told = is_told || !damage.is_empty();
        let is_lost = log.status().messages_unreadable > 0;
        assert!(is_told || !is_lost, "byte {at}");
        let has_alarms = disk.list("alarms").is_ok_and(|names| !names.is_empty());
        assert_eq!(is_told, has_alarms, "byte {at}");
        told += u64::from(!damage.is_empty());
        // The next start reads it as a whole.
        let (_, again) = open(&disk.kill());
        assert_eq!(
            !damage.is_empty(),
            !again.report.damage.is_empty(),
            "byte {at}"
        );
    }
    assert!(told > 5, "{told}");
}

/// A log of 20 frames with 10 messages each, of which the first ten are in one that has changed.
fn log_with_a_changed_frame() -> (FaultDisk, Log<FaultDisk>) {
    let disk = FaultDisk::new(0, FaultPlan::default());
    let (mut log, _) = open(&disk);
    let put = Record::SessionPut(Box::new(session_put(1)));
    log.write(&records(vec![put])).unwrap();
    for frame in 0..20 {
        let messages = (1..=10).map(|number| enqueue(&[1], 10 * frame + number, 400));
        log.write(&records(messages.collect())).unwrap();
    }
    log.sync().unwrap();
    drop(log);
    assert!(hints(&disk).len() > 3);
    // In the second frame of the first segment, behind that of the Session.
    assert!(disk.flip("log/0000000001.seg", 1000, 1));
    let disk = disk.kill();
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.report.damage, []);
    (disk, log)
}

fn load_four(log: &Log<FaultDisk>) -> Vec<u64> {
    let loaded = log.reader().load(Load {
        session: SessionId(1),
        from_seq: 1,
        messages_max: 4,
        bytes_max: 10_000,
    });
    let found = loaded.unwrap().messages;
    found.iter().map(|found| found.target.seq).collect()
}

/// An engine takes an answer without messages for the end of the queue.
#[test]
fn what_cannot_be_read_does_not_hide_what_is_behind_it() {
    let (_disk, log) = log_with_a_changed_frame();
    let found = load_four(&log);
    assert_eq!(found, [11, 12], "two of four, behind two that are gone");
    assert_eq!(load_all(&log, SessionId(1)).len(), 190);
}

/// It was read whole for each of its messages, whenever one was asked for.
#[test]
fn a_damaged_frame_is_read_once() {
    let (disk, log) = log_with_a_changed_frame();
    disk.set_plan(FaultPlan::default());
    assert_eq!(load_four(&log), [11, 12]);
    // That frame, the one behind it, and two messages.
    assert_eq!(disk.calls().reads, 4);
    assert_eq!(load_four(&log), [11, 12]);
    assert_eq!(disk.calls().reads, 6);
}

/// A Session, a Subscription, a Will or a retained message is wanted at once.
#[test]
fn a_start_that_wants_what_has_changed_is_one_without_hints() {
    let (whole, _) = log_of(8, 60);
    let (_, unharmed) = open(&whole.kill());
    let mut told = 0;
    for (at, disk) in flipped(&whole) {
        let (_, without) = Log::open(disk.kill(), options()).unwrap();
        let (_, mut recovered) = open(&disk);
        recovered.report.segments_by_hint = 0;
        if recovered.report.damage.is_empty() {
            assert!(recovered.sessions == unharmed.sessions, "byte {at}");
            assert!(recovered.retained == unharmed.retained, "byte {at}");
        } else {
            told += 1;
            assert!(recovered == without, "byte {at}");
        }
    }
    assert!(told > 2, "{told}");
}

#[test]
fn a_strict_start_looks_at_every_byte() {
    let (whole, model) = log_of(8, 60);
    let strict = LogOptions {
        recovery: RecoveryMode::Strict,
        ..by_hints()
    };
    let (log, recovered) = Log::open(whole.kill(), strict.clone()).unwrap();
    assert_eq!(recovered.report.segments_by_hint, 0);
    assert_eq!(Model::read(&log, &recovered), model);
    for (at, disk) in flipped(&whole) {
        let opened = Log::open(disk, strict.clone());
        assert!(matches!(opened, Err(OpenError::Damaged(_))), "byte {at}");
    }
}

#[test]
fn a_full_disk_has_no_hint_and_goes_on() {
    let disk = FaultDisk::new(3, FaultPlan::default());
    let (mut log, _) = open(&disk);
    let (mut model, mut work) = (Model::default(), work(3));
    while log.status().segments < 6 {
        // There is a spare, and no space beside it.
        disk.set_plan(FaultPlan::default());
        log.tick(UnixMillis(0)).unwrap();
        let quota_bytes = (log.status().segments == 3).then(|| disk.used_bytes());
        disk.set_plan(FaultPlan {
            quota_bytes,
            ..FaultPlan::default()
        });
        log.write(&group(&work.batch(&mut model))).unwrap();
        log.sync().unwrap();
    }
    let numbers = [1, 2, 4, 5].map(|number| format!("log/{number:010}.hint"));
    assert_eq!(hints(&disk), numbers);
    let (log, recovered) = open(&disk.kill());
    assert_eq!(recovered.report.segments_by_hint, 4);
    assert_eq!(Model::read(&log, &recovered), model);
}

#[test]
fn random_work_survives_crashes_with_hints() {
    for seed in 0..40 {
        let mut disk = FaultDisk::new(seed, FaultPlan::default());
        let mut work = work(seed);
        let mut model = Model::default();
        for round in 0..4 {
            let (mut log, recovered) = open(&disk);
            assert_eq!(
                Model::read(&log, &recovered),
                model,
                "seed {seed} round {round}"
            );
            disk.set_plan(FaultPlan {
                stop_at_call: Some(20 + work.below(300)),
                ..FaultPlan::default()
            });
            let mut states = vec![model.clone()];
            for _ in 0..60 {
                let written = log.write(&group(&work.batch(&mut model)));
                states.push(model.clone());
                let done = written.and_then(|()| match work.below(3) {
                    0 => log.sync().map(|()| states = vec![model.clone()]),
                    1 => log.clean(log.clean_budget()).map(|_| ()),
                    _ => log.tick(UnixMillis(0)),
                });
                if done.is_err() {
                    break;
                }
            }
            disk = if round % 2 == 0 {
                disk.kill()
            } else {
                disk.crash(seed)
            };
            let (log, recovered) = open(&disk);
            assert_eq!(recovered.report.damage, [], "seed {seed} round {round}");
            model = Model::read(&log, &recovered);
            assert!(states.contains(&model), "seed {seed} round {round}");
        }
    }
}

/// A limit on open files, say, or a block that fails: only the hint is lost by it.
#[test]
fn a_hint_that_cannot_be_written_is_none_and_the_log_goes_on() {
    let begun = || {
        let disk = FaultDisk::new(3, FaultPlan::default());
        let (mut log, _) = open(&disk);
        log.tick(UnixMillis(0)).unwrap();
        let put = Record::SessionPut(Box::new(session_put(1)));
        log.write(&records(vec![put])).unwrap();
        // The first segment is nearly full.
        for seq in 1..=5 {
            log.write(&records(vec![enqueue(&[1], seq, 2900)])).unwrap();
        }
        disk.set_plan(FaultPlan::default());
        (disk, log)
    };
    let goes_on = |mut log: Log<FaultDisk>, disk: &FaultDisk| {
        for seq in 6..=30 {
            log.write(&records(vec![enqueue(&[1], seq, 2900)])).unwrap();
            log.sync().unwrap();
        }
        let (log, recovered) = open(&disk.kill());
        assert_eq!(load_all(&log, SessionId(1)).len(), 30);
        recovered.report.segments_by_hint
    };
    let (disk, mut log) = begun();
    log.write(&records(vec![enqueue(&[1], 6, 2900)])).unwrap();
    let calls = disk.calls();
    let (names, writes) = (calls.names, calls.writes);
    assert_eq!(hints(&disk).len(), 1, "it is what was done last");
    let (disk, log) = begun();
    let by_hint = goes_on(log, &disk);
    for (name_error_at, write_error_at) in [
        (Some(names - 1), None),
        (Some(names), None),
        (None, Some(writes)),
    ] {
        let (disk, log) = begun();
        disk.set_plan(FaultPlan {
            name_error_at,
            write_error_at,
            ..FaultPlan::default()
        });
        let left = goes_on(log, &disk);
        assert!(left == by_hint || left == by_hint - 1, "{left}");
    }
}
