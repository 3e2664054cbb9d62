//! What an operator has to hear until he says that he has: damage, and what may be missing.
//!
//! Owns: [`Alarms`], the files in `alarms/`. Does not own: who is told how (see the server).
//! Start reading at [`Alarms::open`]. Invariant: an alarm is on disk before anybody hears of it, and stays
//! there when it is acknowledged, under another name.

use std::io;

use crate::UnixMillis;
use crate::disk::{Disk, DiskFile};

/// One thing an operator has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Its number, from 1.
    pub number: u64,
    /// When it was raised.
    pub raised_at: UnixMillis,
    /// What happened and what to do, in one line.
    pub text: String,
}

/// The alarms of a data folder.
#[derive(Debug)]
pub struct Alarms<D> {
    disk: D,
    /// Not acknowledged yet, oldest first.
    open: Vec<Alarm>,
    acknowledged: Vec<Alarm>,
    next: u64,
}

impl<D: Disk> Alarms<D> {
    /// The alarms in this data folder. A file that makes no sense is an alarm itself.
    /// # Errors
    /// What the disk says.
    pub fn open(disk: D) -> io::Result<Self> {
        disk.make_dir(DIR)?;
        disk.sync_dir("")?;
        let mut alarms = Self {
            disk,
            open: Vec::new(),
            acknowledged: Vec::new(),
            next: 1,
        };
        for name in alarms.disk.list(DIR)? {
            let Some((number, ending)) = name.split_once('.') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            let list = match ending {
                OPEN => &mut alarms.open,
                ACKNOWLEDGED => &mut alarms.acknowledged,
                _ => continue,
            };
            list.push(read(&alarms.disk, number, &name)?);
            alarms.next = alarms.next.max(number.saturating_add(1));
        }
        alarms.open.sort_by_key(|alarm| alarm.number);
        alarms.acknowledged.sort_by_key(|alarm| alarm.number);
        Ok(alarms)
    }

    /// Those that nobody has acknowledged, oldest first.
    #[must_use]
    pub fn list(&self) -> &[Alarm] {
        &self.open
    }

    /// Whether an alarm, acknowledged or not, says this.
    #[must_use]
    pub fn mention(&self, words: &str) -> bool {
        let mut all = self.open.iter().chain(&self.acknowledged);
        all.any(|alarm| alarm.text.contains(words))
    }

    /// Raises an alarm, unless one that says the same is open.
    /// # Errors
    /// What the disk says; the alarm is in [`Self::list`] nevertheless.
    pub fn raise(&mut self, text: &str, now: UnixMillis) -> io::Result<()> {
        let text = text.replace('\n', " ");
        if self.open.iter().any(|alarm| alarm.text == text) {
            return Ok(());
        }
        let number = self.next;
        self.next += 1;
        let bytes = format!("{}\n{text}\n", now.0);
        self.open.push(Alarm {
            number,
            raised_at: now,
            text,
        });
        // A name that counts appears only with everything in it.
        let draft = format!("{DIR}/{number}.draft");
        if self.disk.list(DIR)?.contains(&format!("{number}.draft")) {
            self.disk.remove(&draft)?;
        }
        let file = self.disk.create(&draft)?;
        file.write_at(bytes.as_bytes(), 0)?;
        file.sync()?;
        self.disk.rename(&draft, &path(number, OPEN))?;
        self.disk.sync_dir(DIR)
    }

