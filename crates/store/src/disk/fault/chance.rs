//! Chance from a seed: `splitmix64`, the same on every machine.
//!
//! Owns: [`Chance`]. Does not own: what it decides. Start reading at [`Chance`].
//! Invariant: the same seed and the same questions give the same answers.

/// A row of numbers that a seed decides.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`; 0 if `bound` is 0.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        match self.next().checked_rem(bound) {
            Some(number) => number,
            None => 0,
        }
    }

    /// A length from 0 to `len`.
    pub(super) fn part_of(&mut self, len: usize) -> usize {
        let part = self.below((len as u64).saturating_add(1));
        usize::try_from(part).unwrap_or(len)
    }

    /// Heads or tails.
    pub(super) const fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}
