//! `vencejo serve`: the server from the command line, from its first line to its exit code.
//!
//! Owns: flags, what is printed at the start, logs, signals. Does not own: serving (see `server`).
//! Start reading at [`run`]. Invariant: exit codes are 0, 1, 2 (usage), 65 (damage, and recovery is strict),
//! 69 (cannot start), 74 (the disk has failed) and 78 (configuration).

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use sd_notify::NotifyState;
use server::authentication::AnonymousPolicy;
use server::config::{Address, Config, Link, ListenerConfig, StorageConfig, Transport};
use server::persist::Restored;
use server::{Reloader, Server, SocketFileError, StartError, Stopped, Watcher};
use store::{Level, OpenError};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

use crate::config::sources::SourceArgs;
use crate::file_watch::FileWatches;
use crate::port_owner;
use crate::tools::Failure;

/// Run the server
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// Take over what changes in the file, and in those that it names, without a SIGHUP, once it has stayed the same for two
    /// seconds
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What is logged, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// Form of the log on standard error
    #[arg(long, value_name = "FORM", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged: off, error, warn, info, debug or trace [default: info; demo: warn]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LevelFilter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Default for ServeArgs {
    fn default() -> Self {
        let log = LogArgs {
            log_format: LogFormat::Text,
            log_level: None,
        };
        Self {
            sources: SourceArgs::default(),
            watch: false,
            log,
            help: None,
        }
    }
}

/// A mistake on the command line, as clap has it.
pub(crate) const EX_USAGE: u8 = 2;
/// sysexits: what was to be read is damaged.
pub(crate) const EX_DATAERR: u8 = 65;
/// sysexits: a service is unavailable.
pub(crate) const EX_UNAVAILABLE: u8 = 69;
/// sysexits: reading or writing failed.
pub(crate) const EX_IOERR: u8 = 74;
/// sysexits: the configuration is wrong.
pub(crate) const EX_CONFIG: u8 = 78;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let started = Instant::now();
    start_log(&args.log, LevelFilter::INFO);
    let config = args.sources.read()?;
    crate::run(async {
        // Before the sockets open, so that no signal finds us unprepared.
        let mut signals = Signals::new()?;
        let server = Server::start(config.clone()).map_err(|error| start_failure(&error))?;
        greet(args, &config, &server, started.elapsed());
        tell_service_manager(NotifyState::Ready);
        until_stopped(server, &mut signals, Some(args)).await
    })
}

/// Reads the file again and takes over what can change; a wrong one changes nothing.
fn reload(args: &ServeArgs, reloader: &Reloader) {
    match args.sources.read() {
        // What stands in the way is in the log already.
        Ok(config) => drop(reloader.reload(config)),
        Err(failure) => reloader.refuse(&failure.text),
    }
}

/// What to say and which code to leave with when the server does not start.
pub(crate) fn start_failure(error: &StartError) -> Failure {
    let text = match error {
        StartError::PortInUse { addr } => port_owner::advice(*addr),
        StartError::Listen { source, .. } => match source.kind() {
            ErrorKind::AddrNotAvailable => {
                format!("{error}: no network interface of this machine has that address")
            }
            ErrorKind::PermissionDenied => {
                format!("{error}: ports below 1024 are kept for root; 1883 is the usual one")
            }
            _ => error.to_string(),
        },
        StartError::Folder(_) | StartError::Log(_) => format!("Error: {error}."),
        other => other.to_string(),
    };
    let code = match error {
        StartError::Log(OpenError::Disk { .. }) => EX_IOERR,
        StartError::Log(_) => EX_DATAERR,
        StartError::Authentication(_)
        | StartError::Authorization(_)
        | StartError::Tls { .. }
        | StartError::Activation { .. }
        | StartError::SocketFile {
            source: SocketFileError::Unknown { .. } | SocketFileError::NoSocket,
            ..
        } => EX_CONFIG,
        _ => EX_UNAVAILABLE,
    };
    Failure { text, code }
}

/// Logs to standard error, from `level` up unless the flags say another one.
pub(crate) fn start_log(args: &LogArgs, level: LevelFilter) {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(args.log_level.unwrap_or(level))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal() && !is_plain);
    let result = match args.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    debug_assert!(result.is_ok(), "invariant: the log is started once");
}

