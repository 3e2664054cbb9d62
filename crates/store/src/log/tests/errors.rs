//! Disks that fail and disks that are full.
//!
//! Owns: tests of what an error costs. Does not own: crashes without errors (see `records`).
//! Start reading at [`one_error_of_the_disk_ends_the_log_and_loses_nothing_durable`].
//! Invariant: what a start has served is durable, whatever failed before.

use super::{Model, Work, enqueue, group, open, options, records, session_put};
use crate::disk::Disk;
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::{Log, OpenError, Record, SessionId, UnixMillis};

/// Works until something fails; returns all states since the last that is durable, that one first.
fn work_on(log: &mut Log<FaultDisk>, work: &mut Work, model: &mut Model) -> Vec<Model> {
    let mut states = vec![model.clone()];
    for _ in 0..80 {
        let written = log.write(&group(&work.batch(model)));
        states.push(model.clone());
        let done = written.and_then(|()| match work.below(4) {
            0 | 1 => log.sync().map(|()| states = vec![model.clone()]),
            2 => log.clean(log.clean_budget()).map(|_| ()),
            _ => log.tick(UnixMillis(work.below(9000))),
        });
        if done.is_err() {
            break;
        }
    }
    states
}

/// A sync of a folder that failed may have left a file with two names; what is written to it later would be found
/// under both.
#[test]
fn names_that_a_failed_sync_has_left_do_no_harm_later() {
    for seed in 150..230 {
        let disk = FaultDisk::new(seed, FaultPlan::default());
        let mut work = Work::new(seed);
        let mut model = Model::default();
        let (mut log, _) = open(&disk);
        let sync_error_at = Some(1 + work.below(60));
        disk.set_plan(FaultPlan {
            sync_error_at,
            ..FaultPlan::default()
        });
        work_on(&mut log, &mut work, &mut model);
        drop(log);
        let disk = disk.kill();
        let (mut log, recovered) = open(&disk);
        let mut model = Model::read(&log, &recovered);
        let states = work_on(&mut log, &mut work, &mut model);
        drop(log);
        let (log, recovered) = open(&disk.crash(seed));
        assert_eq!(recovered.report.damage, [], "seed {seed}");
        let served = Model::read(&log, &recovered);
        assert!(states.contains(&served), "seed {seed}");
    }
}

#[test]
fn one_error_of_the_disk_ends_the_log_and_loses_nothing_durable() {
    for seed in 0..80 {
        let disk = FaultDisk::new(seed, FaultPlan::default());
        let mut work = Work::new(seed);
        let mut model = Model::default();
        let (mut log, _) = open(&disk);
        let place = 1 + work.below(60);
        let at = Some(place);
        let mut plan = FaultPlan::default();
        match seed % 4 {
            0 => plan.write_error_at = at,
            1 => plan.sync_error_at = at,
            2 => plan.name_error_at = Some(place / 4 + 1),
            _ => plan.quota_bytes = Some(disk.used_bytes() + place * 600),
        }
        plan.errors_last = seed % 8 < 4;
        disk.set_plan(plan);
        let states = work_on(&mut log, &mut work, &mut model);
        drop(log);
        let disk = if seed % 3 == 0 {
            disk.crash(seed)
        } else {
            disk.kill()
        };
        let (log, recovered) = open(&disk);
        let served = Model::read(&log, &recovered);
        assert!(states.contains(&served), "seed {seed}");
        assert_eq!(recovered.report.damage, [], "seed {seed}");
        for again in 0..5 {
            let (log, recovered) = open(&disk.crash(again));
            assert_eq!(Model::read(&log, &recovered), served, "seed {seed} {again}");
        }
    }
}

#[test]
fn an_error_while_it_opens_is_told_and_the_next_start_finds_all() {
    let disk = FaultDisk::new(5, FaultPlan::default());
    let mut work = Work::new(5);
    let mut model = Model::default();
    let (mut log, _) = open(&disk);
    for _ in 0..60 {
        log.write(&group(&work.batch(&mut model))).unwrap();
    }
    log.sync().unwrap();
    for seed in 0..160 {
        let disk = if seed % 2 == 0 {
            disk.kill()
        } else {
            disk.crash(seed)
        };
        let at = Some(1 + seed / 4);
        let mut plan = FaultPlan::default();
        match seed % 4 {
            0 => plan.write_error_at = at,
            1 => plan.sync_error_at = at,
            2 => plan.name_error_at = at,
            _ => plan.read_error_at = at,
        }
        plan.errors_last = seed % 8 > 3;
        disk.set_plan(plan);
        let first = Log::open(disk.clone(), options());
        if let Err(error) = &first {
            assert!(
                matches!(error, OpenError::Disk { .. }),
                "seed {seed}: {error}"
            );
        }
        drop(first);
        let (log, recovered) = open(&disk.kill());
        assert_eq!(Model::read(&log, &recovered), model, "seed {seed}");
        assert_eq!(recovered.report.damage, [], "seed {seed}");
    }
}

