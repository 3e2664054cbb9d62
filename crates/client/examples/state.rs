//! Watches its connection, which is made again when it breaks.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example state [URL]`.

use std::time::Duration;

use vencejo_client::{Client, Error, Options, Publication, Qos, Reconnect, State};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let reconnect = Reconnect {
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_secs(5),
        attempts_max: None,
    };
    // Does not wait for the connection: it is made when that can be.
    let client = Client::start(Options::from_url(url)?.reconnect(reconnect))?;
    let mut state = client.state();
    let watching = tokio::spawn(async move {
        while state.changed().await.is_ok() {
            match &*state.borrow_and_update() {
                State::Connecting => println!("connecting"),
                State::Connected { client_id, connack } => {
                    let session = connack.session_present;
                    println!("connected as {client_id}; session present: {session}");
                }
                State::Disconnected { why, .. } => println!("disconnected: {why}"),
                State::Ended(why) => println!("ended: {why}"),
            }
        }
    });
    // Waits as long as it takes.
    client
        .publish(Publication::new("hello", "world", Qos::AtLeastOnce))
        .await?;
    client.disconnect().await;
    watching.await.ok();
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
