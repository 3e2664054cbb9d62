//! What a person has chosen to see, and what each key does to it.
//!
//! Owns: the selection, what is open, the search, what is being typed. Does not own: the topics (see `tree`), drawing (see
//! `draw`), the connection: what is to be sent is an [`Action`]. Start reading at [`View::on_key`]. Invariant: what changes
//! something at the server is typed out or confirmed.

use std::collections::HashSet;

use proto::{Qos, topic};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::input::{Input, PublishForm};
use super::shown::{Form, lines};
use super::tree::{NodeId, Row, Tree, Value};

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Publish {
        topic: String,
        payload: String,
        qos: Qos,
        retain: bool,
    },
    /// Publish nothing, retained, to these topics.
    Clear(Vec<String>),
    Leave,
}

/// What the arrows move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Focus {
    #[default]
    Topics,
    Value,
    History,
}

/// What takes the keys instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Prompt {
    #[default]
    None,
    Search(Input),
    Publish(PublishForm),
    /// Whether retained messages are to be cleared, of these topics.
    Clear(Vec<String>),
    Help,
}

/// What is seen.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) rows: Vec<Row>,
    pub(super) selected: Option<NodeId>,
    pub(super) focus: Focus,
    pub(super) form: Form,
    pub(super) is_diff: bool,
    /// How far back in the history of the topic: 0 is the last value.
    pub(super) back: usize,
    /// The first line of the value that is seen.
    pub(super) scroll: usize,
    pub(super) search: String,
    pub(super) prompt: Prompt,
    pub(super) is_paused: bool,
    /// Messages that came while nothing was taken.
    pub(super) missed: u64,
    /// The last thing that happened.
    pub(super) note: String,
    /// Rows of topics that fit on the screen: a page.
    pub(super) page: usize,
    open: HashSet<NodeId>,
    /// Of which tree the rows are.
    size: usize,
}

impl View {
    /// Makes the rows new if the tree has grown.
    pub(super) fn catch_up(&mut self, tree: &Tree) {
        if self.size != tree.size() {
            self.make_rows(tree);
        }
    }

    /// Where in the rows the selection is.
    pub(super) fn at(&self) -> usize {
        let at = self
            .rows
            .iter()
            .position(|row| Some(row.id) == self.selected);
        at.unwrap_or(0)
    }

