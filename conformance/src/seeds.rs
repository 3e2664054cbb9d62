//! The bytes of the rows as seeds for the fuzz targets.
//!
//! Owns: which bytes of a case make one stream. Does not own: the targets (see `fuzz/`), sending.
//! Start reading at [`write()`]. Invariant: a stream is what one connection of one case sends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::bytes::{self, Atom, Variables, Version};
use crate::cases::Case;
use crate::runner::connect_packet;
use crate::steps::Action;

/// Writes each stream to a file in `folder`/`decode`, and after a zero byte in `folder`/`connection_ops`.
/// Returns how many streams there are.
pub(crate) fn write(cases: &[Case], folder: &Path) -> Result<usize, String> {
    let streams: BTreeSet<Vec<u8>> = cases
        .iter()
        .flat_map(streams)
        .filter(|stream| !stream.is_empty() && stream.len() < STREAM_BYTES_MAX)
        .collect();
    for (target, prefix) in [("decode", &[][..]), ("connection_ops", &[0][..])] {
        let target = folder.join(target);
        fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
        for (number, stream) in streams.iter().enumerate() {
            let path = target.join(format!("row-{number:04}"));
            fs::write(&path, [prefix, stream].concat())
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(streams.len())
}

/// What each connection of `case` sends. Bytes that only an answer can tell are left out.
fn streams(case: &Case) -> Vec<Vec<u8>> {
    let mut finished = Vec::new();
    let mut versions: BTreeMap<&str, Version> = BTreeMap::new();
    let mut open: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for step in &case.steps {
        let name = step.connection.as_str();
        let mut version = versions.get(name).copied().unwrap_or(case.version);
        let atoms: Vec<Atom> = match &step.action {
            Action::Version(other) => {
                versions.insert(name, *other);
                continue;
            }
            Action::Connect(connect) => {
                version = connect.version.unwrap_or(version);
                versions.insert(name, version);
                finished.extend(open.remove(name));
                connect_packet(connect, version, &case.id)
            }
            Action::Send(atoms) => atoms.clone(),
            Action::Disconnect => vec![Atom::Literal(vec![0xE0, 0])],
            _ => continue,
        };
        let sent = bytes::encode(&atoms, version, &Variables::new()).unwrap_or_default();
        open.entry(name).or_default().extend(sent);
    }
    finished.extend(open.into_values());
    finished
}

/// Longer inputs only slow the fuzzer down; 4096 is its own default bound.
const STREAM_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps;

    #[test]
    fn a_stream_is_what_one_connection_sends() {
        let steps = steps::parse("connect; b: send C000; send 4002 $id; disconnect").unwrap();
        let case = Case {
            name: String::new(),
            version: Version::V311,
            statements: Vec::new(),
            steps,
            id: "i".to_owned(),
        };
        let connect = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01i\xE0\x00".to_vec();
        assert_eq!(streams(&case), [connect, vec![0xC0, 0]]);
    }
}
