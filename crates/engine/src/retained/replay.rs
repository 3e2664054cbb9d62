//! The way of a replay through the Retained Messages that match one Topic Filter.
//!
//! Owns: [`Replay`], where the next topic that can match may be. Does not own: whom it is for and how much of it is done
//! (see `crate::replay`). Start reading at [`Replay::next_batch`].
//! Invariant: it never looks at a topic twice, and its work per call is bounded.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use proto::Message;

use super::Retained;

/// Where a replay of the Retained Messages that match one Topic Filter has got to.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    filter: Box<str>,
    next: Next,
    /// The last write, by its arrival, that is part of it.
    until: u64,
}

/// How much one call does: at most so many topics, and not much more than so many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) looks: usize,
    pub(crate) bytes: usize,
}

impl Budget {
    /// Whether nothing can be done with it.
    pub(crate) const fn is_none(self) -> bool {
        self.looks == 0 || self.bytes == 0
    }
}

impl Replay {
    /// A replay of everything that matches `filter` (well-formed, not shared).
    pub(crate) fn new(filter: &str) -> Self {
        let mut from = String::new();
        push_until_wildcard(&mut from, filter.split('/'));
        Self {
            filter: filter.into(),
            next: Next::From(from),
            until: u64::MAX,
        }
    }

    /// Leaves out what is written after the write `arrival`: the Subscription gets it as it comes,
    /// and must not get it again, or an older one after it.
    pub(crate) const fn end_at(&mut self, arrival: u64) {
        self.until = arrival;
    }

    /// Goes to the first topic that matches, or as near to it as so many looks bring it. O(looks log n).
    pub(crate) fn seek(&mut self, retained: &Retained, looks: usize) {
        for _ in 0..looks {
            let Some(bound) = self.next.bound() else {
                return;
            };
            self.next = match retained.onward(bound).next() {
                None => Next::Done,
                Some((message, _)) if proto::topic::matches(&self.filter, message.topic()) => {
                    return;
                }
                Some((message, _)) => next_possible(&self.filter, message.topic()),
            };
        }
    }

    /// Appends the next messages in ascending order of topic to `batch`, within `budget`, of which what was used is taken
    /// off; may append none though there are more, see [`Replay::is_done`]. Messages that come, go or change
    /// between calls are seen as they then are, up to [`Replay::end_at`]. O(log n + looks * topic length), and O(log n)
    /// for each topic that does not match.
    pub(crate) fn next_batch(
        &mut self,
        retained: &Retained,
        now: Instant,
        budget: &mut Budget,
        batch: &mut Vec<Arc<Message>>,
    ) {
        let Some(bound) = self.next.bound() else {
            return;
        };
        let matching = Matching::new(&self.filter);
        let mut ahead = retained.onward(bound);
        let mut last = None;
        let mut found = Vec::with_capacity(budget.looks.min(FOUND_MAX));
        while budget.looks > 0 && budget.bytes > 0 {
            let Some((message, arrival)) = ahead.next() else {
                (self.next, last) = (Next::Done, None);
                break;
            };
            budget.looks -= 1;
            if matching.is(message) {
                // [MQTT-3.3.2-5] An expired message goes to nobody.
                if arrival <= self.until && !message.is_expired(now) {
                    budget.bytes = budget.bytes.saturating_sub(message.memory_bytes());
                    found.push(message);
                }
                last = Some(message);
                continue;
            }
            (self.next, last) = (next_possible(&self.filter, message.topic()), None);
            let Some(bound) = self.next.bound() else {
                break;
            };
            ahead = retained.onward(bound);
        }
        if let Some(message) = last {
            self.next = Next::After(message.topic().into());
        }
        // Not one by one above: whoever takes a share of a message waits for all that was read before, and these come from
        // all over the memory.
        batch.extend(found.into_iter().cloned());
    }

    /// Whether everything has been seen.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.next, Next::Done)
    }

    /// The Topic Filter.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }
}

/// What of the topics, in order, is still to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    From(String),
    After(String),
    Done,
}

impl Next {
    fn bound(&self) -> Option<Bound<&str>> {
        match self {
            Self::From(topic) => Some(Bound::Included(topic)),
            Self::After(topic) => Some(Bound::Excluded(topic)),
            Self::Done => None,
        }
    }
}

