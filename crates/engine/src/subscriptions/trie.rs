//! A tree of Topic Filters, one node per level, that finds everything interested in a Topic Name.
//!
//! Owns: nodes, edges, interned level names. Does not own: what an interest means, caching.
//! Start reading at [`Trie::visit`]. Invariants: a node has an interest or a child, except the
//! root; a level name is kept exactly as long as an edge bears it; no recursion, whatever the depth.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;

use super::Subscription;
use crate::keys::{KeyedState, SessionKey, ShardSet};
use crate::sessions::map_bytes;
use crate::shared_subscriptions::GroupKey;

/// Everyone who wants what one Topic Filter matches.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Sessions of this shard with a Non-shared Subscription.
    pub(super) sessions: BTreeMap<SessionKey, Subscription>,
    /// Other shards that have such a session.
    pub(super) remote: ShardSet,
    /// Those of them whose sessions are all full.
    pub(super) full: ShardSet,
    /// Shared Subscriptions of this Topic Filter, ascending.
    pub(super) groups: Vec<GroupKey>,
}

impl Interest {
    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.remote.is_empty() && self.groups.is_empty()
    }
}

/// A node: a Topic Filter, or the first levels of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(u32);

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
        let root = NodeId(key_of(nodes.insert(Node::new(None, Step::Rest))));
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
                        let any = self.insert_node(id, Step::Any);
                        self.node_mut(id).any = Some(any);
                        any
                    }
                },
                "#" => match self.node(id).rest {
                    Some(rest) => rest,
                    None => {
                        let rest = self.insert_node(id, Step::Rest);
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
            self.nodes.remove(slot_of(id.0));
            next = Some(parent);
        }
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
        NodeId(key_of(self.nodes.insert(Node::new(Some(parent), step))))
    }

    fn named_child(&self, parent: NodeId, level: LevelId) -> Option<NodeId> {
        let wanted = (Some(parent), Step::Named(level));
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
        let child = self.insert_node(parent, Step::Named(level));
        self.node_mut(parent).named_children += 1;
        let (nodes, state) = (&self.nodes, &self.hash);
        self.edges.insert_unique(
            state.hash_one((parent.0, level.0)),
            child,
            |&child| match node_at(nodes, child).edge() {
                (Some(parent), Step::Named(level)) => state.hash_one((parent.0, level.0)),
                _ => unreachable!("invariant: only named children are in `edges`"),
            },
        );
        child
    }

    /// Takes `child` out of what its parent and the level names know.
    fn cut(&mut self, child: NodeId, parent: NodeId) {
        match self.node(child).step {
            Step::Any => self.node_mut(parent).any = None,
            Step::Rest => self.node_mut(parent).rest = None,
            Step::Named(level) => {
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
            .get_mut(slot_of(id.0))
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

/// How one gets from a node to its child: one level of a Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// `+`.
    Any,
    /// `#`; the root, which has no parent, bears it too.
    Rest,
    Named(LevelId),
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

fn node_at(nodes: &Slab<Node>, id: NodeId) -> &Node {
    nodes
        .get(slot_of(id.0))
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
