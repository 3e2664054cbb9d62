//! State that outlives the Server: over a folder, and over a disk that loses its power.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store::disk::fault::{FaultDisk, FaultPlan};
use vencejo_server::config::{Config, StorageConfig};
use vencejo_server::persist::{self, ControlAnswer, ControlRequest, FolderError};
use vencejo_server::{Server, StartError};

use crate::canary::Canary;
use crate::client::{PATIENCE, Raw, packet, publish, string};
use crate::config;

/// A folder for one test; gone with it.
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vencejo-durable-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn durable(shards: u16) -> Config {
    Config {
        storage: StorageConfig {
            segment_bytes: 256 * 1024,
            ..StorageConfig::default()
        },
        ..config(shards)
    }
}

fn start_on(disk: &FaultDisk, shards: u16) -> Server {
    Server::start_on(durable(shards), disk.clone()).expect("the Server starts")
}

/// 3.1.1 without Clean Session; returns whether there was one.
fn connect(server: &Server, client_id: &str) -> (Raw, bool) {
    let mut client = Raw::open(server.listeners()[0]);
    let body = [&b"\x00\x04MQTT\x04\x00\x00\x00"[..], &string(client_id)].concat();
    client.say(&packet(0x10, &body));
    let connack = client.hear();
    assert_eq!(
        (connack[0], connack[3]),
        (0x20, 0),
        "CONNACK to {client_id}"
    );
    (client, connack[2] == 1)
}

/// PUBLISH of 3.1.1 with this first byte.
fn publish_as(first_byte: u8, topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    packet(
        first_byte,
        &[&string(topic)[..], &packet_id.to_be_bytes(), payload].concat(),
    )
}

/// QoS 1: returns when it is acknowledged.
fn publish_acknowledged(client: &mut Raw, topic: &str, packet_id: u16, payload: &[u8]) {
    client.say(&publish(topic, packet_id, payload));
    let [high, low] = packet_id.to_be_bytes();
    assert_eq!(client.hear(), [0x40, 2, high, low]);
}

/// The payload of the next PUBLISH, which is acknowledged.
fn take(client: &mut Raw) -> (u8, Vec<u8>) {
    let packet = client.hear();
    assert_eq!(packet[0] >> 4, 3, "{packet:?}");
    let topic = usize::from(packet[3]);
    let at = 4 + topic;
    if packet[0] & 6 == 0 {
        return (packet[0], packet[at..].to_vec());
    }
    client.say(&[0x40, 2, packet[at], packet[at + 1]]);
    (packet[0], packet[at + 2..].to_vec())
}

/// Leaves behind what has to be there after a restart, all of it acknowledged.
fn leave_state(server: &Server) {
    let (mut keeper, _) = connect(server, "keeper");
    keeper.subscribe("queue/#", 1);
    keeper.say(&[0xE0, 0]);
    assert!(keeper.is_at_end());
    let (mut publisher, _) = connect(server, "publisher");
    for n in 1..=20_u16 {
        publish_acknowledged(&mut publisher, "queue/a", n, n.to_string().as_bytes());
    }
    publisher.say(&publish_as(0x33, "retained/a", 30, b"kept"));
    assert_eq!(publisher.hear(), [0x40, 2, 0, 30]);
    publisher.say(&publish_as(0x34, "queue/exactly", 31, b"once"));
    assert_eq!(publisher.hear(), [0x50, 2, 0, 31]);
}

/// Finds all of it.
fn find_state(server: &Server) {
    let (mut publisher, was_there) = connect(server, "publisher");
    assert!(was_there, "the publisher's Session");
    publisher.say(&publish_as(0x3C, "queue/exactly", 31, b"once"));
    assert_eq!(publisher.hear(), [0x50, 2, 0, 31]);
    publisher.say(&[0x62, 2, 0, 31]);
    assert_eq!(publisher.hear(), [0x70, 2, 0, 31]);
    publish_acknowledged(&mut publisher, "queue/a", 32, b"last");
    let (_keeper, was_there) = connect(server, "keeper");
    assert!(was_there, "the subscriber's Session");
    let mut newcomer = Raw::v311(server.listeners()[0], "newcomer");
    newcomer.subscribe("retained/#", 0);
    assert_eq!(take(&mut newcomer), (0x31, b"kept".to_vec()));
}

