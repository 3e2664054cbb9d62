//! rumqttc against a broker: `suite` runs its own cases; `pub` and `sub` are its part of the matrix of different
//! clients (interop/suites/matrix.py says what they print).
//!
//! Start reading at [`main`]. Invariant: the exit code is 0 only if all that was asked for was seen.

mod peer;
mod suite;

use std::process::ExitCode;

use peer::{Options, Peer, Result, Version};

const USAGE: &str = "usage: interop-rumqttc HOST PORT suite
       interop-rumqttc HOST PORT pub 4|5 QOS TOPIC COUNT
       interop-rumqttc HOST PORT sub 4|5 QOS FILTER COUNT";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Result<()> {
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|error| format!("{text}: {error}"))
    };
    match *arguments {
        [host, port, "suite"] => {
            let (failures, count) = suite::run(host, number(port)?).await;
            println!("{count} cases");
            if failures.is_empty() {
                Ok(())
            } else {
                Err(failures.join("\n"))
            }
        }
        [
            host,
            port,
            what @ ("pub" | "sub"),
            version,
            qos,
            topic,
            count,
        ] => {
            let options = Options {
                version: if version == "5" {
                    Version::V5
                } else {
                    Version::V311
                },
                host: host.to_owned(),
                port: number(port)?,
                client_id: format!("rumqttc-{what}-{}", std::process::id()),
                clean: true,
                will: None,
            };
            let qos = u8::try_from(number(qos)?).map_err(|error| error.to_string())?;
            let peer = Peer::connect(&options).await?;
            if what == "pub" {
                publish(peer, qos, topic, number(count)?).await
            } else {
                subscribe(peer, qos, topic, number(count)?).await
            }
        }
        _ => Err(USAGE.to_owned()),
    }
}

async fn publish(mut peer: Peer, qos: u8, topic: &str, count: u16) -> Result<()> {
    for n in 0..count {
        peer.publish(topic, qos, false, n.to_string().as_bytes())
            .await?;
    }
    peer.disconnect().await
}

async fn subscribe(mut peer: Peer, qos: u8, filter: &str, count: u16) -> Result<()> {
    peer.subscribe(filter, qos).await?;
    println!("ready");
    for _ in 0..count {
        let message = peer.message().await?;
        let payload = String::from_utf8_lossy(&message.payload);
        println!(
            "message {} {} {} {payload}",
            message.qos,
            u8::from(message.retain),
            message.topic
        );
    }
    peer.disconnect().await
}
