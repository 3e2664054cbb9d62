//! Shares jobs with other workers, and acknowledges each when it is done: what is not done comes again.
//!
//! Owns: nothing; an example. Start reading at [`run`]. Run a server, then
//! `cargo run -p vencejo-client --example worker [URL]`.

use std::time::Duration;

use vencejo_client::{Acknowledge, Client, Error, Options, Publication, Qos, Subscription};

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    // A session that waits for us: jobs that come while we are away are there when we come back.
    let options = Options::from_url(url)?
        .client_id("worker-1")
        .clean_start(false)
        .session_expiry(Duration::from_secs(24 * 60 * 60));
    let client = Client::connect(options).await?;
    let jobs = vec![Subscription::new("$share/workers/jobs/#", Qos::AtLeastOnce)];
    let mut jobs = client
        .subscribe_with(jobs, Acknowledge::ByApplication)
        .await?;
    for name in ["one", "two", "three"] {
        let job = Publication::new("jobs/print", name, Qos::AtLeastOnce);
        client.publish(job).await?;
    }
    for _ in 0..3 {
        let Some(job) = jobs.next().await else { break };
        println!("done: {}", String::from_utf8_lossy(&job.payload));
        job.acknowledge();
    }
    // Not unsubscribed: the session keeps what comes for us.
    jobs.keep();
    client.disconnect().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("mqtt://localhost")).await
}
