//! Certificates, authorities, revocation lists, passwords and rights that change under a thousand live connections and
//! what they say.
//!
//! Owns: [`Crowd`], [`Flow`]. Does not own: what each file means. Start reading at the test.
//! Invariant: whoever is asked for what it heard is asked for all of it, in order.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, DEFAULT_VERSIONS, HandshakeKind};
use vencejo_server::Server;
use vencejo_server::config::{
    AuthorizationConfig, CertificateFiles, ClientCertificates, Config, ListenerConfig, TlsConfig,
    Transport,
};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{PATIENCE, Raw, connect_v311, publish, string, subscribe_v311};
#[cfg(feature = "quic")]
use crate::quic::Over;
use crate::tls::{Secured, any, client_config, secured, tls};
use crate::websocket::Web;

/// Live connections: without and with a password, over TLS, over TLS with a certificate, over WebSocket, over QUIC.
const PLAIN: usize = 500;
const OF_EACH_USER: usize = 25;
const SECURED: usize = 150;
const MUTUAL: usize = 100;
const WEB: usize = 100;
const OVER_QUIC: usize = 50;

/// Who has a password. The first one loses it, the second gets another one.
const USERS: [&str; 4] = ["anna", "otto", "emil", "ida"];

#[test]
fn nobody_is_dropped_and_a_right_that_was_taken_away_is_gone_at_once() {
    let (authority, successor) = (Authority::new(), Authority::new());
    let before = configuration(&authority);
    write_acl(&authority, true);
    write_passwords(&authority, &USERS.map(|user| (user, OF_SECRET)));
    let server = Server::start(before.clone()).expect("the Server starts");
    let canary = Canary::new(server.listeners()[0]);
    let mut crowd = Crowd::new(&server, &authority);
    let flow = Flow::new(server.listeners()[0]);
    crowd.hear_all("before", true);

    // The right to read news and what is taken away is gone, and so are one user and the password of another one.
    assert_eq!(shown(&server, &authority), certificate(&authority, "first"));
    write_acl(&authority, false);
    let [_, (otto, _), emil, ida] = USERS.map(|user| (user, OF_SECRET));
    write_passwords(&authority, &[(otto, OF_SECRET_WORD), emil, ida]);
    let mut changed = before;
    changed.listeners[1].tls = Some(tls(authority.files("second", "localhost")));
    reload(&server, &changed);
    flow.ends_with_a_right_taken_away();
    crowd.leave(&USERS[..2]);
    crowd.hear_all("after", false);
    assert_eq!(login(&server, "anna", "secret"), 4, "is no more");
    assert_eq!(login(&server, "otto", "secret"), 4, "has another one");
    assert_eq!(login(&server, "otto", "secret word"), 0);
    assert_eq!(login(&server, "emil", "secret"), 0);
    assert_eq!(
        shown(&server, &authority),
        certificate(&authority, "second")
    );

    authorities_change(&server, &mut changed, [&authority, &successor], &mut crowd);
    canary.sing();
}

/// Who may come by a certificate changes, and whose is revoked; who has come stays.
fn authorities_change(
    server: &Server,
    changed: &mut Config,
    [before, after]: [&Authority; 2],
    crowd: &mut Crowd,
) {
    let address = server.listeners()[MUTUAL_LISTENER];
    let comer = |name: &str, own: &CertificateFiles| Comer {
        client_id: name.to_owned(),
        config: client_config(before, DEFAULT_VERSIONS, Some(own)),
    };
    let [old, ticketed] = ["old", "ticketed"].map(|name| comer(name, &before.files(name, name)));
    let mut stays = vec![ticketed.comes_twice(address)];
    changed.listeners[MUTUAL_LISTENER].tls = Some(mutual(before, after));
    reload(server, changed);
    for comer in [&old, &ticketed] {
        let error = comer.comes(address).map(drop).expect_err("is a stranger");
        assert!(error.contains("UnknownCA"), "{}: {error}", comer.client_id);
    }
    let new = comer("new", &after.files("new", "new"));
    drop(new.comes(address).expect("is let in"));
    assert_eq!(crowd.hear_all("another authority", false), 950);

    let revoked = comer("revoked", &after.revoked_files("revoked", "revoked"));
    stays.push(revoked.comes_twice(address));
    let listed = changed.listeners[MUTUAL_LISTENER].tls.as_mut();
    listed.expect("is secured").crl = Some(after.path("crl.pem"));
    reload(server, changed);
    let error = revoked.comes(address).map(drop).expect_err("is revoked");
    assert!(error.contains("CertificateRevoked"), "{error}");
    drop(new.comes(address).expect("is let in"));
    assert_eq!(crowd.hear_all("a revocation", false), 950);
    stays.iter_mut().for_each(pings);
}

