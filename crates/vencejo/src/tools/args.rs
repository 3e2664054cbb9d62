//! The flags of `pub` and `sub`, those that `rr` has, too, and what they mean for the connection.
//!
//! Owns: the clap tables, checks across flags, [`ConnectionArgs::connection`].
//! Does not own: properties (see `properties`). Start reading at [`PubArgs`].
//! Invariant: a flag means here what it means to mosquitto; `-h` is the host.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, FromArgMatches as _};
use client::{Options, PacketLog, ScramSha256, Token};
use proto::packet::{ConnectProperties, Will, WillProperties};
use proto::{Qos, Secret, Version, topic};

use super::Failure;
use super::called;
use super::login::LoginArgs;
use super::options_file::OptionsFileArgs;
use super::packet_log;
use super::profiles::Profile;
use super::properties::Properties;
use super::tls::TlsArgs;
use super::url::{Scheme, Url, parse_proxy, parse_url};

/// Publish a message: `vencejo pub -t topic -m message`
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub(crate) struct PubArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) options: OptionsFileArgs,
    /// Topic to publish to
    #[arg(short = 't', long, allow_hyphen_values = true)]
    pub(crate) topic: Option<String>,
    #[command(flatten)]
    pub(crate) payload: PayloadArgs,
    /// Send each line of standard input as a message
    #[arg(short = 'l', long, alias = "multiline")]
    pub(crate) stdin_line: bool,
    /// Retain the message
    #[arg(short = 'r', long)]
    pub(crate) retain: bool,
    /// Quality of Service: 0, 1 or 2
    #[arg(short = 'q', long, default_value = "0", allow_hyphen_values = true)]
    pub(crate) qos: String,
    /// How many QoS 1 and 2 messages may wait for their acknowledgement
    #[arg(short = 'M', long, default_value_t = 20)]
    pub(crate) max_inflight: usize,
    /// With -f, -m, -n or -s: publish this many times
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    pub(crate) repeat: u64,
    /// With --repeat: seconds between two messages
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_delay)]
    pub(crate) repeat_delay: Duration,
}

/// Subscribe and print what comes: `vencejo sub -t 'topic/#' -v`
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub(crate) struct SubArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) options: OptionsFileArgs,
    /// Topic filter to subscribe to; may be repeated
    #[arg(short = 't', long, allow_hyphen_values = true)]
    pub(crate) topic: Vec<String>,
    /// Topic filter to unsubscribe from; may be repeated
    #[arg(short = 'U', long, allow_hyphen_values = true)]
    pub(crate) unsubscribe: Vec<String>,
    /// Do not print messages that match this filter; may be repeated
    #[arg(short = 'T', long, allow_hyphen_values = true)]
    pub(crate) filter_out: Vec<String>,
    /// Maximum Quality of Service: 0, 1 or 2, one for all topics or one for each -t [default: 0]
    #[arg(short = 'q', long, allow_hyphen_values = true)]
    pub(crate) qos: Vec<String>,
    /// Print the topic before the payload
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
    /// Print each message in this format, for example '%I %t %p' or '%j'; or json, or its payload as hex, base64, cbor,
    /// msgpack, sparkplug or auto
    #[arg(short = 'F', allow_hyphen_values = true)]
    pub(crate) format: Option<String>,
    /// Print the last message of each topic in a line of its own, over the one before; with -v or -F to see the topic
    #[arg(short = 'w', long)]
    pub(crate) watch: bool,
    /// Print how many messages come in each second, instead of the messages
    #[arg(long)]
    pub(crate) message_rate: bool,
    /// Print JSON (-F %j, %J) over several lines
    #[arg(long)]
    pub(crate) pretty: bool,
    /// Print only about this many of 100 messages, chosen by chance
    #[arg(long, value_name = "PERCENT")]
    pub(crate) random_filter: Option<String>,
    /// Do not end each message with a new line
    #[arg(short = 'N')]
    pub(crate) no_newline: bool,
    /// Leave after this many messages
    #[arg(short = 'C', value_name = "COUNT")]
    pub(crate) count: Option<String>,
    /// Leave after this many seconds, with exit code 27
    #[arg(short = 'W', value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
    /// Leave once the subscriptions are acknowledged
    #[arg(short = 'E')]
    pub(crate) exit_after_subscribe: bool,
    /// Do not print retained messages
    #[arg(short = 'R')]
    pub(crate) no_retained: bool,
    /// Print only retained messages; leave at the first that is not
    #[arg(long)]
    pub(crate) retained_only: bool,
    /// Clear the retained messages that arrive
    #[arg(long)]
    pub(crate) remove_retained: bool,
    /// Keep the RETAIN flag as it was published (5.0)
    #[arg(long)]
    pub(crate) retain_as_published: bool,
    /// When to get retained messages (5.0)
    #[arg(long, value_parser = ["always", "new", "never", "0", "1", "2"], hide_possible_values = true, value_name = "always|new|never", default_value = "always")]
    pub(crate) retain_handling: String,
    /// Do not get what this client published itself (5.0)
    #[arg(long)]
    pub(crate) no_local: bool,
}

