//! Rows of the table of limits: subscriptions and topics, retained messages, what is spoken at all.
//!
//! Owns: these rows. Does not own: the others, and what a row means (see `super`). Start reading at [`TOPIC_LIMITS`].
//! Invariant: that of the table.

use super::Default::{Bytes, Number, OrNone, Text};
use super::{Limit, row};

pub(super) const TOPIC_LIMITS: &[Limit] = &[
    row(
        "subscriptions_per_session_max",
        "Subscriptions",
        Number(|c| c.limits.subscriptions_per_session_max as u64),
        "1.2 KiB each with two levels of its own (`interop/idle --subscribe`)",
        ("0x97, 3.x: 0x80 in SUBACK", "-"),
    ),
    row(
        "subscriptions_max",
        "Subscriptions of all Sessions",
        Number(|c| c.limits.subscriptions_max as u64),
        "1.2 KiB each with two levels of its own (`interop/idle --subscribe`)",
        ("0x97, 3.x: 0x80 in SUBACK", "-"),
    ),
    row(
        "subscriptions_per_user_max",
        "Subscriptions of all Sessions of one user",
        OrNone(|c| c.limits.subscriptions_per_user_max.unwrap_or(0) as u64),
        "a count for each user",
        ("0x97, 3.x: 0x80 in SUBACK", "-"),
    ),
    row(
        "topic_levels_max",
        "levels of a name or filter",
        Number(|c| c.limits.topic_levels_max as u64),
        "a node of the index for each level of each filter, and one message may walk all of them",
        ("0x90, 0x8F in SUBACK; 3.x: closed, 0x80 in SUBACK", "-"),
    ),
    row(
        "topic_length_max",
        "bytes of a name or filter",
        Number(|c| c.limits.topic_length_max as u64),
        "itself for each retained message and Subscription",
        ("0x90, 0x8F in SUBACK; 3.x: closed, 0x80 in SUBACK", "-"),
    ),
];

pub(super) const RETAINED_LIMITS: &[Limit] = &[
    row(
        "retained_messages_max",
        "messages",
        Number(|c| c.limits.retained_messages_max as u64),
        "by bytes, below",
        ("0x97; QoS 0 and 3.x: dropped and counted", "-"),
    ),
    row(
        "retained_bytes_max",
        "bytes of these, in every shard the same messages",
        Bytes(|c| c.limits.retained_bytes_max as u64),
        "itself, and an entry in the index of each shard",
        ("0x97; QoS 0 and 3.x: dropped and counted", "-"),
    ),
    row(
        "retained_age_max",
        "time, counted anew from a restart",
        Text("none"),
        "-",
        ("goes", "-"),
    ),
    row(
        "retained_replay_per_turn",
        "messages of all replays in one turn of a shard",
        Number(|c| c.limits.retained_replay_per_turn as u64),
        "their packets",
        ("waits", "-"),
    ),
];

pub(super) const FEATURE_LIMITS: &[Limit] = &[
    row(
        "maximum_qos",
        "QoS",
        Text("2"),
        "-",
        ("0x9B; SUBSCRIBE: granted so much", "Maximum QoS"),
    ),
    row(
        "retain_available",
        "-",
        Text("true"),
        "-",
        ("0x9A", "Retain Available"),
    ),
    row(
        "wildcard_subscription_available",
        "-",
        Text("true"),
        "-",
        ("0xA2 in SUBACK", "Wildcard Subscription Available"),
    ),
    row(
        "subscription_identifiers_available",
        "-",
        Text("true"),
        "-",
        ("0xA1 in SUBACK", "Subscription Identifier Available"),
    ),
    row(
        "shared_subscription_available",
        "-",
        Text("true"),
        "-",
        ("0x9E in SUBACK", "Shared Subscription Available"),
    ),
];