/// The certificate that Clients are shown.
fn shown(server: &Server, authority: &Authority) -> CertificateDer<'static> {
    let shown = Secured::connect(server.listeners()[1], any(authority), "looks");
    let shown = shown.expect("is let in").stream.conn;
    let chain = shown.peer_certificates().expect("is shown one");
    chain[0].clone().into_owned()
}

fn certificate(authority: &Authority, file: &str) -> CertificateDer<'static> {
    let file = authority.path(&format!("{file}.pem"));
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// Listeners: plain, with TLS, with certificates of Clients, of WebSocket, of QUIC.
fn configuration(authority: &Authority) -> Config {
    let shown = || tls(authority.files("first", "localhost"));
    let mut config = secured(2, shown());
    let mut listen = |name: &str, transport, tls| {
        config.listeners.push(ListenerConfig {
            name: name.to_owned(),
            transport,
            tls,
            ..([127, 0, 0, 1], 0).into()
        });
    };
    listen(
        "mutual",
        Transport::Stream,
        Some(mutual(authority, authority)),
    );
    listen("web", Transport::WebSocket, None);
    #[cfg(feature = "quic")]
    listen("quic", Transport::Quic, Some(shown()));
    config.authorization = Some(AuthorizationConfig {
        acl_file: Some(authority.path("acl")),
        ..AuthorizationConfig::default()
    });
    config.authentication.password_file = Some(authority.path("passwords"));
    config
}

const MUTUAL_LISTENER: usize = 2;

/// A Server that `authority` has signed, and Clients that `of_clients` has.
fn mutual(authority: &Authority, of_clients: &Authority) -> TlsConfig {
    TlsConfig {
        client_ca: Some(of_clients.path("ca.pem")),
        client_certificates: ClientCertificates::Required,
        ..tls(authority.files("mutual", "localhost"))
    }
}

/// Who reads what, with the right to read news and what is taken away, or without.
fn write_acl(authority: &Authority, is_before: bool) {
    let lines = [
        "topic read stays/#",
        "topic read news/#",
        "topic read taken/#",
    ];
    let lines = &lines[..if is_before { 3 } else { 1 }];
    let mut file = vec![
        "pattern read odd/%c",
        "topic readwrite canary",
        "topic readwrite flow/#",
        "topic write #",
    ];
    file.extend(lines);
    let of_users = USERS.map(|user| format!("user {user}\n{}", lines.join("\n")));
    let text = format!("{}\n{}\n", file.join("\n"), of_users.join("\n"));
    std::fs::write(authority.path("acl"), text).expect("a file");
}

fn write_passwords(authority: &Authority, users: &[(&str, &str)]) {
    let lines = users.iter().map(|(user, hash)| format!("{user}:{hash}\n"));
    let text: String = lines.collect();
    std::fs::write(authority.path("passwords"), text).expect("a file");
}

fn reload(server: &Server, config: &Config) {
    let reloaded = server.reload(config.clone()).expect("is taken over");
    assert_eq!(reloaded.left, [""; 0]);
}

/// One connection, whatever carries it.
trait Carried {
    fn say(&mut self, bytes: &[u8]);
    /// The next packet, which is a short one, or nothing at the end.
    fn hear(&mut self) -> Vec<u8>;
}

impl<S: Read + Write> Carried for Raw<S> {
    fn say(&mut self, bytes: &[u8]) {
        Self::say(self, bytes);
    }

    fn hear(&mut self) -> Vec<u8> {
        Self::hear(self)
    }
}

impl<S: Read + Write> Carried for Web<S> {
    fn say(&mut self, bytes: &[u8]) {
        Self::say(self, bytes);
    }

    fn hear(&mut self) -> Vec<u8> {
        let mut packet = Self::hear(self, 2);
        packet.extend(Self::hear(self, usize::from(packet[1])));
        packet
    }
}

#[cfg(feature = "quic")]
impl Carried for Over {
    fn say(&mut self, bytes: &[u8]) {
        Self::say(self, bytes);
    }

    fn hear(&mut self) -> Vec<u8> {
        self.hear_packet()
    }
}

/// One of the thousand. Every other one reads what is for it alone, and the others read news; all read what stays.
struct Member {
    client_id: String,
    is_odd: bool,
    connection: Box<dyn Carried>,
}

