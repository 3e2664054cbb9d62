//! `vencejo rr`: sends a request, prints the first response and leaves.
//!
//! Owns: the order of subscribing and asking. Does not own: the flags' meaning for the connection (see `args`), how a
//! message looks (see `format`). Start reading at [`run`]. Invariant: the request leaves when the response topic is
//! subscribed to, not before.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use client::{Connection, Event, Events, Publication, ReceivedMessage, Subscription};
use jiff::ZonedDateTime;
use proto::packet::{Property, PublishProperties};
use proto::{Version, topic};

use super::args::{ConnectionArgs, PayloadArgs, parse_qos};
use super::format::Format;
use super::options_file::OptionsFileArgs;
use super::properties::Properties;
use super::publish::{Source, add, source};
use super::subscribe::{TIMED_OUT, output_failure};
use super::{Failure, complain};

const TOOL: &str = "rr";

/// Send a request and print the response: `vencejo rr -t topic -e response/topic -m message`
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub(crate) struct RrArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) options: OptionsFileArgs,
    /// Topic to publish the request to
    #[arg(short = 't', long, allow_hyphen_values = true)]
    topic: Option<String>,
    /// Topic of the response
    #[arg(short = 'e', long, value_name = "TOPIC", allow_hyphen_values = true)]
    response_topic: Option<String>,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Quality of Service: 0, 1 or 2
    #[arg(short = 'q', long, default_value = "0", allow_hyphen_values = true)]
    qos: String,
    /// Print the topic before the payload
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Print the response in this format, for example '%I %t %p' or '%j'
    #[arg(short = 'F', allow_hyphen_values = true)]
    format: Option<String>,
    /// Print JSON over several lines
    #[arg(long)]
    pretty: bool,
    /// Do not end the response with a new line
    #[arg(short = 'N')]
    no_newline: bool,
    /// Do not take a retained message for the response
    #[arg(short = 'R')]
    no_retained: bool,
    /// Print how long the response took, from the request on
    #[arg(long)]
    latency: bool,
    /// Leave after this many seconds, with exit code 27
    #[arg(short = 'W', value_name = "SECONDS")]
    timeout: Option<u32>,
}

/// Runs the tool.
pub(crate) async fn run(args: &RrArgs) -> Result<(), Failure> {
    let properties =
        Properties::parse(&args.connection.property).map_err(|text| Failure::usage(TOOL, text))?;
    let mut connection = args.connection.connection(TOOL, properties)?;
    if args.latency {
        // What is measured is not Nagle's algorithm.
        connection.options = connection.options.nodelay(true);
    }
    let request = Request::new(
        args,
        connection.url_topic.as_deref(),
        &connection.properties,
    )?;
    let timeout = args
        .timeout
        .map(|seconds| Duration::from_secs(u64::from(seconds)));
    let quiet = args.connection.quiet;
    let asked = async {
        let (client, mut events) =
            super::connect(&connection.options, connection.is_version_chosen, quiet).await?;
        request.ask(&client, &mut events, quiet).await?;
        let disconnect = connection.properties.disconnect.clone();
        client.disconnect(disconnect).await.ok();
        Ok(())
    };
    match timeout {
        None => asked.await,
        Some(timeout) => tokio::time::timeout(timeout, asked)
            .await
            .unwrap_or_else(|_| {
                Err(Failure {
                    text: "Timed out".to_owned(),
                    code: TIMED_OUT,
                })
            }),
    }
}

/// What is asked, and how the answer is printed.
struct Request {
    publication: Publication,
    response_topic: String,
    subscription: Subscription,
    format: Format,
    end: &'static str,
    no_retained: bool,
    says_latency: bool,
}

