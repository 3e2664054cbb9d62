//! `vencejo demo`: a server, a subscriber and a publisher through real sockets, then a small house.
//!
//! Owns: the simulated devices and what is printed about them. Does not own: the server or the client.
//! Start reading at [`run`]. Invariant: nothing is shown that did not come through a socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use client::{Connection, Event, Events, Options, Publication, ReceivedMessage, Subscription};
use proto::Qos;
use proto::packet::{Will, WillProperties};
use server::config::{Config, StorageConfig};
use server::{Server, StartError};
use tracing::level_filters::LevelFilter;

use crate::port_owner;
use crate::serve::{self, LogArgs, Signals};
use crate::tools::Failure;

/// Start a server, send a message through it, and stay up with simulated devices
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct DemoArgs {
    /// Leave after the first message
    #[arg(long)]
    exit: bool,
    #[command(flatten)]
    log: LogArgs,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Runs the demonstration.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let started = Instant::now();
    serve::start_log(&args.log, LevelFilter::WARN);
    crate::run(async {
        let mut signals = Signals::new()?;
        let server = start()?;
        let address = first_listener(&server)?;
        serve::print(&format!(
            "\n  Vencejo {} - MQTT server ready in {} ms\n\n  MQTT        mqtt://{address}    \
             no password, only from this machine\n",
            env!("CARGO_PKG_VERSION"),
            started.elapsed().as_millis()
        ));
        first_message(address).await?;
        if args.exit {
            return Ok(());
        }
        let house = tokio::spawn(house(address));
        serve::print(&what_to_try(address));
        let result = serve::until_stopped(server, &mut signals, None).await;
        house.abort();
        result
    })
}

/// On the usual port, or on a free one if that is taken.
fn start() -> Result<Server, Failure> {
    let config = Config {
        storage: StorageConfig::memory(),
        ..Config::default()
    };
    match Server::start(config.clone()) {
        Err(StartError::PortInUse { addr }) => {
            let who = port_owner::find(addr.port()).map_or_else(
                || "another program".to_owned(),
                |owner| format!("{} (pid {})", owner.name, owner.pid),
            );
            serve::print(&format!(
                "\n  Port {} is used by {who}; taking a free one.\n",
                addr.port()
            ));
            let config = Config {
                listeners: vec![([127, 0, 0, 1], 0).into()],
                ..config
            };
            Server::start(config).map_err(|error| serve::start_failure(&error))
        }
        result => result.map_err(|error| serve::start_failure(&error)),
    }
}

fn first_listener(server: &Server) -> Result<SocketAddr, Failure> {
    server
        .listeners()
        .first()
        .copied()
        .ok_or_else(|| Failure::new("the server has no listener"))
}

/// One message from a publisher to a subscriber, and how long it took.
async fn first_message(address: SocketAddr) -> Result<(), Failure> {
    let (subscriber, mut events) = connect(address, "demo-subscriber", None).await?;
    subscribe(&subscriber, "demo/#").await?;
    let (publisher, publisher_events) = connect(address, "demo-publisher", None).await?;
    let sent = Instant::now();
    let publication = Publication::new("demo/hello", "it works!", Qos::AtLeastOnce);
    publisher.publish(publication).await.map_err(failure)?;
    let message = next_message(&mut events)
        .await
        .ok_or_else(|| Failure::new("the first message did not arrive"))?;
    let elapsed = sent.elapsed();
    serve::print(&format!(
        "  First message: {} {}   (QoS 1, published, delivered and acknowledged in {elapsed:.1?})\n",
        message.topic,
        String::from_utf8_lossy(&message.payload),
    ));
    for (client, events) in [(publisher, publisher_events), (subscriber, events)] {
        let goodbye = proto::packet::Disconnect::new(proto::packet::ReasonCode::Success);
        client.disconnect(goodbye).await.map_err(failure)?;
        events.close().await;
    }
    Ok(())
}

async fn next_message(events: &mut Events) -> Option<ReceivedMessage> {
    match tokio::time::timeout(MESSAGE_TIMEOUT, events.recv()).await {
        Ok(Some(Event::Message(message))) => Some(message),
        _ => None,
    }
}

async fn connect(
    address: SocketAddr,
    client_id: &str,
    will: Option<Will>,
) -> Result<(Connection, Events), Failure> {
    let mut options = Options::new(address.ip().to_string(), address.port())
        .client_id(client_id)
        .nodelay(true);
    if let Some(will) = will {
        options = options.will(will);
    }
    Connection::connect(options).await.map_err(failure)
}

