//! `vencejo sub`: prints what comes, reconnects when the connection is lost.
//!
//! Owns: which messages are printed, when to leave, reconnecting. Does not own: how a message looks
//! (see `format`). Start reading at [`run`]. Invariant: a message above QoS 0 is acknowledged only when
//! it is taken to be printed, so `-C 1` takes one message of a kept session and leaves the rest.

use std::io::{self, Write};
use std::time::Duration;

use client::{
    ConnectError, Connection, DisconnectCause, Disconnected, Event, Events, Options, Publication,
    ReceivedMessage, Subscription,
};
use jiff::ZonedDateTime;
use proto::connection::ClientSession;
use proto::packet::{ReasonCode, RetainHandling, SubscriptionOptions};
use proto::{Qos, topic};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, Interval, interval_at, sleep, sleep_until};

use super::args::{self, SubArgs, parse_qos};
use super::called;
use super::format::Format;
use super::packet_log::{granted, say};
use super::properties::Properties;
use super::watch::{Size, Watch};
use super::{Failure, complain};

const TOOL: &str = "sub";
/// Exit code after `-W` seconds; mosquitto's MOSQ_ERR_TIMEOUT.
pub(super) const TIMED_OUT: u8 = 27;
/// Exit code when standard output is closed, as a shell reports SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Runs the tool.
pub(crate) async fn run(args: &SubArgs) -> Result<(), Failure> {
    let properties =
        Properties::parse(&args.connection.property).map_err(|text| Failure::usage(TOOL, text))?;
    let connection = args.connection.connection(TOOL, properties)?;
    let plan = Plan::new(args, &connection)?;
    let quiet = args.connection.quiet;
    let mut stop = Stop::new(args.timeout)?;
    let (client, events) = tokio::select! {
        connected = super::connect(&connection.options, connection.is_version_chosen, quiet) => connected?,
        failure = stop.wait() => return failure,
    };
    // The version that was agreed on, which may not be the one that was tried first.
    let mut options = connection.options.clone().version(client.version());
    let mut subscriber = Subscriber {
        output: Output::begin(args, &options)?,
        plan,
        client,
        events,
    };
    loop {
        match subscriber.serve(&mut stop).await? {
            Outcome::Done => return subscriber.leave(&connection).await,
            Outcome::Stopped(result) => {
                subscriber.leave(&connection).await?;
                return result;
            }
            Outcome::Lost(session) => {
                options = options.session(session);
                let reconnected = tokio::select! {
                    reconnected = reconnect(&options) => reconnected?,
                    failure = stop.wait() => return failure,
                };
                (subscriber.client, subscriber.events) = reconnected;
            }
        }
    }
}

/// Tries until somebody answers; a refusal ends the tool.
async fn reconnect(options: &Options) -> Result<(Connection, Events), Failure> {
    loop {
        sleep(super::RECONNECT_DELAY).await;
        match Connection::connect(options.clone()).await {
            Err(ConnectError::Refused(connack)) => {
                return Err(super::refused(&connack, options.protocol_version()));
            }
            Err(_) => {}
            Ok(connected) => return Ok(connected),
        }
    }
}

/// What to subscribe to and what to do with what comes.
struct Plan {
    subscriptions: Vec<Subscription>,
    unsubscribe: Vec<String>,
    properties: Properties,
    format: Format,
    end: &'static str,
    count: Option<u64>,
    /// Of how many of 1000 messages one is printed.
    chance: Option<u16>,
    args: SubArgs,
}

