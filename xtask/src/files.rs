//! The files that the checks read.
//!
//! Owns: walking the workspace, reading text, paths relative to the root with `/` in them.
//! Does not own: what a file must look like (see `tidy`, `compliance`).
//! Start reading at [`read_all`]. Invariant: the order of files is that of their paths.

use std::fs;
use std::path::Path;

/// One text file of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct TextFile {
    /// Path from the workspace root, with `/` between its parts.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl TextFile {
    /// A file that exists only in a test.
    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Whether this is a Rust source file.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Reads every text file under `root`, except build results and version control.
///
/// # Errors
/// A sentence that names the file or folder that could not be read.
pub(crate) fn read_all(root: &Path) -> Result<Vec<TextFile>, String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry
                .map_err(|error| format!("{}: {error}", folder.display()))?
                .path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if SKIPPED.contains(&name.as_str()) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if is_text(&name) {
                let text = fs::read_to_string(&path)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                let relative = path.strip_prefix(root).unwrap_or(&path);
                let path = relative.to_string_lossy().replace('\\', "/");
                found.push(TextFile { path, text });
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn is_text(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    TEXT_ENDINGS.contains(&ending) || TEXT_NAMES.contains(&name)
}

/// Folders and files that are results, not sources.
const SKIPPED: &[&str] = &[
    "target",
    ".git",
    ".test-tools",
    "node_modules",
    "__pycache__",
    "corpus",
    "artifacts",
    "Cargo.lock",
];
const TEXT_ENDINGS: &[&str] = &[
    "rs", "toml", "md", "py", "js", "mjs", "sh", "conf", "json", "yml",
];
const TEXT_NAMES: &[&str] = &[
    "test",
    "run",
    "install",
    "acl",
    "bench",
    "idle",
    "syncs",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];
