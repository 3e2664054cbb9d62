//! Databases that say anything but what was asked, and what becomes of the logins that wait for them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vencejo_server::Server;
use vencejo_server::config::{self, Config};

use crate::client::{Raw, connect_flags_v5, string};

/// The table of each database, at this port of this machine.
fn tables(port: u16) -> Vec<String> {
    let ask = "timeout = \"200ms\", breaker = { failures = 0 }";
    let sql = "query = \"SELECT password FROM users WHERE name = ${username}\"";
    vec![
        format!("postgres = {{ url = \"postgres://u:p@127.0.0.1:{port}/d\", {sql}, {ask} }}"),
        format!("mysql = {{ url = \"mysql://u:p@127.0.0.1:{port}/d\", {sql}, {ask} }}"),
        format!("redis = {{ url = \"redis://u:p@127.0.0.1:{port}\", {ask} }}"),
        format!(
            "ldap = {{ url = \"ldap://127.0.0.1:{port}\", user_dn = \"uid=${{username}}\", {ask} }}"
        ),
        format!(
            "ldap = {{ url = \"ldap://127.0.0.1:{port}\", {ask}, \
             users = {{ base = \"o=x\", filter = \"(uid=${{username}})\" }} }}"
        ),
    ]
}

fn start(table: &str) -> Server {
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[storage]\nlevel = \"memory\"\n[authentication]\n{table}\n"
    );
    let parsed = config::parse(&text, Path::new("test.toml")).expect("is valid");
    let config = Config {
        shards: 1.try_into().expect("is not 0"),
        ..parsed
    };
    Server::start(config).expect("the Server starts")
}

/// The Reason Code that `user` gets.
fn login(server: &Server, user: &str) -> u8 {
    let login = [string(user), string("word")].concat();
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&connect_flags_v5(0xC2, "somebody", 0, &[], &login));
    client.hear()[3]
}

/// A database that does `behaves` with each connection.
fn database(behaves: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("is bound").port();
    // It ends with the process of this test.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            behaves(stream);
        }
    });
    port
}

/// Class X: who answers at the port of a database is no more trusted than a Client.
#[test]
fn database_that_says_nonsense_lets_nobody_in_and_hurts_nobody() {
    let noise = |bytes: Vec<u8>| {
        move |mut stream: TcpStream| {
            // It may be gone before it has heard all of it.
            stream.write_all(&bytes).ok();
            stream.read_exact(&mut [0; 1]).ok();
            stream.write_all(&bytes).ok();
        }
    };
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("is bound").port()
    };
    let kept = Mutex::new(Vec::new());
    let ports = [
        refused,
        database(drop),
        // It takes what it is told, and keeps still.
        database(move |stream| kept.lock().expect("one thread").push(stream)),
        database(noise(vec![0; 65_536])),
        database(noise(vec![0xFF; 65_536])),
        database(noise(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        // A message of LDAP that is of the right form, and has nothing of what was asked in it; one that has no end.
        database(noise(vec![0x30, 0x05, 0x02, 0x01, 0x01, 0x64, 0x00])),
        database(noise(vec![
            0x30, 0x84, 0x7F, 0xFF, 0xFF, 0xFF, 0x02, 0x01, 0x01,
        ])),
        // An array of Redis, and a packet of MySQL, that claim to be endless.
        database(noise(b"*2147483647\r\n$2147483647\r\n".to_vec())),
        database(noise(vec![0xFF, 0xFF, 0xFF, 0x00, 0x0A])),
        // A row of PostgreSQL with more columns than bytes, behind the end of its login.
        database(noise(
            b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05IT\0\0\0\x08\x7F\xFF\0\0D\0\0\0\x06\x7F\xFF".to_vec(),
        )),
    ];
    for port in ports {
        for table in tables(port) {
            let server = start(&table);
            assert_eq!(login(&server, "anna"), 0x88, "{table}");
            // Who has nothing to do with it is served.
            Raw::v5(server.listeners()[0], "anonymous", 0).ping();
            assert_eq!(login(&server, "anna"), 0x88, "{table}");
        }
    }
}

/// A connection that is dead, and of which nobody says so, is not asked again.
#[test]
fn connection_to_redis_that_keeps_silent_is_replaced() {
    let count = AtomicUsize::new(0);
    let port = database(move |mut stream| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        std::thread::spawn(move || {
            // What it begins with, then a question.
            let mut said = [0; 4096];
            let mut answered = 0;
            loop {
                match stream.read(&mut said) {
                    Ok(read) if read > 0 => {}
                    _ => return,
                }
                let text = String::from_utf8_lossy(&said).into_owned();
                let is_question = text.contains("HMGET");
                said.fill(0);
                if !is_question {
                    // As many yeses as there are commands.
                    let yes = "+OK\r\n".repeat(text.matches('*').count());
                    stream.write_all(yes.as_bytes()).ok();
                } else if !is_first || answered == 0 {
                    answered += 1;
                    let fields = format!("*3\r\n${}\r\n{HASH}\r\n$-1\r\n$-1\r\n", HASH.len());
                    stream.write_all(fields.as_bytes()).ok();
                }
            }
        });
    });
    let ask = "timeout = \"1s\", breaker = { failures = 0 }, cache = { allow = 0, deny = 0 }";
    let server = start(&format!(
        "redis = {{ url = \"redis://127.0.0.1:{port}\", {ask} }}"
    ));
    let wrong = 0x86;
    assert_eq!(login(&server, "anna"), wrong, "it is answered");
    assert_eq!(login(&server, "anna"), 0x88, "it is silent");
    assert_eq!(login(&server, "anna"), wrong, "it is another one");
}

/// Of `secret word`, made by mosquitto_passwd 2.0.11.
const HASH: &str = "$7$101$ga50u/ymOANPKoXr$vx730TtoKGgWJOud1wY678BEmEn4PcaB/4/ctHSDwpFTwkHXKB+w46zLDr8htvV9ME+QCzZggGfnK6WC330fIg==";

/// Class F: a file that such a table rests on is read at the start.
#[test]
fn password_and_authority_that_cannot_be_read_start_no_server() {
    let cases = [
        "postgres = { url = \"postgres://u@127.0.0.1/d\", query = \"${username}\", password_file = \"/nowhere\" }",
        "mysql = { url = \"mysql://u@127.0.0.1/d\", query = \"${username}\", tls = \"verify\", ca = \"/nowhere\" }",
        "redis = { url = \"rediss://127.0.0.1\", ca = \"/dev/null\" }",
        "redis = { url = \"redis://127.0.0.1\", password_file = \"/dev/null\" }",
        "ldap = { url = \"ldaps://127.0.0.1\", user_dn = \"${username}\", ca = \"/nowhere\" }",
        "ldap = { url = \"ldaps://127.0.0.1\", user_dn = \"${username}\", ca = \"/dev/null\" }",
    ];
    for table in cases {
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[storage]\nlevel = \"memory\"\n[authentication]\n{table}\n"
        );
        let config = config::parse(&text, Path::new("test.toml")).expect("is valid");
        let refused = Server::start(config).expect_err(table).to_string();
        assert!(
            refused.contains("/nowhere") || refused.contains("/dev/null"),
            "{refused}"
        );
    }
}
