//! A server that has no file descriptor left: who is connected goes on, who comes waits, and nothing burns.
//!
//! Owns: EMFILE, in a process of its own whose limit the test changes. Does not own: the room that is kept (see
//! `server::open_files`), a full disk (see the server's tests of storage). Start reading at any test.
//! Invariant: every wait is for something that comes, but for one that shows that nothing does.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::program::{DEADLINE, Served, TempFolder, VENCEJO, output, succeeded, undisturbed};

/// A server in a folder of its own.
struct Limited {
    served: Served,
    folder: TempFolder,
}

impl Limited {
    /// With so many open files at most.
    fn start(open_files_max: u32) -> Self {
        Self::start_in(TempFolder::new(), open_files_max, &[])
    }

    /// The same in a folder with files for `args`.
    fn start_in(folder: TempFolder, open_files_max: u32, args: &[&str]) -> Self {
        let script = format!("ulimit -n {open_files_max} && exec \"$0\" \"$@\"");
        let mut command = undisturbed("sh");
        command.args(["-c", &script, VENCEJO, "serve"]);
        command.args(["--listen", "127.0.0.1:0", "--data", "data"]);
        command.args(args);
        command.current_dir(folder.join(""));
        let served = Served::start_by(&folder, command);
        Self { served, folder }
    }

    fn open(&self) -> TcpStream {
        let stream =
            TcpStream::connect(format!("127.0.0.1:{}", self.served.port)).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream
    }

    /// Asks to connect, and waits for nothing.
    fn ask(&self, client_id: &str) -> TcpStream {
        let mut stream = self.open();
        let len = u8::try_from(client_id.len()).expect("short");
        let mut connect = vec![0x10, 12 + len];
        connect.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x00\x00");
        connect.push(len);
        connect.extend_from_slice(client_id.as_bytes());
        stream.write_all(&connect).expect("the system takes it");
        stream
    }

    fn connect(&self, client_id: &str) -> TcpStream {
        let mut stream = self.ask(client_id);
        expect(&mut stream, &[0x20, 2, 0, 0]);
        stream
    }

    /// Waits until the log says it so often.
    fn wait_for_log(&self, text: &str) {
        let until = Instant::now() + DEADLINE;
        while !self.served.log().contains(text) {
            assert!(
                Instant::now() < until,
                "not in the log: {text}\n{}",
                self.served.log()
            );
            std::thread::yield_now();
        }
    }

    fn limit_open_files(&self, max: usize) {
        let pid = self.served.process.pid().to_string();
        let limit = format!("--nofile={max}:");
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status();
        assert!(status.expect("prlimit").success());
    }

    fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.served.process.pid());
        // It opens and closes one now and then, as it measures itself.
        let counts = (0..50).map(|_| fs::read_dir(&folder).expect("a process").count());
        counts.min().unwrap_or_default()
    }

    /// What it has computed, in hundredths of a second.
    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.served.process.pid()));
        let stat = stat.expect("a process");
        let (_, fields) = stat.rsplit_once(") ").expect("its name ends");
        let of_user_and_system = fields.split(' ').skip(11).take(2);
        let ticks = of_user_and_system.map(|field| field.parse::<u64>().expect("a number"));
        ticks.sum()
    }
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).expect("an answer");
    assert_eq!(heard, expected);
}

/// One QoS 1 message, which is acknowledged once it is on the disk, and arrives.
fn sing(publisher: &mut TcpStream, subscriber: &mut TcpStream) {
    publisher
        .write_all(b"\x32\x08\x00\x01c\x00\x07sng")
        .expect("it reads");
    expect(publisher, &[0x40, 2, 0, 7]);
    expect(subscriber, b"\x30\x06\x00\x01csng");
}

