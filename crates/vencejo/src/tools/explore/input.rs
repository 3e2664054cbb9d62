//! Lines that are typed: one, and those of a message.
//!
//! Owns: the cursor, which field has it. Does not own: what is done with the text (see `view`). Start reading at [`Input`].
//! Invariant: the cursor stands between two characters.

use proto::Qos;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A line of text with a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    before: String,
    after: String,
}

impl Input {
    pub(super) fn new(text: &str) -> Self {
        Self {
            before: text.to_owned(),
            after: String::new(),
        }
    }

    pub(super) fn text(&self) -> String {
        format!("{}{}", self.before, self.after)
    }

    /// What stands before the cursor, and behind it.
    pub(super) fn parts(&self) -> (&str, &str) {
        (&self.before, &self.after)
    }

    pub(super) fn insert(&mut self, text: &str) {
        let room = TEXT_BYTES_MAX.saturating_sub(self.before.len() + self.after.len());
        let end = text.floor_char_boundary(room);
        self.before.push_str(text.get(..end).unwrap_or_default());
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('u') if is_control => self.before.clear(),
            KeyCode::Char('a') if is_control => self.home(),
            KeyCode::Char('e') if is_control => self.end(),
            KeyCode::Char(_) if is_control => {}
            KeyCode::Char(character) => self.insert(character.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace => drop(self.before.pop()),
            KeyCode::Delete => drop(self.take_first()),
            KeyCode::Left => {
                if let Some(character) = self.before.pop() {
                    self.after.insert(0, character);
                }
            }
            KeyCode::Right => {
                if let Some(character) = self.take_first() {
                    self.before.push(character);
                }
            }
            KeyCode::Home => self.home(),
            KeyCode::End => self.end(),
            _ => {}
        }
    }

    fn take_first(&mut self) -> Option<char> {
        (!self.after.is_empty()).then(|| self.after.remove(0))
    }

    fn home(&mut self) {
        self.after.insert_str(0, &self.before);
        self.before.clear();
    }

    fn end(&mut self) {
        self.before.push_str(&self.after);
        self.after.clear();
    }
}

/// What can be set of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Topic,
    Payload,
    Qos,
    Retain,
}

/// A message that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublishForm {
    pub(super) topic: Input,
    pub(super) payload: Input,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) field: Field,
}

impl PublishForm {
    pub(super) fn new(topic: &str, payload: &str) -> Self {
        let field = match topic {
            "" => Field::Topic,
            _ => Field::Payload,
        };
        Self {
            topic: Input::new(topic),
            payload: Input::new(payload),
            qos: Qos::AtMostOnce,
            retain: false,
            field,
        }
    }

    pub(super) fn insert(&mut self, text: &str) {
        match self.field {
            Field::Topic => self.topic.insert(text),
            Field::Payload => self.payload.insert(text),
            Field::Qos | Field::Retain => {}
        }
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) {
        match (key.code, self.field) {
            (KeyCode::Tab | KeyCode::Down, field) => self.field = below(field),
            (KeyCode::BackTab | KeyCode::Up, field) => self.field = below(below(below(field))),
            (_, Field::Topic) => self.topic.on_key(key),
            (_, Field::Payload) => self.payload.on_key(key),
            (KeyCode::Char(digit @ '0'..='2'), Field::Qos) => {
                let level = digit.to_digit(3).and_then(|level| u8::try_from(level).ok());
                self.qos = level.and_then(Qos::from_level).unwrap_or(self.qos);
            }
            (KeyCode::Char(' '), Field::Qos) => {
                self.qos = Qos::from_level(self.qos.level() + 1).unwrap_or_default();
            }
            (KeyCode::Char(' '), Field::Retain) => self.retain = !self.retain,
            _ => {}
        }
    }
}

const fn below(field: Field) -> Field {
    match field {
        Field::Topic => Field::Payload,
        Field::Payload => Field::Qos,
        Field::Qos => Field::Retain,
        Field::Retain => Field::Topic,
    }
}

/// More is not typed into one line.
const TEXT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_changed_where_the_cursor_is() {
        let mut input = Input::new("añb");
        for code in [KeyCode::Left, KeyCode::Backspace, KeyCode::Char('x')] {
            input.on_key(KeyEvent::from(code));
        }
        assert_eq!(input.parts(), ("ax", "b"));
        for code in [
            KeyCode::Home,
            KeyCode::Delete,
            KeyCode::End,
            KeyCode::Char('é'),
        ] {
            input.on_key(KeyEvent::from(code));
        }
        assert_eq!(input.text(), "xbé");
        input.on_key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        assert_eq!(input.text(), "");
        input.insert(&"é".repeat(TEXT_BYTES_MAX));
        assert!(input.text().len() <= TEXT_BYTES_MAX);
    }
}