/// Where the payload of one message comes from.
#[derive(Args, Clone, Debug)]
pub(crate) struct PayloadArgs {
    /// Payload
    #[arg(short = 'm', long, allow_hyphen_values = true)]
    pub(crate) message: Option<OsString>,
    /// Send the contents of a file
    #[arg(short = 'f', long, alias = "file-read")]
    pub(crate) file: Option<PathBuf>,
    /// Send all of standard input as one message
    #[arg(short = 's', long, alias = "stdin")]
    pub(crate) stdin_file: bool,
    /// Send an empty message
    #[arg(short = 'n', long)]
    pub(crate) null_message: bool,
    /// Send so many bytes, for tests
    #[arg(long, value_name = "BYTES")]
    pub(crate) payload_size: Option<usize>,
}

impl PayloadArgs {
    /// Whether nothing is said.
    pub(crate) const fn is_missing(&self) -> bool {
        self.message.is_none()
            && self.file.is_none()
            && !self.stdin_file
            && !self.null_message
            && self.payload_size.is_none()
    }
}

/// Flags of all tools.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConnectionArgs {
    /// Connect as this profile says where nothing else is said [default: `MQTT_PROFILE` in the environment]; see `vencejo profile`
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Host to connect to [default: localhost]
    #[arg(short = 'h', long, alias = "hostname")]
    pub(crate) host: Option<String>,
    /// Port to connect to [default: 1883, with TLS 8883, over QUIC 14567]
    #[arg(short = 'p', long)]
    pub(crate) port: Option<String>,
    /// Unix socket to connect to, instead of a host and a port
    #[arg(long, value_name = "PATH", conflicts_with_all = ["port", "bind_address"])]
    pub(crate) unix: Option<PathBuf>,
    /// Everything at once: `mqtt://user:password@host:port/topic`, with TLS `mqtts://`, over QUIC `quic://`, over WebSocket `ws://` and `wss://`, whose path is that of the WebSocket; all but the host may be left out
    #[arg(short = 'L', long)]
    pub(crate) url: Option<String>,
    /// WebSocket instead of TCP, as `--protocol ws`, and with TLS `--protocol wss`
    #[arg(long)]
    pub(crate) ws: bool,
    /// What carries the packets, where no URL says so
    #[arg(long, value_name = "PROTOCOL", value_parser = ["mqtt", "mqtts", "ws", "wss", "quic"], conflicts_with_all = ["url", "ws"])]
    pub(crate) protocol: Option<String>,
    /// The path of the WebSocket [default: /mqtt]
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Client identifier [default: the server assigns one]
    #[arg(short = 'i', long, aliases = ["client-id", "identifier"], allow_hyphen_values = true)]
    pub(crate) id: Option<String>,
    /// Client identifier: this prefix and the process id
    #[arg(short = 'I', long, allow_hyphen_values = true)]
    pub(crate) id_prefix: Option<String>,
    /// User name
    #[arg(short = 'u', long, alias = "user", allow_hyphen_values = true)]
    pub(crate) username: Option<String>,
    /// Password (others on this machine can see it; `MQTT_PASSWORD` in the environment is better)
    #[arg(
        short = 'P',
        long = "pw",
        alias = "password",
        allow_hyphen_values = true
    )]
    pub(crate) password: Option<String>,
    #[command(flatten)]
    pub(crate) login: LoginArgs,
    /// Prove user name and password by AUTH (5.0) instead of sending them: SCRAM-SHA-256; or JWT, where the password is a
    /// token
    #[arg(long, value_name = "METHOD", value_parser = [SCRAM, JWT])]
    pub(crate) auth_method: Option<String>,
    /// Protocol version: 5, 3.1.1 or 3.1, in any spelling [default: 5]
    #[arg(short = 'V', long, value_name = "VERSION")]
    pub(crate) protocol_version: Option<String>,
    /// Keep alive in seconds [default: 60]
    #[arg(short = 'k', long, value_name = "SECONDS")]
    pub(crate) keepalive: Option<String>,
    /// Keep the session when the connection ends
    #[arg(short = 'c', long, aliases = ["no-clean"])]
    pub(crate) disable_clean_session: bool,
    /// Seconds the session lives on (5.0); -1 = for ever
    #[arg(short = 'x', long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) session_expiry_interval: Option<String>,
    /// A 5.0 property: COMMAND NAME VALUE, or COMMAND user-property NAME VALUE
    #[arg(short = 'D', long = "property", num_args = 3..=4, value_names = ["COMMAND", "NAME", "VALUE"], action = ArgAction::Append)]
    pub(crate) property: Vec<String>,
    /// Topic of the will
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) will_topic: Option<String>,
    /// Payload of the will
    #[arg(long, alias = "will-message", allow_hyphen_values = true)]
    pub(crate) will_payload: Option<String>,
    /// Quality of Service of the will
    #[arg(long)]
    pub(crate) will_qos: Option<String>,
    /// Retain the will
    #[arg(long)]
    pub(crate) will_retain: bool,
    /// Local address to connect from
    #[arg(short = 'A', value_name = "ADDRESS")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Connect by a SOCKS5 proxy: `socks5h://user:password@host:port`, the port 1080 if none is named
    #[arg(long, value_name = "URL", conflicts_with = "unix")]
    pub(crate) proxy: Option<String>,
    /// Send small packets at once (turns Nagle's algorithm off)
    #[arg(long)]
    pub(crate) nodelay: bool,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Print every packet
    #[arg(short = 'd', long)]
    pub(crate) debug: bool,
    /// Print no errors
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print help
    #[arg(long, short = '?', action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

