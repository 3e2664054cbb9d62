//! The binary and its data folder: what outlives `kill -9`, who may use it, backups, alarms.
//!
//! Owns: exit codes and output around a data folder. Does not own: what is in it (see the server's tests).
//! Start reading at [`state_outlives_kill_9_and_is_told_at_the_start`]. Invariant: a server that is dropped is killed, so
//! whatever it kept was kept before.

use crate::program::{Served, TempFolder, run, succeeded, text};

/// A server that uses a data folder.
fn start(folder: &TempFolder, data: &str) -> Served {
    let args = ["--listen", "127.0.0.1:0", "--shards", "2", "--data", data];
    Served::start(folder, &args)
}

const SESSION: [&str; 7] = ["-c", "-i", "keeper", "-q", "1", "-t", "jobs"];

/// A kept session with a message, and a retained message.
fn leave_state(served: &Served) {
    served.ask("sub", &[&SESSION[..], &["-E"]].concat());
    served.ask("pub", &["-t", "jobs", "-m", "one", "-q", "1"]);
    served.ask("pub", &["-t", "state", "-m", "on", "-q", "1", "-r"]);
}

fn find_state(served: &Served) {
    let greeting = &served.greeting;
    assert!(
        greeting.contains("1 sessions, 1 retained messages"),
        "{greeting}"
    );
    let found = served.ask("sub", &["-t", "state", "-C", "1", "-W", "20"]);
    assert_eq!(found, "on\n");
}

/// Flips a bit in the first frame of the log, with intact ones behind it.
fn damage(data: &str) {
    let segment = format!("{data}/log/0000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[40] ^= 0x10;
    std::fs::write(&segment, bytes).expect("is written");
}

#[test]
fn state_outlives_kill_9_and_is_told_at_the_start() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = start(&temp, &data);
    assert!(served.greeting.contains(&data), "{}", served.greeting);
    leave_state(&served);
    drop(served);
    find_state(&start(&temp, &data));
}

#[test]
fn folder_in_use_is_refused_with_the_pid() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = start(&temp, &data);
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--data", &data]);
    assert_eq!(output.status.code(), Some(69));
    let expected = format!("in use by the process {}", served.process.pid());
    let said = text(&output.stderr);
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn backup_of_a_folder_in_use_and_at_rest_is_restored() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = start(&temp, &data);
    leave_state(&served);
    let users = format!("{data}/users.toml");
    std::fs::write(users, "users = []\n").expect("is written");
    let [running, resting] = [temp.path("running"), temp.path("resting")];
    succeeded(&run(&["backup", &running, "--data", &data]));
    drop(served);
    succeeded(&run(&["backup", &resting, "--data", &data]));
    for (backup, name) in [(running, "first"), (resting, "second")] {
        let restored = temp.path(name);
        succeeded(&run(&["restore", &backup, "--data", &restored]));
        let users = std::fs::read_to_string(format!("{restored}/users.toml"));
        assert_eq!(users.expect("is restored, too"), "users = []\n");
        find_state(&start(&temp, &restored));
        let output = run(&["restore", &backup, "--data", &restored]);
        assert_eq!(output.status.code(), Some(74));
        assert!(text(&output.stderr).contains("is not empty"));
    }
}

#[test]
fn a_folder_is_checked_counted_and_salvaged() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = start(&temp, &data);
    leave_state(&served);
    let output = run(&["store", "check", &data]);
    assert_eq!(output.status.code(), Some(69), "in use by the server");
    drop(served);
    let said = succeeded(&run(&["store", "check", &data]));
    assert!(said.contains("sound: nothing is missing"), "{said}");
    let said = succeeded(&run(&["store", "stat", &data]));
    let counts = "1 sessions, 1 retained messages, 1 queued messages for 1 deliveries";
    assert!(said.contains(counts), "{said}");
    assert!(said.contains("0000000001.seg"), "{said}");
    damage(&data);
    let output = run(&["store", "check", &data]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("DAMAGE"));
    let new = temp.path("new");
    let said = succeeded(&run(&["store", "salvage", &data, &new]));
    assert!(said.contains("DAMAGE"));
    let served = start(&temp, &new);
    assert!(served.greeting.contains("ALARM"), "{}", served.greeting);
    let found = served.ask("sub", &["-t", "state", "-C", "1", "-W", "20"]);
    assert_eq!(found, "on\n");
}

#[test]
fn damage_is_an_alarm_at_every_start_until_it_is_acknowledged() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = start(&temp, &data);
    leave_state(&served);
    drop(served);
    damage(&data);
    let strict = temp.write("strict.toml", "[storage]\nrecovery = \"strict\"\n");
    let output = run(&[
        "serve",
        "-c",
        &strict,
        "--listen",
        "127.0.0.1:0",
        "--data",
        &data,
    ]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("vencejo store salvage"));
    for _ in 0..2 {
        let served = start(&temp, &data);
        assert!(served.greeting.contains("ALARM"), "{}", served.greeting);
        let alarms = served.ask("sub", &["-t", "$SYS/broker/alarms", "-C", "1", "-W", "20"]);
        assert!(alarms.contains("0000000001.seg"), "{alarms}");
    }
    let served = start(&temp, &data);
    let said = succeeded(&run(&["store", "acknowledge", &data]));
    assert!(said.contains("0000000001.seg"));
    drop(served);
    let output = run(&["store", "acknowledge", &data]);
    assert_eq!(text(&output.stdout), "no alarms\n");
    let served = start(&temp, &data);
    assert!(!served.greeting.contains("ALARM"), "{}", served.greeting);
}
