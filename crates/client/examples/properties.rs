//! Says what a payload is, how long it counts, and what else there is to say of it (5.0).
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example properties [URL]`.

use vencejo_client::proto::packet::Property;
use vencejo_client::{Client, Error, Options, Publication, Qos};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::connect(Options::from_url(url)?).await?;
    let mut alarms = client.subscribe("alarms/#", Qos::AtLeastOnce).await?;
    let mut publication = Publication::new("alarms/kitchen", r#"{"smoke":true}"#, Qos::AtLeastOnce);
    for property in [
        Property::ContentType("application/json"),
        Property::MessageExpiryInterval(60),
        Property::UserProperty("floor", "2"),
    ] {
        publication = publication.property(&property)?;
    }
    client.publish(publication).await?;
    if let Some(alarm) = alarms.next().await {
        for property in alarm.properties() {
            println!("{property:?}");
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
