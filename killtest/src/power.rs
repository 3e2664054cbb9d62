//! Loss of power: a whole Server in this process, on a disk that forgets what was not synced.
//!
//! Owns: [`Powered`], the disk whose syncs take time. Does not own: what a loss of power leaves (see
//! `store::disk::fault`). Start reading at [`Powered`].
//! Invariant: when the power goes, the disk takes nothing more, so that nothing can become durable and be
//! acknowledged after what is left was decided.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use server::Server;
use server::config::{Config, StorageConfig};
use store::Level;
use store::disk::fault::{FaultDisk, FaultFile, FaultPlan};
use store::disk::{Disk, DiskFile};

use crate::random::Random;
use crate::stage::Subject;

/// A Server whose machine loses its power.
#[derive(Debug)]
pub(crate) struct Powered {
    config: Config,
    disk: SlowDisk,
    running: Option<Server>,
    /// Cuts in the middle of a call to the disk; the others came between two calls.
    pub(crate) in_call: u32,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Promise {
    /// It survives a loss of power.
    Synced,
    /// It survives the end of the process, so this test has to see losses.
    Written,
}

impl Promise {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Written => "written",
        }
    }
}

impl Powered {
    pub(crate) fn new(
        address: SocketAddr,
        shards: NonZeroU16,
        promise: Promise,
        seed: u64,
    ) -> Self {
        let level = match promise {
            Promise::Synced => Level::Synced,
            Promise::Written => Level::Written,
        };
        let config = Config {
            listeners: vec![address.into()],
            shards,
            storage: StorageConfig {
                level,
                // Small, so that a run sees many of them begin and end.
                segment_bytes: 256 * 1024,
                disk_low_bytes: Some(0),
                ..StorageConfig::default()
            },
            ..Config::default()
        };
        Self {
            config,
            disk: SlowDisk(FaultDisk::new(seed, FaultPlan::default())),
            running: None,
            in_call: 0,
        }
    }

    /// The power goes: the disk is what it is at this moment, and the Server ends.
    fn cut(&mut self, random: &mut Random) {
        self.disk.0.stop();
        let left = self.disk.0.crash(random.next());
        if let Some(server) = self.running.take() {
            server.stop();
            // Why it stopped is known.
            server.join().unwrap_or_default();
        }
        self.disk = SlowDisk(left);
    }

    /// Lets one of the next `among` calls to the disk be the last; whether it came in time.
    fn stop_in_call(&self, random: &mut Random, among: u64) {
        self.disk.0.set_plan(FaultPlan {
            stop_at_call: Some(1 + random.below(among)),
            ..FaultPlan::default()
        });
    }
}

impl Subject for Powered {
    fn start(&mut self) -> Result<(), String> {
        let server = Server::start_on(self.config.clone(), self.disk.clone());
        self.running = Some(server.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn end_in_start(&mut self, random: &mut Random) -> Result<bool, String> {
        self.stop_in_call(random, 60);
        match Server::start_on(self.config.clone(), self.disk.clone()) {
            Ok(server) => self.running = Some(server),
            Err(_) if self.disk.0.is_stopped() => {}
            Err(error) => return Err(error.to_string()),
        }
        self.cut(random);
        Ok(true)
    }

    fn end(&mut self, random: &mut Random) -> Result<(), String> {
        if random.below(2) == 0 {
            self.stop_in_call(random, 100);
            let until = Instant::now() + CALL_MAX;
            while !self.disk.0.is_stopped() && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
            self.in_call += u32::from(self.disk.0.is_stopped());
        }
        self.cut(random);
        Ok(())
    }
}

/// A disk whose syncs take some milliseconds, so that there is always something that is not durable yet.
#[derive(Clone, Debug)]
struct SlowDisk(FaultDisk);

/// An open file of a [`SlowDisk`].
#[derive(Debug)]
struct SlowFile(FaultFile);

impl Disk for SlowDisk {
    type File = SlowFile;

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.0.make_dir(dir)
    }

    fn create(&self, name: &str) -> io::Result<SlowFile> {
        self.0.create(name).map(SlowFile)
    }

    fn open(&self, name: &str) -> io::Result<SlowFile> {
        self.0.open(name).map(SlowFile)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        thread::sleep(SYNC);
        self.0.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// As a good disk of a small machine.
const SYNC: Duration = Duration::from_millis(3);
/// How long the call may take to come that is to be the last.
const CALL_MAX: Duration = Duration::from_millis(500);
