//! Subscribers that come on a schedule to Retained Messages that are there.
//!
//! Owns: putting the messages there, taking them away, the tasks of the subscribers. Does not own: when one is due (see
//! `schedule`). Start reading at [`run`]. Invariant: nothing stays retained, however it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Connection, DisconnectCause, Event, Publication, Receipt, Subscription};
use proto::Qos;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};

use super::Extent;
use super::figures::{Outcome, Tally, Times, count, read};
use super::ground::{Connected, Ground};
use super::ledger::{Arrival, Mark, Receiver, Shelf};
use super::pace::Pace;
use super::progress::Progress;
use super::scenarios::grouped;
use super::schedule::{Rate, Schedule};
use crate::tools::Failure;

/// How much there is of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    pub(super) messages: u32,
    pub(super) clients: u32,
    pub(super) rate: Rate,
}

struct Shared {
    replay: Replay,
    schedule: Schedule,
    began: Instant,
    run: u32,
    filter: String,
    qos: Qos,
    patience: Duration,
    tally: Tally,
    /// From when a subscriber was due to its last message.
    replayed: Times,
    done: AtomicU64,
}

/// Runs `replay` once.
/// # Errors
/// A client is not let in, the messages are not taken, or somebody wants it to end.
pub(super) async fn run(
    ground: &Ground,
    replay: Replay,
    extent: Extent,
    round: u32,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    let room = ground.room(round);
    let mut publishers = ground.connect_all("p", 1).await?;
    let (publisher, events) = publishers
        .pop()
        .ok_or_else(|| Failure::new("Error: nobody publishes."))?;
    drop(events);
    progress.tell("putting retained messages there");
    let put = retain(&publisher, &room, replay.messages, extent.qos, |number| {
        let mark = Mark {
            run: ground.run,
            sender: 0,
            sequence: u64::from(number),
        };
        Bytes::from(mark.payload(extent.size))
    })
    .await;
    let outcome = match put {
        Ok(()) => come(ground, replay, extent, &room, progress).await,
        Err(failure) => Err(failure),
    };
    progress.tell("taking retained messages away");
    let taken = retain(&publisher, &room, replay.messages, extent.qos, |_| {
        Bytes::new()
    })
    .await;
    ground.leave_all(vec![publisher]).await;
    let outcome = match (outcome, taken) {
        (Ok(outcome), Ok(())) => outcome,
        (Err(failure), Ok(())) => return Err(failure),
        // Why it has ended says more than that there is nobody to take anything away.
        (Err(failure), Err(_)) | (Ok(_), Err(failure)) => {
            let text = format!(
                "{} Retained messages below {room} may be left.",
                failure.text
            );
            return Err(Failure { text, ..failure });
        }
    };
    ground.go_on()?;
    Ok(outcome)
}

/// Publishes all of them, so many at a time.
async fn retain(
    publisher: &Connection,
    room: &str,
    messages: u32,
    qos: Qos,
    payload: impl Fn(u32) -> Bytes,
) -> Result<(), Failure> {
    let mut open: VecDeque<Receipt> = VecDeque::new();
    for number in 0..messages {
        if open.len() >= IN_FLIGHT {
            settle(open.pop_front()).await?;
        }
        // At QoS 0 nobody would say when it is there.
        let qos = qos.max(Qos::AtLeastOnce);
        let publication = Publication::new(format!("{room}/{number}"), payload(number), qos);
        let receipt = publisher.start_publish(publication.retain(true)).await;
        open.push_back(receipt.map_err(|error| Failure::new(format!("Error: {error}.")))?);
    }
    for receipt in open {
        settle(Some(receipt)).await?;
    }
    Ok(())
}

async fn settle(receipt: Option<Receipt>) -> Result<(), Failure> {
    let Some(receipt) = receipt else {
        return Ok(());
    };
    match receipt.wait().await {
        Ok(published) if published.reason.is_error() => {
            let words = published.reason.text();
            Err(Failure::new(format!(
                "Error: the server refuses a retained message: {words}."
            )))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(format!("Error: {error}."))),
    }
}

