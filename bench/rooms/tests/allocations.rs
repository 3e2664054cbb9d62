//! What one PUBLISH allocates on its way through the shard, once everything has its size.
//!
//! Owns: the bounds. Does not own: the way (see `rooms::Bed`). Start reading at [`allocations_of`].
//! Invariant: nothing is counted that only happens at first.

use proto::{Qos, Version};
use rooms::{Bed, answers, publishes};
use store::Level;

/// Allocations of `COUNT` times so many messages as come together, and of all that is said about them.
fn allocations_of(qos: Qos, version: Version, subscribers: usize, together: u16) -> u64 {
    let mut bed = Bed::new(Level::Memory);
    let publisher = bed.connect(version, false);
    let subscribers: Vec<_> = (0..subscribers)
        .map(|_| bed.connect(version, false))
        .collect();
    for subscriber in &subscribers {
        bed.subscribe(*subscriber, "site/7/device/1234/temperature", qos);
    }
    let bytes = publishes(version, "site/7/device/1234/temperature", qos, together);
    let mut answered = Vec::with_capacity(1024);
    let mut exchange = |count: u64| {
        for _ in 0..count {
            bed.take(publisher, &bytes);
            bed.end_turn();
            bed.sent(publisher).clear();
            for subscriber in &subscribers {
                answered.clear();
                answers(bed.sent(*subscriber), version, &mut answered);
                bed.sent(*subscriber).clear();
                bed.take(*subscriber, &answered);
            }
            bed.end_turn();
        }
    };
    exchange(100);
    allocation_counter::measure(|| exchange(COUNT)).count_total
}

/// The message itself, one allocation for its counts and one for its bytes, whoever gets it: nothing else.
#[test]
fn message_is_all_that_is_allocated_on_the_way_of_a_publish() {
    for version in [Version::V311, Version::V5] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            for (subscribers, together) in [(1, 1), (10, 1), (1, 20), (10, 20)] {
                let count = allocations_of(qos, version, subscribers, together);
                assert_eq!(
                    count,
                    ALLOCATIONS_OF_A_MESSAGE * COUNT * u64::from(together),
                    "{together} of {version:?} {qos:?} to {subscribers}"
                );
            }
        }
    }
}

const COUNT: u64 = 1000;
const ALLOCATIONS_OF_A_MESSAGE: u64 = 2;
