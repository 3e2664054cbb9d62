//! What is kept on disk while the shards serve.
//!
//! Owns: the data folder. Does not own: what is in it (see `store`).
//! Start reading at [`DataFolder::lock`]. Invariant: one process at a time uses a data folder.

mod folder;

pub use folder::{DataFolder, FolderError};
