//! How much a [`crate::Client`] keeps, both ways, and what happens where that is not enough.
//!
//! Owns: every number that bounds its memory, and their defaults. Does not own: who counts (see `client` and `core`).
//! Start reading at [`Queue`]. Invariant: a policy has a name; nothing is lost silently above QoS 0.

use std::num::{NonZeroU16, NonZeroU32};

/// What is handed over to be published and not yet answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Messages. Default 1,024.
    pub messages_max: NonZeroU32,
    /// Bytes of topics, payloads and properties. Default 16 MiB.
    pub bytes_max: NonZeroU32,
    /// What happens with one more.
    pub when_full: WhenQueueFull,
}

/// What happens with a message for which the [`Queue`] has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenQueueFull {
    /// Whoever publishes waits for room.
    #[default]
    Wait,
    /// It is not taken: [`crate::Mistake::QueueFull`].
    Refuse,
    /// It is taken and dropped; whoever awaits its answer hears [`crate::Mistake::Dropped`].
    DropNewest,
}

/// What has come from the Server and waits for the application, in all streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbox {
    /// Messages. Default 4,096.
    pub messages_max: NonZeroU32,
    /// Bytes of their topics, payloads and properties. Default 16 MiB.
    pub bytes_max: NonZeroU32,
    /// What happens with one more.
    pub when_full: WhenInboxFull,
}

/// What happens with a message for which the [`Inbox`] has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenInboxFull {
    /// Nothing is read until the application has taken something; TCP makes the Server wait. An application that
    /// awaits an acknowledgement while it takes nothing can wait for itself then.
    #[default]
    Wait,
    /// Messages at QoS 0 are dropped, and counted, from half of it on. Those above are not: of them the Server sends no
    /// more than Receive Maximum.
    DropNewest,
}

/// What becomes of a QoS 2 message on its way when the Server has lost the Session: whether the Server has it nobody
/// knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uncertain {
    /// It is not sent again, and whoever published it hears [`crate::Refusal::SessionLost`].
    #[default]
    Report,
    /// It is sent again, and may arrive twice.
    SendAgain,
}

/// All of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) queue: Queue,
    pub(crate) inbox: Inbox,
    pub(crate) in_flight_max: NonZeroU16,
    pub(crate) topic_aliases_max: u16,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            messages_max: const { NonZeroU32::new(1024).expect("invariant: not 0") },
            bytes_max: const { NonZeroU32::new(16 * 1024 * 1024).expect("invariant: not 0") },
            when_full: WhenQueueFull::Wait,
        }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            messages_max: const { NonZeroU32::new(4096).expect("invariant: not 0") },
            bytes_max: const { NonZeroU32::new(16 * 1024 * 1024).expect("invariant: not 0") },
            when_full: WhenInboxFull::Wait,
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            inbox: Inbox::default(),
            in_flight_max: const { NonZeroU16::new(256).expect("invariant: not 0") },
            topic_aliases_max: 16,
        }
    }
}
