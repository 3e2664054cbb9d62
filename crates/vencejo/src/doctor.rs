//! `vencejo doctor`: what of this machine and of a configuration would hurt a server, and what mends it.
//!
//! Owns: what is looked at, when it is good enough. Does not own: mending it. Start reading at [`run`].
//! Invariant: it changes nothing, and exit code 1 says that something is bad.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use server::config::{Address, Config, Transport};
use x509_parser::pem::Pem;

use crate::config::sources::SourceArgs;
use crate::tools::Failure;
use crate::{port_owner, serve};

/// Look at this machine and at a configuration, and say what would hurt; exit code 1 if something is bad
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// It works, but not for many, or not for long.
    Weak,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    state: State,
    seen: String,
    /// The command that mends it.
    mend: Option<String>,
}

impl Finding {
    fn new(what: &'static str, state: State, seen: impl Into<String>) -> Self {
        Self {
            what,
            state,
            seen: seen.into(),
            mend: None,
        }
    }

    fn mend(mut self, command: impl Into<String>) -> Self {
        if self.state != State::Good {
            self.mend = Some(command.into());
        }
        self
    }
}

/// `vencejo doctor`.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let config = configuration(args, &mut findings);
    open_files(&config, &mut findings);
    backlog(&mut findings);
    memory(&mut findings);
    clock(&mut findings);
    disk(&config, &mut findings);
    for listener in &config.listeners {
        if let Address::Network(address) = listener.address
            && listener.transport != Transport::Quic
        {
            findings.push(port(address));
        }
        for files in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            findings.push(certificate(&files.certificate));
            findings.push(key(&files.key));
        }
    }
    let is_bad = findings.iter().any(|finding| finding.state == State::Bad);
    print(args.json, &findings);
    match is_bad {
        false => Ok(()),
        true => Err(Failure::new("")),
    }
}

/// What the sources come to; the defaults where they come to nothing.
fn configuration(args: &DoctorArgs, findings: &mut Vec<Finding>) -> Config {
    let what = "configuration";
    let program = serve::program();
    let read = args
        .sources
        .layers()
        .and_then(|layers| layers.check().map_err(crate::config::sources::wrong));
    match read {
        Ok(config) => {
            for problem in server::check_files(&config) {
                findings.push(Finding::new(what, State::Bad, problem));
            }
            if findings.is_empty() {
                findings.push(Finding::new(what, State::Good, "it is right"));
            }
            config
        }
        Err(failure) => {
            let first = failure.text.lines().next().unwrap_or_default().to_owned();
            let file = args
                .sources
                .file
                .config
                .as_deref()
                .unwrap_or_else(|| Path::new("FILE"));
            let mend = format!("{program} config check -c {}", file.display());
            findings.push(Finding::new(what, State::Bad, first).mend(mend));
            Config::default()
        }
    }
}

/// Each connection is an open file.
fn open_files(config: &Config, findings: &mut Vec<Finding>) {
    let what = "open files";
    let Ok((soft, hard)) = rlimit::getrlimit(rlimit::Resource::NOFILE) else {
        return findings.push(Finding::new(what, State::Weak, "the system does not say"));
    };
    // The server raises the soft limit by itself.
    let wanted = (config.bounds.connections_max as u64).min(OPEN_FILES_WANTED);
    let state = match hard {
        hard if hard < 2048 => State::Bad,
        hard if hard < wanted => State::Weak,
        _ => State::Good,
    };
    let finding = Finding::new(
        what,
        state,
        format!("{hard} at most ({soft} now, the server asks for all of them)"),
    );
    findings.push(
        finding.mend("LimitNOFILE=1048576 in the systemd unit, or: ulimit -Hn 1048576 (as root)"),
    );
}

