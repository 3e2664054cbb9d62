//! The secrets of TLS connections, in a file for programs that look into what was sent.
//!
//! Owns: [`KeyLogFile`]. Does not own: when they arise (see `tls`). Start reading at [`KeyLogFile::open`]. Invariant: a line
//! is written as a whole, and nobody but the owner can read the file that is made.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// A file in the format of NSS, as `SSLKEYLOGFILE` names one elsewhere.
#[derive(Debug)]
pub(crate) struct KeyLogFile(File);

impl KeyLogFile {
    /// Behind what is there, or anew.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(Self)
    }
}

impl rustls::KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = line(label, client_random, secret);
        // A connection is not given up for a file that is full.
        (&self.0).write_all(line.as_bytes()).ok();
    }
}

fn line(label: &str, client_random: &[u8], secret: &[u8]) -> String {
    let mut line = format!("{label} ");
    for byte in client_random {
        // Writing to a text cannot fail.
        write!(line, "{byte:02x}").ok();
    }
    line.push(' ');
    for byte in secret {
        write!(line, "{byte:02x}").ok();
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line_of_three_words() {
        let shown = line("CLIENT_RANDOM", &[0x01, 0xAB], &[0xFF, 0x00]);
        assert_eq!(shown, "CLIENT_RANDOM 01ab ff00\n");
    }
}
