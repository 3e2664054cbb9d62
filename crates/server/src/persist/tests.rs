//! The persist thread over a disk in memory: what is told when, and what a failure leaves untold.
//!
//! Owns: nothing but tests. Start reading at [`Bench`].
//! Invariant: every wait is for a condition, and ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use store::disk::fault::{FaultDisk, FaultPlan};
use store::{Batch, Record, Seq, Store, StoreError};

use super::writer::UNSYNCED_MAX;
use super::*;
use crate::config::Config;

/// Stores of some shards, and the thread behind them.
struct Bench {
    disk: FaultDisk,
    shared: Arc<Shared>,
    stores: Vec<ShardStore>,
    running: Running,
}

impl Bench {
    fn start(shard_count: u16, storage: &StorageConfig) -> Self {
        let disk = FaultDisk::new(1, FaultPlan::default());
        let opened = Opened::open(disk.clone(), None, storage);
        let (opened, ..) = opened.expect("an empty disk");
        let shared = crate::server::shared_for_tests(shard_count, &Config::default());
        let (stores, running) = opened.start(&shared).expect("threads");
        Self {
            disk,
            shared,
            stores,
            running,
        }
    }

    fn synced(shard_count: u16) -> Self {
        Self::start(shard_count, &StorageConfig::default())
    }
}

fn batch(seq: u64, level: Level) -> Batch {
    Batch {
        seq: Seq(seq),
        records: vec![Record::RetainedDelete {
            topic: format!("topic {seq}").into(),
        }],
        level,
    }
}

/// Waits until this is so.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// What the log on `disk` has of the test's batches, in order.
fn topics(disk: &FaultDisk) -> Vec<String> {
    let mut topics = Vec::new();
    for name in disk
        .file_names()
        .iter()
        .filter(|name| name.ends_with(".seg"))
    {
        let bytes = disk.contents(name).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let found = text.split("topic ").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit());
            rest[..end.unwrap_or(rest.len())].to_owned()
        });
        topics.extend(found);
    }
    topics
}

#[test]
fn what_is_told_to_be_durable_survives_a_loss_of_power_in_order() {
    let mut bench = Bench::synced(2);
    for seq in 1..=100 {
        for store in &mut bench.stores {
            store.append(batch(seq, Level::Synced)).expect("is taken");
        }
        let durable = bench.stores[1].durable().0;
        // The first shard's came before the second's.
        let found = topics(&bench.disk.crash(seq));
        assert!(found.len() as u64 >= 2 * durable, "{durable} {found:?}");
    }
    wait_until("durable", || {
        bench.stores.iter().all(|of| of.durable() == Seq(100))
    });
    let expected: Vec<String> = (1..=100)
        .flat_map(|seq: u64| [seq.to_string(), seq.to_string()])
        .collect();
    assert_eq!(topics(&bench.disk.crash(0)), expected);
    drop(bench.stores);
    bench.running.stop();
}

#[test]
fn one_sync_serves_all_that_came_before_it() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let (opened, ..) =
        Opened::open(disk.clone(), None, &StorageConfig::default()).expect("an empty disk");
    let shared = crate::server::shared_for_tests(1, &Config::default());
    let exchange = Arc::new(Exchange::new(1));
    let (loads, _wanted) = mpsc::channel();
    let (_answer, loaded) = mpsc::channel();
    let mut store = ShardStore::new(0, Arc::clone(&exchange), loads, loaded);
    for seq in 1..=1000 {
        store.append(batch(seq, Level::Synced)).expect("is taken");
    }
    exchange.close();
    disk.set_plan(FaultPlan::default());
    let figures = Arc::clone(&opened.figures);
    let alarming = Alarming::new(disk.clone(), Arc::clone(&figures), &[]);
    Writer::new(opened.log, exchange, figures, shared, alarming, false).run();
    assert_eq!(store.durable(), Seq(1000));
    let syncs = disk.calls().syncs;
    // The first segment's name is the other reason to sync.
    assert!(syncs <= 3, "{syncs}");
}