    /// The value that is shown: the last one, or one of those before.
    pub(super) fn value<'a>(&self, tree: &'a Tree) -> Option<&'a Value> {
        self.value_back(tree, self.back)
    }

    /// With which value a value is compared: the last one with the one before, an older one with the last.
    pub(super) fn old_and_new<'a>(&self, tree: &'a Tree) -> Option<(&'a Value, &'a Value)> {
        let old = self.value_back(tree, self.back.max(1))?;
        Some((old, self.value_back(tree, 0)?))
    }

    /// What a key does.
    pub(super) fn on_key(&mut self, key: KeyEvent, tree: &Tree) -> Option<Action> {
        self.note.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Leave);
        }
        match std::mem::take(&mut self.prompt) {
            Prompt::None => self.on_command(key, tree),
            Prompt::Search(input) => {
                self.on_search_key(input, key, tree);
                None
            }
            Prompt::Publish(form) => self.on_form_key(form, key),
            Prompt::Clear(topics) => match key.code {
                KeyCode::Char('y' | 'Y') => Some(Action::Clear(topics)),
                KeyCode::Char('n' | 'N') | KeyCode::Esc => None,
                _ => {
                    self.prompt = Prompt::Clear(topics);
                    None
                }
            },
            // Any key ends it.
            Prompt::Help => None,
        }
    }

    /// What is pasted goes where something is typed, and nowhere else: it is no command.
    pub(super) fn on_paste(&mut self, text: &str, tree: &Tree) {
        match &mut self.prompt {
            Prompt::Search(input) => {
                input.insert(text);
                self.search = input.text();
                self.make_rows(tree);
            }
            Prompt::Publish(form) => form.insert(text),
            Prompt::None | Prompt::Clear(_) | Prompt::Help => {}
        }
    }

    fn on_command(&mut self, key: KeyEvent, tree: &Tree) -> Option<Action> {
        match key.code {
            KeyCode::Char('q') => return Some(Action::Leave),
            KeyCode::Char('?') => self.prompt = Prompt::Help,
            KeyCode::Char('/') => self.prompt = Prompt::Search(Input::new(&self.search)),
            KeyCode::Char(' ') => self.pause(),
            KeyCode::Char('f') => (self.form, self.scroll) = (self.form.next(), 0),
            KeyCode::Char('d') => (self.is_diff, self.scroll) = (!self.is_diff, 0),
            KeyCode::Char('p') => self.prompt = Prompt::Publish(self.publish_form(tree)),
            KeyCode::Char('x') => self.ask_to_clear(tree, false),
            KeyCode::Char('X') => self.ask_to_clear(tree, true),
            KeyCode::Tab => self.focus = next_focus(self.focus),
            KeyCode::Esc => {
                self.search.clear();
                self.make_rows(tree);
            }
            code => match self.focus {
                Focus::Topics => self.on_topics_key(code, tree),
                Focus::Value => self.scroll = moved(code, self.scroll, usize::MAX, self.page),
                Focus::History => {
                    let newest = self.selected.and_then(|id| tree.node(id).topic.as_ref());
                    let count = newest.map_or(0, |topic| topic.history.len());
                    self.back = moved(code, self.back, count.saturating_sub(1), self.page);
                    self.scroll = 0;
                }
            },
        }
        None
    }

    fn on_topics_key(&mut self, code: KeyCode, tree: &Tree) {
        let at = self.at();
        let Some(row) = self.rows.get(at).copied() else {
            return;
        };
        match code {
            KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') if !row.is_open => {
                self.open_chain(row.id, tree);
            }
            KeyCode::Enter | KeyCode::Left | KeyCode::Char('h')
                if row.is_open && !tree.node(row.id).children.is_empty() =>
            {
                self.open.remove(&row.id);
            }
            KeyCode::Left | KeyCode::Char('h') => {
                let parent = tree.node(row.id).parent.filter(|id| *id != tree.root());
                self.select(parent.or(Some(row.id)));
            }
            KeyCode::Char('e') => self.open.extend(tree.below(row.id)),
            KeyCode::Char('c') => self.open.clear(),
            code => {
                let last = self.rows.len().saturating_sub(1);
                let moved = moved(code, at, last, self.page);
                let selected = self.rows.get(moved).map(|row| row.id);
                if selected != self.selected {
                    self.select(selected);
                }
                return;
            }
        }
        self.make_rows(tree);
    }

    /// Opens a node, and what is below as long as there is no choice.
    fn open_chain(&mut self, top: NodeId, tree: &Tree) {
        let mut id = top;
        loop {
            self.open.insert(id);
            let mut children = tree.node(id).children.values();
            match (children.next(), children.next()) {
                (Some(only), None) if tree.node(id).topic.is_none() || id == top => id = *only,
                _ => return,
            }
        }
    }

    fn on_search_key(&mut self, mut input: Input, key: KeyEvent, tree: &Tree) {
        match key.code {
            KeyCode::Enter => {}
            KeyCode::Esc => {
                self.search.clear();
                self.make_rows(tree);
            }
            _ => {
                input.on_key(key);
                self.search = input.text();
                self.prompt = Prompt::Search(input);
                self.make_rows(tree);
            }
        }
    }

    fn on_form_key(&mut self, mut form: PublishForm, key: KeyEvent) -> Option<Action> {
        match key.code {
            KeyCode::Esc => return None,
            KeyCode::Enter if topic::check_name(&form.topic.text()).is_err() => {
                "A topic has no + and # and is not empty.".clone_into(&mut self.note);
            }
            KeyCode::Enter => {
                return Some(Action::Publish {
                    topic: form.topic.text(),
                    payload: form.payload.text(),
                    qos: form.qos,
                    retain: form.retain,
                });
            }
            _ => form.on_key(key),
        }
        self.prompt = Prompt::Publish(form);
        None
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if !self.is_paused && self.missed > 0 {
            let missed = std::mem::take(&mut self.missed);
            self.note = format!("{missed} messages came meanwhile and are not in the tree");
        }
    }

    fn publish_form(&self, tree: &Tree) -> PublishForm {
        let name = self.selected.map(|id| tree.name(id)).unwrap_or_default();
        let last = self.value_back(tree, 0);
        let payload = last.and_then(|value| value.payload.as_deref());
        let payload = payload.and_then(|payload| std::str::from_utf8(payload).ok());
        PublishForm::new(&name, payload.unwrap_or_default())
    }

    fn ask_to_clear(&mut self, tree: &Tree, is_below: bool) {
        let Some(id) = self.selected else { return };
        let nodes = if is_below { tree.below(id) } else { vec![id] };
        let is_retained = |id: &NodeId| {
            let topic = tree.node(*id).topic.as_ref();
            topic.is_some_and(|topic| topic.is_retained)
        };
        let retained = nodes.into_iter().filter(is_retained);
        let topics: Vec<String> = retained.map(|id| tree.name(id)).collect();
        if topics.is_empty() {
            "Nothing retained is known there.".clone_into(&mut self.note);
        } else {
            self.prompt = Prompt::Clear(topics);
        }
    }

    fn select(&mut self, id: Option<NodeId>) {
        (self.selected, self.back, self.scroll) = (id, 0, 0);
    }

    fn make_rows(&mut self, tree: &Tree) {
        self.rows = tree.rows(&self.open, &self.search);
        self.size = tree.size();
        // What is not shown any more is stood for by what it is in, else by the first.
        let mut shown: HashSet<NodeId> = HashSet::with_capacity(self.rows.len());
        shown.extend(self.rows.iter().map(|row| row.id));
        let mut id = self.selected;
        while let Some(hidden) = id.filter(|id| !shown.contains(id)) {
            id = tree.node(hidden).parent;
        }
        let id = id.or_else(|| self.rows.first().map(|row| row.id));
        if id != self.selected {
            self.select(id);
        }
    }

    fn value_back<'a>(&self, tree: &'a Tree, back: usize) -> Option<&'a Value> {
        let topic = tree.node(self.selected?).topic.as_ref()?;
        topic.history.iter().rev().nth(back)
    }
}

