//! The same tasks, and the same stream, with rumqttc.
//!
//! Owns: user code as a user would write it. Does not own: measuring. Start reading at [`publish`].
//! Invariant: what stands between two marks is all that a task needs but its imports.

use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PubCompReason, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::time::timeout;

use crate::{IN_FLIGHT, PAYLOAD, Result};

// task: publish at QoS 1, done when the server has it; a refusal is an error.
pub async fn publish(host: &str, port: u16) -> Result<()> {
    let options = MqttOptions::new("rumqttc-1", host, port);
    let (client, mut eventloop) = AsyncClient::new(options, 10);
    client
        .publish("tasks/1", QoS::AtLeastOnce, false, "x")
        .await?;
    loop {
        if let Event::Incoming(Packet::PubAck(ack)) = eventloop.poll().await? {
            return match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                reason => Err(format!("{reason:?}").into()),
            };
        }
    }
}

// task: two subscriptions whose messages go to two places.
pub async fn streams(host: &str, port: u16) -> Result<()> {
    let options = MqttOptions::new("rumqttc-2", host, port);
    let (client, mut eventloop) = AsyncClient::new(options, 10);
    client.subscribe("theirs/warm/+", QoS::AtLeastOnce).await?;
    client.subscribe("theirs/cold/#", QoS::AtLeastOnce).await?;
    for topic in ["theirs/warm/a", "theirs/cold/b", "theirs/warm/c"] {
        client.publish(topic, QoS::AtLeastOnce, false, "x").await?;
    }
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    while warm.len() + cold.len() < 3 {
        if let Event::Incoming(Packet::Publish(publish)) = eventloop.poll().await? {
            let topic = String::from_utf8(publish.topic.to_vec())?;
            if topic.starts_with("theirs/warm/") {
                warm.push(topic);
            } else if topic.starts_with("theirs/cold/") {
                cold.push(topic);
            }
        }
    }
    assert_eq!(warm, ["theirs/warm/a", "theirs/warm/c"]);
    assert_eq!(cold, ["theirs/cold/b"]);
    Ok(())
}

// task: ask a question, and have the answer or an error after 5 seconds; and answer it.
pub async fn request(host: &str, port: u16) -> Result<()> {
    let options = MqttOptions::new("rumqttc-3a", host, port);
    let (server, mut eventloop) = AsyncClient::new(options, 10);
    server.subscribe("theirs/ask", QoS::AtLeastOnce).await?;
    while !matches!(eventloop.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
    tokio::spawn(async move {
        while let Ok(event) = eventloop.poll().await {
            let Event::Incoming(Packet::Publish(question)) = event else {
                continue;
            };
            let asked = question.properties.unwrap_or_default();
            let Some(topic) = asked.response_topic else {
                continue;
            };
            let properties = PublishProperties {
                correlation_data: asked.correlation_data,
                ..PublishProperties::default()
            };
            let sent =
                server.publish_with_properties(topic, QoS::AtLeastOnce, false, "42", properties);
            if sent.await.is_err() {
                return;
            }
        }
    });
    let options = MqttOptions::new("rumqttc-3b", host, port);
    let (client, mut eventloop) = AsyncClient::new(options, 10);
    client.subscribe("answers/3b", QoS::AtLeastOnce).await?;
    let properties = PublishProperties {
        response_topic: Some("answers/3b".to_owned()),
        correlation_data: Some("1".into()),
        ..PublishProperties::default()
    };
    client
        .publish_with_properties("theirs/ask", QoS::AtLeastOnce, false, "?", properties)
        .await?;
    let answer = timeout(Duration::from_secs(5), async {
        loop {
            if let Event::Incoming(Packet::Publish(answer)) = eventloop.poll().await? {
                let data = answer
                    .properties
                    .and_then(|properties| properties.correlation_data);
                if data.is_some_and(|data| data == "1") {
                    return Ok::<_, rumqttc::v5::ConnectionError>(answer.payload);
                }
            }
        }
    });
    assert_eq!(answer.await??, "42");
    Ok(())
}

// task: a thousand messages at QoS 2, each of which is known to have arrived or not.
pub async fn thousand(host: &str, port: u16) -> Result<()> {
    let options = MqttOptions::new("rumqttc-4", host, port);
    let (client, mut eventloop) = AsyncClient::new(options, 10);
    tokio::spawn(async move {
        for number in 0..1000 {
            let payload = number.to_string();
            let sent = client.publish("tasks/4", QoS::ExactlyOnce, false, payload);
            if sent.await.is_err() {
                return;
            }
        }
    });
    let mut done = 0;
    while done < 1000 {
        match eventloop.poll().await? {
            Event::Incoming(Packet::PubComp(ack)) if ack.reason == PubCompReason::Success => {
                done += 1;
            }
            Event::Incoming(Packet::PubComp(ack)) => return Err(format!("{:?}", ack.reason).into()),
            _ => {}
        }
    }
    Ok(())
}

// task: take ten messages, and stay subscribed over reconnects, also where the server has lost the session.
pub async fn stay(host: &str, port: u16) -> Result<()> {
    let mut options = MqttOptions::new("rumqttc-5", host, port);
    options.set_clean_start(false);
    let (client, mut eventloop) = AsyncClient::new(options, 10);
    let mut taken = 0;
    while taken < 10 {
        match eventloop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                if !connack.session_present {
                    client.subscribe("theirs/stay", QoS::AtLeastOnce).await?;
                }
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                client
                    .publish("theirs/stay", QoS::AtLeastOnce, false, "x")
                    .await?;
            }
            Ok(Event::Incoming(Packet::Publish(_))) => {
                taken += 1;
                client
                    .publish("theirs/stay", QoS::AtLeastOnce, false, "x")
                    .await?;
            }
            Ok(_) => {}
            Err(error) => {
                eprintln!("{error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    Ok(())
}

// task: none; what is measured.
pub async fn stream(host: &str, port: u16, qos: u8, topic: &str, count: u32) -> Result<Duration> {
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
    let options = |name: &str| {
        let mut options = MqttOptions::new(name, host, port);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        options.set_receive_maximum(Some(IN_FLIGHT));
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        options
    };
    let (subscriber, mut messages) = AsyncClient::new(options("rumqttc-sub"), 1024);
    subscriber.subscribe(topic, qos).await?;
    while !matches!(messages.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
    let (publisher, mut eventloop) = AsyncClient::new(options("rumqttc-pub"), 1024);
    while !matches!(eventloop.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
    let start = Instant::now();
    let topic = topic.to_owned();
    let publishing = tokio::spawn(async move {
        for _ in 0..count {
            let sent = publisher.publish(topic.as_str(), qos, false, PAYLOAD.to_vec());
            if sent.await.is_err() {
                return;
            }
        }
        // The connection ends when its handles are gone.
        std::future::pending::<()>().await;
    });
    let polling = tokio::spawn(async move {
        let mut answered = if qos == QoS::AtMostOnce { count } else { 0 };
        let mut left = count;
        loop {
            match eventloop.poll().await {
                Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => answered += 1,
                Ok(Event::Outgoing(rumqttc::Outgoing::Publish(_))) => left -= 1,
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
            if answered >= count && left == 0 {
                return Ok(eventloop);
            }
        }
    });
    let mut received = 0;
    while received < count {
        if let Event::Incoming(Packet::Publish(_)) = messages.poll().await? {
            received += 1;
        }
    }
    drop(polling.await??);
    publishing.abort();
    Ok(start.elapsed())
}
