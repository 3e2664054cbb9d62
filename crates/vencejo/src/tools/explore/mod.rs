//! `vencejo explore`: the topics of a server as a tree in the terminal.
//!
//! Owns: flags, the connection and its end, what is done of what a person asks. Does not own: the topics (see `tree`), what
//! is seen and what keys mean (see `view`), the terminal (see `terminal`). Start reading at [`run`]. Invariant: nothing is
//! sent but subscriptions and what a person has typed or confirmed.

mod diff;
mod draw;
mod input;
mod rate;
pub(super) mod shown;
mod terminal;
mod tree;
mod view;

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use client::{
    ConnectError, Connection, DisconnectCause, Disconnected, Event, Events, Options, Publication,
    ReceivedMessage, RequestError, Subscription,
};
use jiff::ZonedDateTime;
use proto::packet::{Disconnect, Property, ReasonCode, SubAck};
use proto::{Qos, Version, topic};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::args::ConnectionArgs;
use super::properties::Properties;
use super::subscribe::may_come_back;
use super::{Failure, RECONNECT_DELAY, refused};
use draw::Status;
use terminal::{Screen, Typed};
use tree::{Caps, Tree, Value};
use view::{Action, View};

const TOOL: &str = "explore";

/// Show the topics of a server as a tree: values, rates, what is retained, what has changed; publish, and clear what is
/// retained
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ExploreArgs {
    /// URL, HOST:PORT or host; as -L, -h and -p
    #[arg(value_name = "URL")]
    server: Option<String>,
    /// Topic filter; may be repeated [default: all, `#`]
    #[arg(short = 't', long, value_name = "FILTER")]
    topic: Vec<String>,
    /// How many topics are shown; messages of others are counted
    #[arg(long, value_name = "COUNT", default_value_t = 50_000)]
    topics_max: usize,
    /// What is kept of topics and values takes so much memory at most; then the oldest values go
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    memory_max_mib: usize,
    /// Values that are kept of each topic
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    history_max: usize,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the tool.
pub(crate) async fn run(args: &ExploreArgs) -> Result<(), Failure> {
    let mut connection = args.connection.clone();
    if let Some(server) = &args.server {
        connection.name_server(server);
    }
    if connection.debug {
        return Err(usage("-d would print over the tree; it is there for sub."));
    }
    let properties = Properties::parse(&connection.property).map_err(|text| usage(&text))?;
    let made = connection.connection(TOOL, properties)?;
    let mut filters = args.topic.clone();
    filters.extend(made.url_topic.clone());
    if filters.is_empty() {
        filters.push("#".to_owned());
    }
    if let Some(wrong) = filters
        .iter()
        .find(|filter| topic::check_filter(filter).is_err())
    {
        return Err(usage(&format!(
            "Invalid topic filter '{wrong}', are all '+' and '#' wildcards correct?"
        )));
    }
    terminal::check()?;
    let mut signals = Signals::new()?;
    let connected = tokio::select! {
        connected = super::connect(&made.options, made.is_version_chosen, connection.quiet) => connected?,
        () = signals.wait() => return Ok(()),
    };
    let caps = Caps {
        topics_max: args.topics_max,
        bytes_max: args.memory_max_mib.saturating_mul(1024 * 1024),
        history_max: args.history_max,
    };
    let options = made.options.version(connected.0.version());
    let mut explorer = Explorer::new(options, filters, caps);
    let mut screen = Screen::open()?;
    explorer.on_connected(connected);
    let ended = explorer.explore(&mut screen, &mut signals).await;
    drop(screen);
    explorer.leave().await;
    ended
}

fn usage(text: &str) -> Failure {
    Failure::usage(TOOL, text)
}

/// What becomes of something that was begun.
#[derive(Debug)]
enum Report {
    Connected(Box<Result<(Connection, Events), ConnectError>>),
    Subscribed(Result<SubAck, RequestError>),
    /// Something to tell.
    Note(String),
}

struct Explorer {
    options: Options,
    filters: Vec<String>,
    tree: Tree,
    view: View,
    status: Status,
    client: Option<Connection>,
    events: Option<Events>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
}

impl Explorer {
    fn new(options: Options, filters: Vec<String>, caps: Caps) -> Self {
        let (reporter, reports) = mpsc::unbounded_channel();
        let status = Status {
            server: format!("{}  {}", place(&options), filters.join(" ")),
            is_plain: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
            ..Status::default()
        };
        Self {
            options,
            filters,
            tree: Tree::new(caps, Instant::now()),
            view: View::default(),
            status,
            client: None,
            events: None,
            reports,
            reporter,
        }
    }

    /// Shows and does what is asked until that is to leave.
    async fn explore(&mut self, screen: &mut Screen, signals: &mut Signals) -> Result<(), Failure> {
        let mut typed = terminal::typed();
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = signals.wait() => return Ok(()),
                _ = frames.tick() => self.draw(screen)?,
                typed = typed.recv() => {
                    // Without a terminal there is nobody any more.
                    let Some(typed) = typed else { return Ok(()) };
                    if self.on_typed(typed) {
                        return Ok(());
                    }
                    self.draw(screen)?;
                }
                Some(report) = self.reports.recv() => self.on_report(report)?,
                event = next(&mut self.events) => self.on_event(event)?,
            }
            if Screen::is_lost() {
                return Err(Failure::new("Error: this program has made a mistake."));
            }
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        self.view.catch_up(&self.tree);
        let now = Instant::now();
        let drawn = screen
            .terminal
            .draw(|frame| draw::draw(frame, &mut self.view, &self.tree, &self.status, now));
        let failed = |error| Failure::new(format!("Error: the terminal: {error}."));
        drawn.map(|_| ()).map_err(failed)
    }

    /// Whether it was to leave.
    fn on_typed(&mut self, typed: Typed) -> bool {
        let action = match typed {
            Typed::Key(key) => self.view.on_key(key, &self.tree),
            Typed::Paste(text) => {
                self.view.on_paste(&text, &self.tree);
                None
            }
            Typed::Resized => None,
        };
        match action {
            None => false,
            Some(Action::Leave) => true,
            Some(Action::Publish {
                topic,
                payload,
                qos,
                retain,
            }) => {
                self.publish(Publication::new(topic, payload, qos).retain(retain));
                false
            }
            Some(Action::Clear(topics)) => {
                self.clear(topics);
                false
            }
        }
    }

    fn publish(&mut self, publication: Publication) {
        let Some(client) = self.connected() else {
            return;
        };
        let reporter = self.reporter.clone();
        drop(tokio::spawn(async move {
            let topic = publication.topic.clone();
            let note = match published(&client, publication).await {
                Ok(()) => format!("published to {topic}"),
                Err(why) => format!("{topic}: {why}"),
            };
            // Nobody listens when the program leaves.
            reporter.send(Report::Note(note)).ok();
        }));
    }

    fn clear(&mut self, topics: Vec<String>) {
        let Some(client) = self.connected() else {
            return;
        };
        let announced = &client.connack().properties;
        // Where nothing is announced it is QoS 2; at QoS 0 nobody would hear that it is refused.
        let qos = announced.maximum_qos.unwrap_or(Qos::ExactlyOnce);
        let qos = qos.min(Qos::AtLeastOnce);
        let reporter = self.reporter.clone();
        drop(tokio::spawn(async move {
            let (mut cleared, mut why_not) = (0, None);
            for topic in topics {
                let empty = Publication::new(topic, Bytes::new(), qos).retain(true);
                match published(&client, empty).await {
                    Ok(()) => cleared += 1,
                    Err(why) => why_not = Some(why),
                }
            }
            let mut note = format!("{cleared} retained messages cleared");
            if let Some(why) = why_not {
                note.push_str(&format!(", not all: {why}"));
            }
            reporter.send(Report::Note(note)).ok();
        }));
    }

    fn connected(&mut self) -> Option<Connection> {
        if self.client.is_none() {
            "There is no connection.".clone_into(&mut self.view.note);
        }
        self.client.clone()
    }

    fn on_connected(&mut self, (client, events): (Connection, Events)) {
        let version = match client.version() {
            Version::V5 => "5.0",
            Version::V311 => "3.1.1",
            Version::V31 => "3.1",
        };
        self.status.link = format!("connected, MQTT {version}");
        self.status.is_lost = false;
        let subscriptions = self.filters.iter().map(|filter| {
            // At QoS 2 a server says at which QoS each was published.
            Subscription::new(filter, Qos::ExactlyOnce).retain_as_published()
        });
        let (subscriptions, reporter) = (subscriptions.collect(), self.reporter.clone());
        self.client = Some(client.clone());
        self.events = Some(events);
        drop(tokio::spawn(async move {
            let suback = client.subscribe(subscriptions, None, Vec::new()).await;
            reporter.send(Report::Subscribed(suback)).ok();
        }));
    }

    fn on_report(&mut self, report: Report) -> Result<(), Failure> {
        match report {
            Report::Note(note) => self.view.note = note,
            Report::Subscribed(Ok(suback)) => {
                let refused = suback.reasons.iter().zip(&self.filters);
                let mut refused = refused.filter(|(reason, _)| reason.is_error());
                if let Some((reason, filter)) = refused.next() {
                    self.view.note = format!("{filter} was denied: {}", reason.text());
                }
            }
            // The end of the connection says so.
            Report::Subscribed(Err(RequestError::ConnectionLost)) => {}
            Report::Subscribed(Err(error)) => self.view.note = error.to_string(),
            Report::Connected(connected) => match *connected {
                Ok(connected) => self.on_connected(connected),
                Err(ConnectError::Refused(connack)) => {
                    return Err(refused(&connack, self.options.protocol_version()));
                }
                Err(error) => self.connect_again(&error.to_string()),
            },
        }
        Ok(())
    }

    fn on_event(&mut self, event: Option<Event>) -> Result<(), Failure> {
        match event {
            Some(Event::Message(message)) if !self.view.is_paused => {
                let is_flag_kept = self.options.protocol_version() == Version::V5;
                let value = value_of(&message);
                self.tree
                    .take(&message.topic, value, is_flag_kept, Instant::now());
            }
            Some(Event::Message(_)) => self.view.missed += 1,
            Some(Event::Disconnected(Disconnected { cause, .. })) => {
                if let DisconnectCause::ByServer(disconnect) = &cause
                    && disconnect.reason.is_error()
                    && !may_come_back(disconnect.reason)
                {
                    let why = disconnect.reason.text();
                    return Err(Failure {
                        text: format!("Disconnected by the server: {why}"),
                        code: disconnect.reason.value(),
                    });
                }
                self.connect_again(&cause.to_string());
            }
            None => self.connect_again("the connection is over"),
        }
        Ok(())
    }

    /// In a second, and so on until somebody answers.
    fn connect_again(&mut self, why: &str) {
        (self.client, self.events) = (None, None);
        self.status.is_lost = true;
        self.status.link = format!("NOT CONNECTED ({why}), trying again every second");
        let (options, reporter) = (self.options.clone(), self.reporter.clone());
        drop(tokio::spawn(async move {
            sleep(RECONNECT_DELAY).await;
            let connected = Connection::connect(options).await;
            reporter.send(Report::Connected(Box::new(connected))).ok();
        }));
    }

    async fn leave(mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        let goodbye = client.disconnect(Disconnect::new(ReasonCode::Success));
        // A server that does not read is not waited for.
        timeout(GOODBYE, goodbye).await.ok();
    }
}

