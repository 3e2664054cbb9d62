//! What fills memory, done to a Server with little of it: the budget holds, a healthy pair goes on, nothing that was
//! acknowledged is lost, and afterwards everything is as it was.
//!
//! Owns: the classes M and L of what is done to brokers. Does not own: when a step is taken (see the tests of
//! `governor`). Start reading at [`Watch`]. Invariant: what is measured is what `$SYS` says.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::OverflowPolicy;
use store::Level;
use vencejo_server::config::{Config, ServerBounds};
use vencejo_server::persist::{self, ControlAnswer, ControlRequest, SessionLosses};

use crate::canary::Canary;
use crate::client::{Raw, connect_flags_v5, connect_v5, packet, publish, string, subscribe_v5};
use crate::durable::TempFolder;
use crate::{config, start};

/// A Server with a budget of 64 MiB.
fn little(shards: u16) -> Config {
    Config {
        sys_interval: Duration::from_millis(200),
        bounds: ServerBounds {
            memory_max_bytes: Some(BUDGET),
            ..ServerBounds::default()
        },
        ..config(shards)
    }
}

const BUDGET: usize = 64 * 1024 * 1024;

/// What `$SYS` says of memory.
struct Watch(Raw);

impl Watch {
    fn new(address: SocketAddr) -> Self {
        let mut watch = Raw::v311(address, "watch");
        watch.subscribe("$SYS/broker/memory/#", 0);
        Self(watch)
    }

    /// Waits until `is_it` says so of what comes, topic and value; nothing may ever be above the budget.
    fn until(&mut self, what: &str, mut is_it: impl FnMut(&str, &str) -> bool) {
        let began = Instant::now();
        let mut seen = Vec::new();
        while began.elapsed() < Duration::from_secs(60) {
            let packet = self.0.hear();
            let body = &packet[2..];
            let len = usize::from(body[0]) << 8 | usize::from(body[1]);
            let topic = String::from_utf8_lossy(&body[2..2 + len]).into_owned();
            let value = String::from_utf8_lossy(&body[2 + len..]).into_owned();
            let topic = topic.trim_start_matches("$SYS/broker/memory/");
            if topic == "total" {
                let total: usize = value.parse().expect("bytes");
                assert!(total <= BUDGET / 10 * 11, "{total} bytes");
            }
            if is_it(topic, &value) {
                return;
            }
            seen.push(format!("{topic}={value}"));
        }
        let last = &seen[seen.len().saturating_sub(40)..];
        panic!("{what} did not come: {}", last.join(" "));
    }

    /// Everything is as it was before.
    fn until_calm(&mut self) {
        self.until("calm", |topic, value| topic == "step" && value == "calm");
        self.until("room", |topic, value| {
            topic == "total" && value.parse::<usize>().expect("bytes") < BUDGET / 10 * 6
        });
    }
}

/// Publishers that say as much as they can until they are dropped.
struct Flood {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn new(address: SocketAddr, count: usize, topic: &str, qos: u16) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        // All of them before the first one says anything: it may take what others would need to get in.
        let clients = (0..count).map(|number| Raw::v311(address, &format!("flood-{number}")));
        let clients: Vec<Raw> = clients.collect();
        let threads = clients.into_iter().map(|client| {
            let is_over = Arc::clone(&is_over);
            let message = publish(topic, qos, &[b'x'; 2000]);
            std::thread::spawn(move || {
                let mut stream = client.stream;
                let patience = Some(Duration::from_millis(20));
                stream.set_write_timeout(patience).expect("a timeout");
                let mut answers = [0; 4096];
                let mut at = 0;
                while !is_over.load(Ordering::Relaxed) {
                    match stream.write(&message[at..]) {
                        Ok(len) => at = (at + len) % message.len(),
                        Err(error) if is_patience(&error) => {}
                        Err(_) => return,
                    }
                    stream.set_nonblocking(true).expect("a socket");
                    if !matches!(stream.read(&mut answers), Err(error) if is_patience(&error)) {
                        // Acknowledgements; their number is not looked at.
                    }
                    stream.set_nonblocking(false).expect("a socket");
                }
            })
        });
        Self {
            threads: threads.collect(),
            is_over,
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no panic");
        }
    }
}

