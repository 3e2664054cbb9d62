//! A Server that says anything to a whole [`Connection`], with its task, over a stream in memory.
//!
//! Owns: such Servers, from a seed, and applications that go on meanwhile. Does not own: what is said (see
//! `core::hostile`), the same for a `Client` (there, too). Start reading at [`converse`]. Invariant: a connection ends with a cause that has
//! words, every request is answered, and no more is taken from the Server than the bounds of `driver` have room for.
//!
//! `CLIENT_FAULT_RUNS=100000 cargo nextest run -p vencejo-client hostile` makes more runs, from `CLIENT_FAULT_SEED` on.

use std::future::poll_fn;
use std::num::{NonZeroU16, NonZeroU32};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use proto::packet::{self, Ack, ConnAck, Packet, Publish, PublishProperties, ReasonCode, SubAck};
use proto::{PacketIdentifier, Qos, Version};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::{Driver, Inlets, ToPublish, connect_of};
use crate::core::faults::{Random, variable};
use crate::core::hostile::Speech;
use crate::socket::{Reader, Writer};
use crate::{ConnectError, Connection, Event, Events, Options, Publication, Subscription};

impl Driver {
    /// Over one end of `stream`.
    pub(crate) async fn over_duplex(
        options: &Options,
        stream: DuplexStream,
        inlets: Inlets,
        events: mpsc::Sender<Event>,
    ) -> Result<(Self, Box<ConnAck>), ConnectError> {
        let begun = connect_of(options).map_err(ConnectError::Authentication)?;
        let (reader, writer) = tokio::io::split(stream);
        let stream: (Reader, Writer) = (Box::new(reader), Box::new(writer));
        Self::over(options, begun, stream, inlets, events).await
    }
}

/// What a Server does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Packets that are well-formed and wrong, and some that are cut.
    Packets,
    /// Bytes of no meaning.
    Noise,
}

fn options(version: Version) -> Options {
    Options::new("a server", 1883)
        .version(version)
        .client_id("me")
        .receive_maximum(NonZeroU16::new(16).expect("not 0"))
        .maximum_packet_size(NonZeroU32::new(64 * 1024).expect("not 0"))
        .connect_timeout(CONNECT_MAX)
}

/// One connection, from its seed.
async fn converse(seed: u64, kind: Kind) {
    let mut random = Random::new(seed);
    let version = [Version::V5, Version::V311, Version::V31][random.below(3)];
    let (near, far) = duplex(1 + random.below(4096));
    let application = Random::new(random.next());
    let speech = Speech { random, version };
    let server = tokio::spawn(serve(speech, far, kind));
    match Connection::over(&options(version), near).await {
        Ok((client, events)) => go_on(client, events, application).await,
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    server.await.expect("the Server is no matter");
}

/// Says what comes to its mind, in pieces, and goes away.
async fn serve(mut speech: Speech, far: DuplexStream, kind: Kind) {
    let (mut reader, mut writer) = tokio::io::split(far);
    let reads = !speech.random.one_in(4);
    let reading = tokio::spawn(async move {
        let mut taken = [0; 512];
        while reads && reader.read(&mut taken).await.is_ok_and(|read| read > 0) {}
        reader
    });
    let mut said = BytesMut::new();
    if !speech.random.one_in(8) {
        let connack = speech.connack();
        speech.say(&connack, &mut said);
    }
    for _ in 0..speech.random.below(200) {
        match kind {
            Kind::Packets => speech.say_something(&mut said),
            Kind::Noise => {
                let len = speech.random.below(40);
                let noise: Vec<u8> = (0..len).map(|_| speech.byte()).collect();
                said.extend_from_slice(&noise);
            }
        }
        let len = said.len().min(1 + speech.random.below(300));
        // Whoever has left does not hear the rest.
        if writer.write_all(&said.split_to(len)).await.is_err() {
            break;
        }
        if speech.random.one_in(4) {
            yield_now().await;
        }
    }
    drop(writer);
    reading.abort();
}

/// Asks for this and that, and takes what comes until it is over.
async fn go_on(client: Connection, mut events: Events, mut random: Random) {
    let mut requests = JoinSet::new();
    for _ in 0..random.below(20) {
        let (client, choice) = (client.clone(), random.below(6));
        let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][random.below(3)];
        let topic = ["t", "t/a", ""][random.below(3)];
        requests.spawn(async move {
            let done = match choice {
                0 => {
                    let subscriptions = vec![Subscription::new(topic, qos)];
                    client
                        .subscribe(subscriptions, None, Vec::new())
                        .await
                        .map(|_| ())
                }
                1 => client
                    .unsubscribe(vec![topic.to_owned()], Vec::new())
                    .await
                    .map(|_| ()),
                2 => client.reauthenticate().await,
                _ => {
                    let publication = Publication::new(topic, vec![0; 100], qos);
                    client.publish(publication).await.map(|_| ())
                }
            };
            done.map_err(|error| error.to_string())
        });
    }
    let mut is_over = false;
    while let Some(event) = events.recv().await {
        if let Event::Disconnected(end) = event {
            assert!(!end.cause.to_string().is_empty());
            is_over = true;
        }
    }
    assert!(is_over, "nothing was said of its end");
    while let Some(request) = requests.join_next().await {
        let done = request.expect("a request does not panic");
        assert!(done.err().is_none_or(|words| !words.is_empty()));
    }
}

