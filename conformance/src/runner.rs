//! Doing the steps of a case over real sockets.
//!
//! Owns: the connections of a case, deadlines, what was announced in CONNACK, the verdict.
//! Does not own: what is expected (see `expectation`).
//! Start reading at [`run`]. Invariant: a case waits for something to happen, never for time to pass.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::bytes::{self, Atom, Variables, Version};
use crate::cases::Case;
use crate::expectation::{Expectation, ExpectedConnack, Situation};
use crate::packet;
use crate::steps::{Action, Connect, Step};

/// How long one read may take before the case fails.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// What became of a case.
#[derive(Debug)]
pub enum Verdict {
    /// Every step went as written.
    Passed,
    /// It cannot be done here: the broker announced no such limit.
    Skipped,
    /// The step and what came instead.
    Failed(String),
}

/// Why a step stopped the case.
enum Stop {
    Skip,
    Fail(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Fail(reason)
    }
}

/// The broker under test, and how strictly it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whether a refusal may come with another code or without a word.
    pub(crate) is_lenient: bool,
}

/// Runs `case` against `target`.
pub(crate) fn run(case: &Case, target: Target) -> Verdict {
    let mut run = Run {
        case,
        target,
        connections: BTreeMap::new(),
        versions: BTreeMap::new(),
        variables: Variables::new(),
    };
    for (index, step) in case.steps.iter().enumerate() {
        match run.step(step) {
            Ok(()) => {}
            Err(Stop::Skip) => return Verdict::Skipped,
            Err(Stop::Fail(reason)) => {
                return Verdict::Failed(format!(
                    "step {} `{}`\n    {reason}",
                    index + 1,
                    step.text
                ));
            }
        }
    }
    Verdict::Passed
}

struct Run<'a> {
    case: &'a Case,
    target: Target,
    connections: BTreeMap<String, Connection>,
    versions: BTreeMap<String, Version>,
    variables: Variables,
}

struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    situation: Situation,
    receive_maximum: u16,
    maximum_packet_size: Option<u32>,
    /// The client's own Maximum Packet Size.
    size_limit: usize,
}