#[test]
fn what_only_has_to_be_written_is_not_synced_for_itself_but_soon() {
    let storage = StorageConfig {
        level: Level::Written,
        ..StorageConfig::default()
    };
    let mut bench = Bench::start(1, &storage);
    bench.stores[0]
        .append(batch(1, Level::Written))
        .expect("is taken");
    wait_until("written", || bench.stores[0].written() == Seq(1));
    assert_eq!(bench.stores[0].durable(), Seq(0));
    assert_eq!(topics(&bench.disk.kill()), ["1"]);
    wait_until("durable", || bench.stores[0].durable() == Seq(1));
    drop(bench.stores);
    bench.running.stop();
}

/// A server that stops waits for what nobody was in a hurry for: then it is not to be put off.
#[test]
fn a_stop_syncs_at_once_what_only_had_to_be_written() {
    let mut bench = Bench::synced(1);
    let start = Instant::now();
    bench.stores[0]
        .append(batch(1, Level::Written))
        .expect("is taken");
    bench.shared.request_stop();
    wait_until("durable", || bench.stores[0].durable() == Seq(1));
    bench.stores[0]
        .append(batch(2, Level::Written))
        .expect("is taken");
    wait_until("durable", || bench.stores[0].durable() == Seq(2));
    assert!(start.elapsed() < UNSYNCED_MAX, "{:?}", start.elapsed());
    drop(bench.stores);
    bench.running.stop();
}

#[test]
fn stop_makes_durable_what_nobody_waited_for() {
    let mut bench = Bench::synced(2);
    for seq in 1..=10 {
        for store in &mut bench.stores {
            store.append(batch(seq, Level::Written)).expect("is taken");
        }
    }
    drop(bench.stores);
    bench.running.stop();
    assert_eq!(topics(&bench.disk.crash(3)).len(), 20);
    assert!(!bench.shared.is_failed.load(Ordering::SeqCst));
}

#[test]
fn after_a_failure_nothing_is_told_or_taken_and_the_server_stops() {
    for fails_at_write in [true, false] {
        let mut bench = Bench::synced(2);
        bench.stores[0]
            .append(batch(1, Level::Synced))
            .expect("is taken");
        wait_until("durable", || bench.stores[0].durable() == Seq(1));
        bench.disk.set_plan(FaultPlan {
            write_error_at: fails_at_write.then_some(1),
            sync_error_at: (!fails_at_write).then_some(1),
            ..FaultPlan::default()
        });
        bench.stores[1]
            .append(batch(1, Level::Synced))
            .expect("is taken");
        let is_set = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        // What is done last.
        wait_until("stops", || is_set(&bench.shared.is_stop_requested));
        assert!(is_set(&bench.shared.is_failed));
        let error = bench.stores[0].append(batch(2, Level::Synced));
        assert!(matches!(error, Err(StoreError::Failed { .. })), "{error:?}");
        assert_eq!(bench.stores[1].durable(), Seq(0));
        assert_eq!(bench.stores[0].durable(), Seq(1));
        let reason = bench.shared.failure.get().expect("is said");
        assert!(reason.contains("the disk failed"), "{reason}");
        drop(bench.stores);
        bench.running.stop();
    }
}

#[test]
fn batch_out_of_order_is_refused() {
    let mut bench = Bench::synced(1);
    let expected = StoreError::OutOfOrder {
        expected: Seq(1),
        found: Seq(2),
    };
    assert_eq!(
        bench.stores[0].append(batch(2, Level::Synced)),
        Err(expected)
    );
    drop(bench.stores);
    bench.running.stop();
}

/// Also with `memory` as default: a Session that an earlier configuration has recorded is kept at `written`.
#[test]
fn shards_are_woken_by_what_is_written_if_anything_waits_for_it() {
    let waits = |level, of_filter: Option<Level>| {
        let filter = |level| crate::config::FilterLevel {
            filter: "a".to_owned(),
            level,
        };
        let storage = StorageConfig {
            level,
            levels: of_filter.map(filter).into_iter().collect(),
            ..StorageConfig::default()
        };
        let disk = FaultDisk::new(1, FaultPlan::default());
        let (opened, ..) = Opened::open(disk, None, &storage).expect("an empty disk");
        opened.tells_written
    };
    assert!(waits(Level::Memory, None));
    assert!(waits(Level::Written, None));
    assert!(waits(Level::Synced, Some(Level::Written)));
    assert!(!waits(Level::Synced, Some(Level::Memory)));
    assert!(!waits(Level::Synced, None));
}