/// Runs on one thread, and not for ever; a failure prints its seed.
fn run(seed: u64, what: impl Future<Output = ()>) {
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let runtime = Builder::new_current_thread().enable_time().build();
        let ran = runtime
            .expect("a runtime")
            .block_on(async { timeout(PATIENCE, what).await });
        ran.expect("it ends");
    }));
    ran.unwrap_or_else(|cause| {
        eprintln!("CLIENT_FAULT_SEED={seed}");
        std::panic::resume_unwind(cause)
    });
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = variable("CLIENT_FAULT_SEED", 1);
    first..first + variable("CLIENT_FAULT_RUNS", 500)
}

#[test]
fn hostile_packets_end_a_connection_with_words() {
    for seed in seeds() {
        run(seed, converse(seed, Kind::Packets));
    }
}

#[test]
fn hostile_bytes_end_a_connection_with_words() {
    for seed in seeds() {
        run(seed, converse(seed, Kind::Noise));
    }
}

fn publish<'a>(topic: &'a str, qos: Qos, packet_id: u16, payload: &'static [u8]) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: PacketIdentifier::new(packet_id),
        properties: PublishProperties::default(),
        payload,
    })
}

fn bytes(packets: &[Packet<'_>], version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        packet::encode(packet, version, &mut bytes).expect("it can be written");
    }
    bytes
}

fn connack() -> Packet<'static> {
    Packet::ConnAck(Box::new(ConnAck::refusal(ReasonCode::Success)))
}

