//! The tasks, and a stream to measure, with our client.
//!
//! Owns: user code as a user would write it. Does not own: measuring. Start reading at [`publish`].
//! Invariant: what stands between two marks is all that a task needs but its imports.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use vencejo_client::{Client, Options, Publication, Qos};

use crate::{IN_FLIGHT, PAYLOAD, Result};

// task: publish at QoS 1, done when the server has it; a refusal is an error.
pub async fn publish(host: &str, port: u16) -> Result<()> {
    let client = Client::connect(Options::new(host, port)).await?;
    let publication = Publication::new("tasks/1", "x", Qos::AtLeastOnce);
    client.publish(publication).await?;
    Ok(())
}

// task: two subscriptions whose messages go to two places.
pub async fn streams(host: &str, port: u16) -> Result<()> {
    let client = Client::connect(Options::new(host, port)).await?;
    let mut warm = client.subscribe("ours/warm/+", Qos::AtLeastOnce).await?;
    let mut cold = client.subscribe("ours/cold/#", Qos::AtLeastOnce).await?;
    for topic in ["ours/warm/a", "ours/cold/b", "ours/warm/c"] {
        let publication = Publication::new(topic, "x", Qos::AtLeastOnce);
        client.publish(publication).await?;
    }
    for topic in ["ours/warm/a", "ours/warm/c"] {
        let message = warm.next().await.ok_or("ended")?;
        assert_eq!(message.topic, topic);
    }
    let message = cold.next().await.ok_or("ended")?;
    assert_eq!(message.topic, "ours/cold/b");
    Ok(())
}

// task: ask a question, and have the answer or an error after 5 seconds; and answer it.
pub async fn request(host: &str, port: u16) -> Result<()> {
    let server = Client::connect(Options::new(host, port)).await?;
    let mut questions = server.subscribe("ours/ask", Qos::AtLeastOnce).await?;
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            server.respond(&question, "42").await?;
        }
        Ok::<_, vencejo_client::Error>(())
    });
    let client = Client::connect(Options::new(host, port)).await?;
    let question = Publication::new("ours/ask", "?", Qos::AtLeastOnce);
    let answer = client
        .request_with(question, Duration::from_secs(5))
        .await?;
    assert_eq!(answer.payload, "42");
    Ok(())
}

// task: a thousand messages at QoS 2, each of which is known to have arrived or not.
pub async fn thousand(host: &str, port: u16) -> Result<()> {
    let client = Client::connect(Options::new(host, port)).await?;
    let mut handed = Vec::new();
    for number in 0..1000 {
        let publication = Publication::new("tasks/4", number.to_string(), Qos::ExactlyOnce);
        handed.push(client.hand_over(publication).await?);
    }
    for handed in handed {
        handed.await?;
    }
    Ok(())
}

// task: take ten messages, and stay subscribed over reconnects, also where the server has lost the session.
pub async fn stay(host: &str, port: u16) -> Result<()> {
    let client = Client::start(Options::new(host, port))?;
    let mut messages = client.subscribe("ours/stay", Qos::AtLeastOnce).await?;
    for _ in 0..10 {
        let publication = Publication::new("ours/stay", "x", Qos::AtLeastOnce);
        client.publish(publication).await?;
        messages.next().await.ok_or("ended")?;
    }
    Ok(())
}

// task: none; what is measured.
pub async fn stream(host: &str, port: u16, qos: u8, topic: &str, count: u32) -> Result<Duration> {
    let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)];
    let in_flight = NonZeroU16::new(IN_FLIGHT).ok_or("not 0")?;
    let options = || {
        Options::new(host, port)
            .in_flight_max(in_flight)
            .receive_maximum(in_flight)
            .topic_aliases_max(0)
            .nodelay(true)
    };
    let subscriber = Client::connect(options()).await?;
    let mut messages = subscriber.subscribe(topic, qos).await?;
    let publisher = Client::connect(options()).await?;
    let start = Instant::now();
    let topic = topic.to_owned();
    let publishing = tokio::spawn(async move {
        for _ in 0..count {
            let publication = Publication::new(topic.as_str(), PAYLOAD.to_vec(), qos);
            publisher.hand_over(publication).await?;
        }
        publisher.flush().await
    });
    for _ in 0..count {
        messages.next().await.ok_or("ended")?;
    }
    publishing.await??;
    Ok(start.elapsed())
}