/// What the flags come to.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) options: Options,
    pub(crate) is_version_chosen: bool,
    pub(crate) properties: Properties,
    /// Topic of the URL.
    pub(crate) url_topic: Option<String>,
}

impl ConnectionArgs {
    /// The flags that connect to `url`, and no others.
    pub(crate) fn of_url(url: &str) -> Self {
        let command = Self::augment_args(clap::Command::new("of_url").disable_help_flag(true));
        let matches = command.get_matches_from(["of_url", "-L", url]);
        let parsed = Self::from_arg_matches(&matches);
        parsed.expect("invariant: -L takes any text, and nothing else is needed")
    }

    /// The same flags for one more connection at the same time: no two have one Client Identifier.
    pub(crate) fn for_second(&self) -> Self {
        let mut second = self.clone();
        second.id = second.id.map(|id| format!("{id}-2"));
        second.id_prefix = second.id_prefix.map(|prefix| format!("{prefix}2-"));
        second
    }

    /// Connects to `server`: a URL, `HOST:PORT` or a host.
    pub(crate) fn name_server(&mut self, server: &str) {
        let port = server.rsplit_once(':').filter(|(host, port)| {
            !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && !host.contains("::")
        });
        match port {
            _ if server.contains("://") => self.url = Some(server.to_owned()),
            Some((host, port)) => {
                self.host = Some(host.trim_matches(['[', ']']).to_owned());
                self.port = Some(port.to_owned());
            }
            None => self.host = Some(server.trim_matches(['[', ']']).to_owned()),
        }
    }

