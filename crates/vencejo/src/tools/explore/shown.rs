//! What peers sent, as text that is safe in a terminal.
//!
//! Owns: escaping, the forms of a payload. Does not own: where it is drawn. Start reading at [`lines`]. Invariant: no
//! character that leaves here moves the cursor, turns the direction of writing or cannot be seen.

use std::fmt::Write as _;

/// How a payload is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON where it is some, else text, else bytes.
    #[default]
    Auto,
    Text,
    Json,
    Hex,
}

impl Form {
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Auto => Self::Text,
            Self::Text => Self::Json,
            Self::Json => Self::Hex,
            Self::Hex => Self::Auto,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "JSON",
            Self::Hex => "hex",
        }
    }
}

/// The lines of a payload in a form; what is too much is counted in the last one.
pub(super) fn lines(payload: &[u8], form: Form) -> Vec<String> {
    let (shown, rest) = payload.split_at(payload.len().min(BYTES_MAX));
    let mut lines = match form {
        Form::Hex => hex(shown),
        Form::Text => text(shown),
        Form::Json => match json(payload) {
            Some(json) => json,
            None => {
                let mut lines = vec!["(this is no JSON)".to_owned()];
                lines.extend(text(shown));
                lines
            }
        },
        Form::Auto => match (json(payload), std::str::from_utf8(payload)) {
            (Some(json), _) => json,
            (None, Ok(_)) => text(shown),
            (None, Err(_)) => hex(shown),
        },
    };
    let cut = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if cut > 0 {
        lines.push(format!("... {cut} lines more"));
    }
    if !rest.is_empty() {
        lines.push(format!("... {} bytes more", rest.len()));
    }
    lines
}

/// The beginning of a payload, in one line.
pub(super) fn summary(payload: &[u8]) -> String {
    let shown = payload.get(..SUMMARY_BYTES).unwrap_or(payload);
    let mut line = String::new();
    if is_text(shown) {
        for piece in String::from_utf8_lossy(shown).split_whitespace() {
            if !line.is_empty() {
                line.push(' ');
            }
            push_escaped(&mut line, piece);
        }
    } else {
        for byte in shown.iter().take(SUMMARY_BYTES / 4) {
            write!(line, "{byte:02x} ").ok();
        }
    }
    line
}

/// `text` with nothing in it that a terminal would obey.
pub(in crate::tools) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    push_escaped(&mut safe, text);
    safe
}

fn push_escaped(safe: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\t' => safe.push_str("    "),
            hidden if is_hidden(hidden) => safe.extend(hidden.escape_default()),
            other => safe.push(other),
        }
    }
}

/// Controls, what turns the direction of writing, what has no width or is no character.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E0FFF}')
}

fn text(payload: &[u8]) -> Vec<String> {
    let mut lines = vec![String::new()];
    for chunk in payload.utf8_chunks() {
        for (number, piece) in chunk.valid().split('\n').enumerate() {
            if number > 0 {
                lines.push(String::new());
            }
            if let Some(last) = lines.last_mut() {
                push_escaped(last, piece.strip_suffix('\r').unwrap_or(piece));
            }
        }
        if let Some(last) = lines.last_mut() {
            for byte in chunk.invalid() {
                write!(last, "\\x{byte:02x}").ok();
            }
        }
    }
    lines
}

fn is_text(shown: &[u8]) -> bool {
    match std::str::from_utf8(shown) {
        Ok(_) => true,
        // It may have been cut within a character.
        Err(error) => error.error_len().is_none(),
    }
}

/// 16 bytes in a line, with their place before and as text behind.
fn hex(payload: &[u8]) -> Vec<String> {
    let line = |(number, bytes): (usize, &[u8])| {
        let mut line = format!("{:06x}  ", number * 16);
        for byte in bytes {
            write!(line, "{byte:02x} ").ok();
        }
        line.push_str(&"   ".repeat(16 - bytes.len()));
        line.push(' ');
        line.extend(bytes.iter().map(|byte| match byte {
            0x20..0x7F => char::from(*byte),
            _ => '.',
        }));
        line
    };
    payload.chunks(16).enumerate().map(line).collect()
}

/// An object or a list over several lines, members in their order; `None` if it is neither, or very long.
fn json(payload: &[u8]) -> Option<Vec<String>> {
    let first = payload.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if !matches!(first, b'{' | b'[') || payload.len() > BYTES_MAX {
        return None;
    }
    // Only whether it is some: a value would have its numbers rounded and its members sorted.
    serde_json::from_slice::<serde_json::Value>(payload).ok()?;
    let text = std::str::from_utf8(payload).ok()?;
    Some(indented(text).iter().map(|line| escaped(line)).collect())
}

