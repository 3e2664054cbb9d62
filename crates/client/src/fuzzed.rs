//! A Client without a socket and without a clock, for fuzz targets: bytes of its Server in, and what it keeps.
//!
//! Owns: [`Fuzzed`], an application with two streams that publishes. Does not own: what is checked (see `fuzz/bodies`).
//! Start reading at [`Fuzzed::hear`]. Invariant: it reads and writes as far as `run` would, and no further.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proto::packet::{Auth, Connect, ReasonCode};
use proto::{Qos, Secret, Version};
use tokio::sync::{mpsc, oneshot};

use crate::authentication::{Authenticator as _, Exchange};
use crate::core::{Core, Delivery, Happening, ToPublish, ToSubscribe, taken};
use crate::{Inbox, Options, Publication, ScramSha256, Subscription, WhenInboxFull, now};

/// A Client, its application, and the bytes between it and its Server.
#[doc(hidden)]
#[derive(Debug)]
pub struct Fuzzed {
    core: Core,
    now: Instant,
    input: BytesMut,
    out: Vec<u8>,
    streams: Vec<(u32, mpsc::UnboundedReceiver<Delivery>)>,
    last_key: u32,
    proof: Option<Proof>,
}

/// Proofs that are shown in CONNECT, and how far they are.
struct Proof {
    scram: ScramSha256,
    exchange: Option<Box<dyn Exchange>>,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof")
    }
}

impl Fuzzed {
    /// Messages that may wait for its application.
    pub const MESSAGES_MAX: u32 = 16;
    /// Bytes that may.
    pub const BYTES_MAX: u32 = 64 * 1024;
    /// Its Receive Maximum.
    pub const RECEIVE_MAXIMUM: u16 = 8;
    /// How many streams take what is for them.
    pub const STREAMS: usize = 2;