    /// Checks the flags and makes the options. `properties` are this run's -D flags.
    pub(crate) fn connection(
        &self,
        tool: &str,
        properties: Properties,
    ) -> Result<Connection, Failure> {
        match self.profile()? {
            None => self.connection_with(tool, properties, &Profile::default()),
            Some(profile) => self
                .over(&profile)
                .connection_with(tool, properties, &profile),
        }
    }

    fn connection_with(
        &self,
        tool: &str,
        properties: Properties,
        profile: &Profile,
    ) -> Result<Connection, Failure> {
        let usage = |text: &str| Failure::usage(tool, text);
        let version = self.version(tool)?;
        let url = self.place(tool)?;
        let tls = self.tls.tls(tool, url.scheme.is_secure())?;
        let usual = url.scheme.usual_port(tls.is_some());
        let port = self.port(tool, url.port, usual)?;
        let host = self.host.clone().or_else(|| url.host.clone());
        let host = host.unwrap_or_else(|| "localhost".to_owned());
        let client_id = self.client_id(tool, version)?;
        let mut options = Options::new(host, port)
            .version(version)
            .client_id(client_id.clone())
            .clean_start(!self.disable_clean_session)
            .keep_alive_seconds(self.keep_alive(tool)?)
            .properties(self.connect_properties(tool, &properties)?)
            .nodelay(self.nodelay);
        if self.disable_clean_session {
            // A run of this tool has no memory: whatever the Server kept for this name is welcome.
            options = options.session(proto::connection::ClientSession::default());
        }
        let (user_name, password) = self.who(&url, profile)?;
        if password.is_some() && user_name.is_none() && version != Version::V5 {
            return Err(usage("A password needs a user name (-u) before MQTT 5.0."));
        }
        options = match &self.auth_method {
            Some(method) if version == Version::V5 => {
                by_auth(options, method, user_name, password).map_err(usage)?
            }
            Some(_) => return Err(usage("--auth-method needs MQTT 5.0.")),
            None => in_connect(options, user_name, password),
        };
        if let Some(will) = self.will(tool, &properties)? {
            options = options.will(will);
        }
        if let Some(path) = &self.unix {
            options = options.unix(path);
        }
        if let Some(address) = self.bind_address {
            options = options.bind_address(address);
        }
        if let Some(tls) = tls {
            options = options.tls(tls);
        }
        options = self
            .carried(
                options,
                url.scheme,
                self.path.as_deref().or(url.topic.as_deref()),
            )
            .map_err(|text| usage(&text))?;
        if self.debug {
            options = options.packet_log(PacketLog::new(packet_log::printer(client_id, version)));
        }
        // Older versions would have the password sent.
        let is_version_chosen = self.protocol_version.is_some()
            || self.auth_method.is_some()
            || called::tool().is_some();
        Ok(Connection {
            options,
            is_version_chosen,
            properties,
            // Of a URL of WebSocket it is the path.
            url_topic: url
                .topic
                .filter(|_| !matches!(url.scheme, Scheme::Ws | Scheme::Wss)),
        })
    }

    /// What carries the packets: a proxy, WebSocket at this path, QUIC.
    fn carried(
        &self,
        mut options: Options,
        scheme: Scheme,
        path: Option<&str>,
    ) -> Result<Options, String> {
        if let Some(proxy) = &self.proxy {
            if scheme == Scheme::Quic {
                return Err("QUIC does not go by a SOCKS5 proxy.".to_owned());
            }
            options = options.socks5(parse_proxy(proxy)?);
        }
        match scheme {
            Scheme::Ws | Scheme::Wss => {
                let path = path.unwrap_or("mqtt");
                Ok(options.websocket(format!("/{}", path.trim_start_matches('/'))))
            }
            Scheme::Quic if self.unix.is_some() => {
                Err("QUIC does not run over a Unix socket.".to_owned())
            }
            Scheme::Quic => over_quic(options).map_err(str::to_owned),
            Scheme::Mqtt | Scheme::Mqtts if self.path.is_some() => {
                Err("--path is that of a WebSocket: --ws.".to_owned())
            }
            Scheme::Mqtt | Scheme::Mqtts => Ok(options),
        }
    }

