//! Hands over a thousand messages at QoS 2, and looks at the answers afterwards.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example many [URL]`.

use vencejo_client::{Client, Error, Options, Publication, Qos};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::connect(Options::from_url(url)?).await?;
    let mut handed = Vec::new();
    for number in 0..1000 {
        let publication = Publication::new("numbers", number.to_string(), Qos::ExactlyOnce);
        // Waits only while the queue is full.
        handed.push(client.hand_over(publication).await?);
    }
    let mut without_subscribers = 0;
    for handed in handed {
        let published = handed.await?;
        without_subscribers += u32::from(published.reason.value() == 0x10);
    }
    println!("1000 acknowledged, {without_subscribers} of them without a subscriber");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
