//! The opening handshake of WebSocket: one HTTP request, and what it is answered.
//!
//! Owns: [`answer`], which requests are wanted. Does not own: the limit on their size (see the parent).
//! Start reading at [`answer`]. Invariant: a request that breaks a rule is answered with a status and a reason.

use std::net::IpAddr;

use aws_lc_rs::digest;
use data_encoding::BASE64;
use httparse::{Request, Status};

/// The sub-protocols of MQTT, the one we would rather have first.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Where MQTT is served.
const PATHS: [&str; 3] = ["/mqtt", "/", "/ws"];
/// RFC 6455, section 1.3.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Header fields of one request.
const FIELDS_MAX: usize = 64;

/// Why a request is refused: the status line, and in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: &'static str,
    pub(super) reason: &'static str,
}

/// The request was too long to be read.
pub(super) const TOO_LONG: Refusal = Refusal {
    status: "431 Request Header Fields Too Large",
    reason: "the request is longer than 8 KiB",
};

/// A request that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Its length.
    pub(super) len: usize,
    /// What opens the connection.
    pub(super) answer: String,
    /// Whether a browser has sent it for a page that is not of this machine.
    pub(super) is_of_foreign_page: bool,
}

/// Reads the request at the front of `bytes`; nothing if it is not complete.
/// # Errors
/// It is not one, or not one for MQTT.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<Opened>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LONG),
        Err(_) => return Err(bad("this is not a request of HTTP")),
    };
    let fields = Fields(request.headers);
    if request.method != Some("GET") {
        return Err(Refusal {
            status: "405 Method Not Allowed",
            reason: "the method must be GET",
        });
    }
    if request.version != Some(1) {
        return Err(Refusal {
            status: "505 HTTP Version Not Supported",
            reason: "the version must be HTTP/1.1",
        });
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if !PATHS.contains(&path) {
        return Err(Refusal {
            status: "404 Not Found",
            reason: "MQTT is at /mqtt",
        });
    }
    let key = fields.judge()?;
    let protocol = fields.protocol()?;
    Ok(Some(Opened {
        len,
        answer: opened(key, protocol),
        is_of_foreign_page: fields
            .all("Origin")
            .any(|origin| !is_of_this_machine(origin)),
    }))
}

/// Whether a page with this origin was served by this machine. Its name has to say so: any other one may be made to
/// point here.
fn is_of_this_machine(origin: &str) -> bool {
    let authority = origin.split_once("://").map_or("", |(_, rest)| rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "")),
        None => authority
            .find(':')
            .map_or((authority, ""), |at| authority.split_at(at)),
    };
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    is_port && (host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback))
}

/// The header fields of a request.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// Values of a field, each time it is there.
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = self
            .0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name));
        // What is no text is no word that we look for.
        named.map(|field| std::str::from_utf8(field.value).unwrap_or_default())
    }

    /// The value of a field that has to be there once.
    fn one(&self, name: &'static str) -> Option<&'a str> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// Words of a list.
    fn words(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }

    fn has_word(&self, name: &'static str, word: &str) -> bool {
        self.words(name)
            .any(|found| found.eq_ignore_ascii_case(word))
    }

    /// RFC 6455, section 4.2.1: returns the key.
    fn judge(&self) -> Result<&'a str, Refusal> {
        if self.one("Host").is_none() {
            return Err(bad("Host must be there once"));
        }
        if !self.has_word("Upgrade", "websocket") {
            return Err(Refusal {
                status: "426 Upgrade Required",
                reason: "Upgrade must be websocket: this port speaks MQTT over WebSocket",
            });
        }
        if !self.has_word("Connection", "Upgrade") {
            return Err(bad("Connection must be Upgrade"));
        }
        if self.one("Sec-WebSocket-Version") != Some("13") {
            return Err(Refusal {
                status: "426 Upgrade Required",
                reason: "Sec-WebSocket-Version must be 13",
            });
        }
        let key = self.one("Sec-WebSocket-Key").unwrap_or_default();
        let bytes = BASE64.decode(key.as_bytes()).unwrap_or_default();
        if bytes.len() != 16 {
            return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64"));
        }
        Ok(key)
    }

    /// [MQTT-6.0.0-3] [v3.1.1 MQTT-6.0.0-3] A Client offers `mqtt`. [MQTT-6.0.0-4] [v3.1.1 MQTT-6.0.0-4] It is
    /// chosen where it is offered; `mqttv3.1` is what Clients of MQTT 3.1 offer.
    fn protocol(&self) -> Result<&'static str, Refusal> {
        let offered = |name: &&str| {
            self.words("Sec-WebSocket-Protocol")
                .any(|found| found == *name)
        };
        let chosen = PROTOCOLS.into_iter().find(offered);
        chosen.ok_or_else(|| bad("Sec-WebSocket-Protocol must offer mqtt"))
    }
}

impl Refusal {
    /// What the peer is told.
    pub(super) fn response(&self) -> String {
        let Self { status, reason } = self;
        // RFC 6455, section 4.4: the version we speak, where it may be that which was wrong.
        let more = if status.starts_with("426") {
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade, close\r\n"
        } else {
            "Connection: close\r\n"
        };
        let len = reason.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\n{more}Content-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{reason}\n"
        )
    }
}

const fn bad(reason: &'static str) -> Refusal {
    Refusal {
        status: "400 Bad Request",
        reason,
    }
}

