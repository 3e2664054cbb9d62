//! Values by number, in pieces of a fixed size.
//!
//! Owns: [`Arena`], which numbers are in use. Does not own: what the values are. Start reading at [`Arena::insert`].
//! Invariants: nothing is moved when it grows, so no insertion costs more than one piece; a piece of which nothing is in
//! use is given back, but for the one that is being filled; after that one comes the first that has room.

use std::collections::BTreeSet;

/// Values by number; numbers are used again.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    pieces: Vec<Piece<T>>,
    /// The piece that is being filled.
    current: usize,
    /// Others that have room.
    open: BTreeSet<usize>,
    len: usize,
    /// Pieces that hold memory.
    held: usize,
}

#[derive(Debug)]
struct Piece<T> {
    places: Vec<Place<T>>,
    used: usize,
    /// The first that was used and is free again.
    free: Option<u32>,
}

#[derive(Debug)]
enum Place<T> {
    Used(T),
    /// The next such one of its piece.
    Free(Option<u32>),
}

impl<T> Piece<T> {
    const fn new() -> Self {
        Self {
            places: Vec::new(),
            used: 0,
            free: None,
        }
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            current: 0,
            open: BTreeSet::new(),
            len: 0,
            held: 0,
        }
    }
}

impl<T> Arena<T> {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// How many there is memory for.
    pub(crate) const fn capacity(&self) -> usize {
        self.held * PIECE
    }

    /// Bytes of it, what the values hold beside themselves left out. O(1).
    pub(crate) fn memory_bytes(&self) -> usize {
        self.capacity() * size_of::<Place<T>>() + self.pieces.capacity() * size_of::<Piece<T>>()
    }

    /// O(1).
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (piece, place) = split(number);
        match self.pieces.get(piece)?.places.get(place)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// O(1).
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (piece, place) = split(number);
        match self.pieces.get_mut(piece)?.places.get_mut(place)? {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// Takes `value`, and says under which number. O(log pieces).
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if self
            .pieces
            .get(self.current)
            .is_none_or(|it| it.used >= PIECE)
        {
            self.current = self.open.pop_first().unwrap_or(self.pieces.len());
            if self.current == self.pieces.len() {
                self.pieces.push(Piece::new());
            }
        }
        self.len += 1;
        let piece = self.pieces.get_mut(self.current);
        let piece = piece.expect("invariant: the piece that is being filled is there");
        if piece.places.capacity() == 0 {
            self.held += 1;
            piece.places.reserve_exact(PIECE);
        }
        piece.used += 1;
        let place = match piece.free {
            Some(free) => {
                if let Some(place) = piece.places.get_mut(free as usize)
                    && let Place::Free(next) = std::mem::replace(place, Place::Used(value))
                {
                    piece.free = next;
                }
                free as usize
            }
            None => {
                piece.places.push(Place::Used(value));
                piece.places.len() - 1
            }
        };
        let number = u32::try_from(self.current * PIECE + place);
        number.expect("invariant: fewer than 2^32 of them fit in memory")
    }

    /// What had this number. O(log pieces).
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let (index, place) = split(number);
        let piece = self.pieces.get_mut(index)?;
        let found = piece.places.get_mut(place)?;
        if matches!(found, Place::Free(_)) {
            return None;
        }
        let was_full = piece.used >= PIECE;
        let removed = std::mem::replace(found, Place::Free(piece.free));
        piece.free = u32::try_from(place).ok();
        piece.used -= 1;
        self.len -= 1;
        let is_current = index == self.current;
        if piece.used == 0 && !is_current {
            *piece = Piece::new();
            self.held -= 1;
        }
        if was_full && !is_current {
            self.open.insert(index);
        }
        match removed {
            Place::Used(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// All, by number, in its order. O(numbers ever used).
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let pieces = self.pieces.iter_mut().zip(0_u32..);
        pieces.flat_map(|(piece, index)| {
            let places = piece.places.iter_mut().zip(index * PIECE_U32..);
            places.filter_map(|(place, number)| match place {
                Place::Used(value) => Some((number, value)),
                Place::Free(_) => None,
            })
        })
    }

    /// The same, given away.
    pub(crate) fn into_values(self) -> impl Iterator<Item = (u32, T)> {
        let pieces = self.pieces.into_iter().zip(0_u32..);
        pieces.flat_map(|(piece, index)| {
            let places = piece.places.into_iter().zip(index * PIECE_U32..);
            places.filter_map(|(place, number)| match place {
                Place::Used(value) => Some((number, value)),
                Place::Free(_) => None,
            })
        })
    }
}

/// The piece of a number, and the place in it.
const fn split(number: u32) -> (usize, usize) {
    let number = number as usize;
    (number / PIECE, number % PIECE)
}

/// Values of one piece.
const PIECE: usize = PIECE_U32 as usize;
const PIECE_U32: u32 = 256;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_of_a_rush_that_is_over_are_given_back() {
        let mut arena = Arena::default();
        let numbers: Vec<_> = (0..100_000_u64).map(|value| arena.insert(value)).collect();
        let most = arena.memory_bytes();
        for number in numbers.iter().skip(10) {
            assert!(arena.remove(*number).is_some());
        }
        assert!(arena.memory_bytes() < most / 20, "{}", arena.memory_bytes());
        assert_eq!((arena.len(), arena.get(numbers[9])), (10, Some(&9)));
        assert_eq!(arena.capacity(), 2 * PIECE);
    }

    proptest! {
        #[test]
        fn arena_is_a_map_from_numbers_that_it_chooses(
            steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..900),
        ) {
            let (mut arena, mut model) = (Arena::default(), BTreeMap::new());
            for (value, (is_in, which)) in (0_u64..).zip(&steps) {
                if *is_in || model.is_empty() {
                    let number = arena.insert(value);
                    prop_assert_eq!(model.insert(number, value), None);
                } else {
                    let number = *which.get(&model.keys().copied().collect::<Vec<_>>());
                    prop_assert_eq!(arena.remove(number), model.remove(&number));
                    prop_assert_eq!(arena.remove(number), None);
                }
                prop_assert_eq!(arena.len(), model.len());
            }
            for (number, value) in &mut model {
                prop_assert_eq!(arena.get(*number), Some(&*value));
                prop_assert_eq!(arena.get_mut(*number), Some(&mut *value));
            }
            prop_assert!(arena.iter_mut().map(|(number, value)| (number, *value)).eq(model.clone()));
            prop_assert!(arena.into_values().eq(model));
        }
    }
}