    /// The URL, or what other flags say in its place.
    pub(super) fn place(&self, tool: &str) -> Result<Url, Failure> {
        let url = self.url.as_deref().map(parse_url).transpose();
        let mut url = url
            .map_err(|text| Failure::usage(tool, text))?
            .unwrap_or_default();
        if let Some(protocol) = &self.protocol {
            url.scheme = Scheme::named(protocol).unwrap_or_default();
        }
        if self.ws {
            let is_secure = url.scheme.is_secure() || self.tls.is_asked();
            url.scheme = if is_secure { Scheme::Wss } else { Scheme::Ws };
        }
        Ok(url)
    }

    pub(super) fn version(&self, tool: &str) -> Result<Version, Failure> {
        let Some(text) = &self.protocol_version else {
            // mosquitto's pub and sub speak 3.1.1 unless they are told otherwise.
            let is_old = called::tool().is_some_and(|tool| tool != "rr");
            return Ok(if is_old { Version::V311 } else { Version::V5 });
        };
        let wrong = "Invalid protocol version argument given.";
        parse_version(text).ok_or_else(|| Failure::usage(tool, wrong))
    }

    pub(super) fn port(&self, tool: &str, of_url: Option<u16>, usual: u16) -> Result<u16, Failure> {
        match &self.port {
            None => Ok(of_url.unwrap_or(usual)),
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| Failure::usage(tool, format!("Invalid port given: {text}"))),
        }
    }

    fn client_id(&self, tool: &str, version: Version) -> Result<String, Failure> {
        let client_id = match (&self.id, &self.id_prefix) {
            (Some(_), Some(_)) => {
                let text = "-i and -I argument cannot be used together.";
                return Err(Failure::usage(tool, text));
            }
            (Some(id), None) => id.clone(),
            (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
            (None, None) if self.disable_clean_session => {
                let text = "You must provide a client id if you are using the -c option.";
                return Err(Failure::usage(tool, text));
            }
            // MQTT 3.1 has no empty Client Identifier.
            (None, None) if version == Version::V31 => {
                format!("vencejo-{tool}-{}", std::process::id())
            }
            (None, None) => String::new(),
        };
        Ok(client_id)
    }

    pub(super) fn keep_alive(&self, tool: &str) -> Result<u16, Failure> {
        let seconds = self.keepalive.as_deref().unwrap_or("60");
        seconds
            .parse()
            .ok()
            .filter(|seconds| *seconds == 0 || *seconds >= 5)
            .ok_or_else(|| {
                let text =
                    "Invalid keepalive given, it must be between 5 and 65535 inclusive, or 0.";
                Failure::usage(tool, text)
            })
    }

    fn connect_properties(
        &self,
        tool: &str,
        properties: &Properties,
    ) -> Result<ConnectProperties, Failure> {
        let mut connect = properties.connect.clone();
        match self.session_expiry_interval.as_deref() {
            Some("-1" | "∞") => connect.session_expiry_interval_seconds = Some(u32::MAX),
            Some(text) => {
                let seconds = text
                    .parse()
                    .map_err(|_| Failure::usage(tool, "session-expiry-interval not a number."))?;
                connect.session_expiry_interval_seconds = Some(seconds);
            }
            None if self.disable_clean_session => {
                connect
                    .session_expiry_interval_seconds
                    .get_or_insert(u32::MAX);
            }
            None => {}
        }
        Ok(connect)
    }

    fn will(&self, tool: &str, properties: &Properties) -> Result<Option<Will>, Failure> {
        let usage = |text: &str| Failure::usage(tool, text);
        let Some(will_topic) = &self.will_topic else {
            if self.will_payload.is_some() {
                return Err(usage("Will payload given, but no will topic given."));
            }
            if self.will_retain {
                return Err(usage("Will retain given, but no will topic given."));
            }
            if properties.will != WillProperties::default() {
                return Err(usage("Will properties given, but no will topic given."));
            }
            return Ok(None);
        };
        if topic::check_name(will_topic).is_err() {
            let text = format!("Invalid will topic '{will_topic}', does it contain '+' or '#'?");
            return Err(usage(&text));
        }
        let qos = match &self.will_qos {
            Some(text) => {
                parse_qos(text).ok_or_else(|| usage(&format!("Invalid will QoS {text}.")))?
            }
            None => Qos::AtMostOnce,
        };
        Ok(Some(Will {
            topic: will_topic.clone(),
            payload: self.will_payload.clone().unwrap_or_default().into(),
            qos,
            retain: self.will_retain,
            properties: properties.will.clone(),
        }))
    }
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|delay| *delay <= DELAY_MAX)
        .ok_or_else(|| "wanted seconds, like 0.5".to_owned())
}

