//! The log as a whole: what was written comes back, over both disks, through crashes.
//!
//! Owns: tests of [`Log`]. Does not own: cleaning. Start reading at
//! [`random_work_survives_being_killed_and_a_loss_of_power`].
//! Invariant: what comes back is what the model says of some prefix that holds all that was synced.

use std::path::PathBuf;

use super::{Model, Work, group, open, options, records, session_put};
use crate::disk::RealDisk;
use crate::disk::fault::{FaultDisk, FaultPlan};
use crate::{Load, Log, LogError, MessageRecord, Origin, Record, SessionId, Target};

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("vencejo-log-{name}-{}", std::process::id()));
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    path
}

fn enqueue(seq: u64, origin: Option<Origin>) -> Record {
    Record::Enqueue {
        message: MessageRecord {
            topic: "a".into(),
            properties: "".into(),
            payload: format!("payload {seq}").into(),
            qos: 2,
            retain: false,
            expiry: None,
        },
        targets: vec![Target {
            session: SessionId(1),
            seq,
            qos: 1,
            retain: false,
            subscription_identifiers: None,
        }],
        origin,
    }
}

#[test]
fn what_was_written_to_a_real_disk_comes_back() {
    let root = folder("real");
    let disk = RealDisk::open(&root).unwrap();
    let mut model = Model::default();
    let mut work = Work::new(1);
    for round in 0..5 {
        let (mut log, recovered) = open(&disk);
        assert_eq!(Model::read(&log, &recovered), model, "round {round}");
        assert_eq!(recovered.report.damage, []);
        for _ in 0..100 {
            log.write(&group(&work.batch(&mut model))).unwrap();
        }
        log.sync().unwrap();
        log.tick(crate::UnixMillis(0)).unwrap();
        assert!(log.status().segments > 1);
    }
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn random_work_survives_being_killed_and_a_loss_of_power() {
    for seed in 0..60 {
        let mut disk = FaultDisk::new(seed, FaultPlan::default());
        let mut work = Work::new(seed);
        let mut model = Model::default();
        for round in 0..4 {
            let (mut log, recovered) = open(&disk);
            assert_eq!(
                Model::read(&log, &recovered),
                model,
                "seed {seed} round {round}"
            );
            assert_eq!(recovered.report.damage, [], "seed {seed} round {round}");
            disk.set_plan(FaultPlan {
                stop_at_call: Some(1 + work.below(150)),
                ..FaultPlan::default()
            });
            // After each batch, the newest that is durable first.
            let mut states = vec![model.clone()];
            for _ in 0..60 {
                if log.write(&group(&work.batch(&mut model))).is_err() {
                    states.push(model.clone());
                    break;
                }
                states.push(model.clone());
                let done = match work.below(4) {
                    0 => log.sync().map(|()| states = vec![model.clone()]),
                    1 => log.clean(log.clean_budget()).map(|_| ()),
                    2 => log.tick(crate::UnixMillis(work.below(5000))),
                    _ => Ok(()),
                };
                if done.is_err() {
                    assert!(matches!(log.sync(), Err(LogError::Failed)));
                    break;
                }
            }
            disk = if round % 2 == 0 {
                disk.kill()
            } else {
                disk.crash(seed)
            };
            let (log, recovered) = open(&disk);
            model = Model::read(&log, &recovered);
            assert!(states.contains(&model), "seed {seed} round {round}");
        }
    }
}

#[test]
fn a_message_whose_publisher_was_not_answered_does_not_count() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let (mut log, _) = open(&disk);
    let publisher = SessionId(2);
    let origin = |number| {
        Some(Origin {
            session: publisher,
            number,
        })
    };
    log.write(&records(vec![
        Record::SessionPut(Box::new(session_put(1))),
        Record::SessionPut(Box::new(session_put(2))),
        enqueue(1, origin(1)),
        enqueue(2, origin(2)),
        Record::InboundPut {
            session: publisher,
            packet_id: 9,
            number: 1,
        },
    ]))
    .unwrap();
    log.sync().unwrap();
    let disk = disk.crash(1);
    let (mut log, recovered) = open(&disk);
    assert_eq!(recovered.report.uncommitted_dropped, 1);
    assert_eq!(recovered.sessions[0].queue.unwrap().last_seq, 1);
    // The number is given again, to another message, and does not bring the first one back.
    log.write(&records(vec![Record::InboundPut {
        session: publisher,
        packet_id: 10,
        number: 2,
    }]))
    .unwrap();
    log.sync().unwrap();
    let (_, recovered) = open(&disk.crash(1));
    assert_eq!(recovered.sessions[0].queue.unwrap().last_seq, 1);
    assert_eq!(recovered.report.uncommitted_dropped, 0);
}

