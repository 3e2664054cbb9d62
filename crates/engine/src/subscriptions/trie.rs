//! A tree of Topic Filters, one node per level, that finds everything interested in a Topic Name.
//!
//! Owns: nodes, edges, interned level names. Does not own: what an interest means, caching.
//! Start reading at [`Trie::visit`]. Invariants: a node has an interest or a child, except the
//! root; a level name is kept exactly as long as an edge bears it; no recursion, whatever the depth.

use std::hash::BuildHasher;
use std::num::NonZeroU32;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;

use super::session_set::SessionSet;
use crate::keys::{KeyedState, ShardIndex, ShardSet};
use crate::sessions::map_bytes;
use crate::shared_subscriptions::GroupKey;

/// Everyone who wants what one Topic Filter matches.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Sessions of this shard with a Non-shared Subscription.
    pub(super) sessions: SessionSet,
    /// Other shards that have such a session.
    pub(super) remote: ShardSet,
    rare: Option<Box<Rare>>,
}

/// What few Topic Filters have.
#[derive(Debug, Default)]
struct Rare {
    /// Other shards whose sessions are all full.
    full: ShardSet,
    /// Shared Subscriptions of this Topic Filter, ascending.
    groups: Vec<GroupKey>,
}

impl Interest {
    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.remote.is_empty() && self.groups().is_empty()
    }

    /// Shared Subscriptions of this Topic Filter, ascending.
    pub(super) fn groups(&self) -> &[GroupKey] {
        self.rare.as_ref().map_or(&[], |rare| &rare.groups)
    }

    /// Other shards whose sessions are all full.
    pub(super) fn full(&self) -> ShardSet {
        self.rare.as_ref().map_or(ShardSet::EMPTY, |rare| rare.full)
    }

    /// Returns whether that is news.
    pub(super) fn set_full(&mut self, shard: ShardIndex, is_full: bool) -> bool {
        if is_full == self.full().contains(shard) {
            return false;
        }
        self.change(|rare| {
            if is_full {
                rare.full.insert(shard);
            } else {
                rare.full.remove(shard);
            }
        });
        true
    }

    /// Returns whether that is news.
    pub(super) fn set_group(&mut self, group: GroupKey, is_there: bool) -> bool {
        match (self.groups().binary_search(&group), is_there) {
            (Err(at), true) => self.change(|rare| rare.groups.insert(at, group)),
            (Ok(at), false) => self.change(|rare| {
                rare.groups.remove(at);
            }),
            (Ok(_), true) | (Err(_), false) => return false,
        }
        true
    }

    fn change(&mut self, change: impl FnOnce(&mut Rare)) {
        let rare = self.rare.get_or_insert_default();
        change(rare);
        if rare.full.is_empty() && rare.groups.is_empty() {
            self.rare = None;
        }
    }
}

/// A node: a Topic Filter, or the first levels of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(NonZeroU32);

impl NodeId {
    /// Counted from one, so that none takes no place of its own.
    fn at(slot: usize) -> Self {
        let number = u32::try_from(slot + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("invariant: fewer than 2^32 levels fit in memory"))
    }

    const fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The tree.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Slab<Node>,
    root: NodeId,
    /// Children by name; hashed and compared by the child's own `parent` and `step`.
    edges: HashTable<NodeId>,
    levels: Levels,
    /// How many nodes have an interest.
    interests: usize,
    hash: KeyedState,
    /// Kept from walk to walk for their memory only.
    topic_levels: Vec<Option<LevelId>>,
    walk: Vec<(NodeId, usize)>,
}

impl Trie {
    /// An empty tree whose names are hashed with `hash`.
    pub(super) fn new(hash: KeyedState) -> Self {
        let mut nodes = Slab::new();
        let root = NodeId::at(nodes.insert(Node::new(None, Step::REST)));
        Self {
            nodes,
            root,
            edges: HashTable::new(),
            levels: Levels::default(),
            interests: 0,
            hash,
            topic_levels: Vec::new(),
            walk: Vec::new(),
        }
    }

