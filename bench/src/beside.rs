//! What a flow feels of what others do beside it: many who say nothing, all who come back at once, one who wants everything.
//!
//! Owns: [`Beside`], that the flow is measured while it goes on. Does not own: the flow (see `flow`), what stands (see
//! `standing`). Start reading at [`run`]. Invariant: the others have what is left of the generator's core, so that
//! a latency is the broker's.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;

use crate::door::Door;
use crate::flow::{Flow, Outcome, Plan};
use crate::process::Process;
use crate::standing::Bench;

/// What goes on beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// So many connections that say nothing.
    Idle(usize),
    /// So many Clients, who were all there, connect again at one moment.
    Returning(usize),
    /// A subscriber gets so many retained messages.
    Joining(usize),
}

/// What has become of both.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) flow: Outcome,
    /// How long the others took, if that has an end, and how many of them, or of what they wanted, were missing.
    pub(crate) others: Option<(Duration, u64)>,
}

/// Lets the flow go on while the others do what they do.
/// # Errors
/// As of the sockets.
pub(crate) fn run(door: &Door, broker: Process, beside: Beside, plan: Plan) -> io::Result<Found> {
    let mut bench = Bench::new(door)?;
    let act: Act = match beside {
        Beside::Idle(count) => {
            let peers = bench.idle(count)?;
            let flow = Flow::begin(door, plan)?.run(broker)?;
            drop(peers);
            return Ok(Found { flow, others: None });
        }
        Beside::Returning(count) => {
            drop(bench.idle(count)?);
            Box::new(move || {
                let let_in = bench.come_back(count)?;
                Ok(count.saturating_sub(let_in) as u64)
            })
        }
        Beside::Joining(count) => {
            let (sent, _) = bench.fill_retained(count)?;
            Box::new(move || Ok(sent.saturating_sub(bench.take_retained(sent)?)))
        }
    };
    let flow = Flow::begin(door, plan)?;
    let (mut act, mut others) = (Some(act), None::<Others>);
    let flow = flow.run_until(broker, |started| {
        if let Some(act) = act.take() {
            others = Some(thread::spawn(move || beside_others(act)));
        }
        let is_over = others.as_ref().is_none_or(JoinHandle::is_finished);
        is_over && started.elapsed() >= plan.measured
    })?;
    let others = others.map(JoinHandle::join).transpose();
    let others = others.map_err(|_| io::Error::other("what goes on beside has failed"))?;
    Ok(Found {
        flow,
        others: others.transpose()?,
    })
}

/// What the others do; returns what was missing.
type Act = Box<dyn FnOnce() -> io::Result<u64> + Send>;
type Others = JoinHandle<io::Result<(Duration, u64)>>;

fn beside_others(act: Act) -> io::Result<(Duration, u64)> {
    // Of this thread only.
    setpriority_process(None, LEAST)?;
    let began = Instant::now();
    let missing = act()?;
    Ok((began.elapsed(), missing))
}

/// Who has it runs when nobody else wants to.
const LEAST: i32 = 19;
