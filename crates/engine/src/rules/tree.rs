//! The patterns of all rules in one tree by level, so that a topic is compared with few of them.
//!
//! Owns: [`Tree`]. Does not own: what a rule says beside its topics. Start reading at [`Tree::visit`].
//! Invariants: rule numbers of a node ascend; a tree finds what comparing with each pattern finds.

use std::collections::HashMap;

use super::pattern::{Level, Template};
use super::{Effect, Subject, TopicPattern};

/// Rules by the levels of their patterns.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<Box<str>, usize>,
    single: Option<usize>,
    /// What a place that is not taken means depends on the effect of the rule.
    templates: Vec<(Template, Effect, usize)>,
    /// Rules whose pattern ends here.
    here: Vec<u32>,
    /// Rules whose pattern ends with `#` below.
    below: Vec<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Tree {
    /// Adds a pattern of the rule `number`, which has this effect; numbers come ascending.
    pub(super) fn insert(&mut self, pattern: &TopicPattern, number: u32, effect: Effect) {
        let mut at = ROOT;
        for level in pattern.levels() {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return;
            };
            let child = match level {
                Level::Multi => {
                    node.below.push(number);
                    return;
                }
                Level::Single => *node.single.get_or_insert(next),
                Level::Literal(text) => *node.literal.entry(text.clone()).or_insert(next),
                Level::Template(template) => {
                    let is_it = |(own, of, _): &&(Template, Effect, usize)| {
                        own == template && *of == effect
                    };
                    let found = node.templates.iter().find(is_it);
                    let found = found.map(|(_, _, child)| *child);
                    if found.is_none() {
                        node.templates.push((template.clone(), effect, next));
                    }
                    found.unwrap_or(next)
                }
            };
            if child == next {
                self.nodes.push(Node::default());
            }
            at = child;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.here.push(number);
        }
    }

    /// Calls `look_at` with the rules that have a pattern that matches `topic`, ascending within one call.
    pub(super) fn visit(
        &self,
        topic: &str,
        subject: Subject<'_>,
        look_at: &mut impl FnMut(&[u32]),
    ) {
        // Where the way goes on; where it parts, the other ways wait in `open`.
        let mut next = Some((ROOT, Some(topic)));
        let mut open = Vec::new();
        while let Some((at, rest)) = next.take().or_else(|| open.pop()) {
            let Some(node) = self.nodes.get(at) else {
                continue;
            };
            // [MQTT-4.7.2-1] [v3.1.1 MQTT-4.7.2-1]
            let is_wild = at != ROOT || !topic.starts_with('$');
            // `a/#` matches `a`, too.
            if is_wild {
                look_at(&node.below);
            }
            let Some(rest) = rest else {
                look_at(&node.here);
                continue;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            let mut go = |child| match next {
                None => next = Some((child, rest)),
                Some(_) => open.push((child, rest)),
            };
            if let Some(child) = node.literal.get(level) {
                go(*child);
            }
            if let Some(child) = node.single.filter(|_| is_wild) {
                go(child);
            }
            for (template, effect, child) in &node.templates {
                if template.is(level, subject, *effect) {
                    go(*child);
                }
            }
        }
    }
}

/// The node where every pattern begins.
const ROOT: usize = 0;
