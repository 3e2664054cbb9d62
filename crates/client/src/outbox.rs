//! Publications that survive the program: an append log in a folder.
//!
//! Owns: [`Outbox`], the file, its frames, what a torn end costs. Does not own: what is a fact when (see
//! `core::journal`). Start reading at [`Open::commit`]. Invariant: what a commit has returned is on the disk, at the level
//! that was asked for; a frame that is not whole was never committed.
//!
//! The file `outbox.log` is a line that names its form, then frames: length (4 bytes), CRC-32C of the body (4 bytes), the
//! body. A body is a kind, a key (8 bytes), and what the kind has; numbers are big-endian. When most of it is done the
//! rest is written anew beside it and takes its name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use proto::{PacketIdentifier, Qos};

use crate::Publication;
use crate::core::{Kept, KeptPublication, Record};

/// Where a [`crate::Client`] keeps publications at QoS 1 and 2 until they are answered, so that they survive the
/// program. One client uses a folder at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    folder: PathBuf,
    level: OutboxLevel,
}

/// What a publication survives once [`crate::Client::hand_over`] has returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxLevel {
    /// A loss of power: it is synced to the disk first, with all others that came meanwhile.
    #[default]
    Synced,
    /// The end of the program: it is handed to the system. Of a loss of power, it survives what the system has written.
    Written,
}

