//! The screen: topics at the left, the selected one at the right, what is asked below.
//!
//! Owns: where things stand and how they look. Does not own: what is selected (see `view`), the terminal. Start reading at
//! [`draw`]. Invariant: all that peers sent is escaped before it is drawn, and drawing changes nothing but what fits.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::diff::{Change, changes};
use super::input::{Field, Input, PublishForm};
use super::shown::{escaped, summary};
use super::tree::{Row, Topic, Tree, Value};
use super::view::{Focus, Prompt, View, value_lines};

/// What is known of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Where to, and which filters.
    pub(super) server: String,
    /// How the connection is.
    pub(super) link: String,
    pub(super) is_lost: bool,
    /// No colours.
    pub(super) is_plain: bool,
}

/// Draws all of it.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    view: &mut View,
    tree: &Tree,
    status: &Status,
    now: Instant,
) {
    let prompt_height = match view.prompt {
        Prompt::Publish(_) => 4,
        _ => 1,
    };
    let rows = [
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(prompt_height),
    ];
    let [head, body, word, foot] = Layout::vertical(rows).areas(frame.area());
    let pen = Pen {
        is_plain: status.is_plain,
    };
    frame.render_widget(Paragraph::new(header(tree, status, pen, now)), head);
    let halves = [Constraint::Percentage(45), Constraint::Percentage(55)];
    let [left, right] = match body.width {
        0..70 => Layout::vertical(halves).areas(body),
        _ => Layout::horizontal(halves).areas(body),
    };
    topics(frame, left, view, tree, pen, now);
    details(frame, right, view, tree, pen, now);
    frame.render_widget(Paragraph::new(word_of(view, tree, status, pen)), word);
    prompt(frame, foot, view, pen);
    if view.prompt == Prompt::Help {
        help(frame, body, pen);
    }
}

/// Styles, some of which are colours.
#[derive(Clone, Copy)]
struct Pen {
    is_plain: bool,
}

impl Pen {
    fn colour(self, colour: Color) -> Style {
        match self.is_plain {
            true => Style::new(),
            false => Style::new().fg(colour),
        }
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn alarm(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    fn frame(self, title: String, has_focus: bool) -> Block<'static> {
        let style = match has_focus {
            true => self.colour(Color::Cyan).add_modifier(Modifier::BOLD),
            false => self.faint(),
        };
        Block::bordered()
            .border_style(style)
            .title(Span::styled(title, self.strong()))
    }
}

fn header(tree: &Tree, status: &Status, pen: Pen, now: Instant) -> Line<'static> {
    let rate = tree.rate(tree.root(), now);
    let counts = format!(
        "   {} topics   {}   {}",
        tree.topics(),
        rate_text(rate).unwrap_or_else(|| "0/s".to_owned()),
        bytes_text(tree.bytes())
    );
    let link = match status.is_lost {
        true => pen.alarm(),
        false => pen.colour(Color::Green),
    };
    Line::from(vec![
        Span::styled(" vencejo explore  ", pen.strong()),
        Span::raw(escaped(&status.server)),
        Span::raw("   "),
        Span::styled(escaped(&status.link), link),
        Span::styled(counts, pen.faint()),
    ])
}

fn topics(frame: &mut Frame<'_>, area: Rect, view: &mut View, tree: &Tree, pen: Pen, now: Instant) {
    let title = match view.search.as_str() {
        "" => " Topics ".to_owned(),
        search => format!(" Topics with {} ", escaped(search)),
    };
    let block = pen.frame(title, view.focus == Focus::Topics);
    let inner = block.inner(area);
    let height = usize::from(inner.height);
    view.page = height.saturating_sub(1).max(1);
    let at = view.at();
    let last_first = view.rows.len().saturating_sub(height);
    let first = at.saturating_sub(height / 2).min(last_first);
    let shown = view.rows.iter().skip(first).take(height);
    let lines = shown.map(|row| row_line(*row, Some(row.id) == view.selected, tree, pen, now));
    let lines: Vec<Line<'_>> = lines.collect();
    let nothing = match view.search.is_empty() {
        true => "Nothing has come yet.",
        false => "No topic matches.",
    };
    let text = match lines.is_empty() {
        true => Paragraph::new(Span::styled(nothing, pen.faint())),
        false => Paragraph::new(lines),
    };
    frame.render_widget(text.block(block), area);
}

