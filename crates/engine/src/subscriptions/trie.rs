//! A tree of the Topic Filters that have a wildcard, one node per level, that finds those that match a Topic Name.
//!
//! Owns: nodes, edges, interned level names. Does not own: what an interest means (see `interest`), Topic Filters without
//! a wildcard (see `plain`), caching.
//! Start reading at [`Trie::visit`]. Invariants: a node has an interest or a child, except the
//! root; a level name is kept exactly as long as an edge bears it; no recursion, whatever the depth; no insertion moves
//! more than a part of a table.

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;
use std::ops::Range;

use super::interest::{Held, Holder, Interest, Interests};
use crate::arena::Arena;
use crate::keys::KeyedState;
use crate::parted_table::PartedTable;

/// A node: the first levels of a Topic Filter, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeId(NonZeroU32);

impl NodeId {
    /// Counted from one, so that none takes no place of its own.
    fn at(number: u32) -> Self {
        let number = number.checked_add(1).and_then(NonZeroU32::new);
        Self(number.expect("invariant: fewer than 2^32 levels fit in memory"))
    }

    const fn number(self) -> u32 {
        self.0.get() - 1
    }
}

/// Where the interest in a Topic Filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilterId {
    node: NodeId,
    /// Whether it ends with `#`, and the node is that of the levels before.
    is_rest: bool,
}

/// The tree.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Arena<Node>,
    root: NodeId,
    /// Children by name; hashed and compared by the child's own `parent` and `step`.
    edges: PartedTable<NodeId>,
    levels: Levels,
    interests: Interests,
    hash: KeyedState,
    /// Kept from walk to walk for their memory only.
    topic_levels: Vec<TopicLevel>,
    walk: Vec<(NodeId, usize)>,
}

/// One level of the Topic Name that is looked for.
#[derive(Clone, Debug)]
struct TopicLevel {
    /// Where it stands in the Topic Name.
    bytes: Range<usize>,
    /// Its name, if any edge bears it; looked up when a node asks for it, as most are not.
    id: Option<Option<LevelId>>,
}

impl Trie {
    /// An empty tree whose names are hashed with `hash`.
    pub(super) fn new(hash: KeyedState) -> Self {
        let mut nodes = Arena::default();
        let root = NodeId::at(nodes.insert(Node::new(None, Step::ROOT)));
        Self {
            nodes,
            root,
            edges: PartedTable::default(),
            levels: Levels::default(),
            interests: Interests::default(),
            hash,
            topic_levels: Vec::new(),
            walk: Vec::new(),
        }
    }

