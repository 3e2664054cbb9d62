//! How much of what happened, to see that all of it does.
//!
//! Owns: [`Figures`]. Does not own: what is judged (see `checker`). Start reading at [`Figures`].
//! Invariant: nothing depends on them.

use std::fmt;

macro_rules! figures {
    ($($name:ident: $says:literal,)*) => {
        /// Counts over one or many runs.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Figures {
            $(#[doc = $says] pub $name: u64,)*
        }

        impl Figures {
            /// Adds what another run has counted.
            pub const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }

        impl fmt::Display for Figures {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:>12}  {}", self.$name, $says)?;)*
                Ok(())
            }
        }
    };
}

figures! {
    runs: "runs",
    events: "events",
    virtual_seconds: "seconds of virtual time",
    messages: "messages published",
    deliveries: "messages delivered",
    acknowledged: "messages acknowledged at QoS 1 and 2",
    refused: "messages refused because the disk was low",
    wills: "Wills that had to be published",
    subscribes: "SUBSCRIBE packets",
    connects: "CONNECT packets",
    resumed: "Sessions resumed",
    take_overs: "take-overs",
    power_cuts: "power cuts",
    power_cuts_in_calls: "power cuts in the middle of a call",
    kills: "processes killed",
    crashes_in_recovery: "crashes during recovery",
    write_errors: "failed writes",
    sync_errors: "failed syncs",
    full_disks: "disks filled up",
    low_disks: "times the disk was low",
    slow_disks: "disks turned slow",
    restarts: "starts that found something",
    shard_counts_changed: "starts with another number of shards",
    torn_tails: "torn tails",
    segments_by_hint: "segments read by hint",
    segments_cleaned: "segments at the end of runs",
    loads: "loads from queues on disk",
    cuts: "connections cut",
    half_open: "of them noticed late by one side",
    stalls: "Clients that stopped reading",
    leaps: "times everything stood still",
    clock_jumps: "jumps of the calendar",
}
