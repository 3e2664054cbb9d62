//! Packet Identifiers of a sender, derived from the sequence number of what is sent.
//!
//! Owns: the derivation. Does not own: which are in use (see `outbound`).
//! Start reading at [`derived`]. Invariant: numbers less than [`PACKET_IDENTIFIERS`] apart have different
//! identifiers.

use crate::PacketIdentifier;

/// How many Packet Identifiers there are.
pub(super) const PACKET_IDENTIFIERS: u64 = 65_535;

/// The Packet Identifier of the message with sequence number `seq` (counted from 1), so that a message
/// sent again after a restart carries the identifier it had, without having been written down.
pub(super) fn derived(seq: u64) -> PacketIdentifier {
    let number = seq.wrapping_sub(1) % PACKET_IDENTIFIERS + 1;
    u16::try_from(number)
        .ok()
        .and_then(PacketIdentifier::new)
        .unwrap_or(PacketIdentifier::FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verifies [MQTT-2.2.1-3]: a Packet Identifier is never zero.
    #[test]
    fn identifiers_follow_the_sequence_and_wrap_past_zero() {
        assert_eq!(derived(1).get(), 1);
        assert_eq!(derived(65_535).get(), 65_535);
        assert_eq!(derived(65_536).get(), 1);
    }
}
