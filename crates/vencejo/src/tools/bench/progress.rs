//! One line on a terminal that says how far it is.
//!
//! Owns: when it is shown, and how. Start reading at [`Progress::tell`]. Invariant: nothing is written where standard error
//! is no terminal, and no escape sequence where `NO_COLOR` is set.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
    is_plain: bool,
    told: Option<Instant>,
    /// How long the line is that is shown.
    width: usize,
}

impl Progress {
    /// One where somebody may look.
    pub(super) fn new(is_quiet: bool) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            is_shown: !is_quiet && std::io::stderr().is_terminal(),
            is_plain: is_set("NO_COLOR") || is_dumb,
            told: None,
            width: 0,
        }
    }

    /// Shows `text`, now and then.
    pub(super) fn tell(&mut self, text: &str) {
        let now = Instant::now();
        if !self.is_shown || self.told.is_some_and(|told| now < told + EVERY) {
            return;
        }
        self.told = Some(now);
        let line = line(text, self.width, self.is_plain);
        self.width = text.chars().count();
        // A terminal that is gone is not told.
        write!(std::io::stderr(), "{line}").ok();
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.is_shown && self.width > 0 {
            write!(
                std::io::stderr(),
                "{}\r",
                line("", self.width, self.is_plain)
            )
            .ok();
            self.width = 0;
        }
    }
}

/// `text` in the place of a line that was so long.
fn line(text: &str, before: usize, is_plain: bool) -> String {
    if is_plain {
        let rest = before.saturating_sub(text.chars().count());
        return format!("\r{text}{}", " ".repeat(rest));
    }
    format!("\r\u{1b}[2K\u{1b}[2m{text}\u{1b}[0m")
}

const EVERY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_line_covers_a_longer_one() {
        assert_eq!(line("ab", 4, true), "\rab  ");
        assert_eq!(line("abcd", 2, true), "\rabcd");
        assert!(line("ab", 4, false).contains("[2K"));
    }
}
