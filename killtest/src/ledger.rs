//! What was acknowledged, what was seen, and what follows from the two.
//!
//! Owns: the books and their audit. Does not own: how anything is sent. Start reading at [`Ledger::audit`].
//! Invariant: a message is entered as sent before its first byte leaves, and as acknowledged only when
//! the broker has said so.

use std::collections::{BTreeMap, BTreeSet};

/// A message: who published it, at which QoS, its number there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) publisher: String,
    pub(crate) qos: u8,
    pub(crate) number: u64,
}

impl Sent {
    /// As it stands in a payload.
    pub(crate) fn payload(&self) -> String {
        format!("{} {} {}", self.publisher, self.qos, self.number)
    }

    /// From a payload.
    pub(crate) fn parse(payload: &str) -> Option<Self> {
        let mut words = payload.split(' ');
        let sent = Self {
            publisher: words.next()?.to_owned(),
            qos: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(sent)
    }
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeSet<Sent>,
    /// By subscriber, in the order of arrival; with the highest QoS it is granted.
    received: BTreeMap<(String, u8), Vec<Sent>>,
    /// Wills whose client was connected when the broker was killed.
    wills_owed: BTreeSet<u64>,
    /// As `received`.
    wills_seen: BTreeMap<(String, u8), Vec<u64>>,
    /// Anything else that must not be.
    pub(crate) broken: Vec<String>,
}

/// What an audit found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Deliveries owed: acknowledged messages times subscribers.
    pub(crate) owed: usize,
    pub(crate) lost: Vec<String>,
    pub(crate) repeated: Vec<String>,
    pub(crate) disordered: Vec<String>,
    pub(crate) broken: Vec<String>,
}

impl Ledger {
    /// The broker has acknowledged it.
    pub(crate) fn acknowledge(&mut self, sent: Sent) {
        self.acknowledged.insert(sent);
    }

    /// A subscriber is there, and has to get everything from now on.
    pub(crate) fn subscribed(&mut self, subscriber: &str, qos: u8) {
        self.received
            .entry((subscriber.to_owned(), qos))
            .or_default();
    }

    /// A subscriber has got it.
    pub(crate) fn receive(&mut self, subscriber: &str, qos: u8, sent: Sent) {
        let key = (subscriber.to_owned(), qos);
        self.received.entry(key).or_default().push(sent);
    }

    /// A will that must be published now.
    pub(crate) fn owe_will(&mut self, number: u64) {
        self.wills_owed.insert(number);
    }

    /// A will has come.
    pub(crate) fn receive_will(&mut self, subscriber: &str, qos: u8, number: u64) {
        let key = (subscriber.to_owned(), qos);
        self.wills_seen.entry(key).or_default().push(number);
    }

    /// How many messages are acknowledged.
    pub(crate) fn acknowledged_len(&self) -> usize {
        self.acknowledged.len()
    }

    /// How many messages and wills `subscriber` still misses.
    pub(crate) fn missing(&self, subscriber: &str, qos: u8) -> usize {
        let key = (subscriber.to_owned(), qos);
        let Some(received) = self.received.get(&key) else {
            return 0;
        };
        let received: BTreeSet<_> = received.iter().collect();
        let missing = self
            .acknowledged
            .iter()
            .filter(|sent| !received.contains(sent));
        let wills = self.wills_seen.get(&key);
        let will_is_missing = |number: &&u64| wills.is_some_and(|seen| !seen.contains(number));
        missing.count() + self.wills_owed.iter().filter(will_is_missing).count()
    }

    /// What is wrong.
    pub(crate) fn audit(&self) -> Findings {
        let mut findings = Findings {
            broken: self.broken.clone(),
            ..Findings::default()
        };
        for ((subscriber, granted), received) in &self.received {
            self.audit_one(subscriber, *granted, received, &mut findings);
        }
        for ((subscriber, granted), seen) in &self.wills_seen {
            findings.owed += self.wills_owed.len();
            let unique: BTreeSet<_> = seen.iter().collect();
            let lost = self.wills_owed.iter().filter(|will| !unique.contains(will));
            findings
                .lost
                .extend(lost.map(|will| format!("{subscriber}: will {will}")));
            if *granted == 2 && unique.len() < seen.len() {
                findings
                    .repeated
                    .push(format!("{subscriber}: wills {seen:?}"));
            }
        }
        findings
    }

    fn audit_one(&self, subscriber: &str, granted: u8, received: &[Sent], findings: &mut Findings) {
        findings.owed += self.acknowledged.len();
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<(&str, u8), u64> = BTreeMap::new();
        for sent in received {
            if !seen.insert(sent) {
                if granted.min(sent.qos) == 2 {
                    findings.repeated.push(format!("{subscriber}: {sent:?}"));
                }
                continue;
            }
            let last = last.entry((&sent.publisher, sent.qos)).or_default();
            if *last > sent.number {
                findings
                    .disordered
                    .push(format!("{subscriber}: {sent:?} after {last}"));
            }
            *last = sent.number;
        }
        let lost = self.acknowledged.iter().filter(|sent| !seen.contains(sent));
        findings
            .lost
            .extend(lost.map(|sent| format!("{subscriber}: {sent:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(qos: u8, number: u64) -> Sent {
        Sent {
            publisher: "p".to_owned(),
            qos,
            number,
        }
    }

    #[test]
    fn payloads_are_read_back() {
        let one = sent(2, 7);
        assert_eq!(Sent::parse(&one.payload()), Some(one));
        assert_eq!(Sent::parse("garbage"), None);
    }

    #[test]
    fn losses_repeats_and_disorder_are_found_and_qos_1_repeats_are_not() {
        let mut ledger = Ledger::default();
        ledger.subscribed("s", 2);
        for number in 1..=4 {
            ledger.acknowledge(sent(2, number));
        }
        ledger.acknowledge(sent(1, 1));
        for (qos, number) in [(1, 1), (1, 1), (2, 1), (2, 1), (2, 3), (2, 2)] {
            ledger.receive("s", 2, sent(qos, number));
        }
        let findings = ledger.audit();
        assert_eq!(findings.owed, 5);
        assert_eq!(findings.lost.len(), 1);
        assert_eq!(findings.repeated.len(), 1);
        assert_eq!(findings.disordered.len(), 1);
        assert_eq!(ledger.missing("s", 2), 1);
    }

    #[test]
    fn wills_are_owed_once_and_may_repeat_at_qos_1() {
        let mut ledger = Ledger::default();
        ledger.subscribed("s", 2);
        ledger.subscribed("r", 1);
        ledger.owe_will(1);
        ledger.owe_will(2);
        for number in [1, 1] {
            ledger.receive_will("s", 2, number);
        }
        for number in [1, 2, 2] {
            ledger.receive_will("r", 1, number);
        }
        let findings = ledger.audit();
        assert_eq!((findings.lost.len(), findings.repeated.len()), (1, 1));
    }
}
