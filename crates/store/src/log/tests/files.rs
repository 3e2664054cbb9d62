//! Segments and frames with bodies that mean nothing: crashes, damage, rotation.
//!
//! Owns: tests of `start`, `walk`, `repair`, `writer`. Does not own: records. Start reading at [`Bodies`].
//! Invariant: what was durable is there after any crash, in order, up to one point.

use super::super::frame::{FrameHeader, HEADER_BYTES, seal};
use super::super::options::{Failure, LogOptions, OpenError};
use super::super::report::RecoveryReport;
use super::super::scan::FrameAt;
use super::super::start::start;
use super::super::walk::Visitor;
use super::super::writer::Writer;
use super::super::{DamageKind, Log, RecoveryMode};
use super::session_put;
use crate::disk::Disk;
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::{Batch, EncodedGroup, Record};

/// All bodies that count, each 8 bytes of a number and some more that depend on it.
#[derive(Debug, Default)]
struct Bodies(Vec<u64>);

impl Visitor for Bodies {
    fn on_frame(&mut self, _segment: u32, _frame: &FrameAt, body: &[u8]) -> Option<u64> {
        if let Some(number) = body.first_chunk() {
            let number = u64::from_le_bytes(*number);
            assert_eq!(body, body_of(number), "number {number}");
            self.0.push(number);
        }
        Some(1)
    }

    fn begins_again(&mut self) -> bool {
        false
    }
}

fn body_of(number: u64) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    let more = number % 7 * 60;
    body.extend((0..more).map(|i| (number * 31 + i).to_le_bytes()[0]));
    body
}

fn options() -> LogOptions {
    LogOptions {
        disk_low_bytes: 0,
        ..LogOptions::with_segments_of(4096)
    }
}

type Opened = (Writer<FaultDisk>, RecoveryReport, Vec<u64>);

fn try_open(disk: &FaultDisk, options: &LogOptions) -> Result<Opened, OpenError> {
    let mut bodies = Bodies::default();
    let (writer, report) = start(disk, options, None, &mut bodies)?;
    Ok((writer, report, bodies.0))
}

fn open(disk: &FaultDisk) -> Opened {
    try_open(disk, &options()).unwrap()
}

fn append(writer: &mut Writer<FaultDisk>, number: u64) -> Result<(), Failure> {
    let mut buffer = vec![0; HEADER_BYTES];
    buffer.extend(body_of(number));
    writer.append(&mut buffer).map(|_| ())
}

fn new_disk() -> FaultDisk {
    FaultDisk::new(1, FaultPlan::default())
}

/// A log of the numbers `1..=count`, each durable.
fn log_of(count: u64) -> FaultDisk {
    let disk = new_disk();
    let (mut writer, ..) = open(&disk);
    for number in 1..=count {
        append(&mut writer, number).unwrap();
        writer.sync().unwrap();
    }
    disk
}

