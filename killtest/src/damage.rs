//! Damage to what was acknowledged: told, kept apart, and everything beside it served.
//!
//! Owns: the damage, the judgement of each start on it. Does not own: the broker's process (`broker`).
//! Start reading at [`run`]. Invariant: the same log, never started on, is copied and damaged each time, so
//! what is missing comes from that one damage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proto::connection::ClientSession;
use proto::packet::Connect;
use proto::{Qos, Version};

use crate::broker::{Broker, Kind, Plan};
use crate::client::{Client, Happening, TURN};
use crate::random::Random;
use crate::roles::message;
use crate::spoil;

/// What is damaged, and how much of it there is.
#[derive(Debug)]
pub(crate) struct Damages {
    pub(crate) program: PathBuf,
    /// Everything is below it.
    pub(crate) folder: PathBuf,
    pub(crate) shards: u16,
    pub(crate) seed: u64,
    /// Starts, each on another damage.
    pub(crate) rounds: u32,
    pub(crate) messages: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) segment_mib: u32,
}

/// What is done to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    /// One bit is another.
    Flip,
    /// A sector is zeros.
    Sector,
    /// The second half is gone.
    Cut,
    /// The file is gone.
    Gone,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    damages: BTreeMap<Damage, u32>,
    owed: usize,
    in_segments: usize,
    missing: usize,
    faults: Vec<String>,
}

/// Fills a log, then starts on copies of it that are damaged.
pub(crate) fn run(damages: &Damages) -> Result<Report, String> {
    let mut random = Random::new(damages.seed);
    let mut report = Report::default();
    let filled = damages.plan("filled", "set-aside")?;
    damages.fill(&filled)?;
    for round in 0..damages.rounds {
        let plan = damages.plan(&format!("round{round}"), "set-aside")?;
        copy(&filled.folder.join("data"), &plan.folder.join("data"))?;
        damages.one(&plan, &mut random, &mut report)?;
        fs::remove_dir_all(&plan.folder).map_err(|error| error.to_string())?;
    }
    Ok(report)
}

