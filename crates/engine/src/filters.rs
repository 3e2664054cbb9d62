//! The Topic Filters of one Session.
//!
//! Owns: [`Filters`]. Does not own: what is subscribed to under them (see `subscriptions`). Start reading at
//! [`Filters::insert`]. Invariants: ascending, each once; of each only that is kept in which it differs from the one before
//! it in its block, whose first is kept whole; no block of two and more is longer than [`BLOCK_BYTES_MAX`].

use std::sync::Arc;

/// A set in the order of the names.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// The first block; most Sessions have no other.
    first: Block,
    /// Those behind it.
    #[expect(
        clippy::box_collection,
        reason = "few have any, and each has the place"
    )]
    more: Option<Box<Vec<Block>>>,
    len: u32,
    /// Bytes of the blocks: a Session has fewer than 4 GiB of names by far, and is held in less for it.
    block_bytes: u32,
}

/// Names one behind the other, each as an [`Entry`].
type Block = Vec<u8>;

/// A name, by the one before it.
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    /// So much of the one before it begins it, too.
    shared: usize,
    rest: &'a [u8],
    /// Where the next one begins.
    end: usize,
}

/// Where a name is in a block, or would be.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    /// What it shares with the one before it.
    shared: usize,
    is_there: bool,
}

impl Filters {
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// O(log n + names of a block).
    pub(crate) fn contains(&self, filter: &str) -> bool {
        let name = filter.as_bytes();
        let block = self.block(self.index_of(name));
        block.is_some_and(|block| place_of(block, name).is_there)
    }

    /// Whether it is new. O(log n + bytes of a block).
    pub(crate) fn insert(&mut self, filter: &str) -> bool {
        let name = filter.as_bytes();
        let index = self.index_of(name);
        let Some(block) = self.block_mut(index) else {
            return false;
        };
        let before = block.capacity();
        if !insert_into(block, name) {
            return false;
        }
        let second = (block.len() > BLOCK_BYTES_MAX)
            .then(|| split_off(block))
            .flatten();
        let after = block.capacity() + second.as_ref().map_or(0, Vec::capacity);
        self.count(before, after);
        self.len += 1;
        if let Some(second) = second {
            let more = self.more.get_or_insert_default();
            if more.len() == more.capacity() {
                more.reserve_exact(1 + more.len() / 4);
            }
            more.insert(index, second);
        }
        true
    }

    /// Whether it was there. O(log n + bytes of a block).
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        let name = filter.as_bytes();
        let index = self.index_of(name);
        let Some(block) = self.block_mut(index) else {
            return false;
        };
        let before = block.capacity();
        if !remove_from(block, name) {
            return false;
        }
        let (is_gone, after) = (block.is_empty(), block.capacity());
        self.count(before, after);
        self.len -= 1;
        if is_gone {
            self.close_gap(index);
        }
        true
    }

    /// In the order of the names.
    pub(crate) fn iter(&self) -> Iter<'_> {
        self.from("")
    }

    /// The same, from the first that is not below `start`.
    pub(crate) fn from(&self, start: &str) -> Iter<'_> {
        let index = self.index_of(start.as_bytes());
        let at = self.block(index);
        let at = at.map_or(0, |block| place_of(block, start.as_bytes()).at);
        let mut iter = Iter {
            filters: self,
            index,
            at: 0,
            text: Vec::new(),
        };
        // What is there shares its beginning with what comes before it.
        while iter.at < at && iter.step() {}
        iter
    }

    /// Whether `is_one` says so of any, in their order.
    pub(crate) fn any(&self, mut is_one: impl FnMut(&str) -> bool) -> bool {
        let mut iter = self.iter();
        while iter.step() {
            if is_one(text_of(&iter.text)) {
                return true;
            }
        }
        false
    }

    /// Bytes that it holds beside itself. O(1).
    pub(crate) fn table_bytes(&self) -> usize {
        let list = self.more.as_ref().map_or(0, |more| {
            size_of::<Vec<Block>>() + more.capacity() * size_of::<Block>()
        });
        self.block_bytes as usize + list
    }

    /// Blocks that had `before` bytes have `after`.
    fn count(&mut self, before: usize, after: usize) {
        let bytes = self.block_bytes as usize + after - before;
        self.block_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    fn block(&self, index: usize) -> Option<&Block> {
        match index.checked_sub(1) {
            None => Some(&self.first),
            Some(index) => self.more.as_ref()?.get(index),
        }
    }

    fn block_mut(&mut self, index: usize) -> Option<&mut Block> {
        match index.checked_sub(1) {
            None => Some(&mut self.first),
            Some(index) => self.more.as_mut()?.get_mut(index),
        }
    }

    /// The block that has `name`, or would have it. O(log n).
    fn index_of(&self, name: &[u8]) -> usize {
        let begins_below = |block: &Block| entry_at(block, 0).is_some_and(|it| it.rest <= name);
        let more = self.more.as_deref();
        more.map_or(0, |more| more.partition_point(begins_below))
    }

    /// A block has become empty.
    fn close_gap(&mut self, index: usize) {
        let Some(more) = &mut self.more else {
            return;
        };
        match index.checked_sub(1) {
            Some(index) => {
                more.remove(index);
            }
            None => self.first = more.remove(0),
        }
        if more.is_empty() {
            self.more = None;
        } else if more.len() < more.capacity() / 2 {
            more.shrink_to_fit();
        }
    }
}

