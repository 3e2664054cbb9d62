//! A Client and a Server with a network between them that cuts, stalls and truncates, from one seed in virtual time.
//!
//! Owns: the network, the application, what has to hold at the end. Does not own: the Server (see `server`).
//! Start reading at [`World::run`]. Invariant: the same seed gives the same run; a failure prints it.
//!
//! `CLIENT_FAULT_RUNS=10000 cargo test --release -p vencejo-client faults` makes more runs, from `CLIENT_FAULT_SEED` on.

mod server;

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::BytesMut;
use proto::{Qos, Version};
use tokio::sync::{mpsc, oneshot};

use super::{Core, Delivery, Happening, Kept, Taken, ToPublish, ToSubscribe};
use crate::error::{Error, Refusal};
use crate::{Options, Outbox, Publication, Published, Subscription};

use server::Server;

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(crate) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }
}

/// One connection: bytes on their way, and how many more may pass before it breaks.
#[derive(Debug)]
struct Wire {
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    up_left: usize,
    down_left: usize,
    /// Nothing passes any more, and nobody is told.
    is_stalled: bool,
    stalls_after: usize,
}

/// What kind of run it is.
#[derive(Clone, Copy, Debug)]
struct Plan {
    version: Version,
    cuts: usize,
    /// Bytes after which the first connection breaks, either way; later ones at random.
    first_cut: Option<(usize, usize)>,
    loses_sessions: bool,
    /// The program ends now and then, and another one goes on with its outbox.
    restarts: bool,
    by_application: bool,
    messages: u32,
}

