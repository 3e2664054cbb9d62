//! A log whose files were changed in any way: it opens, and what it then holds is served, kept and found again.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use vencejo_store::disk::fault::{FaultDisk, FaultPlan};
use vencejo_store::{
    Batch, EncodedGroup, Level, Load, MessageRecord, Origin, Record, Seq, SessionId, SessionRecord,
    SubscriptionRecord, Target, WillRecord,
};
use vencejo_store::{Log, LogOptions, OpenError, Recovered, RecoveryMode};

/// The first byte says whether to begin with a log in order; then come changes: what, which file, where,
/// and sometimes bytes.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let disk = match input.byte() & 3 {
        0 => FaultDisk::new(0, FaultPlan::default()),
        _ => sound().kill(),
    };
    let mut is_forged = false;
    while !input.0.is_empty() {
        is_forged |= change(&disk, &mut input);
    }
    let before = all_of(&disk);
    let strict = open(&disk, RecoveryMode::Strict);
    if strict.is_err() {
        assert_eq!(
            changed(&before, &all_of(&disk)),
            [""; 0],
            "a refusal changes nothing"
        );
    }
    drop(strict);
    let first = match open(&disk, RecoveryMode::SetAside) {
        Err(OpenError::NewerVersion { .. }) => return,
        result => {
            let (mut log, recovered) = result.expect("a log always opens");
            load_all(&log, &recovered);
            let mut group = EncodedGroup::new();
            group.push(&added(recovered.next_session));
            log.write(&group).expect("the disk is in order");
            log.sync().expect("the disk is in order");
            recovered
        }
    };
    let disk = disk.crash(0);
    if is_forged {
        // No disk writes a header with a right checksum that no log wrote: to open is enough.
        open(&disk, RecoveryMode::SetAside).expect("a log always opens");
        return;
    }
    let (log, second) = open(&disk, RecoveryMode::Strict).expect("the damage is told once");
    assert_eq!(second.report.damage, []);
    load_all(&log, &second);
    let mut sessions = first.sessions;
    let added = second.sessions.last().expect("one was added");
    assert_eq!(added.session.session, first.next_session);
    sessions.push(added.clone());
    assert_eq!(sessions, second.sessions);
    assert_eq!(first.retained, second.retained);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Says whether it made a header that is whole, and that no log wrote.
fn change(disk: &FaultDisk, input: &mut Input<'_>) -> bool {
    let kind = input.byte() % 8;
    if kind == 7 {
        let name = NAMES[usize::from(input.byte()) % NAMES.len()];
        let len = input.number();
        disk.plant(name, input.take(len));
        return false;
    }
    let names = disk.file_names();
    let Some(name) = names.get(usize::from(input.byte()) % names.len().max(1)) else {
        return false;
    };
    let mut bytes = disk.contents(name).expect("it is there");
    let at = input.number() % bytes.len().max(1);
    let mut is_forged = false;
    match kind {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(input.take(at)),
        2 => {
            let new = input.take(16);
            let rest = bytes.iter_mut().skip(at);
            rest.zip(new).for_each(|(byte, new)| *byte = *new);
        }
        3 => {
            let zeroed = input.number();
            bytes
                .iter_mut()
                .skip(at)
                .take(zeroed)
                .for_each(|byte| *byte = 0);
        }
        4 => {
            let other = &names[at % names.len()];
            bytes = disk.contents(other).expect("it is there");
        }
        5 => bytes.clear(),
        // Past the checksum: what is in the frame is wrong, not its bytes.
        _ => is_forged = reseal(&mut bytes, at, input),
    }
    disk.plant(name, &bytes);
    is_forged
}

/// Changes some bytes of the frame at `at`, or after it, and gives it the checksum it then needs;
/// says whether they are in its header.
fn reseal(bytes: &mut [u8], at: usize, input: &mut Input<'_>) -> bool {
    let (from, new) = (input.number(), input.take(4));
    let is_frame = |at: &usize| bytes[*at..].starts_with(b"vlog");
    let Some(at) = (at / 8 * 8..bytes.len()).step_by(8).find(is_frame) else {
        return false;
    };
    let frame = &mut bytes[at..];
    let Some(body_len) = frame.get(4..8).and_then(|len| len.try_into().ok()) else {
        return false;
    };
    let body_len = u32::from_le_bytes(body_len).next_multiple_of(8);
    let Some(frame) = frame.get_mut(..HEADER_BYTES + body_len as usize) else {
        return false;
    };
    // Not the length, which says where the checksum ends.
    let from = 12 + from % (frame.len() - 12);
    let rest = frame.iter_mut().skip(from);
    rest.zip(new).for_each(|(byte, new)| *byte = *new);
    let crc = crc32c::crc32c(&frame[..8]);
    let crc = crc32c::crc32c_append(crc, &frame[12..]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
    from < HEADER_BYTES
}

fn open(
    disk: &FaultDisk,
    recovery: RecoveryMode,
) -> Result<(Log<FaultDisk>, Recovered), OpenError> {
    let mut options = LogOptions::with_segments_of(SEGMENT_BYTES);
    options.recovery = recovery;
    options.disk_low_bytes = 0;
    Log::open(disk.clone(), options)
}

fn all_of(disk: &FaultDisk) -> BTreeMap<String, Option<Vec<u8>>> {
    let names = disk.file_names().into_iter();
    names
        .map(|name| (name.clone(), disk.contents(&name)))
        .collect()
}

/// The names of files that are not in both, or not the same.
fn changed<'a>(
    before: &'a BTreeMap<String, Option<Vec<u8>>>,
    after: &'a BTreeMap<String, Option<Vec<u8>>>,
) -> Vec<&'a str> {
    let names = before.keys().chain(after.keys());
    let changed = names.filter(|name| before.get(*name) != after.get(*name));
    changed.map(String::as_str).collect()
}

