//! `vencejo probe`: what a server supports, and where its limits are.
//!
//! Owns: what is asked and how the answers are printed. Does not own: the flags of a connection (see `args`).
//! Start reading at [`run`]. Invariant: what it publishes is below `vencejo-probe/`, and nothing of it stays retained.

use std::time::{Duration, Instant};

use clap::Args;
use client::{ConnectError, Connection, Event, Events, Options, Publication, Subscription};
use proto::packet::{ConnAck, Disconnect, ReasonCode};
use proto::{Qos, Version};
use serde_json::{Value, json};

use super::Failure;
use super::args::ConnectionArgs;
use super::properties::Properties;
use crate::serve;

const TOOL: &str = "probe";

/// Say what a server supports, by what it announces and by trying it; what is tried is below vencejo-probe/
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ProbeArgs {
    /// Host, HOST:PORT or URL; as -h, -p and -L
    #[arg(value_name = "HOST")]
    server: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that is known of a server.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    /// `None` where it could not be found out.
    value: Option<Value>,
    /// How it is known: announced, or tried.
    how: &'static str,
}

/// Runs the tool.
pub(crate) async fn run(args: &ProbeArgs) -> Result<(), Failure> {
    let mut connection = args.connection.clone();
    if let Some(server) = &args.server {
        connection.name_server(server);
    }
    let properties =
        Properties::parse(&connection.property).map_err(|text| Failure::usage(TOOL, text))?;
    let options = connection.connection(TOOL, properties)?.options;
    let mut findings = Vec::new();
    let mut best = None;
    let mut last = None;
    for (version, name) in [
        (Version::V31, "MQTT 3.1"),
        (Version::V311, "MQTT 3.1.1"),
        (Version::V5, "MQTT 5.0"),
    ] {
        let mut of = options.clone().version(version);
        if version == Version::V31 {
            // It knows no empty Client Identifier.
            of = of.client_id(format!("vencejo-probe-{}", std::process::id()));
        }
        let began = Instant::now();
        match Connection::connect(of.clone()).await {
            Ok(connected) => {
                let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
                findings.push(tried(
                    name,
                    json!(format!("yes, connected in {milliseconds:.1} ms")),
                ));
                if let Some((_, (client, events), _)) = best.replace((of, connected, version)) {
                    leave(client, events).await;
                }
            }
            Err(ConnectError::Refused(connack)) => {
                findings.push(tried(name, json!(format!("no: {}", connack.reason.text()))));
                last = Some(super::refused(&connack, version));
            }
            Err(error) => {
                findings.push(tried(name, json!(format!("no: {error}"))));
                last = Some(super::failure_of(&error, &of, version));
            }
        }
    }
    let Some((options, (client, events), version)) = best else {
        return Err(last.unwrap_or_else(|| Failure::new("Error: nothing answers.")));
    };
    if version == Version::V5 {
        announced(client.connack(), &mut findings);
    }
    try_out(&client, events, &mut findings).await;
    sizes(&options, &client, &mut findings).await;
    print(args.json, options.address(), &findings);
    client
        .disconnect(Disconnect::new(ReasonCode::Success))
        .await
        .ok();
    Ok(())
}

async fn leave(client: Connection, events: Events) {
    // Nothing depends on how it ends.
    client
        .disconnect(Disconnect::new(ReasonCode::Success))
        .await
        .ok();
    drop(client);
    events.close().await;
}

