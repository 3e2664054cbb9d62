//! The fuzz targets of security files, proxies and WebSocket on the stable toolchain: some thousand seeded inputs.
//!
//! Owns: the inputs. Does not own: what is checked (see `fuzz/bodies`). Start reading at [`Seeded`].
//! Invariant: the same inputs on every run; the seed of a failure is in its message.

// The fuzz crate knows it by its whole name.
extern crate proto as vencejo_proto;

#[path = "../../../fuzz/bodies/acl_file.rs"]
mod acl_file;
#[path = "../../../fuzz/bodies/password_file.rs"]
mod password_file;
#[path = "../../../fuzz/bodies/proxy_header.rs"]
mod proxy_header;
#[path = "../../../fuzz/bodies/signed_token.rs"]
mod signed_token;
#[path = "../../../fuzz/bodies/token.rs"]
mod token;
#[path = "../../../fuzz/bodies/websocket.rs"]
mod websocket;

use vencejo_server::authentication::Accounts;
use vencejo_server::authorization::parse_acl;
use vencejo_server::fuzzing::{header_len, open_websocket};

/// `splitmix64`: enough for inputs.
struct Seeded(u64);

impl Seeded {
    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let at = (mixed ^ (mixed >> 31)) % u64::try_from(choices.len()).expect("few");
        choices[usize::try_from(at).expect("few")]
    }
}

/// Names the seed when a run panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

#[test]
fn acl_files_mean_what_reading_them_line_by_line_means() {
    let levels = [
        "a", "b", "ann", "c1", "+", "%u", "%c", "x%c", "%u%c", "+", "+", "$x", "",
    ];
    let names = ["ann", "bob", "", "c1", "a/b", "+", "a#", "%u"];
    let mut files = 0;
    for seed in 0..30_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let plain = ["a", "b", "ann", "c1", "xc1", "annc1", "$x", ""];
        let mut topic = vec![seeded.one_of(&plain)];
        while seeded.one_of(&["more", "more", "end"]) == "more" {
            topic.push(seeded.one_of(&plain));
        }
        let (user, client_id) = (seeded.one_of(&names), seeded.one_of(&names));
        let mut file = String::new();
        while seeded.one_of(&["more", "more", "more", "more", "end"]) == "more" {
            match seeded.one_of(&["rule", "rule", "rule", "user", "other"]) {
                "rule" => {
                    file.push_str(seeded.one_of(&["topic ", "topic  ", "pattern "]));
                    file.push_str(seeded.one_of(&[
                        "",
                        "read ",
                        "write ",
                        "readwrite ",
                        "deny ",
                        "deny ",
                    ]));
                    file.push_str(seeded.one_of(&levels));
                    while seeded.one_of(&["more", "end"]) == "more" {
                        file.push('/');
                        file.push_str(seeded.one_of(&levels));
                    }
                    file.push_str(seeded.one_of(&["", "/#", "/#", " "]));
                }
                "user" => {
                    file.push_str("user ");
                    file.push_str(seeded.one_of(&["ann", "bob", "a/b", "+"]));
                }
                _ => file.push_str(seeded.one_of(&["", "# why", "topic a b", " topic a", "\r"])),
            }
            file.push('\n');
        }
        files += u32::from(parse_acl(file.as_bytes(), "acl").is_ok_and(|rules| !rules.is_empty()));
        let input = [&topic.join("/"), user, client_id, &file].join("\0");
        acl_file::run(input.as_bytes());
    }
    assert!(files > 10_000, "{files} of them were files");
}

#[test]
fn password_files_are_read_as_they_are_written_or_refused_at_a_line() {
    let digest =
        "vx730TtoKGgWJOud1wY678BEmEn4PcaB/4/ctHSDwpFTwkHXKB+w46zLDr8htvV9ME+QCzZggGfnK6WC330fIg==";
    let mut files = 0;
    for seed in 0..20_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut file = String::new();
        while seeded.one_of(&["more", "more", "end"]) == "more" {
            file.push_str(seeded.one_of(&["ann", "bob", "cid", "dan", "", "# why", " eva"]));
            file.push_str(seeded.one_of(&[":", ":", ":", ":", ":", "::", ""]));
            file.push_str(seeded.one_of(&["$6$", "$7$101$", "$7$101$", "$7$0$", "$5$", "word"]));
            let salt = seeded.one_of(&["HKOeX+qQWTBForBy", "HKOeX+qQWTBForBy", "HKOe"]);
            file.push_str(&format!("{salt}${digest}"));
            file.push_str(seeded.one_of(&["\n", "\n", "\r\n", " \n", "\n\n", "=\n"]));
        }
        files += u32::from(Accounts::parse(&file).is_ok());
        password_file::run(file.as_bytes());
    }
    assert!(files > 500, "{files} of them were files");
}

