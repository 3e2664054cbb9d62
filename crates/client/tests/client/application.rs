//! The Client against our own server in this process, through a network that fails when it is told to.
//!
//! Owns: what an application sees. Does not own: every order in which things can fail (see `core::faults`).
//! Start reading at [`a_publication_resolves_at_its_acknowledgement`]. Invariant: what an
//! application is told happened.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_core::Stream;
use tokio::time::timeout;
use vencejo_client::proto::packet::{Property, ReasonCode};
use vencejo_client::{
    Acknowledge, Client, Error, Messages, Mistake, Options, Outage, Outbox, OutboxLevel,
    Publication, Qos, Queue, Refusal, State, Subscription, Version, WhenQueueFull, Will, blocking,
};
use vencejo_test::server::config::{Address, Transport};
use vencejo_test::{Broker, Cut};

use crate::{DEADLINE, TempFolder};

fn publication(payload: impl Into<String>, qos: Qos) -> Publication {
    Publication::new("a/b", payload.into(), qos)
}

async fn next(messages: &mut Messages) -> String {
    let message = timeout(DEADLINE, messages.next()).await.unwrap().unwrap();
    String::from_utf8_lossy(&message.payload).into_owned()
}

async fn until(client: &Client, is_reached: impl FnMut(&State) -> bool) -> State {
    let mut state = client.state();
    let reached = timeout(DEADLINE, state.wait_for(is_reached)).await;
    reached.unwrap().unwrap().clone()
}

#[tokio::test]
async fn a_publication_resolves_at_its_acknowledgement() {
    let broker = Broker::start();
    for version in [Version::V5, Version::V311] {
        let client = Client::connect(broker.options().version(version))
            .await
            .unwrap();
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let published = client.publish(publication("x", qos)).await.unwrap();
            assert!(!published.reason.is_error());
            assert_eq!(published.packet_id.is_some(), qos != Qos::AtMostOnce);
            broker.expect_publish("a/b").within(DEADLINE).await;
        }
    }
}

/// What the Server refuses is an error that names the Server; what cannot be sent, one that names the caller.
#[tokio::test]
async fn errors_say_who_has_to_act() {
    let broker = Broker::start_with(|config| {
        config.limits.retain_available = false;
        config.limits.shared_subscription_available = false;
    });
    let client = Client::connect(broker.options()).await.unwrap();
    let retained = client
        .publish(publication("x", Qos::AtLeastOnce).retain(true))
        .await;
    assert!(
        matches!(retained, Err(Error::Caller(Mistake::Request(_)))),
        "{retained:?}"
    );
    let shared = client.subscribe("$share/a/b", Qos::AtLeastOnce).await;
    assert!(matches!(shared, Err(Error::Caller(Mistake::Request(_)))));
    let malformed = client.subscribe("a/#/b", Qos::AtLeastOnce).await;
    assert!(matches!(malformed, Err(Error::Caller(Mistake::Request(_)))));
    let refused = client
        .publish(Publication::new("$SYS/x", "x", Qos::AtLeastOnce))
        .await;
    assert!(
        matches!(refused, Err(Error::Server(Refusal::Publish { .. }))),
        "{refused:?}"
    );
    let nobody = Client::connect(Options::new("127.0.0.1", 1)).await;
    assert!(matches!(nobody, Err(Error::Network(Outage::Connect(_)))));
    client.disconnect().await;
}

