//! Files that authentication rests on, and why one cannot be used.
//!
//! Owns: [`AuthenticationError`]. Does not own: what is in such a file. Start reading at
//! [`AuthenticationError`]. Invariant: what is not whole is not used; the error names the file and the line,
//! and no secret.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::outbound::HttpError;

/// Why a file that authentication rests on cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A database that knows users cannot be asked as it is configured.
    #[error("{name}: {problem}")]
    Server {
        /// Which.
        name: &'static str,
        /// Why not.
        problem: String,
    },
    /// A service cannot be asked by HTTP.
    #[error("authentication.http: {0}")]
    Http(HttpError),
}

impl From<HttpError> for AuthenticationError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl AuthenticationError {
    /// The text of the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<String, Self> {
        fs::read_to_string(path).map_err(|source| Self::Unreadable {
            path: path.to_owned(),
            source,
        })
    }

    /// A line that is wrong.
    pub(crate) fn wrong(path: &Path, line: usize, problem: impl fmt::Display) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            line,
            problem: problem.to_string(),
        }
    }
}
