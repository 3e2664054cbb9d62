//! Asks a question and waits for the answer: Response Topic and Correlation Data (5.0).
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example request [URL]`.

use vencejo_client::{Client, Error, Options, Qos};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let server = Client::connect(Options::from_url(url)?).await?;
    let mut questions = server.subscribe("math/square", Qos::AtLeastOnce).await?;
    let answering = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let number: u32 = String::from_utf8_lossy(&question.payload)
                .parse()
                .unwrap_or(0);
            server
                .respond(&question, (number * number).to_string())
                .await?;
        }
        Ok::<_, Error>(())
    });

    let client = Client::connect(Options::from_url(url)?).await?;
    for number in 1..=5 {
        let answer = client.request("math/square", number.to_string()).await?;
        println!("{number}² = {}", String::from_utf8_lossy(&answer.payload));
    }
    answering.abort();
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