#[test]
fn a_full_disk_does_not_keep_the_log_from_opening() {
    for seed in 0..60 {
        let disk = FaultDisk::new(seed, FaultPlan::default());
        let mut work = Work::new(seed);
        let mut model = Model::default();
        let (mut log, _) = open(&disk);
        for _ in 0..30 + work.below(30) {
            log.write(&group(&work.batch(&mut model))).unwrap();
        }
        log.sync().unwrap();
        // A byte that changed in the last frames is told from a torn one by the checkpoint only.
        let is_damaged = seed % 3 == 0;
        let disk = if is_damaged {
            disk.kill()
        } else {
            disk.crash(seed)
        };
        if seed % 4 == 1 && !is_damaged {
            for name in ["CHECKPOINT", "FORMAT", "log/spare-1", "log/spare-2"] {
                drop(disk.remove(name));
            }
        }
        if is_damaged {
            assert!(disk.flip("log/0000000002.seg", 100 + seed * 10, 1));
        }
        let plan = FaultPlan {
            quota_bytes: Some(disk.used_bytes()),
            ..FaultPlan::default()
        };
        disk.set_plan(plan);
        let (mut log, recovered) = open(&disk);
        let served = Model::read(&log, &recovered);
        assert!(is_damaged || served == model, "seed {seed}");
        assert_eq!(
            recovered.report.damage.is_empty(),
            !is_damaged,
            "seed {seed}"
        );
        log.tick(UnixMillis(0)).unwrap();
        assert_eq!(log.is_low(), log.status().spares < 2, "seed {seed}");
        drop(log);
        // Again without space, then with some: only then can the damaged file be kept, and the hole be marked.
        disk.set_plan(plan);
        let (log, recovered) = open(&disk);
        assert_eq!(Model::read(&log, &recovered), served, "seed {seed}");
        drop(log);
        disk.set_plan(FaultPlan::default());
        let (_, recovered) = open(&disk);
        assert_eq!(
            recovered.report.damage.len(),
            usize::from(is_damaged),
            "seed {seed}"
        );
        let (log, recovered) = open(&disk.crash(seed));
        assert_eq!(recovered.report.damage, [], "seed {seed}");
        assert_eq!(Model::read(&log, &recovered), served, "seed {seed}");
    }
}

#[test]
fn what_recovery_cannot_write_on_a_full_disk_is_written_before_anything_else() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let (mut log, _) = open(&disk);
    // Sessions that end with the process, in a segment that is nearly full.
    for id in 1..=60 {
        let mut put = session_put(id);
        put.expiry_seconds = 0;
        put.client_id = "x".repeat(50).into();
        if log.status().bytes + 120 <= 4096 {
            log.write(&records(vec![Record::SessionPut(Box::new(put))]))
                .unwrap();
        }
    }
    log.sync().unwrap();
    drop(log);
    disk.set_plan(FaultPlan {
        quota_bytes: Some(disk.used_bytes()),
        ..FaultPlan::default()
    });
    let (mut log, recovered) = open(&disk);
    assert!(recovered.report.sessions_ended > 20);
    assert!(!log.owed.is_empty(), "there was no space for it");
    disk.set_plan(FaultPlan::default());
    log.write(&records(vec![Record::SessionPut(Box::new(session_put(
        99,
    )))]))
    .unwrap();
    log.sync().unwrap();
    let (_, recovered) = open(&disk.crash(1));
    assert_eq!(
        (recovered.sessions.len(), recovered.report.sessions_ended),
        (1, 0)
    );
}

/// Nothing but a spare that could be made ended it, and none was missing.
#[test]
fn a_disk_that_was_full_is_not_low_any_more_when_segments_were_given_back() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let (mut log, _) = open(&disk);
    log.write(&records(vec![Record::SessionPut(Box::new(session_put(1)))]))
        .unwrap();
    for seq in 1..=9 {
        log.write(&records(vec![enqueue(&[1], seq, 1700)])).unwrap();
    }
    disk.set_plan(FaultPlan {
        quota_bytes: Some(disk.used_bytes()),
        ..FaultPlan::default()
    });
    log.tick(UnixMillis(0)).unwrap();
    assert!(log.is_low(), "there is no space for a spare");
    log.write(&records(vec![Record::Dequeue {
        session: SessionId(1),
        first_seq: 1,
        count: 9,
    }]))
    .unwrap();
    log.clean(u64::MAX).unwrap();
    log.sync().unwrap();
    assert_eq!(log.status().spares, 2);
    disk.set_plan(FaultPlan::default());
    log.tick(UnixMillis(2000)).unwrap();
    assert!(!log.is_low());
}
