//! What the store says of itself, for `$SYS` and the control socket.
//!
//! Owns: [`Figures`], the names of their topics. Does not own: how they are published (see `engine`).
//! Start reading at [`Figures::topics`]. Invariant: nobody waits for a file to read them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use store::{Alarm, LogStatus};

/// What was measured last.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    current: Mutex<Current>,
}

#[derive(Clone, Debug, Default)]
struct Current {
    log: LogStatus,
    durable_rate: u64,
    lag_max: Duration,
    groups: u64,
    batches: u64,
    alarms: Vec<Alarm>,
}

/// What the persist thread counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    /// Batches made durable.
    pub(super) batches: u64,
    /// Groups made durable, with one sync each.
    pub(super) groups: u64,
    /// The longest time from the first batch of a group to its sync, since the last look.
    pub(super) lag_max: Duration,
}

/// What the store does now.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes of what is still needed.
    pub live_bytes: u64,
    /// Segments in use.
    pub segments: u64,
    /// Segments kept ready.
    pub spares: u64,
    /// Free bytes on the disk.
    pub free_bytes: u64,
    /// Whether that is too little to accept what makes the log grow.
    pub is_low: bool,
    /// Batches made durable a second, lately.
    pub durable_rate: u64,
    /// The longest time, lately, from the first batch of a group to its sync, in microseconds.
    pub durable_lag_micros: u64,
    /// Groups made durable, with one sync each.
    pub groups: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Alarms that nobody has acknowledged.
    pub alarms: u64,
}

impl Figures {
    pub(super) fn update(&self, log: &LogStatus, measured: &Measured, elapsed: Option<Duration>) {
        let mut current = self.lock();
        let batches = measured.batches - current.batches;
        current.log = log.clone();
        current.durable_rate = rate(batches, elapsed);
        current.lag_max = measured.lag_max;
        current.groups = measured.groups;
        current.batches = measured.batches;
    }

    /// Takes over the alarms that are open now.
    pub(super) fn set_alarms(&self, alarms: &[Alarm]) {
        self.lock().alarms = alarms.to_vec();
    }

    /// The alarms that are open.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        self.lock().alarms.clone()
    }

    pub(super) fn status(&self) -> Status {
        let current = self.lock().clone();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Status {
            bytes: current.log.bytes,
            live_bytes: current.log.live_bytes,
            segments: count(current.log.segments),
            spares: count(current.log.spares),
            free_bytes: current.log.free_bytes,
            is_low: current.log.is_low,
            durable_rate: current.durable_rate,
            durable_lag_micros: u64::try_from(current.lag_max.as_micros()).unwrap_or(u64::MAX),
            groups: current.groups,
            batches: current.batches,
            alarms: count(current.alarms.len()),
        }
    }

    /// Topics below `$SYS/broker/` and what they say.
    pub(crate) fn topics(&self) -> Vec<(&'static str, String)> {
        let status = self.status();
        let alarms = self.alarms();
        let low = status.is_low.then_some(DISK_LOW);
        let alarms = low
            .into_iter()
            .chain(alarms.iter().map(|alarm| alarm.text.as_str()));
        let alarms: Vec<&str> = alarms.collect();
        let alarms = match &alarms[..] {
            // An empty value would take the topic away.
            [] => "none".to_owned(),
            alarms => alarms.join("\n"),
        };
        vec![
            ("store/bytes", status.bytes.to_string()),
            ("store/live/bytes", status.live_bytes.to_string()),
            ("store/segments", status.segments.to_string()),
            ("store/spares", status.spares.to_string()),
            ("store/disk/free", status.free_bytes.to_string()),
            ("store/disk/low", u8::from(status.is_low).to_string()),
            ("store/durable/rate", status.durable_rate.to_string()),
            ("store/durable/lag", status.durable_lag_micros.to_string()),
            ("store/groups", status.groups.to_string()),
            ("store/batches", status.batches.to_string()),
            ("store/alarms", status.alarms.to_string()),
            ("alarms", alarms),
        ]
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The alarm while the disk is low; it ends by itself.
const DISK_LOW: &str = "the disk runs low: messages to be kept are refused until there is room";

/// A count as one for each second.
fn rate(count: u64, elapsed: Option<Duration>) -> u64 {
    let millis = elapsed.map_or(0, |elapsed| elapsed.as_millis()).max(1);
    let rate = u128::from(count) * 1000 / millis;
    u64::try_from(rate).unwrap_or(u64::MAX)
}