/// Each stream gets what its filter asks for, once, also where filters overlap, and ends with its subscription.
#[tokio::test]
async fn streams_get_what_their_filters_ask_for() {
    let broker = Broker::start();
    for version in [Version::V5, Version::V311] {
        let client = Client::connect(broker.options().version(version))
            .await
            .unwrap();
        let mut all = client.subscribe("a/#", Qos::ExactlyOnce).await.unwrap();
        let mut some = client.subscribe("a/+", Qos::ExactlyOnce).await.unwrap();
        let mut twin = client.subscribe("a/+", Qos::ExactlyOnce).await.unwrap();
        let both = ["x", "y/z"].map(|filter| Subscription::new(filter, Qos::AtLeastOnce));
        let mut both = client
            .subscribe_with(both.to_vec(), Acknowledge::WhenTaken)
            .await
            .unwrap();
        let say = async |topic: &str| {
            let publication = Publication::new(topic, topic.to_owned(), Qos::ExactlyOnce);
            client.publish(publication).await.unwrap();
        };
        for topic in ["a/b", "a/b/c", "y/z", "x", "a/d"] {
            say(topic).await;
        }
        for topic in ["a/b", "a/b/c", "a/d"] {
            assert_eq!(next(&mut all).await, topic);
        }
        for topic in ["a/b", "a/d"] {
            assert_eq!(next(&mut some).await, topic);
            assert_eq!(next(&mut twin).await, topic);
        }
        for topic in ["y/z", "x"] {
            assert_eq!(next(&mut both).await, topic);
        }
        twin.unsubscribe().await.unwrap();
        say("a/e").await;
        assert_eq!(next(&mut some).await, "a/e");
        some.unsubscribe().await.unwrap();
        say("a/f").await;
        assert_eq!(next(&mut all).await, "a/e");
        assert_eq!(next(&mut all).await, "a/f");
        assert!(both.try_next().is_none());
        client.disconnect().await;
        assert!(all.next().await.is_none());
        assert!(matches!(all.error(), Some(Error::Caller(Mistake::Ended))));
    }
}

/// Also as a stream of other crates.
#[tokio::test]
async fn messages_are_a_stream() {
    let broker = Broker::start();
    let client = Client::connect(broker.options()).await.unwrap();
    let mut messages = client.subscribe("a/b", Qos::AtLeastOnce).await.unwrap();
    client
        .publish(publication("x", Qos::AtLeastOnce))
        .await
        .unwrap();
    let polled =
        std::future::poll_fn(|context| std::pin::Pin::new(&mut messages).poll_next(context));
    assert_eq!(
        timeout(DEADLINE, polled).await.unwrap().unwrap().payload,
        "x"
    );
}

/// What the application has not acknowledged comes again to the next program that resumes the Session.
#[tokio::test]
async fn what_is_not_acknowledged_comes_again() {
    let broker = Broker::start();
    let options = broker
        .options()
        .client_id("worker")
        .clean_start(false)
        .session_expiry(Duration::from_secs(600));
    let client = Client::connect(options.clone()).await.unwrap();
    let filter = || vec![Subscription::new("a/b", Qos::AtLeastOnce)];
    let mut messages = client
        .subscribe_with(filter(), Acknowledge::ByApplication)
        .await
        .unwrap();
    for payload in ["1", "2", "3"] {
        client
            .publish(publication(payload, Qos::AtLeastOnce))
            .await
            .unwrap();
    }
    let first = messages.next().await.unwrap();
    let second = messages.next().await.unwrap();
    let third = messages.next().await.unwrap();
    first.acknowledge();
    // It waits for the second, since acknowledgements keep their order.
    third.acknowledge();
    assert_eq!(second.payload, "2");
    messages.keep();
    client.disconnect().await;
    let client = Client::connect(options).await.unwrap();
    let mut messages = client.others(Acknowledge::WhenTaken).unwrap();
    assert_eq!(next(&mut messages).await, "2");
    assert_eq!(next(&mut messages).await, "3");
    client.disconnect().await;
}

/// Messages of a resumed Session that come before the program has subscribed wait for it.
#[tokio::test]
async fn messages_that_are_early_wait_for_their_subscription() {
    let broker = Broker::start();
    let options = broker
        .options()
        .client_id("late")
        .clean_start(false)
        .session_expiry(Duration::from_secs(600));
    let client = Client::connect(options.clone()).await.unwrap();
    let messages = client.subscribe("a/+", Qos::AtLeastOnce).await.unwrap();
    messages.keep();
    client.disconnect().await;
    let other = Client::connect(broker.options()).await.unwrap();
    other
        .publish(publication("early", Qos::AtLeastOnce))
        .await
        .unwrap();
    let client = Client::connect(options).await.unwrap();
    // Until then it has surely come.
    client
        .publish(Publication::new("c", "", Qos::AtLeastOnce))
        .await
        .unwrap();
    let mut other = client.subscribe("c", Qos::AtLeastOnce).await.unwrap();
    let mut messages = client.subscribe("a/+", Qos::AtLeastOnce).await.unwrap();
    assert_eq!(next(&mut messages).await, "early");
    assert!(other.try_next().is_none());
}

