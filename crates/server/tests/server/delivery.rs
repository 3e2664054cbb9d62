//! Messages from socket to socket: between shards, large ones, to readers that do not keep up.

use std::io::{ErrorKind, Read};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::client::{PATIENCE, Raw, publish};
use crate::{config, start};

/// Verifies [MQTT-4.6.0-6] [v3.1.1 MQTT-4.6.0-6]: order is kept from one publisher to every subscriber, on whatever
/// shards they are.
#[test]
fn messages_reach_subscribers_of_all_shards_in_order() {
    const MESSAGES: u16 = 500;
    for shards in [2, 4] {
        let (_server, address) = start(config(shards));
        let mut subscribers: Vec<Raw> = (0..12)
            .map(|n| Raw::v311(address, &format!("subscriber-{n}")))
            .collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe("a/+", 1);
        }
        let mut publisher = Raw::v311(address, "publisher");
        for n in 1..=MESSAGES {
            publisher.say(&publish("a/b", n, &n.to_be_bytes()));
        }
        for n in 1..=MESSAGES {
            let id = n.to_be_bytes();
            assert_eq!(publisher.hear(), [0x40, 2, id[0], id[1]]);
        }
        for subscriber in &mut subscribers {
            for n in 1..=MESSAGES {
                let heard = subscriber.hear();
                assert_eq!(heard[0], 0x32);
                assert_eq!(heard[heard.len() - 2..], n.to_be_bytes(), "shards {shards}");
                let id = &heard[7..9];
                subscriber.say(&[0x40, 2, id[0], id[1]]);
            }
        }
    }
}

/// Verifies [MQTT-4.2-1] [v3.1.1 MQTT-7.1.1-1]: the transport brings every byte, in order.
#[test]
fn every_payload_length_around_a_threshold_arrives_whole() {
    let (_server, address) = start(config(2));
    let mut subscribers: Vec<Raw> = (0..4)
        .map(|n| Raw::v311(address, &format!("large-subscriber-{n}")))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("large", 0);
    }
    let mut publisher = Raw::v311(address, "large-publisher");
    for len in [
        0, 1, 511, 512, 513, 4095, 4096, 16_000, 65_529, 65_536, 100_000, 300_000, 1_000_000,
    ] {
        let payload: Vec<u8> = (0..len)
            .map(|n: u32| n.to_le_bytes()[1] ^ n.to_le_bytes()[0])
            .collect();
        let packet = publish("large", 0, &payload);
        let writer = {
            let mut stream = publisher.stream.try_clone().expect("a second handle");
            let packet = packet.clone();
            thread::spawn(move || std::io::Write::write_all(&mut stream, &packet).expect("reads"))
        };
        for subscriber in &mut subscribers {
            assert!(subscriber.hear() == packet, "payload of {len} bytes");
        }
        writer.join().expect("written");
    }
    publisher.ping();
}

#[test]
fn reader_that_does_not_keep_up_loses_qos_0_and_nobody_else_does() {
    const MESSAGES: u32 = 4000;
    let (_server, address) = start(config(2));
    let mut slow = Raw::v311(address, "slow");
    slow.subscribe("fast/#", 0);
    let mut other = Raw::v311(address, "other");
    other.subscribe("fast/#", 0);
    let mut publisher = Raw::v311(address, "publisher");
    let (heard_so_far, progress) = mpsc::channel();
    let reader = thread::spawn(move || {
        for n in 0..MESSAGES {
            let heard = other.hear();
            assert_eq!(heard[heard.len() - 4..], n.to_be_bytes());
            heard_so_far.send(n).expect("the publisher listens");
        }
    });
    let mut payload = vec![0; 16_000];
    for n in 0..MESSAGES {
        payload.truncate(15_996);
        payload.extend_from_slice(&n.to_be_bytes());
        publisher.say(&publish("fast/a", 0, &payload));
        // The reader that keeps up is at most 16 messages behind.
        if n >= 16 {
            assert_eq!(progress.recv_timeout(PATIENCE), Ok(n - 16));
        }
    }
    reader.join().expect("everything was heard");
    slow.say(&[0xC0, 0]);
    let mut heard = 0;
    loop {
        let packet = slow.hear();
        assert!(!packet.is_empty(), "the slow reader is still connected");
        if packet == [0xD0, 0] {
            break;
        }
        heard += 1;
    }
    assert!(heard > 0 && heard < MESSAGES, "{heard} of {MESSAGES}");
    // Once it has caught up it gets everything again.
    publisher.say(&publish("fast/b", 0, b"after"));
    assert_eq!(slow.hear(), publish("fast/b", 0, b"after"));
}