/// RFC 6455, section 4.2.2. No extension is agreed on, so none is named.
fn opened(key: &str, protocol: &str) -> String {
    let accept = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{ACCEPT_GUID}").as_bytes(),
    );
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
         {}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        BASE64.encode(accept.as_ref())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, section 1.2, for MQTT.
    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: \
                           Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: \
                           mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn request_of_the_standard_is_answered_as_there() {
        let followed = format!("{REQUEST}rest");
        let Opened { len, answer, .. } = answer(followed.as_bytes())
            .expect("is wanted")
            .expect("all");
        assert_eq!(len, REQUEST.len());
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!answer.contains("Extensions"));
        for end in 0..REQUEST.len() {
            assert_eq!(super::answer(&REQUEST.as_bytes()[..end]), Ok(None));
        }
    }

    #[test]
    fn other_words_of_a_request_are_wanted_too() {
        for (from, to) in [
            ("/mqtt ", "/ "),
            ("/mqtt ", "/ws "),
            ("/mqtt ", "/mqtt?token=x "),
            ("Upgrade: websocket", "UPGRADE: WebSocket"),
            ("Connection: Upgrade", "connection: keep-alive, upgrade"),
            ("mqtt\r\n", "other, mqtt\r\n"),
            ("mqtt\r\n", "other\r\nSec-WebSocket-Protocol: mqtt\r\n"),
            (
                "Host:",
                "Sec-WebSocket-Extensions: permessage-deflate\r\nHost:",
            ),
        ] {
            let request = REQUEST.replacen(from, to, 1);
            assert_ne!(request, REQUEST);
            assert!(
                matches!(answer(request.as_bytes()), Ok(Some(_))),
                "{request}"
            );
        }
    }

    #[test]
    fn page_is_of_this_machine_if_its_name_cannot_be_of_another() {
        let cases = [
            ("", false),
            ("Origin: http://localhost:3000\r\n", false),
            ("Origin: https://127.0.0.1\r\n", false),
            ("Origin: http://[::1]:80\r\n", false),
            ("Origin: http://example.com\r\n", true),
            ("Origin: http://localhost.example.com\r\n", true),
            ("Origin: http://127.0.0.1.example.com\r\n", true),
            ("Origin: http://localhost:80@example.com\r\n", true),
            ("Origin: http://10.0.0.1\r\n", true),
            ("Origin: null\r\n", true),
            ("Origin: file://\r\n", true),
            ("Origin: http://localhost\r\nOrigin: http://a.b\r\n", true),
        ];
        for (field, expected) in cases {
            let lines = REQUEST.split_inclusive("\r\n");
            let others: String = lines.filter(|line| !line.starts_with("Origin")).collect();
            let request = others.replacen("\r\n", &format!("\r\n{field}"), 1);
            let opened = answer(request.as_bytes()).expect("is wanted").expect("all");
            assert_eq!(opened.is_of_foreign_page, expected, "{field}");
        }
    }

    /// Verifies [MQTT-6.0.0-4] and [v3.1.1 MQTT-6.0.0-4]: the name that is chosen is `mqtt`.
    #[test]
    fn mqtt_is_chosen_before_the_name_of_3_1() {
        for (offered, chosen) in [("mqttv3.1, mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1")] {
            let request = REQUEST.replacen("mqtt\r\n", &format!("{offered}\r\n"), 1);
            let opened = answer(request.as_bytes()).expect("is wanted").expect("all");
            let answer = opened.answer;
            assert!(answer.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")));
        }
    }

    /// Verifies [MQTT-6.0.0-3], and every rule of RFC 6455, section 4.2.1.
    #[test]
    fn request_that_breaks_a_rule_is_refused_with_a_status() {
        let cases = [
            ("GET", "POST", "405"),
            ("HTTP/1.1", "HTTP/1.0", "505"),
            ("/mqtt ", "/admin ", "404"),
            ("/mqtt ", "/mqtt/../ ", "404"),
            ("Host:", "Hast:", "400"),
            ("Host:", "Host: a\r\nHost:", "400"),
            ("Upgrade: websocket", "Upgrade: h2c", "426"),
            ("Upgrade: websocket\r\n", "", "426"),
            ("Connection: Upgrade", "Connection: close", "400"),
            ("Version: 13", "Version: 8", "426"),
            ("Sec-WebSocket-Version: 13\r\n", "", "426"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", "400"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!", "400"),
            ("Sec-WebSocket-Key:", "Sec-WebSocket-Kay:", "400"),
            ("mqtt\r\n", "chat\r\n", "400"),
            ("mqtt\r\n", "MQTT\r\n", "400"),
            ("Sec-WebSocket-Protocol: mqtt\r\n", "", "400"),
            ("Host:", "Ho st:", "400"),
            ("GET", "\u{10}\u{0}", "400"),
        ];
        for (from, to, status) in cases {
            let request = REQUEST.replacen(from, to, 1);
            assert_ne!(request, REQUEST, "{from}");
            let refusal = answer(request.as_bytes()).expect_err(&request);
            assert!(refusal.status.starts_with(status), "{request}: {refusal:?}");
            let response = refusal.response();
            let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
        }
        let fields = "A: b\r\n".repeat(FIELDS_MAX + 1);
        let request = REQUEST.replacen("Host:", &format!("{fields}Host:"), 1);
        assert_eq!(answer(request.as_bytes()), Err(TOO_LONG));
    }
}