    /// Calls `found` with each interest whose Topic Filter matches `topic`, in no order a caller
    /// may lean on. Returns at how many nodes it has looked: those that match a beginning of `topic`,
    /// each once, whether anything is found there or not. O(that).
    pub(super) fn visit(&mut self, topic: &str, mut found: impl FnMut(Held<'_>)) -> u64 {
        let mut topic_levels = std::mem::take(&mut self.topic_levels);
        let mut walk = std::mem::take(&mut self.walk);
        // [MQTT-4.7.2-1] [v3.1.1 MQTT-4.7.2-1] A wildcard in front does not reach a `$` topic.
        let wildcards_from = usize::from(topic.starts_with('$'));
        walk.push((self.root, 0));
        let mut walked = 0;
        while let Some((id, depth)) = walk.pop() {
            walked += 1;
            let node = self.node(id);
            if !node.rest.is_nobody() && depth >= wildcards_from {
                // 4.7.1.2: `#` also stands for no level at all, so `a/#` matches `a`.
                found(self.interests.of(node.rest));
            }
            let Some(level) = level_at(&mut topic_levels, topic, depth) else {
                if !node.own.is_nobody() {
                    found(self.interests.of(node.own));
                }
                continue;
            };
            if let Some(any) = node.any.filter(|_| depth >= wildcards_from) {
                walk.push((any, depth + 1));
            }
            if node.named_children > 0
                && let Some(level) = self.level_of(topic, level)
                && let Some(named) = self.named_child(id, level)
            {
                walk.push((named, depth + 1));
            }
        }
        topic_levels.clear();
        self.topic_levels = topic_levels;
        self.walk = walk;
        walked
    }

    /// The place of `filter`, if the tree has it. O(levels).
    pub(super) fn find(&self, filter: &str) -> Option<FilterId> {
        let mut node = self.root;
        for level in filter.split('/') {
            node = match level {
                "+" => self.node(node).any?,
                // [MQTT-4.7.1-1] [v3.1.1 MQTT-4.7.1-2] It is the last.
                "#" => {
                    return Some(FilterId {
                        node,
                        is_rest: true,
                    });
                }
                name => self.named_child(node, self.levels.find(name, &self.hash)?)?,
            };
        }
        Some(FilterId {
            node,
            is_rest: false,
        })
    }

    /// The place of `filter`, made if need be. The caller then gives it an interest, or calls
    /// [`Trie::prune`]. O(levels); the caller limits how many levels a Topic Filter may have.
    pub(super) fn find_or_insert(&mut self, filter: &str) -> FilterId {
        let mut node = self.root;
        for level in filter.split('/') {
            node = match level {
                "+" => match self.node(node).any {
                    Some(any) => any,
                    None => {
                        let any = self.insert_node(node, Step::ANY);
                        self.node_mut(node).any = Some(any);
                        any
                    }
                },
                "#" => {
                    return FilterId {
                        node,
                        is_rest: true,
                    };
                }
                name => self.named_child_or_insert(node, name),
            };
        }
        FilterId {
            node,
            is_rest: false,
        }
    }

    /// Who wants what this Topic Filter matches.
    pub(super) fn interest(&self, id: FilterId) -> Held<'_> {
        let node = self.node(id.node);
        self.interests
            .of(if id.is_rest { node.rest } else { node.own })
    }

    /// Changes that. Call [`Trie::prune`] after taking something out.
    pub(super) fn change<R>(&mut self, id: FilterId, change: impl FnOnce(&mut Interest) -> R) -> R {
        let node = self.nodes.get_mut(id.node.number());
        let node = node.expect("invariant: a NodeId in use names a node");
        let holder = if id.is_rest {
            &mut node.rest
        } else {
            &mut node.own
        };
        self.interests.change(holder, change)
    }

    /// Frees the node of `id` and those above it that now lead nowhere. O(levels).
    pub(super) fn prune(&mut self, id: FilterId) {
        let mut next = Some(id.node);
        while let Some(id) = next.filter(|&id| self.node(id).is_useless()) {
            let Some(parent) = self.node(id).parent else {
                return;
            };
            self.cut(id, parent);
            self.nodes.remove(id.number());
            next = Some(parent);
        }
        let capacity = self.nodes.capacity();
        if capacity > KEPT_MAX && self.nodes.len() < capacity / SPARSE {
            self.compact();
        }
    }

    /// Gives back the places of a rush that is over, where those that are left lie scattered: every node and every name
    /// moves to the front. Ids from before mean nothing any more. O(places), which are paid for by those that have left them.
    pub(super) fn compact(&mut self) {
        let moved_levels = self.levels.compact(&self.hash);
        let mut nodes = Arena::default();
        let mut moved = Moved::default();
        for (number, node) in std::mem::take(&mut self.nodes).into_values() {
            moved.note(number, nodes.insert(node));
        }
        let node_of = |old: NodeId| NodeId::at(moved.new_of(old.number()));
        self.edges = PartedTable::default();
        let mut named = Vec::new();
        for (number, node) in nodes.iter_mut() {
            node.parent = node.parent.map(node_of);
            node.any = node.any.map(node_of);
            if let (Some(parent), Some(level)) = (node.parent, node.step.level()) {
                let level = LevelId(moved_levels.new_of(level.0));
                node.step = Step::named(level);
                named.push((edge_hash(&self.hash, parent, level), NodeId::at(number)));
            }
        }
        for (hash, child) in named {
            self.edges
                .insert_unique(hash, child, edge_hash_of(&nodes, &self.hash));
        }
        self.root = node_of(self.root);
        self.nodes = nodes;
        self.walk = Vec::new();
        self.topic_levels = Vec::new();
    }

