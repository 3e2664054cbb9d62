//! Messages from publishers to subscribers, on a schedule that does not wait for the server.
//!
//! Owns: the tasks of publishers and subscribers, when a run is over. Does not own: when a message is due (see `schedule`),
//! whether it has come before (see `ledger`). Start reading at [`run`]. Invariant: a time begins when its message was
//! due, whether it could be sent then or not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client::{
    Connection, DisconnectCause, Event, Events, Publication, Receipt, ReceivedMessage, RequestError,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::Qos;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Extent;
use super::figures::{Outcome, Tally, count, read};
use super::ground::{Connected, Ground, each};
use super::ledger::{Arrival, Mark, Receiver, Shelf};
use super::pace::Pace;
use super::progress::Progress;
use super::scenarios::{Flow, Listen, grouped};
use super::schedule::Schedule;
use crate::tools::Failure;

/// What all tasks of a run know.
struct Shared {
    flow: Flow,
    schedule: Schedule,
    began: Instant,
    run: u32,
    room: String,
    extent: Extent,
    tally: Tally,
}

/// Runs `flow` once.
/// # Errors
/// A client is not let in, a subscription is refused, or somebody wants it to end.
pub(super) async fn run(
    ground: &Ground,
    flow: &Flow,
    extent: Extent,
    round: u32,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    let room = ground.room(round);
    progress.tell("connecting subscribers");
    let subscribers = ground.connect_all("s", flow.subscribers).await?;
    subscribe_all(&subscribers, flow, &room, extent.qos).await?;
    progress.tell("connecting publishers");
    let publishers = ground.connect_all("p", flow.publishers).await?;
    ground.go_on()?;
    let (warm_up, duration) = (extent.warm_up, extent.duration);
    let shared = Arc::new(Shared {
        flow: flow.clone(),
        schedule: Schedule::for_time(flow.rate, flow.publishers, warm_up, duration),
        began: Instant::now() + HEAD_START,
        run: ground.run,
        room,
        extent,
        tally: Tally::new(),
    });
    let listening = Listening::begin(subscribers, &shared);
    let (publishing, senders) = Publishing::begin(publishers, &shared);
    let stop = Arc::clone(&ground.stop);
    let pace = Pace::begin(shared.schedule, shared.began, senders, stop);
    shared.wait(ground, progress).await;
    let late = pace.end().await;
    listening.end(ground, &shared).await;
    publishing.end(ground).await;
    ground.go_on()?;
    let tally = &shared.tally;
    let mut times = vec![("delivered", tally.delivered.sum())];
    if extent.qos != Qos::AtMostOnce {
        times.push(("acknowledged", tally.acknowledged.sum()));
    }
    times.push(("generator", late));
    let took = tally.last().saturating_sub(warm_up).max(duration);
    Ok(Outcome {
        times,
        counts: shared.counts(),
        per_second: read(&tally.measured) as f64 / took.as_secs_f64().max(1e-9),
        of: "deliveries",
        causes: tally.causes(),
    })
}

async fn subscribe_all(
    subscribers: &[Connected],
    flow: &Flow,
    room: &str,
    qos: Qos,
) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for (number, (client, _)) in (0..).zip(subscribers) {
        let (client, filters) = (client.clone(), flow.filters(number, room));
        tasks.spawn(async move { Ground::subscribe(&client, &filters, qos).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Failure::new(format!("Error: {error}.")))??;
    }
    Ok(())
}

