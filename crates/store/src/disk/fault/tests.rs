//! Each promise of the fault model, and that what it allows does happen.
//!
//! Owns: tests of [`FaultDisk`]. Does not own: the model (see [`super`]). Start reading at [`outcomes`].
//! Invariant: a test looks at many seeds, so that it sees what only some of them do.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SEEDS: u64 = 400;

fn disk() -> FaultDisk {
    FaultDisk::new(1, FaultPlan::default())
}

fn planned(plan: FaultPlan) -> FaultDisk {
    FaultDisk::new(1, plan)
}

/// A durable file `a` with `bytes`, open.
fn with_file(disk: &FaultDisk, bytes: &[u8]) -> FaultFile {
    disk.plant("a", bytes);
    disk.open("a").unwrap()
}

/// What is in the file `name` after a loss of power, over all seeds.
fn outcomes(disk: &FaultDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..SEEDS)
        .map(|seed| disk.crash(seed).contents(name))
        .collect()
}

fn name_outcomes(disk: &FaultDisk) -> BTreeSet<Vec<String>> {
    (0..SEEDS)
        .map(|seed| disk.crash(seed).file_names())
        .collect()
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err()?.raw_os_error()
}

#[test]
fn synced_bytes_survive_every_crash() {
    let disk = disk();
    let file = with_file(&disk, b"");
    file.write_at(&[7; 3000], 100).unwrap();
    file.sync().unwrap();
    let expected = [vec![0; 100], vec![7; 3000]].concat();
    assert_eq!(outcomes(&disk, "a"), [Some(expected)].into());
}

#[test]
fn unsynced_bytes_are_kept_lost_cut_or_torn_by_sectors_and_harm_no_others() {
    let disk = disk();
    let file = with_file(&disk, &[1; 3000]);
    file.write_at(&[2; 1500], 300).unwrap();
    let mut shapes = BTreeSet::new();
    for seed in 0..SEEDS {
        let found = disk.crash(seed).contents("a").unwrap();
        assert_eq!(found.len(), 3000, "seed {seed}");
        assert!(
            found[..300]
                .iter()
                .chain(&found[1800..])
                .all(|byte| *byte == 1),
            "seed {seed}"
        );
        let written = &found[300..1800];
        let prefix = written.iter().take_while(|byte| **byte == 2).count();
        let is_cut = written[prefix..].iter().all(|byte| *byte == 1);
        // The borders of sectors are at 512, 1024 and 1536.
        let pieces = [
            &found[300..512],
            &found[512..1024],
            &found[1024..1536],
            &found[1536..1800],
        ];
        let is_by_sectors = pieces
            .iter()
            .all(|piece| piece.iter().all(|byte| *byte == piece[0]));
        assert!(is_cut || is_by_sectors, "seed {seed}");
        shapes.insert(match prefix {
            0 if is_cut => "lost",
            1500 => "kept",
            _ if !is_cut => "torn by sectors",
            _ => "cut",
        });
    }
    assert_eq!(shapes.len(), 4, "{shapes:?}");
}

#[test]
fn a_later_write_may_survive_without_an_earlier_one() {
    let disk = disk();
    let file = with_file(&disk, &[0; 2000]);
    file.write_at(&[1], 0).unwrap();
    file.write_at(&[1], 1024).unwrap();
    let found = outcomes(&disk, "a");
    let pairs: BTreeSet<_> = found
        .iter()
        .flatten()
        .map(|bytes| (bytes[0], bytes[1024]))
        .collect();
    assert_eq!(pairs, [(0, 0), (0, 1), (1, 0), (1, 1)].into());
}

#[test]
fn a_file_may_get_its_length_without_its_bytes() {
    let disk = disk();
    let file = with_file(&disk, &[1; 10]);
    file.write_at(&[2; 10], 10).unwrap();
    let found = outcomes(&disk, "a");
    assert!(found.contains(&Some([[1; 10], [0; 10]].concat())));
    assert!(found.contains(&Some(vec![1; 10])));
    assert!(
        found
            .iter()
            .flatten()
            .all(|bytes| bytes.starts_with(&[1; 10]))
    );
}

