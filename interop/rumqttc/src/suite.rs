//! What rumqttc must be able to do with a broker, once in v3.1.1 and once in v5.
//!
//! Owns: the cases. Does not own: the client (see `peer`). Start reading at [`run`].
//! Invariant: a case uses only topics and client ids of its own.

use std::collections::BTreeSet;

use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::peer::{Options, Peer, Result, Version, Will};

/// Where a case runs: the broker, the version, and a topic prefix that nobody else uses.
#[derive(Clone)]
struct Room {
    version: Version,
    host: String,
    port: u16,
    prefix: String,
}

impl Room {
    fn options(&self, name: &str) -> Options {
        Options {
            version: self.version,
            host: self.host.clone(),
            port: self.port,
            client_id: format!("{}-{name}", self.prefix),
            clean: true,
            will: None,
        }
    }

    async fn peer(&self, name: &str) -> Result<Peer> {
        Peer::connect(&self.options(name)).await
    }

    fn topic(&self, rest: &str) -> String {
        format!("{}/{rest}", self.prefix)
    }
}

/// Runs every case and returns the failures, one line each, and how many cases ran.
pub async fn run(host: &str, port: u16) -> (Vec<String>, usize) {
    let mut failures = Vec::new();
    let mut count = 0;
    for version in [Version::V311, Version::V5] {
        let room = |case: &str| Room {
            version,
            host: host.to_owned(),
            port,
            prefix: format!("rumqttc-{}-{version:?}-{case}", std::process::id()),
        };
        let mut note = |case: &str, result: Result<()>| {
            count += 1;
            if let Err(error) = result {
                failures.push(format!("{case} ({version:?}): {error}"));
            }
        };
        note(
            "every QoS arrives once and in order",
            every_qos(room("qos")).await,
        );
        note(
            "retained: set, replace, clear",
            retained(room("retained")).await,
        );
        note(
            "will after an ungraceful close",
            will_published(room("will")).await,
        );
        note(
            "no will after DISCONNECT",
            will_discarded(room("nowill")).await,
        );
        note("session resume", session_resume(room("resume")).await);
        note(
            "shared subscription",
            shared_subscription(room("shared")).await,
        );
        note("300 kB", large(room("large300"), 300_000).await);
        note("5 MB", large(room("large5"), 5_000_000).await);
        if version == Version::V5 {
            note(
                "properties pass through",
                properties(room("properties")).await,
            );
        }
    }
    (failures, count)
}

async fn every_qos(room: Room) -> Result<()> {
    let mut subscriber = room.peer("sub").await?;
    let mut publisher = room.peer("pub").await?;
    subscriber.subscribe(&room.topic("#"), 2).await?;
    for qos in 0..=2 {
        for number in 0..20_u8 {
            publisher
                .publish(&room.topic(&format!("q{qos}")), qos, false, &[number])
                .await?;
        }
        for number in 0..20_u8 {
            let message = subscriber.message().await?;
            let seen = (message.topic, message.payload, message.qos, message.retain);
            expect(
                seen,
                (room.topic(&format!("q{qos}")), vec![number], qos, false),
            )?;
        }
    }
    publisher.disconnect().await?;
    expect(subscriber.is_quiet(&room.topic("fence")).await?, true)?;
    subscriber.disconnect().await
}

async fn retained(room: Room) -> Result<()> {
    let mut publisher = room.peer("pub").await?;
    for payload in ["first", "second", ""] {
        publisher
            .publish(&room.topic("state"), 1, true, payload.as_bytes())
            .await?;
        let mut subscriber = room.peer(&format!("sub{payload}")).await?;
        subscriber.subscribe(&room.topic("#"), 1).await?;
        if payload.is_empty() {
            expect(subscriber.is_quiet(&room.topic("fence")).await?, true)?;
        } else {
            let message = subscriber.message().await?;
            expect(
                (message.payload, message.retain),
                (payload.as_bytes().to_vec(), true),
            )?;
        }
        subscriber.disconnect().await?;
    }
    publisher.disconnect().await
}

fn will_of(room: &Room) -> Option<Will> {
    Some(Will {
        topic: room.topic("gone"),
        payload: "gone".to_owned(),
    })
}

async fn will_published(room: Room) -> Result<()> {
    let mut watcher = room.peer("watcher").await?;
    watcher.subscribe(&room.topic("#"), 1).await?;
    let dying = Peer::connect(&Options {
        will: will_of(&room),
        ..room.options("dying")
    })
    .await?;
    drop(dying); // the socket closes without a DISCONNECT
    let message = watcher.message().await?;
    expect((message.payload, message.qos), (b"gone".to_vec(), 1))?;
    watcher.disconnect().await
}

