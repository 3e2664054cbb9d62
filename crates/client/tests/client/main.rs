//! The Client over real sockets: against our own server in this process, and against a Server that a test plays by hand.
//!
//! Owns: nothing but tests. Start reading at [`application`], then any test.
//! Invariant: nothing waits longer than [`DEADLINE`], and nothing waits for a time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what tests share is of tests as well"
)]

mod application;
mod authentication;
mod authority;
mod carriers;
mod driver;
mod played;
#[cfg(feature = "quic")]
mod quic;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A folder for one test; gone with it.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vencejo-client-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A process that was killed may have had the same number.
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file; returns its path.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
