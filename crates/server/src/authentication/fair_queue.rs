//! Who is served next, where strangers wait.
//!
//! Owns: [`FairQueue`]. Does not own: what waits. Start reading at
//! [`FairQueue::push`]. Invariant: at most `len_max` wait, and no origin waits for all that another one has.

use std::collections::{HashMap, VecDeque};

use crate::peer::Origin;

/// Items of many origins, of which each is served in turn.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    of: HashMap<Origin, VecDeque<T>>,
    /// Origins of which something waits, each once.
    turns: VecDeque<Origin>,
    len: usize,
    len_max: usize,
}

impl<T> FairQueue<T> {
    /// At most `len_max` wait.
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            of: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
            len_max,
        }
    }

    /// At most `len_max` wait from now on; those that do stay.
    pub(crate) const fn set_len_max(&mut self, len_max: usize) {
        self.len_max = len_max;
    }

    /// Takes `item` in; returns what has no room: it, or the newest of the origin of which the most waits.
    /// O(1), or O(origins) while it is full.
    pub(crate) fn push(&mut self, origin: Origin, item: T) -> Option<T> {
        let mut left_out = None;
        if self.len >= self.len_max {
            let own = self.of.get(&origin).map_or(0, VecDeque::len);
            let longest = self.of.iter().max_by_key(|(_, items)| items.len());
            let Some(greedy) = longest
                .filter(|(_, items)| items.len() > own + 1)
                .map(|(address, _)| *address)
            else {
                return Some(item);
            };
            // At least one of it stays, so its turn does.
            left_out = self.of.get_mut(&greedy).and_then(VecDeque::pop_back);
            self.len -= usize::from(left_out.is_some());
        }
        let items = self.of.entry(origin).or_default();
        if items.is_empty() {
            self.turns.push_back(origin);
        }
        items.push_back(item);
        self.len += 1;
        left_out
    }

    /// The next one, of the origin whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let origin = self.turns.pop_front()?;
        let items = self.of.get_mut(&origin)?;
        let item = items.pop_front();
        if items.is_empty() {
            self.of.remove(&origin);
        } else {
            self.turns.push_back(origin);
        }
        self.len -= usize::from(item.is_some());
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Origin {
        Origin::Address([192, 0, 2, last].into())
    }

    fn drained(mut queue: FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn every_origin_is_served_in_turn() {
        let mut queue = FairQueue::new(100);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(queue.push(address(1), item), None);
        }
        queue.push(address(2), "b1");
        queue.push(address(3), "c1");
        queue.push(address(2), "b2");
        assert_eq!(drained(queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn where_too_many_wait_the_greediest_origin_waits_in_vain() {
        let mut queue = FairQueue::new(3);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(queue.push(address(1), item), None);
        }
        assert_eq!(queue.push(address(1), "a4"), Some("a4"));
        assert_eq!(queue.push(address(2), "b1"), Some("a3"));
        // Nobody else has more than one more.
        assert_eq!(queue.push(address(2), "b2"), Some("b2"));
        assert_eq!(queue.push(address(3), "c1"), Some("a2"));
        assert_eq!(drained(queue), ["a1", "b1", "c1"]);
        assert_eq!(FairQueue::new(0).push(address(1), "none"), Some("none"));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_origin() {
        let block = |text: &str| text.parse::<Origin>().expect("an address").block();
        assert_eq!(block("2001:db8::1"), block("2001:db8::ffff:1:2:3"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_eq!(block("::ffff:192.0.2.1"), address(1));
    }
}