/// The lines of a value's payload.
pub(super) fn value_lines(value: &Value, form: Form) -> Vec<String> {
    match &value.payload {
        Some(payload) => lines(payload, form),
        None => vec!["(there was no room to keep this payload)".to_owned()],
    }
}

const fn next_focus(focus: Focus) -> Focus {
    match focus {
        Focus::Topics => Focus::Value,
        Focus::Value => Focus::History,
        Focus::History => Focus::Topics,
    }
}

/// Where the arrows and pages lead from `at`.
fn moved(code: KeyCode, at: usize, last: usize, page: usize) -> usize {
    let to = match code {
        KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => at.saturating_add(1),
        KeyCode::PageUp => at.saturating_sub(page.max(1)),
        KeyCode::PageDown => at.saturating_add(page.max(1)),
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => last,
        _ => at,
    };
    to.min(last)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::super::tree::Caps;
    use super::*;

    fn tree(messages: &[(&str, &str, bool)]) -> Tree {
        let now = Instant::now();
        let caps = Caps {
            topics_max: 1000,
            bytes_max: 1_000_000,
            history_max: 10,
        };
        let mut tree = Tree::new(caps, now);
        for (name, payload, retain) in messages {
            let value = Value {
                payload: Some(Bytes::copy_from_slice(payload.as_bytes())),
                len: payload.len(),
                retain: *retain,
                ..Value::default()
            };
            tree.take(name, value, true, now);
        }
        tree
    }

    /// Types keys; what the last one led to.
    fn type_in(view: &mut View, tree: &Tree, keys: &[KeyCode]) -> Option<Action> {
        let mut last = None;
        for code in keys {
            last = view.on_key(KeyEvent::from(*code), tree);
        }
        last
    }

    fn text(text: &str) -> Vec<KeyCode> {
        text.chars().map(KeyCode::Char).collect()
    }

    fn selected(view: &View, tree: &Tree) -> String {
        tree.name(view.selected.unwrap())
    }

    #[test]
    fn arrows_go_through_the_tree_and_enter_opens_until_there_is_a_choice() {
        let tree = tree(&[
            ("a/b/c/1", "x", false),
            ("a/b/c/2", "y", false),
            ("z", "z", false),
        ]);
        let mut view = View::default();
        view.catch_up(&tree);
        assert_eq!(
            (view.rows.len(), selected(&view, &tree)),
            (2, "a".to_owned())
        );
        type_in(&mut view, &tree, &[KeyCode::Enter]);
        assert_eq!(view.rows.len(), 6);
        type_in(&mut view, &tree, &text("jjj"));
        assert_eq!(selected(&view, &tree), "a/b/c/1");
        type_in(&mut view, &tree, &[KeyCode::Left, KeyCode::Left]);
        assert_eq!(selected(&view, &tree), "a/b/c");
        assert_eq!(view.rows.len(), 4);
        type_in(&mut view, &tree, &text("c"));
        assert_eq!(selected(&view, &tree), "a");
        type_in(&mut view, &tree, &text("eG"));
        assert_eq!(
            (view.rows.len(), selected(&view, &tree)),
            (6, "z".to_owned())
        );
    }

    #[test]
    fn a_search_shows_what_it_finds_and_escape_ends_it() {
        let tree = tree(&[("a/b", "x", false), ("c/d", "y", false)]);
        let mut view = View::default();
        view.catch_up(&tree);
        type_in(&mut view, &tree, &text("/d"));
        assert_eq!(
            (view.rows.len(), selected(&view, &tree)),
            (2, "c".to_owned())
        );
        // While something is typed, keys are no commands.
        type_in(&mut view, &tree, &text("q"));
        assert!(view.rows.is_empty() && view.selected.is_none());
        type_in(&mut view, &tree, &[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((view.search.as_str(), view.rows.len()), ("d", 2));
        type_in(&mut view, &tree, &[KeyCode::Esc]);
        assert_eq!(view.rows.len(), 2);
        assert!(view.search.is_empty());
        view.on_paste("q\n", &tree);
        assert_eq!(view.prompt, Prompt::None);
    }

    #[test]
    fn the_history_is_compared_with_the_last_value() {
        let tree = tree(&[("a", "1", false), ("a", "2", false), ("a", "3", false)]);
        let mut view = View::default();
        view.catch_up(&tree);
        let shown = |view: &View| {
            let (old, new) = view.old_and_new(&tree).unwrap();
            [old, new].map(|value| value.payload.clone().unwrap())
        };
        assert_eq!(shown(&view), ["2", "3"]);
        type_in(&mut view, &tree, &[KeyCode::Tab, KeyCode::Tab]);
        type_in(&mut view, &tree, &text("jjjjj"));
        assert_eq!(view.back, 2);
        assert_eq!(shown(&view), ["1", "3"]);
        assert_eq!(
            view.value(&tree).unwrap().payload.as_deref(),
            Some(b"1".as_slice())
        );
    }

    #[test]
    fn publishing_is_typed_out() {
        let tree = tree(&[("a/b", "old", false)]);
        let mut view = View::default();
        view.catch_up(&tree);
        type_in(&mut view, &tree, &text("e"));
        type_in(&mut view, &tree, &text("jp"));
        let Prompt::Publish(form) = &view.prompt else {
            panic!("{:?}", view.prompt);
        };
        assert_eq!(
            (form.topic.parts().0, form.payload.parts().0),
            ("a/b", "old")
        );
        type_in(&mut view, &tree, &text("er"));
        view.on_paste("!", &tree);
        // To the QoS, and to RETAIN.
        let keys = [
            KeyCode::Tab,
            KeyCode::Char('2'),
            KeyCode::Tab,
            KeyCode::Char(' '),
        ];
        type_in(&mut view, &tree, &keys);
        let action = type_in(&mut view, &tree, &[KeyCode::Enter]);
        let expected = Action::Publish {
            topic: "a/b".to_owned(),
            payload: "older!".to_owned(),
            qos: Qos::ExactlyOnce,
            retain: true,
        };
        assert_eq!(action, Some(expected));
        assert_eq!(view.prompt, Prompt::None);
        // A filter is no topic.
        type_in(&mut view, &tree, &text("p"));
        let keys = [KeyCode::BackTab, KeyCode::Char('#'), KeyCode::Enter];
        assert_eq!(type_in(&mut view, &tree, &keys), None);
        assert!(view.note.contains("no + and #"), "{}", view.note);
        assert_eq!(type_in(&mut view, &tree, &[KeyCode::Esc]), None);
        assert_eq!(view.prompt, Prompt::None);
    }

    #[test]
    fn clearing_names_only_what_is_retained_and_is_confirmed() {
        let tree = tree(&[("a/1", "x", true), ("a/2", "y", false), ("a/3", "z", true)]);
        let mut view = View::default();
        view.catch_up(&tree);
        type_in(&mut view, &tree, &text("x"));
        assert_eq!(view.prompt, Prompt::None);
        assert!(view.note.contains("Nothing retained"), "{}", view.note);
        type_in(&mut view, &tree, &text("X"));
        assert_eq!(type_in(&mut view, &tree, &text("n")), None);
        type_in(&mut view, &tree, &text("Xq"));
        let expected = vec!["a/1".to_owned(), "a/3".to_owned()];
        let action = type_in(&mut view, &tree, &text("y"));
        assert_eq!(action, Some(Action::Clear(expected)));
    }

    #[test]
    fn control_c_leaves_from_everywhere() {
        let tree = tree(&[("a", "1", true)]);
        let leave = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for before in ["", "/", "p", "x", "?"] {
            let mut view = View::default();
            view.catch_up(&tree);
            type_in(&mut view, &tree, &text(before));
            assert_eq!(view.on_key(leave, &tree), Some(Action::Leave), "{before}");
        }
        let mut view = View::default();
        assert_eq!(type_in(&mut view, &tree, &text("q")), Some(Action::Leave));
    }
}
