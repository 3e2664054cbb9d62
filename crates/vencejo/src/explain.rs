//! `vencejo explain`: what a Client would be allowed, and which rule says so.
//!
//! Owns: its flags and what it prints. Does not own: the rules (see `server::authorization`).
//! Start reading at [`run`]. Invariant: it asks the rules that a server with this file would ask.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use proto::Qos;
use proto::topic::{check_filter, check_name};
use serde_json::json;
use server::authentication::{AnonymousPolicy, Identity, Tokens, Users};
use server::authorization::{self, Principal, Request, Subject};
use server::config::{Config, Link, ListenerConfig};
use server::outbound::Outbound;

use crate::config::sources::FileArgs;
use crate::serve::{self, EX_CONFIG};
use crate::tools::Failure;

/// Say what a client may do, and which rule decides; exit code 1 if it may not
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Its user, as if proven [default: anonymous]
    #[arg(short = 'u', long, value_name = "NAME")]
    user: Option<String>,
    /// A file with a JSON Web Token that it shows, which is verified: for its user, groups and rights
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "group", "attribute", "administrator"])]
    token: Option<PathBuf>,
    /// Its Client Identifier
    #[arg(short = 'i', long, value_name = "ID", default_value = "client")]
    client_id: String,
    /// A group of its user, beside those that the data folder knows; may be repeated
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// What else is known of its user; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_attribute)]
    attribute: Vec<(String, String)>,
    /// Its user is an administrator
    #[arg(long)]
    administrator: bool,
    /// Where it connects from
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    address: IpAddr,
    /// The name of the listener it connects to [default: the first]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    wish: Wish,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', global = true, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum Wish {
    /// To connect with its Client Identifier
    Connect,
    /// To publish to a topic
    Publish {
        /// Topic Name
        #[arg(value_parser = parse_topic)]
        topic: String,
        /// At this QoS
        #[arg(short = 'q', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
        qos: u8,
        /// To be retained
        #[arg(short = 'r', long)]
        retain: bool,
    },
    /// To subscribe to a filter
    Subscribe {
        /// Topic Filter
        #[arg(value_parser = parse_filter)]
        filter: String,
    },
    /// To be sent what was published to a topic
    Receive {
        /// Topic Name
        #[arg(value_parser = parse_topic)]
        topic: String,
    },
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("wanted NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn parse_topic(text: &str) -> Result<String, String> {
    let checked = check_name(text).map_err(|malformed| malformed.to_string());
    checked.map(|()| text.to_owned())
}

fn parse_filter(text: &str) -> Result<String, String> {
    let checked = check_filter(text).map_err(|malformed| malformed.to_string());
    checked.map(|_| text.to_owned())
}

/// Prints the decision.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let wrong = |text: String| Failure {
        text,
        code: EX_CONFIG,
    };
    let config = args.file.read()?;
    let (text, is_allowed) = explain(args, &config).map_err(wrong)?;
    if args.json {
        let said: Vec<&str> = text.lines().collect();
        let value = json!({ "allowed": is_allowed, "said": said });
        serve::print(&format!("{value}\n"));
    } else {
        serve::print(&text);
    }
    if is_allowed {
        Ok(())
    } else {
        Err(Failure {
            text: String::new(),
            code: 1,
        })
    }
}