/// Comparing many topics with one Topic Filter.
enum Matching<'a> {
    /// All that does not begin with `$`.
    All,
    /// All below a level without a wildcard before it, and the level itself.
    Below(&'a [u8]),
    Any(&'a str),
}

impl<'a> Matching<'a> {
    fn new(filter: &'a str) -> Self {
        match filter.strip_suffix("/#") {
            None if filter == "#" => Self::All,
            Some(level) if !level.contains('+') => Self::Below(level.as_bytes()),
            _ => Self::Any(filter),
        }
    }

    fn is(&self, message: &Message) -> bool {
        match self {
            // [MQTT-4.7.2-1] [v3.1.1 MQTT-4.7.2-1]
            Self::All => !message.topic_bytes().starts_with(b"$"),
            Self::Below(level) => {
                let rest = message.topic_bytes().strip_prefix(*level);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            }
            Self::Any(filter) => proto::topic::matches(filter, message.topic()),
        }
    }
}

/// Where, after `topic` which does not match, the next topic that could match `filter` may be.
/// Never beyond one that does match; usually many topics further on.
///
/// Topics are in the order of their bytes, so all topics under one first level lie together
/// (between `a/` and `a0`, the character after `/`), but `a-b/x` lies before `a/x`.
fn next_possible(filter: &str, topic: &str) -> Next {
    // [MQTT-4.7.2-1] [v3.1.1 MQTT-4.7.2-1] A wildcard in front does not reach a `$` topic.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return Next::From(AFTER_DOLLAR.into());
    }
    // Ends of the levels of `topic` that an any-level wildcard took.
    let mut any_level_end = None;
    let mut start = 0;
    let mut levels = filter.split('/');
    while let Some(level) = levels.next() {
        let rest = topic.get(start..).unwrap_or_default();
        let (found, is_last) = match rest.split_once('/') {
            Some((found, _)) => (found, false),
            None => (rest, true),
        };
        let end = start + found.len();
        if level != "+" && level != found {
            let prefix = topic.get(..start).unwrap_or_default();
            if let Some(from) = first_with_level(prefix, level, levels, topic) {
                return Next::From(from);
            }
            break;
        }
        if level == "+" && is_last {
            // Too short; but `a-b/x` lies between `a` and `a/x`.
            return Next::After(topic.into());
        }
        if is_last {
            let mut from = format!("{topic}/");
            push_until_wildcard(&mut from, levels);
            return Next::From(from);
        }
        if level == "+" {
            any_level_end = Some(end);
        }
        start = end + 1;
    }
    // Nothing more with these levels: on to another one where any will do.
    match any_level_end.and_then(|end| topic.get(..end)) {
        Some(prefix) => Next::From(format!("{prefix}{AFTER_SEPARATOR}")),
        None => Next::Done,
    }
}

/// The first text above `topic` that begins with `prefix` and `level` as a whole level and could
/// match the `rest` of the filter; `None` if all such are below `topic`.
fn first_with_level<'a>(
    prefix: &str,
    level: &str,
    rest: impl Iterator<Item = &'a str> + Clone,
    topic: &str,
) -> Option<String> {
    let mut from = format!("{prefix}{level}");
    let mut after = rest.clone();
    if after.next() == Some("#") {
        // Both the level itself and what is below it.
        if from.as_str() > topic {
            return Some(from);
        }
        from.push('/');
    } else if rest.clone().next().is_some() {
        from.push('/');
        push_until_wildcard(&mut from, rest);
    }
    (from.as_str() > topic).then_some(from)
}

/// Appends the levels up to the first wildcard: no topic that matches is below the result.
fn push_until_wildcard<'a>(from: &mut String, levels: impl Iterator<Item = &'a str>) {
    for (number, level) in levels.enumerate() {
        match level {
            // `a/#` also matches `a`, which `a/` would leave out.
            "#" => return,
            "+" => {
                if number > 0 {
                    from.push('/');
                }
                return;
            }
            level => {
                if number > 0 {
                    from.push('/');
                }
                from.push_str(level);
            }
        }
    }
}

/// The character after `/`.
const AFTER_SEPARATOR: char = '0';

/// The character after `$`.
const AFTER_DOLLAR: &str = "%";

/// Places for messages that are made at once.
const FOUND_MAX: usize = 256;
