//! Any text as a configuration: a checked value or a message that points at a place in it.

use std::path::Path;

use vencejo_server::config::{ConfigError, parse};

/// Reads `data`; a refusal can be printed, and its line and column are in the text.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Err(error) = parse(text, Path::new("vencejo.toml")) else {
        return;
    };
    let ConfigError::Invalid { problem, .. } = &error else {
        unreachable!("no file is read: {error}");
    };
    let line = text.split('\n').nth(problem.line - 1);
    let line = line.expect("the line is in the text");
    assert!(problem.column <= line.chars().count() + 1, "{error}");
    assert!(error.to_string().contains(&problem.message));
}