/// mosquitto CVE-2017-7652 begins like this. Issue: accepting burns no CPU while it cannot, says so, and goes on.
#[test]
fn without_a_file_descriptor_who_is_connected_goes_on_and_who_comes_waits() {
    let limited = Limited::start(1024);
    let mut publisher = limited.connect("publisher");
    let mut subscriber = limited.connect("subscriber");
    subscriber
        .write_all(b"\x82\x06\x00\x01\x00\x01c\x00")
        .expect("it reads");
    expect(&mut subscriber, &[0x90, 3, 0, 1, 0]);
    sing(&mut publisher, &mut subscriber);
    limited.limit_open_files(limited.open_files());
    let mut waiting = limited.ask("waiting");
    limited.wait_for_log("accepting pauses until there is room");
    let before = limited.cpu_ticks();
    // Nothing comes.
    let second = Some(Duration::from_secs(1));
    waiting.set_read_timeout(second).expect("an option");
    let nothing = waiting.read(&mut [0]).expect_err("no answer");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    let burnt = limited.cpu_ticks() - before;
    assert!(burnt < 25, "{burnt} hundredths of a second of CPU in one");
    for _ in 0..50 {
        sing(&mut publisher, &mut subscriber);
    }
    limited.limit_open_files(1024);
    waiting.set_read_timeout(Some(DEADLINE)).expect("an option");
    expect(&mut waiting, &[0x20, 2, 0, 0]);
    limited.wait_for_log("accepting goes on");
    assert_eq!(
        limited.served.log().matches("accepting pauses").count(),
        1,
        "said once"
    );
}

/// mosquitto CVE-2017-7652: a reload that cannot open its file is none. What was closed stays closed, and once there is a
/// file descriptor the new file counts.
#[test]
fn without_a_file_descriptor_a_reload_changes_nothing() {
    let folder = TempFolder::new();
    let text = "[authentication]\nanonymous = \"never\"\npassword_file = \"passwords\"\n";
    folder.write("vencejo.toml", text);
    folder.write("passwords", ANNA);
    let limited = Limited::start_in(folder, 1024, &["-c", "vencejo.toml"]);
    let login = |secret: &[u8; 6]| {
        let mut stream = limited.open();
        let connect = b"\x10\x1B\x00\x04MQTT\x04\xC2\x00\x00\x00\x01c\x00\x04anna\x00\x06";
        let connect = [&connect[..], secret].concat();
        stream.write_all(&connect).expect("the system takes it");
        stream
    };
    let mut anna = login(b"secret");
    expect(&mut anna, &[0x20, 2, 0, 0]);
    limited.limit_open_files(limited.open_files());
    limited.served.process.signal("HUP");
    limited.wait_for_log("configuration not reloaded");
    anna.write_all(&[0xC0, 0]).expect("it reads");
    expect(&mut anna, &[0xD0, 0]);
    limited.limit_open_files(1024);
    expect(&mut limited.ask("nobody"), &[0x20, 2, 0, 5]);
    expect(&mut login(b"wrong!"), &[0x20, 2, 0, 4]);
    limited.folder.write("vencejo.toml", "");
    limited.served.process.signal("HUP");
    limited.wait_for_log("configuration reloaded");
    expect(&mut limited.ask("nobody"), &[0x20, 2, 0, 0]);
}

/// As mosquitto_passwd 2.0 writes it, for the password `secret`.
const ANNA: &str = "anna:$7$101$M4oVbr/hebfTv2IZ$mkIDouR1P4cbRK44mnGBCr60nEtK1K66sTRHL5xfeRwT1YObOAvfhINFNL7AL/XVH5k7a5CdsxjyM6vQI3DYug==\n";

/// However few files it may open, some are kept for the log and for who asks by the control socket.
#[test]
fn with_few_file_descriptors_the_log_and_the_operator_have_theirs() {
    let limited = Limited::start(200);
    let mut crowd: Vec<_> = (0..250)
        .map(|number| limited.ask(&format!("c{number}")))
        .collect();
    let mut let_in = Vec::new();
    // All are answered, though not all at once.
    for stream in &mut crowd {
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).expect("an answer");
        match connack {
            [0x20, 2, 0, 0] => let_in.push(stream),
            [0x20, 2, 0, 3] => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((50..200).contains(&let_in.len()), "{}", let_in.len());
    let publisher = let_in.pop().expect("one of them");
    for _ in 0..20 {
        publisher
            .write_all(b"\x32\x08\x00\x01c\x00\x07sng")
            .expect("it reads");
        expect(publisher, &[0x40, 2, 0, 7]);
    }
    let asked = limited.folder.vencejo(&["ban", "list", "--data", "data"]);
    succeeded(&output(asked));
    assert!(limited.open_files() < 200, "some are left");
}