/// Every queue can be loaded and is in order.
fn load_all(log: &Log<FaultDisk>, recovered: &Recovered) {
    let reader = log.reader();
    for restored in &recovered.sessions {
        let load = Load {
            session: restored.session.session,
            from_seq: 0,
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let loaded = reader.load(load).expect("the disk is in order");
        let seqs = loaded.messages.iter().map(|found| found.target.seq);
        assert!(seqs.is_sorted_by(|a, b| a < b));
    }
}

/// A log of some segments in which every kind of record is.
fn sound() -> &'static FaultDisk {
    static SOUND: OnceLock<FaultDisk> = OnceLock::new();
    SOUND.get_or_init(|| {
        let disk = FaultDisk::new(0, FaultPlan::default());
        let (mut log, _) = open(&disk, RecoveryMode::Strict).expect("an empty disk");
        for round in 0..24 {
            let mut group = EncodedGroup::new();
            group.push(&batch(round));
            log.write(&group).expect("the disk is in order");
            log.sync().expect("the disk is in order");
        }
        drop(log);
        disk
    })
}

fn batch(round: u64) -> Batch {
    let session = SessionId(1 + round / 4);
    let (packet_id, number) = (3, round);
    let own = Origin { session, number };
    let open = Origin {
        session,
        number: number + 1,
    };
    let records = match round % 4 {
        0 => vec![
            session_put(session),
            subscription(session),
            enqueue(session, 1, None),
        ],
        1 => vec![
            enqueue(session, 2, Some(own)),
            Record::InboundPut {
                session,
                packet_id,
                number,
            },
            enqueue(session, 3, Some(open)),
            Record::Release { session, seq: 1 },
        ],
        2 => vec![
            Record::RetainedPut { message: message() },
            Record::WillPut(Box::new(WillRecord {
                session,
                message: message(),
                delay_seconds: 5,
            })),
        ],
        _ => vec![
            Record::Dequeue {
                session,
                first_seq: 1,
                count: 1,
            },
            Record::InboundDelete { session, packet_id },
            Record::RetainedDelete {
                topic: message().topic,
            },
            Record::WillDelete { session },
            Record::SubscriptionDelete {
                session,
                filter: "b".into(),
            },
            Record::SessionDelete {
                session: SessionId(session.0 - 1),
            },
        ],
    };
    Batch {
        seq: Seq(round + 1),
        records,
        level: Level::Synced,
    }
}

fn message() -> MessageRecord {
    MessageRecord {
        topic: Bytes::from_static(b"topic"),
        properties: Bytes::new(),
        payload: vec![7; 400].into(),
        qos: 2,
        retain: true,
        expiry: None,
    }
}

fn enqueue(session: SessionId, seq: u64, origin: Option<Origin>) -> Record {
    let target = Target {
        session,
        seq,
        qos: 2,
        retain: false,
        subscription_identifiers: Some([1, 2].into()),
    };
    Record::Enqueue {
        message: message(),
        targets: vec![target],
        origin,
    }
}

fn subscription(session: SessionId) -> Record {
    Record::SubscriptionPut(Box::new(SubscriptionRecord {
        session,
        filter: "a/+".into(),
        qos: 1,
        no_local: true,
        retain_as_published: false,
        subscription_identifier: Some(9),
    }))
}

fn added(session: SessionId) -> Batch {
    Batch {
        seq: Seq(1),
        records: vec![session_put(session)],
        level: Level::Synced,
    }
}

fn session_put(session: SessionId) -> Record {
    Record::SessionPut(Box::new(SessionRecord {
        owner: None,
        peer: None,
        session,
        client_id: "client".into(),
        expiry_seconds: u32::MAX,
        disconnected_at: None,
        queue_seq: 0,
        inbound_number: 0,
    }))
}

const HEADER_BYTES: usize = 48;
const SEGMENT_BYTES: u64 = 4096;
/// Files that a log may find.
const NAMES: [&str; 12] = [
    "CHECKPOINT",
    "FORMAT",
    "log/0000000000.seg",
    "log/0000000001.seg",
    "log/0000000003.seg",
    "log/0000000009.seg",
    "log/4294967295.seg",
    "log/0000000002.hint",
    "log/0000000009.hint",
    "log/spare-1",
    "log/spare-4294967295",
    "set-aside/0000000001.seg",
];