/// What listens, where state is, and what to type next.
fn greet(args: &ServeArgs, config: &Config, server: &Server, elapsed: Duration) {
    let version = env!("CARGO_PKG_VERSION");
    let title = format!("Vencejo {version} - an MQTT 3.1, 3.1.1 and 5.0 server");
    let mut text = format!("\n  {title:<60} ready in {} ms\n\n", elapsed.as_millis());
    let listeners = server.addresses();
    for (address, of) in listeners.iter().zip(&config.listeners) {
        let url = url(address, of);
        text.push_str(&format!(
            "  MQTT        {url:<32} {}\n",
            who_gets_in(
                address.network().map(|address| address.ip()),
                of.anonymous(&config.authentication),
                &of.links(&config.authentication)
            )
        ));
    }
    text.push_str(&where_state_is(&config.storage));
    if let Some(restored) = server.restored() {
        text.push_str(&what_was_found(restored));
    }
    match args.sources.path() {
        Some(path) => text.push_str(&format!("  Config      {}\n", path.display())),
        None => text.push_str(
            "  Config      none (vencejo config init writes one, serve -c FILE reads it)\n",
        ),
    }
    let ours = listeners.iter().zip(&config.listeners);
    let ours = ours.filter(|(_, of)| of.transport == Transport::Stream);
    let ours = ours.filter_map(|(address, of)| {
        Some(Door {
            address: address.network()?,
            has_tls: of.tls.is_some(),
            wants_certificate: of.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            // Who shows a certificate is asked for no password.
            wants_login: of.anonymous(&config.authentication) == AnonymousPolicy::Never
                && of.links(&config.authentication) != [Link::Certificate],
        })
    });
    // The easiest one to come by.
    let ease = |door: &Door| (door.wants_login, door.wants_certificate, door.has_tls);
    if let Some(door) = ours.min_by_key(ease) {
        text.push_str(&what_next(&door));
    }
    print(&text);
}

/// What a client is given to reach a listener.
fn url(address: &Address, of: &ListenerConfig) -> String {
    if address.network().is_none() {
        // No form of URL for it is known to clients.
        return address.to_string();
    }
    match (of.transport, of.tls.is_some()) {
        (_, false) if of.sniff => format!("mqtt, ws://{address}"),
        (_, true) if of.sniff => format!("mqtt, mqtts, ws, wss://{address}"),
        (Transport::Stream, false) => format!("mqtt://{address}"),
        (Transport::Stream, true) => format!("mqtts://{address}"),
        (Transport::WebSocket, false) => format!("ws://{address}/mqtt"),
        (Transport::WebSocket, true) => format!("wss://{address}/mqtt"),
        (Transport::Quic, _) => format!("quic://{address}"),
    }
}

fn where_state_is(storage: &StorageConfig) -> String {
    if storage.is_in_memory() {
        return "  State       in memory only: it is gone when the server stops\n".to_owned();
    }
    let data = storage.data.display().to_string();
    let mut text = format!("  State       {data:<32} {}\n", promise(storage.level));
    for of in &storage.levels {
        let promise = promise(of.level);
        text.push_str(&format!("              {:<32} {promise}\n", of.filter));
    }
    text
}

/// What an acknowledgement means at a level.
const fn promise(level: Level) -> &'static str {
    match level {
        Level::Synced => "synced: acknowledged when it is on the disk",
        Level::Written => {
            "written: acknowledged when the system has it; a power failure can take it"
        }
        Level::Memory => "memory: gone when the server stops",
    }
}

fn what_was_found(restored: &Restored) -> String {
    let report = &restored.report;
    let mut text = format!(
        "  Restored    {} sessions, {} retained messages, from {} bytes in {} segments, in {} ms\n",
        restored.sessions,
        restored.retained,
        report.bytes,
        report.segments,
        restored.elapsed.as_millis()
    );
    if let Some(torn) = &report.torn_tail {
        text.push_str(&format!("              {torn}\n"));
    }
    for alarm in &restored.alarms {
        text.push_str(&format!("  ALARM       {alarm}\n"));
    }
    if !restored.alarms.is_empty() {
        text.push_str("              (shown until `vencejo store acknowledge DIR`)\n");
    }
    text
}

