//! STYLE rule 10: a log line is a fixed sentence, and its facts are fields from one list.
//!
//! Owns: that list; reading the arguments of `tracing` macros.
//! Does not own: levels and wording. Start reading at [`check`].

use super::{Finding, RustFile};

/// Finds unknown fields and formatted messages in the log macros of the crates.
pub(super) fn check(file: &RustFile<'_>) -> Vec<Finding> {
    if !file.is_crate_source() {
        return Vec::new();
    }
    let code = &file.masked.code;
    let mut findings = Vec::new();
    for macro_name in MACROS {
        for (at, _) in code.match_indices(macro_name) {
            let is_whole =
                !code[..at].ends_with(|last: char| last.is_alphanumeric() || last == '_');
            let open = at + macro_name.len();
            let Some(length) = code[open..]
                .find(CLOSERS)
                .filter(|_| is_whole)
                .and_then(|_| arguments_length(&code[open..]))
            else {
                continue;
            };
            let line = code[..at].matches('\n').count() + 1;
            for says in check_arguments(&code[open..open + length], &file.file.text[open..]) {
                findings.push(Finding::new(file.file, line, says));
            }
        }
    }
    findings
}

/// Bytes up to the bracket that closes the macro, which `code` starts just inside of.
fn arguments_length(code: &str) -> Option<usize> {
    let mut depth = 1_usize;
    for (at, next) in code.char_indices() {
        match next {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// `code` is masked, `source` is the same text unmasked (and goes on).
fn check_arguments(code: &str, source: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (start, argument) in split_at_commas(code) {
        let trimmed = argument.trim_start();
        let text_at = start + (argument.len() - trimmed.len());
        let trimmed = trimmed.trim_end();
        if trimmed.starts_with('"') {
            let message = &source[text_at..text_at + trimmed.len()];
            if message.contains('{') {
                findings.push("a log message is a fixed sentence: facts are fields".to_owned());
            }
            break;
        }
        let name = field_name(trimmed);
        let is_setting = ["target:", "parent:", "name:"]
            .iter()
            .any(|word| trimmed.starts_with(word));
        let is_level = trimmed.starts_with("Level::") || trimmed.starts_with("tracing::Level");
        if !(name.is_empty() || is_setting || is_level || FIELDS.contains(&name)) {
            findings.push(format!("`{name}` is no log field of rule 10"));
        }
    }
    findings
}

/// The arguments between commas outside brackets, with where they start.
fn split_at_commas(code: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0_usize);
    for (at, next) in code.char_indices() {
        match next {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push((start, &code[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push((start, &code[start..]));
    parts
}

/// `client_id` in `%client_id`, `?client_id`, `client_id = id` and `self.client_id`.
fn field_name(argument: &str) -> &str {
    let name = argument.split('=').next().unwrap_or_default().trim();
    let name = name.trim_start_matches(['%', '?']);
    if argument.contains('=') {
        name
    } else {
        name.rsplit('.').next().unwrap_or(name)
    }
}

const CLOSERS: [char; 3] = [')', ']', '}'];
const MACROS: &[&str] = &[
    "trace!(",
    "debug!(",
    "info!(",
    "warn!(",
    "error!(",
    "event!(",
    "trace_span!(",
    "debug_span!(",
    "info_span!(",
    "warn_span!(",
    "error_span!(",
];
const FIELDS: &[&str] = &[
    "client_id",
    "user",
    "peer",
    "listener",
    "protocol",
    "topic",
    "filter",
    "packet_id",
    "qos",
    "reason",
    "bytes",
    "elapsed_ms",
    "shard",
    "seq",
    "error",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TextFile;

    fn findings(body: &str) -> Vec<String> {
        let file = TextFile::new("crates/server/src/a.rs", body);
        check(&RustFile::new(&file))
            .into_iter()
            .map(|finding| finding.says)
            .collect()
    }

    #[test]
    fn listed_fields_and_a_fixed_sentence_pass() {
        let good =
            "debug!(%client_id, topic = %name(a, b), qos = q.level(), bytes = n, \"ok, so\");";
        assert!(findings(good).is_empty());
        assert!(findings("tracing::info!(\"started\");").is_empty());
        assert!(findings("warn!(target: \"x\", %self.peer, error = %error, \"gone\");").is_empty());
    }

    #[test]
    fn unknown_fields_are_found() {
        let found = findings("info!(password = %name, ?payload, \"bad\");");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_formatted_message_is_found() {
        assert_eq!(findings("info!(\"client {} left\", id);").len(), 1);
    }

    #[test]
    fn other_macros_are_left_alone() {
        assert!(
            findings("my_info!(user = 1); println!(\"{}\", a); assert!(a, \"{b}\");").is_empty()
        );
    }
}