impl Member {
    fn hears(&mut self, topic: &str, payload: &str) {
        let expected = publish(topic, 0, payload.as_bytes());
        assert_eq!(self.connection.hear(), expected, "{}", self.client_id);
    }
}

/// All of them, and who publishes for them.
struct Crowd {
    members: Vec<Member>,
    publisher: Raw,
}

impl Crowd {
    fn new(server: &Server, authority: &Authority) -> Self {
        let publisher = Raw::v311(server.listeners()[0], "publisher");
        let mut crowd = Self {
            members: Vec::new(),
            publisher,
        };
        let [plain, secure, mutual, web] =
            [0, 1, MUTUAL_LISTENER, 3].map(|n| server.listeners()[n]);
        crowd.come("plain", PLAIN, |_| Box::new(Raw::open(plain)));
        for user in USERS {
            crowd.come(user, OF_EACH_USER, |_| Box::new(Raw::open(plain)));
        }
        let trusting = any(authority);
        crowd.come("tls", SECURED, |_| over_tls(secure, &trusting));
        let own = authority.files("own", "own");
        let own = client_config(authority, DEFAULT_VERSIONS, Some(&own));
        crowd.come("mutual", MUTUAL, |_| over_tls(mutual, &own));
        crowd.come("web", WEB, |_| {
            Box::new(Web::over(Raw::open(web).stream, "/mqtt"))
        });
        #[cfg(feature = "quic")]
        crowd.come("quic", OVER_QUIC, |_| {
            Box::new(Over::open(server.listeners()[4], authority))
        });
        #[cfg(not(feature = "quic"))]
        crowd.come("more", OVER_QUIC, |_| over_tls(secure, &trusting));
        assert_eq!(crowd.members.len(), 1000);
        crowd
    }

    /// Lets `count` more in; a user with its password.
    fn come(&mut self, name: &str, count: usize, open: impl Fn(usize) -> Box<dyn Carried>) {
        for n in 0..count {
            let client_id = format!("{name}-{n}");
            let mut connection = open(n);
            connection.say(&if USERS.contains(&name) {
                connect_as(&client_id, name, "secret")
            } else {
                connect_v311(&client_id)
            });
            assert_eq!(connection.hear(), [0x20, 2, 0, 0], "{client_id}");
            let is_odd = n % 2 == 1;
            let own = format!("odd/{client_id}");
            for filter in [if is_odd { &own } else { "news/#" }, "stays/#"] {
                connection.say(&subscribe_v311(filter, 0));
                assert_eq!(connection.hear(), [0x90, 3, 0, 1, 0], "{client_id}");
            }
            self.members.push(Member {
                client_id,
                is_odd,
                connection,
            });
        }
    }

    /// What is for all is published, and heard by whom it is for, and by nobody else; by how many.
    fn hear_all(&mut self, what: &str, has_news: bool) -> usize {
        let payload = what.as_bytes();
        self.publisher.say(&publish("news/a", 0, payload));
        for member in self.members.iter().filter(|member| member.is_odd) {
            let topic = format!("odd/{}", member.client_id);
            self.publisher.say(&publish(&topic, 0, payload));
        }
        // It comes behind all the others.
        self.publisher.say(&publish("stays/a", 0, payload));
        for member in &mut self.members {
            if member.is_odd {
                member.hears(&format!("odd/{}", member.client_id), what);
            } else if has_news {
                member.hears("news/a", what);
            }
            member.hears("stays/a", what);
        }
        self.members.len()
    }

    /// The connections of `users` have ended, and are looked after no more.
    fn leave(&mut self, users: &[&str]) {
        let is_of = |member: &Member| {
            let (name, _) = member.client_id.split_once('-').expect("a name");
            users.contains(&name)
        };
        let before = self.members.len();
        self.members.retain_mut(|member| {
            let is_over = is_of(member);
            if is_over {
                assert_eq!(member.connection.hear(), [0; 0], "{}", member.client_id);
            }
            !is_over
        });
        assert_eq!(before - self.members.len(), users.len() * OF_EACH_USER);
    }
}

fn over_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Box<dyn Carried> {
    let stream = Secured::open(address, Arc::clone(config), "localhost").stream;
    Box::new(Raw { stream })
}

/// Messages that go on while files change: numbered ones of QoS 1, to a topic that stays and to one that is taken away.
struct Flow {
    acknowledged: Receiver<u32>,
    end: Sender<()>,
    publisher: JoinHandle<u32>,
    reader: JoinHandle<(u32, u32)>,
}

