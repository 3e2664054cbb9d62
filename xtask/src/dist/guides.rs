//! The README and the guides of a package, with links that lead somewhere there.
//!
//! Owns: which pages go along, what becomes of their links. Does not own: where a package keeps them (see `dist`).
//! Start reading at [`Guides::read`]. Invariant: a link of a page leads to a file of the package, or out of it by a URL.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The pages of a package, by their paths in it.
pub(super) struct Guides(pub(super) BTreeMap<PathBuf, String>);

impl Guides {
    /// `first` and the pages of `docs/`, for a package that has the files `along`, too.
    pub(super) fn read(root: &Path, first: &[&str], along: &[&str]) -> Result<Self, String> {
        let mut paths: Vec<PathBuf> = first.iter().map(PathBuf::from).collect();
        let docs = root.join("docs");
        let failed = |error: std::io::Error| format!("{}: {error}", docs.display());
        for entry in fs::read_dir(&docs).map_err(failed)? {
            let name = PathBuf::from(entry.map_err(failed)?.file_name());
            if name.extension().is_some_and(|extension| extension == "md") {
                paths.push(Path::new("docs").join(name));
            }
        }
        let is_there = |path: &Path| {
            paths.iter().any(|page| page == path)
                || along.iter().any(|file| path == Path::new(file))
        };
        let mut pages = BTreeMap::new();
        for path in &paths {
            let file = root.join(path);
            let text = fs::read_to_string(&file);
            let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
            pages.insert(path.clone(), with_links_to(&text, path, is_there));
        }
        Ok(Self(pages))
    }
}

/// The text of the page at `path`, in which what a link called is left of one that leads to nothing that `is_there`.
fn with_links_to(text: &str, path: &Path, is_there: impl Fn(&Path) -> bool) -> String {
    // What stands between two fences is code.
    let parts = text.split("```").enumerate();
    let parts = parts.map(|(number, part)| match number % 2 {
        0 => prose_with_links_to(part, path, &is_there),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("```")
}

fn prose_with_links_to(text: &str, path: &Path, is_there: impl Fn(&Path) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("](") {
        let (Some(open), Some((target, after))) = (opening(before), behind.split_once(')')) else {
            break;
        };
        let (lead, called) = before.split_at(open);
        shown.push_str(lead);
        if leads_out(target) || is_there(&place(path, target)) {
            shown.push_str(&format!("{called}]({target})"));
        } else {
            shown.push_str(called.strip_prefix('[').unwrap_or(called));
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

/// Where the `[` is that the end of `text` closes.
fn opening(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices().rev() {
        match character {
            ']' => depth += 1,
            '[' if depth == 0 => return Some(at),
            '[' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A heading of the page itself, or a place in the net.
fn leads_out(target: &str) -> bool {
    target.starts_with('#') || target.contains("://")
}

/// The file that a link in the page at `path` leads to.
fn place(path: &Path, target: &str) -> PathBuf {
    let file = target.split_once('#').map_or(target, |(file, _)| file);
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut place = PathBuf::new();
    for part in folder.join(file).components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            Component::CurDir => {}
            other => place.push(other),
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_what_is_not_there_becomes_its_words() {
        let text = "See [the `a[b]`\nguide](tools.md#load), [the\ncode](../crates/x.rs) and [here](#it).\n\
                    ```\n[c](../crates/x.rs)\n```\n[README](../README.md) [out](https://a.example/b) [d](e.md)\n";
        let there = ["docs/tools.md", "README.md"];
        let is_there = |path: &Path| there.iter().any(|file| path == Path::new(file));
        let shown = with_links_to(text, Path::new("docs/page.md"), is_there);
        let expected = "See [the `a[b]`\nguide](tools.md#load), the\ncode and [here](#it).\n\
                        ```\n[c](../crates/x.rs)\n```\n[README](../README.md) [out](https://a.example/b) d\n";
        assert_eq!(shown, expected);
    }

    /// Every link of every page that goes along leads to another one, or to a licence.
    #[test]
    fn pages_of_a_package_lead_nowhere_but_to_its_files() {
        let along = ["LICENSE-APACHE", "LICENSE-MIT"];
        let guides = Guides::read(crate::workspace_root(), &["README.md"], &along).unwrap();
        assert!(guides.0.contains_key(Path::new("docs/tools.md")));
        let readme = &guides.0[Path::new("README.md")];
        assert!(readme.contains("(docs/tools.md)"), "{readme}");
        let mut links = 0;
        for (path, text) in &guides.0 {
            let prose = text.split("```").step_by(2);
            for target in prose.flat_map(|text| text.split("](").skip(1)) {
                let target = target.split(')').next().unwrap_or_default();
                let place = place(path, target);
                let is_along = along.iter().any(|file| place == Path::new(file));
                assert!(
                    leads_out(target) || is_along || guides.0.contains_key(&place),
                    "{}: {target}",
                    path.display()
                );
                links += 1;
            }
        }
        assert!(links > 20, "{links}");
    }
}
