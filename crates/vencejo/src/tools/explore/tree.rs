//! The topics that were seen, level by level, with what came last.
//!
//! Owns: nodes, values and their history, what they cost, what is left out when that is too much. Does not own: what is
//! shown of it (see `view`), time: it is an argument. Start reading at [`Tree::take`]. Invariant: `bytes <= bytes_max`, and
//! a node's parent is older than the node.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use proto::topic;

use super::rate::Rate;

/// What may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    pub(super) topics_max: usize,
    pub(super) bytes_max: usize,
    /// Values of one topic.
    pub(super) history_max: usize,
}

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(usize);

/// A level of the tree.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) level: Box<str>,
    pub(super) parent: Option<NodeId>,
    pub(super) children: BTreeMap<Box<str>, NodeId>,
    /// What came to the topic that ends here, if anything did.
    pub(super) topic: Option<Topic>,
    /// Topics that end here or below.
    pub(super) topics: usize,
    /// How often something came here or below.
    pub(super) rate: Rate,
}

/// A topic that something was published to.
#[derive(Debug, Default)]
pub(super) struct Topic {
    /// The last value is the one that came last; there is one.
    pub(super) history: VecDeque<Value>,
    pub(super) messages: u64,
    /// The server keeps a retained message here, as far as was seen.
    pub(super) is_retained: bool,
    first_seq: u64,
}

/// A message as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// `None` if there was no room for it.
    pub(super) payload: Option<Bytes>,
    pub(super) len: usize,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// The time of day, as it is shown.
    pub(super) clock: Box<str>,
    /// Properties, a line for each.
    pub(super) properties: Vec<String>,
}

/// All topics that were seen.
#[derive(Debug)]
pub(super) struct Tree {
    /// The first is the root, which is no level.
    nodes: Vec<Node>,
    caps: Caps,
    began: Instant,
    bytes: usize,
    /// Those of them that nodes take without their values.
    node_bytes: usize,
    /// How many values there are.
    values: usize,
    /// Values by age, with some that are gone.
    older: VecDeque<(NodeId, u64)>,
    /// Those that were the only ones of their topics when their turn came.
    last_ones: VecDeque<(NodeId, u64)>,
    /// Messages to topics that there was no room for.
    left_out: u64,
    /// Values that had to go before their time.
    forgotten: u64,
}

/// A node that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: NodeId,
    pub(super) depth: usize,
    pub(super) is_open: bool,
}

impl Tree {
    pub(super) fn new(caps: Caps, began: Instant) -> Self {
        Self {
            nodes: vec![Node::default()],
            caps,
            began,
            bytes: 0,
            node_bytes: 0,
            values: 0,
            older: VecDeque::new(),
            last_ones: VecDeque::new(),
            left_out: 0,
            forgotten: 0,
        }
    }

    /// Takes a message that came to `name`. `is_flag_kept`: the server leaves RETAIN as it was published (5.0).
    pub(super) fn take(&mut self, name: &str, value: Value, is_flag_kept: bool, now: Instant) {
        let Some(id) = self.find_or_make(name) else {
            self.left_out += 1;
            return;
        };
        let Some(value) = self.fitted(value) else {
            self.left_out += 1;
            return;
        };
        self.bytes += cost(&value);
        self.values += 1;
        let is_cleared = value.len == 0 && (value.retain || !is_flag_kept);
        let history_max = self.caps.history_max.max(1);
        let node = &mut self.nodes[id.0];
        let is_new = node.topic.is_none();
        let topic = node.topic.get_or_insert_default();
        topic.messages += 1;
        topic.is_retained = (topic.is_retained || value.retain) && !is_cleared;
        let seq = topic.first_seq + topic.history.len() as u64;
        topic.history.push_back(value);
        if topic.history.len() > history_max
            && let Some(old) = topic.history.pop_front()
        {
            topic.first_seq += 1;
            self.bytes -= cost(&old);
            self.values -= 1;
        }
        self.older.push_back((id, seq));
        let mut above = Some(id);
        while let Some(id) = above {
            let node = &mut self.nodes[id.0];
            node.rate.count(now);
            node.topics += usize::from(is_new);
            above = node.parent;
        }
        self.tidy();
    }