impl Damages {
    /// How a broker runs in a folder of its own.
    fn plan(&self, name: &str, recovery: &str) -> Result<Plan, String> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let config = folder.join(format!("{recovery}.toml"));
        let text = format!(
            "sys_interval = \"1s\"\n\n[storage]\nrecovery = \"{recovery}\"\nsegment_bytes = \"{}MiB\"\n\n\
             [limits]\nqueued_messages_max = {}\nqueued_bytes_max = \"16GiB\"\nqueued_bytes_total_max = \"64GiB\"\n",
            self.segment_mib,
            2 * self.messages
        );
        fs::write(&config, text).map_err(|error| error.to_string())?;
        Ok(Plan {
            kind: Kind::Vencejo,
            program: self.program.clone(),
            folder,
            address: crate::broker::free_address()?,
            shards: self.shards,
            config: Some(config),
        })
    }

    /// Sessions whose queues lie in many segments, and a broker that was killed.
    fn fill(&self, plan: &Plan) -> Result<(), String> {
        let mut broker = Broker::start(plan)?;
        broker.wait()?;
        for reader in READERS {
            let (mut client, _) = connect(plan, reader)?;
            let asked = client.subscribe("d/#", reader.qos);
            let mut is_answered = false;
            client = turn_until(client, |happening| {
                is_answered |=
                    matches!(happening, Some(Happening::Answered(id, _)) if Some(*id) == asked);
                is_answered
            })?;
            client.leave();
        }
        let publisher = Reader {
            name: "publisher",
            version: Version::V5,
            qos: Qos::ExactlyOnce,
        };
        let (mut client, _) = connect(plan, publisher)?;
        let (mut sent, mut acknowledged) = (0, 0);
        while acknowledged < self.messages {
            while sent < self.messages && sent - acknowledged < IN_FLIGHT {
                let payload = self.payload(sent);
                let qos = [1, 2][usize::from(sent % 2 == 1)];
                if client
                    .publish(&message("d/x", &payload, qos, false))
                    .is_none()
                {
                    break;
                }
                sent += 1;
            }
            let mut refused = None;
            client = client
                .turn(TURN, |happening| {
                    if let Happening::Published(_, reason) = happening {
                        acknowledged += 1;
                        if reason.is_error() {
                            refused = Some(reason);
                        }
                    }
                })
                .map_err(|lost| lost.why)?;
            if let Some(reason) = refused {
                return Err(format!("a message was refused: {reason:?}"));
            }
        }
        broker.kill();
        Ok(())
    }

    /// `number`, made long by bytes that differ.
    fn payload(&self, number: u32) -> String {
        let mut payload = label(number);
        let mut random = Random::new(u64::from(number));
        while payload.len() < self.payload_bytes {
            payload.push_str(&format!("{:016x}", random.next()));
        }
        payload
    }

    /// One damage, and all that has to follow from it.
    fn one(&self, plan: &Plan, random: &mut Random, report: &mut Report) -> Result<(), String> {
        let segments = spoil::segments(&plan.folder.join("data/log"));
        // The first one holds the Sessions, the last one may end anywhere.
        let among = segments.get(1..segments.len().saturating_sub(2));
        let among = among.unwrap_or_default();
        if among.is_empty() {
            return Err(format!(
                "only {} segments, more messages are needed",
                segments.len()
            ));
        }
        let choice = usize::try_from(random.below(among.len() as u64)).unwrap_or(0);
        let segment = among.get(choice).ok_or("no segment")?;
        let inside = self.messages_in(segment)?;
        let (damage, place) = spoil(segment, random).map_err(|error| error.to_string())?;
        let name = segment.file_name().unwrap_or_default();
        let mut round = Round {
            damages: self,
            plan,
            damage,
            segment: name.to_string_lossy().into_owned(),
            inside,
            missing: 0,
            faults: Vec::new(),
        };
        round.refuses_strictly()?;
        round.serves()?;
        round.keeps()?;
        *report.damages.entry(damage).or_default() += 1;
        report.owed += READERS.len() * self.messages as usize;
        report.in_segments += READERS.len() * round.inside.len();
        report.missing += round.missing;
        let place = format!("{damage:?} of {} at {place}", round.segment);
        let faults = round.faults.iter().map(|fault| format!("{place}: {fault}"));
        report.faults.extend(faults);
        Ok(())
    }

    /// Which messages have bytes in a segment.
    fn messages_in(&self, segment: &Path) -> Result<BTreeSet<u32>, String> {
        let bytes = fs::read(segment).map_err(|error| error.to_string())?;
        let width = label(0).len();
        let labels = bytes.windows(width).filter_map(|window| {
            let text = std::str::from_utf8(window).ok()?;
            let number: u32 = text.strip_prefix('<')?.strip_suffix('>')?.parse().ok()?;
            (label(number) == text).then_some(number)
        });
        Ok(labels.filter(|number| *number < self.messages).collect())
    }

    /// Takes all that is queued for a Session.
    fn read(&self, plan: &Plan, reader: Reader) -> Result<Got, String> {
        let (client, is_present) = connect(plan, reader)?;
        let mut got = Got::default();
        if !is_present {
            got.faults.push("its Session is lost".to_owned());
        }
        let (mut client, mut last) = (client, None);
        // What is published now comes behind all that was queued.
        let end = END.to_string();
        client.publish(&message("d/x", &end, 1, false));
        let mut is_at_end = false;
        client = turn_until(client, |happening| {
            if let Some(Happening::Message { payload, .. }) = happening {
                if *payload == end {
                    is_at_end = true;
                    return true;
                }
                match self.number(payload) {
                    None => got
                        .faults
                        .push(format!("{payload:.40} is not what was published")),
                    Some(number) if !got.seen.insert(number) => {
                        got.faults.push(format!("{number} has come twice"));
                    }
                    Some(number) => {
                        if last.is_some_and(|last| last > number) {
                            got.faults.push(format!("{number} has come after {last:?}"));
                        }
                        last = Some(number);
                    }
                }
            }
            is_at_end
        })?;
        client.leave();
        Ok(got)
    }

    /// Which message has this payload, if it is whole.
    fn number(&self, payload: &str) -> Option<u32> {
        let number = payload.get(1..9)?.parse().ok()?;
        (self.payload(number) == payload).then_some(number)
    }
}

