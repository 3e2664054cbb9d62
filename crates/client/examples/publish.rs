//! Publishes one message at QoS 1 and waits for its acknowledgement.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example publish [URL]`.

use vencejo_client::{Client, Error, Options, Publication, Qos};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::connect(Options::from_url(url)?).await?;
    let publication = Publication::new("hello/world", "it works!", Qos::AtLeastOnce).retain(true);
    let published = client.publish(publication).await?;
    println!("acknowledged: {}", published.reason);
    client.disconnect().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