impl Plan {
    fn new(args: &SubArgs, connection: &args::Connection) -> Result<Self, Failure> {
        let usage = |text: String| Failure::usage(TOOL, text);
        let mut filters = args.topic.clone();
        filters.extend(connection.url_topic.clone());
        let qualities = qualities(&args.qos, filters.len()).map_err(usage)?;
        if filters.is_empty() && args.unsubscribe.is_empty() {
            return Err(usage("You must specify a topic to subscribe to.".into()));
        }
        for (what, list) in [
            ("subscription", &filters),
            ("unsubscribe", &args.unsubscribe),
            ("filter", &args.filter_out),
        ] {
            if let Some(wrong) = list
                .iter()
                .find(|filter| topic::check_filter(filter).is_err())
            {
                let text = format!(
                    "Invalid {what} topic '{wrong}', are all '+' and '#' wildcards correct?"
                );
                return Err(usage(text));
            }
        }
        let count = match &args.count {
            Some(text) => match text.parse() {
                Ok(count) if count > 0 => Some(count),
                _ => return Err(usage(format!("Invalid message count \"{text}\"."))),
            },
            None => None,
        };
        let format = args.format.as_deref();
        let format = Format::of_flags(format, args.verbose, args.pretty).map_err(usage)?;
        let chance = args.random_filter.as_deref().map(parse_chance).transpose();
        let chance = chance.map_err(usage)?;
        let subscriptions = filters.into_iter().zip(qualities).map(|(filter, qos)| {
            let options = subscription_options(args, qos);
            Subscription { filter, options }
        });
        Ok(Self {
            subscriptions: subscriptions.collect(),
            unsubscribe: args.unsubscribe.clone(),
            properties: connection.properties.clone(),
            format,
            end: if args.no_newline { "" } else { "\n" },
            count,
            chance,
            args: args.clone(),
        })
    }

    fn is_filtered_out(&self, message: &ReceivedMessage) -> bool {
        let is_unlucky = self.chance.is_some_and(|chance| draw() >= chance);
        is_unlucky
            || (message.retain && self.args.no_retained)
            || self
                .args
                .filter_out
                .iter()
                .any(|filter| topic::matches(filter, &message.topic))
    }
}

/// The QoS of each of `topics`: what is said of them in their order, or one for all.
fn qualities(said: &[String], topics: usize) -> Result<Vec<Qos>, String> {
    let parsed = said
        .iter()
        .map(|text| parse_qos(text).ok_or_else(|| format!("Invalid QoS given: {text}")));
    let parsed: Vec<Qos> = parsed.collect::<Result<_, _>>()?;
    // To mosquitto's tools the last one counts, for all.
    let is_one_for_all = topics < 2 || parsed.len() < 2 || called::tool().is_some();
    if is_one_for_all {
        let last = parsed.last().copied().unwrap_or(Qos::AtMostOnce);
        return Ok(vec![last; topics]);
    }
    if parsed.len() != topics {
        let given = parsed.len();
        return Err(format!(
            "-q is given {given} times for {topics} topics: once is for all, else each needs one."
        ));
    }
    Ok(parsed)
}

/// `0.1` to `100`, in thousandths.
fn parse_chance(text: &str) -> Result<u16, String> {
    let percent: f64 = text.parse().unwrap_or_default();
    if !(0.1..=100.0).contains(&percent) {
        return Err("--random-filter percentage must be in the range 0.1 - 100.0.".to_owned());
    }
    let thousandths = format!("{:.0}", percent * 10.0);
    thousandths
        .parse()
        .map_err(|_| "--random-filter is no number.".to_owned())
}

/// A number below 1000 by chance.
fn draw() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    // Each has keys of its own; that is chance enough for a sample.
    let hash = RandomState::new().hash_one(0_u8);
    u16::try_from(hash % 1000).unwrap_or(0)
}

fn subscription_options(args: &SubArgs, qos: Qos) -> SubscriptionOptions {
    let retain_handling = match args.retain_handling.as_str() {
        "new" | "1" => RetainHandling::SendIfNew,
        "never" | "2" => RetainHandling::DoNotSend,
        _ => RetainHandling::Send,
    };
    SubscriptionOptions {
        qos,
        no_local: args.no_local,
        retain_as_published: args.retain_as_published,
        retain_handling,
    }
}

/// How one connection ended.
enum Outcome {
    /// All is printed that was asked for.
    Done,
    /// A signal or `-W`, with what to leave with.
    Stopped(Result<(), Failure>),
    /// Lost; the Session State to go on with.
    Lost(ClientSession),
}

struct Subscriber {
    plan: Plan,
    client: Connection,
    events: Events,
    output: Output,
}

/// What has been printed, and how.
struct Output {
    printed: u64,
    watch: Option<Watch>,
    rate: Option<Rate>,
}

/// Messages since the last second that was told.
struct Rate {
    count: u64,
    seconds: Interval,
}

impl Output {
    fn begin(args: &SubArgs, options: &Options) -> Result<Self, Failure> {
        let second = Duration::from_secs(1);
        let rate = args.message_rate.then(|| Rate {
            count: 0,
            seconds: interval_at(Instant::now() + second, second),
        });
        let is_watched = args.watch && rate.is_none();
        let watch = is_watched.then(|| {
            let (host, _) = options.address();
            let place = options
                .unix_path()
                .map_or_else(|| host.to_owned(), |path| path.display().to_string());
            Watch::begin(&place, Size::of_output(), &mut io::stdout().lock())
        });
        let watch = watch.transpose().map_err(|error| output_failure(&error))?;
        Ok(Self {
            printed: 0,
            watch,
            rate,
        })
    }

