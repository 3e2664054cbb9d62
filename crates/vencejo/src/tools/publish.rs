//! `vencejo pub`: sends messages and leaves when all are acknowledged.
//!
//! Owns: where payloads come from, how many wait at once. Does not own: the flags' meaning for the
//! connection (see `args`). Start reading at [`run`].
//! Invariant: exit code 0 means that the Server has acknowledged what asks for an acknowledgement.

use std::collections::VecDeque;
use std::io::Read;

use bytes::Bytes;
use client::{Connection, Events, Publication, Receipt, RequestError};
use proto::packet::{Property, PublishProperties, ReasonCode};
use proto::{Qos, topic};

use super::args::{PayloadArgs, PubArgs, parse_qos};
use super::properties::Properties;
use super::{Failure, complain, lines};

const TOOL: &str = "pub";
/// A packet has at most 256 MiB.
const PAYLOAD_BYTES_MAX: usize = 1 << 28;
const ONE_MESSAGE: &str = "Only one type of message can be sent at once.";

/// Where payloads come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Payload(Bytes),
    Lines,
}

/// Runs the tool.
pub(crate) async fn run(args: &PubArgs) -> Result<(), Failure> {
    let usage = |text: String| Failure::usage(TOOL, text);
    let properties = Properties::parse(&args.connection.property).map_err(usage)?;
    let connection = args.connection.connection(TOOL, properties)?;
    let topic_name = args.topic.clone().or_else(|| connection.url_topic.clone());
    let has_alias = PublishProperties::parse(&connection.properties.publish)
        .map_err(|malformed| usage(format!("{malformed}.")))?
        .topic_alias
        .is_some();
    let topic_name = match topic_name {
        Some(topic_name) => topic_name,
        None if has_alias => String::new(),
        None => return Err(usage("Both topic and message must be supplied.".into())),
    };
    if !topic_name.is_empty() && topic::check_name(&topic_name).is_err() {
        let text = format!("Invalid publish topic '{topic_name}', does it contain '+' or '#'?");
        return Err(usage(text));
    }
    let qos =
        parse_qos(&args.qos).ok_or_else(|| usage(format!("Invalid QoS given: {}", args.qos)))?;
    let source = match args.stdin_line {
        true if args.payload.is_missing() => Source::Lines,
        true => return Err(usage(ONE_MESSAGE.to_owned())),
        false => source(&args.payload, TOOL)?,
    };
    let quiet = args.connection.quiet;
    let waiting_max = args.max_inflight.max(1);
    let mut publication = Publication::new(topic_name, Bytes::new(), qos).retain(args.retain);
    let section = PublishProperties::parse(&connection.properties.publish);
    for property in section.iter().flat_map(PublishProperties::iter) {
        publication = add(publication, &property, TOOL)?;
    }
    let payload = match source {
        Source::Payload(payload) => payload,
        Source::Lines => return lines::run(&connection, publication, waiting_max, quiet).await,
    };
    let (client, events) =
        super::connect(&connection.options, connection.is_version_chosen, quiet).await?;
    let sender = Sender {
        client,
        events,
        publication,
        waiting: VecDeque::new(),
        waiting_max,
        quiet,
    };
    sender.send_all(payload, args, &connection.properties).await
}

pub(super) fn add(
    publication: Publication,
    property: &Property<'_>,
    tool: &str,
) -> Result<Publication, Failure> {
    publication
        .property(property)
        .map_err(|error| Failure::usage(tool, format!("{error}.")))
}

struct Sender {
    client: Connection,
    events: Events,
    publication: Publication,
    waiting: VecDeque<Receipt>,
    waiting_max: usize,
    quiet: bool,
}

