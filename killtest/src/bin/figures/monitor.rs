//! What our broker says of its store while it is loaded.
//!
//! Owns: one connection that hears it, how large the groups were. Does not own: the load.
//! Start reading at [`Monitor::on_readable`]. Invariant: the three counts of a group come from one telling.

use std::io::{ErrorKind, Read};

use mio::net::TcpStream;

use crate::wire;

/// An average group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) bytes: usize,
    /// Of the shards; one holds what a turn of the loop brought.
    pub(crate) batches: f64,
}

/// Hears it.
#[derive(Debug)]
pub(crate) struct Monitor {
    stream: TcpStream,
    rest: Vec<u8>,
    current: Counts,
    /// When all three were known, the first time and the last.
    first: Option<Counts>,
    last: Option<Counts>,
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    bytes: u64,
    groups: u64,
    batches: u64,
}

impl Monitor {
    pub(crate) const fn new(stream: TcpStream, rest: Vec<u8>) -> Self {
        Self {
            stream,
            rest,
            current: Counts {
                bytes: 0,
                groups: 0,
                batches: 0,
            },
            first: None,
            last: None,
        }
    }

    /// Forgets what was before.
    pub(crate) const fn restart(&mut self) {
        self.first = None;
    }

    /// Takes what there is.
    pub(crate) fn on_readable(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("closed by the broker".to_owned()),
                Ok(len) => self
                    .rest
                    .extend_from_slice(buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut used = 0;
        while let Some((first, body, len)) = wire::split(self.rest.get(used..).unwrap_or_default())?
        {
            used += len;
            if first >> 4 == 3 {
                let (topic, payload) = wire::topic_and_payload(body)?;
                let number = std::str::from_utf8(payload).ok();
                let number = number.and_then(|text| text.parse().ok()).unwrap_or(0);
                self.current.note(topic, number);
                if topic.ends_with(LAST_TOLD) {
                    self.last = Some(self.current);
                    self.first.get_or_insert(self.current);
                }
            }
        }
        self.rest.drain(..used);
        Ok(())
    }

    /// What was synced at once since [`Self::restart`], on average; `None` if too little was told.
    pub(crate) fn group(&self) -> Option<Group> {
        let (first, last) = (self.first?, self.last?);
        let groups = last.groups.checked_sub(first.groups)?;
        let bytes = last.bytes.checked_sub(first.bytes)?.checked_div(groups)?;
        Some(Group {
            bytes: usize::try_from(bytes).ok()?,
            batches: last.batches.saturating_sub(first.batches) as f64 / groups as f64,
        })
    }
}

impl Counts {
    fn note(&mut self, topic: &[u8], number: u64) {
        if topic.ends_with(b"/store/bytes") {
            self.bytes = number;
        } else if topic.ends_with(b"/store/groups") {
            self.groups = number;
        } else if topic.ends_with(LAST_TOLD) {
            self.batches = number;
        }
    }
}

/// Of the three counts, the one that comes last.
const LAST_TOLD: &[u8] = b"/store/batches";