impl Report {
    /// Whether everything was as it has to be; shows what was not.
    pub(crate) fn is_clean(&self) -> bool {
        for fault in self.faults.iter().take(SHOWN_MAX) {
            eprintln!("fault: {fault}");
        }
        self.faults.is_empty()
    }

    /// One line.
    pub(crate) fn text(&self) -> String {
        let mix: Vec<String> = self
            .damages
            .iter()
            .map(|(damage, count)| format!("{count} {}", damage.name()))
            .collect();
        format!(
            "{} damaged segments ({}), {} deliveries owed, {} of them in those segments, {} missing: {} faults",
            self.damages.values().sum::<u32>(),
            mix.join(", "),
            self.owed,
            self.in_segments,
            self.missing,
            self.faults.len()
        )
    }
}

impl Damage {
    const fn name(self) -> &'static str {
        match self {
            Self::Flip => "flipped bit",
            Self::Sector => "zeroed sector",
            Self::Cut => "cut in half",
            Self::Gone => "removed",
        }
    }
}

/// Starts on one damage.
#[derive(Debug)]
struct Round<'a> {
    damages: &'a Damages,
    plan: &'a Plan,
    damage: Damage,
    /// The name of its file.
    segment: String,
    /// The messages that it held.
    inside: BTreeSet<u32>,
    /// Of all readers.
    missing: usize,
    faults: Vec<String>,
}

impl Round<'_> {
    fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    /// A strict start is refused, says where and what to do, and changes nothing.
    fn refuses_strictly(&mut self) -> Result<(), String> {
        let log = self.plan.folder.join("data/log");
        let before = contents(&log)?;
        let strict = self.damages.plan("strict", "strict")?;
        let mut command = Command::new(&strict.program);
        command.args(["serve", "--listen", &strict.address.to_string(), "--data"]);
        command.arg(self.plan.folder.join("data"));
        command.args(
            strict
                .config
                .iter()
                .flat_map(|config| [Path::new("--config"), config]),
        );
        let refused = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&refused.stderr);
        if refused.status.code() != Some(65) || !said.contains("vencejo store") {
            self.fault(format!(
                "a strict start ended with {}: {said}",
                refused.status
            ));
        }
        if self.damage != Damage::Gone && !said.contains(&self.segment) {
            self.fault(format!("a strict start does not name the segment: {said}"));
        }
        if contents(&log)? != before {
            self.fault("a strict start has changed the log");
        }
        Ok(())
    }

    /// Another start serves what is intact, and raises an alarm.
    fn serves(&mut self) -> Result<(), String> {
        let mut broker = Broker::start(self.plan)?;
        broker.wait()?;
        for reader in READERS {
            let got = self.damages.read(self.plan, reader)?;
            for number in (0..self.damages.messages).filter(|number| !got.seen.contains(number)) {
                self.missing += 1;
                if !self.inside.contains(&number) {
                    self.fault(format!(
                        "{}: {number} of another segment is missing",
                        reader.name
                    ));
                }
            }
            for what in got.faults {
                self.fault(format!("{}: {what}", reader.name));
            }
        }
        if !alarm_becomes(self.plan, true)? {
            self.fault("no alarm in $SYS");
        }
        Ok(())
    }

    /// The next start still says it, until it is acknowledged, and the damaged file is there.
    fn keeps(&mut self) -> Result<(), String> {
        let mut broker = Broker::start(self.plan)?;
        broker.wait()?;
        if !alarm_becomes(self.plan, true)? {
            self.fault("the alarm is gone after the next start");
        }
        let aside = fs::read_dir(self.plan.folder.join("data/set-aside"));
        if self.damage != Damage::Gone && aside.into_iter().flatten().next().is_none() {
            self.fault("the damaged segment is not kept");
        }
        let mut command = Command::new(&self.plan.program);
        command.args(["store", "acknowledge"]);
        command.arg(self.plan.folder.join("data"));
        let acknowledged = command.output().map_err(|error| error.to_string())?;
        if !acknowledged.status.success() || !alarm_becomes(self.plan, false)? {
            self.fault("the alarm cannot be acknowledged");
        }
        Ok(())
    }
}

/// A client with a Session.
#[derive(Clone, Copy, Debug)]
struct Reader {
    name: &'static str,
    version: Version,
    qos: Qos,
}

