//! One Session as sender under any order of answers and reconnects: no message is lost or sent out of
//! order, no identifier is used twice, the quota is kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use vencejo_proto::session::{InFlight, Outbound, PubRecOutcome, Queued, Resend};
use vencejo_proto::{Message, PacketIdentifier, Qos};

/// Each byte is one operation.
#[allow(
    clippy::disallowed_methods,
    reason = "any instant will do to start from"
)]
pub(crate) fn run(data: &[u8]) {
    let now = Instant::now();
    let message = Message::new("t", Bytes::new(), Qos::ExactlyOnce, false, now);
    let message = Arc::new(message);
    let mut session = Outbound::default();
    let mut in_flight = BTreeSet::new();
    let mut released = BTreeSet::new();
    let (mut pushed, mut finished, mut last_started) = (0, 0, 0);
    let mut quota = 0;
    let mut once = BTreeSet::new();
    for byte in data {
        let argument = byte >> 3;
        let packet_id = PacketIdentifier::new(u16::from(argument) % 8 + 1);
        let packet_id = packet_id.expect("not zero");
        match byte & 7 {
            0 if argument & 2 != 0 => {
                let qos = queued(&message, argument).qos;
                let count = u16::from(argument >> 3) + 1;
                if let Some(first) = session.start_at_once(qos, count) {
                    pushed += usize::from(count);
                    last_started = session.last_seq();
                    let ids = std::iter::successors(Some(first), |id| Some(id.following()));
                    for id in ids.take(count.into()) {
                        assert!(once.insert(id) && in_flight.insert(id), "{id} is in use");
                    }
                }
            }
            0 => {
                pushed += 1;
                session.push(queued(&message, argument));
            }
            1 => {
                let started = session.start_next();
                last_started = check_started(started, last_started, &mut in_flight, &released);
                assert!(in_flight.len() <= usize::from(quota), "above the quota");
            }
            2 if session.on_puback(packet_id).is_some() => {
                assert!(in_flight.remove(&packet_id));
                once.remove(&packet_id);
                finished += 1;
            }
            3 | 4 => {
                let outcome = session.on_pubrec(packet_id, byte & 7 == 4);
                finished += usize::from(matches!(outcome, PubRecOutcome::Refused(_)));
                check_pubrec(&outcome, packet_id, &mut in_flight, &mut released);
                once.retain(|id| in_flight.contains(id));
            }
            5 if session.on_pubcomp(packet_id).is_some() => {
                assert!(released.remove(&packet_id));
                finished += 1;
            }
            // A new connection keeps what was open; its Receive Maximum does not shrink here, so that
            // the bound above stays simple.
            6 => {
                quota = quota.max(u16::from(argument) + 1);
                session.on_connected(quota);
                finished += once.len();
                in_flight.retain(|id| !once.contains(id));
                once.clear();
            }
            7 => match session.poll_resend() {
                Some(Resend::PubRel(id)) => assert!(released.contains(&id)),
                Some(Resend::Publish(again)) => assert!(in_flight.contains(&again.packet_id)),
                None => {}
            },
            _ => {}
        }
        assert_eq!(session.open_len(), in_flight.len() + released.len());
        let found = session.waiting_len() + session.open_len() + finished;
        assert_eq!(found, pushed);
        assert!(session.iter().is_sorted_by_key(|queued| queued.seq));
    }
}

fn queued(message: &Arc<Message>, argument: u8) -> Queued {
    Queued {
        message: Arc::clone(message),
        subscription_identifiers: None,
        seq: 0,
        qos: if argument & 1 == 0 {
            Qos::AtLeastOnce
        } else {
            Qos::ExactlyOnce
        },
        retain: false,
        is_stored: false,
    }
}

/// The number of the last that was started.
fn check_started(
    started: Option<&InFlight>,
    last: u64,
    in_flight: &mut BTreeSet<PacketIdentifier>,
    released: &BTreeSet<PacketIdentifier>,
) -> u64 {
    let Some(started) = started else {
        return last;
    };
    assert!(started.queued.seq > last, "sent out of order");
    let id = started.packet_id;
    assert!(
        !released.contains(&id) && in_flight.insert(id),
        "{id} is in use"
    );
    started.queued.seq
}

fn check_pubrec(
    outcome: &PubRecOutcome,
    packet_id: PacketIdentifier,
    in_flight: &mut BTreeSet<PacketIdentifier>,
    released: &mut BTreeSet<PacketIdentifier>,
) {
    match outcome {
        PubRecOutcome::Release(_) => {
            assert!(in_flight.remove(&packet_id) && released.insert(packet_id));
        }
        PubRecOutcome::Refused(_) => assert!(in_flight.remove(&packet_id)),
        PubRecOutcome::ReleaseAgain => assert!(released.contains(&packet_id)),
        PubRecOutcome::Unknown => assert!(!released.contains(&packet_id)),
    }
}