/// The decision in words, and whether it is yes.
fn explain(args: &ExplainArgs, config: &Config) -> Result<(String, bool), String> {
    let users = Users::open(&config.storage.data).map_err(|error| error.to_string())?;
    let users = users.accounts();
    let has_users = users.is_some() || config.authentication.knows_users();
    let rules = authorization::rules(config, has_users).map_err(|error| error.to_string())?;
    let known = args.user.as_deref().zip(users.as_ref());
    let known = known.and_then(|(name, users)| users.find(name));
    let shown = args.token.as_deref().map(|file| identity_of(file, config));
    let shown = shown.transpose()?;
    let known = shown
        .as_ref()
        .or_else(|| known.map(|account| &account.identity));
    let listener = listener(args, config)?;
    let principal = principal(args, known, listener)?;
    if shown.is_some()
        && !listener
            .links(&config.authentication)
            .contains(&Link::Tokens)
    {
        let text = format!("denied: listener {:?} asks for no token\n", listener.name);
        return Ok((text, false));
    }
    let client_id = match &principal.user {
        Some(user) if listener.client_id_from_user => user,
        None if listener.client_id_from_user => {
            let text = "denied: here a client is called as its user\n";
            return Ok((text.to_owned(), false));
        }
        _ => args.client_id.as_str(),
    };
    let subject = Subject {
        principal: &principal,
        client_id,
    };
    let request = match &args.wish {
        Wish::Connect => {
            return Ok(connect(args, subject, listener, config));
        }
        // Whatever the rules say.
        Wish::Publish { topic, .. } if topic == "$SYS" || topic.starts_with("$SYS/") => {
            return Ok(("denied: $SYS is the Server's\n".to_owned(), false));
        }
        Wish::Publish { topic, qos, retain } => Request::Publish {
            topic,
            qos: Qos::from_level(*qos).unwrap_or_default(),
            retain: *retain,
        },
        Wish::Subscribe { filter } => Request::Subscribe { filter },
        Wish::Receive { topic } => Request::Receive { topic },
    };
    let decision = rules.decide(&rules.applying(subject), subject, request);
    if decision.rule.is_none() && rules.asks_about(request) {
        let text = match args.wish {
            Wish::Receive { .. } => "asked by HTTP: allowed as long as a subscription to it is\n",
            _ => "asked by HTTP: no rule says anything\n",
        };
        return Ok((text.to_owned(), false));
    }
    let said = if decision.is_allowed {
        "allowed"
    } else {
        "denied"
    };
    let mut text = format!("{said}: {}\n", decision.reason());
    if decision.is_allowed && matches!(args.wish, Wish::Subscribe { .. }) {
        text.push_str(&format!(
            "QoS {} at most; what is sent is judged again, by its topic (explain receive)\n",
            decision.qos_max().level()
        ));
    }
    Ok((text, decision.is_allowed))
}

/// Whether it may connect; and, of a user that is not shown to be one, who would be asked.
fn connect(
    args: &ExplainArgs,
    subject: Subject<'_>,
    listener: &ListenerConfig,
    config: &Config,
) -> (String, bool) {
    let Subject {
        principal,
        client_id,
    } = subject;
    let ids = &config.authentication.client_ids;
    if let Some(rule) = ids.refusing(principal, client_id) {
        return (format!("denied: {}\n", rule.name), false);
    }
    if principal.user.is_none() {
        let why = match listener.anonymous(&config.authentication) {
            AnonymousPolicy::Always => None,
            AnonymousPolicy::Loopback if args.address.to_canonical().is_loopback() => None,
            AnonymousPolicy::Loopback => Some("anonymous clients are of this machine"),
            AnonymousPolicy::Never => Some("no anonymous clients"),
        };
        return match why {
            Some(why) => (format!("denied: {why}\n"), false),
            None => ("allowed\n".to_owned(), true),
        };
    }
    let mut text = "allowed\n".to_owned();
    if args.token.is_none() {
        let asked = listener.links(&config.authentication);
        let asked: Vec<_> = asked.into_iter().map(Link::name).collect();
        let asked = asked.join(", ");
        text.push_str(&format!(
            "once one of these has let it in, asked in this order: {asked}\n"
        ));
    }
    (text, true)
}

/// The one it connects to.
fn listener<'a>(args: &ExplainArgs, config: &'a Config) -> Result<&'a ListenerConfig, String> {
    let named = args.listener.as_ref();
    let mut all = config.listeners.iter();
    let found = all.find(|one| named.is_none_or(|name| one.name == *name));
    found.ok_or_else(|| match named {
        Some(name) => format!("error: there is no listener {name:?}"),
        None => "error: there is no listener".to_owned(),
    })
}

/// Whom the token in `file` names, by the keys of `config`.
fn identity_of(file: &Path, config: &Config) -> Result<Identity, String> {
    let Some(tokens) = &config.authentication.tokens else {
        return Err("error: there is no [authentication.tokens] to verify it by".to_owned());
    };
    // Keys that are published are fetched for it.
    let outbound = Outbound::default();
    let [tokens, _] = Tokens::read(tokens, 1, &outbound).map_err(|error| error.to_string())?;
    let token = std::fs::read_to_string(file)
        .map_err(|error| format!("error: {}: {error}", file.display()))?;
    tokens
        .identity_of(token.trim().as_bytes())
        .map_err(|why| format!("error: {}: {why}", file.display()))
}

