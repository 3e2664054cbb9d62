//! All that a [`super::FaultDisk`] knows, and what each call does to it.
//!
//! Owns: [`State`]: files, their durable images, calls, errors by plan. Does not own: names, chance.
//! Start reading at [`State`]. Invariant: a file's durable image with its changes applied in order is what
//! it reads as, unless a sync of it has failed.

use std::collections::BTreeMap;
use std::io;

use super::chance::Chance;
use super::crash::{Change, ChangeKind, Loss};
use super::image::Image;
use super::names::{Names, Step};
use super::sick::Sick;
use super::{Calls, FaultPlan};

#[derive(Debug)]
pub(super) struct State {
    chance: Chance,
    plan: FaultPlan,
    pub(super) calls: Calls,
    pub(super) is_stopped: bool,
    pub(super) names: Names,
    files: BTreeMap<u64, File>,
    next_file: u64,
    /// Numbers changes, across plans and processes.
    changes: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// How many have it open.
    handles: usize,
    live: Image,
    durable: Image,
    pending: Vec<Change>,
    sick: Sick,
}

/// What becomes of a call.
enum Fate {
    /// It is done.
    Done,
    /// Perhaps a part of it is done, then it fails.
    Fails(io::Error),
}

/// The kinds of calls that a plan tells apart.
#[derive(Clone, Copy)]
enum Kind {
    Write,
    Sync,
    Read,
    Name,
}

impl State {
    pub(super) fn new(seed: u64, plan: FaultPlan) -> Self {
        Self {
            chance: Chance::new(seed),
            plan,
            calls: Calls::default(),
            is_stopped: false,
            names: Names::default(),
            files: BTreeMap::new(),
            next_file: 0,
            changes: 0,
        }
    }

    pub(super) fn set_plan(&mut self, plan: FaultPlan) {
        self.plan = plan;
        self.calls = Calls::default();
    }

    pub(super) fn has_plan(&self) -> bool {
        self.plan != FaultPlan::default()
    }

    pub(super) fn crash(&self, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let changes = self.files.values().flat_map(|file| &file.pending);
        let calls = changes.map(|change| change.call);
        let loss = Loss::chosen(calls.chain(self.names.pending_calls()), &mut chance);
        let names = self.names.clone().after(loss, &mut chance);
        let mut files = self.files.clone();
        files.retain(|file, _| names.has(*file));
        for file in files.values_mut() {
            file.settle(loss, &mut chance);
            file.live = file.durable.clone();
            file.handles = 0;
        }
        Self {
            names,
            files,
            next_file: self.next_file,
            changes: self.changes,
            ..Self::new(chance.next(), FaultPlan::default())
        }
    }

    pub(super) fn kill(&self) -> Self {
        let mut chance = self.chance.clone();
        let mut files = self.files.clone();
        files.retain(|file, _| self.names.has(*file));
        for file in files.values_mut() {
            file.handles = 0;
        }
        Self {
            names: self.names.clone(),
            files,
            next_file: self.next_file,
            changes: self.changes,
            ..Self::new(chance.next(), FaultPlan::default())
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.names.live.values();
        files.map(|file| self.file(*file).live.len()).sum()
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let quota = self.plan.quota_bytes.unwrap_or(SIZE_BYTES);
        quota.saturating_sub(self.used_bytes())
    }

    pub(super) fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.names.live.get(name)?;
        Some(self.file(*file).live.to_vec())
    }

    pub(super) fn plant(&mut self, name: &str, bytes: &[u8]) {
        let mut live = Image::default();
        live.write(bytes, 0);
        let file = self.add(File {
            durable: live.clone(),
            live,
            ..File::default()
        });
        self.names.plant(name, file);
    }

    pub(super) fn flip(&mut self, name: &str, offset: u64, bits: u8) -> bool {
        let Some(file) = self.names.live.get(name) else {
            return false;
        };
        let file = self.files.get_mut(file).expect(NAMED);
        let is_there = offset < file.live.len();
        for image in [&mut file.live, &mut file.durable] {
            let mut byte = [0];
            if image.read(&mut byte, offset) == 1 {
                image.write(&[byte[0] ^ bits], offset);
            }
        }
        is_there
    }

