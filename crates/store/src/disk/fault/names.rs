//! The names of files and folders: those in use, those that are durable, and what lies between.
//!
//! Owns: [`Names`]; which name survives a loss of power. Does not own: what is in the files.
//! Start reading at [`Names`]. Invariant: applying every pending step to the durable names, in order, gives
//! those in use, unless the sync of a folder has failed.

use std::collections::{BTreeMap, BTreeSet};

use super::chance::Chance;
use super::crash::Loss;

/// All names of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Names in use, and the number of the file behind each.
    pub(super) live: BTreeMap<String, u64>,
    /// Folders in use.
    pub(super) folders: BTreeSet<String>,
    durable: BTreeMap<String, u64>,
    durable_folders: BTreeSet<String>,
    pending: Vec<Pending>,
}

/// A step that is not durable. A rename into another folder is two, of one call: the new name is there,
/// the old one is gone. The steps of one folder become durable in their order.
#[derive(Clone, Debug)]
struct Pending {
    call: u64,
    step: Step,
}

/// One change of names.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A file has a first name.
    Create { name: String, file: u64 },
    /// A name is gone.
    Remove { name: String, file: u64 },
    /// A file has another name, in place of what had it.
    Rename { from: String, to: String, file: u64 },
    /// A folder is there.
    MakeDir { name: String },
}

impl Names {
    /// Whether a file of this name can be made: its folder is there.
    pub(super) fn has_folder_of(&self, name: &str) -> bool {
        folder_of(name).is_empty() || self.folders.contains(folder_of(name))
    }

    /// What is directly in the folder `dir`.
    pub(super) fn in_folder(&self, dir: &str) -> Vec<String> {
        let names = self.live.keys().chain(&self.folders);
        let inside = names.filter(|name| folder_of(name) == dir);
        inside.map(|name| last_of(name).to_owned()).collect()
    }

    /// Takes `step` at once; it is durable later, if ever.
    pub(super) fn take(&mut self, call: u64, step: Step) {
        apply(&step, &mut self.live, &mut self.folders);
        match step {
            Step::Rename { from, to, file } if folder_of(&from) != folder_of(&to) => {
                let (name, link) = (from, Step::Create { name: to, file });
                self.pending.push(Pending { call, step: link });
                let step = Step::Remove { name, file };
                self.pending.push(Pending { call, step });
            }
            step => self.pending.push(Pending { call, step }),
        }
    }

    /// Calls whose steps are not durable.
    pub(super) fn pending_calls(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|pending| pending.call)
    }

    /// Makes durable what happened in the folder `dir`.
    pub(super) fn sync(&mut self, dir: &str) {
        for Pending { step, .. } in self.take_pending_of(dir) {
            self.make_durable(&step);
        }
    }

    /// The names after a loss of power, all of them durable.
    pub(super) fn after(mut self, loss: Loss, chance: &mut Chance) -> Self {
        self.settle(loss, chance);
        let folders = self.durable_folders.clone();
        let has_path = |name: &str| {
            let mut folder = folder_of(name);
            while !folder.is_empty() && folders.contains(folder) {
                folder = folder_of(folder);
            }
            folder.is_empty()
        };
        self.durable_folders.retain(|name| has_path(name));
        self.durable.retain(|name, _| has_path(name));
        Self {
            live: self.durable.clone(),
            folders: self.durable_folders.clone(),
            ..self
        }
    }

    /// After a sync of the folder `dir` has failed: `loss` decides which of its steps become durable.
    pub(super) fn fail_sync(&mut self, dir: &str, loss: Loss, chance: &mut Chance) {
        let here = self.take_pending_of(dir);
        let later = std::mem::replace(&mut self.pending, here);
        self.settle(loss, chance);
        self.pending = later;
    }

    /// The steps that a sync of the folder `dir` makes durable, in order: its own, and for each file that
    /// moved away the new name and what came before it in that folder.
    fn take_pending_of(&mut self, dir: &str) -> Vec<Pending> {
        let mut until = BTreeMap::from([(dir.to_owned(), self.pending.len())]);
        for (at, pending) in self.pending.iter().enumerate().rev() {
            let is_taken = |of: &Pending| until.get(of.folder()).is_some_and(|until| at < *until);
            let link = at.checked_sub(1).map(|before| &self.pending[before]);
            if let Some(link) = link
                && link.call == pending.call
                && is_taken(pending)
            {
                let until = until.entry(link.folder().to_owned()).or_insert(at);
                *until = at.max(*until);
            }
        }
        let all = std::mem::take(&mut self.pending).into_iter().enumerate();
        let (taken, later): (Vec<_>, Vec<_>) =
            all.partition(|(at, of)| until.get(of.folder()).is_some_and(|until| at < until));
        let plain =
            |of: Vec<(usize, Pending)>| of.into_iter().map(|(_, pending)| pending).collect();
        self.pending = plain(later);
        plain(taken)
    }

    /// Lets `loss` decide which pending steps become durable; the others never will.
    fn settle(&mut self, loss: Loss, chance: &mut Chance) {
        let mut lost = None;
        for Pending { call, step } in std::mem::take(&mut self.pending) {
            // A file that moved has its new name before it loses its old one.
            if lost != Some(call) && loss.keeps(call, chance) {
                self.make_durable(&step);
            } else {
                lost = Some(call);
            }
        }
    }

    /// Makes `name` durable as it is, with its folder: as if it had always been there.
    pub(super) fn plant(&mut self, name: &str, file: u64) {
        let mut folder = folder_of(name);
        while !folder.is_empty() {
            self.folders.insert(folder.to_owned());
            self.durable_folders.insert(folder.to_owned());
            folder = folder_of(folder);
        }
        self.pending.retain(|earlier| !earlier.step.touches(name));
        self.live.insert(name.to_owned(), file);
        self.durable.insert(name.to_owned(), file);
    }

    /// Whether something can still find `file`, now or after a crash.
    pub(super) fn has(&self, file: u64) -> bool {
        let mut all = self.live.values().chain(self.durable.values());
        let is_pending = |pending: &Pending| match &pending.step {
            Step::Create { file: of, .. } | Step::Rename { file: of, .. } => *of == file,
            Step::Remove { .. } | Step::MakeDir { .. } => false,
        };
        all.any(|of| *of == file) || self.pending.iter().any(is_pending)
    }

    fn make_durable(&mut self, step: &Step) {
        apply(step, &mut self.durable, &mut self.durable_folders);
    }
}

impl Pending {
    fn folder(&self) -> &str {
        folder_of(self.step.name())
    }
}

impl Step {
    /// The name that is another one afterwards.
    fn name(&self) -> &str {
        match self {
            Self::Create { name, .. } | Self::Remove { name, .. } | Self::MakeDir { name } => name,
            Self::Rename { to, .. } => to,
        }
    }

    /// Whether it changes `name`.
    fn touches(&self, name: &str) -> bool {
        self.name() == name || matches!(self, Self::Rename { from, .. } if from == name)
    }
}

/// Takes `step`. It names its file by number, so it means the same if a step before it was lost.
fn apply(step: &Step, names: &mut BTreeMap<String, u64>, folders: &mut BTreeSet<String>) {
    match step {
        Step::Create { name, file } => {
            names.insert(name.clone(), *file);
        }
        Step::Remove { name, file } => {
            if names.get(name) == Some(file) {
                names.remove(name);
            }
        }
        Step::Rename { from, to, file } => {
            if names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(to.clone(), *file);
        }
        Step::MakeDir { name } => {
            folders.insert(name.clone());
        }
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn last_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}
