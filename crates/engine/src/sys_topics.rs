//! `$SYS/broker/...`: what the Server says about itself, under the names that monitoring knows.
//!
//! Owns: the topics, their values, load averages, adding up the shards.
//! Does not own: the counts (see `counters`). Start reading at [`Engine::on_sys_timer`].
//! Invariant: shard 0 publishes, once the others have told it what they count now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::{Message, Qos};

use crate::commits::Publisher;
use crate::counters::Counters;
use crate::keys::ShardSet;
use crate::routing::ShardItem;
use crate::timers::Due;
use crate::{Config, Engine, ShardIndex};

/// What shard 0 knows of the others, and what it published last.
#[derive(Debug)]
pub(crate) struct Sys {
    interval: Duration,
    others: Vec<Counters>,
    /// Shards that have been asked and have not answered.
    awaited: ShardSet,
    loads: Vec<Load>,
    /// What the server says beside that.
    told: Vec<(&'static str, String)>,
    published_at: Option<Instant>,
}

/// An exponentially damped average per minute, over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    last: u64,
    averages: [f64; 3],
}

impl Sys {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            interval: config.sys_interval,
            others: vec![Counters::default(); usize::from(config.shard_count)],
            awaited: ShardSet::EMPTY,
            loads: vec![Load::default(); LOADS.len()],
            told: Vec::new(),
            published_at: None,
        }
    }

    pub(crate) const fn interval(&self) -> Option<Duration> {
        if self.interval.is_zero() {
            None
        } else {
            Some(self.interval)
        }
    }
}

impl Load {
    fn update(&mut self, total: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let count = f64::from(u32::try_from(total.saturating_sub(self.last)).unwrap_or(u32::MAX));
        let per_minute = count * 60.0 / seconds;
        self.last = total;
        for (average, minutes) in self.averages.iter_mut().zip([1.0, 5.0, 15.0]) {
            let keep = (-seconds / (60.0 * minutes)).exp();
            *average = per_minute.mul_add(1.0 - keep, *average * keep);
        }
    }
}