async fn published(client: &Connection, publication: Publication) -> Result<(), String> {
    match client.publish(publication).await {
        Ok(published) if published.reason.is_error() => Err(published.reason.text().to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The next event of a connection, if there is one.
async fn next(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

fn place(options: &Options) -> String {
    match options.unix_path() {
        Some(path) => path.display().to_string(),
        None => {
            let (host, port) = options.address();
            format!("{host}:{port}")
        }
    }
}

fn value_of(message: &ReceivedMessage) -> Value {
    let clock = jiff::fmt::strtime::format("%H:%M:%S", &ZonedDateTime::now());
    Value {
        payload: Some(message.payload.clone()),
        len: message.payload.len(),
        qos: message.qos.level(),
        retain: message.retain,
        clock: clock.unwrap_or_default().into(),
        properties: message.properties().filter_map(property_line).collect(),
    }
}

fn property_line(property: Property<'_>) -> Option<String> {
    Some(match property {
        Property::ContentType(text) => format!("content-type: {text}"),
        Property::ResponseTopic(text) => format!("response-topic: {text}"),
        Property::CorrelationData(data) => {
            format!("correlation-data: {}", data_encoding::HEXLOWER.encode(data))
        }
        Property::PayloadFormatIndicator(number) => format!("payload-format-indicator: {number}"),
        Property::MessageExpiryInterval(seconds) => format!("message-expiry-interval: {seconds} s"),
        Property::UserProperty(name, value) => format!("{name}: {value}"),
        _ => return None,
    })
}

/// What ends the program from outside: SIGINT, SIGTERM, SIGHUP.
struct Signals {
    all: [Signal; 3],
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("Error: {error}.")));
        let all = [
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ];
        Ok(Self { all })
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.all;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// How often what has come is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