    /// Bytes of it. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        self.nodes.memory_bytes()
            + self.edges.memory_bytes()
            + self.interests.memory_bytes()
            + self.levels.memory_bytes()
    }

    /// How many nodes there are, the root included.
    #[cfg(test)]
    pub(super) const fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// How many level names are kept.
    #[cfg(test)]
    pub(super) const fn level_count(&self) -> usize {
        self.levels.names.len()
    }

    fn insert_node(&mut self, parent: NodeId, step: Step) -> NodeId {
        NodeId::at(self.nodes.insert(Node::new(Some(parent), step)))
    }

    /// The name of a level of `topic`, looked up once.
    fn level_of(&self, topic: &str, level: &mut TopicLevel) -> Option<LevelId> {
        let bytes = level.bytes.clone();
        let name = || self.levels.find(topic.get(bytes)?, &self.hash);
        *level.id.get_or_insert_with(name)
    }

    fn named_child(&self, parent: NodeId, level: LevelId) -> Option<NodeId> {
        let wanted = (Some(parent), Step::named(level));
        let hash = edge_hash(&self.hash, parent, level);
        self.edges
            .find(hash, |&child| self.node(child).edge() == wanted)
            .copied()
    }

    fn named_child_or_insert(&mut self, parent: NodeId, name: &str) -> NodeId {
        if let Some(level) = self.levels.find(name, &self.hash)
            && let Some(child) = self.named_child(parent, level)
        {
            return child;
        }
        let level = self.levels.hold(name, &self.hash);
        let child = self.insert_node(parent, Step::named(level));
        self.node_mut(parent).named_children += 1;
        let hash = edge_hash(&self.hash, parent, level);
        self.edges
            .insert_unique(hash, child, edge_hash_of(&self.nodes, &self.hash));
        child
    }

    /// Takes `child` out of what its parent and the level names know.
    fn cut(&mut self, child: NodeId, parent: NodeId) {
        let Some(level) = self.node(child).step.level() else {
            self.node_mut(parent).any = None;
            return;
        };
        let hash = edge_hash(&self.hash, parent, level);
        let hash_of = edge_hash_of(&self.nodes, &self.hash);
        self.edges.remove(hash, |&id| id == child, hash_of);
        self.node_mut(parent).named_children -= 1;
        self.levels.release(level, &self.hash);
    }

    fn node(&self, id: NodeId) -> &Node {
        node_at(&self.nodes, id)
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes
            .get_mut(id.number())
            .expect("invariant: a NodeId in use names a node")
    }
}

/// A node, in 32 bytes: there may be millions of them.
#[derive(Debug)]
struct Node {
    parent: Option<NodeId>,
    step: Step,
    any: Option<NodeId>,
    named_children: u32,
    /// Who wants what the levels up to here match.
    own: Holder,
    /// The same with `#` behind them.
    rest: Holder,
}

impl Node {
    const fn new(parent: Option<NodeId>, step: Step) -> Self {
        Self {
            parent,
            step,
            any: None,
            named_children: 0,
            own: Holder::NOBODY,
            rest: Holder::NOBODY,
        }
    }

    const fn edge(&self) -> (Option<NodeId>, Step) {
        (self.parent, self.step)
    }

    const fn is_useless(&self) -> bool {
        self.own.is_nobody()
            && self.rest.is_nobody()
            && self.any.is_none()
            && self.named_children == 0
    }
}

