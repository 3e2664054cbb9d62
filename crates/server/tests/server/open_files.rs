//! The system's limit on open files: a log may need more of them than a process begins with.

use std::path::Path;
use std::process::Command;

use store::disk::RealDisk;
use store::{Batch, EncodedGroup, Level, Log, LogOptions, MessageRecord, Record, Seq};
use vencejo_server::Server;
use vencejo_server::config::{Config, StorageConfig};

use crate::config;
use crate::durable::TempFolder;

/// Leaves a log of at least so many segments, each of which a start opens.
fn leave_log(folder: &Path, segments: usize) {
    let disk = RealDisk::open(folder).expect("a folder");
    let options = LogOptions {
        spares: 0,
        ..LogOptions::with_segments_of(4096)
    };
    let (mut log, _) = Log::open(disk, options).expect("an empty folder");
    for seq in 1.. {
        let mut group = EncodedGroup::new();
        let message = MessageRecord {
            topic: format!("topic {seq}").into(),
            properties: [].as_slice().into(),
            payload: vec![b'x'; 3000].into(),
            qos: 1,
            retain: true,
            expiry: None,
        };
        group.push(&Batch {
            seq: Seq(seq),
            records: vec![Record::RetainedPut { message }],
            level: Level::Written,
        });
        log.write(&group).expect("is written");
        if log.status().segments >= segments {
            break;
        }
    }
    log.sync().expect("is durable");
}

/// In a process of its own, that begins with a lower limit than it may have.
#[test]
fn a_log_of_more_segments_than_the_limit_on_open_files_is_served() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let storage = StorageConfig {
            data: folder.into(),
            ..StorageConfig::default()
        };
        let server = Server::start(Config {
            storage,
            ..config(1)
        });
        let server = server.expect("the Server starts");
        assert!(server.restored().expect("a folder").retained >= SEGMENTS);
        server.stop();
        server.join().expect("stopped in peace");
        return;
    }
    let temp = TempFolder::new();
    leave_log(temp.path(), SEGMENTS);
    let this = std::env::current_exe().expect("this program");
    let name = "open_files::a_log_of_more_segments_than_the_limit_on_open_files_is_served";
    let status = Command::new("sh")
        .args(["-c", "ulimit -Sn 128 && exec \"$0\" \"$@\""])
        .arg(this)
        .args(["--exact", name])
        .env(FOLDER, temp.path())
        .status();
    assert!(status.expect("a shell").success());
}

/// Says to the process of a test which folder it serves.
const FOLDER: &str = "VENCEJO_TEST_FOLDER";
const SEGMENTS: usize = 150;
