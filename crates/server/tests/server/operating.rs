//! What an operator does to a Server that runs, and sees of it.

use std::time::{Duration, Instant};

use proto::packet::ReasonCode;

use crate::client::{PATIENCE, Raw, connect_flags_v5, string};
use crate::{config, start};

/// Verifies [MQTT-3.1.2-8] [MQTT-4.13.2-1]: the Client hears why, and its Will is published.
#[test]
fn client_disconnected_by_the_operator_is_told_and_its_will_published() {
    for shards in [1, 2, 4] {
        let (server, address) = start(config(shards));
        let mut watcher = Raw::v311(address, "watcher");
        watcher.subscribe("wills/#", 0);
        for n in 0..8 {
            let client_id = format!("unwanted-{n}");
            let will = [&[0][..], &string("wills/a"), &string("gone")].concat();
            let mut client = Raw::open(address);
            client.say(&connect_flags_v5(0x06, &client_id, 0, &[], &will));
            assert_eq!(client.hear()[3], 0);
            assert!(server.disconnect(&client_id));
            let disconnect = client.hear();
            let reason = ReasonCode::AdministrativeAction.value();
            assert_eq!((disconnect[0], disconnect[2]), (0xE0, reason));
            assert!(client.is_at_end());
            assert!(watcher.hear().ends_with(b"gone"));
            assert!(!server.disconnect(&client_id));
        }
        watcher.ping();
        server.stop();
        assert!(watcher.is_at_end());
        server.join().expect("stopped in peace");
    }
}

/// What `topic` says once it says `wanted`, or at the end of our patience.
fn sys(subscriber: &mut Raw, topic: &str, wanted: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let header = string(&format!("$SYS/broker/{topic}"));
    loop {
        let packet = subscriber.hear();
        let found = packet
            .windows(header.len())
            .position(|window| window == header);
        if let Some(at) = found {
            let text = String::from_utf8_lossy(&packet[at + header.len()..]);
            let value = text.parse().unwrap_or_else(|_| panic!("{topic} {text}"));
            if wanted(value) || Instant::now() > deadline {
                return value;
            }
        }
    }
}

#[test]
fn sys_topics_count_every_packet_and_socket_and_the_memory() {
    let mut config = config(2);
    config.sys_interval = Duration::from_millis(100);
    let (_server, address) = start(config);
    let mut watcher = Raw::v311(address, "watcher");
    let mut idle = Raw::open(address);
    let mut client = Raw::v311(address, "client");
    for _ in 0..50 {
        client.ping();
    }
    watcher.subscribe("$SYS/#", 0);
    // Two CONNECT, 50 PINGREQ, a SUBSCRIBE, and their answers.
    assert!(sys(&mut watcher, "messages/received", |value| value >= 53) >= 53);
    assert!(sys(&mut watcher, "messages/sent", |value| value >= 53) >= 53);
    assert_eq!(
        sys(&mut watcher, "connections/socket/count", |value| value == 3),
        3
    );
    assert!(sys(&mut watcher, "heap/current", |value| value > 1 << 20) > 1 << 20);
    assert!(sys(&mut watcher, "heap/maximum", |value| value > 1 << 20) > 1 << 20);
    let deadline = Instant::now() + PATIENCE;
    while !String::from_utf8_lossy(&watcher.hear()).contains("load/sockets/1min") {
        assert!(Instant::now() < deadline);
    }
    idle.say(&[0]);
    assert!(idle.is_at_end());
}
