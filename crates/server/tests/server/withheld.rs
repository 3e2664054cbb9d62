//! A store that answers when the test says so: what waits for it is bounded, and nobody who leaves makes it write.
//!
//! Owns: [`Gate`]. Does not own: what is durable when (see `durable`). Start reading at any test.
//! Invariant: all is answered once the store has answered.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use store::{Batch, Load, Loaded, MemoryStore, Seq, Store, StoreError};
use vencejo_server::Server;
use vencejo_server::authentication::Authentication;
use vencejo_server::config::Config;

use crate::client::{PATIENCE, Raw, packet, publish, string, subscribe_v311};
use crate::durable::durable;
use crate::rates::Named;

/// What a test says to the store of a Server, and sees of it.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    is_changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing becomes durable.
    is_shut: bool,
    /// Nor is more wanted meanwhile.
    is_pressed: bool,
    /// Whoever gives it something waits.
    blocks: bool,
    /// Somebody does.
    is_waited_for: bool,
    batches: usize,
    records: usize,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.is_changed.notify_all();
    }

    /// Waits until it is so.
    fn until(&self, is_so: impl Fn(&State) -> bool) {
        let state = self.state();
        let waited = self
            .is_changed
            .wait_timeout_while(state, PATIENCE, |state| !is_so(state));
        let (state, waited) = waited.expect("no panic");
        assert!(!waited.timed_out(), "{state:?}");
    }
}

/// The store of the one shard.
#[derive(Debug)]
struct Gated(MemoryStore, Arc<Gate>);

impl Store for Gated {
    fn append(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Self(below, gate) = self;
        let mut state = gate.state();
        state.batches += 1;
        state.records += batch.records.len();
        state.is_waited_for |= state.blocks;
        gate.is_changed.notify_all();
        if state.blocks {
            let opened = gate.is_changed.wait_while(state, |state| state.blocks);
            drop(opened.expect("no panic"));
        }
        below.append(batch)
    }

    fn written(&self) -> Seq {
        self.durable()
    }

    fn durable(&self) -> Seq {
        let Self(below, gate) = self;
        if gate.state().is_shut {
            Seq(0)
        } else {
            below.durable()
        }
    }

    fn is_pressed(&self) -> bool {
        let state = self.1.state();
        state.is_shut && state.is_pressed
    }

    fn load(&mut self, load: Load) {
        self.0.load(load);
    }

    fn poll_loaded(&mut self) -> Option<Loaded> {
        self.0.poll_loaded()
    }
}

fn start() -> (Server, SocketAddr, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let config = Config {
        sys_interval: Duration::from_millis(100),
        ..durable(1)
    };
    let named = Authentication::new(vec![Arc::new(Named)]);
    let server = Server::start_with(config, named, |_| {
        Gated(MemoryStore::new(), Arc::clone(&gate))
    });
    let server = server.expect("the Server starts");
    let address = server.listeners()[0];
    (server, address, gate)
}

/// 3.1.1 without Clean Session: what it subscribes to is in the store.
fn connect_keeper() -> Vec<u8> {
    let body = [&b"\x00\x04MQTT\x04\x00\x00\x00"[..], &string("keeper")].concat();
    packet(0x10, &body)
}

fn keeper(address: SocketAddr) -> Raw {
    let mut client = Raw::open(address);
    client.say(&connect_keeper());
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    client
}

/// What `$SYS` says of packets that have come up to now, to one that listens to nothing else.
fn received(watch: &mut Raw) -> usize {
    watch.say(&[0xC0, 0]);
    while watch.hear() != [0xD0, 0] {}
    let packet = watch.hear();
    let value = String::from_utf8_lossy(&packet[4 + RECEIVED.len()..]).into_owned();
    value.parse().expect("a number")
}

const RECEIVED: &str = "$SYS/broker/messages/received";