#[test]
fn no_token_of_many_is_believed_without_the_key() {
    for seed in 0..5_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut token = String::new();
        while seeded.one_of(&["more", "more", "more", "end"]) == "more" {
            token.push_str(seeded.one_of(&[
                "eyJhbGciOiJub25lIn0",
                "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
                "eyJzdWIiOiJhIiwiZXhwIjo0MDAwMDAwMDAwfQ",
                ".",
                ".",
                "=",
                "a",
                "\u{0}",
            ]));
        }
        token::run(token.as_bytes());
    }
}

/// P12: a signature that is good is not enough.
#[test]
fn claims_that_are_signed_let_in_whom_they_name_for_as_long_as_they_say() {
    let mut let_in = 0;
    for seed in 0..10_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut claims = Vec::new();
        for choices in [
            [
                "\"sub\":\"ann\"",
                "\"sub\":\"ann\"",
                "\"sub\":\"\"",
                "\"sub\":[1]",
            ],
            [
                "\"exp\":4e9",
                "\"exp\":4000000000",
                "\"exp\":1",
                "\"exp\":1e300",
            ],
            [
                "\"groups\":[\"a\",7]",
                "\"groups\":\"b\"",
                "\"groups\":{}",
                "",
            ],
            ["\"nbf\":1", "\"nbf\":4e9", "\"iss\":\"me\"", ""],
            ["\"site\":\"north\"", "\"site\":null", "\"aud\":\"web\"", ""],
            [
                "\"rights\":[]",
                "\"rights\":{\"pub\":[\"a/#\"]}",
                "\"rights\":[{\"effect\":\"allow\",\"topics\":[\"a\"]}]",
                "\"rights\":7",
            ],
            ["\"sub\":\"bob\"", "\"exp\":\"soon\"", "", ""],
        ] {
            claims.push(seeded.one_of(&choices));
        }
        claims.retain(|claim| !claim.is_empty() && seeded.one_of(&["", "", "", "no"]).is_empty());
        let end = seeded.one_of(&["}", "}", "}", "", "}}", ",}"]);
        let input = format!("c{{{}{end}", claims.join(","));
        let_in += u32::from(signed_token::run(input.as_bytes()));
    }
    assert!(let_in > 100, "{let_in} of them were let in");
}

/// P17: keys that anybody can guess are none.
#[test]
fn key_sets_let_in_by_the_keys_that_are_in_them() {
    let mut let_in = 0;
    for seed in 0..3_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut keys = Vec::new();
        while seeded.one_of(&["more", "more", "end"]) == "more" {
            let mut key = Vec::new();
            for choices in [
                ["\"kty\":\"oct\"", "\"kty\":\"oct\"", "\"kty\":\"RSA\"", ""],
                ["\"kid\":\"a\"", "\"kid\":\"b\"", "\"kid\":7", ""],
                [
                    "\"k\":\"YSBrZXkgdGhhdCBpcyBsb25nIGVub3VnaCB0byBiZSBvbmU\"",
                    "\"k\":\"YSBrZXkgdGhhdCBpcyBsb25nIGVub3VnaCB0byBiZSBvbmU\"",
                    "\"k\":\"\"",
                    "\"k\":\"YQ\"",
                ],
                [
                    "\"alg\":\"HS256\"",
                    "\"alg\":\"none\"",
                    "\"use\":\"enc\"",
                    "",
                ],
            ] {
                key.push(seeded.one_of(&choices));
            }
            key.retain(|field| !field.is_empty());
            keys.push(format!("{{{}}}", key.join(",")));
        }
        let end = seeded.one_of(&["]}", "]}", "]}", "]", "],\"keys\":[]}"]);
        let input = format!("k{{\"keys\":[{}{end}", keys.join(","));
        let_in += u32::from(signed_token::run(input.as_bytes()));
    }
    assert!(let_in > 100, "{let_in} of them let somebody in");
}