#[test]
fn everything_acknowledged_survives_a_stop_with_another_number_of_shards() {
    let temp = TempFolder::new();
    let start = |shards| {
        let mut config = durable(shards);
        config.storage.data.clone_from(&temp.0);
        Server::start(config).expect("the Server starts")
    };
    let server = start(2);
    leave_state(&server);
    server.stop();
    server.join().expect("stopped in peace");
    let server = start(3);
    let restored = server.restored().expect("a folder");
    assert_eq!((restored.sessions, restored.retained), (2, 1));
    assert!(restored.report.torn_tail.is_none(), "{:?}", restored.report);
    find_state(&server);
}

#[test]
fn everything_acknowledged_survives_a_loss_of_power() {
    for seed in 0..12 {
        let disk = FaultDisk::new(seed, FaultPlan::default());
        let server = start_on(&disk, 1 + u16::try_from(seed % 3).expect("small"));
        let canary = Canary::new(server.listeners()[0]);
        leave_state(&server);
        let after = disk.crash(seed);
        drop(canary);
        drop(server);
        let server = start_on(&after, 2);
        let canary = Canary::new(server.listeners()[0]);
        find_state(&server);
        drop(canary);
        // And once more, with what the restart has written.
        server.stop();
        server.join().expect("stopped in peace");
    }
}

#[test]
fn nothing_is_acknowledged_once_the_disk_has_failed_and_the_server_says_why_it_stops() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let server = start_on(&disk, 2);
    let (mut keeper, _) = connect(&server, "keeper");
    keeper.subscribe("a", 1);
    let (mut publisher, _) = connect(&server, "publisher");
    publish_acknowledged(&mut publisher, "a", 1, b"safe");
    disk.set_plan(FaultPlan {
        sync_error_at: Some(1),
        ..FaultPlan::default()
    });
    publisher.say(&publish("a", 2, b"not safe"));
    assert!(publisher.is_at_end(), "no PUBACK");
    let error = server.join().expect_err("has stopped by itself");
    assert!(error.to_string().contains("the disk failed"), "{error}");
    let server = start_on(&disk.crash(1), 2);
    let (_keeper, was_there) = connect(&server, "keeper");
    assert!(was_there);
}

/// Every one of them waits for a sync with both shards asleep: none may miss its wake-up.
#[test]
fn sleeping_shard_hears_of_every_sync() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let server = start_on(&disk, 2);
    let (mut keeper, _) = connect(&server, "keeper");
    keeper.subscribe("a", 1);
    keeper.say(&[0xE0, 0]);
    assert!(keeper.is_at_end());
    let (mut publisher, _) = connect(&server, "publisher");
    for n in 1..=3000 {
        publish_acknowledged(&mut publisher, "a", n, b"x");
    }
}