#[test]
fn a_length_is_durable_after_a_sync_only() {
    let disk = disk();
    let file = with_file(&disk, &[1; 10]);
    file.set_len(4).unwrap();
    let both = [Some(vec![1; 4]), Some(vec![1; 10])].into();
    assert_eq!(outcomes(&disk, "a"), both);
    file.allocate(2).unwrap();
    assert_eq!(file.len().unwrap(), 4, "allocating never cuts");
    file.allocate(6).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, "a"), [Some(vec![1, 1, 1, 1, 0, 0])].into());
}

#[test]
fn a_new_file_may_vanish_with_its_synced_bytes_until_its_folder_is_synced() {
    let disk = disk();
    let file = disk.create("a").unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    let both = [None, Some(b"x".to_vec())].into();
    assert_eq!(outcomes(&disk, "a"), both);
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, "a"), [Some(b"x".to_vec())].into());
}

#[test]
fn a_new_folder_may_vanish_with_all_that_is_in_it_until_the_one_above_is_synced() {
    let disk = disk();
    assert!(disk.create("log/a").is_err(), "there is no such folder yet");
    disk.make_dir("log").unwrap();
    disk.make_dir("log").unwrap();
    disk.create("log/a").unwrap();
    disk.sync_dir("log").unwrap();
    let both = [vec![], vec!["log/a".to_owned()]].into();
    assert_eq!(name_outcomes(&disk), both);
    disk.sync_dir("").unwrap();
    assert_eq!(name_outcomes(&disk), [vec!["log/a".to_owned()]].into());
    assert_eq!(disk.list("").unwrap(), ["log"]);
    assert_eq!(disk.list("log").unwrap(), ["a"]);
}

#[test]
fn a_rename_happens_or_not_and_replaces_as_a_whole() {
    let disk = disk();
    disk.plant("a", b"new");
    disk.plant("b", b"old");
    disk.rename("a", "b").unwrap();
    let before = vec!["a".to_owned(), "b".to_owned()];
    let after = vec!["b".to_owned()];
    assert_eq!(name_outcomes(&disk), [before, after.clone()].into());
    let either = [Some(b"new".to_vec()), Some(b"old".to_vec())].into();
    assert_eq!(outcomes(&disk, "b"), either);
    disk.sync_dir("").unwrap();
    assert_eq!(name_outcomes(&disk), [after].into());
    assert_eq!(outcomes(&disk, "b"), [Some(b"new".to_vec())].into());
}

#[test]
fn a_rename_of_a_new_file_may_survive_its_creation() {
    let disk = disk();
    disk.create("a").unwrap();
    disk.rename("a", "b").unwrap();
    let expected = [vec![], vec!["a".to_owned()], vec!["b".to_owned()]].into();
    assert_eq!(name_outcomes(&disk), expected);
}

#[test]
fn a_rename_into_another_folder_needs_both_synced_and_never_loses_the_file() {
    let moved = || {
        let disk = disk();
        disk.plant("log/x", b"");
        disk.plant("aside/y", b"x");
        disk.rename("log/x", "aside/x").unwrap();
        disk
    };
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let old = names(&["aside/y", "log/x"]);
    let both = names(&["aside/x", "aside/y", "log/x"]);
    let new = names(&["aside/x", "aside/y"]);
    let all = [old, both.clone(), new.clone()].into();
    assert_eq!(name_outcomes(&moved()), all);
    let disk = moved();
    disk.sync_dir("aside").unwrap();
    assert_eq!(name_outcomes(&disk), [both, new.clone()].into());
    disk.sync_dir("log").unwrap();
    assert_eq!(name_outcomes(&disk), [new.clone()].into());
    let disk = moved();
    disk.sync_dir("log").unwrap();
    assert_eq!(name_outcomes(&disk), [new].into());
}