    /// Calls `found` with each interest whose Topic Filter matches `topic`, in no order a caller
    /// may lean on. O(nodes that match a beginning of `topic`), each looked at once.
    pub(super) fn visit(&mut self, topic: &str, mut found: impl FnMut(&Interest)) {
        let mut topic_levels = std::mem::take(&mut self.topic_levels);
        let mut walk = std::mem::take(&mut self.walk);
        topic_levels.extend(
            topic
                .split('/')
                .map(|level| self.levels.find(level, &self.hash)),
        );
        // [MQTT-4.7.2-1] [v3.1.1 MQTT-4.7.2-1] A wildcard in front does not reach a `$` topic.
        let wildcards_from = usize::from(topic.starts_with('$'));
        walk.push((self.root, 0));
        while let Some((id, depth)) = walk.pop() {
            let node = self.node(id);
            if let Some(rest) = node.rest.filter(|_| depth >= wildcards_from) {
                // 4.7.1.2: `#` also stands for no level at all, so `a/#` matches `a`.
                self.node(rest)
                    .interest
                    .iter()
                    .for_each(|interest| found(interest));
            }
            let Some(level) = topic_levels.get(depth) else {
                node.interest.iter().for_each(|interest| found(interest));
                continue;
            };
            if let Some(any) = node.any.filter(|_| depth >= wildcards_from) {
                walk.push((any, depth + 1));
            }
            if let Some(named) = level.and_then(|level| self.named_child(id, level)) {
                walk.push((named, depth + 1));
            }
        }
        topic_levels.clear();
        self.topic_levels = topic_levels;
        self.walk = walk;
    }

    /// The node of `filter`, if the tree has it. O(levels).
    pub(super) fn find(&self, filter: &str) -> Option<NodeId> {
        filter
            .split('/')
            .try_fold(self.root, |id, level| match level {
                "+" => self.node(id).any,
                "#" => self.node(id).rest,
                name => self.named_child(id, self.levels.find(name, &self.hash)?),
            })
    }

    /// The node of `filter`, made if need be. The caller then gives it an interest, or calls
    /// [`Trie::prune`]. O(levels); the caller limits how many levels a Topic Filter may have.
    pub(super) fn find_or_insert(&mut self, filter: &str) -> NodeId {
        let mut id = self.root;
        for level in filter.split('/') {
            id = match level {
                "+" => match self.node(id).any {
                    Some(any) => any,
                    None => {
                        let any = self.insert_node(id, Step::ANY);
                        self.node_mut(id).any = Some(any);
                        any
                    }
                },
                "#" => match self.node(id).rest {
                    Some(rest) => rest,
                    None => {
                        let rest = self.insert_node(id, Step::REST);
                        self.node_mut(id).rest = Some(rest);
                        rest
                    }
                },
                name => self.named_child_or_insert(id, name),
            };
        }
        id
    }

    /// What `id` holds, if anything.
    pub(super) fn interest(&self, id: NodeId) -> Option<&Interest> {
        self.node(id).interest.as_deref()
    }

    /// What `id` holds, to be changed. Call [`Trie::prune`] after taking something out.
    pub(super) fn interest_mut(&mut self, id: NodeId) -> &mut Interest {
        if self.node(id).interest.is_none() {
            self.interests += 1;
        }
        self.node_mut(id).interest.get_or_insert_default()
    }

    /// Frees `id` and the nodes above it that now lead nowhere. O(levels).
    pub(super) fn prune(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        if node
            .interest
            .as_ref()
            .is_some_and(|interest| interest.is_empty())
        {
            node.interest = None;
            self.interests -= 1;
        }
        let mut next = Some(id);
        while let Some(id) = next.filter(|&id| self.node(id).is_useless()) {
            let Some(parent) = self.node(id).parent else {
                return;
            };
            self.cut(id, parent);
            self.nodes.remove(id.slot());
            next = Some(parent);
        }
        let capacity = self.nodes.capacity();
        if capacity > KEPT_MAX && self.nodes.len() < capacity / SPARSE {
            self.compact();
        }
    }