#[derive(Debug)]
struct World {
    random: Random,
    plan: Plan,
    now: Instant,
    options: Options,
    core: Core,
    kept: Kept,
    server: Server,
    wire: Option<Wire>,
    input: BytesMut,
    out: Vec<u8>,
    cuts_left: usize,
    passed: [usize; 2],
    handed: Vec<(Qos, oneshot::Receiver<Result<Published, Error>>)>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    _subscribed: oneshot::Receiver<Result<(u32, Vec<proto::packet::ReasonCode>), Error>>,
    /// Taken and not acknowledged.
    holding: Vec<u64>,
    received: Vec<(Qos, u32)>,
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut random = Random::new(seed);
        let receive_maximum = NonZeroU16::new(1 + u16::try_from(random.below(6)).expect("small"));
        let options = Options::new("a server", 1883)
            .version(plan.version)
            .client_id("me")
            .clean_start(false)
            .receive_maximum(receive_maximum.expect("not 0"))
            .topic_aliases_max(2)
            .keep_alive_seconds(10);
        let options = if plan.restarts {
            options.outbox(Outbox::in_folder("not used: the journal is read here"))
        } else {
            options
        };
        let now = Instant::now();
        let kept = Kept::default();
        let (core, deliveries, subscribed) = start(&options, &kept, seed, now);
        Self {
            server: Server::new(plan, &mut random),
            random,
            plan,
            now,
            options,
            core,
            kept,
            wire: None,
            input: BytesMut::new(),
            out: Vec::new(),
            cuts_left: plan.cuts,
            passed: [0; 2],
            handed: Vec::new(),
            deliveries,
            _subscribed: subscribed,
            holding: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Until everything has arrived and is answered. Returns how many bytes passed up and down.
    fn run(mut self) -> [usize; 2] {
        for _ in 0..STEPS_MAX {
            self.hand_over();
            self.take();
            if !self.pass() {
                self.wait();
            }
            if self.is_done() {
                self.check();
                return self.passed;
            }
        }
        panic!("no end: {:?} {:?}", self.core, self.server);
    }

    fn hand_over(&mut self) {
        let number = u32::try_from(self.handed.len()).expect("few");
        if number == self.plan.messages || !self.random.one_in(3) {
            return;
        }
        let qos = if self.random.one_in(2) {
            Qos::AtLeastOnce
        } else {
            Qos::ExactlyOnce
        };
        let topic = format!("up/{}", number % 3);
        let (done, answer) = oneshot::channel();
        self.core.publish(ToPublish {
            publication: Publication::new(topic, number.to_be_bytes().to_vec(), qos),
            done: Some(done),
            permits: None,
            kept: None,
        });
        self.core.pump(self.now, &mut self.out);
        self.handed.push((qos, answer));
    }

    /// The application takes something, and acknowledges something.
    fn take(&mut self) {
        if self.random.one_in(2)
            && let Ok(Delivery { message, seq }) = self.deliveries.try_recv()
        {
            let number = number(&message.payload);
            assert_eq!(message.topic, format!("down/{}", number % 3));
            self.received.push((message.qos, number));
            let waited_bytes = Some(message.len_bytes());
            let acknowledged = seq.filter(|_| !self.plan.by_application);
            let taken = Taken {
                waited_bytes,
                acknowledged,
            };
            self.core.on_taken(taken, self.now, &mut self.out);
            self.holding
                .extend(seq.filter(|_| self.plan.by_application));
        }
        if !self.holding.is_empty() && self.random.one_in(3) {
            let at = self.random.below(self.holding.len());
            let acknowledged = Some(self.holding.swap_remove(at));
            let taken = Taken {
                waited_bytes: None,
                acknowledged,
            };
            self.core.on_taken(taken, self.now, &mut self.out);
        }
    }

    /// Passes some bytes either way; returns whether anything moved.
    fn pass(&mut self) -> bool {
        if let Some(journal) = self.core.journal_mut() {
            // Nothing leaves before.
            for record in journal.take() {
                self.kept.apply(record);
            }
            journal.on_kept();
        }
        let Some(wire) = &mut self.wire else {
            self.out.clear();
            return false;
        };
        wire.up.extend(self.out.drain(..));
        self.server.pump(&mut self.random, &mut wire.down);
        if wire.is_stalled {
            return false;
        }
        let up = (1 + self.random.below(60))
            .min(wire.up.len())
            .min(wire.up_left);
        let down = (1 + self.random.below(60))
            .min(wire.down.len())
            .min(wire.down_left);
        wire.up_left -= up;
        wire.down_left -= down;
        wire.stalls_after = wire.stalls_after.saturating_sub(up + down);
        wire.is_stalled = wire.stalls_after == 0;
        self.passed[0] += up;
        self.passed[1] += down;
        let sent: Vec<u8> = wire.up.drain(..up).collect();
        self.server.receive(&sent, &mut wire.down);
        self.input.extend(wire.down.drain(..down));
        let is_cut = (wire.up_left == 0 && !wire.up.is_empty())
            || (wire.down_left == 0 && !wire.down.is_empty());
        // What has reached us before the end is read before the end.
        self.read();
        if is_cut {
            self.lose();
        }
        up + down > 0 || is_cut
    }

    fn read(&mut self) {
        loop {
            match self.core.next(&mut self.input, self.now, &mut self.out) {
                Ok(Some(Happening::Connected(connack))) => {
                    self.core.on_connected(&connack, self.now, &mut self.out);
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(cause) => panic!("the server breaks no rule: {cause:?}"),
            }
        }
    }

    fn lose(&mut self) {
        self.wire = None;
        self.input.clear();
        self.out.clear();
        let was_seen = matches!(self.core.phase, super::Phase::Connected { .. });
        self.server.on_lost(was_seen, &mut self.random);
        assert!(self.core.on_lost(false, self.now).is_some(), "goes on");
        if self.plan.restarts && self.random.one_in(3) {
            let seed = self.random.next();
            let started = start(&self.options, &self.kept, seed, self.now);
            (self.core, self.deliveries, self._subscribed) = started;
            self.holding.clear();
        }
    }

    /// Nothing moves: time does.
    fn wait(&mut self) {
        if self.core.wants_connection(self.now) {
            self.dial();
            return;
        }
        if self.wire.is_some() && !self.wire.as_ref().is_some_and(|wire| wire.is_stalled) {
            return;
        }
        let Some(due) = self.core.poll_timeout() else {
            return;
        };
        self.now = self.now.max(due);
        if self.core.on_timeout(self.now, &mut self.out).is_err() {
            self.lose();
        }
    }

    fn dial(&mut self) {
        self.core.on_dial();
        let connect = self.core.connect();
        let begun = self.core.begin(&connect, self.now, &mut self.out);
        begun.expect("CONNECT can be written");
        let is_last = self.cuts_left == 0;
        self.cuts_left = self.cuts_left.saturating_sub(1);
        let first = self
            .plan
            .first_cut
            .filter(|_| !is_last && self.cuts_left + 1 == self.plan.cuts);
        let mut left = || {
            if is_last {
                usize::MAX
            } else {
                self.random.below(250)
            }
        };
        let (up_left, down_left) = first.unwrap_or_else(|| (left(), left()));
        let stalls = !is_last && first.is_none() && self.random.one_in(4);
        self.wire = Some(Wire {
            up: VecDeque::new(),
            down: VecDeque::new(),
            up_left,
            down_left,
            is_stalled: false,
            stalls_after: if stalls {
                1 + self.random.below(250)
            } else {
                usize::MAX
            },
        });
    }

    fn is_done(&self) -> bool {
        self.handed.len() == self.plan.messages as usize
            && self.core.unanswered_count() == 0
            && self.server.is_done()
            && self.holding.is_empty()
            && self.deliveries.is_empty()
            && self.core.incoming.is_idle()
    }

    fn check(&mut self) {
        let mut certain = Vec::new();
        for (number, (qos, answer)) in (0..).zip(&mut self.handed) {
            match answer.try_recv() {
                // Whoever waited for it ended with an earlier program.
                Err(_) => {
                    assert!(self.plan.restarts, "an answer");
                    certain.push((*qos, number));
                }
                Ok(Ok(published)) => {
                    assert!(!published.reason.is_error());
                    certain.push((*qos, number));
                }
                Ok(Err(Error::Server(Refusal::SessionLost))) => {
                    assert!(self.plan.loses_sessions && *qos == Qos::ExactlyOnce);
                }
                Ok(Err(error)) => panic!("{error}"),
            }
        }
        let keeps = !self.plan.loses_sessions;
        once_and_in_order(self.server.accepted(), &certain);
        let sent: Vec<_> = self.server.sent().collect();
        // What came is taken note of by the application, not by the outbox.
        if keeps && !self.plan.restarts {
            once_and_in_order(&self.received, &sent);
        }
    }
}

type Started = (
    Core,
    mpsc::UnboundedReceiver<Delivery>,
    oneshot::Receiver<Result<(u32, Vec<proto::packet::ReasonCode>), Error>>,
);

/// A program that begins, with what an earlier one has left.
fn start(options: &Options, kept: &Kept, seed: u64, now: Instant) -> Started {
    let mut core = Core::new(options, seed, now);
    if options.outbox.is_some() {
        core.restore(kept.clone());
    }
    let (sender, deliveries) = mpsc::unbounded_channel();
    let (done, subscribed) = oneshot::channel();
    core.subscribe(ToSubscribe {
        subscriptions: vec![Subscription::new("down/+", Qos::ExactlyOnce)],
        sender,
        ended: Arc::new(OnceLock::new()),
        done,
    });
    (core, deliveries, subscribed)
}

/// QoS 1 at least once, QoS 2 exactly once, and for the first time in the order of `expected`.
fn once_and_in_order(seen: &[(Qos, u32)], expected: &[(Qos, u32)]) {
    for (qos, number) in expected {
        let times = seen.iter().filter(|(_, other)| other == number).count();
        assert!(times >= 1, "{number} is lost: {seen:?}");
        assert!(
            *qos != Qos::ExactlyOnce || times == 1,
            "{number} came {times} times"
        );
    }
    for (qos, number) in seen.iter().filter(|(qos, _)| *qos == Qos::ExactlyOnce) {
        let times = seen.iter().filter(|(_, other)| other == number).count();
        assert_eq!(times, 1, "{number} at {qos:?}");
    }
    let mut first: Vec<u32> = Vec::new();
    for (_, number) in seen {
        if !first.contains(number) {
            first.push(*number);
        }
    }
    assert!(first.is_sorted(), "out of order: {first:?}");
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().expect("a number"))
}

/// Steps after which a run has lost its way.
const STEPS_MAX: usize = 200_000;

pub(crate) fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn run(seed: u64, plan: Plan) -> [usize; 2] {
    let ran = std::panic::catch_unwind(|| World::new(seed, plan).run());
    ran.unwrap_or_else(|cause| {
        eprintln!("CLIENT_FAULT_SEED={seed} {plan:?}");
        std::panic::resume_unwind(cause)
    })
}

const PLAN: Plan = Plan {
    version: Version::V5,
    cuts: 12,
    first_cut: None,
    loses_sessions: false,
    restarts: false,
    by_application: false,
    messages: 20,
};

/// QoS 1 at least once, QoS 2 exactly once, in order, both ways, and nothing is left over.
#[test]
fn faults_lose_repeat_and_reorder_nothing() {
    let first = variable("CLIENT_FAULT_SEED", 1);
    let runs = variable("CLIENT_FAULT_RUNS", 300);
    for seed in first..first + runs {
        let plan = Plan {
            version: if seed % 3 == 0 {
                Version::V311
            } else {
                Version::V5
            },
            by_application: seed % 2 == 0,
            ..PLAN
        };
        run(seed, plan);
    }
    eprintln!("{runs} runs from CLIENT_FAULT_SEED={first}");
}

/// Where the Server forgets Sessions nothing at QoS 1 is lost, and of QoS 2 nothing is repeated: it is reported.
#[test]
fn faults_with_lost_sessions_are_reported() {
    let first = variable("CLIENT_FAULT_SEED", 1);
    for seed in first..first + variable("CLIENT_FAULT_RUNS", 300) {
        let plan = Plan {
            loses_sessions: true,
            ..PLAN
        };
        run(seed, plan);
    }
}

/// The end of the program at any time: the next one goes on with what was kept, QoS 2 stays exactly once, and order stays.
#[test]
fn faults_and_ends_of_the_program_lose_and_repeat_nothing() {
    let first = variable("CLIENT_FAULT_SEED", 1);
    for seed in first..first + variable("CLIENT_FAULT_RUNS", 300) {
        let plan = Plan {
            version: if seed % 3 == 0 {
                Version::V311
            } else {
                Version::V5
            },
            restarts: true,
            ..PLAN
        };
        run(seed, plan);
    }
}

/// One exchange, cut after each of its bytes, upwards and downwards.
#[test]
fn faults_at_every_byte_of_an_exchange_do_no_harm() {
    for version in [Version::V5, Version::V311] {
        let whole = Plan {
            version,
            cuts: 0,
            messages: 4,
            ..PLAN
        };
        let [up, down] = run(7, whole);
        assert!(up > 60 && down > 60, "{up} {down}");
        for at in 0..up.max(down) {
            for first_cut in [(at, usize::MAX), (usize::MAX, at)] {
                let plan = Plan {
                    cuts: 1,
                    first_cut: Some(first_cut),
                    ..whole
                };
                run(7, plan);
            }
        }
    }
}
