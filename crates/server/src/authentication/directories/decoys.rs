//! Hashes that unknown users are measured by.
//!
//! Owns: [`Decoys`]. Does not own: when one is verified (see `super`). Start reading at [`Decoys::of`].
//! Invariant: it holds no more than so many hashes, whoever logs in.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::authentication::passwords::StoredPassword;

/// Some of the hashes that a database had for its users. Forms differ in what they cost, so the names of unknown
/// users are spread over them as those of known ones are.
#[derive(Debug, Default)]
pub(super) struct Decoys {
    chooses: RandomState,
    slots: Mutex<[Option<StoredPassword>; SLOTS]>,
}

impl Decoys {
    /// A user has this hash.
    pub(super) fn saw(&self, name: &str, stored: &StoredPassword) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(self.place(name)) {
            *slot = Some(stored.clone());
        }
    }

    /// The one for an unknown name; as long as no user was seen, one as new passwords get.
    pub(super) fn of(&self, name: &str) -> StoredPassword {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, from) = slots.split_at(self.place(name));
        let seen = from.iter().chain(before).flatten().next();
        seen.cloned().unwrap_or_else(StoredPassword::dummy)
    }

    fn place(&self, name: &str) -> usize {
        let place = self.chooses.hash_one(name) % SLOTS as u64;
        usize::try_from(place).unwrap_or_default()
    }
}

/// So many are kept.
const SLOTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// P13: the time that an unknown name takes is that of some user.
    #[test]
    fn unknown_users_are_measured_by_hashes_of_users_that_were_seen() {
        let cheap = StoredPassword::parse("$7$101$ga50u/ymOANPKoXr$vx730TtoKGgWJOud1wY678BEmEn4PcaB/4/ctHSDwpFTwkHXKB+w46zLDr8htvV9ME+QCzZggGfnK6WC330fIg==").expect("is a hash");
        let decoys = Decoys::default();
        assert_eq!(decoys.of("nobody"), StoredPassword::dummy());
        decoys.saw("anna", &cheap);
        assert_eq!(decoys.of("nobody"), cheap);
        for number in 0..1000 {
            let stored = if number % 2 == 0 {
                cheap.clone()
            } else {
                StoredPassword::dummy()
            };
            decoys.saw(&format!("user-{number}"), &stored);
        }
        let of = |number: usize| decoys.of(&format!("unknown-{number}"));
        assert!((0..200).all(|number| of(number) == of(number)));
        let cheaper = (0..200).filter(|number| of(*number) == cheap).count();
        assert!((10..190).contains(&cheaper), "{cheaper} of 200");
    }
}