async fn subscribe(client: &Connection, filter: &str) -> Result<(), Failure> {
    let subscription = Subscription::new(filter, Qos::AtLeastOnce);
    client
        .subscribe(vec![subscription], None, Vec::new())
        .await
        .map_err(failure)?;
    Ok(())
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("Error: {error}."))
}

/// All devices, until one of them loses its server.
async fn house(address: SocketAddr) -> Result<(), Failure> {
    tokio::try_join!(
        sensor(
            address,
            Sensor {
                name: "kitchen",
                unit: "C",
                middle: 21.0,
                swing: 1.5,
                period: 40.0
            }
        ),
        sensor(
            address,
            Sensor {
                name: "garden",
                unit: "C",
                middle: 9.0,
                swing: 6.0,
                period: 90.0
            }
        ),
        sensor(
            address,
            Sensor {
                name: "cellar",
                unit: "%",
                middle: 62.0,
                swing: 4.0,
                period: 60.0
            }
        ),
        lamp(address),
    )?;
    Ok(())
}

/// A simulated sensor: what it measures swings around a middle.
struct Sensor {
    name: &'static str,
    unit: &'static str,
    middle: f64,
    swing: f64,
    period: f64,
}

async fn sensor(address: SocketAddr, sensor: Sensor) -> Result<(), Failure> {
    let (client, _events) = device(address, sensor.name).await?;
    let what = if sensor.unit == "C" {
        "temperature"
    } else {
        "humidity"
    };
    let topic = format!("home/{}/{what}", sensor.name);
    let started = Instant::now();
    let mut ticks = tokio::time::interval(MEASURE_INTERVAL);
    loop {
        ticks.tick().await;
        let phase = started.elapsed().as_secs_f64() / sensor.period * std::f64::consts::TAU;
        let value = sensor.middle + sensor.swing * phase.sin();
        let payload = format!("{{\"value\":{value:.1},\"unit\":\"{}\"}}", sensor.unit);
        let publication = Publication::new(topic.clone(), payload, Qos::AtMostOnce).retain(true);
        client.publish(publication).await.map_err(failure)?;
    }
}

/// A lamp that does what `home/lamp/set` says.
async fn lamp(address: SocketAddr) -> Result<(), Failure> {
    let (client, mut events) = device(address, "lamp").await?;
    subscribe(&client, "home/lamp/set").await?;
    let mut state = "off".to_owned();
    loop {
        let publication =
            Publication::new("home/lamp/state", state.clone(), Qos::AtLeastOnce).retain(true);
        client.publish(publication).await.map_err(failure)?;
        match events.recv().await {
            Some(Event::Message(message)) if matches!(&*message.payload, b"on" | b"off") => {
                state = String::from_utf8_lossy(&message.payload).into_owned();
            }
            Some(Event::Message(_)) => {}
            Some(Event::Disconnected(_)) | None => return Ok(()),
        }
    }
}

/// A device says that it is online, and leaves a will that says that it is not.
async fn device(address: SocketAddr, name: &str) -> Result<(Connection, Events), Failure> {
    let topic = format!("home/{name}/status");
    let will = Will {
        topic: topic.clone(),
        payload: "offline".into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: WillProperties::default(),
    };
    let (client, events) = connect(address, &format!("demo-{name}"), Some(will)).await?;
    let online = Publication::new(topic, "online", Qos::AtLeastOnce).retain(true);
    client.publish(online).await.map_err(failure)?;
    Ok((client, events))
}

fn what_to_try(address: SocketAddr) -> String {
    let program = serve::program();
    let flags = serve::connect_flags(address);
    format!(
        "\n  Four simulated devices are at home now. In another terminal:\n\n    \
         {program} sub{flags} -t 'home/#' -v            everything, as it comes\n    \
         {program} sub{flags} -t 'home/+/status' -v     who is online (retained)\n    \
         {program} pub{flags} -t home/lamp/set -m on    the lamp answers in home/lamp/state\n    \
         {program} sub{flags} -t '$SYS/#' -v            what the server counts\n\n  \
         Ctrl-C stops.\n"
    )
}

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
const MEASURE_INTERVAL: Duration = Duration::from_secs(2);
