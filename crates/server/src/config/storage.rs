//! `[storage]`: where state is kept, and how safe it has to be before it is acknowledged.
//!
//! Owns: [`StorageConfig`], its defaults, which values fit. Does not own: the log (see `store`).
//! Start reading at [`StorageConfig`]. Invariant: every filter in it is a valid Topic Filter.

use std::path::PathBuf;

use store::Level;

use super::checked::{Fault, set, size_within, within};
use super::raw::{RawLevel, RawRecovery, RawSize, RawStorage};

/// Where state is kept, and how safely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// The data folder; made if it is not there. Default: `vencejo-data` in the working directory.
    pub data: PathBuf,
    /// How safe something is before it is acknowledged, unless `levels` says otherwise. Default: synced.
    pub level: Level,
    /// The level of messages whose Topic Name matches a Topic Filter; the first that matches counts.
    /// Default: none.
    pub levels: Vec<FilterLevel>,
    /// What happens at a start that finds damage. Default: the damaged part is set aside.
    pub recovery: Recovery,
    /// Size of a segment of the log, in bytes. Default: 64 MiB.
    pub segment_bytes: u32,
    /// Segments kept ready, so that none has to be made while Clients wait. Default: 2.
    pub spares: usize,
    /// Free bytes on the disk below which nothing is accepted that makes the log grow. Default: 64 MiB and
    /// two segments.
    pub disk_low_bytes: Option<u64>,
}

/// The level of some messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterLevel {
    /// Topic Filter.
    pub filter: String,
    /// Their level.
    pub level: Level,
}

/// What a start does where acknowledged state is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// Sets the damaged part aside, serves everything intact, and raises an alarm.
    #[default]
    SetAside,
    /// Refuses to start.
    Strict,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            data: DATA.into(),
            level: Level::Synced,
            levels: Vec::new(),
            recovery: Recovery::default(),
            segment_bytes: 64 * 1024 * 1024,
            spares: 2,
            disk_low_bytes: None,
        }
    }
}

impl StorageConfig {
    /// Everything in memory: no folder is used.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            level: Level::Memory,
            ..Self::default()
        }
    }

    /// Whether nothing is ever kept on disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.level == Level::Memory && self.levels.iter().all(|of| of.level == Level::Memory)
    }

    /// What the engine is told of it.
    pub(crate) fn engine_levels(&self) -> engine::Levels {
        let filters = self.levels.iter();
        engine::Levels {
            default: self.level,
            filters: filters.map(|of| (of.filter.clone(), of.level)).collect(),
        }
    }

    /// Says in the log what an acknowledgement means.
    pub(crate) fn log(&self) {
        tracing::info!(reason = meaning(self.level), "level of the server");
        for FilterLevel { filter, level } in &self.levels {
            tracing::info!(%filter, reason = meaning(*level), "level of a filter");
        }
    }

    /// Free bytes on the disk below which it is low.
    #[must_use]
    pub fn disk_low_bytes(&self) -> u64 {
        self.disk_low_bytes
            .unwrap_or_else(|| DISK_LOW_BYTES + 2 * u64::from(self.segment_bytes))
    }

    /// Judges what was written.
    pub(super) fn check(raw: RawStorage) -> Result<Self, Fault> {
        let mut storage = Self::default();
        if let Some(data) = raw.data {
            if data.get_ref().is_empty() {
                return Err(Fault {
                    span: Some(data.span()),
                    message: "data must name a folder, or be left out".to_owned(),
                });
            }
            storage.data = data.into_inner().into();
        }
        set(&mut storage.level, raw.level.map(level));
        for of in raw.levels {
            let (span, filter) = (of.filter.span(), of.filter.into_inner());
            proto::topic::check_filter(&filter).map_err(|malformed| Fault {
                span: Some(span),
                message: format!("filter: {malformed}"),
            })?;
            let level = level(of.level);
            storage.levels.push(FilterLevel { filter, level });
        }
        let recovery = raw.recovery.map(|recovery| match recovery {
            RawRecovery::SetAside => Recovery::SetAside,
            RawRecovery::Strict => Recovery::Strict,
        });
        set(&mut storage.recovery, recovery);
        if let Some(size) = &raw.segment_bytes {
            let bytes = size_within("segment_bytes", size, SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX)?;
            storage.segment_bytes = u32::try_from(bytes).unwrap_or(storage.segment_bytes);
        }
        if let Some(spares) = &raw.spares {
            storage.spares = within("spares", spares, 0..=SPARES_MAX)?;
        }
        storage.disk_low_bytes = raw.disk_low_bytes.map(|RawSize(bytes)| bytes as u64);
        Ok(storage)
    }
}

const fn level(raw: RawLevel) -> Level {
    match raw {
        RawLevel::Memory => Level::Memory,
        RawLevel::Written => Level::Written,
        RawLevel::Synced => Level::Synced,
    }
}

const fn meaning(level: Level) -> &'static str {
    match level {
        Level::Memory => "memory: acknowledged at once, gone when the server stops",
        Level::Written => "written: acknowledged when the system has it",
        Level::Synced => "synced: acknowledged when it is on the disk",
    }
}

/// The data folder where nothing else is said, in the working directory.
const DATA: &str = "vencejo-data";
/// Kept free for everything that is not the log, by default.
const DISK_LOW_BYTES: u64 = 64 * 1024 * 1024;
/// Smaller segments are mostly headers.
const SEGMENT_BYTES_MIN: usize = 1024 * 1024;
/// Places in a segment are numbers of 32 bits.
const SEGMENT_BYTES_MAX: usize = 1024 * 1024 * 1024;
const SPARES_MAX: usize = 64;
