//! What a loss of power leaves of writes that were not synced.
//!
//! Owns: [`Loss`], [`Change`]. Does not own: names (see [`super::names`]). Start reading at [`Loss`].
//! Invariant: bytes that were synced, and not written again since, are never touched.

use std::sync::Arc;

use super::chance::Chance;
use super::image::Image;

/// Which of the changes that were not synced a loss of power keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// None.
    All,
    /// All: everything had just reached the disk.
    Nothing,
    /// All before this call, a part of it, none after it: what a disk does that keeps the order.
    From(u64),
    /// Any, each by itself.
    Some,
}

impl Loss {
    /// One of these, for changes that the `calls` made.
    pub(super) fn chosen(calls: impl Iterator<Item = u64>, chance: &mut Chance) -> Self {
        let mut calls: Vec<u64> = calls.collect();
        calls.sort_unstable();
        calls.dedup();
        let at = usize::try_from(chance.below(calls.len() as u64)).unwrap_or(0);
        match (chance.below(8), calls.get(at)) {
            (0, _) => Self::All,
            (1, _) => Self::Nothing,
            (2 | 3, Some(call)) => Self::From(*call),
            _ => Self::Some,
        }
    }

    /// Whether a change that cannot be torn is kept.
    pub(super) const fn keeps(self, call: u64, chance: &mut Chance) -> bool {
        match self {
            Self::All => false,
            Self::Nothing => true,
            Self::From(from) if call != from => call < from,
            Self::From(_) | Self::Some => chance.coin(),
        }
    }
}

/// A change of a file that is not synced.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) call: u64,
    pub(super) kind: ChangeKind,
}

#[derive(Clone, Debug)]
pub(super) enum ChangeKind {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

impl Change {
    /// Makes the change.
    pub(super) fn apply(&self, image: &mut Image) {
        match &self.kind {
            ChangeKind::Write { offset, bytes } => image.write(bytes, *offset),
            ChangeKind::SetLen(len) => image.set_len(*len),
        }
    }

    /// Makes as much of the change as `loss` leaves.
    pub(super) fn apply_after(&self, loss: Loss, image: &mut Image, chance: &mut Chance) {
        let is_torn = match loss {
            Loss::All | Loss::Nothing => false,
            Loss::From(from) => self.call == from,
            Loss::Some => chance.coin(),
        };
        if !is_torn {
            if loss.keeps(self.call, chance) {
                self.apply(image);
            } else if loss == Loss::Some {
                self.lengthen(image, chance);
            }
            return;
        }
        match &self.kind {
            ChangeKind::Write { offset, bytes } => {
                // The length reaches the disk before the bytes, or after them.
                self.lengthen(image, chance);
                if chance.coin() {
                    image.write(&bytes[..chance.part_of(bytes.len())], *offset);
                } else {
                    write_some_sectors(bytes, *offset, image, chance);
                }
            }
            ChangeKind::SetLen(_) if chance.coin() => self.apply(image),
            ChangeKind::SetLen(_) => {}
        }
    }

    /// Perhaps makes the file as long as the change would have, without its bytes.
    fn lengthen(&self, image: &mut Image, chance: &mut Chance) {
        if let ChangeKind::Write { offset, bytes } = &self.kind {
            let end = offset + bytes.len() as u64;
            if end > image.len() && chance.coin() {
                image.set_len(end);
            }
        }
    }
}

/// Writes each sector that `bytes` touch, or not; a sector is never torn.
fn write_some_sectors(bytes: &[u8], offset: u64, image: &mut Image, chance: &mut Chance) {
    let mut done = 0;
    while done < bytes.len() {
        let place = offset + done as u64;
        let rest = usize::try_from(SECTOR - place % SECTOR).unwrap_or(1);
        let end = bytes.len().min(done + rest);
        if chance.coin() {
            image.write(&bytes[done..end], place);
        }
        done = end;
    }
}

/// What a disk writes whole or not at all, in bytes.
const SECTOR: u64 = 512;