/// What CONNACK of 5.0 says; what it leaves out has a meaning, too.
fn announced(connack: &ConnAck, findings: &mut Vec<Finding>) {
    let of = &connack.properties;
    let yes = |available: Option<bool>| {
        json!(if available.unwrap_or(true) {
            "yes"
        } else {
            "no"
        })
    };
    let or = |number: Option<u64>, none: &str| {
        number.map_or_else(|| json!(none), |number| json!(number))
    };
    let all = [
        ("Maximum QoS", json!(of.maximum_qos.map_or(2, Qos::level))),
        (
            "Receive Maximum",
            json!(of.receive_maximum.map_or(65_535, std::num::NonZeroU16::get)),
        ),
        (
            "Maximum Packet Size",
            or(
                of.maximum_packet_size_bytes.map(|size| size.get().into()),
                "none",
            ),
        ),
        (
            "Topic Alias Maximum",
            json!(of.topic_alias_maximum.unwrap_or(0)),
        ),
        ("Retain", yes(of.retain_available)),
        (
            "Wildcard subscriptions",
            yes(of.wildcard_subscription_available),
        ),
        (
            "Subscription identifiers",
            yes(of.subscription_identifier_available),
        ),
        (
            "Shared subscriptions",
            yes(of.shared_subscription_available),
        ),
        (
            "Session Expiry Interval",
            or(
                of.session_expiry_interval_seconds.map(Into::into),
                "as asked",
            ),
        ),
        (
            "Server Keep Alive",
            or(of.server_keep_alive_seconds.map(Into::into), "as asked"),
        ),
        ("Assigned Client Identifier", json!(of.assigned_client_id)),
        ("Response Information", json!(of.response_information)),
    ];
    findings.extend(all.into_iter().map(|(what, value)| Finding {
        what,
        value: Some(value).filter(|value| !value.is_null()),
        how: "announced",
    }));
}

/// What is seen by publishing and subscribing.
async fn try_out(client: &Connection, mut events: Events, findings: &mut Vec<Finding>) {
    let room = format!("vencejo-probe/{}", std::process::id());
    for (qos, what) in [
        (Qos::AtMostOnce, "QoS 0 round trip"),
        (Qos::AtLeastOnce, "QoS 1 round trip"),
        (Qos::ExactlyOnce, "QoS 2 round trip"),
    ] {
        let topic = format!("{room}/{}", qos.level());
        let came = round_trip(client, &mut events, &topic, qos).await;
        findings.push(tried(what, came));
    }
    let shared = format!("$share/probe/{room}/shared");
    findings.push(tried("Shared subscription", granted(client, &shared).await));
    findings.push(tried(
        "128 levels",
        granted(client, &vec!["a"; 128].join("/")).await,
    ));
    findings.push(tried(
        "Filter of 65,535 bytes",
        granted(client, &"a".repeat(65_535)).await,
    ));
    findings.push(tried(
        "Retained message",
        retains(client, &mut events, &format!("{room}/retained")).await,
    ));
    let version = match granted(client, "$SYS/broker/version").await {
        Value::String(answer) if answer.starts_with("yes") => {
            let message = next(&mut events, "$SYS/broker/version").await;
            message.map_or(Value::Null, |(payload, _)| json!(payload))
        }
        refused => refused,
    };
    findings.push(tried("$SYS/broker/version", version));
}

async fn round_trip(client: &Connection, events: &mut Events, topic: &str, qos: Qos) -> Value {
    let subscribed = client
        .subscribe(vec![Subscription::new(topic, qos)], None, Vec::new())
        .await;
    let reason = match subscribed {
        Ok(suback) => suback.reasons.first().copied(),
        Err(error) => return json!(format!("no: {error}")),
    };
    let Some(reason) = reason.filter(|reason| !reason.is_error()) else {
        return json!("no: the subscription was denied");
    };
    let began = Instant::now();
    match client.publish(Publication::new(topic, "probe", qos)).await {
        Ok(published) if published.reason.is_error() => {
            return json!(format!("no: {}", published.reason.text()));
        }
        Ok(_) => {}
        Err(error) => return json!(format!("no: {error}")),
    }
    match next(events, topic).await {
        Some((_, got)) => {
            let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
            let lower = if got < qos {
                format!(", delivered at QoS {}", got.level())
            } else {
                String::new()
            };
            json!(format!("yes, {milliseconds:.1} ms{lower}"))
        }
        None => json!(format!("no: nothing came ({})", reason.text())),
    }
}