impl Shared {
    /// Until everything that was due is sent, answered and delivered, or nobody waits for the rest any longer.
    async fn wait(&self, ground: &Ground, progress: &mut Progress) {
        let length = self.extent.warm_up + self.extent.duration;
        while !ground.is_stopped() && self.began.elapsed() < length + ground.patience {
            sleep(TICK).await;
            let tally = &self.tally;
            let (sent, come) = (read(&tally.sent), read(&tally.come));
            let is_answered = read(&tally.answered) + read(&tally.refused) >= sent;
            let is_sent = sent + read(&tally.unsent) >= self.schedule.count();
            if is_sent && is_answered && come >= read(&tally.owed) {
                return;
            }
            let (seconds, all) = (self.began.elapsed().as_secs(), length.as_secs_f64());
            let (sent, come) = (grouped(sent), grouped(come));
            progress.tell(&format!(
                "{seconds} of {all} s, sent {sent}, delivered {come}"
            ));
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let tally = &self.tally;
        let sent = read(&tally.sent);
        let closed = read(&tally.answered) + read(&tally.refused);
        let (owed, come) = (read(&tally.owed), read(&tally.come));
        vec![
            ("due", self.schedule.count()),
            ("sent", sent),
            ("unsent", self.schedule.count().saturating_sub(sent)),
            ("answered", read(&tally.answered)),
            ("unanswered", sent.saturating_sub(closed)),
            ("refused", read(&tally.refused)),
            ("expected", owed),
            ("received", come),
            ("lost", owed.saturating_sub(come)),
            ("repeated", read(&tally.repeated)),
            ("out_of_order", read(&tally.overtaken)),
            ("foreign", read(&tally.strange)),
            ("disconnected", read(&tally.ended)),
        ]
    }

    fn on_message(&self, number: u32, receiver: &mut Receiver, message: &ReceivedMessage) {
        let now = Instant::now();
        let mark = Mark::of(&message.payload).filter(|mark| mark.run == self.run);
        let mark = mark.filter(|mark| self.flow.hears(number, mark.sender));
        let due = mark.and_then(|mark| {
            let due = self.schedule.due_of(mark.sender, mark.sequence)?;
            Some((mark, due))
        });
        let Some((mark, due)) = due else {
            count(&self.tally.strange);
            return;
        };
        match receiver.hear(mark.sender, mark.sequence) {
            Arrival::Repeated => count(&self.tally.repeated),
            Arrival::First { is_overtaken } => {
                if is_overtaken {
                    count(&self.tally.overtaken);
                }
                if self.schedule.is_measured(due) {
                    count(&self.tally.measured);
                    let took = now.saturating_duration_since(self.began + due);
                    self.tally.delivered.add(number, took);
                }
                self.tally
                    .on_last(now.saturating_duration_since(self.began));
                count(&self.tally.come);
            }
        }
    }

    /// What was sent, and the answer to it.
    fn on_answer(
        &self,
        publisher: u32,
        sequence: u64,
        answer: Result<client::Published, RequestError>,
    ) {
        let refusal = match answer {
            Ok(published) if published.reason.is_error() => published.reason.text().to_owned(),
            Ok(_) => {
                let due = self
                    .schedule
                    .due_of(publisher, sequence)
                    .unwrap_or_default();
                if self.schedule.is_measured(due) {
                    let took = (self.began + due).elapsed();
                    self.tally.acknowledged.add(publisher, took);
                }
                return count(&self.tally.answered);
            }
            // Whether it has arrived nobody knows.
            Err(RequestError::ConnectionLost) => return,
            Err(error) => error.to_string(),
        };
        self.tally.blame(format!("a message: {refusal}"));
        let audience = self.flow.audience(publisher);
        self.tally.owed.fetch_sub(audience, Ordering::Relaxed);
        count(&self.tally.refused);
    }

    fn on_end(&self, who: &str, cause: &DisconnectCause) {
        if !matches!(cause, DisconnectCause::Requested) {
            count(&self.tally.ended);
            self.tally.blame(format!("a {who}: {cause}"));
        }
    }
}

/// Subscribers that listen.
struct Listening {
    clients: Vec<Connection>,
    tasks: JoinSet<()>,
}

impl Listening {
    fn begin(subscribers: Vec<Connected>, shared: &Arc<Shared>) -> Self {
        let group = Shelf::default();
        let mut listening = Self {
            clients: Vec::new(),
            tasks: JoinSet::new(),
        };
        for (number, (client, events)) in (0..).zip(subscribers) {
            let shelf = match shared.flow.listen {
                Listen::Shared => Arc::clone(&group),
                Listen::One | Listen::Each | Listen::All => Shelf::default(),
            };
            let receiver = Receiver::new(shelf);
            let listen = listen(number, events, receiver, Arc::clone(shared));
            listening.tasks.spawn(listen);
            listening.clients.push(client);
        }
        listening
    }

