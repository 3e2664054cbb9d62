//! Bytes to records.
//!
//! Owns: reading. Does not own: the layout (see the parent). Start reading at [`RecordRef::decode_body`].
//! Invariant: every read is checked; what is returned borrows from the input, nothing is allocated.

use std::net::IpAddr;

use super::{
    ADMINISTRATOR, DEQUEUE, DISCONNECTED, DecodeError, ENQUEUE, EnqueueRef, INBOUND_DELETE,
    INBOUND_PUT, Identifiers, LISTED, MESSAGE_EXPIRY, MESSAGE_ORIGIN, MessageRef, NO_LOCAL, OWNER,
    OwnerRef, PEER, PeerRef, QOS, RELEASE, RETAIN, RETAIN_AS_PUBLISHED, RETAINED_DELETE,
    RETAINED_PUT, RULES, RecordRef, SESSION_DELETE, SESSION_PUT, SUBSCRIPTION_DELETE,
    SUBSCRIPTION_IDENTIFIER, SUBSCRIPTION_PUT, SessionRef, SubscriptionRef, TARGET_IDENTIFIERS,
    TargetRef, Texts, WILL_DELETE, WILL_PUT, WillRef,
};
use crate::{Expiry, Origin, SessionId, UnixMillis};

/// Splits the first record off `input`: its body (kind and fields), and what follows it.
/// # Errors
/// [`DecodeError`]: there is no whole record at the front of `input`.
pub fn split(input: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let mut reader = Reader(input);
    let length = reader.varint("length")?;
    let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
    if length == 0 {
        return Err(DecodeError::Invalid { field: "length" });
    }
    reader
        .0
        .split_at_checked(length)
        .ok_or(DecodeError::Truncated)
}

/// The records in a run of bytes, in order. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// The records in `bytes`, which begin with one and end with one.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            all: bytes,
            rest: bytes,
        }
    }

    /// Where in the bytes the next record begins.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.all.len() - self.rest.len()
    }
}

impl<'a> Iterator for Records<'a> {
    /// Where the record begins, how many bytes it has with its length, and itself.
    type Item = Result<(usize, usize, RecordRef<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.offset();
        let decoded = RecordRef::decode(self.rest);
        self.rest = decoded.map_or(&[], |(_, rest)| rest);
        Some(decoded.map(|(record, _)| (offset, self.offset() - offset, record)))
    }
}

impl<'a> RecordRef<'a> {
    /// Decodes the record at the front of `input`; returns it and what follows it.
    /// O(bytes before the payload).
    /// # Errors
    /// [`DecodeError`]: there is no whole, valid record.
    pub fn decode(input: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let (body, rest) = split(input)?;
        Ok((Self::decode_body(body)?, rest))
    }

    /// Decodes what [`split`] returned, with or without the payload at its end.
    /// # Errors
    /// [`DecodeError`]: it is not a valid record.
    pub fn decode_body(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(body);
        let kind = reader.byte()?;
        let record = match kind {
            SESSION_PUT => Self::SessionPut(reader.session_put()?),
            SESSION_DELETE => Self::SessionDelete {
                session: reader.session()?,
            },
            SUBSCRIPTION_PUT => Self::SubscriptionPut(reader.subscription_put()?),
            SUBSCRIPTION_DELETE => Self::SubscriptionDelete {
                session: reader.session()?,
                filter: reader.rest_as_text("filter")?,
            },
            ENQUEUE => Self::Enqueue(reader.enqueue()?),
            DEQUEUE => reader.dequeue()?,
            RELEASE => Self::Release {
                session: reader.session()?,
                seq: reader.varint("seq")?,
            },
            RETAINED_PUT => Self::RetainedPut {
                message: reader.whole_message()?,
            },
            RETAINED_DELETE => Self::RetainedDelete {
                topic: reader.rest(),
            },
            INBOUND_PUT => Self::InboundPut {
                session: reader.session()?,
                packet_id: reader.packet_id()?,
                number: reader.varint("number")?,
            },
            INBOUND_DELETE => Self::InboundDelete {
                session: reader.session()?,
                packet_id: reader.packet_id()?,
            },
            WILL_PUT => Self::WillPut(WillRef {
                session: reader.session()?,
                delay_seconds: reader.varint_u32("delay_seconds")?,
                message: reader.whole_message()?,
            }),
            WILL_DELETE => Self::WillDelete {
                session: reader.session()?,
            },
            _ => return Err(DecodeError::UnknownKind(kind)),
        };
        if reader.0.is_empty() {
            Ok(record)
        } else {
            Err(DecodeError::Invalid { field: "end" })
        }
    }
}

