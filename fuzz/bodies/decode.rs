//! Any bytes as a packet of any version: an answer, never a panic, and what is read can be written.

use vencejo_proto::Version;
use vencejo_proto::packet::{Packet, decode, encode};

/// Decodes `data` in each version; a packet must survive being written and read again.
pub(crate) fn run(data: &[u8]) {
    for version in [Version::V31, Version::V311, Version::V5] {
        let Ok(Some((packet, used))) = decode(data, version, 1 << 20) else {
            continue;
        };
        assert!(used <= data.len());
        for len in 0..used.min(64) {
            assert!(!matches!(
                decode(&data[..len], version, 1 << 20),
                Ok(Some(_))
            ));
        }
        let version = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => version,
        };
        let mut written = Vec::new();
        encode(&packet, version, &mut written).expect("what was read can be written");
        let again = decode(&written, version, u32::MAX).expect("what was written is a packet");
        if version == Version::V31 && matches!(packet, Packet::SubAck(_)) {
            // Its refusals are read and cannot be written.
            assert_eq!(written.len(), used);
        } else {
            assert_eq!(again, Some((packet, written.len())));
        }
    }
}