fn row_line(row: Row, is_chosen: bool, tree: &Tree, pen: Pen, now: Instant) -> Line<'static> {
    let node = tree.node(row.id);
    let sign = match (node.children.is_empty(), row.is_open) {
        (true, _) => "  ",
        (false, true) => "▾ ",
        (false, false) => "▸ ",
    };
    let name = match &*node.level {
        "" => "(empty)".to_owned(),
        level => escaped(level),
    };
    let name_style = match is_chosen {
        true => pen.chosen(),
        false => Style::new(),
    };
    let mut spans = vec![
        Span::raw("  ".repeat(row.depth.min(DEPTH_SHOWN))),
        Span::raw(sign),
        Span::styled(name, name_style),
    ];
    if let Some(topic) = &node.topic {
        if topic.is_retained {
            spans.push(Span::styled(" R", pen.colour(Color::Magenta)));
        }
        if let Some(payload) = topic.last().and_then(|value| value.payload.as_ref()) {
            spans.push(Span::styled(" = ", pen.faint()));
            spans.push(Span::styled(summary(payload), pen.colour(Color::Cyan)));
        }
    }
    if !node.children.is_empty() && !row.is_open {
        spans.push(Span::styled(format!(" ({})", node.topics), pen.faint()));
    }
    if let Some(rate) = rate_text(tree.rate(row.id, now)) {
        spans.push(Span::styled(format!("  {rate}"), pen.faint()));
    }
    Line::from(spans)
}

fn details(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &mut View,
    tree: &Tree,
    pen: Pen,
    now: Instant,
) {
    let Some(id) = view.selected else {
        frame.render_widget(pen.frame(String::new(), false), area);
        return;
    };
    let name = format!(" {} ", escaped(&tree.name(id)));
    let node = tree.node(id);
    let Some(topic) = &node.topic else {
        let text = format!(
            "{} topics below, {}. Nothing was published here.",
            node.topics,
            rate_text(tree.rate(id, now)).unwrap_or_else(|| "0/s".to_owned())
        );
        let text = Paragraph::new(text).wrap(Wrap { trim: false });
        frame.render_widget(text.block(pen.frame(name, false)), area);
        return;
    };
    let parts = [Constraint::Percentage(65), Constraint::Percentage(35)];
    let [above, below] = Layout::vertical(parts).areas(area);
    let rate = rate_text(tree.rate(id, now));
    value(frame, above, view, (tree, topic), (name, rate), pen);
    history(frame, below, view, topic, pen);
}

fn value(
    frame: &mut Frame<'_>,
    area: Rect,
    view: &mut View,
    (tree, topic): (&Tree, &Topic),
    (name, rate): (String, Option<String>),
    pen: Pen,
) {
    let block = pen.frame(name, view.focus == Focus::Value);
    let inner = block.inner(area);
    let mut lines = Vec::new();
    if let Some(value) = view.value(tree) {
        lines.push(facts(value, topic, rate, pen));
        let properties = value.properties.iter();
        lines.extend(properties.map(|line| Line::styled(escaped(line), pen.faint())));
        lines.push(Line::styled(form_line(view), pen.faint()));
    }
    let room = usize::from(inner.height).saturating_sub(lines.len());
    let shown = match view.old_and_new(tree).filter(|_| view.is_diff) {
        Some((old, new)) => {
            let (old, new) = (value_lines(old, view.form), value_lines(new, view.form));
            let changes = changes(&old, &new);
            changes
                .iter()
                .map(|change| change_line(*change, pen))
                .collect()
        }
        None => {
            let lines = view.value(tree).map(|value| value_lines(value, view.form));
            let lines = lines.unwrap_or_default().into_iter();
            lines.map(Line::raw).collect::<Vec<_>>()
        }
    };
    view.scroll = view.scroll.min(shown.len().saturating_sub(1));
    lines.extend(shown.into_iter().skip(view.scroll).take(room));
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text.block(block), area);
}