/// `None` is a Unix socket.
fn who_gets_in(address: Option<IpAddr>, anonymous: AnonymousPolicy, links: &[Link]) -> String {
    let is_loopback = address.is_none_or(|address| address.is_loopback());
    let text = match anonymous {
        AnonymousPolicy::Always if is_loopback => "no password, only from this machine",
        AnonymousPolicy::Always => "NO PASSWORD, open to everyone who can reach it",
        AnonymousPolicy::Loopback if is_loopback => "no password, only from this machine",
        AnonymousPolicy::Loopback => "no password from this machine; everyone else is refused",
        AnonymousPolicy::Never if links == [Link::Scram, Link::Passwords] => {
            "users with a password only (vencejo user, password_file)"
        }
        AnonymousPolicy::Never => {
            let names: Vec<_> = links.iter().map(|link| link.name()).collect();
            return format!("users only, by {}", names.join(", "));
        }
    };
    text.to_owned()
}

/// A listener, to somebody who wants to try it.
struct Door {
    address: SocketAddr,
    has_tls: bool,
    /// It knows who signs certificates of Clients, and wants to see one, or may.
    wants_certificate: bool,
    wants_login: bool,
}

fn what_next(door: &Door) -> String {
    let program = program();
    let mut flags = connect_flags(door.address);
    if door.has_tls {
        // Names of certificates are not looked for.
        let port = door.address.port();
        flags = format!(" -h NAME -p {port} --cafile CA.PEM");
    }
    if door.wants_certificate {
        flags.push_str(" --cert CERTIFICATE.PEM --key KEY.PEM");
    }
    if door.wants_login {
        flags.push_str(" -u USER --ask-password");
    }
    format!(
        "\n  Try it in another terminal:\n    {program} sub{flags} -t 'hello/#' -v\n    \
         {program} pub{flags} -t hello/world -m 'it works!'\n\n"
    )
}

/// The flags our tools need to reach `address`: none for the default.
pub(crate) fn connect_flags(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if is_localhost(ip) || ip.is_unspecified() => String::new(),
        ip => format!(" -h {ip}"),
    };
    match address.port() {
        1883 => host,
        port => format!("{host} -p {port}"),
    }
}

/// Where our tools look without `-h`.
fn is_localhost(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// How this program was called, to be called again.
pub(crate) fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "vencejo".to_owned())
}

/// Prints at once: whoever started us may wait for it through a pipe.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A server goes on serving where nobody reads what it says.
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .ok();
}

/// SIGINT, SIGTERM and SIGHUP.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    Reload,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("Error: {error}.")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next one to stop that comes later than `pause` from now.
    async fn next_stop_after(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            let asked = self.next().await;
            if matches!(asked, Asked::Stop) && Instant::now() >= until {
                return;
            }
        }
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// What `--watch` looks at: the file, what it includes, and what it names.
fn watched_files(args: &ServeArgs, reloader: &Reloader) -> Vec<PathBuf> {
    let mut files = args.sources.files();
    files.extend(reloader.files());
    files
}

/// The next signal waits, so that the last file that is read is the one that counts.
async fn reload_apart(args: &ServeArgs, reloader: &Reloader) {
    let (args, reloader) = (args.clone(), reloader.clone());
    let done = tokio::task::spawn_blocking(move || reload(&args, &reloader));
    done.await.ok();
}