#[test]
fn folder_in_use_is_refused_with_the_pid_of_its_server() {
    let temp = TempFolder::new();
    let mut config = durable(1);
    config.storage.data.clone_from(&temp.0);
    let server = Server::start(config.clone()).expect("the Server starts");
    match Server::start(config.clone()) {
        Err(StartError::Folder(FolderError::InUse { pid, .. })) => {
            assert_eq!(pid, Some(std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    server.stop();
    server.join().expect("stopped in peace");
    drop(Server::start(config).expect("the folder is free again"));
}

#[test]
fn level_memory_everywhere_uses_no_folder() {
    let temp = TempFolder::new();
    let mut config = config(1);
    config.storage.data.clone_from(&temp.0);
    assert!(config.storage.is_in_memory());
    let server = Server::start(config).expect("the Server starts");
    drop(Raw::v311(server.listeners()[0], "client"));
    drop(server);
    assert!(!temp.0.exists());
}

#[test]
fn running_server_is_backed_up_and_the_backup_has_all_that_was_acknowledged() {
    let temp = TempFolder::new();
    let mut config = durable(2);
    config.storage.data = temp.0.join("data");
    let server = Server::start(config.clone()).expect("the Server starts");
    leave_state(&server);
    let backup = temp.0.join("backup");
    let request = ControlRequest::Backup {
        dir: backup.clone(),
    };
    let answer = persist::ask(&config.storage.data, &request).expect("is answered");
    assert!(
        matches!(answer, Some(ControlAnswer::Backup(_))),
        "{answer:?}"
    );
    let again = persist::ask(&config.storage.data, &request).expect("is answered");
    assert!(
        matches!(again, Some(ControlAnswer::Refused { .. })),
        "{again:?}"
    );
    let (mut publisher, _) = connect(&server, "later");
    publish_acknowledged(&mut publisher, "queue/a", 1, b"after the backup");
    drop(server);
    let restored = temp.0.join("restored");
    persist::restore(&backup, &restored).expect("is laid down");
    config.storage.data = restored;
    let server = Server::start(config).expect("the Server starts");
    find_state(&server);
}

#[test]
fn status_and_alarms_are_told_by_the_control_socket() {
    let temp = TempFolder::new();
    let mut config = durable(1);
    // Longer than the system allows for the name of a socket.
    config.storage.data = temp.0.join("x".repeat(120));
    let data = config.storage.data.clone();
    let ask = |request| persist::ask(&data, request).expect("is answered");
    std::fs::create_dir_all(data.join("alarms")).expect("a folder");
    std::fs::write(data.join("alarms/1.alarm"), "7\nmind the gap\n").expect("is written");
    assert_eq!(ask(&ControlRequest::Status), None);
    let server = Server::start(config.clone()).expect("the Server starts");
    assert_eq!(
        server.restored().expect("a folder").alarms,
        ["mind the gap"]
    );
    let expected = Some(ControlAnswer::Alarms {
        alarms: vec!["mind the gap".to_owned()],
    });
    assert_eq!(ask(&ControlRequest::Alarms), expected);
    let Some(ControlAnswer::Status(status)) = ask(&ControlRequest::Status) else {
        panic!("no status");
    };
    assert_eq!(status.alarms, 1);
    assert_eq!(ask(&ControlRequest::Acknowledge), expected);
    let none = Some(ControlAnswer::Alarms { alarms: Vec::new() });
    assert_eq!(ask(&ControlRequest::Alarms), none);
    drop(server);
    assert_eq!(ask(&ControlRequest::Status), None);
    let server = Server::start(config).expect("the Server starts");
    assert!(server.restored().expect("a folder").alarms.is_empty());
}

#[test]
fn sys_topics_tell_of_the_store() {
    let disk = FaultDisk::new(1, FaultPlan::default());
    let mut config = durable(2);
    config.sys_interval = Duration::from_millis(100);
    let server = Server::start_on(config, disk).expect("the Server starts");
    leave_state(&server);
    let mut watcher = Raw::v311(server.listeners()[0], "watcher");
    watcher.subscribe("$SYS/broker/alarms", 0);
    assert_eq!(take(&mut watcher).1, b"none");
    for topic in ["segments", "live/bytes", "disk/free", "batches", "groups"] {
        let mut watcher = Raw::v311(server.listeners()[0], "another");
        watcher.subscribe(&format!("$SYS/broker/store/{topic}"), 0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = String::from_utf8(take(&mut watcher).1).expect("text");
            if said.parse::<u64>().expect("a number") >= 1 {
                break;
            }
            assert!(Instant::now() < deadline, "{topic} {said}");
        }
    }
}