    /// Gives back the places of a rush that is over: every node and every name moves to the front. Ids from before mean
    /// nothing any more. O(places), which are paid for by those that have left them.
    pub(super) fn compact(&mut self) {
        let moved_levels = self.levels.compact(&self.hash);
        let mut nodes = Slab::with_capacity(self.nodes.len() * 2);
        let old = std::mem::replace(&mut self.nodes, Slab::new());
        let mut moved = Moved::default();
        for (slot, node) in old {
            moved.note(slot, nodes.insert(node));
        }
        let node_of = |old: NodeId| NodeId::at(moved.new_of(old.slot()));
        self.edges = HashTable::with_capacity(nodes.len() * 2);
        for (slot, node) in &mut nodes {
            node.parent = node.parent.map(node_of);
            node.any = node.any.map(node_of);
            node.rest = node.rest.map(node_of);
            if let (Some(parent), Some(level)) = (node.parent, node.step.level()) {
                let level = LevelId(key_of(moved_levels.new_of(slot_of(level.0))));
                node.step = Step::named(level);
                let hash = self.hash.hash_one((parent.0, level.0));
                let no_growth = |_: &NodeId| unreachable!("invariant: there is room for all");
                self.edges.insert_unique(hash, NodeId::at(slot), no_growth);
            }
        }
        self.root = node_of(self.root);
        self.nodes = nodes;
        self.walk = Vec::new();
        self.topic_levels = Vec::new();
    }

    /// Bytes of it, the sets of Sessions counted as empty. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * (size_of::<Node>() + size_of::<usize>())
            + map_bytes(self.edges.capacity(), size_of::<NodeId>())
            + self.interests * size_of::<Interest>()
            + self.levels.memory_bytes()
    }

    /// How many nodes there are, the root included.
    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// How many level names are kept.
    #[cfg(test)]
    pub(super) fn level_count(&self) -> usize {
        self.levels.names.len()
    }

    fn insert_node(&mut self, parent: NodeId, step: Step) -> NodeId {
        NodeId::at(self.nodes.insert(Node::new(Some(parent), step)))
    }

    fn named_child(&self, parent: NodeId, level: LevelId) -> Option<NodeId> {
        let wanted = (Some(parent), Step::named(level));
        let hash = self.hash.hash_one((parent.0, level.0));
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
        let (nodes, state) = (&self.nodes, &self.hash);
        self.edges.insert_unique(
            state.hash_one((parent.0, level.0)),
            child,
            |&child| match node_at(nodes, child).edge() {
                (Some(parent), step) if let Some(level) = step.level() => {
                    state.hash_one((parent.0, level.0))
                }
                _ => unreachable!("invariant: only named children are in `edges`"),
            },
        );
        child
    }

    /// Takes `child` out of what its parent and the level names know.
    fn cut(&mut self, child: NodeId, parent: NodeId) {
        match self.node(child).step {
            Step::ANY => self.node_mut(parent).any = None,
            Step::REST => self.node_mut(parent).rest = None,
            named => {
                let level = named.level();
                let level = level.expect("invariant: any other step has a name");
                let hash = self.hash.hash_one((parent.0, level.0));
                if let Ok(edge) = self.edges.find_entry(hash, |&id| id == child) {
                    edge.remove();
                }
                self.node_mut(parent).named_children -= 1;
                self.levels.release(level, &self.hash);
            }
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        node_at(&self.nodes, id)
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes
            .get_mut(id.slot())
            .expect("invariant: a NodeId in use names a node")
    }
}

#[derive(Debug)]
struct Node {
    parent: Option<NodeId>,
    step: Step,
    any: Option<NodeId>,
    rest: Option<NodeId>,
    named_children: u32,
    interest: Option<Box<Interest>>,
}

impl Node {
    const fn new(parent: Option<NodeId>, step: Step) -> Self {
        Self {
            parent,
            step,
            any: None,
            rest: None,
            named_children: 0,
            interest: None,
        }
    }

    const fn edge(&self) -> (Option<NodeId>, Step) {
        (self.parent, self.step)
    }

    const fn is_useless(&self) -> bool {
        self.interest.is_none()
            && self.any.is_none()
            && self.rest.is_none()
            && self.named_children == 0
    }
}

/// How one gets from a node to its child: one level of a Topic Filter. In four bytes, for there is one in each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step(u32);

impl Step {
    /// `+`.
    const ANY: Self = Self(0);
    /// `#`; the root, which has no parent, bears it too.
    const REST: Self = Self(1);

    fn named(level: LevelId) -> Self {
        let number = level.0.checked_add(2);
        Self(number.expect("invariant: fewer than 2^32 levels fit in memory"))
    }

