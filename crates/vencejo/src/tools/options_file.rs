//! Files of options, as mosquitto's tools read them: `-o FILE`, or one in the folder of the user's configuration.
//!
//! Owns: where they are, their form. Does not own: what an option means (see `args`). Start reading at [`options`].
//! Invariant: what stands in a file stands before the command line, which therefore wins.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::called;

/// Where there are more options.
#[derive(Args, Clone, Debug)]
pub(crate) struct OptionsFileArgs {
    /// Read options from this file, before those of the command line: one in each line
    #[arg(short = 'o', value_name = "FILE")]
    pub(crate) options_file: Option<PathBuf>,
}

/// The options of the file that is `named`; without one, and where this program is called by the name of mosquitto's
/// `tool`, of the file that is there for that one.
/// # Errors
/// The file that is named cannot be read.
pub(crate) fn options(named: Option<&Path>, tool: Option<&str>) -> Result<Vec<OsString>, Failure> {
    let Some(path) = named else {
        let usual = tool.and_then(usual);
        return Ok(usual.map_or_else(Vec::new, |path| read(&path).unwrap_or_default()));
    };
    read(path).map_err(|error| {
        let path = path.display();
        Failure::new(format!("Error: {path}: {error}."))
    })
}

/// The file that mosquitto's tool reads.
fn usual(tool: &str) -> Option<PathBuf> {
    let name = called::theirs(tool)?;
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = folder("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(folder("HOME")?).join(".config")));
    base.map(|base| base.join(name))
}

/// An option in each line, with what is behind the first blank as its value; `#` begins a line that is none.
fn read(path: &Path) -> std::io::Result<Vec<OsString>> {
    let text = std::fs::read_to_string(path)?;
    let mut words = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches(' ');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (option, value) = match line.split_once(' ') {
            Some((option, value)) => (option, Some(value)),
            None => (line, None),
        };
        words.push(option.into());
        words.extend(value.map(OsString::from));
    }
    Ok(words)
}
