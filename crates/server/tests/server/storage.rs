//! Levels, and a disk that runs low: what leaves the Server, and what reaches its disk.

use std::time::{Duration, Instant};

use store::Level;
use store::disk::fault::{FaultDisk, FaultPlan};
use vencejo_server::Server;
use vencejo_server::config::{Config, FilterLevel, StorageConfig};

use crate::canary::Canary;
use crate::client::{PATIENCE, Raw, packet, publish, string, subscribe_v5};
use crate::config;

/// Free bytes below which the disk is low in these tests.
const LOW_BYTES: u64 = 1024 * 1024;

fn storage() -> StorageConfig {
    let filter = |filter: &str, level| FilterLevel {
        filter: filter.to_owned(),
        level,
    };
    StorageConfig {
        segment_bytes: 256 * 1024,
        disk_low_bytes: Some(LOW_BYTES),
        levels: vec![
            filter("mem/#", Level::Memory),
            filter("os/#", Level::Written),
        ],
        ..StorageConfig::default()
    }
}

fn start_on(disk: &FaultDisk, shards: u16) -> Server {
    let config = Config {
        storage: storage(),
        sys_interval: Duration::from_millis(100),
        ..config(shards)
    };
    Server::start_on(config, disk.clone()).expect("the Server starts")
}

/// The same with a Session that is offline and wants everything at QoS 1.
fn start_with_keeper(disk: &FaultDisk, shards: u16) -> Server {
    let server = start_on(disk, shards);
    let mut keeper = connect_keeper(&server);
    keeper.subscribe("+/+", 1);
    keeper.say(&[0xE0, 0]);
    assert!(keeper.is_at_end());
    server
}

fn connect_keeper(server: &Server) -> Raw {
    let mut keeper = Raw::open(server.listeners()[0]);
    let body = [&b"\x00\x04MQTT\x04\x00\x00\x00"[..], &string("keeper")].concat();
    keeper.say(&packet(0x10, &body));
    assert_eq!(keeper.hear()[..2], [0x20, 2]);
    keeper
}

/// Everything that waits for the keeper, by payload.
fn waiting(server: &Server, last: &[u8]) -> Vec<Vec<u8>> {
    let mut keeper = connect_keeper(server);
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|payload| payload != last) {
        let packet = keeper.hear();
        // The last byte of Remaining Length is the first one below 0x80.
        let len = packet[1..].iter().position(|byte| *byte < 0x80);
        let topic = 2 + len.expect("a length");
        let at = topic + 2 + usize::from(packet[topic + 1]);
        keeper.say(&[0x40, 2, packet[at], packet[at + 1]]);
        payloads.push(packet[at + 2..].to_vec());
    }
    payloads
}

fn publish_acknowledged(client: &mut Raw, topic: &str, payload: &[u8]) {
    client.say(&publish(topic, 1, payload));
    assert_eq!(client.hear(), [0x40, 2, 0, 1]);
}

/// QoS 1 of 5.0; returns the Reason Code and the Reason String.
fn publish_v5(client: &mut Raw, topic: &str, payload: &[u8]) -> (u8, String) {
    client.say(&packet(
        0x32,
        &[&string(topic)[..], &[0, 1, 0], payload].concat(),
    ));
    let ack = client.hear();
    assert_eq!((ack[0], ack[3]), (0x40, 1), "{ack:?}");
    let reason = ack.get(4).copied().unwrap_or_default();
    let text = ack.get(9..).unwrap_or_default();
    (reason, String::from_utf8_lossy(text).into_owned())
}

/// Until `done`, or a failed test.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Leaves so little room that the disk is low; returns when the Server refuses what has to be kept.
fn fill(disk: &FaultDisk, client: &mut Raw) {
    disk.set_plan(FaultPlan {
        quota_bytes: Some(disk.used_bytes() + LOW_BYTES / 2),
        ..FaultPlan::default()
    });
    wait_until("nothing is refused", || {
        publish_v5(client, "a/b", b"fills").0 == 0x97
    });
}