impl Outbox {
    /// In this folder, which is made if it is not there; synced.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            level: OutboxLevel::Synced,
        }
    }

    /// With this level.
    #[must_use]
    pub const fn level(mut self, level: OutboxLevel) -> Self {
        self.level = level;
        self
    }

    /// Opens it for the Client of this name, and takes up what an earlier program has left.
    pub(crate) fn open(&self, client_id: &str) -> io::Result<(Open, Kept)> {
        std::fs::create_dir_all(&self.folder)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join(LOCK))?;
        lock.try_lock().map_err(|_| {
            let text = format!("{}: another client uses it", self.folder.display());
            io::Error::new(io::ErrorKind::ResourceBusy, text)
        })?;
        let path = self.folder.join(LOG);
        let mut file = open_file(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let header = header(client_id);
        let is_new = bytes.is_empty() || header.starts_with(&bytes);
        if !is_new && !bytes.starts_with(&header) {
            let text = format!("{}: not an outbox of client {client_id:?}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut kept = Kept::default();
        let used = if is_new {
            0
        } else {
            header.len() + read(&bytes, header.len(), &mut kept)
        };
        if used < bytes.len() && !is_new {
            tracing::warn!(
                bytes = bytes.len() - used,
                "the last write to the outbox did not complete before the last end"
            );
        }
        file.set_len(used as u64)?;
        file.seek(SeekFrom::End(0))?;
        if is_new {
            file.write_all(&header)?;
        }
        let mut open = Open {
            folder: self.folder.clone(),
            level: self.level,
            file,
            header,
            len: used as u64,
            live: kept.clone(),
            _lock: lock,
        };
        open.len = open.file.stream_position()?;
        open.file.sync_data()?;
        sync_folder(&self.folder)?;
        Ok((open, kept))
    }
}

/// An [`Outbox`] in use.
#[derive(Debug)]
pub(crate) struct Open {
    folder: PathBuf,
    level: OutboxLevel,
    file: File,
    header: Vec<u8>,
    len: u64,
    /// What the file amounts to. Payloads are shared with what the Client has in memory.
    live: Kept,
    /// Held as long as this lives.
    _lock: File,
}

impl Open {
    /// Keeps these facts. Blocks.
    pub(crate) fn commit(&mut self, records: Vec<Record>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            put_frame(&record, &mut bytes);
            self.live.apply(record);
        }
        self.file.write_all(&bytes)?;
        self.len += bytes.len() as u64;
        if self.level == OutboxLevel::Synced {
            self.file.sync_data()?;
        }
        if self.len >= REWRITE_BYTES_MIN && self.len / 2 > self.live_bytes() {
            self.rewrite()?;
        }
        Ok(())
    }

    fn live_bytes(&self) -> u64 {
        let publications = self.live.publications.values();
        let bytes = publications.map(|kept| kept.publication.len_bytes() + FRAMES_BYTES);
        bytes.sum::<usize>() as u64
    }

    /// Writes what is not done to a new file, which takes the name of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = self.header.clone();
        for (key, kept) in &self.live.publications {
            put_kept(*key, kept, &mut bytes);
        }
        let path = self.folder.join(NEW_LOG);
        let mut file = open_file(&path)?;
        file.set_len(0)?;
        file.write_all(&bytes)?;
        // Before it has the name: a loss of power may keep a name and lose the bytes.
        file.sync_data()?;
        std::fs::rename(&path, self.folder.join(LOG))?;
        sync_folder(&self.folder)?;
        self.file = file;
        self.len = bytes.len() as u64;
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whose it is stands in front: a Packet Identifier of one client means nothing to another's Session.
fn header(client_id: &str) -> Vec<u8> {
    let name: String = client_id.escape_default().collect();
    format!("vencejo outbox 1 {name}\n").into_bytes()
}

fn put_kept(key: u64, kept: &KeptPublication, out: &mut Vec<u8>) {
    let publication = kept.publication.clone();
    put_frame(&Record::Put { key, publication }, out);
    if let Some(packet_id) = kept.packet_id {
        put_frame(&Record::Sent { key, packet_id }, out);
    }
    if kept.is_received {
        put_frame(&Record::Received { key }, out);
    }
}

fn put_frame(record: &Record, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let mut begin = |kind: u8, key: u64| {
        body.push(kind);
        body.extend_from_slice(&key.to_be_bytes());
    };
    match record {
        Record::Put { key, publication } => {
            begin(PUT, *key);
            body.push(publication.qos.level() | u8::from(publication.retain) << 2);
            for part in [publication.topic.as_bytes(), &publication.properties] {
                body.extend_from_slice(&(part.len() as u64).to_be_bytes());
                body.extend_from_slice(part);
            }
            body.extend_from_slice(&publication.payload);
        }
        Record::Sent { key, packet_id } => {
            begin(SENT, *key);
            body.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        Record::Received { key } => begin(RECEIVED, *key),
        Record::Done { key } => begin(DONE, *key),
    }
    let len = u32::try_from(body.len()).expect("invariant: no larger than the queue");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
}

/// All whole frames from `start` on; returns how many bytes they have.
fn read(bytes: &[u8], start: usize, kept: &mut Kept) -> usize {
    let all = bytes.get(start..).unwrap_or_default();
    let mut rest = all;
    while let Some((record, after)) = read_frame(rest) {
        kept.apply(record);
        rest = after;
    }
    all.len() - rest.len()
}

fn read_frame(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (body, rest) = rest.split_at_checked(len)?;
    let is_whole = crc32c::crc32c(body) == u32::from_be_bytes(*sum);
    Some((read_body(body).filter(|_| is_whole)?, rest))
}

fn read_body(body: &[u8]) -> Option<Record> {
    let (kind, rest) = body.split_first()?;
    let (key, rest) = rest.split_first_chunk()?;
    let key = u64::from_be_bytes(*key);
    match *kind {
        PUT => {
            let (flags, rest) = rest.split_first()?;
            let (topic, rest) = read_part(rest)?;
            let (properties, payload) = read_part(rest)?;
            let topic = String::from_utf8(topic.to_vec()).ok()?;
            let qos = Qos::from_level(flags & 3)?;
            let mut publication = Publication::new(topic, payload.to_vec(), qos);
            publication.retain = flags & 4 != 0;
            publication.properties = properties.to_vec();
            Some(Record::Put { key, publication })
        }
        SENT => {
            let packet_id = u16::from_be_bytes(rest.try_into().ok()?);
            let packet_id = PacketIdentifier::new(packet_id)?;
            Some(Record::Sent { key, packet_id })
        }
        RECEIVED => Some(Record::Received { key }),
        DONE => Some(Record::Done { key }),
        _ => None,
    }
}

fn read_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)
}