#[test]
fn a_session_that_ends_with_its_connection_ends_with_the_process() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let (mut log, _) = open(&disk);
    let mut short = session_put(1);
    short.expiry_seconds = 0;
    log.write(&records(vec![
        Record::SessionPut(Box::new(short)),
        Record::SessionPut(Box::new(session_put(2))),
        enqueue(1, None),
    ]))
    .unwrap();
    log.sync().unwrap();
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.report.sessions_ended, 1);
    assert_eq!(recovered.sessions.len(), 1);
    assert_eq!(recovered.next_session, SessionId(3));
    let (log, recovered) = open(&disk.crash(2));
    assert_eq!(recovered.report.sessions_ended, 0);
    assert_eq!(log.status().counts.messages, 0);
}

#[test]
fn a_batch_that_is_larger_than_a_segment_is_written_and_comes_back() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let (mut log, _) = open(&disk);
    let many = (1..=500).map(|seq| enqueue(seq, None));
    let all = std::iter::once(Record::SessionPut(Box::new(session_put(1)))).chain(many);
    log.write(&records(all.collect())).unwrap();
    log.write(&records(vec![enqueue(501, None)])).unwrap();
    log.sync().unwrap();
    let (log, recovered) = open(&disk.crash(1));
    assert_eq!(recovered.sessions[0].queue.unwrap().count, 501);
    let loaded = log.reader().load(Load {
        session: SessionId(1),
        from_seq: 499,
        messages_max: 10,
        bytes_max: 1,
    });
    let messages = loaded.unwrap().messages;
    assert_eq!(messages.len(), 1, "one at least, whatever its size");
    assert_eq!(messages[0].message.payload, "payload 499");
}

#[test]
fn after_a_failed_sync_nothing_is_written_and_the_next_start_knows_what_is_durable() {
    let disk = FaultDisk::new(3, FaultPlan::default());
    let (mut log, _) = open(&disk);
    log.write(&records(vec![Record::SessionPut(Box::new(session_put(1)))]))
        .unwrap();
    log.sync().unwrap();
    log.write(&records(vec![enqueue(1, None)])).unwrap();
    disk.set_plan(FaultPlan {
        sync_error_at: Some(1),
        ..FaultPlan::default()
    });
    assert!(matches!(log.sync(), Err(LogError::Disk { .. })));
    let calls = disk.calls();
    assert!(matches!(log.sync(), Err(LogError::Failed)));
    assert!(matches!(
        log.write(&records(vec![enqueue(2, None)])),
        Err(LogError::Failed)
    ));
    assert_eq!(disk.calls(), calls, "nothing was tried");
    // The system goes on reading what it has not written: the next start must not believe it.
    drop(log);
    disk.set_plan(FaultPlan::default());
    let (log, recovered) = open(&disk);
    let model = Model::read(&log, &recovered);
    for seed in 0..50 {
        let (log, recovered) = open(&disk.crash(seed));
        assert_eq!(Model::read(&log, &recovered), model, "seed {seed}");
    }
}

#[test]
fn the_disk_is_asked_for_its_space_once_a_second_and_low_is_said_and_taken_back() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let mut some = options();
    some.disk_low_bytes = 40_000;
    let (mut log, _) = Log::open(disk.clone(), some).unwrap();
    log.write(&records(vec![Record::SessionPut(Box::new(session_put(1)))]))
        .unwrap();
    log.tick(crate::UnixMillis(1)).unwrap();
    log.tick(crate::UnixMillis(2)).unwrap();
    assert!(!log.is_low());
    let quota = |more| FaultPlan {
        quota_bytes: Some(disk.used_bytes() + more),
        ..FaultPlan::default()
    };
    disk.set_plan(quota(39_000));
    log.tick(crate::UnixMillis(500)).unwrap();
    assert!(!log.is_low(), "not asked yet");
    log.tick(crate::UnixMillis(1500)).unwrap();
    assert!(log.is_low());
    disk.set_plan(quota(100_000));
    log.tick(crate::UnixMillis(3000)).unwrap();
    assert!(!log.is_low());
}