enum Incoming {
    Packet(Vec<u8>),
    Closed,
    Nothing,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        let name = step.connection.as_str();
        match &step.action {
            Action::Connect(connect) => self.connect(name, connect),
            Action::Version(version) => {
                self.versions.insert(name.to_owned(), *version);
                Ok(())
            }
            Action::Send(atoms) => self.send(name, atoms),
            Action::ExpectOne(any) => self.expect_one(name, any),
            Action::ExpectAll(all) => self.expect_all(name, all.clone()),
            Action::ExpectEventually(expectation) => self.expect_eventually(name, expectation),
            Action::Silence => {
                self.connection(name)?.write(&[0xC0, 0]);
                self.expect_one(
                    name,
                    &[Expectation::Raw(vec![Atom::Literal(vec![0xD0, 0])])],
                )
            }
            Action::Limit(bytes) => {
                self.connection(name)?.size_limit = *bytes;
                Ok(())
            }
            Action::Differ(names) => self.differ(names),
            Action::Disconnect => {
                self.connection(name)?.write(&[0xE0, 0]);
                self.expect_one(name, &[Expectation::Closed])
            }
            Action::Drop => {
                self.connections.remove(name);
                Ok(())
            }
            Action::ExceedReceiveMaximum => self.exceed_receive_maximum(name),
            Action::ExceedMaximumPacketSize => self.exceed_maximum_packet_size(name),
        }
    }

    /// The connection called `name`, opened now if it is not open.
    fn connection(&mut self, name: &str) -> Result<&mut Connection, Stop> {
        if !self.connections.contains_key(name) {
            let version = self
                .versions
                .get(name)
                .copied()
                .unwrap_or(self.case.version);
            let opened = Connection::open(self.target, version);
            let opened = opened.map_err(|error| Stop::Fail(format!("cannot connect: {error}")))?;
            self.connections.insert(name.to_owned(), opened);
        }
        self.connections.get_mut(name).ok_or(Stop::Skip)
    }

    fn send(&mut self, name: &str, atoms: &[Atom]) -> Result<(), Stop> {
        let version = self.connection(name)?.situation.version;
        let bytes = bytes::encode(atoms, version, &self.variables);
        let bytes = bytes.map_err(|error| {
            // Only a broker that announces an alias maximum below 65,535 has a value beyond it.
            if error.starts_with("$alias_") {
                Stop::Skip
            } else {
                Stop::Fail(error)
            }
        })?;
        self.connection(name)?.write(&bytes);
        Ok(())
    }

    fn connect(&mut self, name: &str, connect: &Connect) -> Result<(), Stop> {
        if let Some(version) = connect.version {
            self.versions.insert(name.to_owned(), version);
        }
        self.connections.remove(name);
        let version = self.connection(name)?.situation.version;
        let own_id = if name == "a" {
            self.case.id.clone()
        } else {
            format!("{}{name}", self.case.id)
        };
        let packet = connect_packet(connect, version, &own_id);
        self.send(name, &packet)?;
        self.connection(name)?.size_limit = self.size_limit(connect, version);
        let session_present = (version != Version::V31).then_some(connect.present);
        self.expect_one(
            name,
            &[Expectation::Connack(ExpectedConnack::new(
                session_present,
                0,
            ))],
        )
    }

    /// The Maximum Packet Size that `connect` announces.
    fn size_limit(&self, connect: &Connect, version: Version) -> usize {
        let list = connect.properties.as_deref().unwrap_or_default();
        let list = bytes::encode(list, version, &self.variables).unwrap_or_default();
        let (properties, _) = packet::properties(&list).unwrap_or_default();
        let found = properties
            .iter()
            .find(|property| property.identifier == 0x27);
        let value = found.and_then(|property| <[u8; 4]>::try_from(property.value).ok());
        value.map_or(usize::MAX, |value| {
            usize::try_from(u32::from_be_bytes(value)).unwrap_or(usize::MAX)
        })
    }

    fn expect_one(&mut self, name: &str, any: &[Expectation]) -> Result<(), Stop> {
        let connection = self.connection(name)?;
        let situation = connection.situation;
        let incoming = connection.next()?;
        let mut reasons = Vec::new();
        for expectation in any {
            match &incoming {
                Incoming::Packet(packet) => {
                    match expectation.check(packet, situation, &mut self.variables) {
                        Ok(()) => return self.met(name, expectation, packet),
                        Err(reason) => reasons.push(reason),
                    }
                }
                Incoming::Closed if expectation.is_met_by_close(situation) => {
                    self.connections.remove(name);
                    return Ok(());
                }
                Incoming::Closed | Incoming::Nothing => {}
            }
        }
        Err(Stop::Fail(format!(
            "{}{}",
            incoming.show(),
            join_reasons(&reasons)
        )))
    }

    fn expect_all(&mut self, name: &str, mut all: Vec<Expectation>) -> Result<(), Stop> {
        while !all.is_empty() {
            let connection = self.connection(name)?;
            let situation = connection.situation;
            let incoming = connection.next()?;
            let Incoming::Packet(packet) = &incoming else {
                return Err(Stop::Fail(format!(
                    "{}, {} still expected",
                    incoming.show(),
                    all.len()
                )));
            };
            let variables = &mut self.variables;
            let mut reasons = Vec::new();
            let found = all.iter().position(|expectation| {
                match expectation.check(packet, situation, variables) {
                    Ok(()) => true,
                    Err(reason) => {
                        reasons.push(reason);
                        false
                    }
                }
            });
            let Some(found) = found else {
                return Err(Stop::Fail(format!(
                    "{}{}",
                    incoming.show(),
                    join_reasons(&reasons)
                )));
            };
            all.remove(found);
        }
        Ok(())
    }

    fn expect_eventually(&mut self, name: &str, expectation: &Expectation) -> Result<(), Stop> {
        let deadline = Instant::now() + READ_DEADLINE;
        loop {
            let connection = self.connection(name)?;
            let situation = connection.situation;
            let incoming = connection.next()?;
            let Incoming::Packet(packet) = &incoming else {
                return Err(Stop::Fail(incoming.show()));
            };
            if expectation
                .check(packet, situation, &mut self.variables)
                .is_ok()
            {
                return self.met(name, expectation, packet);
            }
            if Instant::now() > deadline {
                return Err(Stop::Fail(format!(
                    "only others came, the last: {}",
                    incoming.show()
                )));
            }
        }
    }

    /// Takes note of what was announced, and waits for the end where the packet demands it.
    fn met(&mut self, name: &str, expectation: &Expectation, packet: &[u8]) -> Result<(), Stop> {
        let connection = self.connection(name)?;
        if matches!(packet, [0x20, _, _, 0, ..]) && !connection.situation.accepted {
            connection.situation.accepted = true;
            let alias_maximum = connection.note_announced(packet);
            self.variables.insert(
                "alias_maximum".to_owned(),
                alias_maximum.to_be_bytes().to_vec(),
            );
            match alias_maximum.checked_add(1) {
                Some(over) => self
                    .variables
                    .insert("alias_over".to_owned(), over.to_be_bytes().to_vec()),
                None => self.variables.remove("alias_over"),
            };
            return Ok(());
        }
        if expectation.ends_connection(connection.situation) {
            let incoming = connection.next()?;
            if !matches!(incoming, Incoming::Closed) {
                let show = incoming.show();
                return Err(Stop::Fail(format!(
                    "the connection did not end after it: {show}"
                )));
            }
            self.connections.remove(name);
        }
        Ok(())
    }

    fn differ(&self, names: &[String]) -> Result<(), Stop> {
        let mut seen = BTreeMap::new();
        for name in names {
            let value = self.variables.get(name);
            let value = value.ok_or_else(|| Stop::Fail(format!("${name} is not bound")))?;
            if let Some(other) = seen.insert(value, name) {
                return Err(Stop::Fail(format!(
                    "${name} and ${other} are both {value:02X?}"
                )));
            }
        }
        Ok(())
    }

    fn exceed_receive_maximum(&mut self, name: &str) -> Result<(), Stop> {
        let topic = self.case.id.clone();
        let connection = self.connection(name)?;
        let Some(count) = connection.receive_maximum.checked_add(1) else {
            return Err(Stop::Skip);
        };
        let mut burst = Vec::new();
        for packet_identifier in 1..=count {
            let publish =
                bytes::parse(&format!("34 ( s'{topic}' {packet_identifier:04X} () 'x' )"))?;
            burst.extend(bytes::encode(&publish, Version::V5, &Variables::new())?);
        }
        connection.write(&burst);
        Ok(())
    }

    fn exceed_maximum_packet_size(&mut self, name: &str) -> Result<(), Stop> {
        let topic = self.case.id.clone();
        let connection = self.connection(name)?;
        let Some(maximum) = connection.maximum_packet_size else {
            return Err(Stop::Skip);
        };
        let maximum = usize::try_from(maximum).map_err(|_| Stop::Skip)?;
        if maximum > LARGEST_SENT_BYTES {
            return Err(Stop::Skip);
        }
        let publish = bytes::parse(&format!("s'{topic}' ()"))?;
        let head = bytes::encode(&publish, Version::V5, &Variables::new())?;
        let mut width = Vec::new();
        bytes::push_variable_byte_integer(&mut width, maximum);
        let remaining = (maximum + 1).saturating_sub(1 + width.len());
        let mut packet = vec![0x30];
        bytes::push_variable_byte_integer(&mut packet, remaining);
        packet.extend_from_slice(&head);
        packet.resize(maximum + 1, b'x');
        connection.write(&packet);
        Ok(())
    }
}

