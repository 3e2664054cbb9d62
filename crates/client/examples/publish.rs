//! Publishes one message at QoS 1 and waits for its acknowledgement.
//!
//! Owns: nothing; an example. Start reading at [`main`]. Run a server, then
//! `cargo run -p vencejo-client --example publish`.

use std::error::Error;

use vencejo_client::proto::Qos;
use vencejo_client::proto::packet::{Disconnect, ReasonCode};
use vencejo_client::{Connection, Options, Publication};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, events) = Connection::connect(Options::new("localhost", 1883)).await?;
    let publication = Publication::new("hello/world", "it works!", Qos::AtLeastOnce).retain(true);
    let published = client.publish(publication).await?;
    println!("acknowledged: {}", published.reason);
    client
        .disconnect(Disconnect::new(ReasonCode::Success))
        .await?;
    // The connection is closed when this returns.
    events.close().await;
    Ok(())
}
