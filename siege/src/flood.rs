//! Publishers at full speed, and the books of what was acknowledged to them.
//!
//! Owns: [`Flood`], [`Books`]. Does not own: who reads it. Start reading at [`Flood`].
//! Invariant: a message is owed from the moment its PUBACK says success, and not before.

use std::collections::HashMap;

use crate::swarm::Role;
use crate::wire;

/// Which messages, of publishers that number theirs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    of: Vec<Vec<u64>>,
}

impl Books {
    /// Notes one; whether it is new.
    pub(crate) fn note(&mut self, publisher: usize, number: usize) -> bool {
        if self.of.len() <= publisher {
            self.of.resize_with(publisher + 1, Vec::new);
        }
        let words = &mut self.of[publisher];
        if words.len() <= number / 64 {
            words.resize(number / 64 + 1, 0);
        }
        let (word, bit) = (&mut words[number / 64], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Notes all that `other` has.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.of.len() < other.of.len() {
            self.of.resize_with(other.of.len(), Vec::new);
        }
        for (mine, others) in self.of.iter_mut().zip(&other.of) {
            if mine.len() < others.len() {
                mine.resize(others.len(), 0);
            }
            for (word, other) in mine.iter_mut().zip(others) {
                *word |= other;
            }
        }
    }

    /// How many are noted here and not there.
    pub(crate) fn missing_in(&self, other: &Self) -> u64 {
        let nothing = Vec::new();
        let mut missing = 0;
        for (publisher, words) in self.of.iter().enumerate() {
            let others = other.of.get(publisher).unwrap_or(&nothing);
            for (at, word) in words.iter().enumerate() {
                let there = others.get(at).copied().unwrap_or(0);
                missing += u64::from((word & !there).count_ones());
            }
        }
        missing
    }
}

/// How publishers speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// 0 or 1.
    pub(crate) qos: u8,
    pub(crate) is_retained: bool,
    /// Messages that wait for their PUBACK, of one publisher.
    pub(crate) window: u16,
    pub(crate) payload_len: usize,
    /// So many of each publisher, and no more.
    pub(crate) most: usize,
}

/// Publishers, by the number of their connections.
#[derive(Debug)]
pub(crate) struct Flood<F> {
    manner: Manner,
    /// The topic of a message, by publisher and number.
    topic: F,
    publishers: Vec<Publisher>,
    payload: Vec<u8>,
    pub(crate) is_over: bool,
    pub(crate) acknowledged: Books,
    pub(crate) acknowledged_count: u64,
    pub(crate) refused: u64,
    pub(crate) sent: usize,
    pub(crate) ended: u64,
    pub(crate) reasons: HashMap<u8, u64>,
}

#[derive(Clone, Debug, Default)]
struct Publisher {
    is_open: bool,
    next: usize,
    free: Vec<u16>,
    /// The number a Packet Identifier is in use for.
    open: Vec<usize>,
}

impl<F: FnMut(usize, usize, &mut String)> Flood<F> {
    /// So many, none of them connected.
    pub(crate) fn new(count: usize, manner: Manner, topic: F) -> Self {
        let publisher = Publisher {
            is_open: false,
            next: 0,
            free: (1..=manner.window).rev().collect(),
            open: vec![0; usize::from(manner.window) + 1],
        };
        Self {
            manner,
            topic,
            publishers: vec![publisher; count],
            payload: vec![b'x'; manner.payload_len.max(8)],
            is_over: false,
            acknowledged: Books::default(),
            acknowledged_count: 0,
            refused: 0,
            sent: 0,
            ended: 0,
            reasons: HashMap::new(),
        }
    }

    /// Whether everything that was to be sent is answered.
    pub(crate) fn is_done(&self) -> bool {
        let window = usize::from(self.manner.window);
        self.publishers
            .iter()
            .all(|one| one.next >= self.manner.most && one.free.len() == window)
    }

    /// Messages without an answer.
    pub(crate) fn open(&self) -> usize {
        let window = usize::from(self.manner.window);
        self.publishers
            .iter()
            .map(|one| window - one.free.len())
            .sum()
    }

    fn fill(&mut self, n: usize, out: &mut Vec<u8>) {
        let Some(publisher) = self.publishers.get_mut(n) else {
            return;
        };
        let mut topic = String::new();
        while publisher.is_open
            && !self.is_over
            && publisher.next < self.manner.most
            && out.len() < FILL
        {
            let packet_id = match self.manner.qos {
                0 => 0,
                _ => match publisher.free.pop() {
                    Some(id) => id,
                    None => break,
                },
            };
            let number = publisher.next;
            publisher.next += 1;
            publisher.open[usize::from(packet_id)] = number;
            topic.clear();
            (self.topic)(n, number, &mut topic);
            write_stamp(&mut self.payload, n, number);
            let Manner {
                qos, is_retained, ..
            } = self.manner;
            wire::publish(out, &topic, qos, packet_id, is_retained, &self.payload);
            self.sent += 1;
        }
    }
}

impl<F: FnMut(usize, usize, &mut String)> Role for Flood<F> {
    fn on_packet(&mut self, n: usize, first: u8, body: &[u8], out: &mut Vec<u8>) {
        let Some(publisher) = self.publishers.get_mut(n) else {
            return;
        };
        match first >> 4 {
            2 => publisher.is_open = body.get(1) == Some(&0),
            4 => {
                let id = wire::number(body).unwrap_or_default();
                let reason = body.get(2).copied().unwrap_or_default();
                publisher.free.push(id);
                if reason < 0x80 {
                    let number = publisher.open[usize::from(id)];
                    self.acknowledged.note(n, number);
                    self.acknowledged_count += 1;
                } else {
                    self.refused += 1;
                    *self.reasons.entry(reason).or_default() += 1;
                }
            }
            _ => {}
        }
        self.fill(n, out);
    }

    fn on_drained(&mut self, n: usize, out: &mut Vec<u8>) {
        self.fill(n, out);
    }

    fn on_end(&mut self, n: usize) {
        self.ended += 1;
        if let Some(publisher) = self.publishers.get_mut(n) {
            publisher.is_open = false;
        }
    }
}

/// What a payload begins with: who says it, and which it is.
fn write_stamp(payload: &mut [u8], publisher: usize, number: usize) {
    let stamp = (publisher as u64) << 40 | number as u64;
    payload[..8].copy_from_slice(&stamp.to_be_bytes());
}

/// Publisher and number of a payload.
pub(crate) fn read_stamp(payload: &[u8]) -> Option<(usize, usize)> {
    let stamp = u64::from_be_bytes(payload.first_chunk().copied()?);
    let publisher = usize::try_from(stamp >> 40).ok()?;
    Some((publisher, usize::try_from(stamp & ((1 << 40) - 1)).ok()?))
}

/// As much is written ahead for one connection.
const FILL: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_say_what_is_missing() {
        let (mut owed, mut seen) = (Books::default(), Books::default());
        for number in 0..200 {
            assert!(owed.note(3, number));
            if number % 2 == 0 {
                seen.note(3, number);
            }
        }
        assert!(!owed.note(3, 7));
        assert_eq!(owed.missing_in(&seen), 100);
        assert_eq!(seen.missing_in(&owed), 0);
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let mut payload = [0; 9];
        write_stamp(&mut payload, 199, 12_345_678);
        assert_eq!(read_stamp(&payload), Some((199, 12_345_678)));
    }
}