/// P12, and class S: what stands before the first packet.
#[test]
fn header_of_a_proxy_ends_where_it_ends() {
    let addresses = "\u{c}\u{0}\u{2}\u{7}\n\u{0}\u{0}\u{1}\u{1f}\u{10}\u{7}[";
    let mut headers = 0;
    for seed in 0..20_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut header = String::new();
        if seeded.one_of(&["one", "two"]) == "one" {
            header.push_str(seeded.one_of(&["PROXY", "PROXY", "PROXY", "proxy"]));
            for choices in [
                [" TCP4", " TCP4", " TCP6", " UNKNOWN"],
                [" 192.0.2.7", " 192.0.2.7", " ::1", " 1.2.3"],
                [" 10.0.0.1", " 10.0.0.1", " ::2", ""],
                [" 8080", " 8080", " 65536", " -1"],
                [" 1883", " 1883", " 0", "  1"],
                ["\r\n", "\r\n", "\n", "\r"],
            ] {
                header.push_str(seeded.one_of(&choices));
            }
        } else {
            header.push_str("\r\n\r\n\u{0}\r\nQUIT\n");
            header.push_str(seeded.one_of(&["!", "!", "!", " ", "1"]));
            header.push_str(seeded.one_of(&["\u{11}", "\u{11}", "\u{11}", "!", "\u{0}", "\u{12}"]));
            let mut body = addresses.to_owned();
            while seeded.one_of(&["more", "end"]) == "more" {
                body.push_str(seeded.one_of(&[
                    "\u{4}\u{0}\u{2}ab",
                    "\u{2}\u{0}\u{1}a",
                    " \u{0}\u{5}\u{7}\u{0}\u{0}\u{0}\u{0}",
                    " \u{0}\u{9}\u{7}\u{0}\u{0}\u{0}\u{0}\"\u{0}\u{1}a",
                    " \u{0}\u{9}\u{7}\u{0}\u{0}\u{0}\u{0}\"\u{0}\u{7}a",
                    "\u{4}\u{0}",
                ]));
            }
            let len = u8::try_from(body.len()).unwrap_or(127).min(127);
            header.push('\0');
            header.push(char::from(len));
            header.push_str(&body);
        }
        headers += u32::from(header_len(header.as_bytes()).is_ok_and(|len| len.is_some()));
        proxy_header::run(header.as_bytes());
    }
    assert!(headers > 1_000, "{headers} of them were headers");
}

#[test]
fn pieces_of_a_websocket_make_no_difference() {
    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    let mut opened = 0;
    for seed in 0..5_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut input: Vec<u8> = seeded.one_of(&["\u{0}", "\u{2}", "\u{1f}", "?"]).into();
        if seeded.one_of(&["request", "frames"]) == "request" {
            let line = seeded.one_of(&["Host: a\r\n", "", "A: b\r\n", "\r\n", "Upgrade: h2c\r\n"]);
            input.extend(REQUEST.replacen("Host: a\r\n", line, 1).bytes());
        }
        while seeded.one_of(&["more", "more", "more", "end"]) == "more" {
            let frame: &[u8] =
                match seeded.one_of(&["data", "data", "part", "ping", "close", "wrong"]) {
                    "data" => b"\x82\x83\x01\x02\x03\x04abc",
                    "part" => b"\x02\x81\0\0\0\0a\x80\x82\0\0\0\0bc",
                    "ping" => b"\x89\x82\x09\x09\x09\x09hi",
                    "close" => b"\x88\x82\0\0\0\0\x03\xE8",
                    _ => b"\x81\x01a",
                };
            input.extend_from_slice(frame);
        }
        let whole = open_websocket(&input[1..], input.len(), 4096);
        opened += u32::from(whole.said.starts_with(b"HTTP/1.1 101 "));
        websocket::run(&input);
    }
    assert!(opened > 500, "{opened} of them opened");
}