#[test]
fn a_rename_from_another_folder_leaves_earlier_ones_in_force() {
    let disk = disk();
    disk.plant("b", b"1");
    disk.plant("log/b", b"2");
    disk.rename("b", "a").unwrap();
    disk.rename("log/b", "a").unwrap();
    disk.sync_dir("log").unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(name_outcomes(&disk), [vec!["a".to_owned()]].into());
    assert_eq!(outcomes(&disk, "a"), [Some(b"2".to_vec())].into());
}

#[test]
fn a_removed_file_may_be_there_again_until_its_folder_is_synced() {
    let disk = disk();
    let file = with_file(&disk, b"x");
    disk.remove("a").unwrap();
    let both = [None, Some(b"x".to_vec())].into();
    assert_eq!(outcomes(&disk, "a"), both);
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, "a"), [None].into());
    let mut byte = [0];
    assert_eq!(
        file.read_at(&mut byte, 0).unwrap(),
        1,
        "an open file stays open"
    );
}

#[test]
fn a_process_that_ends_loses_nothing_and_makes_nothing_durable() {
    let disk = disk();
    let file = with_file(&disk, b"1");
    file.write_at(b"2", 0).unwrap();
    disk.create("b").unwrap();
    let next = disk.kill();
    assert_eq!(next.contents("a"), Some(b"2".to_vec()));
    assert_eq!(next.file_names(), ["a", "b"]);
    assert!(outcomes(&next, "a").contains(&Some(b"1".to_vec())));
    assert!(name_outcomes(&next).contains(&vec!["a".to_owned()]));
    // What the next process syncs is durable, whoever wrote it.
    next.open("a").unwrap().sync().unwrap();
    assert_eq!(outcomes(&next, "a"), [Some(b"2".to_vec())].into());
}

#[test]
fn a_disk_that_stops_in_a_call_does_a_part_of_it_and_nothing_after() {
    let mut lengths = BTreeSet::new();
    let mut has_b = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = FaultDisk::new(seed, FaultPlan::default());
        let file = with_file(&disk, b"");
        let stop_at_call = Some(2);
        disk.set_plan(FaultPlan {
            stop_at_call,
            ..FaultPlan::default()
        });
        file.write_at(&[1; 4], 0).unwrap();
        assert!(!disk.is_stopped());
        assert!(file.write_at(&[1; 4], 4).is_err());
        assert!(disk.is_stopped());
        assert!(file.sync().is_err());
        assert!(disk.create("b").is_err());
        assert_eq!(disk.file_names(), ["a"]);
        lengths.insert(disk.kill().contents("a").unwrap().len());

        let disk = FaultDisk::new(
            seed,
            FaultPlan {
                stop_at_call: Some(1),
                ..FaultPlan::default()
            },
        );
        assert!(disk.create("b").is_err());
        has_b.insert(disk.kill().file_names().len());
    }
    assert_eq!(lengths, (4..=8).collect());
    assert_eq!(has_b, [0, 1].into());
}

#[test]
fn the_chosen_call_fails_and_the_others_do_not() {
    let disk = planned(FaultPlan {
        write_error_at: Some(2),
        read_error_at: Some(1),
        name_error_at: Some(3),
        ..FaultPlan::default()
    });
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 8], 0).unwrap();
    assert_eq!(errno(file.write_at(&[2; 8], 0)), Some(5));
    file.write_at(&[3; 8], 0).unwrap();
    assert_eq!(errno(file.len()), Some(5));
    assert_eq!(file.len().unwrap(), 8);
    disk.open("a").unwrap();
    assert_eq!(errno(disk.rename("a", "b")), Some(5));
    let calls = disk.calls();
    assert_eq!(
        (calls.all, calls.writes, calls.reads, calls.names),
        (8, 3, 2, 3)
    );
    assert_eq!(calls.written_bytes, 16);
}

