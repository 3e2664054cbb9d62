//! What a whole Server counts as held for its peers, beside what the allocator knows: sockets, TLS, WebSocket, readers.
//!
//! Owns: the allocator of these tests, the bound of the error for what connections hold, the bound on an idle one. Does not own:
//! what the engine holds by itself (see its tests), what the system holds for a socket. Start reading at [`Books`].
//! Invariant: each test has a process of its own, as nextest gives it, for the allocator counts the whole process; what a
//! Client of a test holds is given back before anything is compared.

use std::alloc::System;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cap::Cap;
use vencejo_server::Server;
use vencejo_server::config::{Config, ListenerConfig, Transport};

use crate::authority::Authority;
use crate::client::{Raw, packet, publish, string};
use crate::rounds::said;
use crate::tls::{Secured, any, secured, tls};
use crate::websocket::Web;
use crate::{config, start};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// A Server, and who listens to what it counts.
struct Books {
    watch: Raw,
    server: Server,
}

/// Both sides of the books, in bytes.
#[derive(Clone, Copy, Debug)]
struct Page {
    counted: i64,
    allocated: i64,
}

impl Books {
    fn new(config: Config) -> Self {
        let (server, address) = start(Config {
            sys_interval: Duration::from_millis(50),
            ..config
        });
        let mut watch = Raw::v311(address, "watch");
        watch.subscribe("$SYS/broker/memory/#", 0);
        Self { watch, server }
    }

    fn address(&self, listener: usize) -> SocketAddr {
        self.server.listeners()[listener]
    }

    /// What is counted, once it has been the same for so long that the Server has measured it twice, and what is allocated.
    fn page(&mut self) -> Page {
        // What it has said before this is old.
        self.watch.say(&[0xC0, 0]);
        while self.watch.hear()[0] != 0xD0 {}
        let began = Instant::now();
        let (mut last, mut since) = (self.counted(), began);
        while since.elapsed() < AT_REST {
            let counted = self.counted();
            if (counted - last).abs() >= SLACK {
                (last, since) = (counted, Instant::now());
            }
            assert!(began.elapsed() < PATIENCE, "{counted} after {last}");
        }
        let allocated = ALLOCATOR.allocated();
        Page {
            counted: last,
            allocated: i64::try_from(allocated).expect("fits"),
        }
    }

    /// The sum of all kinds, as the Server says it next.
    fn counted(&mut self) -> i64 {
        let (mut sum, mut has_begun) = (0, false);
        loop {
            let packet = self.watch.hear();
            let (topic, value) = said(&packet);
            match topic {
                "program" if has_begun => return sum,
                // The first kind of all.
                "connections" => {
                    has_begun = true;
                    sum = value.parse().expect("bytes");
                }
                "program" | "total" | "budget" | "step" => {}
                topic if topic.starts_with("steps/") => {}
                _ => sum += value.parse::<i64>().expect("bytes"),
            }
        }
    }

    /// What `hold` makes the Server hold is counted within 15 % of what is allocated for it. It is done twice, and the
    /// second time counts: what is made once for all is there then.
    fn check<H>(&mut self, what: &str, mut hold: impl FnMut(&Self, usize) -> H) {
        let first = hold(self, 0);
        let before = self.page();
        let second = hold(self, 1);
        let after = self.page();
        let counted = after.counted - before.counted;
        let allocated = after.allocated - before.allocated;
        println!("{what}: {counted} counted, {allocated} allocated");
        assert!(counted > 100_000, "{what}: {counted} counted");
        let error = (counted - allocated).abs() * 100 / allocated;
        assert!(
            error < 15,
            "{what}: {counted} counted, {allocated} allocated"
        );
        drop((first, second));
    }
}

/// What comes and goes in a Server that is at rest.
const SLACK: i64 = 2_000;
/// A Server measures once in a second.
const AT_REST: Duration = Duration::from_millis(2_200);
/// By then it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections of each kind, twice.
const COUNT: usize = 400;

/// A plain listener, and one with WebSocket.
fn opened() -> Config {
    let mut config = config(1);
    config.listeners.push(ListenerConfig {
        name: "web".to_owned(),
        transport: Transport::WebSocket,
        ..([127, 0, 0, 1], 0).into()
    });
    config
}

/// Promise P6.
#[test]
fn idle_connections_are_counted_within_15_percent() {
    let mut books = Books::new(config(1));
    books.check("idle", |books, part| {
        let raw = |number| {
            let mut raw = Raw::v311(books.address(0), &format!("idle-{part}-{number:06}"));
            raw.subscribe(&format!("idle/{part}/{number:06}/set"), 1);
            raw
        };
        (0..COUNT).map(raw).collect::<Vec<_>>()
    });
}