/// A year; more is a mistake.
const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// QoS as mosquitto spells it.
pub(crate) fn parse_qos(text: &str) -> Option<Qos> {
    text.parse().ok().and_then(Qos::from_level)
}

/// Every spelling in use, of mosquitto, MQTTX and people.
fn parse_version(text: &str) -> Option<Version> {
    match text {
        "mqttv5" | "5" | "5.0" | "v5" => Some(Version::V5),
        "mqttv311" | "311" | "3.1.1" | "v311" | "4" => Some(Version::V311),
        "mqttv31" | "31" | "3.1" | "v31" | "3" => Some(Version::V31),
        _ => None,
    }
}

/// User name and password in CONNECT, as they are.
fn in_connect(options: Options, user_name: Option<String>, password: Option<String>) -> Options {
    let options = match user_name {
        Some(user_name) => options.user_name(user_name),
        None => options,
    };
    match password {
        Some(password) => options.password(Secret::new(password.into_bytes())),
        None => options,
    }
}

/// User name and password proven by this Authentication Method, and not sent.
fn by_auth(
    options: Options,
    method: &str,
    user_name: Option<String>,
    password: Option<String>,
) -> Result<Options, &'static str> {
    let Some(password) = password else {
        return Err("--auth-method needs a password (-P, or MQTT_PASSWORD).");
    };
    let password = Secret::new(password.into_bytes());
    if method == JWT {
        let options = match user_name {
            Some(user_name) => options.user_name(user_name),
            None => options,
        };
        return Ok(options.authenticator(Token::new(move || password.clone())));
    }
    let user_name = user_name.ok_or("--auth-method SCRAM-SHA-256 needs a user name (-u).")?;
    Ok(options.authenticator(ScramSha256::new(user_name, password)))
}

const SCRAM: &str = "SCRAM-SHA-256";
const JWT: &str = "JWT";

#[cfg(feature = "quic")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "a build without QUIC has nothing to give"
)]
fn over_quic(options: Options) -> Result<Options, &'static str> {
    Ok(options.quic())
}

#[cfg(not(feature = "quic"))]
fn over_quic(_: Options) -> Result<Options, &'static str> {
    Err("this build has no QUIC.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_version_is_understood() {
        for text in ["mqttv5", "5", "5.0", "v5"] {
            assert_eq!(parse_version(text), Some(Version::V5), "{text}");
        }
        for text in ["mqttv311", "311", "3.1.1"] {
            assert_eq!(parse_version(text), Some(Version::V311), "{text}");
        }
        for text in ["mqttv31", "31", "3.1"] {
            assert_eq!(parse_version(text), Some(Version::V31), "{text}");
        }
        assert_eq!(parse_version("7"), None);
    }

    #[test]
    fn delays_are_seconds_that_can_be_waited_for() {
        assert_eq!(parse_delay("0.5"), Ok(Duration::from_millis(500)));
        for text in ["-1", "nan", "inf", "1e300", "1e19", "soon", ""] {
            assert!(parse_delay(text).is_err(), "{text}");
        }
    }
}
