//! Subscribes and prints what comes; connects again, with the same Session, when the connection is lost.
//!
//! Owns: nothing; an example. Start reading at [`main`]. Run a server, then
//! `cargo run -p vencejo-client --example subscribe`.

use std::error::Error;
use std::time::Duration;

use vencejo_client::proto::Qos;
use vencejo_client::proto::connection::ClientSession;
use vencejo_client::proto::packet::ConnectProperties;
use vencejo_client::{ConnectError, Connection, Event, Options, Subscription};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut session = ClientSession::default();
    loop {
        let options = Options::new("localhost", 1883)
            .client_id("subscribe-example")
            .clean_start(false)
            .properties(ConnectProperties {
                session_expiry_interval_seconds: Some(3600),
                ..ConnectProperties::default()
            })
            .session(session.clone());
        let (client, mut events) = match Connection::connect(options).await {
            Ok(connected) => connected,
            // Another try would be refused again.
            Err(error @ ConnectError::Refused(_)) => return Err(error.into()),
            Err(error) => {
                eprintln!("{error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let subscription = Subscription::new("hello/#", Qos::AtLeastOnce);
        client
            .subscribe(vec![subscription], None, Vec::new())
            .await?;
        session = loop {
            match events.recv().await {
                Some(Event::Message(message)) => {
                    let payload = String::from_utf8_lossy(&message.payload);
                    println!("{} {payload}", message.topic);
                }
                Some(Event::Disconnected(disconnected)) => {
                    eprintln!("{}", disconnected.cause);
                    break disconnected.session;
                }
                None => return Ok(()),
            }
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