#[tokio::test]
async fn a_request_gets_its_response() {
    let broker = Broker::start();
    let server = Client::connect(broker.options()).await.unwrap();
    let mut questions = server.subscribe("double", Qos::AtLeastOnce).await.unwrap();
    let answering = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let number: u32 = std::str::from_utf8(&question.payload)
                .unwrap()
                .parse()
                .unwrap();
            let answer = (2 * number).to_string();
            server.respond(&question, answer).await.unwrap();
        }
    });
    let client = Client::connect(broker.options()).await.unwrap();
    let asked = (1..=20).map(|number: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            let answer = client.request("double", number.to_string()).await.unwrap();
            assert_eq!(answer.payload, (2 * number).to_string());
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    let nobody = Publication::new("nobody", "", Qos::AtLeastOnce);
    let silence = client.request_with(nobody, Duration::from_millis(1)).await;
    assert!(matches!(silence, Err(Error::Network(Outage::Timeout))));
    let older = Client::connect(broker.options().version(Version::V311))
        .await
        .unwrap();
    let asked = older.request("double", "1").await;
    assert!(matches!(
        asked,
        Err(Error::Caller(Mistake::NotInThisVersion(_)))
    ));
    answering.abort();
}

/// Properties go both ways.
#[tokio::test]
async fn properties_arrive() {
    let broker = Broker::start();
    let client = Client::connect(broker.options()).await.unwrap();
    let mut messages = client.subscribe("a/b", Qos::AtLeastOnce).await.unwrap();
    let publication = publication("x", Qos::AtLeastOnce)
        .property(&Property::UserProperty("room", "kitchen"))
        .unwrap();
    // Twice, so that a Topic Alias stands for the topic the second time.
    for _ in 0..2 {
        client.publish(publication.clone()).await.unwrap();
        let message = messages.next().await.unwrap();
        assert_eq!(message.topic, "a/b");
        let room = Property::UserProperty("room", "kitchen");
        assert!(message.properties().any(|property| property == room));
    }
}

fn queue(when_full: WhenQueueFull) -> Queue {
    Queue {
        messages_max: NonZeroU32::new(2).unwrap(),
        when_full,
        ..Queue::default()
    }
}

/// Whoever publishes more than fits waits, is refused, or loses the newest, as the policy says.
#[tokio::test]
async fn a_full_queue_does_what_its_policy_says() {
    let mut broker = Broker::start();
    broker.stop();
    let fill = async |when_full| {
        let client = Client::start(broker.options().queue(queue(when_full))).unwrap();
        let mut handed = Vec::new();
        for payload in ["1", "2"] {
            let publication = publication(payload, Qos::AtLeastOnce);
            handed.push(client.hand_over(publication).await.unwrap());
        }
        (client, handed)
    };
    let third = || publication("3", Qos::AtLeastOnce);

    let (refusing, _) = fill(WhenQueueFull::Refuse).await;
    let refused = refusing.hand_over(third()).await;
    assert!(matches!(refused, Err(Error::Caller(Mistake::QueueFull))));

    let (dropping, _) = fill(WhenQueueFull::DropNewest).await;
    let dropped = dropping.hand_over(third()).await.unwrap().await;
    assert!(matches!(dropped, Err(Error::Caller(Mistake::Dropped))));

    let (waiting, handed) = fill(WhenQueueFull::Wait).await;
    let mut waits = Box::pin(waiting.publish(third()));
    timeout(Duration::from_millis(1), &mut waits)
        .await
        .unwrap_err();
    drop((refusing, dropping));
    broker.restart();
    timeout(DEADLINE, waits).await.unwrap().unwrap();
    for handed in handed {
        handed.await.unwrap();
    }
    let huge = Publication::new("a", vec![0; 17 << 20], Qos::AtMostOnce);
    let huge = waiting.publish(huge).await;
    assert!(matches!(
        huge,
        Err(Error::Caller(Mistake::LargerThanQueue { .. }))
    ));
}