/// Waits for a signal to stop, then stops in peace; a second one ends it at once. SIGHUP reloads what `args`
/// name; where they name no file there is nothing to reload, and it means that the terminal is closed.
pub(crate) async fn until_stopped(
    server: Server,
    signals: &mut Signals,
    args: Option<&ServeArgs>,
) -> Result<(), Failure> {
    let args = args.filter(|args| args.sources.path().is_some());
    let stopper = server.stopper();
    let reloader = server.reloader();
    let mut watcher = Watcher::new(reloader.clone());
    let watching = args.filter(|args| args.watch);
    let mut files = FileWatches::default();
    let watch = |files: &mut FileWatches| {
        if let Some(args) = watching {
            files.turn_to(&watched_files(args, &reloader));
        }
    };
    watch(&mut files);
    let mut glance = tokio::time::interval(GLANCE_INTERVAL);
    glance.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopped = tokio::task::spawn_blocking(move || server.join());
    loop {
        tokio::select! {
            _ = look.tick() => {
                let looked = tokio::task::spawn_blocking(move || {
                    // What stands in the way is in the log already.
                    drop(watcher.look());
                    watcher
                });
                let Ok(back) = looked.await else {
                    break stopper.stop();
                };
                watcher = back;
            }
            _ = glance.tick(), if watching.is_some() => {
                let is_changed = files.have_settled();
                if let Some(args) = args.filter(|_| is_changed) {
                    reload_apart(args, &reloader).await;
                    watch(&mut files);
                }
            }
            asked = signals.next() => match (asked, args) {
                (Asked::Reload, Some(args)) => {
                    files.are_read_now();
                    reload_apart(args, &reloader).await;
                    watch(&mut files);
                }
                _ => break stopper.stop(),
            },
            stopped = &mut stopped => {
                judge(stopped)?;
                return Err(Failure::new("the server has stopped by itself; the log says why"));
            }
        }
    }
    tell_service_manager(NotifyState::Stopping);
    tokio::select! {
        stopped = stopped => judge(stopped),
        () = signals.next_stop_after(SAME_SIGNAL) => {
            Err(Failure::new("stopped at once, at the second signal"))
        }
    }
}

/// systemd's `Type=notify`: whoever has started us may wait for this.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// What to say and which code to leave with when the server has stopped by itself.
fn judge(stopped: Result<Result<(), Stopped>, tokio::task::JoinError>) -> Result<(), Failure> {
    match stopped {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stopped)) => Err(Failure {
            text: format!("Error: {stopped}."),
            code: EX_IOERR,
        }),
        Err(_) => Err(Failure::new("a part of the server failed while stopping")),
    }
}