fn give_room(disk: &FaultDisk) {
    disk.set_plan(FaultPlan::default());
}

/// What `memory` acknowledges never reaches the disk, what `written` does survives the end of the process
/// and waits for no sync, what `synced` does survives the end of power.
#[test]
fn a_level_decides_what_an_acknowledgement_is_worth() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let server = start_with_keeper(&disk, 1);
    let mut client = Raw::v311(server.listeners()[0], "client");
    // Something else may be written in between, but not each time.
    wait_until("memory is written", || {
        let before = disk.calls();
        publish_acknowledged(&mut client, "mem/a", b"memory");
        disk.calls() == before
    });
    wait_until("written is synced first", || {
        let before = disk.calls();
        publish_acknowledged(&mut client, "os/a", b"written");
        let after = disk.calls();
        assert!(after.writes > before.writes);
        after.syncs == before.syncs
    });
    let killed = disk.kill();
    let before = disk.calls().syncs;
    publish_acknowledged(&mut client, "disk/a", b"synced");
    assert!(disk.calls().syncs > before);
    let crashed = disk.crash(7);
    server.stop();
    let again = start_on(&killed, 2);
    let mut client = Raw::v311(again.listeners()[0], "client");
    publish_acknowledged(&mut client, "disk/a", b"end");
    let found = waiting(&again, b"end");
    assert!(found.contains(&b"written".to_vec()), "{found:?}");
    assert!(!found.contains(&b"memory".to_vec()), "{found:?}");
    again.stop();
    let again = start_on(&crashed, 2);
    assert!(!waiting(&again, b"synced").contains(&b"memory".to_vec()));
    again.stop();
}

#[test]
fn a_disk_that_is_low_at_the_start_is_told_from_the_first_moment_on() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    disk.set_plan(FaultPlan {
        quota_bytes: Some(LOW_BYTES / 2),
        ..FaultPlan::default()
    });
    let config = Config {
        storage: StorageConfig {
            spares: 0,
            ..storage()
        },
        ..config(1)
    };
    let server = Server::start_on(config, disk).expect("the Server starts");
    let mut watcher = Raw::v311(server.listeners()[0], "watcher");
    watcher.subscribe("$SYS/broker/alarms", 0);
    let told = String::from_utf8_lossy(&watcher.hear()).into_owned();
    assert!(told.contains("the disk runs low"), "{told:?}");
}

/// Sections 3.4.2.1 and 4.13.2: Quota exceeded, and why, until there is room; shown in `$SYS` meanwhile.
#[test]
fn a_low_disk_refuses_what_has_to_be_kept() {
    for shards in [1, 2] {
        let disk = FaultDisk::new(2, FaultPlan::default());
        let server = start_with_keeper(&disk, shards);
        let address = server.listeners()[0];
        let canary = Canary::new(address);
        let mut client = Raw::v5(address, "client", 0);
        let mut watcher = Raw::v5(address, "watcher", 0);
        watcher.say(&subscribe_v5("$SYS/broker/alarms", 0));
        assert_eq!(watcher.hear()[0], 0x90);
        fill(&disk, &mut client);
        let refused = publish_v5(&mut client, "a/b", b"refused");
        assert_eq!(
            refused,
            (0x97, "the disk of the server runs low".to_owned())
        );
        wait_until("no alarm", || {
            String::from_utf8_lossy(&watcher.hear()).contains("the disk runs low")
        });
        canary.sing();
        // What was taken before is delivered and forgotten all the same, and who has subscribed leaves.
        let delivered = waiting(&server, b"fills");
        assert!(!delivered.contains(&b"refused".to_vec()));
        give_room(&disk);
        wait_until("still refused", || {
            publish_v5(&mut client, "a/b", b"accepted").0 == 0
        });
        wait_until("the alarm stays", || {
            String::from_utf8_lossy(&watcher.hear()).ends_with("none")
        });
        assert!(
            waiting(&server, b"accepted")
                .iter()
                .all(|one| one != b"refused")
        );
        drop(canary);
        server.stop();
    }
}

