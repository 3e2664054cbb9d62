//! Has a Will published when its connection breaks, and the truth when it comes and goes.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example will [URL]`.

use vencejo_client::{Client, Error, Options, Publication, Qos, ReasonCode, Will};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let will = Will {
        topic: "devices/lamp/online".to_owned(),
        payload: "false".into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: Default::default(),
    };
    let lamp = Client::connect(Options::from_url(url)?.will(will)).await?;
    let online = Publication::new("devices/lamp/online", "true", Qos::AtLeastOnce).retain(true);
    lamp.publish(online).await?;

    let watcher = Client::connect(Options::from_url(url)?).await?;
    let mut online = watcher
        .subscribe("devices/+/online", Qos::AtLeastOnce)
        .await?;
    if let Some(message) = online.next().await {
        println!(
            "{}: {}",
            message.topic,
            String::from_utf8_lossy(&message.payload)
        );
    }
    // As if the connection had broken: the server publishes the Will.
    lamp.disconnect_with(ReasonCode::DisconnectWithWillMessage)
        .await;
    if let Some(message) = online.next().await {
        println!(
            "{}: {}",
            message.topic,
            String::from_utf8_lossy(&message.payload)
        );
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
