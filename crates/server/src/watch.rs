//! Certificates, keys and revocation lists that are replaced while the Server runs.
//!
//! Owns: [`Watcher`]. Does not own: what is in the files (see `tls`), when it looks (whoever calls). Start reading at
//! [`Watcher::look`]. Invariant: a change is taken over by all shards or by none, and each change is tried once.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::{Config, TlsConfig};
use crate::reload::{ReloadError, Reloader};

/// Looks after the files that TLS of a Server rests on.
#[derive(Debug)]
pub struct Watcher {
    reloader: Reloader,
    /// What they were like when they were read, as far as that is known.
    seen: Vec<Seen>,
}

/// What tells a file from another one in its place.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    /// Its last change, length and number; `None` if it is not there.
    state: Option<(SystemTime, u64, u64)>,
}

impl Watcher {
    /// Of what `reloader`'s Server runs on; the files count as read just now.
    #[must_use]
    pub fn new(reloader: Reloader) -> Self {
        let seen = files(&reloader.running());
        Self { reloader, seen }
    }

    /// Reads all of the files again if one of them has changed since the last look; returns whether one has. New
    /// connections are made with what they hold; nobody is dropped.
    /// # Errors
    /// One of them cannot be used, or does not go with another one: what was read before stays, and the log and an
    /// alarm say why. They are tried again once one of them has changed.
    pub fn look(&mut self) -> Result<bool, ReloadError> {
        // Before they are read: a change in between is seen the next time.
        let now = files(&self.reloader.running());
        if now == self.seen {
            return Ok(false);
        }
        self.seen = now;
        self.reloader.read_tls_again().map(|()| true)
    }
}

fn files(config: &Config) -> Vec<Seen> {
    let of_tls = |tls: &TlsConfig| {
        let shown = tls.certificates.iter();
        let shown = shown.flat_map(|files| [files.certificate.clone(), files.key.clone()]);
        let judged = [&tls.client_ca, &tls.crl];
        let judged = judged.into_iter().flatten().cloned();
        shown.chain(judged).collect::<Vec<_>>()
    };
    let tls = config.listeners.iter().filter_map(|of| of.tls.as_ref());
    let paths = tls.flat_map(of_tls);
    paths
        .map(|path| Seen {
            state: state(&path).ok(),
            path,
        })
        .collect()
}

fn state(path: &Path) -> io::Result<(SystemTime, u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let number = 0;
    Ok((metadata.modified()?, metadata.len(), number))
}