/// Promise P6: PINGREQ is two bytes, and its answer a hundred while it waits.
#[test]
fn who_waits_for_the_disk_is_not_read_for_ever() {
    const PINGS: usize = 20_000;
    let (_server, address, gate) = start();
    let mut watch = Raw::v311(address, "watch");
    watch.subscribe(RECEIVED, 0);
    let mut keeper = keeper(address);
    let before = received(&mut watch);
    gate.set(|state| state.is_shut = true);
    let flood = [subscribe_v311("a", 1), [0xC0, 0].repeat(PINGS)].concat();
    keeper.say(&flood);
    let taken = received(&mut watch) - before;
    assert!(taken < 1100, "{taken} are taken");
    gate.set(|state| state.is_shut = false);
    watch.say(&[0xC0, 0]);
    assert_eq!(keeper.hear(), [0x90, 3, 0, 1, 1]);
    for _ in 0..PINGS {
        assert_eq!(keeper.hear(), [0xD0, 0]);
    }
}

/// In whatever pieces it comes.
#[test]
fn what_follows_a_connect_whose_connack_waits_for_the_disk_is_taken() {
    let (_server, address, gate) = start();
    let mut other = Raw::v311(address, "other");
    gate.set(|state| state.is_shut = true);
    let mut client = Raw::open(address);
    let (first, second) = (publish("a", 1, b"first"), publish("a", 1, b"second"));
    let mut said = connect_keeper();
    let mut cuts = vec![0];
    for one in [first, second] {
        cuts.push(said.len() + one.len() / 2);
        said.extend(one);
    }
    cuts.push(said.len());
    for cut in cuts.windows(2) {
        client.say(&said[cut[0]..cut[1]]);
        // That turn is over.
        other.ping();
        other.ping();
    }
    gate.set(|state| state.is_shut = false);
    other.ping();
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    for _ in 0..2 {
        assert_eq!(client.hear(), [0x40, 2, 0, 1]);
    }
}

/// Promise P6: it need not publish to fill the log.
#[test]
fn who_waits_for_a_store_that_has_enough_is_not_read() {
    let (_server, address, gate) = start();
    let mut other = Raw::v311(address, "other");
    let mut keeper = keeper(address);
    gate.set(|state| (state.is_shut, state.is_pressed) = (true, true));
    let before = gate.state().records;
    keeper.say(&subscribe_v311("a", 1));
    gate.until(|state| state.records == before + 1);
    // That turn is over.
    other.ping();
    keeper.say(&subscribe_v311("a", 1).repeat(1000));
    other.ping();
    other.ping();
    let taken = gate.state().records - before;
    assert_eq!(taken, 1, "Subscriptions in the store");
    gate.set(|state| state.is_shut = false);
    other.ping();
    for _ in 0..1001 {
        assert_eq!(keeper.hear(), [0x90, 3, 0, 1, 1]);
    }
}

/// Promise P2: what is done once in a turn is not done again for each that leaves.
#[test]
fn clients_that_leave_in_one_turn_leave_the_store_one_batch() {
    let (_server, address, gate) = start();
    let mut leaving: Vec<Raw> = (0..20)
        .map(|number| Raw::v311(address, &format!("leaving-{number}")))
        .collect();
    let mut other = Raw::v311(address, "other");
    let retained = |first_byte: u8| {
        let mut packet = publish("a", 1, b"kept");
        packet[0] = first_byte;
        packet
    };
    gate.set(|state| state.blocks = true);
    other.say(&retained(0x33));
    gate.until(|state| state.is_waited_for);
    for client in &mut leaving {
        client.say(&[&retained(0x33)[..], &[0xE0, 0]].concat());
    }
    let before = gate.state().batches;
    gate.set(|state| state.blocks = false);
    assert_eq!(other.hear(), [0x40, 2, 0, 1]);
    for client in &mut leaving {
        // What it is owed it gets all the same.
        assert_eq!(client.hear(), [0x40, 2, 0, 1]);
        assert!(client.is_at_end());
    }
    let batches = gate.state().batches - before;
    assert!(batches <= 3, "{batches} batches");
}