    /// One that drops what it may, or waits; that proves who it is, or not.
    #[must_use]
    pub fn new(version: Version, drops: bool, proves: bool) -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let inbox = Inbox {
            messages_max: number(Self::MESSAGES_MAX),
            bytes_max: number(Self::BYTES_MAX),
            when_full: if drops {
                WhenInboxFull::DropNewest
            } else {
                WhenInboxFull::Wait
            },
        };
        let receive_maximum = NonZeroU16::new(Self::RECEIVE_MAXIMUM).unwrap_or(NonZeroU16::MIN);
        let options = Options::new("a server", 1883)
            .version(version)
            .client_id("me")
            .clean_start(false)
            .receive_maximum(receive_maximum)
            .inbox(inbox);
        let now = now();
        let proof = (proves && version == Version::V5).then(|| Proof {
            scram: ScramSha256::new("anna", Secret::new("word")),
            exchange: None,
        });
        let mut fuzzed = Self {
            core: Core::new(&options, 1, now),
            now,
            input: BytesMut::new(),
            out: Vec::new(),
            streams: Vec::new(),
            last_key: 0,
            proof,
        };
        for filter in ["t/#", "+/a"] {
            let deliveries = fuzzed.subscribe(filter);
            fuzzed.streams.push((fuzzed.last_key, deliveries));
        }
        fuzzed
    }

    fn subscribe(&mut self, filter: &str) -> mpsc::UnboundedReceiver<Delivery> {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let (done, _) = oneshot::channel();
        self.core.subscribe(ToSubscribe {
            subscriptions: vec![Subscription::new(filter, Qos::ExactlyOnce)],
            sender,
            ended: Arc::new(OnceLock::new()),
            done,
        });
        self.last_key += 1;
        deliveries
    }

    /// The connection is lost, if there is one, and the next begins.
    /// # Panics
    /// CONNECT cannot be written: it always can.
    pub fn connect(&mut self) {
        self.input.clear();
        self.out.clear();
        self.core.on_lost(false, self.now);
        self.now += Duration::from_secs(60);
        self.core.on_dial();
        let mut connect = self.core.connect();
        self.begin_proving(&mut connect);
        let begun = self.core.begin(&connect, self.now, &mut self.out);
        assert!(begun.is_ok(), "CONNECT can be written");
    }

    fn begin_proving(&mut self, connect: &mut Connect) {
        let Some(proof) = &mut self.proof else { return };
        let Ok((exchange, data)) = proof.scram.begin() else {
            return;
        };
        proof.exchange = Some(exchange);
        connect.properties.authentication_method = Some(proof.scram.method().to_owned());
        connect.properties.authentication_data = data;
    }

    /// Bytes of the Server come, and are read as far as the application and the socket let them.
    /// # Errors
    /// Why the connection ends, in words.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        self.read()
    }

    fn read(&mut self) -> Result<(), String> {
        while self.out.len() < Self::UNWRITTEN_MAX {
            let next = self.core.next(&mut self.input, self.now, &mut self.out);
            match next.map_err(|cause| cause.to_string())? {
                None => break,
                Some(Happening::Handled) => {}
                Some(Happening::Refused(connack)) => {
                    return Err(crate::ConnectError::Refused(connack).to_string());
                }
                Some(Happening::Auth(auth)) => self.prove(&auth)?,
                Some(Happening::Connected(connack)) => {
                    self.finish(connack.properties.authentication_data.as_ref())?;
                    self.core.on_connected(&connack, self.now, &mut self.out);
                }
            }
        }
        Ok(())
    }

    fn prove(&mut self, auth: &Auth) -> Result<(), String> {
        let exchange = self
            .proof
            .as_mut()
            .and_then(|proof| proof.exchange.as_mut());
        let exchange = exchange.ok_or("the server speaks out of turn")?;
        let data = exchange.step(auth.data.as_ref());
        let data = data.map_err(|error| error.to_string())?;
        let answer = Auth::new(
            ReasonCode::ContinueAuthentication,
            auth.method.as_deref().unwrap_or_default(),
            data,
        );
        let sent = self.core.send_auth(&answer, self.now, &mut self.out);
        sent.map_err(|error| error.to_string())
    }

    fn finish(&mut self, data: Option<&Secret>) -> Result<(), String> {
        let exchange = self.proof.as_mut().and_then(|proof| proof.exchange.take());
        let finished = exchange.map_or(Ok(()), |exchange| exchange.finish(data));
        finished.map_err(|error| error.to_string())
    }

    /// The application publishes.
    pub fn publish(&mut self, qos: Qos, bytes: usize) {
        if self.core.unanswered_count() >= Self::PUBLICATIONS_MAX {
            return;
        }
        self.core.publish(ToPublish {
            publication: Publication::new("t", vec![0; bytes], qos),
            done: None,
            permits: None,
            kept: None,
        });
        self.core.pump(self.now, &mut self.out);
    }

    /// The application takes the next message of a stream. Messages are read on then.
    /// # Errors
    /// As with [`Self::hear`].
    pub fn take(&mut self, stream: usize) -> Result<(), String> {
        let at = stream % Self::STREAMS;
        let delivery = self.streams.get_mut(at);
        if let Some(delivery) = delivery.and_then(|(_, stream)| stream.try_recv().ok()) {
            let taken = taken(&delivery);
            self.core.on_taken(taken, self.now, &mut self.out);
        }
        self.read()
    }

    /// The application drops a stream and asks for another.
    pub fn change(&mut self, stream: usize) {
        let at = stream % Self::STREAMS;
        let deliveries = self.subscribe("t/a");
        let Some((key, old)) = self.streams.get_mut(at) else {
            return;
        };
        let key = std::mem::replace(key, self.last_key);
        let mut old = std::mem::replace(old, deliveries);
        self.core.unsubscribe(key, None);
        old.close();
        while let Ok(delivery) = old.try_recv() {
            self.core
                .on_taken(taken(&delivery), self.now, &mut self.out);
        }
        self.core.pump(self.now, &mut self.out);
    }

    /// Time passes.
    /// # Errors
    /// The Server has not answered in time.
    pub fn pass(&mut self, time: Duration) -> Result<(), String> {
        self.now += time;
        let on_timeout = self.core.on_timeout(self.now, &mut self.out);
        on_timeout.map_err(|cause| cause.to_string())?;
        self.read()
    }

    /// What was written since the last call, which the Server takes.
    /// # Errors
    /// As with [`Self::hear`]: there is room to read on.
    pub fn written(&mut self) -> Result<Vec<u8>, String> {
        let out = std::mem::take(&mut self.out);
        self.core.pump(self.now, &mut self.out);
        self.read().map(|()| out)
    }

    /// Messages that wait for the application and their bytes; acknowledgements that the connection owes; bytes that
    /// are not written.
    #[must_use]
    pub fn kept(&self) -> (usize, usize, usize, usize) {
        let (messages, bytes, owed) = self.core.kept();
        (messages, bytes, owed, self.out.len())
    }

    /// Publications that are not answered.
    pub const PUBLICATIONS_MAX: usize = 64;
    /// As `run` has it.
    const UNWRITTEN_MAX: usize = 256 * 1024;
}