#[test]
fn reader_not_far_behind_loses_nothing_however_large_the_messages() {
    const ROUNDS: usize = 8;
    const PER_ROUND: usize = 5;
    let mut config = config(2);
    config.limits.maximum_packet_size_bytes = 2 * 1024 * 1024;
    let (_server, address) = start(config);
    let mut reader = Raw::v311(address, "reader");
    reader.subscribe("large", 0);
    let mut publisher = Raw::v311(address, "publisher");
    let mut payload = vec![0; 1_500_000];
    for round in 0..ROUNDS {
        // The reader is up to 7.5 MB behind when the last of them is taken.
        for n in 0..PER_ROUND {
            payload[0] = u8::try_from(round * PER_ROUND + n).expect("few messages");
            publisher.say(&publish("large", 0, &payload));
        }
        publisher.ping();
        for n in 0..PER_ROUND {
            let heard = reader.hear();
            let number = usize::from(heard[heard.len() - payload.len()]);
            assert_eq!(number, round * PER_ROUND + n);
        }
    }
}

#[test]
fn reader_that_will_never_catch_up_is_closed() {
    let mut config = config(2);
    config.bounds.congested_bytes = 1024;
    config.bounds.unsent_bytes_max = 2048;
    let (_server, address) = start(config);
    let mut slow = Raw::v311(address, "never");
    slow.subscribe("much", 0);
    let mut publisher = Raw::v311(address, "publisher");
    let mut watcher = Raw::v311(address, "watcher");
    let burst = publish("much", 0, &[b'x'; 400]).repeat(160);
    // Until the system's buffers are full there is nothing unsent.
    for _ in 0..400 {
        publisher.say(&burst);
        publisher.ping();
    }
    let mut heard = Vec::new();
    match slow.stream.read_to_end(&mut heard) {
        Ok(len) => assert!(len < burst.len() * 400, "nothing was lost"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    watcher.ping();
}

/// Verifies [MQTT-3.1.2-22]: a reader that takes a large packet slowly, and says PINGREQ in time, is not
/// silent because the Server reads nothing from it meanwhile.
#[test]
fn slow_reader_that_goes_on_reading_is_not_closed_for_keep_alive() {
    let mut config = config(1);
    config.bounds.congested_bytes = 1024;
    let (_server, address) = start(config);
    let mut watcher = Raw::v311(address, "watcher");
    watcher.subscribe("will", 0);
    let mut slow = Raw::open(address);
    slow.say(b"\x10\x19\x00\x04MQTT\x04\x06\x00\x01\x00\x04slow\x00\x04will\x00\x01x");
    assert_eq!(slow.hear(), [0x20, 2, 0, 0]);
    slow.subscribe("much", 1);
    let mut publisher = Raw::v311(address, "publisher");
    for _ in 0..24 {
        publisher.say(&publish("much", 1, &[b'x'; 900_000]));
        assert_eq!(publisher.hear()[0], 0x40);
    }
    let tenth = Some(Duration::from_millis(100));
    watcher
        .stream
        .set_read_timeout(tenth)
        .expect("a socket option");
    let mut some = vec![0; 64 * 1024];
    for turn in 0..30 {
        if turn % 5 == 0 {
            slow.say(b"\xC0\x00");
        }
        assert!(slow.stream.read(&mut some).expect("is open") > 0);
        // Nothing comes for a tenth of a second: the Will least of all.
        let will = watcher.stream.read(&mut [0; 1]);
        assert!(will.is_err(), "closed in turn {turn}");
    }
}