/// What the flags say, and what is known of a user of the data folder.
fn principal(
    args: &ExplainArgs,
    known: Option<&Identity>,
    listener: &ListenerConfig,
) -> Result<Principal, String> {
    let known = known.cloned().unwrap_or_default();
    let is_nobody = args.user.is_none() && known.user.is_none();
    let (mut groups, mut attributes) = (known.groups, known.attributes);
    groups.extend(args.group.iter().map(|name| Arc::from(name.as_str())));
    let named = args.attribute.iter();
    attributes.extend(named.map(|(name, value)| (name.as_str().into(), value.as_str().into())));
    let is_somebody = !groups.is_empty() || !attributes.is_empty() || args.administrator;
    if is_somebody && is_nobody {
        return Err(
            "error: only a --user has groups, attributes, or is an administrator".to_owned(),
        );
    }
    Ok(Principal {
        user: args.user.as_deref().map(Arc::from).or(known.user),
        groups,
        attributes,
        is_administrator: args.administrator || known.is_administrator,
        address: Some(args.address),
        listener: Some(listener.name.as_str().into()),
        mount_point: None,
        own_rules: known.own_rules,
        is_listed: known.is_listed,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn said(line: &str) -> Result<(String, bool), String> {
        said_beside("", line)
    }

    /// The same with `more` in `[authorization]`.
    fn said_beside(more: &str, line: &str) -> Result<(String, bool), String> {
        let text = r#"
            [[listeners]]
            name = "inside"
            address = "127.0.0.1:1"
            [[listeners]]
            name = "outside"
            address = "127.0.0.1:2"
            [[authentication.client_ids]]
            name = "own names"
            anonymous = false
            patterns = ["${username}-*"]
            [[authorization.rules]]
            name = "no secrets outside"
            effect = "deny"
            topics = ["secret/#"]
            listeners = ["outside"]
            [[authorization.rules]]
            name = "own topics"
            effect = "allow"
            topics = ["${username}/${clientid}/#"]
            qos_max = 1
            retain = false
            [[authorization.rules]]
            effect = "allow"
            actions = ["subscribe"]
            topics = ["secret/#"]
            groups = ["ops"]
            addresses = ["10.0.0.0/8"]
        "#;
        said_by(&format!("[authorization]\n{more}\n{text}"), line)
    }

    fn said_by(text: &str, line: &str) -> Result<(String, bool), String> {
        let config = server::config::parse(text, "test.toml".as_ref()).unwrap();
        let words = ["explain"].into_iter().chain(line.split(' '));
        explain(&Line::try_parse_from(words).unwrap().args, &config)
    }

    #[test]
    fn what_a_service_decides_is_said_and_not_asked() {
        let http = "http = { url = \"https://nowhere.invalid/\" }";
        for (line, text) in [
            (
                "-u ann -i c publish other/x",
                "asked by HTTP: no rule says anything\n",
            ),
            (
                "-u ann -i c subscribe other/#",
                "asked by HTTP: no rule says anything\n",
            ),
            (
                "-u ann -i c receive other/x",
                "asked by HTTP: allowed as long as a subscription to it is\n",
            ),
            (
                "-u ann -i c subscribe $SYS/#",
                "denied: no rule allows it\n",
            ),
        ] {
            assert_eq!(
                said_beside(http, line),
                Ok((text.to_owned(), false)),
                "{line}"
            );
        }
        let (text, is_allowed) = said_beside(http, "-u ann -i c publish ann/c/x").unwrap();
        assert_eq!((text.as_str(), is_allowed), ("allowed: own topics\n", true));
    }

    #[test]
    fn the_decision_is_told_with_its_rule() {
        let subscribing =
            "QoS 2 at most; what is sent is judged again, by its topic (explain receive)\n";
        for (line, is_allowed, text) in [
            (
                "-u ann -i c publish ann/c/x",
                true,
                "allowed: own topics\n".to_owned(),
            ),
            (
                "-u ann -i ann-1 connect",
                true,
                "allowed\nonce one of these has let it in, asked in this order: scram, passwords\n"
                    .to_owned(),
            ),
            (
                "-u ann -i eve-1 connect",
                false,
                "denied: own names\n".to_owned(),
            ),
            (
                "-u ann -i d publish ann/c/x",
                false,
                "denied: no rule allows it\n".to_owned(),
            ),
            (
                "-u ann -i c publish ann/c/x -q 2",
                false,
                "denied: no rule allows it\n".to_owned(),
            ),
            (
                "-u ann -i c publish ann/c/x --retain",
                false,
                "denied: no rule allows it\n".to_owned(),
            ),
            (
                "-u a --group ops --address 10.1.1.1 subscribe secret/+",
                true,
                format!("allowed: rule 3\n{subscribing}"),
            ),
            (
                "-u a --group ops --address 10.1.1.1 --listener outside receive secret/a",
                false,
                "denied: no secrets outside\n".to_owned(),
            ),
            (
                "-u a --administrator publish $SYS/a",
                false,
                "denied: $SYS is the Server's\n".to_owned(),
            ),
            (
                "-u a --administrator receive $SYS/broker/uptime",
                true,
                "allowed: administrators read $SYS\n".to_owned(),
            ),
        ] {
            assert_eq!(said(line), Ok((text, is_allowed)), "{line}");
        }
        assert!(said("--group ops publish a").is_err());
        assert!(said("--token none publish a").is_err());
        assert!(said("--listener nowhere publish a").is_err());
    }

    /// Who is asked is for the listener to say, and who needs no proof.
    #[test]
    fn connecting_is_explained_by_the_listener() {
        let text = r#"
            [authentication]
            http = { url = "https://nowhere.invalid/" }
            [[listeners]]
            name = "all"
            address = "127.0.0.1:1"
            [[listeners]]
            name = "few"
            address = "127.0.0.1:2"
            anonymous = "never"
            authentication = ["http", "passwords"]
            [[listeners]]
            name = "by_name"
            address = "127.0.0.1:3"
            client_id_from_user = true
            authentication = ["passwords"]
            [[authentication.client_ids]]
            name = "own names"
            patterns = ["${username}"]
            anonymous = false
        "#;
        let asked = |links| {
            format!("allowed\nonce one of these has let it in, asked in this order: {links}\n")
        };
        for (line, is_allowed, expected) in [
            (
                "-u ann -i ann connect",
                true,
                asked("scram, passwords, http"),
            ),
            (
                "-u ann -i ann --listener few connect",
                true,
                asked("http, passwords"),
            ),
            (
                "-u ann -i x --listener by_name connect",
                true,
                asked("passwords"),
            ),
            (
                "--listener by_name connect",
                false,
                "denied: here a client is called as its user\n".to_owned(),
            ),
            ("connect", true, "allowed\n".to_owned()),
            (
                "--address 192.0.2.1 connect",
                false,
                "denied: anonymous clients are of this machine\n".to_owned(),
            ),
            (
                "--listener few connect",
                false,
                "denied: no anonymous clients\n".to_owned(),
            ),
        ] {
            assert_eq!(said_by(text, line), Ok((expected, is_allowed)), "{line}");
        }
    }

    #[test]
    fn whoever_decides_on_users_closes_sys_to_others() {
        let line = "--address 127.0.0.1 receive $SYS/broker/uptime";
        let asked = |text| said_by(text, line).map(|(_, is_allowed)| is_allowed);
        assert_eq!(asked(""), Ok(true));
        let http = "[authentication]\nhttp = { url = \"https://a.example\" }\n";
        assert_eq!(asked(http), Ok(false));
    }

    /// A token of `ann` until the year 2100, whose `acl` allows `plant/${username}/#` as `the plant`.
    const TOKEN: [&str; 3] = [
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
        "eyJzdWIiOiJhbm4iLCJleHAiOjQxMDI0NDQ4MDAsImFjbCI6W3siZWZmZWN0IjoiYWxsb3ciLCJ0b3BpY3MiOlsicGxhbnQvJHt1c2VybmFtZX0vIyJdLCJuYW1lIjoidGhlIHBsYW50In1dfQ",
        "Fp7Om64QU2eDAl4xzjO6f9hDa54uwd9X2xY1NgmdlkM",
    ];

    #[test]
    fn rights_in_a_token_are_told_by_their_names() {
        let name = format!("vencejo-explain-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let [key, token, forged] = ["key", "token", "forged"].map(|name| folder.join(name));
        std::fs::write(&key, "a secret that is long enough to be one").unwrap();
        std::fs::write(&token, TOKEN.join(".") + "\n").unwrap();
        std::fs::write(&forged, TOKEN.join(".").replace("fQ", "fR")).unwrap();
        let text = format!(
            "[authentication.tokens]\nkey = {key:?}\nalgorithms = [\"HS256\"]\nrights_claim = \"acl\"\n"
        );
        let mut config = server::config::parse(&text, "test.toml".as_ref()).unwrap();
        let said = |config: &Config, file: &Path, wish: &str| {
            let line = format!("explain --token {} {wish}", file.display());
            explain(&Line::try_parse_from(line.split(' ')).unwrap().args, config)
        };
        let allowed = said(&config, &token, "publish plant/ann/a").unwrap();
        assert_eq!(allowed, ("allowed: token: the plant\n".to_owned(), true));
        let connects = said(&config, &token, "connect").unwrap();
        assert_eq!(connects, ("allowed\n".to_owned(), true));
        assert!(!said(&config, &token, "publish plant/otto/a").unwrap().1);
        assert!(said(&config, &forged, "publish plant/ann/a").is_err());
        assert!(said(&config, &folder, "publish plant/ann/a").is_err());
        config.listeners[0].authentication = Some(vec![Link::Passwords]);
        let expected = "denied: listener \"127.0.0.1:1883\" asks for no token\n".to_owned();
        for wish in ["connect", "publish plant/ann/a"] {
            assert_eq!(said(&config, &token, wish), Ok((expected.clone(), false)));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