impl Connection {
    fn open(target: Target, version: Version) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target.address, READ_DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(READ_DEADLINE))?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
            situation: Situation {
                version,
                accepted: false,
                is_lenient: target.is_lenient,
            },
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            size_limit: usize::MAX,
        })
    }

    /// Sends `bytes`. The broker may have closed already; the next read will tell.
    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap_or_default();
    }

    fn next(&mut self) -> Result<Incoming, String> {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            if let Some(packet) = packet::take(&mut self.inbox)? {
                // [MQTT-3.1.2-24] Nothing larger than the client's Maximum Packet Size is sent.
                if packet.len() > self.size_limit {
                    let show = packet::show(&packet);
                    return Err(format!("larger than {} bytes: {show}", self.size_limit));
                }
                return Ok(Incoming::Packet(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Incoming::Nothing);
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(|error| error.to_string())?;
            match self.stream.read(&mut buffer) {
                Ok(0) if self.inbox.is_empty() => return Ok(Incoming::Closed),
                Ok(0) => {
                    return Err(format!(
                        "closed within a packet: {}",
                        packet::show(&self.inbox)
                    ));
                }
                Ok(count) => self
                    .inbox
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        return Ok(Incoming::Nothing);
                    }
                    io::ErrorKind::Interrupted => {}
                    _ => return Ok(Incoming::Closed),
                },
            }
        }
    }

    /// Keeps the limits a CONNACK announced; answers the Topic Alias Maximum.
    fn note_announced(&mut self, connack: &[u8]) -> u16 {
        let mut alias_maximum = 0;
        let list = packet::body(connack).get(2..).unwrap_or_default();
        let (properties, _) = packet::properties(list).unwrap_or_default();
        for property in properties {
            match (property.identifier, property.value) {
                (0x21, [high, low]) => self.receive_maximum = u16::from_be_bytes([*high, *low]),
                (0x22, [high, low]) => alias_maximum = u16::from_be_bytes([*high, *low]),
                (0x27, [a, b, c, d]) => {
                    self.maximum_packet_size = Some(u32::from_be_bytes([*a, *b, *c, *d]));
                }
                _ => {}
            }
        }
        alias_maximum
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The broker may have closed first; either way the socket is gone.
        self.stream.shutdown(Shutdown::Both).unwrap_or_default();
    }
}

