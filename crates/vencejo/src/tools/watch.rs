//! `sub --watch`: the last message of each topic, in a line of its own.
//!
//! Owns: which line a topic has, what is drawn. Does not own: how a message looks (see `format`). Start reading at
//! [`Watch::show`]. Invariants: a message is one line, which no payload can leave; there are no more lines than the terminal
//! has, or [`LINES_MAX`].

use std::collections::HashMap;
use std::io::{self, Write};

use ratatui::text::Span;

use super::explore::shown::escaped;

/// What stands where.
#[derive(Debug)]
pub(super) struct Watch {
    /// What the first line says.
    title: String,
    /// The line of each topic, counted from 0 at the top.
    lines: HashMap<String, usize>,
    /// Messages of topics that have none.
    left_out: u64,
}

/// How many columns and lines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) lines: usize,
}

impl Size {
    /// Of the terminal that standard output is, or of a paper without end.
    pub(super) fn of_output() -> Self {
        let is_terminal = io::IsTerminal::is_terminal(&io::stdout());
        let size = is_terminal.then(|| ratatui::crossterm::terminal::size().ok());
        match size.flatten() {
            Some((columns, lines)) => Self {
                columns: usize::from(columns),
                lines: usize::from(lines),
            },
            None => Self {
                columns: usize::MAX,
                lines: LINES_MAX,
            },
        }
    }
}

impl Watch {
    /// Clears what is there, and says where the messages come from.
    pub(super) fn begin(place: &str, size: Size, out: &mut impl Write) -> io::Result<Self> {
        let watch = Self {
            title: format!("Broker: {}", escaped(place)),
            lines: HashMap::new(),
            left_out: 0,
        };
        out.write_all(b"\x1b[2J")?;
        draw(0, &watch.title, size, out)?;
        below(1, out)?;
        Ok(watch)
    }

    /// Puts `message`, as it is printed elsewhere, into the line of its topic; the first one of a topic takes the next line.
    pub(super) fn show(
        &mut self,
        topic: &str,
        message: &[u8],
        size: Size,
        out: &mut impl Write,
    ) -> io::Result<()> {
        // One is the title's, and below the last one stands the cursor.
        let lines_max = size.lines.saturating_sub(2).min(LINES_MAX);
        let taken = self.lines.len();
        let line = match self.lines.get(topic) {
            Some(line) => *line,
            None if taken < lines_max => {
                self.lines.insert(topic.to_owned(), taken + 1);
                taken + 1
            }
            None => usize::MAX,
        };
        if line > lines_max {
            self.left_out += 1;
            let title = format!(
                "{}   left out: {} messages of topics for which there is no line",
                self.title, self.left_out
            );
            draw(0, &title, size, out)?;
        } else {
            draw(line, &escaped(&String::from_utf8_lossy(message)), size, out)?;
        }
        below(self.lines.len().min(lines_max) + 1, out)
    }
}

/// Writes a line over what stood there; what is too long is cut.
fn draw(line: usize, text: &str, size: Size, out: &mut impl Write) -> io::Result<()> {
    write!(
        out,
        "\x1b[{};1H\x1b[2K{}",
        line + 1,
        cut(text, size.columns)
    )
}

/// Leaves the cursor at the beginning of a line.
fn below(line: usize, out: &mut impl Write) -> io::Result<()> {
    write!(out, "\x1b[{};1H", line + 1)?;
    out.flush()
}

/// As much of `text` as fits.
fn cut(text: &str, columns: usize) -> &str {
    let mut width = 0;
    for (at, character) in text.char_indices() {
        width += Span::raw(character.to_string()).width();
        if width > columns {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// So many topics have a line where nobody says how many there are.
const LINES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        columns: 10,
        lines: 4,
    };

    fn shown(watch: &mut Watch, topic: &str, message: &[u8]) -> String {
        let mut out = Vec::new();
        watch.show(topic, message, SIZE, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_topic_keeps_its_line_and_a_message_its_place() {
        let mut out = Vec::new();
        let mut watch = Watch::begin("localhost", SIZE, &mut out).unwrap();
        assert_eq!(out, b"\x1b[2J\x1b[1;1H\x1b[2KBroker: lo\x1b[2;1H");
        assert_eq!(shown(&mut watch, "a", b"1"), "\x1b[2;1H\x1b[2K1\x1b[3;1H");
        assert_eq!(shown(&mut watch, "b", b"2"), "\x1b[3;1H\x1b[2K2\x1b[4;1H");
        assert_eq!(shown(&mut watch, "a", b"3"), "\x1b[2;1H\x1b[2K3\x1b[4;1H");
        // Nothing in it moves the cursor, or goes on in the next line; wide characters take two columns.
        assert_eq!(
            shown(&mut watch, "a", b"\x1b[2J\r\nx"),
            "\x1b[2;1H\x1b[2K\\u{1b}[2J\\\x1b[4;1H"
        );
        let wide = "漢字漢字漢字".as_bytes();
        assert_eq!(
            shown(&mut watch, "a", wide),
            "\x1b[2;1H\x1b[2K漢字漢字漢\x1b[4;1H"
        );
        assert_eq!(
            shown(&mut watch, "a", b"\xff"),
            "\x1b[2;1H\x1b[2K\u{FFFD}\x1b[4;1H"
        );
    }

    #[test]
    fn topics_that_have_no_line_are_counted() {
        let mut watch = Watch::begin("b", SIZE, &mut Vec::new()).unwrap();
        for topic in ["a", "b", "c", "c"] {
            shown(&mut watch, topic, b"x");
        }
        assert_eq!(watch.lines.len(), 2);
        let mut out = Vec::new();
        let wide = Size {
            columns: 100,
            ..SIZE
        };
        watch.show("d", b"x", wide, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let title =
            "\x1b[1;1H\x1b[2KBroker: b   left out: 3 messages of topics for which there is no line";
        assert!(out.starts_with(title), "{out:?}");
        // Where the terminal has become smaller, the lines that are left are not drawn over others.
        let small = Size { lines: 3, ..SIZE };
        let mut out = Vec::new();
        watch.show("b", b"x", small, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("\x1b[1;1H"));
    }
}
