//! Keeps what it publishes in a folder until it is acknowledged: it survives this program.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example durable [URL]`.

use vencejo_client::{Client, Error, Options, Outbox, Publication, Qos};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let folder = std::env::temp_dir().join("vencejo-outbox-example");
    let options = Options::from_url(url)?
        .client_id("meter-7")
        .outbox(Outbox::in_folder(folder));
    // There need not be a server yet.
    let client = Client::start(options)?;
    for reading in [1017, 1018, 1019] {
        let publication = Publication::new("meters/7", reading.to_string(), Qos::ExactlyOnce);
        // On the disk when this returns. The answer is not waited for.
        drop(client.hand_over(publication).await?);
    }
    println!("kept; it may be switched off now");
    client.flush().await?;
    println!("and now the server has it");
    client.disconnect().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
