//! What a seed decides at its beginning: the Server, its Clients, how much fails.
//!
//! Owns: [`Scenario`], [`Role`]. Does not own: what it decides later, one thing after the other (see `world`).
//! Start reading at [`Scenario::draw`]. Invariant: every limit is so high that nothing acknowledged is dropped.

use std::sync::Arc;
use std::time::Duration;

use engine::{Config, Levels, Limits, Principal, ShardIndex};
use proto::Version;
use store::{Level, LogOptions};

use crate::agenda::Micros;
use crate::chance::Chance;

/// How long a Client's Session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// As long as its connection.
    Clean,
    /// For this many seconds after it.
    Brief(u32),
    /// For ever.
    Durable,
}

/// What a Client is for.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) life: Life,
    pub(crate) publishes: bool,
    /// Topic Filters it may subscribe to, none of which overlaps another, and the QoS of each.
    pub(crate) filters: Vec<(String, u8)>,
    /// Member of the group: it subscribes once, and stays.
    pub(crate) is_member: bool,
    /// It looks at retained messages again and again.
    pub(crate) is_watcher: bool,
    /// QoS of its retained messages.
    pub(crate) retained_qos: u8,
    pub(crate) has_will: bool,
    pub(crate) receive_maximum: u16,
}

/// How likely each kind of fault is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) every_micros: Micros,
    /// In the order of [`crate::world`]'s faults.
    pub(crate) weights: [u64; 9],
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) shards: u16,
    pub(crate) level: Level,
    pub(crate) limits: Arc<Limits>,
    /// Who all Clients are: nobody, or one user that may have just as much as they need together.
    pub(crate) principal: Arc<Principal>,
    pub(crate) log: LogOptions,
    pub(crate) roles: Vec<Role>,
    pub(crate) faults: Faults,
    /// How long Clients do things of their own.
    pub(crate) active_micros: Micros,
    pub(crate) act_micros: Micros,
    pub(crate) delay_micros: Micros,
    pub(crate) sync_micros: Micros,
    /// A Client does not send more than this without an answer.
    pub(crate) open_max: usize,
}

impl Scenario {
    pub(crate) fn draw(seed: u64, chance: &mut Chance) -> Self {
        let is_kill_only = chance.one_in(5);
        let roles = roles(chance);
        // What such a Client has not read yet is in memory alone, and would be dropped.
        let is_memory_needed = roles
            .iter()
            .any(|role| role.life == Life::Clean && !role.filters.is_empty());
        // Of one seed in seven; to draw it would make others of the seeds that once found something. One Session and one
        // filter more are those of the Client that comes at the end.
        let filters_of_all: usize = roles.iter().map(|role| role.filters.len()).sum();
        let has_user = seed % 7 == 2;
        Self {
            seed,
            shards: shard_count(chance),
            level: if is_kill_only {
                Level::Written
            } else {
                Level::Synced
            },
            limits: Arc::new(Limits {
                sessions_per_user_max: has_user.then_some(roles.len() + 1),
                subscriptions_per_user_max: has_user.then_some(filters_of_all + 1),
                ..limits(chance, is_memory_needed)
            }),
            principal: Arc::new(Principal {
                user: has_user.then(|| "ann".into()),
                ..Principal::default()
            }),
            log: log_options(chance),
            roles,
            faults: faults(chance, is_kill_only),
            active_micros: chance.between(100_000, 900_000),
            act_micros: chance.between(1_000, 20_000),
            delay_micros: chance.between(50, 3_000),
            sync_micros: chance.between(20, 3_000),
            open_max: chance.place(5) + 1,
        }
    }

    pub(crate) fn engine(&self, shard: u16, shard_count: u16) -> Config {
        let mut config = Config::new(ShardIndex(shard), shard_count, self.seed);
        config.limits = Arc::clone(&self.limits);
        config.levels = Levels {
            default: self.level,
            filters: Vec::new(),
        };
        config.sys_interval = Duration::ZERO;
        config.can_load = true;
        config
    }
}

pub(crate) fn shard_count(chance: &mut Chance) -> u16 {
    chance.pick(&[1, 1, 2, 2, 3])
}