fn is_patience(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A subscriber that takes nothing.
fn sleeper(address: SocketAddr, client_id: &str, qos: u8) -> Raw {
    let mut sleeper = Raw::v5(address, client_id, 0);
    sleeper.say(&subscribe_v5("flood", qos));
    assert_eq!(sleeper.hear()[..1], [0x90]);
    sleeper
}

/// Promises P6 and P20.
#[test]
fn publishers_at_full_speed_into_a_reader_that_never_reads_stay_within_the_budget() {
    for shards in [1, 2] {
        let (_server, address) = start(little(shards));
        let mut watch = Watch::new(address);
        let canary = Canary::new(address);
        let sleeper = sleeper(address, "sleeper", 1);
        let flood = Flood::new(address, 50, "flood", 1);
        watch.until("back-pressure", |topic, value| {
            topic == "steps/throttle" && value != "0"
        });
        canary.sing();
        for _ in 0..3 {
            watch.until("a total", |topic, _| topic == "total");
        }
        drop(flood);
        drop(sleeper);
        watch.until_calm();
    }
}

/// Promise P6: 59 MB from 60 unfinished CONNECTs elsewhere.
#[test]
fn unfinished_connects_hold_nothing_beyond_their_budget() {
    for (count, bytes) in [(60, 900_000), (2_000, 30_000)] {
        let (_server, address) = start(Config {
            bounds: ServerBounds {
                unauthenticated_bytes_max: 8 * 1024 * 1024,
                ..little(1).bounds
            },
            ..little(1)
        });
        let mut watch = Watch::new(address);
        let canary = Canary::new(address);
        let mut beginning = packet(0x10, &vec![0; 1_000_000])[..4].to_vec();
        beginning.extend_from_slice(&connect_v5("c", 0, &[], &[])[2..]);
        beginning.resize(bytes, 0);
        let connects: Vec<_> = (0..count)
            .map(|_| {
                let mut stream = TcpStream::connect(address).expect("accepts");
                // It may be closed before all of it is said.
                stream.write_all(&beginning).ok();
                stream
            })
            .collect();
        let mut updates = 0;
        watch.until("input", |topic, value| {
            let input = (topic == "input").then(|| value.parse::<usize>().expect("bytes"));
            // What one read more brings, and what each may hold whatever the others do.
            let most = (8 << 20) + (1 << 20) + count * 4096;
            assert!(input.is_none_or(|input| input <= most), "{input:?}");
            // All of them may be refused by now: each that grows beyond what there is room for is.
            updates += usize::from(input.is_some());
            updates == 5
        });
        canary.sing();
        Raw::v5(address, "one more", 0).ping();
        drop(connects);
        watch.until_calm();
    }
}

#[test]
fn oldest_connection_that_has_shown_nothing_makes_room_for_new_ones() {
    let mut config = config(1);
    config.bounds.unauthenticated_max = 10;
    let (_server, address) = start(config);
    let canary = Canary::new(address);
    let mut silent: Vec<_> = (0..20).map(|_| Raw::open(address)).collect();
    for oldest in &mut silent[..10] {
        assert!(oldest.is_at_end());
    }
    let mut client = Raw::v5(address, "client", 0);
    client.ping();
    // The youngest are heard.
    let youngest = silent.last_mut().expect("twenty");
    youngest.say(&connect_v5("youngest", 0, &[], &[]));
    assert_eq!(youngest.hear()[..1], [0x20]);
    canary.sing();
}

/// A publisher of MQTT 5 that waits for each answer.
struct Polite(Raw);

impl Polite {
    /// Publishes at QoS 1; returns the Reason Code of the PUBACK.
    fn publish(&mut self, first_byte: u8, topic: &str, payload: &[u8]) -> u8 {
        let body = [&string(topic)[..], &[0, 1, 0], payload].concat();
        self.0.say(&packet(first_byte, &body));
        let answer = self.0.hear();
        assert_eq!(answer[0], 0x40, "{answer:?}");
        answer.get(4).copied().unwrap_or(0)
    }
}

/// Promises P5 and P6.
#[test]
fn flood_of_retained_messages_is_refused_at_the_budget_and_what_was_taken_stays() {
    let (_server, address) = start(little(2));
    let mut watch = Watch::new(address);
    let canary = Canary::new(address);
    let mut publisher = Polite(Raw::v5(address, "publisher", 0));
    let mut taken = 0;
    while publisher.publish(0x33, &format!("r/{taken}"), &[b'x'; 100_000]) < 0x80 {
        taken += 1;
    }
    assert!(taken > 100, "{taken}");
    canary.sing();
    watch.until("the step", |topic, value| {
        topic == "step" && ["spill", "disconnect"].contains(&value)
    });
    for number in 0..taken {
        assert!(publisher.publish(0x33, &format!("r/{number}"), b"") < 0x80);
    }
    watch.until_calm();
    assert!(publisher.publish(0x33, "r/0", b"x") < 0x80);
}

/// Promise P6: what fills memory may be there to stay, and then who would take it away has to get in.
#[test]
fn memory_that_stays_full_locks_nobody_out() {
    let (_server, address) = start(little(1));
    let mut watch = Watch::new(address);
    let canary = Canary::new(address);
    let mut publisher = Polite(Raw::v5(address, "publisher", 0));
    let mut taken = 0;
    while publisher.publish(0x33, &format!("r/{taken}"), &[b'x'; 100_000]) < 0x80 {
        taken += 1;
    }
    drop(publisher);
    let mut refused = 0;
    let mut stranger = loop {
        let mut stranger = Raw::open(address);
        stranger.say(&connect_v5("stranger", 0, &[], &[]));
        let answer = stranger.hear();
        if answer[3] == 0 {
            break Polite(stranger);
        }
        assert_eq!(answer[3], 0x89, "{answer:?}");
        refused += 1;
        assert!(refused < 100, "for ever");
        watch.until("a total", |topic, _| topic == "total");
    };
    for number in 0..taken {
        assert!(stranger.publish(0x33, &format!("r/{number}"), b"") < 0x80);
    }
    watch.until_calm();
    canary.sing();
}

/// Promise P6: what a publisher is made to wait with does not vanish when it says goodbye behind it.
#[test]
fn publisher_that_is_slowed_down_and_leaves_has_said_all_it_said() {
    let (_server, address) = start(little(1));
    let mut leaving = Raw::v311(address, "leaving");
    let mut reader = Raw::v311(address, "reader");
    reader.subscribe("short", 0);
    let mut publisher = Polite(Raw::v5(address, "publisher", 0));
    let mut taken = 0;
    while publisher.publish(0x33, &format!("r/{taken}"), &[b'x'; 100_000]) < 0x80 {
        taken += 1;
    }
    // Less than is read at once, and more than may be said at once now.
    let payload = |number: u8| [number; 100];
    let mut last_words: Vec<u8> = (0..30)
        .flat_map(|number| publish("short", 0, &payload(number)))
        .collect();
    last_words.extend([0xE0, 0]);
    leaving.say(&last_words);
    for number in 0..30 {
        assert_eq!(reader.hear(), publish("short", 0, &payload(number)));
    }
    assert!(leaving.is_at_end());
}

/// Promise P5.
#[test]
fn flood_for_a_session_that_is_away_is_refused_and_nothing_acknowledged_is_lost() {
    for shards in [1, 2] {
        let (_server, address) = start(little(shards));
        let mut watch = Watch::new(address);
        let canary = Canary::new(address);
        let connect = connect_flags_v5(0, "away", 0, &[0x11, 0, 0, 0xFF, 0xFF], &[]);
        let mut away = Raw::open(address);
        away.say(&connect);
        away.hear();
        away.say(&subscribe_v5("flood", 1));
        away.hear();
        away.say(&[0xE0, 0]);
        assert!(away.is_at_end());
        let mut publisher = Polite(Raw::v5(address, "publisher", 0));
        let mut kept = 0_u32;
        while publisher.publish(
            0x32,
            "flood",
            &[&kept.to_be_bytes()[..], &[7; 100_000]].concat(),
        ) < 0x80
        {
            kept += 1;
        }
        assert!(kept > 100, "{kept}");
        canary.sing();
        let mut away = Raw::open(address);
        away.say(&connect);
        assert_eq!(away.hear()[..1], [0x20]);
        for number in 0..kept {
            let message = away.hear();
            assert_eq!(message[0] & 0xF6, 0x32);
            // Three bytes of length, the topic, a Packet Identifier and no properties.
            let body = &message[4..];
            assert_eq!(body[10..14], number.to_be_bytes());
            away.say(&[0x40, 2, body[7], body[8]]);
        }
        watch.until_calm();
    }
}

/// Promise P5: what is lost by a policy that the operator has chosen is shown.
#[test]
fn session_that_has_lost_messages_is_shown_with_the_reason() {
    let temp = TempFolder::new();
    let mut config = config(2);
    config.storage.data = temp.path().to_owned();
    config.storage.level = Level::Synced;
    config.limits.queued_messages_max = 2;
    config.limits.overflow_policy = OverflowPolicy::DropNewest;
    let (_server, address) = start(config);
    let mut away = Raw::open(address);
    away.say(&connect_flags_v5(
        0,
        "away",
        0,
        &[0x11, 0, 0, 0xFF, 0xFF],
        &[],
    ));
    away.hear();
    away.say(&subscribe_v5("flood", 1));
    away.hear();
    away.say(&[0xE0, 0]);
    assert!(away.is_at_end());
    let mut publisher = Polite(Raw::v5(address, "publisher", 0));
    for _ in 0..5 {
        assert_eq!(publisher.publish(0x32, "flood", b"x"), 0);
    }
    let request = ControlRequest::Losses { count: 10 };
    let answer = persist::ask(temp.path(), &request).expect("an answer");
    let away = SessionLosses {
        client_id: "away".to_owned(),
        queue_full: 3,
        congested: 0,
        too_large: 0,
    };
    let sessions = vec![away];
    assert_eq!(answer, Some(ControlAnswer::Losses { sessions }));
}
