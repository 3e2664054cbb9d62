//! What a server writes to its log while clients show secrets and say what they like.
//!
//! Owns: promise P13 of the log. Does not own: files and their modes (see `persist`, `passwords::users`).
//! Start reading at [`nothing_secret_and_nothing_forged_is_in_the_log`]. Invariant: the log of every level is looked at.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::program::{DEADLINE, Served, TempFolder};

const PASSWORD: &str = "Sesame-hunter2";
const WRONG: &str = "Wrong-hunter3";
const PAYLOAD: &str = "Payload-nobody-reads";
const SECRET: &str = "a-secret-of-tokens-that-is-long-enough";

/// Says `bytes`, and what is answered until the end or a whole packet.
fn say(served: &Served, bytes: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{}", served.port)).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    stream.write_all(&bytes.concat()).expect("is sent");
    stream.shutdown(std::net::Shutdown::Write).expect("is open");
    let mut answer = Vec::new();
    // It may be reset.
    stream.read_to_end(&mut answer).ok();
    answer
}

fn string(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("short");
    [&len.to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).expect("short");
    assert!(len < 128);
    [&[first, len][..], body].concat()
}

/// CONNECT of 3.1.1 with these.
fn connect(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let head = b"\x00\x04MQTT\x04\xC2\x00\x00";
    let body = [
        &head[..],
        &string(client_id),
        &string(user),
        &string(password),
    ];
    packet(0x10, &body.concat())
}

/// P13: neither secrets nor payloads, and what peers chose is escaped.
#[test]
fn nothing_secret_and_nothing_forged_is_in_the_log() {
    for format in ["text", "json"] {
        let folder = TempFolder::new();
        folder.write("secret", SECRET);
        folder.write(
            "vencejo.toml",
            "[authentication]\ntokens = { key = \"secret\", algorithms = [\"HS256\"] }\n",
        );
        folder.add_user("anna", PASSWORD);
        let mut args = vec!["-c", "vencejo.toml", "--listen", "127.0.0.1:0"];
        args.extend(["--data", "data", "--log-level", "trace"]);
        args.extend(["--log-format", format]);
        let mut served = Served::start(&folder, &args);
        let publish = packet(0x30, &[string("t"), PAYLOAD.into()].concat());
        let good = connect("good", "anna", PASSWORD);
        let answer = say(&served, &[&good, &publish, &[0xE0, 0]]);
        assert_eq!(answer.get(..4), Some(&[0x20, 2, 0, 0][..]), "{answer:?}");
        say(&served, &[&connect("bad", "anna", WRONG)]);
        // As are most who mistake the one field for the other.
        say(&served, &[&connect("swapped", PASSWORD, "anna")]);
        let token = "eyJhbGciOiJIUzI1NiJ9.hunter4.hunter5";
        say(&served, &[&connect("token", "anna", token)]);
        let forged = "x\n2026-01-01T00:00:00Z  INFO forged peer=1.2.3.4\u{1b}[31m";
        say(&served, &[&connect(forged, "anna", PASSWORD), &[0xE0, 0]]);
        say(&served, &[&connect("named", forged, WRONG)]);
        let topic = packet(
            0x32,
            &[string("a\u{7f}\u{85}\n"), vec![0, 1], PAYLOAD.into()].concat(),
        );
        say(&served, &[&good, &topic]);
        // Broken in the middle of what is secret.
        say(&served, &[&good[..good.len() - 3]]);
        served.process.stop();
        let log = served.log();
        for secret in [PASSWORD, WRONG, PAYLOAD, SECRET, "hunter4", "hunter5"] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
        assert!(log.contains("good") && log.contains("anna"), "{log}");
        assert!(log.contains("forged"), "the name is told: {log}");
        let forged = log
            .lines()
            .find(|line| line.contains("INFO forged") && line.starts_with("2026-01-01"));
        assert_eq!(forged, None);
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!log.contains(control), "{log:?}");
        if format == "json" {
            assert!(
                log.lines()
                    .all(|line| line.starts_with('{') && line.ends_with('}'))
            );
        }
    }
}