    /// Prints a message as `plan` has it.
    fn print(&mut self, plan: &Plan, message: &ReceivedMessage) -> io::Result<()> {
        self.printed += 1;
        let now = ZonedDateTime::now();
        let mut out = io::stdout().lock();
        let Some(watch) = &mut self.watch else {
            plan.format.print(message, &now, plan.end, &mut out)?;
            return out.flush();
        };
        let line = plan.format.line(message, &now)?;
        watch.show(&message.topic, &line, Size::of_output(), &mut out)
    }

    /// Tells how many there were in a second, whenever one is over.
    async fn tell_rate(&mut self) -> Result<(), Failure> {
        let Some(rate) = &mut self.rate else {
            return std::future::pending().await;
        };
        rate.seconds.tick().await;
        let mut out = io::stdout().lock();
        writeln!(out, "{} msgs/s", std::mem::take(&mut rate.count))
            .and_then(|()| out.flush())
            .map_err(|error| output_failure(&error))
    }
}

impl Subscriber {
    /// Subscribes and prints until there is a reason to stop.
    async fn serve(&mut self, stop: &mut Stop) -> Result<Outcome, Failure> {
        let plan = &self.plan;
        let client = self.client.clone();
        let setup = set_up(&client, plan);
        tokio::pin!(setup);
        let mut is_set_up = false;
        loop {
            let event = tokio::select! {
                biased;
                result = stop.wait() => return Ok(Outcome::Stopped(result)),
                result = &mut setup, if !is_set_up => {
                    is_set_up = true;
                    match result? {
                        SetUp::Complete if !plan.args.exit_after_subscribe => continue,
                        // The connection is lost: the next event says so.
                        SetUp::Interrupted => continue,
                        SetUp::Complete | SetUp::Denied => return Ok(Outcome::Done),
                    }
                }
                told = self.output.tell_rate() => {
                    told?;
                    continue;
                }
                event = self.events.recv() => event,
            };
            match event {
                Some(Event::Message(message)) => {
                    if on_message(plan, &client, &mut self.output, &message).await? {
                        return Ok(Outcome::Done);
                    }
                }
                Some(Event::Disconnected(disconnected)) => return lost(disconnected, &plan.args),
                None => return Ok(Outcome::Done),
            }
        }
    }

    async fn leave(self, connection: &args::Connection) -> Result<(), Failure> {
        let disconnect = connection.properties.disconnect.clone();
        // Where the connection is gone already there is nothing to say goodbye to.
        self.client.disconnect(disconnect).await.ok();
        drop(self.client);
        self.events.close().await;
        Ok(())
    }
}

/// Decides whether a lost connection is worth another try.
fn lost(disconnected: Disconnected, args: &SubArgs) -> Result<Outcome, Failure> {
    match disconnected.cause {
        DisconnectCause::Protocol(error) => Err(Failure::new(format!("Error: {error}."))),
        DisconnectCause::ByServer(disconnect) => {
            let detail = disconnect
                .reason_string
                .map_or_else(String::new, |text| format!(" ({text})"));
            let text = format!(
                "Disconnected by the server: {}{detail}",
                disconnect.reason.text()
            );
            if disconnect.reason.is_error() && !may_come_back(disconnect.reason) {
                return Err(Failure {
                    text,
                    code: disconnect.reason.value(),
                });
            }
            if !args.connection.quiet {
                complain(&format!("{text}; trying again every second."));
            }
            Ok(Outcome::Lost(disconnected.session))
        }
        cause => {
            if !args.connection.quiet {
                complain(&format!(
                    "Connection lost ({cause}); trying again every second."
                ));
            }
            Ok(Outcome::Lost(disconnected.session))
        }
    }
}

/// Reasons that another connection may not meet again. A taken-over session is not among them: two
/// clients with one name would throw each other out for ever.
pub(super) const fn may_come_back(reason: ReasonCode) -> bool {
    use ReasonCode as R;
    matches!(
        reason,
        R::ServerShuttingDown
            | R::ServerBusy
            | R::KeepAliveTimeout
            | R::ConnectionRateExceeded
            | R::MaximumConnectTime
            | R::UnspecifiedError
    )
}