#[test]
fn errors_last_if_the_plan_says_so() {
    let disk = planned(FaultPlan {
        sync_error_at: Some(2),
        errors_last: true,
        ..FaultPlan::default()
    });
    disk.sync_dir("").unwrap();
    assert_eq!(errno(disk.sync_dir("")), Some(5));
    assert_eq!(errno(disk.sync_dir("")), Some(5));
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = FaultDisk::new(seed, FaultPlan::default());
        let file = with_file(&disk, &[1; 8]);
        file.write_at(&[2; 8], 0).unwrap();
        let sync_error_at = Some(1);
        disk.set_plan(FaultPlan {
            sync_error_at,
            ..FaultPlan::default()
        });
        assert_eq!(errno(file.sync()), Some(5));
        assert_eq!(
            disk.contents("a"),
            Some(vec![2; 8]),
            "it still reads as written"
        );
        file.sync().unwrap();
        found.insert(disk.crash(seed).contents("a").unwrap());
    }
    assert!(
        found.contains(&vec![1; 8]) && found.contains(&vec![2; 8]),
        "{found:?}"
    );
}

#[test]
fn what_a_failed_sync_of_a_folder_lost_no_later_sync_brings_back() {
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let sync_error_at = Some(1);
        let disk = FaultDisk::new(
            seed,
            FaultPlan {
                sync_error_at,
                ..FaultPlan::default()
            },
        );
        disk.create("a").unwrap();
        assert_eq!(errno(disk.sync_dir("")), Some(5));
        disk.sync_dir("").unwrap();
        assert_eq!(disk.file_names(), ["a"]);
        found.insert(disk.crash(seed).file_names().len());
    }
    assert_eq!(found, [0, 1].into());
}

#[test]
fn a_full_disk_writes_what_fits_and_is_free_again_when_a_file_goes() {
    let disk = planned(FaultPlan {
        quota_bytes: Some(10),
        ..FaultPlan::default()
    });
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 8], 0).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 2);
    assert_eq!(errno(file.write_at(&[2; 8], 6)), Some(28));
    assert_eq!(disk.contents("a").unwrap(), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2]);
    file.write_at(&[3; 10], 0)
        .expect("what is there can be written again");
    let other = disk.create("b").unwrap();
    assert_eq!(errno(other.allocate(1)), Some(28));
    disk.remove("a").unwrap();
    other.allocate(10).unwrap();
    assert_eq!((disk.used_bytes(), disk.free_bytes().unwrap()), (10, 0));
}

#[test]
fn a_flipped_byte_stays_flipped() {
    let disk = disk();
    disk.plant("a", &[1, 2]);
    assert!(disk.flip("a", 1, 0x80));
    assert!(!disk.flip("a", 2, 1), "there is no such byte");
    assert_eq!(outcomes(&disk, "a"), [Some(vec![1, 0x82])].into());
}

#[test]
fn a_sick_block_fails_until_all_of_it_is_written_or_cut() {
    let disk = disk();
    let file = with_file(&disk, &[1; 10_000]);
    assert!(disk.spoil("a", 5000));
    assert!(!disk.spoil("a", 10_000) && !disk.spoil("b", 0));
    for (disk, name) in [
        (disk.kill(), "a"),
        (disk.crash(1), "b"),
        (disk.clone(), "b"),
    ] {
        drop(disk.rename("a", name));
        let file = disk.open(name).unwrap();
        let mut bytes = [0; 4096];
        assert_eq!(errno(file.read_at(&mut bytes, 1)), Some(5));
        assert_eq!(errno(file.read_at(&mut bytes[..1], 8191)), Some(5));
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 4096);
        assert_eq!(file.read_at(&mut bytes, 8192).unwrap(), 1808);
        assert_eq!(errno(file.write_at(&[2; 8], 4096)), Some(5));
        assert_eq!(errno(file.write_at(&[2; 200], 4000)), Some(5));
        assert_eq!(errno(file.set_len(5000)), Some(5));
        assert_eq!(disk.contents(name).unwrap(), [1; 10_000]);
    }
    let cut = disk.kill();
    cut.open("b").unwrap().set_len(4096).unwrap();
    cut.open("b").unwrap().set_len(8192).unwrap();
    file.write_at(&[2; 4100], 4095).unwrap();
    for (disk, byte) in [(cut, 0), (disk, 2)] {
        let mut bytes = [7];
        disk.open("b").unwrap().read_at(&mut bytes, 5000).unwrap();
        assert_eq!(bytes, [byte]);
    }
}

