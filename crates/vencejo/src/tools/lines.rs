//! `vencejo pub -l`: a message for each line of standard input, also over connections that break.
//!
//! Owns: what is read ahead of the acknowledgements. Does not own: connecting again (see `client::Client`), the flags (see
//! `publish`). Start reading at [`run`]. Invariant: exit code 0 means that the Server has acknowledged what asks for an
//! acknowledgement.

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use client::{
    Client, ConnectError, Error, Handed, Options, Outage, Publication, Queue, Reconnect, Refusal,
};
use proto::Version;
use proto::packet::{Disconnect, ReasonCode};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::args::Connection;
use super::publish::{input_failure, warn_of_refusal};
use super::{Failure, NO_5_0, RECONNECT_DELAY, complain, failure_of};

/// Publishes each line, and leaves when all are answered. So many wait at once, at most.
pub(super) async fn run(
    connection: &Connection,
    publication: Publication,
    waiting_max: usize,
    quiet: bool,
) -> Result<(), Failure> {
    let client = connect(connection, waiting_max, quiet).await?;
    let mut waiting = VecDeque::new();
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = Vec::new();
    while read_line(&mut input, &mut line).await? {
        settle(&mut waiting, waiting_max - 1, quiet).await?;
        let mut publication = publication.clone();
        publication.payload = Bytes::from(std::mem::take(&mut line));
        let handed = client.hand_over(publication).await;
        waiting.push_back(handed.map_err(|error| failure(&error))?);
    }
    settle(&mut waiting, 0, quiet).await?;
    let disconnect: Disconnect = connection.properties.disconnect.clone();
    client.disconnect_by(disconnect).await;
    Ok(())
}

/// The next line without its end; `false` if there is none.
async fn read_line(
    input: &mut BufReader<tokio::io::Stdin>,
    line: &mut Vec<u8>,
) -> Result<bool, Failure> {
    let read = input.read_until(b'\n', line).await.map_err(input_failure)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(read > 0)
}

/// As the other tools do: once more as 3.1.1 where the Server does not speak 5.0 and nobody asked for that.
async fn connect(
    connection: &Connection,
    waiting_max: usize,
    quiet: bool,
) -> Result<Client, Failure> {
    let options = options(connection.options.clone(), waiting_max);
    let version = options.protocol_version();
    let error = match Client::connect(options.clone()).await {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    let is_too_new = matches!(&error, Error::Server(Refusal::Connect(connack))
        if connack.reason == ReasonCode::UnsupportedProtocolVersion);
    if !is_too_new || connection.is_version_chosen {
        return Err(failure_to_connect(error, &options, version));
    }
    if !quiet {
        complain(NO_5_0);
    }
    let older = options.clone().version(Version::V311);
    let connected = Client::connect(older).await;
    connected.map_err(|error| failure_to_connect(error, &options, Version::V311))
}

/// As many on their way as the flags say, and as patient as mosquitto_pub.
fn options(options: Options, waiting_max: usize) -> Options {
    let in_flight = u16::try_from(waiting_max).unwrap_or(u16::MAX);
    let messages = u32::try_from(waiting_max).unwrap_or(u32::MAX);
    options
        .in_flight_max(NonZeroU16::new(in_flight).unwrap_or(NonZeroU16::MIN))
        .queue(Queue {
            messages_max: NonZeroU32::new(messages).unwrap_or(NonZeroU32::MIN),
            bytes_max: NonZeroU32::MAX,
            ..Queue::default()
        })
        .reconnect(Reconnect {
            delay_min: RECONNECT_DELAY,
            delay_max: RECONNECT_DELAY,
            ..Reconnect::default()
        })
}

/// Waits until no more than `most` answers are missing.
async fn settle(waiting: &mut VecDeque<Handed>, most: usize, quiet: bool) -> Result<(), Failure> {
    while waiting.len() > most {
        let Some(handed) = waiting.pop_front() else {
            return Ok(());
        };
        match handed.await {
            Ok(_) => {}
            Err(Error::Server(Refusal::Publish {
                packet_id, reason, ..
            })) => {
                warn_of_refusal(packet_id.get(), reason, quiet);
            }
            Err(error) => return Err(failure(&error)),
        }
    }
    Ok(())
}

fn failure(error: &Error) -> Failure {
    Failure::new(format!("Error: {error}."))
}

fn failure_to_connect(error: Error, options: &Options, version: Version) -> Failure {
    match error {
        Error::Network(Outage::Connect(error)) => failure_of(&error, options, version),
        Error::Server(Refusal::Connect(connack)) => {
            failure_of(&ConnectError::Refused(connack), options, version)
        }
        error => failure(&error),
    }
}