/// The end of the Server's process in the middle of traffic: nothing is lost, nothing at QoS 2 comes twice, order stays.
#[tokio::test]
async fn a_killed_server_loses_and_repeats_nothing() {
    let mut broker = Broker::start();
    let options = broker.options().client_id("publisher");
    let publisher = Client::connect(options).await.unwrap();
    let subscriber = Client::connect(broker.options().client_id("subscriber"))
        .await
        .unwrap();
    let mut messages = subscriber.subscribe("a/b", Qos::ExactlyOnce).await.unwrap();
    let mut handed = Vec::new();
    for number in 0..200_u32 {
        let publication = publication(number.to_string(), Qos::ExactlyOnce);
        handed.push(publisher.hand_over(publication).await.unwrap());
        if number % 50 == 25 {
            // Some are on their way now.
            tokio::task::yield_now().await;
            broker.kill();
            broker.restart();
        } else if number % 10 == 5 {
            tokio::task::yield_now().await;
            broker.cut();
        }
    }
    for handed in handed {
        timeout(DEADLINE, handed).await.unwrap().unwrap();
    }
    for number in 0..200_u32 {
        assert_eq!(next(&mut messages).await, number.to_string());
    }
    assert!(messages.try_next().is_none());
}

/// A Server that comes back without its Sessions is subscribed to again, and what is at QoS 1 is sent again.
#[tokio::test]
async fn a_server_that_has_forgotten_is_told_again() {
    let mut broker = Broker::start();
    for version in [Version::V5, Version::V311] {
        let options = broker
            .options()
            .client_id("me")
            .clean_start(false)
            .version(version);
        let client = Client::connect(options).await.unwrap();
        let mut messages = client.subscribe("a/b", Qos::AtLeastOnce).await.unwrap();
        broker.restart_empty();
        client
            .publish(publication("again", Qos::AtLeastOnce))
            .await
            .unwrap();
        assert_eq!(next(&mut messages).await, "again");
        client.disconnect().await;
    }
}

#[tokio::test]
async fn the_state_can_be_watched() {
    let mut broker = Broker::start();
    let client = Client::start(broker.options().client_id("me")).unwrap();
    client.connected().await.unwrap();
    let State::Connected { client_id, connack } = until(&client, State::is_connected).await else {
        panic!("connected");
    };
    assert_eq!((&*client_id, connack.session_present), ("me", false));
    broker.kill();
    let lost = until(&client, |state| matches!(state, State::Disconnected { .. })).await;
    let State::Disconnected { why, .. } = lost else {
        panic!("disconnected");
    };
    assert!(matches!(why, Error::Network(_)), "{why:?}");
    broker.restart();
    let resumed = |state: &State| match state {
        State::Connected { connack, .. } => connack.session_present,
        _ => false,
    };
    until(&client, resumed).await;
    let watched = client.state();
    client.disconnect().await;
    assert!(matches!(
        &*watched.borrow(),
        State::Ended(Error::Caller(Mistake::Ended))
    ));
}

/// Another client with our name has the Session: taking it back would never end.
#[tokio::test]
async fn a_session_that_is_taken_over_is_not_taken_back() {
    let broker = Broker::start();
    let client = Client::connect(broker.options().client_id("me"))
        .await
        .unwrap();
    let mut messages = client.subscribe("a/b", Qos::AtLeastOnce).await.unwrap();
    let other = Client::connect(broker.options().client_id("me"))
        .await
        .unwrap();
    let State::Ended(why) = until(&client, |state| matches!(state, State::Ended(_))).await else {
        panic!("ended");
    };
    let Error::Server(Refusal::Disconnect(disconnect)) = &why else {
        panic!("{why:?}");
    };
    assert_eq!(disconnect.reason, ReasonCode::SessionTakenOver);
    assert!(messages.next().await.is_none());
    let refused = client.publish(publication("x", Qos::AtLeastOnce)).await;
    assert!(
        matches!(refused, Err(Error::Server(Refusal::Disconnect(_)))),
        "{refused:?}"
    );
    other
        .publish(publication("x", Qos::AtLeastOnce))
        .await
        .unwrap();
}