/// Valid JSON, a member or an element in each line.
fn indented(json: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut depth = 0_usize;
    let (mut is_in_string, mut is_escaped) = (false, false);
    let mut characters = json.chars().peekable();
    let start = |lines: &mut Vec<String>, depth: usize| lines.push("  ".repeat(depth));
    while let Some(character) = characters.next() {
        if is_in_string || character == '"' {
            is_in_string = character != '"' || is_escaped || !is_in_string;
            is_escaped = is_in_string && character == '\\' && !is_escaped;
            push(&mut lines, character);
            continue;
        }
        match character {
            blank if blank.is_ascii_whitespace() => {}
            '{' | '[' => {
                push(&mut lines, character);
                while characters.next_if(char::is_ascii_whitespace).is_some() {}
                // An empty one stays in its line.
                match characters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => push(&mut lines, end),
                    None => {
                        depth += 1;
                        start(&mut lines, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                start(&mut lines, depth);
                push(&mut lines, character);
            }
            ',' => {
                push(&mut lines, ',');
                start(&mut lines, depth);
            }
            ':' => {
                push(&mut lines, ':');
                push(&mut lines, ' ');
            }
            other => push(&mut lines, other),
        }
    }
    lines
}

fn push(lines: &mut [String], character: char) {
    if let Some(last) = lines.last_mut() {
        last.push(character);
    }
}

/// More of a payload is not shown.
const BYTES_MAX: usize = 64 * 1024;
/// More lines are not shown.
const LINES_MAX: usize = 5_000;
/// What is looked at for one line.
const SUMMARY_BYTES: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;

    /// Class X: a payload or a topic cannot move the cursor, change the title or hide what follows.
    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let nasty = "a\x1b[2J\x1b]0;owned\x07\u{9b}31m\u{202e}cba\u{200b}\u{feff}\r\u{7f}z";
        let check = |text: &str| {
            assert!(!text.chars().any(is_hidden), "{text:?}");
        };
        check(&escaped(nasty));
        check(&summary(nasty.as_bytes()));
        for form in [Form::Auto, Form::Text, Form::Json, Form::Hex] {
            for line in lines(nasty.as_bytes(), form) {
                check(&line);
            }
            let json = format!("{{\"k\":\"\u{202e}{}\"}}", "x".repeat(9));
            for line in lines(json.as_bytes(), form) {
                check(&line);
            }
        }
        assert_eq!(escaped("a\x1b[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(escaped("ñ 温度 'x' \\"), "ñ 温度 'x' \\");
    }

    #[test]
    fn json_is_shown_a_member_in_a_line_and_in_its_order() {
        let json = br#" {"b": 1.50, "a":[1, {"x":"},\"{"}], "e":{ }, "l":[]} "#;
        let expected = [
            "{",
            "  \"b\": 1.50,",
            "  \"a\": [",
            "    1,",
            "    {",
            "      \"x\": \"},\\\"{\"",
            "    }",
            "  ],",
            "  \"e\": {},",
            "  \"l\": []",
            "}",
        ];
        assert_eq!(lines(json, Form::Auto), expected);
        assert_eq!(lines(b"21.5", Form::Auto), ["21.5"]);
        assert_eq!(lines(b"{no", Form::Json), ["(this is no JSON)", "{no"]);
    }

    #[test]
    fn bytes_are_shown_with_their_place_and_text_with_what_is_none() {
        let line = lines(b"\x00\xffAB", Form::Auto).join("|");
        assert!(line.starts_with("000000  00 ff 41 42 "), "{line}");
        assert!(line.ends_with(" ..AB"), "{line}");
        assert_eq!(lines(b"a\xffb\r\nc", Form::Text), ["a\\xffb", "c"]);
        assert_eq!(summary(b"  a \n b"), "a b");
        assert_eq!(summary(b"\xff\x00"), "ff 00 ");
        let long = vec![b'x'; BYTES_MAX + 3];
        assert_eq!(lines(&long, Form::Text).last().unwrap(), "... 3 bytes more");
        let many = "\n".repeat(LINES_MAX + 9);
        assert_eq!(
            lines(many.as_bytes(), Form::Text).last().unwrap(),
            "... 10 lines more"
        );
    }
}