/// 3.1.1 knows no refusal: its connection is not read. It costs nobody else anything, its silence is not held
/// against it, and it is let go when it goes.
#[test]
fn a_low_disk_holds_an_older_publisher_back() {
    let disk = FaultDisk::new(3, FaultPlan::default());
    let server = start_with_keeper(&disk, 2);
    let address = server.listeners()[0];
    let mut filler = Raw::v5(address, "filler", 0);
    let mut observer = Raw::v311(address, "observer");
    observer.subscribe("gone", 0);
    // Keep Alive of one second.
    let mut held = Raw::open(address);
    let body = [&b"\x00\x04MQTT\x04\x02\x00\x01"[..], &string("held")].concat();
    held.say(&packet(0x10, &body));
    assert_eq!(held.hear(), [0x20, 2, 0, 0]);
    fill(&disk, &mut filler);
    // In three pieces, so that it is complete only with the last one; PINGREQ behind it.
    let stored = [publish("a/b", 1, b"held back"), vec![0xC0, 0]].concat();
    for piece in stored.chunks(9) {
        held.say(piece);
    }
    // One with a Will does not wait for the end of that, and neither does its Will.
    let will = [&string("gone")[..], &string("x")].concat();
    let body = [
        &b"\x00\x04MQTT\x04\x06\x00\x00"[..],
        &string("leaver"),
        &will,
    ]
    .concat();
    let mut leaver = Raw::open(address);
    leaver.say(&packet(0x10, &body));
    assert_eq!(leaver.hear(), [0x20, 2, 0, 0]);
    leaver.say(&publish("a/b", 1, b"lost, never acknowledged"));
    drop(leaver);
    assert_eq!(observer.hear(), publish("gone", 0, b"x"));
    // It is answered that the Server is there, and its silence is not held against it: longer than its
    // Keep Alive allows.
    assert_eq!(held.hear(), [0xD0, 0]);
    held.stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a socket option");
    let mut byte = [0];
    let nothing = std::io::Read::read(&mut held.stream, &mut byte);
    assert!(nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    observer.ping();
    give_room(&disk);
    held.stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket option");
    assert_eq!(held.hear(), [0x40, 2, 0, 1]);
    let delivered = waiting(&server, b"held back");
    assert!(delivered.iter().all(|one| !one.starts_with(b"lost")));
    server.stop();
}

/// A Client that publishes and consumes on one connection: its acknowledgements make the room that its PUBLISH waits
/// for. What is behind it keeps its order, and its DISCONNECT is one.
#[test]
fn a_publisher_held_back_by_a_low_disk_goes_on_as_a_subscriber() {
    let disk = FaultDisk::new(4, FaultPlan::default());
    let server = start_with_keeper(&disk, 1);
    let address = server.listeners()[0];
    let mut filler = Raw::v5(address, "filler", 0);
    for number in 0..30_u8 {
        assert_eq!(publish_v5(&mut filler, "a/b", &[number]).0, 0);
    }
    let mut observer = Raw::v311(address, "observer");
    observer.subscribe("gone", 0);
    fill(&disk, &mut filler);
    // Its Will is discarded by DISCONNECT. [v3.1.1 MQTT-3.14.4-3]
    let mut both = Raw::open(address);
    let body = [
        &b"\x00\x04MQTT\x04\x04\x00\x00"[..],
        &string("keeper"),
        &string("gone"),
        &string("x"),
    ]
    .concat();
    both.say(&packet(0x10, &body));
    assert_eq!(both.hear()[..2], [0x20, 2]);
    both.say(&[publish("a/b", 1, b"one"), publish("a/b", 1, b"two")].concat());
    // More than the Server sends at once without an acknowledgement, one byte after the other.
    for number in 0..30_u8 {
        let packet = both.hear();
        let at = 4 + usize::from(packet[3]);
        assert_eq!(packet[at + 2..], [number]);
        for byte in [0x40, 2, packet[at], packet[at + 1]] {
            both.say(&[byte]);
        }
    }
    both.say(&[0xC0, 0]);
    while both.hear() != [0xD0, 0] {}
    both.say(&[0xE0, 0]);
    assert!(both.is_at_end());
    give_room(&disk);
    wait_until("still refused", || {
        publish_v5(&mut filler, "a/b", b"last").0 == 0
    });
    // Acknowledged, and so finished, although it was said behind what had to wait.
    let left = waiting(&server, b"last");
    assert!(left.iter().all(|payload| payload.len() > 1), "{left:?}");
    observer.ping();
    server.stop();
}

/// ENOSPC itself, where nothing is kept free: what is not written is not acknowledged, the process ends and says why, and
/// with room again all that was acknowledged is there.
#[test]
fn a_write_that_finds_the_disk_full_acknowledges_nothing_and_loses_nothing() {
    for shards in [1, 2] {
        let disk = FaultDisk::new(6, FaultPlan::default());
        let config = Config {
            storage: StorageConfig {
                disk_low_bytes: Some(0),
                spares: 0,
                ..storage()
            },
            ..config(shards)
        };
        let server = Server::start_on(config, disk.clone()).expect("the Server starts");
        connect_keeper(&server).subscribe("+/+", 1);
        let mut client = Raw::v311(server.listeners()[0], "client");
        disk.set_plan(FaultPlan {
            quota_bytes: Some(disk.used_bytes() + 100_000),
            ..FaultPlan::default()
        });
        let mut acknowledged = 0_u16;
        loop {
            let payload = [&acknowledged.to_be_bytes()[..], &[b'x'; 10_000]].concat();
            client.say(&publish("a/b", 1, &payload));
            if client.hear().is_empty() {
                break;
            }
            acknowledged += 1;
            assert!(acknowledged < 1000, "a full disk takes everything");
        }
        let error = server.join().expect_err("has stopped by itself");
        assert!(error.to_string().contains("the disk failed"), "{error}");
        let room = disk.crash(6);
        give_room(&room);
        let again = start_on(&room, shards);
        let canary = Canary::new(again.listeners()[0]);
        let mut client = Raw::v311(again.listeners()[0], "client");
        publish_acknowledged(&mut client, "a/b", b"last");
        let found = waiting(&again, b"last");
        let numbers: Vec<_> = (0..acknowledged).map(u16::to_be_bytes).collect();
        // What was not acknowledged may be there, too.
        assert!(found.len() > numbers.len(), "{}", found.len());
        for (number, payload) in numbers.iter().zip(&found) {
            assert_eq!(payload[..2], *number);
        }
        canary.sing();
        drop(canary);
        again.stop();
    }
}

/// The free space is asked for about every second; so much can come in between that none would be left.
#[test]
fn a_burst_is_refused_before_the_disk_is_full() {
    let disk = FaultDisk::new(5, FaultPlan::default());
    let server = start_with_keeper(&disk, 1);
    let mut client = Raw::v5(server.listeners()[0], "client", 0);
    disk.set_plan(FaultPlan {
        quota_bytes: Some(disk.used_bytes() + LOW_BYTES + LOW_BYTES / 2),
        ..FaultPlan::default()
    });
    let payload = vec![b'x'; 16 * 1024];
    let taken = (0..1000).position(|_| publish_v5(&mut client, "a/b", &payload).0 == 0x97);
    assert!(taken.expect("is refused") > 20);
    give_room(&disk);
    wait_until("still refused", || {
        publish_v5(&mut client, "a/b", b"last").0 == 0
    });
    server.stop();
    server.join().expect("stopped in peace");
}