    /// Acknowledges all alarms; returns them.
    /// # Errors
    /// What the disk says; those not returned are still there.
    pub fn acknowledge(&mut self) -> io::Result<Vec<Alarm>> {
        for alarm in &self.open {
            let number = alarm.number;
            match self
                .disk
                .rename(&path(number, OPEN), &path(number, ACKNOWLEDGED))
            {
                // It could not be written when it was raised.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        self.disk.sync_dir(DIR)?;
        let done = std::mem::take(&mut self.open);
        self.acknowledged.extend_from_slice(&done);
        Ok(done)
    }
}

fn path(number: u64, ending: &str) -> String {
    format!("{DIR}/{number}.{ending}")
}

fn read<D: Disk>(disk: &D, number: u64, name: &str) -> io::Result<Alarm> {
    let file = disk.open(&format!("{DIR}/{name}"))?;
    let mut bytes = vec![0; ALARM_BYTES_MAX];
    let mut len = 0;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    let text = String::from_utf8_lossy(&bytes);
    let (raised_at, text) = text.split_once('\n').unwrap_or_default();
    let text = text.trim_end();
    Ok(Alarm {
        number,
        raised_at: UnixMillis(raised_at.parse().unwrap_or(0)),
        text: if text.is_empty() {
            format!("an alarm that cannot be read any more: {DIR}/{name}")
        } else {
            text.to_owned()
        },
    })
}

/// Where they are, in the data folder.
pub(crate) const DIR: &str = "alarms";
const OPEN: &str = "alarm";
const ACKNOWLEDGED: &str = "acknowledged";
/// More of a file is not read.
const ALARM_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::{FaultDisk, FaultPlan};

    fn texts(alarms: &[Alarm]) -> Vec<&str> {
        alarms.iter().map(|alarm| alarm.text.as_str()).collect()
    }

    #[test]
    fn alarm_stays_until_it_is_acknowledged_whatever_crashes() {
        for seed in 0..50 {
            let disk = FaultDisk::new(seed, FaultPlan::default());
            let mut alarms = Alarms::open(disk.clone()).expect("a disk");
            alarms.raise("first\nline", UnixMillis(7)).expect("is kept");
            alarms.raise("second", UnixMillis(8)).expect("is kept");
            alarms
                .raise("second", UnixMillis(9))
                .expect("is open already");
            let disk = disk.crash(seed);
            let mut alarms = Alarms::open(disk.clone()).expect("a disk");
            assert_eq!(texts(alarms.list()), ["first line", "second"], "{seed}");
            assert_eq!(alarms.list()[0].raised_at, UnixMillis(7));
            let done = alarms.acknowledge().expect("is kept");
            assert_eq!(texts(&done), ["first line", "second"]);
            let mut alarms = Alarms::open(disk.crash(seed)).expect("a disk");
            assert_eq!(texts(alarms.list()), [""; 0], "{seed}");
            assert!(alarms.mention("first") && !alarms.mention("third"));
            alarms.raise("second", UnixMillis(10)).expect("is kept");
            assert_eq!(alarms.list()[0].number, 3);
        }
    }

    #[test]
    fn alarm_whose_writing_was_cut_short_is_no_alarm_and_in_nobodys_way() {
        for stop_at in 1..40 {
            let disk = FaultDisk::new(1, FaultPlan::default());
            let mut alarms = Alarms::open(disk.clone()).expect("a disk");
            disk.set_plan(FaultPlan {
                stop_at_call: Some(disk.calls().all + stop_at),
                ..FaultPlan::default()
            });
            let is_kept = alarms.raise("damage", UnixMillis(1)).is_ok();
            let mut alarms = Alarms::open(disk.crash(stop_at)).expect("a disk");
            let found = alarms.list().len();
            assert!(found == 1 || !is_kept && found == 0, "stop at {stop_at}");
            alarms.raise("damage", UnixMillis(2)).expect("is kept");
            assert_eq!(texts(alarms.list()), ["damage"]);
        }
    }

    #[test]
    fn alarm_that_cannot_be_read_is_one_itself() {
        let disk = FaultDisk::new(1, FaultPlan::default());
        drop(Alarms::open(disk.clone()).expect("a disk"));
        disk.plant("alarms/4.alarm", b"\xFF\x00");
        disk.plant("alarms/notes.txt", b"mine");
        let alarms = Alarms::open(disk).expect("a disk");
        let text = &alarms.list()[0].text;
        assert!(text.contains("alarms/4.alarm"), "{text}");
        assert_eq!(alarms.list().len(), 1);
    }
}
