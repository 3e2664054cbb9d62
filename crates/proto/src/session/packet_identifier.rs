//! Packet Identifiers of a sender, derived from the sequence number of what is sent.
//!
//! Owns: the derivation and the search for a free one. Does not own: which are in use.
//! Start reading at [`derived`]. Invariant: two messages in flight never share an identifier.

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

/// [MQTT-2.2.1-4] [v3.1.1 MQTT-2.3.1-4] The first identifier from that of `seq` on that is not in use.
pub(super) fn first_free(
    seq: u64,
    is_in_use: impl Fn(PacketIdentifier) -> bool,
) -> Option<PacketIdentifier> {
    (seq..seq.saturating_add(PACKET_IDENTIFIERS))
        .map(derived)
        .find(|id| !is_in_use(*id))
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

    /// Verifies [MQTT-2.2.1-4]: an identifier in use is skipped.
    #[test]
    fn an_identifier_in_use_is_skipped() {
        let free = first_free(65_535, |id| id.get() == 65_535 || id.get() == 1);
        assert_eq!(free.map(PacketIdentifier::get), Some(2));
        assert_eq!(first_free(1, |_| true), None);
    }
}