/// Clients that come at once wait here to be taken.
fn backlog(findings: &mut Vec<Finding>) {
    let path = "/proc/sys/net/core/somaxconn";
    let Some(number) = number_in(path) else {
        return;
    };
    let state = if number < 4096 {
        State::Weak
    } else {
        State::Good
    };
    let finding = Finding::new(
        "backlog of listeners",
        state,
        format!("{number} (net.core.somaxconn)"),
    );
    findings.push(finding.mend("sysctl -w net.core.somaxconn=4096"));
}

fn memory(findings: &mut Vec<Finding>) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let Some(available) = of("MemAvailable:") else {
        return;
    };
    let megabytes = available / 1024;
    let state = match megabytes {
        0..=63 => State::Bad,
        64..=255 => State::Weak,
        _ => State::Good,
    };
    let finding = Finding::new("memory", state, format!("{megabytes} MiB available"));
    findings.push(finding.mend("set memory_max_bytes in [limits], so that less is kept for peers"));
}

/// Certificates and tokens are judged by it.
fn clock(findings: &mut Vec<Finding>) {
    let what = "clock";
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // It is later than the day on which this was written.
    if now < Duration::from_secs(WRITTEN) {
        let finding = Finding::new(what, State::Bad, "it is in the past");
        return findings.push(finding.mend("timedatectl set-ntp true"));
    }
    let is_synchronized = Path::new("/run/systemd/timesync/synchronized").exists()
        || Path::new("/run/chrony").exists()
        || Path::new("/var/lib/ntp/ntp.drift").exists();
    let finding = match is_synchronized {
        true => Finding::new(what, State::Good, "it is kept right by the network"),
        false => Finding::new(what, State::Weak, "nothing is seen that keeps it right"),
    };
    findings.push(finding.mend("timedatectl set-ntp true"));
}

fn disk(config: &Config, findings: &mut Vec<Finding>) {
    let what = "disk";
    if config.storage.is_in_memory() {
        return findings.push(Finding::new(
            what,
            State::Weak,
            "none is used: state is gone with the server",
        ));
    }
    let data = &config.storage.data;
    let mut there = data.clone();
    while !there.exists() && there.pop() {}
    if there.as_os_str().is_empty() {
        there = PathBuf::from(".");
    }
    let shown = data.display();
    let facts = match rustix::fs::statvfs(&there) {
        Ok(facts) => facts,
        Err(error) => {
            return findings.push(Finding::new(what, State::Bad, format!("{shown}: {error}")));
        }
    };
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    let low = config.storage.disk_low_bytes();
    let state = match free {
        free if free < low => State::Bad,
        free if free < 4 * low => State::Weak,
        _ => State::Good,
    };
    let mebibytes = |bytes: u64| bytes >> 20;
    let seen = format!(
        "{} MiB free for {shown}; below {} MiB nothing more is taken",
        mebibytes(free),
        mebibytes(low)
    );
    findings.push(Finding::new(what, state, seen).mend(format!(
        "free some space, or: {} serve --data DIR",
        serve::program()
    )));
    if facts.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        findings.push(Finding::new(
            what,
            State::Bad,
            format!("{shown} is on a disk that is read only"),
        ));
    }
}

/// Whether a listener can be opened now.
fn port(address: std::net::SocketAddr) -> Finding {
    let what = "port";
    match std::net::TcpListener::bind(address) {
        Ok(_) => Finding::new(what, State::Good, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let owner = port_owner::find(address.port());
            let (seen, mend) = match owner {
                Some(owner) if owner.name == "vencejo" => {
                    let seen = format!(
                        "{address} is used by {} (pid {}), a server of ours",
                        owner.name, owner.pid
                    );
                    return Finding::new(what, State::Good, seen);
                }
                Some(owner) => (
                    format!("{address} is used by {} (pid {})", owner.name, owner.pid),
                    format!("kill {}", owner.pid),
                ),
                None => (
                    format!("{address} is in use"),
                    format!("ss -ltnp sport = :{}", address.port()),
                ),
            };
            Finding::new(what, State::Bad, seen).mend(mend)
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let finding = Finding::new(what, State::Bad, format!("{address}: {error}"));
            finding.mend("AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit")
        }
        Err(error) => Finding::new(what, State::Bad, format!("{address}: {error}")),
    }
}

