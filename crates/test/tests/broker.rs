//! The broker for tests, tested: by our own client, by a test without a runtime, side by side.
//!
//! Owns: nothing but tests. Start reading at [`a_broker_is_there_in_milliseconds`]. Invariant: nothing waits for a time.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use vencejo_test::client::proto::packet::ReasonCode;
use vencejo_test::client::{Acknowledge, Client, Publication, Qos, State, Subscription, Will};
use vencejo_test::{Broker, Cut};

const PATIENCE: Duration = Duration::from_secs(20);

/// MQTT 3.1.1, Client Identifier "raw", Clean Session.
const CONNECT: &[u8] = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03raw";

fn connect_raw(broker: &Broker) -> TcpStream {
    let mut socket = TcpStream::connect(broker.addr()).unwrap();
    socket.write_all(CONNECT).unwrap();
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    socket
}

fn publication(payload: &'static str) -> Publication {
    Publication::new("a/b", payload, Qos::AtLeastOnce)
}

/// The bound is loose, since the machine may be busy; where it is idle it is a hundredth.
#[test]
fn a_broker_is_there_in_milliseconds() {
    let start = Instant::now();
    let brokers: Vec<_> = (0..5).map(|_| Broker::start()).collect();
    let elapsed = start.elapsed() / 5;
    eprintln!("a broker starts in {elapsed:?}");
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    let mut ports: Vec<_> = brokers.iter().map(|broker| broker.addr().port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 5);
}

#[test]
fn a_test_without_a_runtime_expects_what_any_client_publishes() {
    let broker = Broker::start();
    let other = Broker::start();
    let mut socket = connect_raw(&broker);
    socket.write_all(b"\x30\x07\x00\x03a/b42").unwrap();
    let seen = broker.expect_publish("a/+").within_blocking(PATIENCE);
    assert_eq!(seen.topic, "a/b");
    assert_eq!(seen.payload, "42");
    assert!(other.published().is_empty());
}

#[test]
#[should_panic(
    expected = "no publish of \"43\" to \"a/+\" within 0ns; published instead:\n  a/b \"42\""
)]
fn what_does_not_come_fails_and_says_what_came() {
    let broker = Broker::start();
    let mut socket = connect_raw(&broker);
    socket
        .write_all(b"\x30\x07\x00\x03a/b42\x30\x05\x00\x03end")
        .unwrap();
    broker.expect_publish("end").within_blocking(PATIENCE);
    let never = broker.expect_publish("a/+").with("43");
    never.within_blocking(Duration::ZERO);
}

/// Each message counts once, in the order in which they came.
#[tokio::test]
async fn a_message_fulfils_one_expectation() {
    let broker = Broker::start();
    let client = Client::connect(broker.options()).await.unwrap();
    for payload in ["1", "2"] {
        client.publish(publication(payload)).await.unwrap();
    }
    for payload in ["1", "2"] {
        let seen = broker.expect_publish("a/b").within(PATIENCE).await;
        assert_eq!(seen.payload, payload);
    }
    assert_eq!(broker.published().len(), 2);
}

/// What was acknowledged survives the end of the process and of the power, at the same address.
#[tokio::test]
async fn a_killed_broker_comes_back_with_what_it_acknowledged() {
    let mut broker = Broker::start();
    let client = Client::connect(broker.options()).await.unwrap();
    let address = broker.addr();
    client
        .publish(publication("kept").retain(true))
        .await
        .unwrap();
    broker.kill();
    broker.restart();
    broker.lose_power(7);
    broker.restart();
    assert_eq!(broker.addr(), address);
    let mut messages = client.subscribe("a/b", Qos::AtLeastOnce).await.unwrap();
    assert_eq!(messages.next().await.unwrap().payload, "kept");
    drop(messages);
    broker.restart_empty();
    client.publish(publication("first")).await.unwrap();
    let mut messages = client.subscribe("#", Qos::AtLeastOnce).await.unwrap();
    client.publish(publication("live")).await.unwrap();
    assert_eq!(messages.next().await.unwrap().payload, "live");
}

/// An operator's stop tells the clients; a kill does not, and publishes no Will.
#[tokio::test]
async fn a_stop_publishes_wills_and_a_kill_does_not() {
    let mut broker = Broker::start();
    let will = Will {
        topic: "will".to_owned(),
        payload: "gone".into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: Default::default(),
    };
    let client = Client::connect(broker.options().will(will)).await.unwrap();
    let mut state = client.state();
    broker.kill();
    state.wait_for(|state| !state.is_connected()).await.unwrap();
    assert!(broker.published().is_empty());
    broker.restart();
    state.wait_for(State::is_connected).await.unwrap();
    broker.stop();
    let lost = state.wait_for(|state| !state.is_connected()).await;
    let State::Disconnected { why, .. } = lost.unwrap().clone() else {
        unreachable!("it connects again")
    };
    assert!(why.to_string().contains("Server shutting down"), "{why}");
    broker.restart();
    let watcher = Client::connect(broker.options()).await.unwrap();
    let mut wills = watcher.subscribe("will", Qos::AtLeastOnce).await.unwrap();
    assert_eq!(wills.next().await.unwrap().payload, "gone");
}

/// Nothing behind the cut passes, and later connections have theirs.
#[tokio::test]
async fn a_connection_is_cut_where_it_is_told() {
    let broker = Broker::start();
    broker.cut_after([Cut::FromClient(5), Cut::ToClient(3)]);
    for _ in 0..2 {
        Client::connect(broker.options()).await.unwrap_err();
    }
    let client = Client::connect(broker.options()).await.unwrap();
    let mut state = client.state();
    state.mark_unchanged();
    broker.cut();
    state.wait_for(|state| !state.is_connected()).await.unwrap();
    client.publish(publication("again")).await.unwrap();
}

/// A stalled connection looks alive; when it is healed what was said arrives.
#[tokio::test]
async fn a_stalled_broker_answers_when_it_is_healed() {
    let broker = Broker::start();
    let client = Client::connect(broker.options()).await.unwrap();
    broker.stall();
    let receipt = client.hand_over(publication("late")).await.unwrap();
    let early = tokio::time::timeout(
        Duration::from_millis(20),
        broker.expect_publish("a/b").within(PATIENCE),
    );
    early.await.unwrap_err();
    broker.heal();
    assert_eq!(receipt.await.unwrap().reason, ReasonCode::Success);
}

#[tokio::test]
async fn a_delayed_broker_takes_its_time() {
    let broker = Broker::start();
    let client = Client::connect(broker.options()).await.unwrap();
    broker.delay(Duration::from_millis(30));
    let start = Instant::now();
    client.publish(publication("slow")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));
}

/// A broker with a configuration of the test's own.
#[tokio::test]
async fn a_configuration_can_be_changed() {
    let broker = Broker::start_with(|config| config.limits.maximum_qos = Qos::AtLeastOnce);
    let client = Client::connect(broker.options()).await.unwrap();
    let subscription = vec![Subscription::new("a/b", Qos::ExactlyOnce)];
    let messages = client
        .subscribe_with(subscription, Acknowledge::WhenTaken)
        .await
        .unwrap();
    assert_eq!(messages.granted(), [ReasonCode::GrantedQos1]);
}