    fn level(self) -> Option<LevelId> {
        self.0.checked_sub(2).map(LevelId)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LevelId(u32);

/// Level names, each kept once however many edges bear it.
#[derive(Debug, Default)]
struct Levels {
    names: Slab<LevelName>,
    /// Bytes of the names.
    bytes: usize,
    by_name: HashTable<LevelId>,
}

#[derive(Debug)]
struct LevelName {
    name: Box<str>,
    edges: u32,
}

impl Levels {
    fn memory_bytes(&self) -> usize {
        self.bytes
            + self.names.capacity() * (size_of::<LevelName>() + size_of::<usize>())
            + map_bytes(self.by_name.capacity(), size_of::<LevelId>())
    }

    /// Moves all names to the front; returns where they are now.
    fn compact(&mut self, state: &KeyedState) -> Moved {
        let mut names = Slab::with_capacity(self.names.len() * 2);
        let mut moved = Moved::default();
        self.by_name = HashTable::with_capacity(self.names.len() * 2);
        for (slot, level) in std::mem::replace(&mut self.names, Slab::new()) {
            let hash = state.hash_one(&*level.name);
            let id = names.insert(level);
            moved.note(slot, id);
            let no_growth = |_: &LevelId| unreachable!("invariant: there is room for all");
            self.by_name
                .insert_unique(hash, LevelId(key_of(id)), no_growth);
        }
        self.names = names;
        moved
    }

    fn find(&self, name: &str, state: &KeyedState) -> Option<LevelId> {
        // [MQTT-4.7.3-4] Compared byte by byte, nothing normalised.
        let is_it = |id: &LevelId| &*name_at(&self.names, *id).name == name;
        self.by_name.find(state.hash_one(name), is_it).copied()
    }

    /// The name's id, counting one more edge that bears it.
    fn hold(&mut self, name: &str, state: &KeyedState) -> LevelId {
        let Self {
            names,
            bytes,
            by_name,
        } = self;
        let entry = by_name.entry(
            state.hash_one(name),
            |id| &*name_at(names, *id).name == name,
            |id| state.hash_one(&*name_at(names, *id).name),
        );
        let id = match entry {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let level = LevelName {
                    name: name.into(),
                    edges: 0,
                };
                let id = LevelId(key_of(names.insert(level)));
                *bytes += name.len();
                entry.insert(id);
                id
            }
        };
        names
            .get_mut(slot_of(id.0))
            .expect("invariant: a LevelId in use names a level")
            .edges += 1;
        id
    }

    fn release(&mut self, id: LevelId, state: &KeyedState) {
        let level = self.names.get_mut(slot_of(id.0));
        let level = level.expect("invariant: a LevelId in use names a level");
        level.edges -= 1;
        if level.edges == 0 {
            let hash = state.hash_one(&*level.name);
            if let Ok(entry) = self.by_name.find_entry(hash, |&other| other == id) {
                entry.remove();
            }
            let level = self.names.remove(slot_of(id.0));
            self.bytes -= level.name.len();
        }
    }
}

/// Where things are that have moved, by where they were.
#[derive(Debug, Default)]
struct Moved(Vec<u32>);

impl Moved {
    fn note(&mut self, old: usize, new: usize) {
        if self.0.len() <= old {
            self.0.resize(old + 1, u32::MAX);
        }
        if let Some(place) = self.0.get_mut(old) {
            *place = key_of(new);
        }
    }

    fn new_of(&self, old: usize) -> usize {
        let new = self.0.get(old);
        slot_of(*new.expect("invariant: an id in use names something that has moved"))
    }
}

fn node_at(nodes: &Slab<Node>, id: NodeId) -> &Node {
    nodes
        .get(id.slot())
        .expect("invariant: a NodeId in use names a node")
}

fn name_at(names: &Slab<LevelName>, id: LevelId) -> &LevelName {
    names
        .get(slot_of(id.0))
        .expect("invariant: a LevelId in use names a level")
}

const fn slot_of(key: u32) -> usize {
    key as usize
}

fn key_of(slot: usize) -> u32 {
    u32::try_from(slot).expect("invariant: fewer than 2^32 levels fit in memory")
}

/// So many places are kept though they are free.
const KEPT_MAX: usize = 4096;
/// With more, at least one in so many is in use.
const SPARSE: usize = 8;