    pub(super) fn spoil(&mut self, name: &str, offset: u64) -> bool {
        let Some(file) = self.names.live.get(name) else {
            return false;
        };
        let file = self.files.get_mut(file).expect(NAMED);
        let is_there = offset < file.live.len();
        if is_there {
            file.sick.spoil(offset);
        }
        is_there
    }

    pub(super) fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        self.begin_whole(Kind::Read)?;
        if !dir.is_empty() && !self.names.folders.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.names.in_folder(dir))
    }

    pub(super) fn make_dir(&mut self, dir: &str) -> io::Result<()> {
        let fate = self.begin(Kind::Name)?;
        if self.names.folders.contains(dir) {
            return fate.result();
        }
        if self.names.live.contains_key(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.need_folder_of(dir)?;
        let name = dir.to_owned();
        self.step(fate, Step::MakeDir { name })
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<u64> {
        let fate = self.begin(Kind::Name)?;
        if self.names.live.contains_key(name) || self.names.folders.contains(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.need_folder_of(name)?;
        let file = self.add(File::default());
        let name = name.to_owned();
        self.step(fate, Step::Create { name, file })?;
        Ok(self.opened(file))
    }

    pub(super) fn open(&mut self, name: &str) -> io::Result<u64> {
        self.begin_whole(Kind::Name)?;
        let file = self.find(name)?;
        Ok(self.opened(file))
    }

    pub(super) fn close(&mut self, file: u64) {
        self.files.get_mut(&file).expect(NAMED).handles -= 1;
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let fate = self.begin(Kind::Name)?;
        let file = self.find(from)?;
        self.need_folder_of(to)?;
        if self.names.folders.contains(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from == to {
            return fate.result();
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        self.step(fate, Step::Rename { from, to, file })
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let fate = self.begin(Kind::Name)?;
        let file = self.find(name)?;
        let name = name.to_owned();
        self.step(fate, Step::Remove { name, file })
    }

    pub(super) fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        match self.begin(Kind::Sync)? {
            Fate::Done => {
                self.names.sync(dir);
                let names = &self.names;
                self.files
                    .retain(|file, of| of.handles > 0 || names.has(*file));
                Ok(())
            }
            Fate::Fails(error) => {
                if !self.is_stopped {
                    let loss = Loss::chosen(self.names.pending_calls(), &mut self.chance);
                    self.names.fail_sync(dir, loss, &mut self.chance);
                }
                Err(error)
            }
        }
    }

    pub(super) fn read(&mut self, file: u64, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.begin_whole(Kind::Read)?;
        let of = self.file(file);
        let end = at.saturating_add(buffer.len() as u64).min(of.live.len());
        if !of.sick.can_read(at..end) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(of.live.read(buffer, at))
    }

    pub(super) fn len(&mut self, file: u64) -> io::Result<u64> {
        self.begin_whole(Kind::Read)?;
        Ok(self.file(file).live.len())
    }

    pub(super) fn write(&mut self, file: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let fate = self.begin(Kind::Write)?;
        let range = offset..offset.saturating_add(bytes.len() as u64);
        if !self.file(file).sick.can_write(&range) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let end_max = self.file(file).live.len().saturating_add(self.free_bytes());
        let fitting = usize::try_from(end_max.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fits = fitting >= bytes.len();
        let mut part = &bytes[..fitting.min(bytes.len())];
        if matches!(fate, Fate::Fails(_)) {
            part = &part[..self.chance.part_of(part.len())];
        }
        if !part.is_empty() {
            let bytes = part.into();
            self.change(file, ChangeKind::Write { offset, bytes });
        }
        fate.result()?;
        if !fits {
            return Err(no_space());
        }
        self.calls.written_bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn set_len(&mut self, file: u64, len: u64, only_longer: bool) -> io::Result<()> {
        let fate = self.begin(Kind::Write)?;
        let old = self.file(file).live.len();
        if len == old || only_longer && len < old {
            return fate.result();
        }
        if !self.file(file).sick.can_write(&(0..len)) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if len.saturating_sub(old) > self.free_bytes() {
            return Err(no_space());
        }
        if matches!(fate, Fate::Done) || self.chance.coin() {
            self.change(file, ChangeKind::SetLen(len));
        }
        fate.result()
    }

    pub(super) fn sync(&mut self, file: u64) -> io::Result<()> {
        let fate = self.begin(Kind::Sync)?;
        let of = self.files.get_mut(&file).expect(NAMED);
        match fate {
            Fate::Done => {
                of.settle(Loss::Nothing, &mut self.chance);
                Ok(())
            }
            Fate::Fails(error) => {
                if !self.is_stopped {
                    let calls = of.pending.iter().map(|change| change.call);
                    let loss = Loss::chosen(calls, &mut self.chance);
                    of.settle(loss, &mut self.chance);
                }
                Err(error)
            }
        }
    }

    /// Counts a call and says what becomes of it; an error if the disk had stopped before.
    fn begin(&mut self, kind: Kind) -> io::Result<Fate> {
        if self.is_stopped {
            return Err(stopped());
        }
        self.calls.all += 1;
        let (count, error_at) = match kind {
            Kind::Write => (&mut self.calls.writes, self.plan.write_error_at),
            Kind::Sync => (&mut self.calls.syncs, self.plan.sync_error_at),
            Kind::Read => (&mut self.calls.reads, self.plan.read_error_at),
            Kind::Name => (&mut self.calls.names, self.plan.name_error_at),
        };
        *count += 1;
        if self.plan.stop_at_call == Some(self.calls.all) {
            self.is_stopped = true;
            return Ok(Fate::Fails(stopped()));
        }
        let is_error =
            error_at.is_some_and(|at| *count == at || self.plan.errors_last && *count > at);
        Ok(if is_error {
            Fate::Fails(io::Error::from_raw_os_error(EIO))
        } else {
            Fate::Done
        })
    }

    /// As [`Self::begin`], for a call that changes nothing.
    fn begin_whole(&mut self, kind: Kind) -> io::Result<()> {
        self.begin(kind)?.result()
    }

    /// Takes `step`, or perhaps takes it and fails.
    fn step(&mut self, fate: Fate, step: Step) -> io::Result<()> {
        if matches!(fate, Fate::Done) || self.chance.coin() {
            self.changes += 1;
            self.names.take(self.changes, step);
        }
        fate.result()
    }

    fn change(&mut self, file: u64, kind: ChangeKind) {
        self.changes += 1;
        let call = self.changes;
        let change = Change { call, kind };
        let of = self.files.get_mut(&file).expect(NAMED);
        match &change.kind {
            ChangeKind::Write { offset, bytes } => {
                of.sick.write(&(*offset..*offset + bytes.len() as u64));
            }
            ChangeKind::SetLen(len) => of.sick.set_len(*len),
        }
        change.apply(&mut of.live);
        of.pending.push(change);
    }

    fn add(&mut self, file: File) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, file);
        self.next_file
    }

    fn opened(&mut self, file: u64) -> u64 {
        self.files.get_mut(&file).expect(NAMED).handles += 1;
        file
    }

    fn file(&self, file: u64) -> &File {
        self.files.get(&file).expect(NAMED)
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        let found = self.names.live.get(name).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn need_folder_of(&self, name: &str) -> io::Result<()> {
        if self.names.has_folder_of(name) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

impl File {
    /// Lets `loss` decide what of the changes becomes durable; the rest never will.
    fn settle(&mut self, loss: Loss, chance: &mut Chance) {
        for change in std::mem::take(&mut self.pending) {
            change.apply_after(loss, &mut self.durable, chance);
        }
    }
}

impl Fate {
    fn result(self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Fails(error) => Err(error),
        }
    }
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(ENOSPC)
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

const NAMED: &str = "invariant: a file with a name or a handle is kept";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Of a disk without a quota.
const SIZE_BYTES: u64 = 1 << 50;