/// How one gets from a node to its child: one level of a Topic Filter. In four bytes, for there is one in each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step(NonZeroU32);

impl Step {
    /// To nowhere: the root has no parent.
    const ROOT: Self = Self(NonZeroU32::MIN);
    /// `+`.
    const ANY: Self = Self(NonZeroU32::MIN.saturating_add(1));

    fn named(level: LevelId) -> Self {
        let number = level.0.checked_add(3).and_then(NonZeroU32::new);
        Self(number.expect("invariant: fewer than 2^32 levels fit in memory"))
    }

    fn level(self) -> Option<LevelId> {
        self.0.get().checked_sub(3).map(LevelId)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LevelId(u32);

/// Level names, each kept once however many edges bear it.
#[derive(Debug, Default)]
struct Levels {
    names: Arena<LevelName>,
    /// Bytes of the long names.
    bytes: usize,
    by_name: PartedTable<LevelId>,
}

/// A name and how many edges bear it. In 24 bytes, for there may be millions of them, most of them short.
#[derive(Debug)]
enum LevelName {
    Short {
        edges: u32,
        len: u8,
        bytes: [u8; SHORT_MAX],
    },
    Long {
        edges: u32,
        bytes: Box<[u8]>,
    },
}

impl LevelName {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; SHORT_MAX];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(name);
                Self::Short {
                    edges: 0,
                    len,
                    bytes,
                }
            }
            _ => Self::Long {
                edges: 0,
                bytes: name.into(),
            },
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes, .. } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long { bytes, .. } => bytes,
        }
    }

    const fn edges(&mut self) -> &mut u32 {
        match self {
            Self::Short { edges, .. } | Self::Long { edges, .. } => edges,
        }
    }

    /// Bytes beside its own place.
    fn extra_bytes(&self) -> usize {
        match self {
            Self::Short { .. } => 0,
            Self::Long { bytes, .. } => bytes.len(),
        }
    }
}

impl Levels {
    fn memory_bytes(&self) -> usize {
        self.bytes + self.names.memory_bytes() + self.by_name.memory_bytes()
    }

    /// Moves all names to the front; returns where they are now.
    fn compact(&mut self, state: &KeyedState) -> Moved {
        let mut names = Arena::default();
        let mut moved = Moved::default();
        self.by_name = PartedTable::default();
        for (number, level) in std::mem::take(&mut self.names).into_values() {
            let hash = name_hash(state, level.bytes());
            let id = names.insert(level);
            moved.note(number, id);
            self.by_name
                .insert_unique(hash, LevelId(id), name_hash_of(&names, state));
        }
        self.names = names;
        moved
    }

    fn find(&self, name: &str, state: &KeyedState) -> Option<LevelId> {
        let name = name.as_bytes();
        // [MQTT-4.7.3-4] Compared byte by byte, nothing normalised.
        let is_it = |id: &LevelId| name_at(&self.names, *id).bytes() == name;
        self.by_name.find(name_hash(state, name), is_it).copied()
    }

    /// The name's id, counting one more edge that bears it.
    fn hold(&mut self, name: &str, state: &KeyedState) -> LevelId {
        let id = self.find(name, state).unwrap_or_else(|| {
            let level = LevelName::new(name.as_bytes());
            self.bytes += level.extra_bytes();
            let id = LevelId(self.names.insert(level));
            let hash = name_hash(state, name.as_bytes());
            self.by_name
                .insert_unique(hash, id, name_hash_of(&self.names, state));
            id
        });
        if let Some(level) = self.names.get_mut(id.0) {
            *level.edges() += 1;
        }
        id
    }

    fn release(&mut self, id: LevelId, state: &KeyedState) {
        let level = self.names.get_mut(id.0);
        let level = level.expect("invariant: a LevelId in use names a level");
        let edges = level.edges();
        *edges -= 1;
        if *edges == 0 {
            self.bytes -= level.extra_bytes();
            let hash = name_hash(state, level.bytes());
            let hash_of = name_hash_of(&self.names, state);
            self.by_name.remove(hash, |&other| other == id, hash_of);
            self.names.remove(id.0);
        }
    }
}