/// What a reader got.
#[derive(Debug, Default)]
struct Got {
    seen: BTreeSet<u32>,
    faults: Vec<String>,
}

fn label(number: u32) -> String {
    format!("<{number:08}>")
}

/// Connects to the Session of `reader`; whether there was one.
fn connect(plan: &Plan, reader: Reader) -> Result<(Client, bool), String> {
    let mut connect = Connect::new(reader.version, reader.name);
    connect.clean_start = false;
    if reader.version == Version::V5 {
        connect.properties.session_expiry_interval_seconds = Some(3600);
    }
    Client::connect(plan.address, &connect, Some(ClientSession::default())).map_err(|lost| lost.why)
}

/// Goes on until `is_done` says so, of something that came or of nothing.
fn turn_until(
    mut client: Client,
    mut is_done: impl FnMut(Option<&Happening>) -> bool,
) -> Result<Client, String> {
    let mut heard = Instant::now();
    while !is_done(None) {
        if heard.elapsed() > SILENCE_MAX {
            return Err("the broker says nothing more".to_owned());
        }
        client = client
            .turn(TURN, |happening| {
                heard = Instant::now();
                is_done(Some(&happening));
            })
            .map_err(|lost| lost.why)?;
    }
    Ok(client)
}

/// Whether `$SYS` comes to say that there is an alarm, or none.
fn alarm_becomes(plan: &Plan, is_wanted: bool) -> Result<bool, String> {
    let looker = Reader {
        name: "looker",
        version: Version::V311,
        qos: Qos::AtMostOnce,
    };
    let (mut client, _) = connect(plan, looker)?;
    client.subscribe("$SYS/broker/alarms", Qos::AtMostOnce);
    let until = Instant::now() + ALARM_MAX;
    let mut is_so = false;
    while !is_so && Instant::now() < until {
        client = client
            .turn(TURN, |happening| {
                if let Happening::Message { payload, .. } = happening {
                    is_so |= (payload != "none") == is_wanted;
                }
            })
            .map_err(|lost| lost.why)?;
    }
    client.leave();
    Ok(is_so)
}

/// Damages a segment anywhere up to its last byte that is not zero; returns how and where.
fn spoil(segment: &Path, random: &mut Random) -> std::io::Result<(Damage, u64)> {
    let bytes = fs::read(segment)?;
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1) as u64;
    let file = fs::OpenOptions::new().write(true).open(segment)?;
    let at = random.below(end.max(1));
    match random.below(8) {
        0 => {
            fs::remove_file(segment)?;
            Ok((Damage::Gone, 0))
        }
        1 => {
            file.set_len(end / 2)?;
            Ok((Damage::Cut, end / 2))
        }
        2 | 3 => {
            let sector = at / SECTOR as u64 * SECTOR as u64;
            file.write_all_at(&[0; SECTOR], sector)?;
            Ok((Damage::Sector, sector))
        }
        _ => {
            let place = usize::try_from(at).unwrap_or(0);
            let byte = bytes.get(place).copied().unwrap_or(0) ^ (1 << random.below(8));
            file.write_all_at(&[byte], at)?;
            Ok((Damage::Flip, at))
        }
    }
}

/// All files of a folder.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        contents.insert(path, bytes);
    }
    Ok(contents)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| error.to_string())?;
    for entry in fs::read_dir(from).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().unwrap_or_default();
        let kind = fs::symlink_metadata(&path).map_err(|error| error.to_string())?;
        if kind.is_dir() {
            copy(&path, &to.join(name))?;
        } else if kind.is_file() {
            fs::copy(&path, to.join(name)).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

const READERS: [Reader; 2] = [
    Reader {
        name: "reader1",
        version: Version::V311,
        qos: Qos::AtLeastOnce,
    },
    Reader {
        name: "reader2",
        version: Version::V5,
        qos: Qos::ExactlyOnce,
    },
];
/// The last message.
const END: &str = "end";
/// Exchanges the publisher has open.
const IN_FLIGHT: u32 = 200;
/// The broker always has something to say so soon.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// `$SYS` is published every second here.
const ALARM_MAX: Duration = Duration::from_secs(10);
const SECTOR: usize = 512;
/// Faults that are shown.
const SHOWN_MAX: usize = 10;