/// An exchange of a Server that keeps the rules, cut after each of its bytes.
#[test]
fn hostile_cuts_at_every_byte_end_a_connection_with_words() {
    for version in [Version::V5, Version::V311] {
        let packet_id = |number| PacketIdentifier::new(number).expect("not 0");
        let ack = |number| Ack::new(packet_id(number), ReasonCode::Success);
        let said = bytes(
            &[
                connack(),
                Packet::SubAck(SubAck {
                    packet_id: packet_id(1),
                    reasons: vec![ReasonCode::GrantedQos2],
                    properties: None,
                }),
                publish("t/a", Qos::AtMostOnce, 0, b"x"),
                publish("t/a", Qos::AtLeastOnce, 2, b"x"),
                publish("t/a", Qos::ExactlyOnce, 3, b"x"),
                Packet::PubRel(ack(3)),
                Packet::PubAck(ack(2)),
                Packet::PingResp,
            ],
            version,
        );
        for cut in 0..=said.len() {
            let said = &said[..cut];
            run(cut as u64, async move {
                let (near, mut far) = duplex(4096);
                far.write_all(said).await.expect("there is room");
                let options = options(version);
                let connecting = Connection::over(&options, near);
                let closing = async {
                    // CONNECT is read, and then the stream closed.
                    far.read_u8().await.ok();
                    yield_now().await;
                    drop(far);
                };
                let (connected, ()) = tokio::join!(connecting, closing);
                match connected {
                    Ok((client, events)) => go_on(client, events, Random::new(cut as u64)).await,
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            });
        }
    }
}

/// Says `chunk` again and again, until nobody takes it however often everybody else has had a turn. Returns the bytes
/// that were taken, `most` at most.
async fn flood(far: &mut DuplexStream, chunk: &[u8], most: usize) -> usize {
    let (mut taken, mut at, mut idle) = (0, 0, 0);
    while taken < most && idle < 1000 {
        let rest = &chunk[at..];
        let written = poll_fn(|cx| Poll::Ready(Pin::new(&mut *far).poll_write(cx, rest))).await;
        match written {
            Poll::Ready(written) => {
                let written = written.expect("the stream is open");
                at = (at + written) % chunk.len();
                taken += written;
                idle = 0;
            }
            Poll::Pending => idle += 1,
        }
        yield_now().await;
    }
    taken
}

async fn connected(version: Version) -> (Connection, Events, DuplexStream) {
    let (near, mut far) = duplex(STREAM);
    far.write_all(&bytes(&[connack()], version))
        .await
        .expect("there is room");
    let connected = Connection::over(&options(version), near).await;
    let (client, events) = connected.expect("the Server lets it in");
    (client, events, far)
}

/// Nobody takes messages: without a request no more is read than has its place, and with one as much as it may be behind.
#[test]
fn hostile_floods_of_messages_are_read_as_far_as_there_is_room() {
    for version in [Version::V5, Version::V311] {
        for (asks, payload, most) in [
            (false, &[0; 10][..], 256 * 1024),
            (false, &[0; 10_000], 1024 * 1024),
            (true, &[0; 10], 256 * 1024),
            (true, &[0; 10_000], 20 * 1024 * 1024),
        ] {
            run(0, async move {
                let (client, _events, mut far) = connected(version).await;
                let asking = client.clone();
                let request = tokio::spawn(async move {
                    let subscriptions = vec![Subscription::new("t", Qos::AtMostOnce)];
                    asking.subscribe(subscriptions, None, Vec::new()).await
                });
                if asks {
                    yield_now().await;
                } else {
                    request.abort();
                    request.await.ok();
                }
                let message = bytes(&[publish("t", Qos::AtMostOnce, 0, payload)], version);
                let taken = flood(&mut far, &message, 2 * most).await;
                assert!(taken < most, "{taken} bytes of {} each", payload.len());
            });
        }
    }
}

/// Each of these is answered, and the Server does not read.
#[test]
fn hostile_servers_that_do_not_read_are_not_read() {
    for version in [Version::V5, Version::V311] {
        run(0, async move {
            let (_client, _events, mut far) = connected(version).await;
            let packet_id = PacketIdentifier::new(7).expect("not 0");
            let pubrel = bytes(
                &[Packet::PubRel(Ack::new(packet_id, ReasonCode::Success))],
                version,
            );
            let pubrels = pubrel.repeat(100);
            let taken = flood(&mut far, &pubrels, 2 * 1024 * 1024).await;
            assert!(taken < 2 * 1024 * 1024, "{taken} bytes");
        });
    }
}

/// One that is always a little behind: what it has read is not kept.
#[test]
fn hostile_servers_that_read_slowly_leave_nothing_that_is_written() {
    run(0, async {
        let (near, mut far) = duplex(STREAM);
        let said = bytes(&[connack()], Version::V5);
        far.write_all(&said).await.expect("there is room");
        let (publications, receiver) = mpsc::channel(32);
        let (_commands, commands) = mpsc::channel(1);
        let (_taken, taken) = mpsc::unbounded_channel();
        let inlets = Inlets {
            publications: receiver,
            commands,
            taken,
        };
        let (event_sender, _events) = mpsc::channel(1);
        let options = options(Version::V5);
        let connected = Driver::over_duplex(&options, near, inlets, event_sender).await;
        let (mut driver, _) = connected.expect("the Server lets it in");
        let mut read = [0; 256];
        for _ in 0..20_000 {
            while publications.capacity() > 0 {
                let (done, _) = oneshot::channel();
                let publication = Publication::new("t", vec![0; 1000], Qos::AtMostOnce);
                let sent = publications.try_send(ToPublish { publication, done });
                sent.expect("there is room");
            }
            // There is always something to write, and so to read.
            let mut buffer = ReadBuf::new(&mut read);
            let polled =
                poll_fn(|cx| Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut buffer))).await;
            assert!(!matches!(polled, Poll::Ready(Err(_))), "the stream is open");
            assert!(driver.turn().await.is_ok());
            assert!(driver.out.len() < 512 * 1024, "{} bytes", driver.out.len());
        }
    });
}

/// As much as a system buffers, roughly.
const STREAM: usize = 64 * 1024;
/// A Server that does not even read CONNECT, over a stream that has no room for it, is left after this.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(20);