/// How long a certificate is still good.
fn certificate(path: &Path) -> Finding {
    let what = "certificate";
    let shown = path.display();
    let bad = |why: String| Finding::new(what, State::Bad, format!("{shown}: {why}"));
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return bad(error.to_string()),
    };
    let Some(Ok(pem)) = Pem::iter_from_buffer(&bytes).next() else {
        return bad("it is no PEM file".to_owned());
    };
    let Ok(parsed) = pem.parse_x509() else {
        return bad("it holds no certificate".to_owned());
    };
    let ends = parsed.validity().not_after.timestamp();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let left = ends - i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let days = left / 86_400;
    let (state, seen) = match days {
        _ if left < 0 => (State::Bad, format!("{shown} has ended")),
        days if days < 30 => (State::Weak, format!("{shown} ends in {days} days")),
        days => (State::Good, format!("{shown} is good for {days} days")),
    };
    let mend = format!(
        "{} tls init, or whatever made it; the server takes a new file by itself",
        serve::program()
    );
    Finding::new(what, state, seen).mend(mend)
}

/// Whether others can read a private key.
fn key(path: &Path) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    let (what, shown) = ("private key", path.display());
    match fs::metadata(path) {
        Err(error) => Finding::new(what, State::Bad, format!("{shown}: {error}")),
        Ok(metadata) if metadata.permissions().mode() & 0o007 != 0 => {
            let finding = Finding::new(
                what,
                State::Bad,
                format!("{shown} can be read by everybody"),
            );
            finding.mend(format!("chmod 640 {shown}"))
        }
        Ok(_) => Finding::new(what, State::Good, format!("{shown} is for few")),
    }
}

fn number_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn print(as_json: bool, findings: &[Finding]) {
    let word = |state| match state {
        State::Good => "good",
        State::Weak => "weak",
        State::Bad => "BAD",
    };
    if as_json {
        let found = findings.iter().map(|one| {
            json!({ "what": one.what, "state": word(one.state).to_lowercase(), "seen": one.seen, "mend": one.mend })
        });
        let found: Vec<_> = found.collect();
        return serve::print(&format!("{:#}\n", json!(found)));
    }
    let mut text = String::new();
    for one in findings {
        text.push_str(&format!(
            "  {:<4}  {:<20}  {}\n",
            word(one.state),
            one.what,
            one.seen
        ));
        if let Some(mend) = &one.mend {
            text.push_str(&format!("  {:<4}  {:<20}  -> {mend}\n", "", ""));
        }
    }
    serve::print(&text);
}

/// More than this only few machines need.
const OPEN_FILES_WANTED: u64 = 65_536;
/// 2026-11-01, in seconds since 1970.
const WRITTEN: u64 = 1_793_491_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_needs_no_mending() {
        let finding = Finding::new("a", State::Good, "b").mend("c");
        assert!(finding.mend.is_none());
        assert!(Finding::new("a", State::Weak, "b").mend("c").mend.is_some());
    }

    #[test]
    fn certificates_that_have_ended_or_are_none_are_bad() {
        let folder = std::env::temp_dir().join(format!("vencejo-doctor-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let made = |name: &str, year: i32| {
            let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let path = folder.join(name);
            fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
            certificate(&path).state
        };
        assert_eq!(made("old.pem", 2001), State::Bad);
        assert_eq!(made("new.pem", 2999), State::Good);
        fs::write(folder.join("none.pem"), "nothing").unwrap();
        assert_eq!(certificate(&folder.join("none.pem")).state, State::Bad);
        assert_eq!(certificate(&folder.join("missing.pem")).state, State::Bad);
        fs::remove_dir_all(&folder).unwrap();
    }
}