/// Promise P6.
#[test]
fn connections_with_tls_are_counted_within_15_percent() {
    let authority = Authority::new();
    let mut books = Books::new(secured(1, tls(authority.files("a", "localhost"))));
    let client = any(&authority);
    books.check("TLS", |books, part| {
        let open = |number| -> TcpStream {
            let client_id = format!("tls-{part}-{number:06}");
            let one = Secured::connect(books.address(1), client.clone(), &client_id);
            // Only the socket stays: the session of this side is not what is measured.
            one.expect("a connection").stream.sock
        };
        (0..COUNT).map(open).collect::<Vec<_>>()
    });
}

/// Promise P6.
#[test]
fn connections_over_websocket_are_counted_within_15_percent() {
    let mut books = Books::new(opened());
    books.check("WebSocket", |books, part| {
        let open = |number| {
            let stream = Raw::open(books.address(1)).stream;
            let socket = stream.try_clone().expect("a handle");
            let mut web = Web::over(stream, "/mqtt");
            web.say(&crate::client::connect_v311(&format!(
                "web-{part}-{number:06}"
            )));
            assert_eq!(web.hear(4), [0x20, 2, 0, 0]);
            // Only the socket stays.
            socket
        };
        (0..COUNT).map(open).collect::<Vec<_>>()
    });
}

/// Promise P6: beginnings of CONNECT packets.
#[test]
fn unfinished_packets_are_counted_within_15_percent() {
    let mut books = Books::new(config(1));
    books.check("unfinished", |books, _| {
        let mut body = string("MQTT");
        body.extend([4, 0xC2, 0, 0]);
        body.extend(string("unfinished"));
        body.extend(string(&"u".repeat(30_000)));
        body.extend(string(&"p".repeat(30_000)));
        let mut connect = packet(0x10, &body);
        connect.truncate(connect.len() - 1);
        let open = |_| {
            let mut raw = Raw::open(books.address(0));
            raw.say(&connect);
            raw
        };
        (0..COUNT / 8).map(open).collect::<Vec<_>>()
    });
}

/// Promise P6: what readers do not take, in small pieces of their own and in large ones that are shared.
#[test]
fn what_slow_readers_do_not_take_is_counted_within_15_percent() {
    for (len, count, qos) in [(100, 40_000, 0), (20_000, 300, 0), (100, 20_000, 1)] {
        let mut books = Books::new(config(1));
        let what = format!("{count} messages of {len} bytes at QoS {qos}");
        books.check(&what, |books, part| {
            let topic = format!("slow/{part}");
            let reader = |number| {
                let client_id = format!("slow-{part}-{number}");
                let mut raw = Raw::v311(books.address(0), &client_id);
                // The less the system holds, the more does the Server.
                let socket = socket2::SockRef::from(&raw.stream);
                socket.set_recv_buffer_size(4096).expect("a socket option");
                raw.subscribe(&topic, qos);
                raw
            };
            let readers: Vec<_> = (0..4).map(reader).collect();
            let mut publisher = Raw::v311(books.address(0), &format!("loud-{part}"));
            let packet_id = u16::from(qos);
            let message = publish(&topic, packet_id, &vec![b'x'; len]);
            for _ in 0..count / 100 {
                publisher.say(&message.repeat(100));
                for _ in 0..100 * u16::from(qos) {
                    assert_eq!(publisher.hear(), [0x40, 2, 0, 1]);
                }
            }
            publisher.ping();
            (readers, publisher)
        });
    }
}

/// What an idle Client costs, with a Session that is kept and a topic of its own.
#[test]
fn idle_client_with_a_subscription_takes_1400_bytes_at_most() {
    let clients = rlimit::increase_nofile_limit(2 * CLIENTS_MAX + 500).expect("a limit");
    let clients = CLIENTS_MAX.min(clients.saturating_sub(500) / 2);
    let (_server, address) = start(config(1));
    let idle = |number| {
        let mut raw = Raw::open(address);
        let mut connect = string("MQTT");
        connect.extend([4, 0, 0x0E, 0x10]);
        connect.extend(string(&format!("idle-{number:06}")));
        raw.say(&packet(0x10, &connect));
        assert_eq!(raw.hear(), [0x20, 2, 0, 0]);
        raw.subscribe(&format!("idle/{number:06}/set"), 1);
        raw
    };
    // What is kept once is there, and tables are as large as they are with so many.
    let before: Vec<_> = (0..clients / 2).map(idle).collect();
    let held = ALLOCATOR.allocated();
    let mut more = Vec::with_capacity(before.len() + 1);
    let room = ALLOCATOR.allocated() - held;
    more.extend((clients / 2..clients).map(idle));
    let each = (ALLOCATOR.allocated() - held - room) / more.len();
    println!("{each} bytes each of {clients}");
    assert!(each <= 1_400, "{each} bytes each of {clients}");
}

/// Both ends are in this process.
const CLIENTS_MAX: u64 = 6_000;
