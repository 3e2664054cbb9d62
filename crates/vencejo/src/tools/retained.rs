//! `vencejo retained`: the retained messages of a server, listed, shown, removed, written to a file and read from one.
//!
//! Owns: the commands, the lines of an export. Does not own: the flags of a connection (see `args`), what a server keeps.
//! Start reading at [`run`]. Invariant: with `--dry-run` nothing is published.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use client::{Connection, Event, Events, Publication, ReceivedMessage, Subscription};
use data_encoding::BASE64;
use proto::packet::{Disconnect, Property, ReasonCode};
use proto::{Qos, topic};
use serde_json::{Map, Value, json};

use super::args::ConnectionArgs;
use super::properties::Properties;
use super::subscribe::output_failure;
use super::{Failure, complain};

const TOOL: &str = "retained";

/// List, show, remove, export and import the retained messages of a server
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct RetainedArgs {
    #[command(subcommand)]
    command: Box<RetainedCommand>,
    /// Print help
    #[arg(long, short = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum RetainedCommand {
    /// Print the topics of retained messages, and how many bytes each has
    Ls(ListArgs),
    /// Print the payload of one retained message; exit code 1 if there is none
    Get(GetArgs),
    /// Remove retained messages
    Rm(RemoveArgs),
    /// Print retained messages as JSON, one in each line, for `import`
    Export(ExportArgs),
    /// Publish what `export` has printed
    Import(ImportFileArgs),
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct ListArgs {
    /// Topic filter
    #[arg(value_name = "FILTER", default_value = "#")]
    filter: String,
    #[command(flatten)]
    patience: Patience,
    /// Print JSON, an object in each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct GetArgs {
    /// Topic
    #[arg(value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    patience: Patience,
    /// Print JSON, with all properties
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct RemoveArgs {
    /// Topic filter
    #[arg(value_name = "FILTER")]
    filter: String,
    /// Remove nothing, print what would be
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, an object in each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct ExportArgs {
    /// Topic filter
    #[arg(value_name = "FILTER", default_value = "#")]
    filter: String,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct ImportFileArgs {
    /// The file; standard input without one
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only what this filter matches
    #[arg(short = 't', long, value_name = "FILTER", default_value = "#")]
    topic: String,
    /// Publish nothing, print what would be
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, an object in each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Copy retained messages from a server that runs to another one
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct CopyArgs {
    /// The server to copy from: `mqtt://user:password@host:port`
    #[arg(value_name = "URL")]
    from: String,
    /// Only what this filter matches
    #[arg(short = 't', long, value_name = "FILTER", default_value = "#")]
    topic: String,
    /// Publish nothing, print what would be
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, an object in each line
    #[arg(long)]
    json: bool,
    /// Believe the server that is copied from if one of the certificates in this PEM file has signed its own
    #[arg(long, value_name = "FILE")]
    from_cafile: Option<PathBuf>,
    #[command(flatten)]
    patience: Patience,
    /// The server to copy to
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// When all has come: a server does not say so.
#[derive(Args, Clone, Copy, Debug)]
struct Patience {
    /// All has come when nothing more has for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    idle: u16,
}

/// `vencejo retained ...`.
pub(crate) async fn run(args: &RetainedArgs) -> Result<(), Failure> {
    match &*args.command {
        RetainedCommand::Ls(args) => list(args).await,
        RetainedCommand::Get(args) => show(args).await,
        RetainedCommand::Rm(args) => remove(args).await,
        RetainedCommand::Export(args) => export(args).await,
        RetainedCommand::Import(args) => import(args).await,
    }
}

/// `vencejo import retained ...`.
pub(crate) async fn copy(args: &CopyArgs) -> Result<(), Failure> {
    let mut source = ConnectionArgs::of_url(&args.from);
    source.tls.cafile.clone_from(&args.from_cafile);
    let mut from = Retained::connect(&source, &args.topic, args.patience).await?;
    let say = Say::new("copied", args.json);
    let mut sink = Sink::new(&args.connection, args.dry_run, say).await?;
    while let Some(message) = from.next().await? {
        let publication = publication_of(&message)?;
        sink.publish(publication, message.payload.len()).await?;
    }
    from.leave().await;
    sink.end().await
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let mut retained = Retained::connect(&args.connection, &args.filter, args.patience).await?;
    while let Some(message) = retained.next().await? {
        let (topic, bytes) = (&message.topic, message.payload.len());
        if args.json {
            let line = json!({ "topic": topic, "qos": message.qos.level(), "bytes": bytes });
            print(&line.to_string())?;
        } else {
            print(&format!("{bytes:>10}  {topic}"))?;
        }
    }
    retained.leave().await;
    Ok(())
}

async fn show(args: &GetArgs) -> Result<(), Failure> {
    if topic::check_name(&args.topic).is_err() {
        let text = format!(
            "Invalid topic '{}', does it contain '+' or '#'?",
            args.topic
        );
        return Err(usage(&text));
    }
    let mut retained = Retained::connect(&args.connection, &args.topic, args.patience).await?;
    let message = retained.next().await?;
    retained.leave().await;
    let message = message
        .ok_or_else(|| Failure::new(format!("There is no retained message at {}", args.topic)))?;
    if args.json {
        return print(&line_of(&message).to_string());
    }
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(&message.payload)
        .and_then(|()| out.write_all(b"\n"));
    written
        .and_then(|()| out.flush())
        .map_err(|error| output_failure(&error))
}

async fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let mut retained = Retained::connect(&args.connection, &args.filter, args.patience).await?;
    let say = Say::new("removed", args.json);
    let mut sink = Sink::new(&args.connection.for_second(), args.dry_run, say).await?;
    while let Some(message) = retained.next().await? {
        let bytes = message.payload.len();
        let empty = Publication::new(message.topic, Bytes::new(), Qos::AtLeastOnce);
        sink.publish(empty.retain(true), bytes).await?;
    }
    retained.leave().await;
    sink.end().await
}

async fn export(args: &ExportArgs) -> Result<(), Failure> {
    let mut retained = Retained::connect(&args.connection, &args.filter, args.patience).await?;
    while let Some(message) = retained.next().await? {
        print(&line_of(&message).to_string())?;
    }
    retained.leave().await;
    Ok(())
}

async fn import(args: &ImportFileArgs) -> Result<(), Failure> {
    check_filter(&args.topic)?;
    let failed =
        |name: &str, error: &std::io::Error| Failure::new(format!("Error: {name}: {error}."));
    let input: Box<dyn std::io::Read> = match &args.file {
        Some(file) => {
            let opened = std::fs::File::open(file);
            Box::new(opened.map_err(|error| failed(&file.display().to_string(), &error))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let say = Say::new("imported", args.json);
    let mut sink = Sink::new(&args.connection, args.dry_run, say).await?;
    for (number, line) in (1..).zip(BufReader::new(input).lines()) {
        let line = line.map_err(|error| failed("the input", &error))?;
        if line.trim().is_empty() {
            continue;
        }
        let publication = publication_in(&line)
            .map_err(|why| Failure::new(format!("Error: line {number}: {why}.")))?;
        if topic::matches(&args.topic, &publication.topic) {
            let bytes = publication.payload.len();
            sink.publish(publication, bytes).await?;
        }
    }
    sink.end().await
}

/// The retained messages that a filter matches, as they come.
struct Retained {
    client: Connection,
    events: Events,
    idle: Duration,
}

impl Retained {
    async fn connect(
        args: &ConnectionArgs,
        filter: &str,
        patience: Patience,
    ) -> Result<Self, Failure> {
        check_filter(filter)?;
        let (client, events) = connect(args).await?;
        // At QoS 2 a server says at which QoS each was published.
        let subscription = Subscription::new(filter, Qos::ExactlyOnce);
        let suback = client.subscribe(vec![subscription], None, Vec::new()).await;
        let suback = suback.map_err(|error| Failure::new(format!("Error: {error}.")))?;
        if let Some(reason) = suback.reasons.iter().find(|reason| reason.is_error()) {
            let why = reason.text();
            return Err(Failure::new(format!(
                "Error: The subscription was denied: {why}."
            )));
        }
        Ok(Self {
            client,
            events,
            idle: Duration::from_secs(patience.idle.max(1).into()),
        })
    }

    /// The next one; `None` when nothing more has come for a while.
    async fn next(&mut self) -> Result<Option<ReceivedMessage>, Failure> {
        loop {
            match tokio::time::timeout(self.idle, self.events.recv()).await {
                Err(_) => return Ok(None),
                // What is published meanwhile is not retained, as it comes.
                Ok(Some(Event::Message(message))) if !message.retain => {}
                Ok(Some(Event::Message(message))) => return Ok(Some(message)),
                Ok(Some(Event::Disconnected(lost))) => {
                    return Err(Failure::new(format!("Error: {}.", lost.cause)));
                }
                Ok(None) => return Err(Failure::new("Error: The connection was lost.")),
            }
        }
    }

    async fn leave(self) {
        // Nothing depends on how it ends.
        self.client
            .disconnect(Disconnect::new(ReasonCode::Success))
            .await
            .ok();
        drop(self.client);
        self.events.close().await;
    }
}

/// What is said of each message.
#[derive(Clone, Copy)]
struct Say {
    /// What becomes of it.
    done: &'static str,
    as_json: bool,
}

impl Say {
    const fn new(done: &'static str, as_json: bool) -> Self {
        Self { done, as_json }
    }
}

/// Where retained messages go.
struct Sink {
    /// `None` publishes nothing.
    connected: Option<(Connection, Events)>,
    say: Say,
    count: u64,
    refused: u64,
}

impl Sink {
    async fn new(args: &ConnectionArgs, dry_run: bool, say: Say) -> Result<Self, Failure> {
        let connected = match dry_run {
            true => None,
            false => Some(connect(args).await?),
        };
        Ok(Self {
            connected,
            say,
            count: 0,
            refused: 0,
        })
    }

    /// Publishes what becomes of a retained message of `bytes`.
    async fn publish(&mut self, publication: Publication, bytes: usize) -> Result<(), Failure> {
        let topic = publication.topic.clone();
        if let Some((client, _)) = &self.connected {
            let published = client.publish(publication).await;
            let published =
                published.map_err(|error| Failure::new(format!("Error: {topic}: {error}.")))?;
            if published.reason.is_error() {
                self.refused += 1;
                let reason = published.reason.text();
                complain(&format!("{topic}: {reason}"));
                return match self.say.as_json {
                    true => print(&self.object(&topic, bytes, Some(reason))),
                    false => Ok(()),
                };
            }
        }
        self.count += 1;
        match self.say.as_json {
            true => print(&self.object(&topic, bytes, None)),
            false => print(&topic),
        }
    }

    /// A message for programs; `reason` is why the server has refused it.
    fn object(&self, topic: &str, bytes: usize, reason: Option<&str>) -> String {
        let outcome = reason.map_or(self.say.done, |_| "refused");
        let dry_run = self.connected.is_none();
        json!({
            "topic": topic, "bytes": bytes, "outcome": outcome, "reason": reason, "dry_run": dry_run,
        })
        .to_string()
    }

    async fn end(self) -> Result<(), Failure> {
        let is_dry = self.connected.is_none();
        if let Some((client, events)) = self.connected {
            let left = client
                .disconnect(Disconnect::new(ReasonCode::Success))
                .await;
            left.map_err(|error| Failure::new(format!("Error: {error}.")))?;
            drop(client);
            events.close().await;
        }
        let would = if is_dry { "would be " } else { "" };
        let (done, count, refused) = (self.say.done, self.count, self.refused);
        complain(&format!("{count} {would}{done}, {refused} refused"));
        match refused {
            0 => Ok(()),
            _ => Err(Failure::new("")),
        }
    }
}

async fn connect(args: &ConnectionArgs) -> Result<(Connection, Events), Failure> {
    let properties = Properties::parse(&args.property).map_err(|text| usage(&text))?;
    let connection = args.connection(TOOL, properties)?;
    super::connect(
        &connection.options,
        connection.is_version_chosen,
        args.quiet,
    )
    .await
}

fn check_filter(filter: &str) -> Result<(), Failure> {
    match topic::check_filter(filter) {
        Ok(_) => Ok(()),
        Err(_) => Err(usage(&format!(
            "Invalid topic filter '{filter}', are all '+' and '#' wildcards correct?"
        ))),
    }
}

fn usage(text: &str) -> Failure {
    Failure::usage(TOOL, text)
}

fn print(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").map_err(|error| output_failure(&error))
}

/// The same message to be published.
fn publication_of(message: &ReceivedMessage) -> Result<Publication, Failure> {
    let mut publication =
        Publication::new(message.topic.clone(), message.payload.clone(), message.qos).retain(true);
    for property in message.properties() {
        if !matches!(
            property,
            Property::SubscriptionIdentifier(_) | Property::TopicAlias(_)
        ) {
            let with = publication.property(&property);
            publication = with.map_err(|error| Failure::new(format!("Error: {error}.")))?;
        }
    }
    Ok(publication)
}

/// A message as a line of an export.
fn line_of(message: &ReceivedMessage) -> Value {
    let mut line = Map::new();
    line.insert("topic".to_owned(), json!(message.topic));
    line.insert("qos".to_owned(), json!(message.qos.level()));
    // Text as text, for people; what is none in base64.
    match std::str::from_utf8(&message.payload) {
        Ok(text) => line.insert("payload".to_owned(), json!(text)),
        Err(_) => line.insert("base64".to_owned(), json!(BASE64.encode(&message.payload))),
    };
    let mut users = Vec::new();
    for property in message.properties() {
        let (name, value) = match property {
            Property::ContentType(text) => ("content_type", json!(text)),
            Property::ResponseTopic(text) => ("response_topic", json!(text)),
            Property::CorrelationData(data) => ("correlation_data", json!(BASE64.encode(data))),
            Property::PayloadFormatIndicator(number) => ("payload_format", json!(number)),
            Property::MessageExpiryInterval(seconds) => ("expires_in_seconds", json!(seconds)),
            Property::UserProperty(name, value) => {
                users.push(json!([name, value]));
                continue;
            }
            _ => continue,
        };
        line.insert(name.to_owned(), value);
    }
    if !users.is_empty() {
        line.insert("user_properties".to_owned(), Value::Array(users));
    }
    Value::Object(line)
}

/// The message in a line of an export.
fn publication_in(line: &str) -> Result<Publication, String> {
    let fields: BTreeMap<String, Value> =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let topic = text("topic").ok_or("there is no topic")?;
    topic::check_name(topic).map_err(|why| format!("topic: {why}"))?;
    let bytes = |name: &str, text: &str| {
        let decoded = BASE64.decode(text.as_bytes());
        decoded.map_err(|why| format!("{name}: {why}"))
    };
    let payload = match (text("payload"), text("base64")) {
        (Some(payload), None) => payload.as_bytes().to_vec(),
        (None, Some(payload)) => bytes("base64", payload)?,
        _ => return Err("wanted a payload, or base64".to_owned()),
    };
    let qos = match fields.get("qos") {
        None => Qos::default(),
        Some(level) => {
            let level = level.as_u64().and_then(|level| u8::try_from(level).ok());
            level.and_then(Qos::from_level).ok_or("qos is 0, 1 or 2")?
        }
    };
    let mut publication = Publication::new(topic, payload, qos).retain(true);
    let correlation = text("correlation_data")
        .map(|data| bytes("correlation_data", data))
        .transpose()?;
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    let properties = [
        text("content_type").map(Property::ContentType),
        text("response_topic").map(Property::ResponseTopic),
        correlation.as_deref().map(Property::CorrelationData),
        number("payload_format")
            .and_then(|of| u8::try_from(of).ok())
            .map(Property::PayloadFormatIndicator),
        number("expires_in_seconds")
            .and_then(|of| u32::try_from(of).ok())
            .map(Property::MessageExpiryInterval),
    ];
    let users = fields.get("user_properties").and_then(Value::as_array);
    let users = users.into_iter().flatten().filter_map(|pair| {
        let (name, value) = (pair.get(0)?.as_str()?, pair.get(1)?.as_str()?);
        Some(Property::UserProperty(name, value))
    });
    for property in properties.into_iter().flatten().chain(users) {
        publication = publication
            .property(&property)
            .map_err(|error| error.to_string())?;
    }
    Ok(publication)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_none_say_why() {
        for (line, why) in [
            ("", "EOF"),
            ("{}", "there is no topic"),
            ("{\"topic\":\"a/#\",\"payload\":\"x\"}", "topic: "),
            ("{\"topic\":\"a\"}", "wanted a payload"),
            ("{\"topic\":\"a\",\"base64\":\"*\"}", "base64: "),
            (
                "{\"topic\":\"a\",\"payload\":\"x\",\"qos\":3}",
                "qos is 0, 1 or 2",
            ),
        ] {
            let said = publication_in(line).unwrap_err();
            assert!(said.contains(why), "{line}: {said}");
        }
        let line =
            "{\"topic\":\"a\",\"base64\":\"/wA=\",\"qos\":2,\"user_properties\":[[\"k\",\"v\"]]}";
        let publication = publication_in(line).unwrap();
        assert_eq!(publication.payload.as_ref(), [255, 0]);
        assert!(publication.retain && publication.qos == Qos::ExactlyOnce);
    }
}