/// QoS, RETAIN, size, when, how many.
fn facts(value: &Value, topic: &Topic, rate: Option<String>, pen: Pen) -> Line<'static> {
    let mut text = format!("QoS {}", value.qos);
    if value.retain {
        text.push_str("  RETAIN");
    }
    text.push_str(&format!("  {}  {}", bytes_text(value.len), value.clock));
    text.push_str(&format!("   {} messages", topic.messages));
    if let Some(rate) = rate {
        text.push_str(&format!("  {rate}"));
    }
    if topic.is_retained {
        text.push_str("   retained");
    }
    Line::styled(text, pen.strong())
}

fn form_line(view: &View) -> String {
    let form = view.form.name();
    match (view.is_diff, view.back) {
        (false, 0) => format!("{form}, the last value"),
        (false, back) => format!("{form}, {back} before the last value"),
        (true, 0 | 1) => format!("{form}, what the last value has changed"),
        (true, back) => format!("{form}, what has changed since {back} before the last value"),
    }
}

fn change_line(change: Change<'_>, pen: Pen) -> Line<'static> {
    match change {
        Change::Same(line) => Line::raw(format!("  {line}")),
        Change::Gone(line) => Line::styled(format!("- {line}"), pen.colour(Color::Red)),
        Change::Came(line) => Line::styled(format!("+ {line}"), pen.colour(Color::Green)),
    }
}

fn history(frame: &mut Frame<'_>, area: Rect, view: &View, topic: &Topic, pen: Pen) {
    let title = format!(" History ({}) ", topic.history.len());
    let block = pen.frame(title, view.focus == Focus::History);
    let height = usize::from(block.inner(area).height);
    let last_first = topic.history.len().saturating_sub(height);
    let first = view.back.saturating_sub(height / 2).min(last_first);
    let shown = topic.history.iter().rev().enumerate();
    let lines = shown.skip(first).take(height).map(|(back, value)| {
        let is_chosen = back == view.back;
        let sign = if is_chosen { "> " } else { "  " };
        let mark = if value.retain { " R" } else { "" };
        let payload = value.payload.as_deref();
        let text = match payload {
            Some(payload) => summary(payload),
            None => "(not kept)".to_owned(),
        };
        let text = format!("{sign}{} q{}{mark}  {text}", value.clock, value.qos);
        match is_chosen {
            true => Line::styled(text, pen.strong()),
            false => Line::raw(text),
        }
    });
    let lines: Vec<Line<'_>> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The line of what a person must know: what just happened, a pause, what is left out.
fn word_of(view: &View, tree: &Tree, status: &Status, pen: Pen) -> Line<'static> {
    let (left_out, forgotten) = (tree.left_out(), tree.forgotten());
    if !view.note.is_empty() {
        return Line::styled(format!(" {}", escaped(&view.note)), pen.strong());
    }
    if view.is_paused {
        let text = format!(" PAUSED, {} messages not taken", view.missed);
        return Line::styled(text, pen.alarm());
    }
    if status.is_lost {
        return Line::styled(" What is shown is what was known.", pen.alarm());
    }
    if left_out > 0 {
        let text = format!(
            " FULL: {left_out} messages of further topics are not shown (--topics-max, --memory-max-mib, -t)"
        );
        return Line::styled(text, pen.alarm());
    }
    if forgotten > 0 {
        let text =
            format!(" FULL: {forgotten} old values had to go before their time (--memory-max-mib)");
        return Line::styled(text, pen.alarm());
    }
    Line::raw("")
}

fn prompt(frame: &mut Frame<'_>, area: Rect, view: &View, pen: Pen) {
    let lines = match &view.prompt {
        Prompt::None | Prompt::Help => vec![Line::styled(KEYS, pen.faint())],
        Prompt::Search(input) => {
            let mut spans = vec![Span::styled(" Search: ", pen.strong())];
            spans.extend(typed(input, true, pen, area.width));
            vec![Line::from(spans)]
        }
        Prompt::Clear(topics) => vec![Line::styled(clear_text(topics), pen.alarm())],
        Prompt::Publish(form) => form_lines(form, pen, area.width),
    };
    frame.render_widget(Paragraph::new(lines), area);
}

fn clear_text(topics: &[String]) -> String {
    match topics {
        [only] => format!(" Clear the retained message of {}? y/n", escaped(only)),
        many => format!(
            " Clear {} retained messages here and below? y/n",
            many.len()
        ),
    }
}

fn form_lines(form: &PublishForm, pen: Pen, width: u16) -> Vec<Line<'static>> {
    let title = |name: &str, field: Field| {
        let style = match form.field == field {
            true => pen.chosen(),
            false => pen.strong(),
        };
        Span::styled(format!(" {name:<8}"), style)
    };
    let line = |name: &str, field: Field, input: &Input| {
        let mut spans = vec![title(name, field), Span::raw(" ")];
        spans.extend(typed(input, form.field == field, pen, width));
        Line::from(spans)
    };
    let retain = if form.retain { "yes" } else { "no" };
    vec![
        line("Topic", Field::Topic, &form.topic),
        line("Payload", Field::Payload, &form.payload),
        Line::from(vec![
            title("QoS", Field::Qos),
            Span::raw(format!(" {}   ", form.qos.level())),
            title("Retain", Field::Retain),
            Span::raw(format!(" {retain}")),
        ]),
        Line::styled(FORM_KEYS, pen.faint()),
    ]
}