/// How often the configuration is looked at for changes, with `--watch`.
const GLANCE_INTERVAL: Duration = Duration::from_secs(2);
/// How often the files of TLS are looked at for changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Whoever signals a process and its group (`timeout`, some supervisors) means one signal by two.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use server::config::{self, FileAccess, QuicConfig};

    use super::*;

    #[test]
    fn the_way_in_that_is_shown_is_one_that_works() {
        let shown = |has_tls, wants_certificate, wants_login| {
            what_next(&Door {
                address: "0.0.0.0:8883".parse().unwrap(),
                has_tls,
                wants_certificate,
                wants_login,
            })
        };
        assert!(shown(false, false, false).contains(" sub -p 8883 -t 'hello/#' -v"));
        let tls = shown(true, false, false);
        assert!(tls.contains(" pub -h NAME -p 8883 --cafile CA.PEM -t hello"));
        assert!(shown(false, false, true).contains(" sub -p 8883 -u USER --ask-password -t"));
        let certificate = shown(true, true, false);
        let flags = " --cafile CA.PEM --cert CERTIFICATE.PEM --key KEY.PEM -t hello/world";
        assert!(certificate.contains(flags), "{certificate}");
    }

    #[test]
    fn the_tools_are_told_how_to_reach_the_listener() {
        let cases = [
            ("127.0.0.1:1883", ""),
            ("127.0.0.1:1884", " -p 1884"),
            ("127.0.0.2:1885", " -h 127.0.0.2 -p 1885"),
            ("0.0.0.0:1883", ""),
            ("192.0.2.1:1883", " -h 192.0.2.1"),
            ("[::1]:1890", " -p 1890"),
        ];
        for (address, flags) in cases {
            assert_eq!(connect_flags(address.parse().unwrap()), flags, "{address}");
        }
    }

    /// The configuration in the guides is right, and in docs/configuration.md says that it shows defaults, but for what
    /// it names.
    #[test]
    fn the_configuration_in_the_guides_is_true() {
        let guides = [
            include_str!("../../../README.md"),
            include_str!("../../../docs/state.md"),
            include_str!("../../../docs/listeners.md"),
            include_str!("../../../docs/configuration.md"),
            include_str!("../../../docs/users.md"),
            include_str!("../../../docs/rights.md"),
        ];
        let blocks = guides
            .iter()
            .flat_map(|guide| guide.split("```toml\n").skip(1));
        let blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
        let mut parsed = blocks.map(|text| config::parse(text, "guide.md".as_ref()).unwrap());
        let first = parsed.next().unwrap();
        assert_eq!(first.authentication.anonymous, AnonymousPolicy::Never);
        let levels = parsed.next().unwrap().storage.levels;
        assert_eq!(levels.len(), 3, "the example of levels");
        let listeners = parsed.next().unwrap().listeners;
        assert!(listeners.iter().all(|of| of.tls.is_some()), "those of TLS");
        let web = parsed.next().unwrap().listeners;
        let urls: Vec<_> = web.iter().map(|of| url(&of.address, of)).collect();
        let expected = ["ws://127.0.0.1:8083/mqtt", "wss://127.0.0.1:8084/mqtt"];
        assert_eq!(urls, expected);
        let quic = parsed.next().unwrap().listeners;
        assert_eq!(url(&quic[0].address, &quic[0]), "quic://127.0.0.1:14567");
        assert_eq!(quic[0].quic, QuicConfig::default());
        let all = parsed.next().unwrap().listeners;
        assert!(all[0].sniff && all[0].tls.is_some());
        let asking = parsed.next().unwrap();
        let links = |number: usize| asking.listeners[number].links(&asking.authentication);
        assert_eq!(links(0), [Link::Certificate, Link::Tokens]);
        assert_eq!(links(1), [Link::Scram, Link::Passwords]);
        let called = parsed.next().unwrap().listeners;
        assert!(called[0].client_id_from_user);
        let mounted = parsed.next().unwrap().listeners;
        assert_eq!(mounted[0].mount_point.as_deref(), Some("sites/north/"));
        let local = parsed.next().unwrap().listeners;
        assert_eq!(
            url(&local[0].address, &local[0]),
            "unix:/run/vencejo/mqtt.sock"
        );
        assert_eq!(local[0].file.mode, FileAccess::default().mode);
        let opened = parsed.next().unwrap().listeners;
        assert_eq!(opened[0].address.to_string(), "activation:mqtt");
        let mut config = parsed.next().unwrap();
        assert_eq!(config.listeners.len(), 2);
        assert_eq!(config.shards.get(), 4);
        assert!(config.stop.server_reference.is_some());
        let defaults = Config::default();
        config.listeners.clone_from(&defaults.listeners);
        config.shards = defaults.shards;
        let disk_low_bytes = config.storage.disk_low_bytes();
        assert_eq!(disk_low_bytes, defaults.storage.disk_low_bytes());
        config.storage.disk_low_bytes = None;
        config.stop = defaults.stop.clone();
        assert_eq!(config, defaults);
        let http = parsed.next().unwrap().authentication.http.unwrap();
        assert_eq!(http.asks, config::AskConfig::default());
        let authorization = parsed.next().unwrap().authorization.unwrap();
        assert_eq!(authorization.rules.len(), 3);
        assert!(authorization.rules[1].is_first);
        assert!(authorization.acl_file.is_some());
        let authentication = parsed.next().unwrap().authentication;
        assert_ne!(
            authentication.client_ids,
            defaults.authentication.client_ids
        );
    }

    #[test]
    fn an_open_door_is_called_one() {
        let links = [Link::Tokens, Link::Passwords];
        let open = who_gets_in(Some([0, 0, 0, 0].into()), AnonymousPolicy::Always, &links);
        assert!(open.contains("NO PASSWORD"));
        let loopback = Some([127, 0, 0, 1].into());
        let local = who_gets_in(loopback, AnonymousPolicy::Loopback, &links);
        assert_eq!(local, "no password, only from this machine");
        let users = who_gets_in(loopback, AnonymousPolicy::Never, &links);
        assert_eq!(users, "users only, by tokens, passwords");
    }
}