/// Targets that were checked before, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Targets<'a>(Reader<'a>);

impl<'a> Targets<'a> {
    pub(super) const fn new(checked: &'a [u8]) -> Self {
        Self(Reader(checked))
    }
}

impl<'a> Iterator for Targets<'a> {
    type Item = TargetRef<'a>;

    fn next(&mut self) -> Option<TargetRef<'a>> {
        self.0.target().ok()
    }
}

/// Identifiers that were checked before.
#[derive(Clone, Debug)]
pub(super) struct EncodedIdentifiers<'a>(Reader<'a>);

impl<'a> EncodedIdentifiers<'a> {
    pub(super) const fn new(checked: &'a [u8]) -> Self {
        Self(Reader(checked))
    }
}

impl Iterator for EncodedIdentifiers<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0.varint_u32("subscription_identifiers").ok()
    }
}

/// Texts that were checked before.
#[derive(Clone, Debug)]
pub(super) struct EncodedTexts<'a>(Reader<'a>);

impl<'a> EncodedTexts<'a> {
    pub(super) const fn new(checked: &'a [u8]) -> Self {
        Self(Reader(checked))
    }
}

impl<'a> Iterator for EncodedTexts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.text("texts").ok()
    }
}

#[derive(Clone, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let is_overflow = shift == 63 && byte > 1;
            let is_longer_than_needed = byte == 0;
            if is_overflow || is_longer_than_needed {
                return Err(DecodeError::Invalid { field });
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid { field })
    }

    fn varint_u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.varint(field)?).map_err(|_| DecodeError::Invalid { field })
    }

    fn session(&mut self) -> Result<SessionId, DecodeError> {
        self.varint("session").map(SessionId)
    }

    fn packet_id(&mut self) -> Result<u16, DecodeError> {
        let field = "packet_id";
        u16::try_from(self.varint(field)?).map_err(|_| DecodeError::Invalid { field })
    }

    /// A byte with no other bits than `known`, and a QoS in the lowest two.
    fn flags(&mut self, known: u8) -> Result<u8, DecodeError> {
        let flags = self.byte()?;
        if flags & !known != 0 || (known & QOS == QOS && flags & QOS == QOS) {
            return Err(DecodeError::Invalid { field: "flags" });
        }
        Ok(flags)
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.varint(field)?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    const fn rest(&mut self) -> &'a [u8] {
        let rest = self.0;
        self.0 = &[];
        rest
    }

    fn rest_as_text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.rest()).map_err(|_| DecodeError::Invalid { field })
    }

    fn session_put(&mut self) -> Result<SessionRef<'a>, DecodeError> {
        let session = self.session()?;
        let flags = self.flags(DISCONNECTED | OWNER | PEER)?;
        let disconnected_at = if flags & DISCONNECTED == 0 {
            None
        } else {
            Some(UnixMillis(self.varint("disconnected_at")?))
        };
        Ok(SessionRef {
            session,
            disconnected_at,
            expiry_seconds: self.varint_u32("expiry_seconds")?,
            queue_seq: self.varint("queue_seq")?,
            inbound_number: self.varint("inbound_number")?,
            owner: if flags & OWNER == 0 {
                None
            } else {
                Some(self.owner()?)
            },
            peer: if flags & PEER == 0 {
                None
            } else {
                Some(self.peer()?)
            },
            client_id: self.rest_as_text("client_id")?,
        })
    }

    fn owner(&mut self) -> Result<OwnerRef<'a>, DecodeError> {
        let flags = self.flags(ADMINISTRATOR | RULES | LISTED)?;
        let owner = OwnerRef {
            is_administrator: flags & ADMINISTRATOR != 0,
            user: self.text("user")?,
            groups: self.texts("groups")?,
            attributes: self.texts("attributes")?,
            is_listed: flags & LISTED != 0,
            rules: if flags & RULES == 0 {
                None
            } else {
                Some(self.texts("rules")?)
            },
        };
        // A name without a value.
        if owner.attributes.iter().count() % 2 == 1 {
            let field = "attributes";
            return Err(DecodeError::Invalid { field });
        }
        Ok(owner)
    }

    fn peer(&mut self) -> Result<PeerRef<'a>, DecodeError> {
        let field = "address";
        let address = self.bytes(field)?;
        let address = if address.is_empty() {
            None
        } else if let Ok(octets) = <[u8; 4]>::try_from(address) {
            Some(IpAddr::from(octets))
        } else if let Ok(octets) = <[u8; 16]>::try_from(address) {
            Some(IpAddr::from(octets))
        } else {
            return Err(DecodeError::Invalid { field });
        };
        Ok(PeerRef {
            address,
            listener: self.text("listener")?,
            mount_point: self.text("mount point")?,
        })
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid { field })
    }

    fn texts(&mut self, field: &'static str) -> Result<Texts<'a>, DecodeError> {
        let encoded = self.bytes(field)?;
        let mut reader = Reader(encoded);
        while !reader.0.is_empty() {
            reader.text(field)?;
        }
        Ok(Texts::encoded(encoded))
    }

    fn subscription_put(&mut self) -> Result<SubscriptionRef<'a>, DecodeError> {
        let session = self.session()?;
        let flags = self.flags(QOS | NO_LOCAL | RETAIN_AS_PUBLISHED | SUBSCRIPTION_IDENTIFIER)?;
        let subscription_identifier = if flags & SUBSCRIPTION_IDENTIFIER == 0 {
            None
        } else {
            Some(self.varint_u32("subscription_identifier")?)
        };
        Ok(SubscriptionRef {
            session,
            filter: self.rest_as_text("filter")?,
            qos: flags & QOS,
            no_local: flags & NO_LOCAL != 0,
            retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
            subscription_identifier,
        })
    }

    /// A message without its payload, and its origin.
    fn message(&mut self, known: u8) -> Result<(MessageRef<'a>, Option<Origin>), DecodeError> {
        let flags = self.flags(known)?;
        let mut expiry = None;
        if flags & MESSAGE_EXPIRY != 0 {
            expiry = Some(Expiry {
                accepted_at: UnixMillis(self.varint("accepted_at")?),
                interval_seconds: self.varint_u32("interval_seconds")?,
            });
        }
        let mut origin = None;
        if flags & MESSAGE_ORIGIN != 0 {
            origin = Some(Origin {
                session: self.session()?,
                number: self.varint("number")?,
            });
        }
        let message = MessageRef {
            topic: self.bytes("topic")?,
            properties: self.bytes("properties")?,
            payload: &[],
            qos: flags & QOS,
            retain: flags & RETAIN != 0,
            expiry,
        };
        Ok((message, origin))
    }

    fn whole_message(&mut self) -> Result<MessageRef<'a>, DecodeError> {
        let (message, _) = self.message(QOS | RETAIN | MESSAGE_EXPIRY)?;
        Ok(MessageRef {
            payload: self.rest(),
            ..message
        })
    }

    fn enqueue(&mut self) -> Result<EnqueueRef<'a>, DecodeError> {
        let (message, origin) = self.message(QOS | RETAIN | MESSAGE_EXPIRY | MESSAGE_ORIGIN)?;
        let target_count = u16::from(self.byte()?) + 1;
        let from_first = self.0;
        for _ in 0..target_count {
            self.target()?;
        }
        let targets = from_first
            .get(..from_first.len() - self.0.len())
            .ok_or(DecodeError::Truncated)?;
        let message = MessageRef {
            payload: self.rest(),
            ..message
        };
        Ok(EnqueueRef {
            message,
            origin,
            target_count,
            targets,
        })
    }

    fn target(&mut self) -> Result<TargetRef<'a>, DecodeError> {
        let session = self.session()?;
        let seq = self.varint("seq")?;
        let flags = self.flags(QOS | RETAIN | TARGET_IDENTIFIERS)?;
        let subscription_identifiers = if flags & TARGET_IDENTIFIERS == 0 {
            None
        } else {
            Some(self.identifiers()?)
        };
        Ok(TargetRef {
            session,
            seq,
            qos: flags & QOS,
            retain: flags & RETAIN != 0,
            subscription_identifiers,
        })
    }

    fn identifiers(&mut self) -> Result<Identifiers<'a>, DecodeError> {
        let field = "subscription_identifiers";
        let count = self.varint(field)?;
        let from_first = self.0;
        for _ in 0..count {
            self.varint_u32(field)?;
        }
        from_first
            .get(..from_first.len() - self.0.len())
            .map(Identifiers::encoded)
            .ok_or(DecodeError::Truncated)
    }

    fn dequeue(&mut self) -> Result<RecordRef<'a>, DecodeError> {
        let session = self.session()?;
        let first_seq = self.varint("first_seq")?;
        let count = self.varint("count")?;
        Ok(RecordRef::Dequeue {
            session,
            first_seq,
            count,
        })
    }
}