impl Incoming {
    fn show(&self) -> String {
        match self {
            Self::Packet(packet) => format!("got {}", packet::show(packet)),
            Self::Closed => "got the end of the connection".to_owned(),
            Self::Nothing => format!("got nothing within {READ_DEADLINE:?}"),
        }
    }
}

fn join_reasons(reasons: &[String]) -> String {
    let lines: Vec<String> = reasons
        .iter()
        .map(|reason| format!("\n    {reason}"))
        .collect();
    lines.concat()
}

/// The CONNECT that `connect` describes; user name and password have no word, send them as bytes.
pub(crate) fn connect_packet(connect: &Connect, version: Version, own_id: &str) -> Vec<Atom> {
    let literal = |bytes: &[u8]| Atom::Literal(bytes.to_vec());
    let (name, level) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    let will_flags = connect.will.as_ref().map_or(0, |will| will.flags | 0x04);
    let flags = will_flags | if connect.resume { 0 } else { 0x02 };
    let mut body = vec![
        Atom::Prefixed(vec![literal(name.as_bytes())]),
        literal(&[level, flags]),
    ];
    body.extend(
        connect
            .keep_alive
            .clone()
            .unwrap_or_else(|| vec![literal(&[0, 60])]),
    );
    if version == Version::V5 {
        body.extend(
            connect
                .properties
                .clone()
                .unwrap_or_else(|| vec![Atom::NoProperties]),
        );
    }
    let client_id = connect
        .client_id
        .clone()
        .unwrap_or_else(|| vec![literal(own_id.as_bytes())]);
    body.push(Atom::Prefixed(client_id));
    if let Some(will) = &connect.will {
        if version == Version::V5 {
            body.extend(
                will.properties
                    .clone()
                    .unwrap_or_else(|| vec![Atom::NoProperties]),
            );
        }
        body.push(Atom::Prefixed(will.topic.clone()));
        body.push(Atom::Prefixed(will.payload.clone()));
    }
    vec![literal(&[0x10]), Atom::Sized(body)]
}

/// A larger announced limit is not tried; it would measure memory, not conformance.
const LARGEST_SENT_BYTES: usize = 64 * 1024 * 1024;