/// Topic Filters in order.
#[derive(Debug)]
pub(crate) struct Iter<'a> {
    filters: &'a Filters,
    /// The block, and where in it the next one is.
    index: usize,
    at: usize,
    /// The last one.
    text: Vec<u8>,
}

impl Iter<'_> {
    /// Goes on to the next one; false if there is none.
    fn step(&mut self) -> bool {
        while let Some(block) = self.filters.block(self.index) {
            if let Some(entry) = entry_at(block, self.at) {
                self.text.truncate(entry.shared);
                self.text.extend_from_slice(entry.rest);
                self.at = entry.end;
                return true;
            }
            (self.index, self.at) = (self.index + 1, 0);
        }
        false
    }
}

impl Iterator for Iter<'_> {
    type Item = Arc<str>;

    fn next(&mut self) -> Option<Arc<str>> {
        self.step().then(|| text_of(&self.text).into())
    }
}

fn text_of(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect("invariant: what was put together is a text again")
}

fn entry_at(block: &[u8], at: usize) -> Option<Entry<'_>> {
    let (shared, at) = number_at(block, at)?;
    let (len, at) = number_at(block, at)?;
    let end = at + len;
    let rest = block.get(at..end)?;
    Some(Entry { shared, rest, end })
}

/// A length: seven bits a byte, the lowest first, all but the last with the eighth.
fn number_at(block: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = *block.get(at)?;
        number |= usize::from(byte & 0x7F) << shift;
        at += 1;
        if byte < 0x80 {
            return Some((number, at));
        }
        shift += 7;
    }
}

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7F).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn put_entry(out: &mut Vec<u8>, shared: usize, rest: [&[u8]; 2]) {
    put_number(out, shared);
    put_number(out, rest.iter().map(|part| part.len()).sum());
    rest.iter().for_each(|part| out.extend_from_slice(part));
}

/// Looks at each name of the block at most once, and at most of them only at what they share with the one before.
fn place_of(block: &[u8], name: &[u8]) -> Place {
    let (mut at, mut shared) = (0, 0);
    while let Some(entry) = entry_at(block, at) {
        let is_below = if entry.shared == shared {
            let wanted = name.get(shared..).unwrap_or_default();
            if entry.rest == wanted {
                let is_there = true;
                return Place {
                    at,
                    shared,
                    is_there,
                };
            }
            let is_below = entry.rest < wanted;
            if is_below {
                shared += common_len(entry.rest, wanted);
            }
            is_below
        } else {
            // Where it differs from the one before it, that one was still as `name`; or it differs behind that.
            entry.shared > shared
        };
        if !is_below {
            break;
        }
        at = entry.end;
    }
    Place {
        at,
        shared,
        is_there: false,
    }
}

fn insert_into(block: &mut Block, name: &[u8]) -> bool {
    let Place {
        at,
        shared,
        is_there,
    } = place_of(block, name);
    if is_there {
        return false;
    }
    let rest = name.get(shared..).unwrap_or_default();
    let mut fresh = Vec::with_capacity(rest.len() + 16);
    put_entry(&mut fresh, shared, [rest, &[]]);
    let mut end = at;
    // The next one may share more with this one than with the one before.
    if let Some(next) = entry_at(block, at).filter(|next| next.shared == shared) {
        let common = common_len(next.rest, rest);
        let left = next.rest.get(common..).unwrap_or_default();
        put_entry(&mut fresh, shared + common, [left, &[]]);
        end = next.end;
    }
    replace(block, (at, end), &fresh);
    true
}