impl Flow {
    fn new(address: SocketAddr) -> Self {
        let mut reader = Raw::v311(address, "flow-reader");
        reader.subscribe("flow/#", 1);
        reader.subscribe("taken/#", 1);
        let mut publisher = Raw::v311(address, "flow-publisher");
        let ((acknowledge, acknowledged), (end, is_over)) = (mpsc::channel(), mpsc::channel());
        let mut publish_both = move |number: u32| {
            for topic in ["taken/a", "flow/a"] {
                publisher.say(&publish(topic, 1, &number.to_be_bytes()));
                assert_eq!(publisher.hear(), [0x40, 2, 0, 1]);
            }
        };
        let publisher = std::thread::spawn(move || {
            let mut number = 0;
            while is_over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                number += 1;
                publish_both(number);
                acknowledge.send(number).expect("the test listens");
            }
            publish_both(LAST);
            number
        });
        let reader = std::thread::spawn(move || {
            let (mut flow, mut taken) = (0, 0);
            loop {
                let packet = reader.hear();
                reader.say(&[0x40, 2, packet[packet.len() - 6], packet[packet.len() - 5]]);
                let number = packet.last_chunk().copied().expect("a number");
                match (u32::from_be_bytes(number), packet[4]) {
                    (LAST, b'f') => return (flow, taken),
                    (number, first) => {
                        let before = if first == b'f' { &mut flow } else { &mut taken };
                        assert_eq!(number, *before + 1, "of {}", char::from(first));
                        *before = number;
                    }
                }
            }
        });
        Self {
            acknowledged,
            end,
            publisher,
            reader,
        }
    }

    /// It ends after some more: nothing of what stays is missing, and of what was taken away nothing has come since.
    fn ends_with_a_right_taken_away(self) {
        let until = self.acknowledged.try_iter().last().expect("it has begun");
        while self
            .acknowledged
            .recv_timeout(PATIENCE)
            .expect("it goes on")
            < until + 50
        {}
        self.end.send(()).expect("it is listening");
        // What is said from here on is nobody's concern, but has to go somewhere.
        let acknowledged = self.acknowledged;
        let last = self.publisher.join().expect("it was read to the end");
        drop(acknowledged);
        let (flow, taken) = self.reader.join().expect("it heard all");
        assert_eq!(flow, last);
        // One was on its way.
        assert!((1..=until + 1).contains(&taken), "{taken} after {until}");
    }
}

/// A Client that has a certificate.
struct Comer {
    client_id: String,
    config: Arc<ClientConfig>,
}

impl Comer {
    fn comes(&self, address: SocketAddr) -> Result<Secured, String> {
        Secured::connect(address, Arc::clone(&self.config), &self.client_id)
    }

    /// The second time by half a handshake, for which the ticket of the first is enough.
    fn comes_twice(&self, address: SocketAddr) -> Secured {
        let mut first = self.comes(address).expect("is let in");
        pings(&mut first);
        let mut second = self.comes(address).expect("is let in again");
        let kind = second.stream.conn.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed));
        pings(&mut second);
        second
    }
}

fn pings(client: &mut Secured) {
    client.say(&[0xC0, 0]);
    assert_eq!(client.hear(2), [0xD0, 0]);
}

/// CONNECT of 3.1.1 with a User Name and a Password.
fn connect_as(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut connect = connect_v311(client_id);
    // In the flags and behind the Client Identifier.
    connect[9] |= 0xC0;
    connect.extend([string(user), string(password)].concat());
    connect[1] = u8::try_from(connect.len() - 2).expect("short");
    connect
}

/// The return code to a Client that says who it is.
fn login(server: &Server, user: &str, password: &str) -> u8 {
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&connect_as("login", user, password));
    client.hear()[3]
}

/// Between two messages of a flow.
const PAUSE: Duration = Duration::from_millis(1);
const LAST: u32 = u32::MAX;
/// As mosquitto_passwd 2.0 writes them, for the passwords `secret` and `secret word`.
const OF_SECRET: &str = "$7$101$M4oVbr/hebfTv2IZ$mkIDouR1P4cbRK44mnGBCr60nEtK1K66sTRHL5xfeRwT1YObOAvfhINFNL7AL/XVH5k7a5CdsxjyM6vQI3DYug==";
const OF_SECRET_WORD: &str = "$7$101$ga50u/ymOANPKoXr$vx730TtoKGgWJOud1wY678BEmEn4PcaB/4/ctHSDwpFTwkHXKB+w46zLDr8htvV9ME+QCzZggGfnK6WC330fIg==";
