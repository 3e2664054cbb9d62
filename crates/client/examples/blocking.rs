//! The same without an async runtime.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example blocking [URL]`.

use std::time::Duration;

use vencejo_client::blocking::Client;
use vencejo_client::{Error, Options, Publication, Qos};

pub(crate) fn run(url: &str) -> Result<(), Error> {
    let client = Client::connect(Options::from_url(url)?)?;
    let mut messages = client.subscribe("hello/#", Qos::AtLeastOnce)?;
    client.publish(Publication::new(
        "hello/world",
        "it works!",
        Qos::AtLeastOnce,
    ))?;
    while let Some(message) = messages.next_within(Duration::from_secs(1)) {
        println!(
            "{}: {}",
            message.topic,
            String::from_utf8_lossy(&message.payload)
        );
        if message.topic == "hello/world" {
            break;
        }
    }
    client.disconnect();
    Ok(())
}

fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost"))
}
