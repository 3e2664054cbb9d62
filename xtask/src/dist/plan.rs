//! What is to be packaged, for which machine, and where it goes.
//!
//! Owns: the command line of `cargo xtask dist`, and names of architectures. Does not own: the work.
//! Start reading at [`Plan::new`]. Invariant: a plan that exists names a machine that Debian has a name for.

use std::fs;
use std::path::{Path, PathBuf};

/// The command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    target: Option<String>,
    binary: Option<PathBuf>,
    output: Option<PathBuf>,
    is_quick: bool,
}

impl Options {
    /// Reads the words; `None` if they ask for help.
    ///
    /// # Errors
    /// A sentence if a word is unknown or lacks its value.
    pub(super) fn read(words: &[&str]) -> Result<Option<Self>, String> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next();
                value.ok_or_else(|| format!("{word} needs a value\n{USAGE}"))
            };
            match *word {
                "--target" => options.target = Some((*value()?).to_owned()),
                "--binary" => options.binary = Some(PathBuf::from(value()?)),
                "--output" => options.output = Some(PathBuf::from(value()?)),
                "--quick" => options.is_quick = true,
                "--help" => return Ok(None),
                _ => return Err(format!("{word} is not known\n{USAGE}")),
            }
        }
        Ok(Some(options))
    }
}

/// All that is decided before the work begins.
#[derive(Debug)]
pub(super) struct Plan {
    /// The version of the workspace.
    pub(super) version: String,
    /// Whose machine, as Rust says it.
    pub(super) triple: String,
    /// The same as Debian says it.
    pub(super) architecture: &'static str,
    /// A program that is built already.
    pub(super) binary: Option<PathBuf>,
    /// Where the packages go; absolute, and there.
    pub(super) output: PathBuf,
    /// Whether this machine can run the program.
    pub(super) runs_here: bool,
    /// Whether the packages are to be tried and thrown away: they are compressed little.
    pub(super) is_quick: bool,
}

impl Plan {
    /// Decides; `host` is the triple of this machine.
    ///
    /// # Errors
    /// A sentence if Debian has no name for the machine, or the output folder cannot be made.
    pub(super) fn new(root: &Path, options: Options, host: &str) -> Result<Self, String> {
        let triple = options.target.unwrap_or_else(|| host.to_owned());
        let architecture = architecture(&triple)?;
        let output = options
            .output
            .unwrap_or_else(|| super::target(root).join("dist"));
        let failed = |error: std::io::Error| format!("{}: {error}", output.display());
        fs::create_dir_all(&output).map_err(failed)?;
        let output = output.canonicalize().map_err(failed)?;
        let manifest = fs::read_to_string(root.join("Cargo.toml"))
            .map_err(|error| format!("Cargo.toml: {error}"))?;
        Ok(Self {
            version: version(&manifest)?,
            runs_here: self::architecture(host) == Ok(architecture),
            triple,
            architecture,
            binary: options.binary,
            is_quick: options.is_quick,
            output,
        })
    }
}

fn version(manifest: &str) -> Result<String, String> {
    let manifest: toml::Table = manifest
        .parse()
        .map_err(|error| format!("Cargo.toml: {error}"))?;
    let version = manifest
        .get("workspace")
        .and_then(|table| table.get("package")?.get("version")?.as_str());
    version
        .map(str::to_owned)
        .ok_or_else(|| "Cargo.toml: there is no workspace.package.version".to_owned())
}

/// Debian's name of a machine.
fn architecture(triple: &str) -> Result<&'static str, String> {
    let (machine, rest) = triple.split_once('-').unwrap_or((triple, ""));
    let name = match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" => "i386",
        "armv7" => "armhf",
        "riscv64gc" => "riscv64",
        _ => return Err(format!("{triple}: packages are not made for this machine")),
    };
    if !rest.contains("linux") {
        return Err(format!("{triple}: packages are made for Linux only"));
    }
    Ok(name)
}

/// What `--help` says.
pub(super) const USAGE: &str = "\
usage: cargo xtask dist [--target TRIPLE] [--binary FILE] [--output DIR] [--quick]
  --target   the machine the packages are for (this one); x86_64-unknown-linux-musl is linked statically
  --binary   package this program, built already, instead of building one
  --output   where the packages go (dist in the target folder)
  --quick    compress little, for packages that are only tried
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_dist_is_read() {
        let read = Options::read(&["--binary", "b", "--target", "t", "--output", "o", "--quick"]);
        let expected = Options {
            target: Some("t".to_owned()),
            binary: Some(PathBuf::from("b")),
            output: Some(PathBuf::from("o")),
            is_quick: true,
        };
        assert_eq!(read, Ok(Some(expected)));
        assert_eq!(Options::read(&["--help"]), Ok(None));
    }

    #[test]
    fn an_unknown_word_and_a_missing_value_are_told() {
        let unknown = Options::read(&["--fast"]).unwrap_err();
        assert!(unknown.starts_with("--fast is not known"), "{unknown}");
        let missing = Options::read(&["--target"]).unwrap_err();
        assert!(missing.starts_with("--target needs a value"), "{missing}");
    }

    #[test]
    fn machines_have_the_names_that_debian_gives_them() {
        assert_eq!(architecture("x86_64-unknown-linux-musl"), Ok("amd64"));
        assert_eq!(architecture("aarch64-unknown-linux-gnu"), Ok("arm64"));
        assert!(architecture("sparc64-unknown-linux-gnu").is_err());
        assert!(architecture("x86_64-apple-darwin").is_err());
    }

    #[test]
    fn the_version_is_that_of_the_workspace() {
        let manifest = "[workspace.package]\nversion = \"1.2.3\"\n";
        assert_eq!(version(manifest), Ok("1.2.3".to_owned()));
        assert!(version("[package]\n").is_err());
    }
}