/// What is typed, of which the end before the cursor is seen in any case.
fn typed(input: &Input, has_cursor: bool, pen: Pen, width: u16) -> Vec<Span<'static>> {
    let (before, after) = input.parts();
    let room = usize::from(width).saturating_sub(14).max(8);
    let before = escaped(&before.replace('\n', "⏎"));
    let skipped = before.chars().count().saturating_sub(room);
    let before: String = before.chars().skip(skipped).collect();
    let mut after = after.chars();
    let under = match after.next() {
        Some(first) => escaped(first.encode_utf8(&mut [0; 4])),
        None => " ".to_owned(),
    };
    let cursor = match has_cursor {
        true => pen.chosen(),
        false => Style::new(),
    };
    let after = escaped(&after.as_str().replace('\n', "⏎"));
    vec![
        Span::raw(before),
        Span::styled(under, cursor),
        Span::raw(after),
    ]
}

fn help(frame: &mut Frame<'_>, body: Rect, pen: Pen) {
    let height = u16::try_from(HELP.len()).unwrap_or(u16::MAX);
    let area = Rect {
        x: body.x + body.width.saturating_sub(HELP_WIDTH) / 2,
        y: body.y + body.height.saturating_sub(height + 2) / 2,
        width: body.width.min(HELP_WIDTH),
        height: body.height.min(height + 2),
    };
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    frame.render_widget(Clear, area);
    let block = pen.frame(" Keys ".to_owned(), true);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// `None` where next to nothing happens.
fn rate_text(rate: f64) -> Option<String> {
    match rate {
        rate if rate >= 100.0 => Some(format!("{rate:.0}/s")),
        rate if rate >= 0.05 => Some(format!("{rate:.1}/s")),
        _ => None,
    }
}

fn bytes_text(bytes: usize) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / (1024 * 1024)),
    }
}

const KEYS: &str = " q quit  ? keys  / search  enter open  tab pane  f form  d diff  p publish  x clear retained  space pause";
const FORM_KEYS: &str =
    " enter publish   esc leave it   tab next field   0 1 2 QoS, space changes QoS and Retain";
/// Deeper levels are not moved in any more.
const DEPTH_SHOWN: usize = 20;
const HELP_WIDTH: u16 = 66;
const HELP: [&str; 18] = [
    "arrows, hjkl      move; right and left open and close",
    "enter             open, close",
    "pgup pgdn g G     pages, the first, the last",
    "e  c              open all below, close all",
    "tab               topics, value, history",
    "/                 search: part of a name, or a topic filter",
    "esc               end the search",
    "f                 value as auto, text, JSON, hex",
    "d                 what has changed: the last value against the",
    "                  one before, or the one chosen in the history",
    "p                 publish to this topic or to another one",
    "x                 clear the retained message of this topic",
    "X                 the same of all topics here and below",
    "space             pause: what comes is counted, and not taken",
    "q, ctrl-c         leave",
    "",
    "R marks a topic with a retained message; (12) is how many",
    "topics are below; 3.4/s is messages in a second.",
];

#[cfg(test)]
mod tests;