#[test]
fn names_that_are_wrong_are_refused() {
    let disk = disk();
    disk.plant("log/a", b"");
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(
        kind(disk.create("log/a").map(drop)),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(kind(disk.open("b").map(drop)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("b")), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.rename("log/a", "no/a")), io::ErrorKind::NotFound);
    assert_eq!(
        kind(disk.rename("log/a", "log")),
        io::ErrorKind::IsADirectory
    );
    assert_eq!(kind(disk.list("no").map(drop)), io::ErrorKind::NotFound);
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize),
    Write(usize, u64, u8),
    SetLen(usize, u64),
    Rename(usize, usize),
    Remove(usize),
    Sync(usize),
    SyncDir(usize),
    Kill,
}

const NAMES: [&str; 5] = ["a", "b", "log/a", "log/b", "aside/c"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..5_usize).prop_map(Op::Create),
        4 => (0..5_usize, 0..2000_u64, any::<u8>()).prop_map(|(at, offset, byte)| Op::Write(at, offset, byte)),
        1 => (0..5_usize, 0..2000_u64).prop_map(|(at, len)| Op::SetLen(at, len)),
        2 => (0..5_usize, 0..5_usize).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => (0..5_usize).prop_map(Op::Remove),
        2 => (0..5_usize).prop_map(Op::Sync),
        1 => (0..3_usize).prop_map(Op::SyncDir),
        1 => Just(Op::Kill),
    ]
}

fn perform(disk: &mut FaultDisk, op: &Op) {
    let open = |at: usize| disk.open(NAMES[at]);
    let done = match *op {
        Op::Create(at) => disk.create(NAMES[at]).map(drop),
        Op::Write(at, offset, byte) => {
            open(at).and_then(|file| file.write_at(&[byte; 700], offset))
        }
        Op::SetLen(at, len) => open(at).and_then(|file| file.set_len(len)),
        Op::Rename(from, to) => disk.rename(NAMES[from], NAMES[to]),
        Op::Remove(at) => disk.remove(NAMES[at]),
        Op::Sync(at) => open(at).and_then(|file| file.sync()),
        Op::SyncDir(at) => disk.sync_dir(["", "log", "aside"][at]),
        Op::Kill => {
            *disk = disk.kill();
            Ok(())
        }
    };
    if let Err(error) = done {
        let is_expected = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
        );
        assert!(is_expected, "{op:?}: {error}");
    }
}

fn all_of(disk: &FaultDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.file_names().into_iter();
    names
        .map(|name| (name.clone(), disk.contents(&name).unwrap()))
        .collect()
}

proptest! {
    /// Whatever was done before, once everything is synced every crash finds all of it; and the same
    /// seed finds the same, a crash of a crash included.
    #[test]
    fn once_all_is_synced_every_crash_finds_all(
        ops in prop::collection::vec(op(), 1..40),
        seed in any::<u64>(),
    ) {
        let mut disk = FaultDisk::new(seed, FaultPlan::default());
        disk.make_dir("log").unwrap();
        disk.make_dir("aside").unwrap();
        for op in &ops {
            perform(&mut disk, op);
        }
        let found = disk.crash(seed);
        prop_assert_eq!(all_of(&found), all_of(&disk.crash(seed)));
        prop_assert_eq!(all_of(&found), all_of(&found.crash(seed)), "all that is found is durable");
        for name in disk.file_names() {
            disk.open(&name).unwrap().sync().unwrap();
        }
        for folder in ["aside", "log", ""] {
            disk.sync_dir(folder).unwrap();
        }
        prop_assert_eq!(all_of(&disk), all_of(&disk.crash(seed)));
        prop_assert_eq!(all_of(&disk), all_of(&disk.kill()));
    }
}
