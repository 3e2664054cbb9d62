//! Subscribes, publishes five temperatures, and prints what comes.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example subscribe [URL]`.

use vencejo_client::{Client, Error, Options, Publication, Qos};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::connect(Options::from_url(url)?).await?;
    let mut temperatures = client
        .subscribe("sensors/+/temperature", Qos::AtLeastOnce)
        .await?;
    for degrees in 20..25 {
        let publication = Publication::new(
            "sensors/kitchen/temperature",
            degrees.to_string(),
            Qos::AtLeastOnce,
        );
        client.publish(publication).await?;
    }
    for _ in 20..25 {
        // Waits over reconnects, too; None when the client has ended.
        let Some(message) = temperatures.next().await else {
            break;
        };
        let payload = String::from_utf8_lossy(&message.payload);
        println!("{}: {payload}", message.topic);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
