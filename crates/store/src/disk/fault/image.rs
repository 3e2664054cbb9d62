//! The bytes of one file, in pages that are shared until they are written.
//!
//! Owns: [`Image`]. Does not own: which image is durable (see [`super::state`]).
//! Start reading at [`Image`]. Invariant: a page that is not there, and all beyond the end, is zeros.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A file's content. Cloning it copies no byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Image {
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Fills as much of `buffer` as there are bytes from `offset` on; returns how many.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let found = small(self.len.saturating_sub(offset).min(buffer.len() as u64));
        for (page, within, at) in pieces(offset, found) {
            let to = &mut buffer[at.clone()];
            match self.pages.get(&page) {
                Some(bytes) => to.copy_from_slice(&bytes[within..within + at.len()]),
                None => to.fill(0),
            }
        }
        found
    }

    /// Everything.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; small(self.len)];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Writes `bytes` at `offset`; the file is at least so long afterwards.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, within, at) in pieces(offset, bytes.len()) {
            let page = self.pages.entry(page);
            let page = Arc::make_mut(page.or_insert_with(|| Arc::new([0; PAGE])));
            page[within..within + at.len()].copy_from_slice(&bytes[at]);
        }
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    /// Cuts the file, or makes it longer with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE as u64));
            let within = small(len % PAGE as u64);
            if within > 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE as u64))
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Cuts `len` bytes from `offset` on at the borders of pages: page, place in it, place in the buffer.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let place = offset + done as u64;
        let within = small(place % PAGE as u64);
        let count = (PAGE - within).min(len - done);
        let at = done..done + count;
        done += count;
        Some((place / PAGE as u64, within, at))
    })
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("invariant: a file in memory has a length that fits it")
}

const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain vector, with lengths on both sides of a page's border.
        #[test]
        fn an_image_is_a_vector_of_bytes(
            steps in prop::collection::vec((0..3_u8, 0..10_000_u64, 0..9_000_usize, any::<u8>()), 1..20)
        ) {
            let (mut image, mut model) = (Image::default(), Vec::new());
            for (kind, offset, len, byte) in steps {
                let at = small(offset);
                if kind == 0 {
                    image.set_len(offset);
                    model.resize(at, 0);
                } else if len > 0 {
                    image.write(&vec![byte; len], offset);
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].fill(byte);
                }
                prop_assert_eq!(&image.to_vec(), &model);
                let mut part = vec![7; 5_000];
                let found = image.read(&mut part, offset);
                prop_assert_eq!(&part[..found], model.get(at..(at + 5_000).min(model.len())).unwrap_or(&[]));
            }
        }
    }
}
