//! Where queued messages are on disk, each once, however many queues it is in.
//!
//! Owns: [`Messages`]: 16 bytes a message, in pages that come and go. Does not own: the queues.
//! Start reading at [`Messages::insert`]. Invariant: a slot in use has at least one reference, except
//! between [`Messages::insert`] and the first [`Messages::refer`].

use super::Location;

/// Number of a slot: its page, then its place there.
pub(super) type SlotNumber = u32;

#[derive(Debug, Default)]
pub(super) struct Messages {
    pages: Vec<Page>,
    /// Pages with a free slot; the last is filled first.
    roomy: Vec<u32>,
    count: usize,
}

#[derive(Debug)]
struct Page {
    /// Empty while none of them is in use.
    slots: Vec<Slot>,
    used: u16,
    /// First of the free slots, which are linked by their offset.
    free: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    at: Location,
    references: u32,
}

impl Messages {
    /// A slot for the message at `at`, without references yet. Never moves what is there: O(page) at worst.
    pub(super) fn insert(&mut self, at: Location) -> SlotNumber {
        let page_number = self
            .roomy
            .last()
            .copied()
            .unwrap_or_else(|| self.add_page());
        let page = &mut self.pages[page_number as usize];
        let place = page.take();
        page.slots[usize::from(place)] = Slot { at, references: 0 };
        if page.used == PAGE_SLOTS {
            self.roomy.pop();
        }
        self.count += 1;
        page_number * u32::from(PAGE_SLOTS) + u32::from(place)
    }

    pub(super) fn refer(&mut self, slot: SlotNumber) {
        self.slot_mut(slot).references += 1;
    }

    /// Takes a reference away; returns where the message is if that was the last one, and frees the slot.
    pub(super) fn release(&mut self, slot: SlotNumber) -> Option<Location> {
        let found = self.slot_mut(slot);
        found.references -= 1;
        let at = found.at;
        (found.references == 0).then(|| {
            self.free(slot);
            at
        })
    }

    /// Frees a slot that got no reference; returns whether it got none.
    pub(super) fn free_unused(&mut self, slot: SlotNumber) -> bool {
        let is_unused = self.slot_mut(slot).references == 0;
        if is_unused {
            self.free(slot);
        }
        is_unused
    }

    pub(super) fn location(&self, slot: SlotNumber) -> Location {
        let (page, place) = split(slot);
        self.pages[page].slots[place].at
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    fn slot_mut(&mut self, slot: SlotNumber) -> &mut Slot {
        let (page, place) = split(slot);
        &mut self.pages[page].slots[place]
    }

    fn add_page(&mut self) -> u32 {
        let number = u32::try_from(self.pages.len())
            .ok()
            .filter(|&number| number < u32::MAX / u32::from(PAGE_SLOTS))
            .expect("invariant: 2^32 queued messages do not fit in memory");
        self.pages.push(Page {
            slots: Vec::new(),
            used: 0,
            free: 0,
        });
        self.roomy.push(number);
        number
    }

    fn free(&mut self, slot: SlotNumber) {
        self.count -= 1;
        let (page, place) = split(slot);
        let was_full = self.pages[page].used == PAGE_SLOTS;
        self.pages[page].give_back(place);
        // The page that is filled next keeps its slots, so that one message coming and going costs nothing.
        let next = self.roomy.last().map(|&next| next as usize);
        if was_full {
            self.roomy.push(slot / u32::from(PAGE_SLOTS));
            if let Some(no_longer_next) = next {
                self.pages[no_longer_next].drop_if_unused();
            }
        } else if next != Some(page) {
            self.pages[page].drop_if_unused();
        }
    }
}

impl Page {
    /// A free slot. There is one.
    fn take(&mut self) -> u16 {
        if self.slots.is_empty() {
            self.free = 0;
            self.slots = (1..=u32::from(PAGE_SLOTS)).map(Slot::free).collect();
        }
        let place = self.free;
        let next = self.slots[usize::from(place)].at.offset;
        self.free =
            u16::try_from(next).expect("invariant: free slots link to places of their page");
        self.used += 1;
        place
    }

    fn give_back(&mut self, place: usize) {
        self.slots[place] = Slot::free(self.free.into());
        self.free = u16::try_from(place).expect("invariant: a place is less than PAGE_SLOTS");
        self.used -= 1;
    }

    fn drop_if_unused(&mut self) {
        if self.used == 0 {
            self.slots = Vec::new();
        }
    }
}

impl Slot {
    const fn free(next: u32) -> Self {
        Self {
            at: Location {
                segment: 0,
                offset: next,
                len: 0,
            },
            references: 0,
        }
    }
}

const fn split(slot: SlotNumber) -> (usize, usize) {
    let page_slots = PAGE_SLOTS as u32;
    ((slot / page_slots) as usize, (slot % page_slots) as usize)
}

/// 64 KiB.
const PAGE_SLOTS: u16 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u32) -> Location {
        Location {
            segment: 1,
            offset,
            len: 10,
        }
    }

    #[test]
    fn a_slot_is_free_after_its_last_reference_and_used_again() {
        let mut messages = Messages::default();
        let slot = messages.insert(at(1));
        messages.refer(slot);
        messages.refer(slot);
        assert_eq!(messages.location(slot), at(1));
        assert_eq!(messages.release(slot), None);
        assert_eq!(messages.release(slot), Some(at(1)));
        assert_eq!(messages.len(), 0);
        assert_eq!(messages.insert(at(2)), slot);
        assert!(messages.free_unused(slot));
        assert_eq!(messages.len(), 0);
    }

    #[test]
    fn slots_are_distinct_and_pages_go_when_their_messages_are_gone() {
        let mut messages = Messages::default();
        let slots: Vec<SlotNumber> = (0..20_000)
            .map(|offset| {
                let slot = messages.insert(at(offset));
                messages.refer(slot);
                slot
            })
            .collect();
        for (offset, &slot) in (0..).zip(&slots) {
            assert_eq!(messages.location(slot), at(offset));
        }
        let pages = |messages: &Messages| {
            let in_use = messages.pages.iter().filter(|page| !page.slots.is_empty());
            in_use.count()
        };
        assert_eq!(pages(&messages), 5);
        for (offset, &slot) in (0..).zip(&slots) {
            assert_eq!(messages.release(slot), Some(at(offset)));
        }
        assert!(pages(&messages) <= 2, "{}", pages(&messages));
        for offset in 0..20_000 {
            let slot = messages.insert(at(offset));
            messages.refer(slot);
            assert_eq!(messages.location(slot), at(offset));
        }
        assert_eq!((messages.pages.len(), messages.len()), (5, 20_000));
    }
}