/// The last handle that goes leaves as [`Client::disconnect`] does: without a Will, and without a Session.
#[tokio::test]
async fn a_dropped_client_leaves_in_peace() {
    let broker = Broker::start();
    let will = Will {
        topic: "will".to_owned(),
        payload: "gone".into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: Default::default(),
    };
    let options = broker.options().client_id("me").will(will);
    let client = Client::connect(options.clone()).await.unwrap();
    let watched = client.state();
    drop(client);
    let mut watched = watched;
    watched
        .wait_for(|state| matches!(state, State::Ended(_)))
        .await
        .unwrap();
    let client = Client::connect(options.clean_start(false)).await.unwrap();
    let State::Connected { connack, .. } = client.state().borrow().clone() else {
        panic!("connected");
    };
    assert!(!connack.session_present);
    assert!(broker.published().is_empty());
    let reason = ReasonCode::DisconnectWithWillMessage;
    client.disconnect_with(reason).await;
    broker
        .expect_publish("will")
        .with("gone")
        .within(DEADLINE)
        .await;
}

/// One exchange over real sockets, cut at every byte up to the end of what it takes.
#[tokio::test]
async fn a_connection_cut_at_any_byte_does_no_harm() {
    let broker = Broker::start();
    for at in 0..60 {
        broker.cut_after([Cut::FromClient(2 * at), Cut::ToClient(at)]);
        let client = Client::start(broker.options()).unwrap();
        let payload = at.to_string();
        let published = client.publish(publication(payload.as_str(), Qos::ExactlyOnce));
        timeout(DEADLINE, published).await.unwrap().unwrap();
        let seen = broker.expect_publish("a/b").within(DEADLINE).await;
        assert_eq!(seen.payload, payload);
        client.disconnect().await;
    }
    assert_eq!(broker.published().len(), 60);
}

/// `flush` waits for everything that was handed over.
#[tokio::test]
async fn flush_waits_for_every_answer() {
    let broker = Broker::start();
    let client = Client::connect(broker.options()).await.unwrap();
    let mut handed = Vec::new();
    for number in 0..100 {
        let publication = publication(number.to_string(), Qos::AtLeastOnce);
        handed.push(client.hand_over(publication).await.unwrap());
    }
    timeout(DEADLINE, client.flush()).await.unwrap().unwrap();
    client.disconnect().await;
    for handed in handed {
        handed.await.unwrap();
    }
}

/// What a program has handed over goes on in the next one, and QoS 2 stays exactly once, whatever the first had sent.
#[tokio::test]
async fn an_outbox_survives_the_program() {
    let mut broker = Broker::start();
    for level in [OutboxLevel::Synced, OutboxLevel::Written] {
        let folder = TempFolder::new();
        let options = || {
            broker
                .options()
                .client_id("meter")
                .outbox(Outbox::in_folder(folder.path()).level(level))
        };
        let client = Client::connect(options()).await.unwrap();
        broker.stall();
        for number in 0..20_u32 {
            let publication = publication(number.to_string(), Qos::ExactlyOnce);
            drop(client.hand_over(publication).await.unwrap());
        }
        broker.cut();
        let mut state = client.state();
        drop(client);
        state
            .wait_for(|state| matches!(state, State::Ended(_)))
            .await
            .unwrap();
        broker.heal();
        let client = Client::connect(options()).await.unwrap();
        timeout(DEADLINE, client.flush()).await.unwrap().unwrap();
        client.disconnect().await;
        for number in 0..20_u32 {
            let seen = broker.expect_publish("a/b").within(DEADLINE).await;
            assert_eq!(seen.payload, number.to_string());
        }
        broker.restart_empty();
    }
    assert_eq!(broker.published().len(), 40);
}