fn remove_from(block: &mut Block, name: &[u8]) -> bool {
    let place = place_of(block, name);
    let Some(gone) = entry_at(block, place.at).filter(|_| place.is_there) else {
        return false;
    };
    let mut fresh = Vec::new();
    let mut end = gone.end;
    // The next one may have shared more with it than with the one before.
    if let Some(next) = entry_at(block, end).filter(|next| next.shared > gone.shared) {
        let more = gone.rest.get(..next.shared - gone.shared);
        put_entry(
            &mut fresh,
            gone.shared,
            [more.unwrap_or_default(), next.rest],
        );
        end = next.end;
    }
    replace(block, (place.at, end), &fresh);
    if block.len() < block.capacity() / 2 {
        block.shrink_to_fit();
    }
    true
}

/// Puts `fresh` in the place of those bytes.
fn replace(block: &mut Block, (from, to): (usize, usize), fresh: &[u8]) {
    let len = block.len() + fresh.len() - (to - from);
    if len > block.capacity() {
        // The first name takes as much as it is long.
        block.reserve_exact(len - block.len() + block.len() / 8);
    }
    block.splice(from..to, fresh.iter().copied());
}

/// The second half of a block as one of its own; `None` if there are no two names.
fn split_off(block: &mut Block) -> Option<Block> {
    let (mut text, mut at) = (Vec::new(), 0);
    // The last one at which it could be cut.
    let mut cut = None;
    while let Some(entry) = entry_at(block, at) {
        text.truncate(entry.shared);
        text.extend_from_slice(entry.rest);
        if at > 0 {
            cut = Some((at, entry.end));
        }
        if at > block.len() / 2 {
            break;
        }
        at = entry.end;
    }
    let (at, end) = cut?;
    let left = block.get(end..).unwrap_or_default();
    let mut second = Vec::with_capacity(text.len() + left.len() + 4);
    put_entry(&mut second, 0, [&text, &[]]);
    second.extend_from_slice(left);
    block.truncate(at);
    block.shrink_to_fit();
    Some(second)
}

fn common_len(one: &[u8], other: &[u8]) -> usize {
    let both = one.iter().zip(other);
    both.take_while(|(one, other)| one == other).count()
}

/// A block that is longer is divided.
const BLOCK_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn any_name() -> impl Strategy<Value = String> {
        let level = select(vec![
            "a",
            "ab",
            "abc",
            "\u{e4}",
            "\u{e9}",
            "\u{1f426}",
            "+",
            "device-17",
            "",
        ]);
        let tail = prop_oneof![8 => Just(0_usize), 1 => 100..1_000_usize];
        let levels = proptest::collection::vec(level, 1..5);
        (levels, tail).prop_map(|(levels, tail)| levels.join("/") + &"x".repeat(tail))
    }

    proptest! {
        /// Few or many, long or short, they are what a set in order is.
        #[test]
        fn filters_are_a_set_in_order(
            changes in prop::collection::vec((any_name(), any::<bool>()), 0..200),
            start in any_name(),
        ) {
            let (mut filters, mut model) = (Filters::default(), BTreeSet::new());
            for (name, is_put) in changes {
                prop_assert_eq!(filters.contains(&name), model.contains(&*name));
                if is_put {
                    prop_assert_eq!(filters.insert(&name), model.insert(Arc::<str>::from(name)));
                } else {
                    prop_assert_eq!(filters.remove(&name), model.remove(&*name));
                }
                prop_assert_eq!((filters.len(), filters.is_empty()), (model.len(), model.is_empty()));
                let blocks = (0..).map_while(|index| filters.block(index));
                prop_assert_eq!(filters.block_bytes as usize, blocks.map(Vec::capacity).sum::<usize>());
            }
            prop_assert!(filters.iter().eq(model.iter().cloned()));
            let start = Arc::<str>::from(start);
            prop_assert!(filters.from(&start).eq(model.range(start.clone()..).cloned()));
            let mut seen = Vec::new();
            let found = filters.any(|name| {
                seen.push(Arc::<str>::from(name));
                false
            });
            prop_assert!(!found);
            prop_assert!(seen.into_iter().eq(model.iter().cloned()));
            for name in model {
                prop_assert!(filters.any(|it| *it == *name));
                prop_assert!(filters.remove(&name));
            }
            prop_assert_eq!(filters.table_bytes(), 0);
        }
    }

    #[test]
    fn one_filter_takes_no_more_than_its_length_and_two_bytes() {
        let mut filters = Filters::default();
        filters.insert("a/+/b");
        assert_eq!(filters.table_bytes(), 7);
        filters.remove("a/+/b");
        assert_eq!(filters.table_bytes(), 0);
    }

    #[test]
    fn filters_that_begin_alike_take_what_they_differ_in() {
        let mut filters = Filters::default();
        for number in 0..5_000 {
            filters.insert(&format!("site/7/device/{:04}/state", number * 7 % 5_000));
        }
        let each = filters.table_bytes() / filters.len();
        assert!(each <= 16, "{each} bytes each");
    }
}