/// Whether a retained message is kept and taken away again.
async fn retains(client: &Connection, events: &mut Events, topic: &str) -> Value {
    let publish = |payload: &'static str| {
        client.publish(Publication::new(topic, payload, Qos::AtLeastOnce).retain(true))
    };
    match publish("probe").await {
        Ok(published) if published.reason.is_error() => {
            return json!(format!("no: {}", published.reason.text()));
        }
        Ok(_) => {}
        Err(error) => return json!(format!("no: {error}")),
    }
    let came = match granted(client, topic).await {
        Value::String(answer) if answer.starts_with("yes") => next(events, topic).await.is_some(),
        refused => return refused,
    };
    publish("").await.ok();
    json!(if came { "yes" } else { "no: it did not come" })
}

async fn granted(client: &Connection, filter: &str) -> Value {
    let subscription = Subscription::new(filter, Qos::ExactlyOnce);
    match client.subscribe(vec![subscription], None, Vec::new()).await {
        Ok(suback) => match suback.reasons.first() {
            Some(reason) if reason.is_error() => json!(format!("no: {}", reason.text())),
            _ => json!("yes"),
        },
        Err(error) => json!(format!("no: {error}")),
    }
}

/// The next message at a topic, if one comes in time.
async fn next(events: &mut Events, topic: &str) -> Option<(String, Qos)> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(deadline, events.recv())
            .await
            .ok()??
        {
            Event::Message(message) if message.topic == topic => {
                return Some((
                    String::from_utf8_lossy(&message.payload).into_owned(),
                    message.qos,
                ));
            }
            Event::Message(_) => {}
            Event::Disconnected(_) => return None,
        }
    }
}

/// The largest payload that is taken, each tried on a connection of its own: one too large may end it.
async fn sizes(options: &Options, client: &Connection, findings: &mut Vec<Finding>) {
    let announced = client.connack().properties.maximum_packet_size_bytes;
    let mut taken = None;
    for (size, name) in SIZES {
        if announced.is_some_and(|most| *size + 100 > most.get() as usize) {
            break;
        }
        let topic = format!("vencejo-probe/{}/size", std::process::id());
        let is_taken = async {
            let (client, events) = Connection::connect(options.clone()).await.ok()?;
            let publication = Publication::new(topic, vec![b'x'; *size], Qos::AtLeastOnce);
            let published = tokio::time::timeout(PATIENCE, client.publish(publication)).await;
            let is_taken = matches!(published, Ok(Ok(published)) if !published.reason.is_error());
            leave(client, events).await;
            Some(is_taken)
        };
        if is_taken.await != Some(true) {
            break;
        }
        taken = Some(*name);
    }
    findings.push(Finding {
        what: "Largest payload tried and taken",
        value: taken.map(|name| json!(name)),
        how: "tried",
    });
}

fn print(as_json: bool, (host, port): (&str, u16), findings: &[Finding]) {
    if as_json {
        let found = findings
            .iter()
            .map(|one| json!({ "what": one.what, "value": one.value, "how": one.how }));
        let said = json!({ "host": host, "port": port, "findings": found.collect::<Vec<_>>() });
        return serve::print(&format!("{said:#}\n"));
    }
    let mut text = format!("{host} port {port}\n\n");
    for finding in findings {
        let value = match &finding.value {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "-".to_owned(),
        };
        text.push_str(&format!(
            "  {:<32} {:<44} {}\n",
            finding.what, value, finding.how
        ));
    }
    serve::print(&text);
}

const fn tried(what: &'static str, value: Value) -> Finding {
    Finding {
        what,
        value: Some(value),
        how: "tried",
    }
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Payloads that are tried, the smaller first.
const SIZES: &[(usize, &str)] = &[
    (1_000, "1 kB"),
    (60_000, "60 kB"),
    (250_000, "250 kB"),
    (1_000_000, "1 MB"),
    (5_000_000, "5 MB"),
    (20_000_000, "20 MB"),
    (100_000_000, "100 MB"),
];