/// What is handed over while a connection is being made is kept, too.
#[tokio::test]
async fn an_outbox_keeps_while_a_connection_is_made() {
    let broker = Broker::start();
    let folder = TempFolder::new();
    for number in 0..20_u32 {
        let options = broker.options().client_id("meter");
        let client = Client::start(options.outbox(Outbox::in_folder(folder.path()))).unwrap();
        let publication = publication(number.to_string(), Qos::AtLeastOnce);
        let handed = timeout(DEADLINE, client.hand_over(publication)).await;
        timeout(DEADLINE, handed.unwrap().unwrap())
            .await
            .unwrap()
            .unwrap();
        client.disconnect().await;
    }
}

/// One client uses an outbox at a time, and it has a name.
#[tokio::test]
async fn an_outbox_belongs_to_one_client() {
    let broker = Broker::start();
    let folder = TempFolder::new();
    let outbox = Outbox::in_folder(folder.path());
    let nameless = Client::start(broker.options().outbox(outbox.clone()));
    assert!(matches!(nameless, Err(Error::Caller(Mistake::Options(_)))));
    let client = Client::connect(broker.options().client_id("me").outbox(outbox.clone()));
    let client = client.await.unwrap();
    let second = Client::start(broker.options().client_id("me").outbox(outbox));
    assert!(matches!(second, Err(Error::Caller(Mistake::Outbox(_)))));
    client.disconnect().await;
}

/// Over WebSocket, over a Unix socket, and by the URLs of both.
#[tokio::test]
async fn other_ways_lead_to_the_same_broker() {
    let folder = TempFolder::new();
    let socket = folder.path().join("broker.sock");
    let broker = Broker::start_with(|config| {
        let mut websocket = config.listeners[0].clone();
        websocket.transport = Transport::WebSocket;
        let mut unix = config.listeners[0].clone();
        unix.address = Address::Unix(socket.clone());
        config.listeners.extend([websocket, unix]);
    });
    let server = broker.server().unwrap();
    let websocket = server.listeners()[1];
    for url in [
        broker.url(),
        format!("ws://{websocket}"),
        format!("ws://{websocket}/mqtt"),
        format!("unix://{}", socket.display()),
    ] {
        let client = Client::connect(Options::from_url(&url).unwrap())
            .await
            .unwrap();
        let mut messages = client.subscribe("a/b", Qos::ExactlyOnce).await.unwrap();
        // More than one frame, both ways.
        let payload = "x".repeat(300_000);
        client
            .publish(publication(payload.as_str(), Qos::ExactlyOnce))
            .await
            .unwrap();
        assert_eq!(next(&mut messages).await, payload, "{url}");
        client.disconnect().await;
    }
    let url = format!("ws://{websocket}/elsewhere");
    let nowhere = Client::connect(Options::from_url(&url).unwrap()).await;
    let error = nowhere.unwrap_err().to_string();
    assert!(error.contains("HTTP 404"), "{error}");
}

/// A program without a runtime does the same.
#[test]
fn blocking_calls_do_the_same() {
    let mut broker = Broker::start();
    let client = blocking::Client::connect(broker.options()).unwrap();
    let mut messages = client.subscribe("a/b", Qos::ExactlyOnce).unwrap();
    assert!(messages.next_within(Duration::from_millis(1)).is_none());
    client.publish(publication("1", Qos::ExactlyOnce)).unwrap();
    let handed = client
        .hand_over(publication("2", Qos::ExactlyOnce))
        .unwrap();
    broker.kill();
    broker.restart();
    handed.wait().unwrap();
    client.flush().unwrap();
    assert_eq!(messages.next().unwrap().payload, "1");
    assert_eq!(messages.next_within(DEADLINE).unwrap().payload, "2");
    let asking = client.clone();
    let mut questions = client.subscribe("double", Qos::AtLeastOnce).unwrap();
    let asked = std::thread::spawn(move || asking.request("double", "2").unwrap().payload.clone());
    let question = questions.next().unwrap();
    client.respond(&question, "4").unwrap();
    assert_eq!(asked.join().unwrap(), "4");
    client.disconnect();
    assert!(messages.next().is_none());
    drop(messages);
    // The last handle leaves in peace, too.
    drop(blocking::Client::connect(broker.options()).unwrap());
    let nobody = blocking::Client::connect(Options::new("127.0.0.1", 1));
    assert!(matches!(nobody, Err(Error::Network(_))));
}