fn segments(disk: &FaultDisk) -> Vec<String> {
    let mut names = disk.list("log").unwrap();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

#[test]
fn a_log_comes_back_and_goes_on_where_it_ended() {
    let disk = log_of(50);
    assert!(segments(&disk).len() > 2, "it has several segments");
    let (mut writer, report, numbers) = open(&disk);
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    assert_eq!((report.torn_tail, report.damage), (None, vec![]));
    append(&mut writer, 51).unwrap();
    drop(writer);
    let (_, _, numbers) = open(&disk);
    assert_eq!(numbers, (1..=51).collect::<Vec<_>>());
}

#[test]
fn what_was_durable_survives_a_loss_of_power_at_every_call() {
    for seed in 0..600_u64 {
        let disk = FaultDisk::new(seed, FaultPlan::default());
        let (mut writer, ..) = open(&disk);
        disk.set_plan(FaultPlan {
            stop_at_call: Some(seed % 173 + 1),
            ..FaultPlan::default()
        });
        let (mut durable, mut written) = (0, 0);
        let result: Result<(), Failure> = (1..=60).try_for_each(|number| {
            written = number;
            append(&mut writer, number)?;
            if number % 3 != seed % 3 {
                writer.sync()?;
                durable = number;
            }
            Ok(())
        });
        assert!(result.is_err() || !disk.is_stopped());
        let mut after = if seed % 4 == 0 {
            disk.kill()
        } else {
            disk.crash(seed)
        };
        // The start is broken off, too, several times.
        for step in 0..seed % 5 {
            after.set_plan(FaultPlan {
                stop_at_call: Some(1 + (seed * 7 + step * 13) % 40),
                ..FaultPlan::default()
            });
            drop(try_open(&after, &options()));
            after = if step % 2 == 0 {
                after.crash(seed + step)
            } else {
                after.kill()
            };
        }
        let (mut writer, report, numbers) = open(&after);
        let last = numbers.len() as u64;
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "seed {seed}");
        assert!(
            last >= durable && last <= written,
            "seed {seed}: {last} of {durable}..{written}"
        );
        assert_eq!(report.damage, [], "seed {seed}");
        // It goes on, and what is there now is durable.
        append(&mut writer, last + 1).unwrap();
        writer.sync().unwrap();
        let (_, report, numbers) = open(&after.crash(seed));
        assert_eq!(numbers, (1..=last + 1).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(
            (report.damage, report.torn_tail),
            (vec![], None),
            "seed {seed}"
        );
    }
}

#[test]
fn every_flipped_byte_of_a_durable_frame_is_told_and_the_rest_is_served() {
    let whole = log_of(20);
    for name in segments(&whole) {
        let path = format!("log/{name}");
        let bytes = whole.contents(&path).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        for at in (0..=end).step_by(5) {
            let disk = whole.kill();
            assert!(disk.flip(&path, at as u64, 0x20));
            let strict = LogOptions {
                recovery: RecoveryMode::Strict,
                ..options()
            };
            let refused = try_open(&disk.kill(), &strict).map(|_| ()).unwrap_err();
            assert!(
                matches!(refused, OpenError::Damaged(_)),
                "byte {at}: {refused}"
            );
            let (mut writer, report, numbers) = open(&disk);
            assert_eq!(numbers.len(), 19, "byte {at} of {name}: {numbers:?}");
            assert_eq!(report.damage.len(), 1, "byte {at} of {name}");
            let copy = report.damage[0].set_aside.clone().unwrap();
            assert_eq!(disk.contents(&copy).unwrap().len(), bytes.len());
            assert_eq!(disk.list("alarms").unwrap().len(), 1);
            append(&mut writer, 21).unwrap();
            writer.sync().unwrap();
            let (_, report, again) = open(&disk.crash(3));
            assert_eq!(again, [numbers, vec![21]].concat(), "byte {at} of {name}");
            assert_eq!(
                (report.damage, report.known_holes),
                (vec![], 1),
                "byte {at}"
            );
        }
    }
}

/// The number of the log in the only segment's first frame: whole frames behind it and the checkpoint tell what
/// it was. It was taken for that of another log if it was larger, and the whole log for a torn tail.
#[test]
fn damage_to_the_number_of_the_log_is_damage_and_not_another_log() {
    let options = LogOptions::with_segments_of(65_536);
    let disk = new_disk();
    let (mut writer, ..) = try_open(&disk, &options).unwrap();
    for number in 1..=5 {
        append(&mut writer, number).unwrap();
        writer.sync().unwrap();
    }
    for (has_checkpoint, at, bit) in (0..64).map(|i| (i & 1 == 0, 40 + i / 16, i / 2 % 8)) {
        let disk = disk.kill();
        if !has_checkpoint {
            disk.remove(super::super::checkpoint::NAME).unwrap();
        }
        assert!(disk.flip("log/0000000001.seg", at, 1 << bit));
        let (_, report, numbers) = try_open(&disk, &options).unwrap();
        let place = format!("byte {at} bit {bit} checkpoint {has_checkpoint}");
        assert_eq!(numbers, [2, 3, 4, 5], "{place}");
        assert_eq!(report.damage.len(), 1, "{place}");
    }
}

#[test]
fn a_log_cut_at_any_byte_is_told_and_goes_on() {
    let whole = log_of(20);
    for name in segments(&whole) {
        let path = format!("log/{name}");
        let len = whole.contents(&path).unwrap().len();
        for at in (0..len).step_by(41) {
            let disk = whole.kill();
            let bytes = disk.contents(&path).unwrap();
            disk.plant(&path, &bytes[..at]);
            let lost = bytes[at..].iter().any(|&byte| byte != 0);
            let (mut writer, report, numbers) = open(&disk);
            assert_eq!(lost, numbers.len() < 20, "byte {at} of {name}");
            assert_eq!(lost, !report.damage.is_empty(), "byte {at} of {name}");
            append(&mut writer, 21).unwrap();
            writer.sync().unwrap();
            let (_, report, again) = open(&disk.crash(3));
            assert_eq!(again, [numbers, vec![21]].concat(), "byte {at} of {name}");
            assert_eq!(report.damage, [], "byte {at} of {name}");
        }
    }
}

#[test]
fn a_missing_segment_is_told_once_and_the_others_are_served() {
    let whole = log_of(50);
    let names = segments(&whole);
    for name in &names {
        let disk = whole.kill();
        disk.remove(&format!("log/{name}")).unwrap();
        let (mut writer, report, numbers) = open(&disk);
        assert!(numbers.len() < 50, "{name}");
        assert_eq!(report.damage.len(), 1, "{name}: {:?}", report.damage);
        append(&mut writer, 51).unwrap();
        writer.sync().unwrap();
        let (_, report, again) = open(&disk.crash(5));
        assert_eq!(again, [numbers, vec![51]].concat(), "{name}");
        assert_eq!(report.damage, [], "{name}");
    }
}

#[test]
fn files_that_are_no_part_of_the_log_are_kept_aside() {
    let disk = log_of(20);
    disk.plant("log/0000000000.seg", b"something else");
    disk.plant("log/0000000777.seg", &[7; 5000]);
    disk.plant("log/notes.txt", b"notes");
    let other = log_of(30);
    let (mut writer, report, numbers) = open(&disk);
    assert_eq!(numbers.len(), 20);
    assert!(
        report
            .damage
            .iter()
            .all(|damage| damage.kind == DamageKind::Foreign)
    );
    assert_eq!(report.damage.len(), 2);
    assert_eq!(
        disk.contents("set-aside/0000000777.seg").unwrap(),
        [7; 5000]
    );
    assert!(disk.contents("log/notes.txt").is_some());
    append(&mut writer, 21).unwrap();
    writer.sync().unwrap();
    drop(other);
}

#[test]
fn a_torn_end_is_cut_and_told() {
    let disk = log_of(20);
    let (mut writer, ..) = open(&disk);
    append(&mut writer, 27).unwrap();
    drop(writer);
    let last = format!("log/{}", segments(&disk).pop().unwrap());
    let bytes = disk.contents(&last).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    assert!(disk.flip(&last, end as u64, 1));
    let (_, report, numbers) = open(&disk);
    assert_eq!(numbers.len(), 20);
    let torn = report.torn_tail.unwrap();
    assert_eq!(last, format!("log/{:010}.seg", torn.segment));
    assert_eq!(report.damage, []);
}

/// The mark of what is missing once took the place of the first frame written after it.
#[test]
fn a_mark_that_a_full_disk_does_not_take_keeps_its_place() {
    let disk = log_of(20);
    let last = format!("log/{}", segments(&disk).pop().unwrap());
    let bytes = disk.contents(&last).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    assert!(disk.flip(&last, end as u64, 1));
    let quota_bytes = Some(disk.used_bytes());
    disk.set_plan(FaultPlan {
        quota_bytes,
        ..FaultPlan::default()
    });
    let (mut writer, report, numbers) = open(&disk);
    assert_eq!((report.damage.len(), numbers.len()), (1, 19));
    assert_eq!(report.damage[0].set_aside, None, "there is no space");
    append(&mut writer, 21).unwrap();
    writer.sync().unwrap();
    disk.set_plan(FaultPlan::default());
    for damage in [1, 0] {
        let (_, report, numbers) = open(&disk);
        assert_eq!(report.damage.len(), damage);
        assert_eq!(numbers.last(), Some(&21));
        assert_eq!(numbers.len(), 20);
    }
}

/// It was told again at every start, and its first records counted.
#[test]
fn a_frame_that_holds_what_is_no_record_is_told_once_and_counts_for_nothing() {
    let disk = new_disk();
    let (mut writer, ..) = open(&disk);
    let body = |sessions: [u64; 2]| {
        let put = |id| Record::SessionPut(Box::new(session_put(id)));
        let mut group = EncodedGroup::new();
        group.push(&Batch {
            records: sessions.map(put).to_vec(),
            ..Batch::default()
        });
        [&[0; HEADER_BYTES], group.bytes()].concat()
    };
    writer.append(&mut body([1, 2])).unwrap();
    let mut cut = body([3, 4]);
    cut.pop();
    writer.append(&mut cut).unwrap();
    writer.sync().unwrap();
    for kinds in [vec![DamageKind::Undecodable], vec![]] {
        let (_, recovered) = Log::open(disk.clone(), options()).unwrap();
        let damage = recovered.report.damage.iter();
        assert_eq!(damage.map(|of| of.kind).collect::<Vec<_>>(), kinds);
        assert_eq!(recovered.sessions.len(), 2);
    }
}

/// A number far ahead left no next one to give.
#[test]
fn numbers_that_no_log_comes_to_are_damage() {
    let header = FrameHeader {
        lsn: u64::MAX,
        ..FrameHeader::default()
    };
    let mut bytes = vec![0; HEADER_BYTES];
    seal(&mut bytes, header);
    assert_eq!(FrameHeader::parse(&bytes), None);
    let disk = log_of(3);
    disk.plant("log/4294967295.seg", b"");
    let (mut writer, report, numbers) = open(&disk);
    assert_eq!((report.damage.len(), numbers.len()), (0, 3));
    writer.rotate().unwrap();
    append(&mut writer, 4).unwrap();
}

#[test]
fn a_later_version_is_refused_and_nothing_is_changed() {
    let marked = log_of(3);
    marked.plant("FORMAT", b"vencejo store 2\n");
    let framed = log_of(3);
    let mut bytes = framed.contents("log/0000000001.seg").unwrap();
    // The version of the first frame, and the checksum it then has.
    bytes[34] = 2;
    let header = FrameHeader::parse(&bytes).unwrap();
    let end = usize::try_from(header.frame_bytes()).unwrap();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..end]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    framed.plant("log/0000000001.seg", &bytes);
    for (disk, name) in [(marked, "FORMAT"), (framed, "log/0000000001.seg")] {
        disk.set_plan(FaultPlan::default());
        let Err(OpenError::NewerVersion { file, version }) = try_open(&disk, &options()) else {
            panic!("{name} was not refused");
        };
        assert_eq!((file.as_str(), version), (name, 2));
        assert_eq!((disk.calls().writes, disk.calls().syncs), (0, 0));
    }
}

#[test]
fn a_folder_of_noise_opens() {
    for seed in 0..200_u8 {
        let many = usize::from(seed);
        let disk = log_of(12);
        for name in segments(&disk) {
            let path = format!("log/{name}");
            let mut bytes = disk.contents(&path).unwrap();
            match seed % 4 {
                0 => bytes.clear(),
                1 => bytes
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, byte)| *byte ^= (i * many).to_le_bytes()[0]),
                2 => bytes.truncate(many * 17),
                _ => bytes.extend(0..seed),
            }
            disk.plant(&path, &bytes);
        }
        for name in ["CHECKPOINT", "FORMAT"] {
            if seed % 3 > 0 {
                disk.plant(name, &vec![seed; many * 50]);
            }
        }
        let (mut writer, _, numbers) = open(&disk);
        append(&mut writer, 100).unwrap();
        writer.sync().unwrap();
        let (_, report, again) = open(&disk.crash(1));
        assert_eq!(again, [numbers, vec![100]].concat(), "seed {seed}");
        assert_eq!(report.damage, [], "seed {seed}");
    }
}
