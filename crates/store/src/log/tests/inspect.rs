//! What an operator's commands find and write.
//!
//! Owns: tests of `check`, `stat`, `salvage`. Does not own: what is damage (see `files`).
//! Start reading at [`worked`]. Invariant: what is found is what a start finds.

use super::{Model, Work, group, open, options};
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::{Alarms, Log, RecoveryMode, SalvageError, check, salvage, stat};

/// A log of some segments, and what it adds up to.
fn worked(seed: u64) -> (FaultDisk, Model) {
    let disk = FaultDisk::new(seed, FaultPlan::default());
    let mut model = Model::default();
    let mut work = Work::new(seed);
    let (mut log, _) = open(&disk);
    for _ in 0..120 {
        log.write(&group(&work.batch(&mut model))).unwrap();
    }
    log.sync().unwrap();
    (disk, model)
}

fn all_of(disk: &FaultDisk) -> Vec<(String, Option<Vec<u8>>)> {
    let names = disk.file_names().into_iter();
    names
        .map(|name| (name.clone(), disk.contents(&name)))
        .collect()
}

/// Changes a byte in the middle of the second segment.
fn damage(disk: &FaultDisk) {
    assert!(disk.flip("log/0000000002.seg", 2000, 0x40));
}

#[test]
fn looking_changes_nothing_and_finds_what_a_start_finds() {
    for seed in 0..10 {
        let (disk, _) = worked(seed);
        if seed % 2 == 1 {
            damage(&disk);
        }
        let before = all_of(&disk);
        let checked = check(&disk).unwrap();
        let counted = stat(&disk).unwrap();
        assert_eq!(all_of(&disk), before, "seed {seed}");
        assert_eq!(checked.is_sound(), seed % 2 == 0);
        assert!(checked.has_marker);
        let (log, recovered) = open(&disk);
        let report = recovered.report;
        assert_eq!(
            (checked.segments, checked.frames, checked.records),
            (report.segments, report.frames, report.records)
        );
        assert_eq!(checked.damage.len(), report.damage.len());
        let status = log.status();
        assert_eq!(counted.live_bytes, status.live_bytes);
        assert_eq!(counted.counts, status.counts);
        assert_eq!(counted.durable_lsn, status.durable_lsn);
        let sum = |of: fn(&crate::SegmentStat) -> u64| counted.segments.iter().map(of).sum::<u64>();
        assert_eq!(sum(|of| of.frames), checked.frames);
        assert_eq!(sum(|of| of.live_bytes), status.live_bytes);
        let kinds = counted.kinds.values();
        assert_eq!(kinds.map(|of| of.count).sum::<u64>(), checked.records);
    }
}

#[test]
fn what_is_salvaged_is_what_a_start_would_serve_and_is_sound() {
    for seed in 0..10 {
        let (disk, model) = worked(seed);
        let is_damaged = seed % 2 == 1;
        if is_damaged {
            damage(&disk);
        }
        let before = all_of(&disk);
        let to = FaultDisk::new(seed, FaultPlan::default());
        let salvaged = salvage(&disk, &to, options()).unwrap();
        assert_eq!(all_of(&disk), before, "seed {seed}");
        assert_eq!(salvaged.damage.is_empty(), !is_damaged);
        // It is durable, and another start finds no fault with it.
        let to = to.crash(seed);
        let mut strict = options();
        strict.recovery = RecoveryMode::Strict;
        let (log, recovered) = Log::open(to.clone(), strict).unwrap();
        let found = Model::read(&log, &recovered);
        let (served, report) = open(&disk);
        assert_eq!(found, Model::read(&served, &report), "seed {seed}");
        assert!(is_damaged || found == model, "seed {seed}");
        let alarms = Alarms::open(to).unwrap();
        assert_eq!(alarms.list().len(), usize::from(is_damaged));
    }
}

#[test]
fn alarms_go_along_with_what_is_salvaged() {
    let (disk, _) = worked(1);
    damage(&disk);
    drop(open(&disk));
    let checked = check(&disk).unwrap();
    assert!(checked.is_sound(), "the damage is told and marked");
    assert_eq!((checked.known_holes, checked.alarms.len()), (1, 1));
    assert_eq!(stat(&disk).unwrap().set_aside, ["0000000002.seg"]);
    let to = FaultDisk::new(1, FaultPlan::default());
    salvage(&disk, &to, options()).unwrap();
    let alarms = Alarms::open(to).unwrap();
    assert_eq!(alarms.list()[0].text, checked.alarms[0].text);
}

#[test]
fn a_folder_that_is_not_empty_is_not_written_to() {
    let (disk, _) = worked(1);
    let before = all_of(&disk);
    let refused = salvage(&disk, &disk, options());
    assert!(matches!(refused, Err(SalvageError::NotEmpty)));
    assert_eq!(all_of(&disk), before);
}

#[test]
fn a_disk_that_fills_up_is_told_and_not_called_salvaged() {
    let (disk, _) = worked(1);
    let to = FaultDisk::new(
        1,
        FaultPlan {
            quota_bytes: Some(9000),
            ..FaultPlan::default()
        },
    );
    let failed = salvage(&disk, &to, options());
    assert!(matches!(failed, Err(SalvageError::Write(_))));
}

#[test]
fn an_empty_folder_is_no_store_and_stays_empty() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let checked = check(&disk).unwrap();
    assert!(!checked.has_marker && checked.segments == 0);
    assert_eq!(stat(&disk).unwrap().last_lsn, 0);
    assert_eq!(disk.calls().writes + disk.calls().syncs, 0);
    let (_, recovered) = Log::open(disk, options()).unwrap();
    assert_eq!(recovered.report.damage, []);
}