/// The level of `topic` at `depth`, if it has so many. A node is visited after the one above it: all before are in `levels`.
fn level_at<'a>(
    levels: &'a mut Vec<TopicLevel>,
    topic: &str,
    depth: usize,
) -> Option<&'a mut TopicLevel> {
    if levels.len() <= depth {
        let start = levels.last().map_or(0, |last| last.bytes.end + 1);
        let len = first_level_bytes(topic.as_bytes().get(start..)?);
        let bytes = start..start + len;
        levels.push(TopicLevel { bytes, id: None });
    }
    levels.get_mut(depth)
}

/// Bytes before the first `/`. Levels are short: for them a search that is made for long texts costs more than it saves.
pub(super) fn first_level_bytes(rest: &[u8]) -> usize {
    let separator = rest.iter().position(|byte| *byte == b'/');
    separator.unwrap_or(rest.len())
}

/// Where things are that have moved, by where they were.
#[derive(Debug, Default)]
struct Moved(Vec<u32>);

impl Moved {
    fn note(&mut self, old: u32, new: u32) {
        let old = old as usize;
        if self.0.len() <= old {
            self.0.resize(old + 1, u32::MAX);
        }
        if let Some(place) = self.0.get_mut(old) {
            *place = new;
        }
    }

    fn new_of(&self, old: u32) -> u32 {
        let new = self.0.get(old as usize);
        *new.expect("invariant: an id in use names something that has moved")
    }
}

fn node_at(nodes: &Arena<Node>, id: NodeId) -> &Node {
    nodes
        .get(id.number())
        .expect("invariant: a NodeId in use names a node")
}

fn name_at(names: &Arena<LevelName>, id: LevelId) -> &LevelName {
    names
        .get(id.0)
        .expect("invariant: a LevelId in use names a level")
}

fn edge_hash(state: &KeyedState, parent: NodeId, level: LevelId) -> u64 {
    state.hash_one(u64::from(parent.0.get()) << 32 | u64::from(level.0))
}

/// The hash of an edge, by the child it leads to.
fn edge_hash_of<'a>(nodes: &'a Arena<Node>, state: &'a KeyedState) -> impl Fn(&NodeId) -> u64 + 'a {
    |&child| match node_at(nodes, child).edge() {
        (Some(parent), step) if let Some(level) = step.level() => edge_hash(state, parent, level),
        _ => unreachable!("invariant: only named children are in `edges`"),
    }
}

fn name_hash(state: &KeyedState, name: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(name);
    hasher.finish()
}

fn name_hash_of<'a>(
    names: &'a Arena<LevelName>,
    state: &'a KeyedState,
) -> impl Fn(&LevelId) -> u64 + 'a {
    |&id| name_hash(state, name_at(names, id).bytes())
}

/// Bytes of a name that is kept in its place.
const SHORT_MAX: usize = 18;
/// So many places are kept though they are free.
const KEPT_MAX: usize = 4096;
/// With more, at least one in so many is in use.
const SPARSE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_takes_32_bytes_and_a_level_name_24_in_their_places() {
        let bytes = |nodes: usize, names: usize| {
            let mut arenas = (Arena::default(), Arena::default());
            (0..nodes).for_each(|_| {
                arenas.0.insert(Node::new(None, Step::ROOT));
            });
            (0..names).for_each(|_| {
                arenas.1.insert(LevelName::new(b"temperature"));
            });
            (arenas.0.memory_bytes(), arenas.1.memory_bytes())
        };
        let (nodes, names) = bytes(256 * 64, 256 * 64);
        assert!(nodes <= 256 * 64 * 33, "{nodes}");
        assert!(names <= 256 * 64 * 25, "{names}");
    }
}
