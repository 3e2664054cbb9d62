//! Alarms while a Server runs: kept on disk, in the log and in `$SYS`.
//!
//! Owns: [`Alarming`]. Does not own: their files (see `store::Alarms`), what is one (the log says so, too).
//! Start reading at [`Alarming::raise`]. Invariants: one thread touches the files; an alarm that cannot be
//! kept is heard of nevertheless.

use std::io;
use std::sync::Arc;

use store::disk::Disk;
use store::{Alarm, Alarms};

use super::figures::Figures;
use super::unix_millis;

/// The alarms of a running Server, for the persist thread.
#[derive(Debug)]
pub(super) struct Alarming<D> {
    disk: D,
    figures: Arc<Figures>,
}

impl<D: Disk> Alarming<D> {
    /// The alarms on `disk`; `found` are those that are open now.
    pub(super) fn new(disk: D, figures: Arc<Figures>, found: &[Alarm]) -> Self {
        figures.set_alarms(found);
        Self { disk, figures }
    }

    /// Raises an alarm, unless one that says the same is open.
    pub(super) fn raise(&self, text: &str) {
        if self.figures.alarms().iter().any(|alarm| alarm.text == text) {
            return;
        }
        let kept = Alarms::open(self.disk.clone()).and_then(|mut alarms| {
            alarms.raise(text, unix_millis())?;
            self.tell(alarms.list());
            Ok(())
        });
        if let Err(error) = kept {
            tracing::error!(%error, reason = text, "an alarm could not be kept on disk");
        }
    }

    /// Tells of alarms that the log has raised by itself.
    pub(super) fn refresh(&self) {
        match Alarms::open(self.disk.clone()) {
            Ok(alarms) => self.tell(alarms.list()),
            Err(error) => tracing::error!(%error, "the alarms cannot be read"),
        }
    }

    /// Acknowledges all; returns them.
    pub(super) fn acknowledge(&self) -> io::Result<Vec<Alarm>> {
        let mut alarms = Alarms::open(self.disk.clone())?;
        let done = alarms.acknowledge()?;
        self.figures.set_alarms(alarms.list());
        Ok(done)
    }

    fn tell(&self, open: &[Alarm]) {
        let known = self.figures.alarms();
        for alarm in open.iter().filter(|alarm| !known.contains(alarm)) {
            tracing::error!(
                error = alarm.text,
                "ALARM, shown until `vencejo store acknowledge`"
            );
        }
        self.figures.set_alarms(open);
    }
}
