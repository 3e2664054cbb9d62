//! Files that are looked at now and then, for what is saved into them.
//!
//! Owns: [`FileWatch`], [`FileWatches`]. Does not own: what is done with the file, when it is looked at (whoever calls). Start reading at
//! [`FileWatch::has_settled`]. Invariant: a change is told once, and not before two looks have seen the same: what is saved in
//! two parts is not read in between.

use std::path::{Path, PathBuf};

/// A file, and what was last read of it.
#[derive(Debug)]
pub(crate) struct FileWatch {
    path: PathBuf,
    read: Option<Vec<u8>>,
    /// What the last look has seen, if that is something else.
    seen: Option<Vec<u8>>,
}

impl FileWatch {
    /// Of the file at `path`, which counts as read just now.
    pub(crate) fn new(path: &Path) -> Self {
        let mut watch = Self {
            path: path.to_owned(),
            read: None,
            seen: None,
        };
        watch.is_read_now();
        watch
    }

    /// Somebody has read it.
    pub(crate) fn is_read_now(&mut self) {
        self.read = std::fs::read(&self.path).ok();
        self.seen = None;
    }

    /// Looks at it. Whether it holds something else than what was read, and did at the last look, too; it then counts as
    /// read. A file that is away is not looked at: it may be on its way.
    pub(crate) fn has_settled(&mut self) -> bool {
        let Ok(now) = std::fs::read(&self.path) else {
            self.seen = None;
            return false;
        };
        if self.read.as_ref() == Some(&now) {
            self.seen = None;
            return false;
        }
        if self.seen.as_ref() == Some(&now) {
            self.read = self.seen.take();
            return true;
        }
        self.seen = Some(now);
        false
    }
}

/// Some files, each with what was last read of it.
#[derive(Debug, Default)]
pub(crate) struct FileWatches {
    all: Vec<FileWatch>,
}

impl FileWatches {
    /// From now on of these files; those that are new count as read just now.
    pub(crate) fn turn_to(&mut self, paths: &[PathBuf]) {
        self.all.retain(|file| paths.contains(&file.path));
        for path in paths {
            if !self.all.iter().any(|file| file.path == *path) {
                self.all.push(FileWatch::new(path));
            }
        }
    }

    /// Somebody has read them.
    pub(crate) fn are_read_now(&mut self) {
        for file in &mut self.all {
            file.is_read_now();
        }
    }

    /// Whether one of them has settled on something else, see [`FileWatch::has_settled`].
    pub(crate) fn have_settled(&mut self) -> bool {
        // Each of them is looked at.
        let settled = self.all.iter_mut().filter_map(|file| {
            let has_settled = file.has_settled();
            has_settled.then_some(())
        });
        settled.count() > 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_told_once_and_when_it_stays() {
        let path = std::env::temp_dir().join(format!("vencejo-watch-{}", std::process::id()));
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("a");
        let mut watch = FileWatch::new(&path);
        assert!(!watch.has_settled());
        write("b");
        assert!(!watch.has_settled(), "it may be half of it");
        write("bc");
        assert!(!watch.has_settled());
        assert!(watch.has_settled());
        assert!(!watch.has_settled(), "it is told once");
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_settled());
        write("d");
        assert!(!watch.has_settled());
        // A change that is taken back is none.
        write("bc");
        assert!(!watch.has_settled() && !watch.has_settled());
        write("e");
        assert!(!watch.has_settled());
        watch.is_read_now();
        assert!(!watch.has_settled(), "SIGHUP has read it");
        fs::remove_file(&path).unwrap();
    }
}