impl Engine {
    /// What the server has to say beside what is counted here: topics below `$SYS/broker/`, and their values,
    /// until they are told anew. Of shard 0 only.
    pub fn tell_sys(&mut self, topics: Vec<(&'static str, String)>) {
        self.end_run();
        self.sys.told = topics;
    }

    pub(crate) fn on_sys_timer(&mut self, now: Instant) {
        let Some(interval) = self.sys.interval() else {
            return;
        };
        if let Some(at) = now.checked_add(interval) {
            self.timers.set(Due::Sys, at);
        }
        // A shard that has not answered for so long does not keep the others' counts from being told.
        let is_late = !self.sys.awaited.is_empty();
        self.sys.awaited = self.routing.others();
        for shard in self.sys.awaited.iter() {
            self.routing.send(shard, ShardItem::CountersWanted);
        }
        if is_late || self.sys.awaited.is_empty() {
            self.publish_total(now);
        }
    }

    /// Shard 0 asks what this one has counted.
    pub(crate) fn on_counters_wanted(&mut self, from: ShardIndex) {
        let counters = Box::new(self.counters.clone());
        self.routing.send(from, ShardItem::Counters(counters));
    }

    /// Another shard says what it has counted.
    pub(crate) fn on_counters(&mut self, from: ShardIndex, counters: Counters, now: Instant) {
        if let Some(slot) = self.sys.others.get_mut(usize::from(from.0)) {
            *slot = counters;
        }
        if self.sys.awaited.remove(from) && self.sys.awaited.is_empty() {
            self.publish_total(now);
        }
    }

    fn publish_total(&mut self, now: Instant) {
        let mut total = self.counters.clone();
        for other in &self.sys.others {
            total.add(other);
        }
        self.publish_sys(&total, now);
    }

    fn publish_sys(&mut self, total: &Counters, now: Instant) {
        let uptime = now.saturating_duration_since(self.started_at).as_secs();
        self.publish_sys_topic("version", self.config.version_text.clone(), now);
        self.publish_sys_topic("uptime", format!("{uptime} seconds"), now);
        for (topic, value) in gauges(total) {
            self.publish_sys_topic(topic, value.to_string(), now);
        }
        for (topic, value) in self.sys.told.clone() {
            self.publish_sys_topic(topic, value, now);
        }
        let elapsed =
            now.saturating_duration_since(self.sys.published_at.unwrap_or(self.started_at));
        self.sys.published_at = Some(now);
        let mut averages = Vec::with_capacity(LOADS.len());
        for ((name, count), load) in LOADS.iter().zip(&mut self.sys.loads) {
            load.update(count(total), elapsed);
            averages.push((*name, load.averages));
        }
        for (name, averages) in averages {
            for (average, minutes) in averages.iter().zip(["1min", "5min", "15min"]) {
                self.publish_sys_topic(
                    &format!("load/{name}/{minutes}"),
                    format!("{average:.2}"),
                    now,
                );
            }
        }
    }

    fn publish_sys_topic(&mut self, name: &str, value: String, now: Instant) {
        let topic = format!("$SYS/broker/{name}");
        let message = Message::new(&topic, value.into(), Qos::AtMostOnce, true, now);
        self.route(&Arc::new(message), None, Publisher::None, now);
    }
}

const fn gauges(total: &Counters) -> [(&'static str, u64); 36] {
    let disconnected = total.sessions.saturating_sub(total.clients_connected);
    [
        ("clients/total", total.sessions),
        ("clients/maximum", total.clients_maximum),
        ("clients/connected", total.clients_connected),
        ("clients/disconnected", disconnected),
        ("clients/active", total.clients_connected),
        ("clients/inactive", disconnected),
        ("clients/expired", total.sessions_expired),
        ("messages/received", total.packets_received),
        ("messages/sent", total.packets_sent),
        (
            "messages/stored",
            total.retained_messages + total.queued_messages,
        ),
        ("publish/messages/received", total.publishes_received),
        ("publish/messages/sent", total.publishes_sent),
        ("publish/messages/dropped", total.publishes_dropped),
        ("publish/messages/denied", total.dropped_not_authorized),
        ("publish/messages/refused", total.refused_queue_full),
        ("publish/messages/lost/queue full", total.dropped_queue_full),
        ("publish/messages/lost/congested", total.dropped_congested),
        ("publish/messages/lost/too large", total.dropped_too_large),
        ("store/refused", total.dropped_storage_low),
        ("limits/sessions/refused", total.refused_sessions),
        ("limits/subscriptions/refused", total.refused_subscriptions),
        ("limits/topics/refused", total.refused_topics),
        ("publish/bytes/received", total.publish_bytes_received),
        ("publish/bytes/sent", total.publish_bytes_sent),
        ("bytes/received", total.bytes_received),
        ("bytes/sent", total.bytes_sent),
        (
            "store/messages/count",
            total.retained_messages + total.queued_messages,
        ),
        (
            "store/messages/bytes",
            total.retained_bytes + total.queued_bytes,
        ),
        ("retained messages/count", total.retained_messages),
        ("subscriptions/count", total.subscriptions),
        ("shared_subscriptions/count", total.shared_subscriptions),
        ("packet/out/count", total.queued_messages),
        ("packet/out/bytes", total.queued_bytes),
        ("heap/current", total.memory_bytes),
        ("heap/maximum", total.memory_bytes_maximum),
        ("connections/socket/count", total.sockets_open),
    ]
}

type Count = fn(&Counters) -> u64;

const LOADS: [(&str, Count); 9] = [
    ("messages/received", |total| total.packets_received),
    ("messages/sent", |total| total.packets_sent),
    ("publish/received", |total| total.publishes_received),
    ("publish/sent", |total| total.publishes_sent),
    ("publish/dropped", |total| total.publishes_dropped),
    ("bytes/received", |total| total.bytes_received),
    ("bytes/sent", |total| total.bytes_sent),
    ("connections", |total| total.connections),
    ("sockets", |total| total.sockets),
];
