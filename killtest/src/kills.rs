//! SIGKILL: the binary of a broker, killed while it serves and while it recovers.
//!
//! Owns: [`Killed`]. Does not own: the process (`broker`), the damage to its files (`spoil`).
//! Start reading at [`Killed`]. Invariant: only bytes that were never acknowledged are spoilt.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::broker::{Broker, Plan};
use crate::random::Random;
use crate::spoil::{self, Tail};
use crate::stage::Subject;

/// A broker that is killed; in every third case something is left behind the end of its log.
#[derive(Debug)]
pub(crate) struct Killed {
    plan: Plan,
    running: Option<Broker>,
    /// How often a tail was spoilt, by how.
    spoilt: BTreeMap<Tail, u32>,
}

impl Killed {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            running: None,
            spoilt: BTreeMap::new(),
        }
    }

    /// How many tails were spoilt, and how.
    pub(crate) fn spoilt(&self) -> String {
        let mix: Vec<String> = self
            .spoilt
            .iter()
            .map(|(tail, count)| format!("{count} {}", tail.name()))
            .collect();
        format!(
            "{} spoilt tails ({})",
            self.spoilt.values().sum::<u32>(),
            mix.join(", ")
        )
    }
}

impl Subject for Killed {
    fn start(&mut self) -> Result<(), String> {
        self.running.insert(Broker::start(&self.plan)?).wait()
    }

    fn end_in_start(&mut self, random: &mut Random) -> Result<bool, String> {
        let mut broker = Broker::start(&self.plan)?;
        thread::sleep(Duration::from_millis(random.below(40)));
        broker.kill();
        Ok(true)
    }

    fn end(&mut self, random: &mut Random) -> Result<(), String> {
        if let Some(mut broker) = self.running.take() {
            broker.kill();
        }
        if random.below(3) == 0
            && let Some(tail) = spoil::tail(&self.plan, random)?
        {
            *self.spoilt.entry(tail).or_default() += 1;
        }
        Ok(())
    }
}
