//! How a Server stops.

use std::time::{Duration, Instant};

use proto::packet::ReasonCode;

use crate::client::{Raw, connect_flags_v5, connect_v311, string, subscribe_v5};
use crate::{config, start};

/// CONNECT of 5.0 with a Will "gone" on `topic`.
fn connect_with_will(client_id: &str, topic: &str) -> Vec<u8> {
    let will = [&[0][..], &string(topic), &string("gone")].concat();
    connect_flags_v5(0x06, client_id, 0, &[], &will)
}

/// Verifies [MQTT-3.1.2-8]: the Will is published when the Server closes the Network Connection.
#[test]
fn stop_publishes_wills_tells_clients_and_ends_in_time() {
    for shards in [1, 2, 4] {
        let (server, address) = start(config(shards));
        let mut watcher = Raw::v5(address, "watcher", 0);
        watcher.say(&subscribe_v5("wills/#", 0));
        assert_eq!(watcher.hear(), [0x90, 4, 0, 1, 0, 0]);
        let mut mortal: Vec<Raw> = (0..8)
            .map(|n| {
                let mut client = Raw::open(address);
                client.say(&connect_with_will(
                    &format!("mortal-{n}"),
                    &format!("wills/{n}"),
                ));
                assert_eq!(client.hear()[3], 0);
                client
            })
            .collect();
        let mut v311 = Raw::v311(address, "old");
        let mut silent = Raw::open(address);
        let began = Instant::now();
        server.stop();
        let wills: Vec<Vec<u8>> = (0..mortal.len()).map(|_| watcher.hear()).collect();
        assert!(
            wills
                .iter()
                .all(|will| will[0] == 0x30 && will.ends_with(b"gone"))
        );
        let shutting_down = ReasonCode::ServerShuttingDown.value();
        for client in mortal.iter_mut().chain([&mut watcher]) {
            let disconnect = client.hear();
            assert_eq!((disconnect[0], disconnect[2]), (0xE0, shutting_down));
            assert!(client.is_at_end());
        }
        assert!(v311.is_at_end() && silent.is_at_end());
        drop((watcher, mortal, v311, silent));
        server.join().expect("stopped in peace");
        assert!(began.elapsed() < Duration::from_secs(10), "shards {shards}");
    }
}

#[test]
fn stop_does_not_wait_for_clients_that_do_not_close() {
    let (server, address) = start(config(2));
    let mut clients: Vec<Raw> = (0..4)
        .map(|n| Raw::v311(address, &format!("stays-{n}")))
        .collect();
    let began = Instant::now();
    server.stop();
    server.join().expect("stopped in peace");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(clients.iter_mut().all(Raw::is_at_end));
}

#[test]
fn stopped_server_gives_its_port_back() {
    let (server, address) = start(config(2));
    server.stop();
    server.join().expect("stopped in peace");
    let mut again = config(2);
    again.listeners = vec![address.into()];
    let (_server, address) = start(again);
    let mut client = Raw::open(address);
    client.say(&connect_v311("again"));
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
}

#[test]
fn server_reference_is_told_at_a_stop() {
    for (server_moved, reason) in [
        (false, ReasonCode::UseAnotherServer),
        (true, ReasonCode::ServerMoved),
    ] {
        let mut config = config(2);
        config.stop.server_reference = Some("other.example:1883".to_owned());
        config.stop.server_moved = server_moved;
        let (server, address) = start(config);
        let mut client = Raw::v5(address, "moves", 0);
        server.stop();
        let disconnect = client.hear();
        assert_eq!((disconnect[0], disconnect[2]), (0xE0, reason.value()));
        assert!(disconnect.ends_with(b"other.example:1883"));
    }
}