enum SetUp {
    Complete,
    Denied,
    Interrupted,
}

async fn set_up(client: &Connection, plan: &Plan) -> Result<SetUp, Failure> {
    let args = &plan.args;
    let mut denied = None;
    if !plan.subscriptions.is_empty() {
        let answer = client
            .subscribe(
                plan.subscriptions.clone(),
                plan.properties.subscription_identifier,
                plan.properties.subscribe_user_properties.clone(),
            )
            .await;
        let suback = match answer {
            Ok(suback) => suback,
            Err(client::RequestError::ConnectionLost) => return Ok(SetUp::Interrupted),
            Err(error) => return Err(Failure::new(format!("Error: {error}."))),
        };
        if args.connection.debug && !args.connection.quiet {
            let granted = granted(&suback.reasons, client.version());
            say(&format!(
                "Subscribed (mid: {}): {granted}",
                suback.packet_id
            ));
        }
        if suback.reasons.iter().all(|reason| reason.is_error()) {
            denied = suback.reasons.first().map(|reason| reason.text());
        }
    }
    for filter in &plan.unsubscribe {
        let users = plan.properties.unsubscribe_user_properties.clone();
        match client.unsubscribe(vec![filter.clone()], users).await {
            Ok(_) => {}
            Err(client::RequestError::ConnectionLost) => return Ok(SetUp::Interrupted),
            Err(error) => return Err(Failure::new(format!("Error: {error}."))),
        }
    }
    if let Some(why) = denied {
        if !args.connection.quiet {
            complain(&format!("All subscription requests were denied: {why}."));
        }
        return Ok(SetUp::Denied);
    }
    Ok(SetUp::Complete)
}

/// Prints a message if it is to be printed; whether it was the last one.
async fn on_message(
    plan: &Plan,
    client: &Connection,
    output: &mut Output,
    message: &ReceivedMessage,
) -> Result<bool, Failure> {
    if let Some(rate) = &mut output.rate {
        rate.count += 1;
        return Ok(false);
    }
    if plan.args.retained_only && !message.retain {
        return Ok(true);
    }
    if plan.is_filtered_out(message) {
        return Ok(false);
    }
    if plan.args.remove_retained && message.retain {
        let empty = Publication::new(message.topic.clone(), Vec::new(), Qos::AtMostOnce);
        // A lost connection is reported by the next event.
        client.publish(empty.retain(true)).await.ok();
    }
    output
        .print(plan, message)
        .map_err(|error| output_failure(&error))?;
    Ok(plan.count == Some(output.printed))
}

pub(super) fn output_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure {
            text: String::new(),
            code: BROKEN_PIPE,
        };
    }
    Failure::new(format!("Error: Unable to write standard output: {error}."))
}

/// SIGINT, SIGTERM and `-W`.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    deadline: Option<Instant>,
}

impl Stop {
    fn new(timeout_seconds: Option<u32>) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("Error: {error}.")));
        let deadline =
            timeout_seconds.map(|seconds| Instant::now() + Duration::from_secs(u64::from(seconds)));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            deadline,
        })
    }

    async fn wait(&mut self) -> Result<(), Failure> {
        let deadline = self.deadline;
        tokio::select! {
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Err(Failure { text: "Timed out".to_owned(), code: TIMED_OUT })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_its_quality_or_all_have_one() {
        use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        let of = |said: &[&str], topics| {
            let said: Vec<String> = said.iter().map(|text| (*text).to_owned()).collect();
            qualities(&said, topics)
        };
        assert_eq!(of(&[], 2), Ok(vec![AtMostOnce; 2]));
        assert_eq!(of(&["1"], 3), Ok(vec![AtLeastOnce; 3]));
        assert_eq!(of(&["0", "2"], 2), Ok(vec![AtMostOnce, ExactlyOnce]));
        assert_eq!(of(&["0", "2"], 1), Ok(vec![ExactlyOnce]), "the last one");
        assert_eq!(of(&["1"], 0), Ok(vec![]));
        for wrong in [of(&["0", "1"], 3), of(&["0", "1", "2"], 2)] {
            assert!(wrong.unwrap_err().contains("each needs one"));
        }
        assert_eq!(of(&["0", "3"], 2), Err("Invalid QoS given: 3".to_owned()));
    }
}
