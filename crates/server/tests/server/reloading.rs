//! A configuration taken over by a Server that runs.

use vencejo_server::authentication::AnonymousPolicy;
use vencejo_server::config::Config;
use vencejo_server::{ReloadError, Reloaded};

use crate::client::{Raw, connect_v311};
use crate::{config, start};

/// The return code of a new Client's CONNACK.
fn answer(address: std::net::SocketAddr, client_id: &str) -> u8 {
    let mut client = Raw::open(address);
    client.say(&connect_v311(client_id));
    client.hear()[3]
}

#[test]
fn reloaded_authentication_counts_in_every_shard_at_once_and_drops_nobody() {
    let before = config(4);
    let (server, address) = start(before.clone());
    let mut connected: Vec<Raw> = (0..8)
        .map(|n| Raw::v311(address, &format!("stays-{n}")))
        .collect();
    let mut closed = before.clone();
    closed.authentication.anonymous = AnonymousPolicy::Never;
    assert_eq!(server.reload(closed).ok(), Some(Reloaded::default()));
    for n in 0..8 {
        assert_eq!(answer(address, &format!("late-{n}")), 5);
    }
    for client in &mut connected {
        client.ping();
    }
    assert_eq!(server.reload(before).ok(), Some(Reloaded::default()));
    assert_eq!(answer(address, "again"), 0);
}

#[test]
fn what_cannot_change_is_named_and_stays() {
    let (server, address) = start(config(2));
    let mut other = Config {
        listeners: vec![([127, 0, 0, 1], 1).into()],
        ..config(3)
    };
    other.stop.server_reference = Some("other.example:1883".to_owned());
    let left = server.reload(other).map(|reloaded| reloaded.left);
    assert_eq!(left.ok(), Some(vec!["listeners", "shards"]));
    let mut client = Raw::v5(address, "told", 0);
    server.stop();
    assert!(client.hear().ends_with(b"other.example:1883"));
}

#[test]
fn stopped_server_reloads_nothing() {
    let (server, _) = start(config(2));
    let reloader = server.reloader();
    server.stop();
    server.join().expect("stopped in peace");
    let refused = reloader.reload(config(2));
    assert!(matches!(refused, Err(ReloadError::Stopped)));
}
