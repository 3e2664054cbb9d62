//! Where a command takes its configuration from: flags, `--set`, the environment, a file.
//!
//! Owns: these flags. Does not own: what they come to (see `server::config::Layers`). Start reading at
//! [`SourceArgs::layers`]. Invariant: every command that has them sees the configuration that `serve` would run with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use server::config::{Config, ConfigError, Layers};

use crate::import::rows::{Outcome, Row};
use crate::mosquitto;
use crate::serve::{EX_CONFIG, EX_USAGE};
use crate::tools::Failure;

/// A file, and what stands above it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FileArgs {
    /// Configuration file (TOML)
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A value in place of the file's, like limits.sessions_max=1000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// All that says how a server runs.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// A mosquitto.conf in place of a configuration file; `vencejo import mosquitto` says what becomes of it
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) mosquitto_conf: Option<PathBuf>,
    /// Where to listen, instead of what the configuration says; may be repeated
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    pub(crate) listen: Vec<SocketAddr>,
    /// How many shards (threads that serve) [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: Option<u16>,
    /// The folder where state is kept [default: vencejo-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How safe something is before it is acknowledged: synced (survives a power failure), written (survives
    /// the end of the process) or memory (gone with it; no folder is used) [default: synced]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) level: Option<LevelArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    Memory,
    Written,
    Synced,
}

impl FileArgs {
    fn put_on(&self, layers: &mut Layers) -> Result<(), ConfigError> {
        if let Some(path) = &self.config {
            layers.file(path)?;
        }
        layers.environment(std::env::vars_os())?;
        for set in &self.set {
            layers.set(set)?;
        }
        Ok(())
    }

    /// The configuration.
    pub(crate) fn read(&self) -> Result<Config, Failure> {
        let mut layers = Layers::new();
        let read = self.put_on(&mut layers).and_then(|()| layers.check());
        read.map_err(wrong)
    }
}

impl SourceArgs {
    /// Everything, each above what it wins over.
    pub(crate) fn layers(&self) -> Result<Layers, Failure> {
        self.layers_and_rows().map(|(layers, _)| layers)
    }

    /// The same, and what became of each line of a mosquitto.conf.
    fn layers_and_rows(&self) -> Result<(Layers, Vec<Row>), Failure> {
        let mut layers = Layers::new();
        let rows = match &self.mosquitto_conf {
            Some(path) => mosquitto::put_on(&mut layers, path)?,
            None => Vec::new(),
        };
        self.file.put_on(&mut layers).map_err(wrong)?;
        self.put_flags_on(&mut layers)?;
        Ok((layers, rows))
    }

    /// The file, what it includes, and those of secrets that the environment names.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.file.config.iter().cloned().collect();
        if let Some(path) = &self.mosquitto_conf {
            files.extend(mosquitto::files(path));
        }
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("VENCEJO__") && name.ends_with("_FILE") {
                files.push(value.into());
            }
        }
        files
    }

    /// The flags, above everything else.
    pub(crate) fn put_flags_on(&self, layers: &mut Layers) -> Result<(), Failure> {
        let usage = |text: String| Failure {
            text,
            code: EX_USAGE,
        };
        if let Some(address) = repeated(&self.listen) {
            return Err(usage(format!("error: --listen {address} is given twice")));
        }
        layers.listen(&self.listen);
        if let Some(shards) = self.shards {
            layers.flag("--shards", "shards", shards.to_string());
        }
        if let Some(data) = &self.data {
            let data = data.to_str();
            let data = data.ok_or_else(|| usage("error: --data is not UTF-8".to_owned()))?;
            layers.flag("--data", "storage.data", data);
        }
        if let Some(level) = self.level {
            let level = match level {
                LevelArg::Memory => "memory",
                LevelArg::Written => "written",
                LevelArg::Synced => "synced",
            };
            layers.flag("--level", "storage.level", level);
        }
        Ok(())
    }

    /// The configuration; the log says what of a mosquitto.conf is not as it was.
    pub(crate) fn read(&self) -> Result<Config, Failure> {
        let (layers, rows) = self.layers_and_rows()?;
        for row in rows.iter().filter(|row| row.outcome != Outcome::Kept) {
            let Row {
                place, option, why, ..
            } = row;
            let reason = format!("{place} {option}: {why}");
            match row.outcome {
                Outcome::Ignored => {
                    tracing::warn!(reason, "a line of mosquitto.conf means nothing here");
                }
                _ => tracing::info!(reason, "a line of mosquitto.conf means something else here"),
            }
        }
        layers.check().map_err(wrong)
    }

    /// The file, if there is one to read again.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file
            .config
            .as_deref()
            .or(self.mosquitto_conf.as_deref())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
pub(crate) fn wrong(error: ConfigError) -> Failure {
    Failure {
        text: error.to_string(),
        code: EX_CONFIG,
    }
}

pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "wanted an address and a port, like 127.0.0.1:1884 or [::1]:1884; a name will not do"
            .to_owned()
    })
}

/// An address that stands in `addresses` twice; port 0 is another port each time.
fn repeated(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let mut rest = addresses.iter();
    while let Some(address) = rest.next() {
        if address.port() != 0 && rest.as_slice().contains(address) {
            return Some(*address);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use store::Level;

    use super::*;

    #[test]
    fn addresses_are_refused_with_what_they_look_like() {
        assert!(parse_listen("[::1]:1884").is_ok());
        for text in ["1884", "localhost:1884", "::1:1884", "127.0.0.1:80000"] {
            let said = parse_listen(text).unwrap_err();
            assert!(said.contains("127.0.0.1:1884"), "{said}");
        }
        let args = SourceArgs {
            listen: vec!["127.0.0.1:1884".parse().unwrap(); 2],
            ..SourceArgs::default()
        };
        let failure = args.read().unwrap_err();
        assert_eq!(failure.code, EX_USAGE);
        assert!(failure.text.contains("given twice"), "{}", failure.text);
    }

    #[test]
    fn flags_win_over_the_configuration() {
        let args = SourceArgs {
            file: FileArgs {
                set: vec!["shards=2".to_owned(), "limits.sessions_max=7".to_owned()],
                config: None,
            },
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            shards: Some(3),
            data: Some("elsewhere".into()),
            level: Some(LevelArg::Written),
            ..SourceArgs::default()
        };
        let config = args.read().unwrap();
        assert_eq!(config.listeners[0].address, args.listen[0].into());
        assert_eq!(config.shards.get(), 3);
        assert_eq!(config.limits.sessions_max, 7);
        assert_eq!(config.storage.data, Path::new("elsewhere"));
        assert_eq!(config.storage.level, Level::Written);
        let missing = SourceArgs {
            file: FileArgs {
                config: Some("no/such/file.toml".into()),
                set: Vec::new(),
            },
            ..args
        };
        assert_eq!(missing.read().unwrap_err().code, EX_CONFIG);
    }
}