    pub(super) const fn root(&self) -> NodeId {
        NodeId(0)
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Nodes there are: this grows whenever the tree gets another shape.
    pub(super) const fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn topics(&self) -> usize {
        self.nodes.first().map_or(0, |root| root.topics)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Messages in a second, here and below.
    pub(super) fn rate(&self, id: NodeId, now: Instant) -> f64 {
        self.node(id).rate.at(now, self.began)
    }

    /// The Topic Name that ends at a node.
    pub(super) fn name(&self, id: NodeId) -> String {
        let mut levels = Vec::new();
        let mut at = id;
        while let Some(parent) = self.node(at).parent {
            levels.push(&*self.node(at).level);
            at = parent;
        }
        levels.reverse();
        levels.join("/")
    }

    /// What is shown when the nodes of `open` are; with a search what matches it, and the way there.
    pub(super) fn rows(&self, open: &HashSet<NodeId>, search: &str) -> Vec<Row> {
        let found = (!search.is_empty()).then(|| self.found(search));
        let is_shown = |id: NodeId| found.as_ref().is_none_or(|found| found[id.0]);
        let mut rows = Vec::new();
        let mut waiting: Vec<(NodeId, usize)> = Vec::new();
        let children = |id: NodeId, depth: usize, waiting: &mut Vec<(NodeId, usize)>| {
            let children = self.node(id).children.values().rev();
            waiting.extend(children.filter(|id| is_shown(**id)).map(|id| (*id, depth)));
        };
        children(self.root(), 0, &mut waiting);
        while let Some((id, depth)) = waiting.pop() {
            let is_open = found.is_some() || open.contains(&id);
            rows.push(Row { id, depth, is_open });
            if is_open {
                children(id, depth + 1, &mut waiting);
            }
        }
        rows
    }

    /// Nodes below `top`, and it itself.
    pub(super) fn below(&self, top: NodeId) -> Vec<NodeId> {
        let mut all = vec![top];
        let mut next = 0;
        while let Some(id) = all.get(next).copied() {
            all.extend(self.node(id).children.values());
            next += 1;
        }
        all
    }

    /// For each node whether a topic at it or below is searched for.
    fn found(&self, search: &str) -> Vec<bool> {
        let mut found = vec![false; self.nodes.len()];
        let is_filter = search.contains(['+', '#']) && topic::check_filter(search).is_ok();
        let small = search.to_lowercase();
        for (number, node) in self.nodes.iter().enumerate() {
            if node.topic.is_none() {
                continue;
            }
            let name = self.name(NodeId(number));
            let is_match = match is_filter {
                true => topic::matches(search, &name),
                false => name.to_lowercase().contains(&small),
            };
            let mut above = is_match.then_some(NodeId(number));
            while let Some(id) = above.filter(|id| !found[id.0]) {
                found[id.0] = true;
                above = self.node(id).parent;
            }
        }
        found
    }

    fn find_or_make(&mut self, name: &str) -> Option<NodeId> {
        let mut id = self.root();
        // Whoever has more levels than this has the others in the last one.
        let mut levels = name.splitn(LEVELS_MAX, '/').peekable();
        while let Some(child) = levels
            .peek()
            .and_then(|level| self.node(id).children.get(*level))
        {
            id = *child;
            levels.next();
        }
        let missing: Vec<&str> = levels.collect();
        let is_topic_new = self.node(id).topic.is_none() || !missing.is_empty();
        if is_topic_new && self.topics() >= self.caps.topics_max {
            return None;
        }
        let needed = missing.iter().map(|level| NODE_BYTES + 2 * level.len());
        let needed = needed.sum();
        if !self.make_room(needed) {
            return None;
        }
        self.bytes += needed;
        self.node_bytes += needed;
        for level in missing {
            let made = NodeId(self.nodes.len());
            self.nodes.push(Node {
                level: level.into(),
                parent: Some(id),
                ..Node::default()
            });
            self.nodes[id.0].children.insert(level.into(), made);
            id = made;
        }
        Some(id)
    }

    /// The value for which there is room: without its payload if need be.
    fn fitted(&mut self, value: Value) -> Option<Value> {
        if self.make_room(cost(&value)) {
            return Some(value);
        }
        let bare = Value {
            payload: None,
            properties: Vec::new(),
            ..value
        };
        self.forgotten += 1;
        self.make_room(cost(&bare)).then_some(bare)
    }

    /// What would stay if everything were forgotten: the nodes, and of each topic that it had a value.
    fn fixed_bytes(&self) -> usize {
        self.node_bytes + self.topics() * VALUE_BYTES
    }

    /// Forgets the oldest values, but of each topic the last one at the end only, until there is room for `needed`; none
    /// where that would not do.
    fn make_room(&mut self, needed: usize) -> bool {
        if self.fixed_bytes().saturating_add(needed) > self.caps.bytes_max {
            return false;
        }
        while self.bytes.saturating_add(needed) > self.caps.bytes_max {
            if let Some((id, seq)) = self.older.pop_front() {
                let Some(topic) = self.nodes[id.0].topic.as_ref() else {
                    continue;
                };
                if seq < topic.first_seq {
                    continue;
                }
                let oldest = topic.first_seq;
                if topic.history.len() == 1 {
                    self.last_ones.push_back((id, seq));
                    continue;
                }
                self.forget(id, seq);
                if oldest != seq {
                    // An older one went, which stood in the other line.
                    self.older.push_front((id, seq));
                }
            } else if let Some((id, seq)) = self.last_ones.pop_front() {
                self.forget(id, seq);
            } else {
                return false;
            }
        }
        true
    }

    /// Forgets a value, if it is there; of the only one that it had a payload.
    fn forget(&mut self, id: NodeId, seq: u64) {
        let Some(topic) = self.nodes[id.0].topic.as_mut() else {
            return;
        };
        if seq < topic.first_seq {
            return;
        }
        if topic.history.len() > 1 {
            let Some(old) = topic.history.pop_front() else {
                return;
            };
            topic.first_seq += 1;
            self.bytes -= cost(&old);
            self.values -= 1;
        } else if let Some(only) = topic.history.front_mut() {
            let before = cost(only);
            only.payload = None;
            only.properties = Vec::new();
            self.bytes -= before - cost(only);
        }
        self.forgotten += 1;
    }

    /// What stands in line and is gone already leaves the line.
    fn tidy(&mut self) {
        let most = 2 * self.values + 512;
        let nodes = &self.nodes;
        let is_there = |(id, seq): &(NodeId, u64)| {
            let topic = nodes.get(id.0).and_then(|node| node.topic.as_ref());
            topic.is_some_and(|topic| *seq >= topic.first_seq)
        };
        for line in [&mut self.older, &mut self.last_ones] {
            if line.len() > most {
                line.retain(is_there);
            }
        }
    }
}

impl Topic {
    pub(super) fn last(&self) -> Option<&Value> {
        self.history.back()
    }
}

fn cost(value: &Value) -> usize {
    let payload = value.payload.as_ref().map_or(0, Bytes::len);
    let properties: usize = value.properties.iter().map(|line| line.len() + 24).sum();
    VALUE_BYTES + payload + properties
}

/// What a node takes beside its level, with its place in its parent.
const NODE_BYTES: usize = 600;
/// What a value takes beside its payload, with its places in both lines.
const VALUE_BYTES: usize = 192;
/// Levels that are told apart.
const LEVELS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CAPS: Caps = Caps {
        topics_max: 1000,
        bytes_max: 1_000_000,
        history_max: 3,
    };

    fn value(payload: &str) -> Value {
        Value {
            payload: Some(Bytes::copy_from_slice(payload.as_bytes())),
            len: payload.len(),
            ..Value::default()
        }
    }

    fn retained(payload: &str) -> Value {
        Value {
            retain: true,
            ..value(payload)
        }
    }

    fn find(tree: &Tree, name: &str) -> NodeId {
        let all = tree.below(tree.root());
        let found = all.into_iter().find(|id| tree.name(*id) == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    }

    fn names(tree: &Tree, open: &[&str], search: &str) -> Vec<String> {
        let open = open.iter().map(|name| find(tree, name)).collect();
        let rows = tree.rows(&open, search);
        let shown = rows.iter().map(|row| (row.depth, tree.name(row.id)));
        shown
            .map(|(depth, name)| format!("{depth} {name}"))
            .collect()
    }

    #[test]
    fn topics_stand_below_their_levels_in_order() {
        let now = Instant::now();
        let mut tree = Tree::new(CAPS, now);
        for name in ["b", "a/y", "a/x/1", "/z", "a"] {
            tree.take(name, value("1"), true, now);
        }
        assert_eq!(names(&tree, &[], ""), ["0 ", "0 a", "0 b"]);
        assert_eq!(
            names(&tree, &["a"], ""),
            ["0 ", "0 a", "1 a/x", "1 a/y", "0 b"]
        );
        let a = find(&tree, "a");
        assert_eq!((tree.node(a).topics, tree.topics()), (3, 5));
        assert_eq!(tree.below(a).len(), 4);
    }

    #[test]
    fn a_search_opens_the_way_to_what_it_finds() {
        let now = Instant::now();
        let mut tree = Tree::new(CAPS, now);
        for name in ["house/Hall/light", "house/attic/light", "garden"] {
            tree.take(name, value("1"), true, now);
        }
        let hall = ["0 house", "1 house/Hall", "2 house/Hall/light"];
        assert_eq!(names(&tree, &[], "hall"), hall);
        assert_eq!(names(&tree, &[], "house/Hall/#"), hall);
        assert_eq!(names(&tree, &[], "+/+/light").len(), 5);
        assert!(names(&tree, &[], "cellar").is_empty());
    }

    #[test]
    fn a_topic_knows_its_last_values_and_whether_one_is_retained() {
        let now = Instant::now();
        let mut tree = Tree::new(CAPS, now);
        for number in 1..=5 {
            let payload = number.to_string();
            tree.take("a", retained(&payload), true, now);
        }
        let a = find(&tree, "a");
        let payloads = |tree: &Tree| -> Vec<Bytes> {
            let topic = tree.node(a).topic.as_ref().unwrap();
            let payloads = topic.history.iter();
            payloads.filter_map(|value| value.payload.clone()).collect()
        };
        assert_eq!(payloads(&tree), ["3", "4", "5"]);
        assert_eq!(tree.node(a).topic.as_ref().unwrap().messages, 5);
        let is_retained = |tree: &Tree| tree.node(a).topic.as_ref().unwrap().is_retained;
        // What is not retained, and empty, leaves what is retained as it is.
        tree.take("a", value("6"), true, now);
        tree.take("a", value(""), true, now);
        assert!(is_retained(&tree));
        tree.take("a", retained(""), true, now);
        assert!(!is_retained(&tree));
        // Of 3.x nobody can tell; an empty one mostly means it.
        tree.take("a", retained("7"), false, now);
        tree.take("a", value(""), false, now);
        assert!(!is_retained(&tree));
    }

    #[test]
    fn rates_add_up_along_the_branch() {
        let began = Instant::now();
        let mut tree = Tree::new(CAPS, began);
        let mut now = began;
        for _ in 0..100 {
            now += Duration::from_millis(100);
            tree.take("a/x", value("1"), true, now);
            tree.take("a/y", value("1"), true, now);
        }
        let rate = |name: &str| tree.rate(find(&tree, name), now);
        assert!((rate("a/x") - 10.0).abs() < 0.5, "{}", rate("a/x"));
        assert!((rate("a") - 20.0).abs() < 1.0, "{}", rate("a"));
        let later = now + Duration::from_secs(120);
        assert!(tree.rate(tree.root(), later) < 0.01);
    }

    #[test]
    fn beyond_the_topics_that_are_kept_messages_are_counted() {
        let now = Instant::now();
        let caps = Caps {
            topics_max: 2,
            ..CAPS
        };
        let mut tree = Tree::new(caps, now);
        for name in ["a/1", "a/2", "a/3", "a", "a/1"] {
            tree.take(name, value("1"), true, now);
        }
        assert_eq!((tree.topics(), tree.left_out()), (2, 2));
        assert_eq!(names(&tree, &["a"], ""), ["0 a", "1 a/1", "1 a/2"]);
    }

    #[test]
    fn whatever_comes_the_bytes_that_are_kept_have_an_end() {
        let now = Instant::now();
        let caps = Caps {
            topics_max: 100,
            bytes_max: 120_000,
            history_max: 10,
        };
        let mut tree = Tree::new(caps, now);
        tree.take("quiet", value(&"q".repeat(100)), true, now);
        let mut seed = 1_u32;
        for round in 0..20_000_u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let name = format!("t/{}/{}", (seed >> 16) % 30, (seed >> 20) % 3);
            let len = usize::try_from((seed >> 8) % 3000).unwrap();
            tree.take(&name, value(&"x".repeat(len)), true, now);
            assert!(tree.bytes() <= caps.bytes_max, "round {round}");
            let counted: usize = tree.nodes.iter().map(weight).sum();
            assert_eq!(counted, tree.bytes(), "round {round}");
        }
        let values = tree.nodes.iter().filter_map(|node| node.topic.as_ref());
        let values: usize = values.map(|topic| topic.history.len()).sum();
        assert_eq!(values, tree.values);
        assert!(tree.older.len() + tree.last_ones.len() <= 4 * values + 1024);
        assert!(tree.forgotten() > 0);
        // One that is larger than all leaves its size.
        tree.take("large", value(&"x".repeat(200_000)), true, now);
        let large = tree.node(find(&tree, "large")).topic.as_ref().unwrap();
        let last = large.last().unwrap();
        assert_eq!((last.len, last.payload.is_none()), (200_000, true));
    }

    #[test]
    fn a_value_for_which_there_is_never_room_takes_no_other_away() {
        let now = Instant::now();
        let caps = Caps {
            topics_max: 100,
            bytes_max: 10_000,
            history_max: 10,
        };
        let nodes = 4 * (NODE_BYTES + 2);
        // One byte more than there is once nothing is left of the others but their places.
        let just_too_long = caps.bytes_max - nodes - 4 * VALUE_BYTES + 1;
        for len in [caps.bytes_max + 1, just_too_long] {
            let mut tree = Tree::new(caps, now);
            for name in ["a", "b", "c"] {
                tree.take(name, value("kept"), true, now);
            }
            tree.take("d", value(&"x".repeat(len)), true, now);
            for name in ["a", "b", "c"] {
                let topic = tree.node(find(&tree, name)).topic.as_ref().unwrap();
                let last = topic.last().unwrap().payload.as_deref();
                assert_eq!(last, Some(b"kept".as_slice()), "{len}");
            }
            let large = tree.node(find(&tree, "d")).topic.as_ref().unwrap();
            assert_eq!(large.last().map(|value| value.len), Some(len));
        }
    }

    fn weight(node: &Node) -> usize {
        let own = node.parent.map_or(0, |_| NODE_BYTES + 2 * node.level.len());
        let values = node.topic.iter().flat_map(|topic| &topic.history);
        own + values.map(cost).sum::<usize>()
    }

    #[test]
    fn history_goes_before_the_last_value_of_a_quiet_topic() {
        let now = Instant::now();
        let caps = Caps {
            topics_max: 100,
            bytes_max: 10_000,
            history_max: 1000,
        };
        let mut tree = Tree::new(caps, now);
        tree.take("quiet", value("kept"), true, now);
        for _ in 0..1000 {
            tree.take("busy", value(&"x".repeat(100)), true, now);
        }
        let quiet = tree.node(find(&tree, "quiet")).topic.as_ref().unwrap();
        let kept = quiet.last().unwrap().payload.as_deref();
        assert_eq!(kept, Some(b"kept".as_slice()));
    }

    #[test]
    fn a_topic_of_very_many_levels_is_one_branch() {
        let now = Instant::now();
        let mut tree = Tree::new(CAPS, now);
        let name = vec!["a"; 30_000].join("/");
        tree.take(&name, value("1"), true, now);
        assert_eq!((tree.size(), tree.topics()), (1 + LEVELS_MAX, 1));
        let deepest = tree.below(tree.root()).pop().unwrap();
        assert_eq!(tree.name(deepest), name);
    }
}