/// The subscribers come.
async fn come(
    ground: &Ground,
    replay: Replay,
    extent: Extent,
    room: &str,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    progress.tell("connecting subscribers");
    let subscribers = ground.connect_all("s", replay.clients).await?;
    let shared = Arc::new(Shared {
        replay,
        schedule: Schedule::one_each(replay.rate, replay.clients),
        began: Instant::now() + HEAD_START,
        run: ground.run,
        filter: format!("{room}/#"),
        qos: extent.qos,
        patience: ground.patience,
        tally: Tally::new(),
        replayed: Times::new(),
        done: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    let (mut senders, mut clients) = (Vec::new(), Vec::new());
    for (number, subscriber) in (0..).zip(subscribers) {
        let (sender, due) = mpsc::unbounded_channel();
        clients.push(subscriber.0.clone());
        tasks.spawn(take(number, due, subscriber, Arc::clone(&shared)));
        senders.push(sender);
    }
    let stop = Arc::clone(&ground.stop);
    let pace = Pace::begin(shared.schedule, shared.began, senders, stop);
    while read(&shared.done) < u64::from(replay.clients) && !ground.is_stopped() {
        sleep(TICK).await;
        let (done, all) = (
            grouped(read(&shared.done)),
            grouped(u64::from(replay.clients)),
        );
        progress.tell(&format!("{done} of {all} subscribers have all"));
    }
    let late = pace.end().await;
    ground.leave_all(clients).await;
    tasks.shutdown().await;
    let tally = &shared.tally;
    let owed = u64::from(replay.clients) * u64::from(replay.messages);
    let come = read(&tally.come);
    Ok(Outcome {
        times: vec![
            ("replayed", shared.replayed.sum()),
            ("delivered", tally.delivered.sum()),
            ("generator", late),
        ],
        counts: vec![
            ("due", u64::from(replay.clients)),
            ("refused", read(&tally.refused)),
            ("expected", owed),
            ("received", come),
            ("lost", owed.saturating_sub(come)),
            ("repeated", read(&tally.repeated)),
            ("foreign", read(&tally.strange)),
            ("disconnected", read(&tally.ended)),
        ],
        per_second: come as f64 / tally.last().as_secs_f64().max(1e-9),
        of: "deliveries",
        causes: tally.causes(),
    })
}

/// One subscriber: subscribes when it is due, and takes what comes.
async fn take(
    number: u32,
    mut due: mpsc::UnboundedReceiver<u64>,
    (client, mut events): Connected,
    shared: Arc<Shared>,
) {
    if due.recv().await.is_none() {
        return;
    }
    let tally = &shared.tally;
    let began = shared.began + shared.schedule.due_of(number, 0).unwrap_or_default();
    // What comes has to be taken meanwhile: it may come before SUBACK.
    let (filter, qos, of) = (shared.filter.clone(), shared.qos, Arc::clone(&shared));
    let subscribing = tokio::spawn(async move {
        let subscription = Subscription::new(filter, qos);
        let suback = client.subscribe(vec![subscription], None, Vec::new()).await;
        let refusal = match suback {
            Ok(suback) => suback
                .reasons
                .first()
                .filter(|reason| reason.is_error())
                .map(|one| one.text().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(refusal) = refusal {
            count(&of.tally.refused);
            of.tally.blame(format!("a subscription: {refusal}"));
        }
    });
    let mut receiver = Receiver::new(Shelf::default());
    let mut left = shared.replay.messages;
    let mut deadline = tokio::time::Instant::now() + shared.patience;
    while left > 0 {
        match timeout_at(deadline, events.recv()).await {
            Ok(Some(Event::Message(message))) => {
                let mark = Mark::of(&message.payload).filter(|mark| mark.run == shared.run);
                let sequence = mark.map(|mark| mark.sequence);
                let sequence = sequence.filter(|one| *one < u64::from(shared.replay.messages));
                let Some(sequence) = sequence else {
                    count(&tally.strange);
                    continue;
                };
                if receiver.hear(0, sequence) == Arrival::Repeated {
                    count(&tally.repeated);
                    continue;
                }
                left -= 1;
                count(&tally.come);
                tally.delivered.add(number, began.elapsed());
                tally.on_last(shared.began.elapsed());
                deadline = tokio::time::Instant::now() + shared.patience;
            }
            Ok(Some(Event::Disconnected(end))) => {
                if !matches!(end.cause, DisconnectCause::Requested) {
                    count(&tally.ended);
                    tally.blame(format!("a subscriber: {}", end.cause));
                }
                break;
            }
            Ok(None) | Err(_) => break,
        }
    }
    if left == 0 {
        shared.replayed.add(number, began.elapsed());
    }
    // Its end is counted in `refused`.
    timeout(shared.patience, subscribing).await.ok();
    count(&shared.done);
}

/// Retained messages on their way at once.
const IN_FLIGHT: usize = 100;
/// Until the first is due.
const HEAD_START: Duration = Duration::from_millis(50);
/// How often it is looked whether all is done.
const TICK: Duration = Duration::from_millis(10);
