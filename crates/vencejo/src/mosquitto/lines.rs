//! The lines of a mosquitto.conf, with those of the folders that it includes.
//!
//! Owns: [`read`], where a line stands. Does not own: what an option means (see `translate`). Start reading at [`read`].
//! Invariant: lines come in the order in which mosquitto takes them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(super) file: Rc<PathBuf>,
    number: usize,
    pub(super) word: String,
    pub(super) value: String,
}

impl Line {
    /// Where it stands.
    pub(super) fn place(&self) -> String {
        let name = self.file.file_name().unwrap_or_default();
        format!("{}:{}", name.display(), self.number)
    }

    /// As it stands there, without what is secret.
    pub(super) fn shown(&self) -> String {
        let is_secret = SECRETS.iter().any(|word| self.word.contains(word));
        match (is_secret, self.value.is_empty()) {
            (_, true) => self.word.clone(),
            (true, _) => format!("{} ***", self.word),
            (false, _) => format!("{} {}", self.word, self.value),
        }
    }

    /// `true` or `false`, as mosquitto reads it.
    pub(super) fn truth(&self) -> Option<bool> {
        match self.value.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn of(number: usize, text: &str) -> Self {
        let (word, value) = text.split_once(' ').unwrap_or((text, ""));
        Self {
            file: Rc::new("mosquitto.conf".into()),
            number,
            word: word.to_owned(),
            value: value.to_owned(),
        }
    }
}

/// Why a file cannot be taken over.
#[derive(Debug)]
pub(crate) struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All lines of the file at `path`, and of what it includes in their places.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, Unreadable> {
    let mut lines = Vec::new();
    read_into(path, 0, &mut lines)?;
    Ok(lines)
}

fn read_into(path: &Path, depth: usize, lines: &mut Vec<Line>) -> Result<(), Unreadable> {
    let failed =
        |path: &Path, why: &dyn fmt::Display| Unreadable(format!("{}: {why}", path.display()));
    if depth > DEPTH_MAX {
        return Err(failed(path, &"include_dir leads in circles"));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(path, &error))?;
    let text = String::from_utf8(bytes).map_err(|_| failed(path, &"it is not UTF-8"))?;
    let file = Rc::new(path.to_owned());
    for (number, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (word, value) = text
            .split_once([' ', '\t'])
            .map_or((text, ""), |(word, value)| (word, value.trim()));
        if word == "include_dir" {
            for inner in
                included(Path::new(value)).map_err(|error| failed(Path::new(value), &error))?
            {
                read_into(&inner, depth + 1, lines)?;
            }
            continue;
        }
        lines.push(Line {
            file: Rc::clone(&file),
            number,
            word: word.to_owned(),
            value: value.to_owned(),
        });
        if lines.len() > LINES_MAX {
            return Err(failed(path, &"it has more than 100,000 lines"));
        }
    }
    Ok(())
}

/// The files of a folder that are included, in their order: capital letters first.
fn included(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What is in a name of an option whose value is not to be shown.
const SECRETS: [&str; 5] = ["password", "psk", "auth_opt_", "plugin_opt_", "pass_"];
/// Folders within folders.
const DEPTH_MAX: usize = 8;
const LINES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn included_files_stand_in_the_place_of_the_line() {
        let folder = std::env::temp_dir().join(format!("vencejo-lines-{}", std::process::id()));
        let inner = folder.join("conf.d");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("b.conf"), "b 2\n").unwrap();
        fs::write(inner.join("A.conf"), "a 1\n").unwrap();
        fs::write(inner.join("c.txt"), "c 3\n").unwrap();
        let file = folder.join("mosquitto.conf");
        let text = format!(
            "# first\nfirst\t 1 \ninclude_dir {}\r\nlast  x y\n",
            inner.display()
        );
        fs::write(&file, text).unwrap();
        let lines = read(&file).unwrap();
        let shown: Vec<String> = lines.iter().map(Line::shown).collect();
        assert_eq!(shown, ["first 1", "a 1", "b 2", "last x y"]);
        assert_eq!(
            (lines[1].place(), lines[3].place()),
            ("A.conf:1".into(), "mosquitto.conf:4".into())
        );
        fs::write(
            inner.join("d.conf"),
            format!("include_dir {}\n", inner.display()),
        )
        .unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("in circles"));
        assert!(read(&folder.join("none")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn secrets_of_options_are_not_shown() {
        assert_eq!(
            Line::of(1, "remote_password abc").shown(),
            "remote_password ***"
        );
        assert_eq!(Line::of(1, "bridge_psk abc").shown(), "bridge_psk ***");
        assert_eq!(
            Line::of(1, "auth_opt_pg_password abc").shown(),
            "auth_opt_pg_password ***"
        );
        assert_eq!(Line::of(1, "port 1883").shown(), "port 1883");
    }
}