impl Request {
    fn new(
        args: &RrArgs,
        url_topic: Option<&str>,
        properties: &Properties,
    ) -> Result<Self, Failure> {
        let usage = |text: String| Failure::usage(TOOL, text);
        let missing =
            || usage("All of topic, message, and response topic must be supplied.".into());
        let topic_name = args.topic.clone().or_else(|| url_topic.map(str::to_owned));
        let (Some(topic_name), Some(response_topic)) = (topic_name, args.response_topic.clone())
        else {
            return Err(missing());
        };
        if args.payload.is_missing() {
            return Err(missing());
        }
        for name in [&topic_name, &response_topic] {
            if topic::check_name(name).is_err() {
                let text = format!("Invalid publish topic '{name}', does it contain '+' or '#'?");
                return Err(usage(text));
            }
        }
        let qos = parse_qos(&args.qos)
            .ok_or_else(|| usage(format!("Invalid QoS given: {}", args.qos)))?;
        let Source::Payload(payload) = source(&args.payload, TOOL)? else {
            return Err(missing());
        };
        let mut publication = Publication::new(topic_name, payload, qos);
        let section = PublishProperties::parse(&properties.publish);
        for property in section.iter().flat_map(PublishProperties::iter) {
            publication = add(publication, &property, TOOL)?;
        }
        let format = args.format.as_deref();
        let format = Format::of_flags(format, args.verbose, args.pretty).map_err(usage)?;
        Ok(Self {
            publication,
            subscription: Subscription::new(response_topic.clone(), qos),
            response_topic,
            format,
            end: if args.no_newline { "" } else { "\n" },
            no_retained: args.no_retained,
            says_latency: args.latency,
        })
    }

    /// Asks, and prints the first thing that comes.
    async fn ask(
        &self,
        client: &Connection,
        events: &mut Events,
        quiet: bool,
    ) -> Result<(), Failure> {
        let suback = client
            .subscribe(vec![self.subscription.clone()], None, Vec::new())
            .await;
        let suback = suback.map_err(|error| Failure::new(format!("Error: {error}.")))?;
        if let Some(reason) = suback.reasons.iter().find(|reason| reason.is_error()) {
            let why = reason.text();
            return Err(Failure::new(format!(
                "All subscription requests were denied: {why}."
            )));
        }
        let mut publication = self.publication.clone();
        if client.version() == Version::V5 {
            publication = add(
                publication,
                &Property::ResponseTopic(&self.response_topic),
                TOOL,
            )?;
        }
        let asked = Instant::now();
        let published = client.publish(publication).await;
        let published = published.map_err(|error| Failure::new(format!("Error: {error}.")))?;
        if published.reason.is_error() && !quiet {
            complain(&format!(
                "Warning: Publish failed: {}.",
                published.reason.text()
            ));
        }
        while let Some(event) = events.recv().await {
            match event {
                Event::Message(message) if self.no_retained && message.retain => {}
                Event::Message(message) => {
                    let took = asked.elapsed();
                    return self
                        .print(&message, took)
                        .map_err(|error| output_failure(&error));
                }
                Event::Disconnected(lost) => {
                    return Err(Failure::new(format!("Error: {}.", lost.cause)));
                }
            }
        }
        Err(Failure::new("Error: The connection was lost."))
    }

    fn print(&self, message: &ReceivedMessage, took: Duration) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.format
            .print(message, &ZonedDateTime::now(), self.end, &mut out)?;
        if self.says_latency {
            writeln!(out, "Latency: {}", latency(took))?;
        }
        out.flush()
    }
}

/// A time as mosquitto_rr writes it.
fn latency(took: Duration) -> String {
    let nanoseconds = took.subsec_nanos();
    match (took.as_secs(), nanoseconds) {
        (0, 0..1_000) => format!("{nanoseconds}ns"),
        (0, 1_000..1_000_000) => format!("{:.6}µs", f64::from(nanoseconds) / 1e3),
        (0, _) => format!("{:.6}ms", f64::from(nanoseconds) / 1e6),
        (seconds, _) => format!("{seconds}.{nanoseconds:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_has_the_unit_that_fits() {
        for (nanoseconds, shown) in [
            (999, "999ns"),
            (1_500, "1.500000µs"),
            (2_345_678, "2.345678ms"),
            (1_000_000_007, "1.000000007"),
        ] {
            assert_eq!(latency(Duration::from_nanos(nanoseconds)), shown);
        }
    }
}
