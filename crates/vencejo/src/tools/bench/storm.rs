//! Clients that connect on a schedule, however the server keeps up, and stay.
//!
//! Owns: their tasks. Does not own: when one is due (see `schedule`). Start reading at [`run`]. Invariant: nobody waits for
//! another's CONNACK.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::{Connection, DisconnectCause, Event, Options};
use proto::packet::{Disconnect, ReasonCode};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Extent;
use super::figures::{Outcome, Tally, count, read};
use super::ground::Ground;
use super::pace::Pace;
use super::progress::Progress;
use super::scenarios::grouped;
use super::schedule::{Rate, Schedule};
use crate::tools::{Failure, failure_of};

struct Shared {
    schedule: Schedule,
    began: Instant,
    tally: Tally,
    /// Clients whose connection has been let in or not.
    tried: AtomicU64,
}

/// Lets `clients` connect once, and stay for as long as is measured elsewhere.
/// # Errors
/// Somebody wants it to end.
pub(super) async fn run(
    ground: &Ground,
    (clients, rate): (u32, Rate),
    extent: Extent,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    let shared = Arc::new(Shared {
        schedule: Schedule::one_each(rate, clients),
        began: Instant::now() + HEAD_START,
        tally: Tally::new(),
        tried: AtomicU64::new(0),
    });
    let (leave, leaving) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut senders = Vec::new();
    for number in 0..clients {
        let (sender, due) = mpsc::unbounded_channel();
        let options = ground.options("c", number);
        tasks.spawn(stay(
            number,
            due,
            options,
            leaving.clone(),
            Arc::clone(&shared),
        ));
        senders.push(sender);
    }
    let stop = Arc::clone(&ground.stop);
    let pace = Pace::begin(shared.schedule, shared.began, senders, stop);
    let tally = &shared.tally;
    while read(&shared.tried) < u64::from(clients) && !ground.is_stopped() {
        sleep(TICK).await;
        let (connected, all) = (grouped(read(&tally.answered)), grouped(u64::from(clients)));
        progress.tell(&format!("{connected} of {all} connected"));
    }
    let took = tally.last();
    let held = Instant::now();
    while held.elapsed() < extent.duration && !ground.is_stopped() {
        sleep(TICK).await;
        let connected = grouped(read(&tally.answered) - read(&tally.ended));
        progress.tell(&format!("{connected} stay connected"));
    }
    let late = pace.end().await;
    leave.send_replace(true);
    while tasks.join_next().await.is_some() {}
    ground.go_on()?;
    let connected = read(&tally.answered);
    Ok(Outcome {
        times: vec![("connected", tally.acknowledged.sum()), ("generator", late)],
        counts: vec![
            ("due", u64::from(clients)),
            ("answered", connected),
            ("refused", read(&tally.refused)),
            ("disconnected", read(&tally.ended)),
        ],
        per_second: connected as f64 / took.as_secs_f64().max(1e-9),
        of: "connections",
        causes: tally.causes(),
    })
}

/// One client: connects when it is due, and stays until all leave.
async fn stay(
    number: u32,
    mut due: mpsc::UnboundedReceiver<u64>,
    options: Options,
    mut leaving: watch::Receiver<bool>,
    shared: Arc<Shared>,
) {
    // Whoever wants it to end does not tell it.
    if due.recv().await.is_none() {
        return;
    }
    let connected = Connection::connect(options.clone()).await;
    let began = shared.began + shared.schedule.due_of(number, 0).unwrap_or_default();
    let (client, mut events) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            shared
                .tally
                .blame(failure_of(&error, &options, options.protocol_version()).text);
            count(&shared.tally.refused);
            shared.tried.fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    shared.tally.acknowledged.add(number, began.elapsed());
    shared
        .tally
        .on_last(Instant::now().saturating_duration_since(shared.began));
    count(&shared.tally.answered);
    shared.tried.fetch_add(1, Ordering::Relaxed);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Message(_)) => count(&shared.tally.strange),
                Some(Event::Disconnected(end)) => {
                    if !matches!(end.cause, DisconnectCause::Requested) {
                        count(&shared.tally.ended);
                        shared.tally.blame(format!("a client: {}", end.cause));
                    }
                    return;
                }
                None => return,
            },
            _ = leaving.wait_for(|is_leaving| *is_leaving) => break,
        }
    }
    // Whoever is gone has left already.
    client
        .disconnect(Disconnect::new(ReasonCode::Success))
        .await
        .ok();
}

/// Until the first is due.
const HEAD_START: Duration = Duration::from_millis(50);
/// How often it is looked whether all is done.
const TICK: Duration = Duration::from_millis(10);