const LOG: &str = "outbox.log";
const NEW_LOG: &str = "outbox.new";
const LOCK: &str = "outbox.lock";
const PUT: u8 = 1;
const SENT: u8 = 2;
const RECEIVED: u8 = 3;
const DONE: u8 = 4;
/// What a publication takes in frames beside its bytes, at most.
const FRAMES_BYTES: usize = 96;
/// A file smaller than this is not written anew.
const REWRITE_BYTES_MIN: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("vencejo-outbox-{}-{name}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        folder
    }

    fn put(key: u64, payload: Vec<u8>) -> Record {
        let mut publication = Publication::new("a/b", payload, Qos::ExactlyOnce).retain(true);
        publication.properties = vec![1, 1];
        Record::Put { key, publication }
    }

    fn sent(key: u64) -> Record {
        let packet_id = PacketIdentifier::new(7).expect("not 0");
        Record::Sent { key, packet_id }
    }

    /// What was committed is there at the next start, and nothing else.
    #[test]
    fn an_outbox_gives_back_what_was_not_done() {
        let folder = folder("reopened");
        let outbox = Outbox::in_folder(&folder);
        let (mut open, kept) = outbox.open("me").expect("a folder");
        assert_eq!(kept, Kept::default());
        let busy = outbox.open("me").expect_err("in use");
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        let records = vec![
            put(1, vec![1]),
            put(2, vec![2]),
            sent(2),
            Record::Received { key: 2 },
        ];
        open.commit(records).expect("a disk");
        open.commit(vec![put(3, vec![3]), Record::Done { key: 1 }])
            .expect("a disk");
        let expected = open.live.clone();
        assert_eq!(expected.publications.len(), 2);
        drop(open);
        let (open, kept) = outbox.open("me").expect("a folder");
        assert_eq!(kept, expected);
        drop(open);
        let other = outbox.open("another").expect_err("not its own");
        assert_eq!(other.kind(), io::ErrorKind::InvalidData);
        std::fs::remove_dir_all(folder).expect("is there");
    }

    /// Cut at any byte, the log opens with a prefix of what was committed, and goes on.
    #[test]
    fn an_outbox_that_is_cut_anywhere_opens_with_what_is_whole() {
        let folder = folder("torn");
        let outbox = Outbox::in_folder(&folder).level(OutboxLevel::Written);
        let (mut open, _) = outbox.open("me").expect("a folder");
        let records = [
            put(1, vec![9; 20]),
            sent(1),
            put(2, vec![8; 5]),
            Record::Done { key: 1 },
        ];
        let mut ends = vec![open.len];
        for record in &records {
            open.commit(vec![record.clone()]).expect("a disk");
            ends.push(open.len);
        }
        drop(open);
        let whole = std::fs::read(folder.join(LOG)).expect("is there");
        for len in 0..=whole.len() {
            std::fs::write(folder.join(LOG), &whole[..len]).expect("a disk");
            let (mut open, kept) = outbox.open("me").expect("opens");
            let count = ends.iter().filter(|end| **end <= len as u64).count().max(1) - 1;
            let mut expected = Kept::default();
            records[..count]
                .iter()
                .for_each(|record| expected.apply(record.clone()));
            assert_eq!(kept, expected, "{len}");
            open.commit(vec![put(5, vec![5])]).expect("a disk");
            drop(open);
            let (_, kept) = outbox.open("me").expect("opens");
            assert!(kept.publications.contains_key(&5), "{len}");
        }
        std::fs::remove_dir_all(folder).expect("is there");
    }

    /// A flipped bit ends the log there: what is behind it is not believed.
    #[test]
    fn a_frame_with_a_flipped_bit_is_not_believed() {
        let mut frame = Vec::new();
        put_frame(&put(1, vec![1, 2, 3]), &mut frame);
        assert!(read_frame(&frame).is_some());
        for at in 4..frame.len() {
            let mut flipped = frame.clone();
            flipped[at] ^= 0x10;
            assert_eq!(read_frame(&flipped), None, "{at}");
        }
    }

    /// A long life takes no more of the disk than what is not done, and a megabyte.
    #[test]
    fn an_outbox_does_not_grow_with_what_is_done() {
        let folder = folder("rewritten");
        let outbox = Outbox::in_folder(&folder).level(OutboxLevel::Written);
        let (mut open, _) = outbox.open("me").expect("a folder");
        open.commit(vec![put(1, vec![1])]).expect("a disk");
        for key in 2..500 {
            open.commit(vec![put(key, vec![0; 10_000]), Record::Done { key }])
                .expect("a disk");
        }
        let len = std::fs::metadata(folder.join(LOG)).expect("is there").len();
        assert!(len <= REWRITE_BYTES_MIN, "{len}");
        drop(open);
        let (_, kept) = outbox.open("me").expect("a folder");
        assert_eq!(kept.publications.keys().collect::<Vec<_>>(), [&1]);
        std::fs::remove_dir_all(folder).expect("is there");
    }
}