    /// Takes what is still to come, and leaves.
    async fn end(mut self, ground: &Ground, shared: &Shared) {
        // What was sent to a subscriber before the answer to UNSUBSCRIBE has come before it: repeats as well.
        let work = (0..).zip(&self.clients).map(|(number, client)| {
            let filters = shared.flow.filters(number, &shared.room);
            let client = client.clone();
            async move {
                let unsubscribe = client.unsubscribe(filters, Vec::new());
                // Whoever does not answer is left.
                timeout(BARRIER_MAX, unsubscribe).await.ok();
            }
        });
        each(work).await;
        ground.leave_all(self.clients).await;
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        timeout(BARRIER_MAX, ended).await.ok();
        self.tasks.shutdown().await;
    }
}

async fn listen(number: u32, mut events: Events, mut receiver: Receiver, shared: Arc<Shared>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Message(message) => shared.on_message(number, &mut receiver, &message),
            Event::Disconnected(end) => shared.on_end("subscriber", &end.cause),
        }
    }
}

/// Publishers that publish.
struct Publishing {
    clients: Vec<Connection>,
    tasks: JoinSet<()>,
}

impl Publishing {
    /// They, and where each is told what is due.
    fn begin(
        publishers: Vec<Connected>,
        shared: &Arc<Shared>,
    ) -> (Self, Vec<UnboundedSender<u64>>) {
        let mut publishing = Self {
            clients: Vec::new(),
            tasks: JoinSet::new(),
        };
        let mut senders = Vec::new();
        for (number, (client, mut events)) in (0..).zip(publishers) {
            let (sender, due) = mpsc::unbounded_channel();
            let (sent, receipts) = mpsc::unbounded_channel();
            let publish = publish(number, due, client.clone(), sent, Arc::clone(shared));
            publishing.tasks.spawn(publish);
            publishing
                .tasks
                .spawn(answers(number, receipts, Arc::clone(shared)));
            let shared = Arc::clone(shared);
            publishing.tasks.spawn(async move {
                while let Some(event) = events.recv().await {
                    match event {
                        Event::Message(_) => count(&shared.tally.strange),
                        Event::Disconnected(end) => shared.on_end("publisher", &end.cause),
                    }
                }
            });
            publishing.clients.push(client);
            senders.push(sender);
        }
        (publishing, senders)
    }

    async fn end(mut self, ground: &Ground) {
        ground.leave_all(self.clients).await;
        self.tasks.shutdown().await;
    }
}

/// Sends what is due, as fast as the connection takes it.
async fn publish(
    number: u32,
    mut due: UnboundedReceiver<u64>,
    client: Connection,
    sent: UnboundedSender<(u64, Receipt)>,
    shared: Arc<Shared>,
) {
    let topic = format!("{}/{}", shared.room, shared.flow.topic_of(number));
    let audience = shared.flow.audience(number);
    while let Some(sequence) = due.recv().await {
        let mark = Mark {
            run: shared.run,
            sender: number,
            sequence,
        };
        let payload = mark.payload(shared.extent.size);
        let publication = Publication::new(topic.as_str(), payload, shared.extent.qos);
        // It may come before the next line is reached.
        shared.tally.owed.fetch_add(audience, Ordering::Relaxed);
        match client.start_publish(publication).await {
            Ok(receipt) => {
                count(&shared.tally.sent);
                // It is taken until this task ends.
                sent.send((sequence, receipt)).ok();
            }
            Err(_) => {
                shared.tally.owed.fetch_sub(audience, Ordering::Relaxed);
                count(&shared.tally.unsent);
            }
        }
    }
}

/// Takes answers as they come: nothing has a server give them in the order of the messages.
async fn answers(
    number: u32,
    mut receipts: UnboundedReceiver<(u64, Receipt)>,
    shared: Arc<Shared>,
) {
    let mut open = FuturesUnordered::new();
    let mut is_over = false;
    while !is_over || !open.is_empty() {
        tokio::select! {
            sent = receipts.recv(), if !is_over => match sent {
                Some((sequence, receipt)) => open.push(async move { (sequence, receipt.wait().await) }),
                None => is_over = true,
            },
            Some((sequence, answer)) = open.next() => shared.on_answer(number, sequence, answer),
        }
    }
}

/// Until the first message is due.
const HEAD_START: Duration = Duration::from_millis(50);
/// How often it is looked whether all is done.
const TICK: Duration = Duration::from_millis(10);
/// How long a subscriber has to take what is on its way to it at the end.
const BARRIER_MAX: Duration = Duration::from_secs(10);