fn limits(chance: &mut Chance, is_memory_needed: bool) -> Limits {
    let is_small = !is_memory_needed && chance.one_in(2);
    Limits {
        maximum_inflight_messages: chance.pick(&[1, 2, 5, 20]),
        receive_maximum: 10,
        queued_bytes_memory_max: if is_small { 20_000 } else { 1 << 20 },
        window_messages_max: chance.pick(&[1, 3, 16]),
        window_bytes_max: chance.pick(&[200, 100_000]),
        retained_replay_per_turn: chance.pick(&[1, 3, 100]),
        ..Limits::default()
    }
}

fn log_options(chance: &mut Chance) -> LogOptions {
    let segment_bytes = chance.pick(&[4_096, 8_192, 32_768]);
    LogOptions {
        spares: chance.pick(&[0, 1, 2]),
        disk_low_bytes: 3 * segment_bytes,
        hints_above_bytes: chance.pick(&[0, 20_000, 512 << 20]),
        ..LogOptions::with_segments_of(segment_bytes)
    }
}

/// All kinds of faults, or mostly one of them, or none.
fn faults(chance: &mut Chance, is_kill_only: bool) -> Faults {
    let mut weights = [4, 4, 4, 2, 2, 2, 2, 6, 1];
    if chance.one_in(3) {
        let at = chance.place(weights.len());
        if let Some(weight) = weights.get_mut(at) {
            *weight = 60;
        }
    }
    if is_kill_only {
        // What survives the end of the process is lost with the power.
        (weights[0], weights[2], weights[4]) = (0, 0, 0);
    }
    let every_micros = match chance.below(8) {
        0 => 0,
        1 => chance.between(5_000, 20_000),
        _ => chance.between(20_000, 200_000),
    };
    Faults {
        every_micros,
        weights,
    }
}

fn roles(chance: &mut Chance) -> Vec<Role> {
    let mut roles = Vec::new();
    let publishers = 1 + chance.place(3);
    for index in 0..publishers {
        let mut role = role(chance, &format!("publisher-{index}"));
        role.publishes = true;
        role.has_will = chance.one_in(2);
        if chance.one_in(6) {
            role.life = Life::Clean;
        }
        if chance.one_in(3) {
            role.filters = filters(chance);
        }
        roles.push(role);
    }
    for index in 0..1 + chance.place(3) {
        let mut role = role(chance, &format!("subscriber-{index}"));
        role.filters = filters(chance);
        match chance.below(8) {
            0 => (role.version, role.life) = (Version::V5, Life::Brief(1)),
            1 => role.life = Life::Clean,
            _ => {}
        }
        roles.push(role);
    }
    if chance.one_in(2) {
        for index in 0..2 {
            let mut role = role(chance, &format!("member-{index}"));
            role.filters = vec![("$share/group/s/m/#".to_owned(), 2)];
            role.is_member = true;
            roles.push(role);
        }
    }
    if chance.one_in(2) {
        let mut role = role(chance, "watcher");
        role.filters = vec![("r/#".to_owned(), 0)];
        role.life = Life::Clean;
        role.is_watcher = true;
        roles.push(role);
    }
    roles
}

fn role(chance: &mut Chance, name: &str) -> Role {
    Role {
        name: name.to_owned(),
        version: chance.pick(&[Version::V5, Version::V5, Version::V311]),
        life: Life::Durable,
        publishes: false,
        filters: Vec::new(),
        is_member: false,
        is_watcher: false,
        retained_qos: chance.pick(&[1, 2]),
        has_will: false,
        receive_maximum: chance.pick(&[1, 3, 20]),
    }
}

fn filters(chance: &mut Chance) -> Vec<(String, u8)> {
    let mut filters = match chance.below(3) {
        0 => vec!["t/#".to_owned()],
        1 => vec!["+/0".to_owned(), "t/1".to_owned(), "t/2".to_owned()],
        _ => (0..4).map(|number| format!("t/{number}")).collect(),
    };
    // `+/0` covers what publisher 0 retains and leaves.
    if !filters.contains(&"+/0".to_owned()) {
        filters.push("w/#".to_owned());
        if chance.one_in(2) {
            filters.push("r/#".to_owned());
        }
    }
    let with_qos = |filter| (filter, chance.pick(&[1, 2, 2]));
    filters.into_iter().map(with_qos).collect()
}
