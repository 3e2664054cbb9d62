//! Deterministic simulation: a whole Server, its disk, its network and its Clients from one seed.
//!
//! Owns: [`simulate`], [`Bug`], [`Figures`]. Does not own: engines and log, which are the real ones.
//! Start reading at [`simulate`], then `world`. Invariant: the same seed gives the same run.
//!
//! What is real: every shard's `engine::Engine`, the `store::Log` with its recovery, cleaning and hints. What
//! is played, in virtual time: the server's loop and its persist thread, on the pattern of the real ones; the disk
//! (see `store::disk::fault`); the network, packet by packet; Clients that keep their side of every handshake.

mod agenda;
mod bug;
mod chance;
mod checker;
mod disk;
mod figures;
mod scenario;
mod world;

pub use bug::Bug;
pub use figures::Figures;

use world::World;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first thing that was not as it should be.
    pub violation: Option<String>,
    /// How much of what happened.
    pub figures: Figures,
    /// Every step, if that was asked for.
    pub trace: Vec<String>,
}

/// Runs what `seed` decides, with a `bug` planted in the Server or none. Some milliseconds.
#[must_use]
pub fn simulate(seed: u64, bug: Option<Bug>, traces: bool) -> Outcome {
    let mut world = World::new(seed, bug, traces);
    let result = world.run();
    Outcome {
        violation: result.err().map(|violation| violation.0),
        figures: world.figures,
        trace: world.take_trace(),
    }
}
