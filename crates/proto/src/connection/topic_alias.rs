//! Topic Aliases (section 3.3.2.3.4), both ways, for one Network Connection.
//!
//! Owns: the alias tables. Does not own: the maxima's negotiation. Start reading at [`InboundAliases`].
//! Invariant: no alias outside 1..=maximum is ever stored or sent.

use crate::packet::TopicAliasUse;

/// What the peer's aliases stand for.
#[derive(Debug, Default)]
pub(crate) struct InboundAliases {
    topics: Vec<Option<Box<str>>>,
}

impl InboundAliases {
    pub(crate) const EMPTY: Self = Self { topics: Vec::new() };

    /// Remembers `topic` for `alias`, which is not above the announced maximum.
    pub(crate) fn define(&mut self, alias: u16, topic: &str) {
        let index = usize::from(alias) - 1;
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        if let Some(slot) = self.topics.get_mut(index)
            && slot.as_deref() != Some(topic)
        {
            *slot = Some(topic.into());
        }
    }

    pub(crate) fn resolve(&self, alias: u16) -> Option<&str> {
        self.topics
            .get(usize::from(alias).checked_sub(1)?)?
            .as_deref()
    }
}

/// Which aliases stand for our topics at the peer; the least recently used one is taken again.
#[derive(Debug, Default)]
pub(crate) struct OutboundAliases {
    maximum: u16,
    uses: u64,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    topic: Box<str>,
    last_used: u64,
}

impl OutboundAliases {
    /// `maximum` is the smaller of the peer's Topic Alias Maximum and our own bound.
    pub(crate) const fn new(maximum: u16) -> Self {
        Self {
            maximum,
            uses: 0,
            slots: Vec::new(),
        }
    }

    /// Whether aliases may be used at all.
    pub(crate) const fn is_enabled(&self) -> bool {
        self.maximum > 0
    }

    /// How to send `topic`: with the alias it has, with a new one, or (maximum 0) without.
    /// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]
    pub(crate) fn assign(&mut self, topic: &str) -> Option<TopicAliasUse> {
        if self.maximum == 0 {
            return None;
        }
        self.uses += 1;
        let uses = self.uses;
        let known = self
            .slots
            .iter_mut()
            .zip(1_u16..)
            .find(|(slot, _)| &*slot.topic == topic);
        if let Some((slot, alias)) = known {
            slot.last_used = uses;
            return Some(TopicAliasUse::Replace(alias));
        }
        let new = Slot {
            topic: topic.into(),
            last_used: uses,
        };
        if self.slots.len() < usize::from(self.maximum) {
            self.slots.push(new);
            return u16::try_from(self.slots.len())
                .ok()
                .map(TopicAliasUse::Define);
        }
        let (oldest, alias) = self
            .slots
            .iter_mut()
            .zip(1_u16..)
            .min_by_key(|(slot, _)| slot.last_used)?;
        *oldest = new;
        Some(TopicAliasUse::Define(alias))
    }

    /// Forgets the alias that [`Self::assign`] just defined, because it was not sent.
    pub(crate) fn forget(&mut self, alias: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(alias) - 1) {
            slot.topic = "".into();
            slot.last_used = 0;
        }
    }
}
