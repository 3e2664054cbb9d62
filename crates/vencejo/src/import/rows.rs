//! What became of each line of somebody else's configuration.
//!
//! Owns: [`Row`], [`Outcome`], how rows are printed. Does not own: what becomes of a line (see `mosquitto`, `emqx`, `nanomq`).
//! Start reading at [`Row`]. Invariant: a row shows no secret; who makes it leaves that out.

use std::fmt::Write as _;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It means the same.
    Kept,
    /// It means something else, or something near to it.
    Changed,
    /// It means nothing any more.
    Ignored,
}

impl Outcome {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Changed => "changed",
            Self::Ignored => "ignored",
        }
    }
}

/// A line, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// File and line; empty for what no line says.
    pub(crate) place: String,
    /// The line, without secrets.
    pub(crate) option: String,
    pub(crate) outcome: Outcome,
    /// As what, or why.
    pub(crate) why: String,
}

/// Rows under one another, and how many of each outcome; long lines go on behind the last column.
pub(super) fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> usize, most| rows.iter().map(of).max().unwrap_or(0).min(most);
    let place = width(|row| row.place.chars().count(), 24);
    let option = width(|row| row.option.chars().count(), 44);
    let mut text = String::new();
    for row in rows {
        let outcome = row.outcome.word();
        // Writing to a text cannot fail.
        writeln!(
            text,
            "{:<place$}  {:<option$}  {outcome:<7}  {}",
            row.place, row.option, row.why
        )
        .ok();
    }
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let (kept, changed) = (count(Outcome::Kept), count(Outcome::Changed));
    let ignored = count(Outcome::Ignored);
    // The same.
    writeln!(text, "\n{kept} kept, {changed} changed, {ignored} ignored").ok();
    text
}
