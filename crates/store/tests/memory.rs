//! What the index costs in memory, counted by the allocator.
//!
//! Owns: the bounds of bytes for each entry, Session and retained message.
//! Start reading at `what_the_index_holds_costs_little`. Invariant: this file has one test, since all that
//! the process allocates is counted. A release broker's allocator rounds up to an eighth more.

#![expect(
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "a test that computes ratios of small counts"
)]

use std::alloc::System;

use bytes::Bytes;
use cap::Cap;
use vencejo_store::codec::{self, RecordRef};
use vencejo_store::{
    HashKeys, Index, Location, MessageRecord, Record, SessionId, SessionRecord, SubscriptionRecord,
    Target,
};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

struct Filler {
    index: Index,
    at: Location,
    bytes: Vec<u8>,
}

impl Filler {
    fn new() -> Self {
        let mut index = Index::new(HashKeys([1, 2]));
        index.finish_recovery();
        Self {
            index,
            at: Location::default(),
            bytes: Vec::with_capacity(1 << 16),
        }
    }

    fn apply(&mut self, record: &Record) {
        self.bytes.clear();
        codec::encode(record, &mut self.bytes);
        self.at.offset += self.at.len;
        self.at.len = u32::try_from(self.bytes.len()).unwrap();
        if self.at.offset > 64 << 20 {
            (self.at.segment, self.at.offset) = (self.at.segment + 1, 0);
        }
        let (record, _) = RecordRef::decode(&self.bytes).unwrap();
        self.index.apply(self.at, &record);
    }

    fn sessions(&mut self, count: u64) {
        for id in 1..=count {
            self.apply(&Record::SessionPut(Box::new(SessionRecord {
                owner: None,
                peer: None,
                session: SessionId(id),
                client_id: "client".into(),
                expiry_seconds: 60,
                disconnected_at: None,
                queue_seq: 0,
                inbound_number: 0,
            })));
        }
    }

    /// A message with the number `seq` for `count` Sessions from `first` on.
    fn enqueue(&mut self, first: u64, count: u64, seq: u64) {
        let target = |session| Target {
            session: SessionId(session),
            seq,
            qos: 1,
            retain: false,
            subscription_identifiers: None,
        };
        self.apply(&Record::Enqueue {
            message: message(b"t"),
            targets: (first..first + count).map(target).collect(),
            origin: None,
        });
    }

    /// Bytes allocated by what `fill` does, for each of `count`.
    fn cost(&mut self, name: &str, count: u64, fill: impl FnOnce(&mut Self)) -> f64 {
        let before = ALLOCATOR.allocated();
        fill(self);
        let bytes = ALLOCATOR.allocated().saturating_sub(before);
        let each = bytes as f64 / count as f64;
        println!("{name}: {each:.1} B");
        each
    }
}

fn message(topic: &[u8]) -> MessageRecord {
    MessageRecord {
        topic: Bytes::copy_from_slice(topic),
        properties: Bytes::new(),
        payload: Bytes::from_static(b"payload"),
        qos: 1,
        retain: false,
        expiry: None,
    }
}

#[test]
fn what_the_index_holds_costs_little() {
    let mut filler = Filler::new();
    // Just above a power of two, where a table that doubles is emptiest.
    let empty = filler.cost("empty session", 60_000, |of| of.sessions(60_000));
    assert!(empty <= 160.0, "{empty}");

    let long = filler.cost("entry, k = 1, one long queue", 300_000, |of| {
        (1..=300_000).for_each(|seq| of.enqueue(1, 1, seq));
    });
    assert!(long <= 28.0, "{long}");

    let short = filler.cost("entry, k = 1, ten in a queue", 100_000, |of| {
        for seq in 1..=10 {
            (10_001..=20_000).for_each(|session| of.enqueue(session, 1, seq));
        }
    });
    assert!(short <= 40.0, "{short}");

    let four = filler.cost("entry, k = 4, 1,000 in a queue", 400_000, |of| {
        for seq in 1..=1_000 {
            (0..100).for_each(|group| of.enqueue(20_001 + 4 * group, 4, seq));
        }
    });
    assert!(four <= 16.0, "{four}");

    let subscription = filler.cost("subscription, one in a session", 20_000, |of| {
        for session in 30_001..=50_000 {
            of.apply(&Record::SubscriptionPut(Box::new(SubscriptionRecord {
                session: SessionId(session),
                filter: "a/very/long/filter/of/which/nothing/is/kept".into(),
                qos: 1,
                no_local: false,
                retain_as_published: false,
                subscription_identifier: None,
            })));
        }
    });
    assert!(subscription <= 24.0, "{subscription}");

    let retained = filler.cost("retained message", 60_000, |of| {
        for topic in 0..60_000_u32 {
            let message = message(format!("a/long/topic/{topic}").as_bytes());
            of.apply(&Record::RetainedPut { message });
        }
    });
    assert!(retained <= 64.0, "{retained}");

    // A backlog of 100,000 turned over ten times, then acknowledged.
    let turn_over = |of: &mut Filler, first: u64, count: u64| {
        for seq in first..first + count {
            of.enqueue(2, 1, seq);
            of.apply(&Record::Dequeue {
                session: SessionId(2),
                first_seq: seq.saturating_sub(100_000),
                count: 1,
            });
        }
    };
    turn_over(&mut filler, 100_001, 110_000);
    let growth = filler.cost("growth of a backlog turned over", 100_000, |of| {
        turn_over(of, 210_001, 1_000_000);
    });
    assert!(growth <= 0.5, "{growth}");
    let all = ALLOCATOR.allocated();
    for session in [1, 2] {
        filler.apply(&Record::SessionDelete {
            session: SessionId(session),
        });
    }
    let freed = all - ALLOCATOR.allocated();
    assert!(freed >= 400_000 * 22, "only {freed} bytes came back");
}