async fn will_discarded(room: Room) -> Result<()> {
    let mut watcher = room.peer("watcher").await?;
    watcher.subscribe(&room.topic("#"), 1).await?;
    let leaving = Peer::connect(&Options {
        will: will_of(&room),
        ..room.options("leaving")
    })
    .await?;
    leaving.disconnect().await?;
    let mut publisher = room.peer("pub").await?;
    publisher
        .publish(&room.topic("after"), 1, false, b"after")
        .await?;
    expect(watcher.message().await?.payload, b"after".to_vec())?;
    publisher.disconnect().await?;
    watcher.disconnect().await
}

async fn session_resume(room: Room) -> Result<()> {
    let options = Options {
        clean: false,
        ..room.options("sub")
    };
    let mut subscriber = Peer::connect(&options).await?;
    expect(subscriber.session_present, false)?;
    subscriber.subscribe(&room.topic("#"), 2).await?;
    drop(subscriber); // DISCONNECT would do as well; a lost connection is the harder case
    let mut publisher = room.peer("pub").await?;
    for number in 0..200_u8 {
        publisher
            .publish(&room.topic("mixed"), 1 + number % 2, false, &[number])
            .await?;
    }
    publisher.disconnect().await?;
    let mut subscriber = Peer::connect(&options).await?;
    expect(subscriber.session_present, true)?;
    // rumqttc hands over a QoS 2 message with its PUBLISH, so this is the order on the wire: nothing
    // overtakes, whatever its QoS.
    for number in 0..200_u8 {
        let message = subscriber.message().await?;
        expect(
            (message.payload, message.qos),
            (vec![number], 1 + number % 2),
        )?;
    }
    subscriber.disconnect().await
}

async fn shared_subscription(room: Room) -> Result<()> {
    let filter = format!("$share/group/{}", room.topic("#"));
    let mut members = [
        room.peer("one").await?,
        room.peer("two").await?,
        room.peer("three").await?,
    ];
    for member in &mut members {
        member.subscribe(&filter, 1).await?;
    }
    let mut publisher = room.peer("pub").await?;
    for number in 0..60_u8 {
        publisher
            .publish(&room.topic("work"), 1, false, &[number])
            .await?;
    }
    let mut seen = Vec::new();
    while seen.len() < 60 {
        let [one, two, three] = &mut members;
        let message = tokio::select! {
            message = one.message() => message?,
            message = two.message() => message?,
            message = three.message() => message?,
        };
        seen.extend(message.payload);
    }
    expect(
        seen.iter().copied().collect::<BTreeSet<_>>(),
        (0..60).collect(),
    )?;
    for member in members {
        member.disconnect().await?;
    }
    publisher.disconnect().await
}

async fn large(room: Room, bytes: usize) -> Result<()> {
    let payload: Vec<u8> = (0_u32..)
        .map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)])
        .take(bytes)
        .collect();
    let mut subscriber = room.peer("sub").await?;
    let mut publisher = room.peer("pub").await?;
    subscriber.subscribe(&room.topic("#"), 2).await?;
    for qos in 0..=2 {
        // Both ends on one thread: neither may wait for the other to be done.
        let topic = room.topic("large");
        let (sent, message) = tokio::join!(
            publisher.publish(&topic, qos, false, &payload),
            subscriber.message()
        );
        sent?;
        let message = message?;
        expect((message.qos, message.payload == payload), (qos, true))?;
    }
    publisher.disconnect().await?;
    subscriber.disconnect().await
}

async fn properties(room: Room) -> Result<()> {
    let mut subscriber = room.peer("sub").await?;
    let mut publisher = room.peer("pub").await?;
    subscriber.subscribe(&room.topic("#"), 1).await?;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(3600),
        response_topic: Some(room.topic("answer")),
        correlation_data: Some(vec![0, 255, 7].into()),
        user_properties: vec![
            pair("b", "2"),
            pair("a", "1"),
            pair("b", "2"),
            pair("a", "0"),
        ],
        content_type: Some("text/plain".to_owned()),
        ..PublishProperties::default()
    };
    publisher
        .publish_with(&room.topic("question"), 1, false, b"?", sent.clone())
        .await?;
    let mut got = subscriber
        .message()
        .await?
        .properties
        .ok_or("no properties")?;
    let remaining = got
        .message_expiry_interval
        .replace(3600)
        .ok_or("no message expiry interval")?;
    expect((3590..=3600).contains(&remaining), true)?;
    got.topic_alias = None; // between this connection's two ends only
    expect(got, sent)?;
    publisher.disconnect().await?;
    subscriber.disconnect().await
}

fn expect<T: PartialEq + std::fmt::Debug>(seen: T, expected: T) -> Result<()> {
    if seen == expected {
        Ok(())
    } else {
        Err(format!("expected {expected:?}, saw {seen:?}"))
    }
}