impl Sender {
    async fn send_all(
        mut self,
        payload: Bytes,
        args: &PubArgs,
        properties: &Properties,
    ) -> Result<(), Failure> {
        for sent_before in 0..args.repeat.max(1) {
            if sent_before > 0 && !args.repeat_delay.is_zero() {
                self.settle(0).await?;
                tokio::time::sleep(args.repeat_delay).await;
            }
            self.send(payload.clone()).await?;
        }
        self.settle(0).await?;
        let disconnect = properties.disconnect.clone();
        match self.client.disconnect(disconnect).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failure(error).await),
        }
    }

    async fn send(&mut self, payload: Bytes) -> Result<(), Failure> {
        self.settle(self.waiting_max - 1).await?;
        let mut publication = self.publication.clone();
        publication.payload = payload;
        let is_waited_for = publication.qos != Qos::AtMostOnce;
        match self.client.start_publish(publication).await {
            Ok(receipt) if is_waited_for => {
                self.waiting.push_back(receipt);
                Ok(())
            }
            // QoS 0: only whether it could be sent at all.
            Ok(receipt) => self.settle_one(receipt).await,
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Waits until no more than `most` acknowledgements are missing.
    async fn settle(&mut self, most: usize) -> Result<(), Failure> {
        while self.waiting.len() > most {
            if let Some(receipt) = self.waiting.pop_front() {
                self.settle_one(receipt).await?;
            }
        }
        Ok(())
    }

    async fn settle_one(&mut self, receipt: Receipt) -> Result<(), Failure> {
        match receipt.wait().await {
            Ok(published) => {
                if published.reason.is_error() {
                    let number = published.packet_id.map_or(0, proto::PacketIdentifier::get);
                    warn_of_refusal(number, published.reason, self.quiet);
                }
                Ok(())
            }
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Why a request failed; where the connection is gone, why that is.
    async fn failure(&mut self, error: RequestError) -> Failure {
        if error == RequestError::ConnectionLost {
            while let Some(event) = self.events.recv().await {
                if let client::Event::Disconnected(disconnected) = event {
                    return Failure::new(format!("Error: {}.", disconnected.cause));
                }
            }
        }
        Failure::new(format!("Error: {error}."))
    }
}

/// The Server has not taken a message; it is not sent again.
pub(super) fn warn_of_refusal(number: u16, reason: ReasonCode, quiet: bool) {
    if !quiet {
        let words = reason.text();
        complain(&format!("Warning: Publish {number} failed: {words}."));
    }
}

/// The payload that the flags name.
pub(super) fn source(args: &PayloadArgs, tool: &str) -> Result<Source, Failure> {
    let given = [
        args.message.is_some(),
        args.file.is_some(),
        args.stdin_file,
        args.null_message,
        args.payload_size.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        0 => {
            let text = "Both topic and message must be supplied.";
            return Err(Failure::usage(tool, text));
        }
        1 => {}
        _ => return Err(Failure::usage(tool, ONE_MESSAGE)),
    }
    if let Some(message) = &args.message {
        return Ok(Source::Payload(Bytes::from(
            message.clone().into_encoded_bytes(),
        )));
    }
    if let Some(file) = &args.file {
        let payload = std::fs::read(file).map_err(|_| {
            let name = file.display();
            Failure::new(format!(
                "Error: Unable to open file \"{name}\".\nError loading input file \"{name}\"."
            ))
        })?;
        return Ok(Source::Payload(payload.into()));
    }
    if let Some(bytes) = args.payload_size {
        // What no packet can carry is told by the client, and not made here.
        let bytes = bytes.min(PAYLOAD_BYTES_MAX);
        return Ok(Source::Payload(vec![b'x'; bytes].into()));
    }
    let mut payload = Vec::new();
    if args.stdin_file {
        std::io::stdin()
            .read_to_end(&mut payload)
            .map_err(input_failure)?;
    }
    Ok(Source::Payload(payload.into()))
}

#[allow(clippy::needless_pass_by_value, reason = "the shape map_err asks for")]
pub(super) fn input_failure(error: std::io::Error) -> Failure {
    Failure::new(format!("Error: Unable to read standard input: {error}."))
}
