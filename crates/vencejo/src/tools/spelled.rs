//! Flags as MQTTX and hivemq's mqtt-cli spell them, which clap cannot read or which mean several of ours.
//!
//! Owns: the table of them. Does not own: our own flags (see `args`). Start reading at [`arguments`]. Invariants: a value of a flag
//! is never taken for a flag, nothing behind `--` is touched, and a program that is called as one of mosquitto's reads
//! its command line as it stands.

use std::ffi::{OsStr, OsString};
use std::iter::Peekable;

use clap::Command;

/// What a spelling comes to.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    /// These words.
    Words(&'static [&'static str]),
    /// This flag, with the value that follows.
    Flag(&'static str),
    /// A property of a packet, with the value that follows.
    Property(&'static str, &'static str),
    /// One that is set; a `0` or `1` that follows says whether it is.
    IsSet(&'static str, &'static str, &'static str),
    /// User Properties of a packet: `name: value` follows.
    Pair(&'static str),
    /// `clean` follows and is JSON, or another word, which is nothing.
    OutputMode,
}

/// The command line in our spelling. `root` knows our flags.
pub(crate) fn arguments(words: Vec<OsString>, root: &Command) -> Vec<OsString> {
    let Some(tool) = words.get(1).and_then(|word| word.to_str()) else {
        return words;
    };
    let Some(command) = root.find_subcommand(tool).filter(|_| TOOLS.contains(&tool)) else {
        return words;
    };
    let tool = tool.to_owned();
    let mut ours = Vec::with_capacity(words.len());
    let mut rest = words.into_iter().peekable();
    ours.extend(rest.next());
    ours.extend(rest.next());
    while let Some(word) = rest.next() {
        if word == "--" {
            ours.push(word);
            ours.extend(rest);
            return ours;
        }
        if let Some(count) = values_of(command, &word) {
            ours.push(word);
            // The second of -D says how many there are.
            for number in 0..count {
                let value = rest.next();
                let is_pair = number == 1 && value.as_deref() == Some(OsStr::new("user-property"));
                ours.extend(value);
                if is_pair {
                    ours.extend(rest.next());
                }
            }
            continue;
        }
        let text = word.to_str().unwrap_or_default();
        let (name, joined) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(OsString::from(value))),
            _ => (text, None),
        };
        match meaning(&tool, name) {
            Some(meaning) => push(&mut ours, meaning, &word, joined, &mut rest),
            None => ours.push(word),
        }
    }
    ours
}

/// How many values follow this flag of ours, if it is one that has some.
fn values_of(command: &Command, word: &OsStr) -> Option<usize> {
    let text = word.to_str()?;
    let found = command.get_arguments().find(|flag| {
        let (long, short) = (text.strip_prefix("--"), text.strip_prefix('-'));
        let is_long = long.is_some_and(|name| {
            let all = flag.get_all_aliases().unwrap_or_default();
            flag.get_long() == Some(name) || all.contains(&name)
        });
        let is_short = short.is_some_and(|name| {
            let mut letters = name.chars();
            flag.get_short() == letters.next() && letters.next().is_none()
        });
        is_long || (is_short && text.len() > 1)
    })?;
    let takes_some = found.get_action().takes_values();
    takes_some.then(|| found.get_num_args().map_or(1, |range| range.min_values()))
}

fn push(
    ours: &mut Vec<OsString>,
    meaning: Meaning,
    word: &OsStr,
    joined: Option<OsString>,
    rest: &mut Peekable<impl Iterator<Item = OsString>>,
) {
    let words =
        |ours: &mut Vec<OsString>, all: &[&str]| ours.extend(all.iter().map(OsString::from));
    match meaning {
        Meaning::Words(all) => words(ours, all),
        Meaning::IsSet(packet, name, set) => {
            let said = joined.or_else(|| rest.next_if(|next| next == "0" || next == "1"));
            // Before the property, which would take it for a value of its own.
            ours.extend(rest.next_if(|next| !next.to_string_lossy().starts_with('-')));
            words(ours, &["-D", packet, name]);
            ours.push(said.unwrap_or_else(|| set.into()));
        }
        Meaning::Flag(flag) => {
            ours.push(flag.into());
            ours.extend(joined.or_else(|| rest.next()));
        }
        // Without its value it is told in the user's own words.
        Meaning::Property(packet, name) => match joined.or_else(|| rest.next()) {
            Some(value) => {
                words(ours, &["-D", packet, name]);
                ours.push(value);
            }
            None => ours.push(word.to_owned()),
        },
        Meaning::Pair(packet) => {
            let pair = joined.or_else(|| rest.next());
            let pair = pair.as_ref().and_then(|pair| pair.to_str());
            match pair.and_then(|pair| pair.split_once([':', '='])) {
                Some((name, value)) => {
                    words(
                        ours,
                        &["-D", packet, "user-property", name.trim(), value.trim()],
                    );
                }
                None => ours.push(word.to_owned()),
            }
        }
        Meaning::OutputMode => {
            let mode = joined.or_else(|| rest.next());
            if mode.is_some_and(|mode| mode == "clean") {
                words(ours, &["-F", "json"]);
            }
        }
    }
}

fn meaning(tool: &str, name: &str) -> Option<Meaning> {
    let found = TABLE
        .iter()
        .find(|(tools, spellings, _)| tools.contains(&tool) && spellings.contains(&name));
    found.map(|(_, _, meaning)| *meaning)
}

const TOOLS: [&str; 3] = ["pub", "sub", "rr"];
const ALL: &[&str] = &TOOLS;
const PUB: &[&str] = &["pub"];
const SUB: &[&str] = &["sub"];
const SENDS: &[&str] = &["pub", "rr"];

type Row = (&'static [&'static str], &'static [&'static str], Meaning);

/// Which tools have it, its spellings, what it means.
const TABLE: &[Row] = &[
    (
        ALL,
        &["-up", "--user-properties", "--userProperty"],
        Meaning::Pair("publish"),
    ),
    (
        ALL,
        &["-Cup", "--conn-user-properties"],
        Meaning::Pair("connect"),
    ),
    (
        ALL,
        &["-se", "--sessionExpiryInterval"],
        Meaning::Flag("--session-expiry-interval"),
    ),
    (ALL, &["--no-cleanStart"], Meaning::Words(&["-c"])),
    (
        ALL,
        &["--rcv-max", "--receive-maximum"],
        Meaning::Property("connect", "receive-maximum"),
    ),
    (
        ALL,
        &["--maximum-packet-size"],
        Meaning::Property("connect", "maximum-packet-size"),
    ),
    (
        ALL,
        &["--topic-alias-maximum"],
        Meaning::Property("connect", "topic-alias-maximum"),
    ),
    (
        ALL,
        &["--req-response-info"],
        Meaning::IsSet("connect", "request-response-information", "1"),
    ),
    (
        ALL,
        &["--no-req-problem-info"],
        Meaning::IsSet("connect", "request-problem-information", "0"),
    ),
    (ALL, &["-pw"], Meaning::Flag("--pw")),
    (ALL, &["-pw:env"], Meaning::Flag("--password-env")),
    (ALL, &["-pw:file"], Meaning::Flag("--password-file")),
    (ALL, &["-ip"], Meaning::Flag("--id-prefix")),
    (ALL, &["-ws"], Meaning::Words(&["--ws"])),
    (ALL, &["-ws:path"], Meaning::Flag("--path")),
    (ALL, &["-Wt"], Meaning::Flag("--will-topic")),
    (ALL, &["-Wm"], Meaning::Flag("--will-payload")),
    (ALL, &["-Wq"], Meaning::Flag("--will-qos")),
    (ALL, &["-Wr"], Meaning::Words(&["--will-retain"])),
    (
        ALL,
        &["-Wd", "--will-delay-interval"],
        Meaning::Property("will", "will-delay-interval"),
    ),
    (
        ALL,
        &["-Wpf", "--will-payload-format-indicator"],
        Meaning::IsSet("will", "payload-format-indicator", "1"),
    ),
    (
        ALL,
        &["-We", "--will-message-expiry-interval"],
        Meaning::Property("will", "message-expiry-interval"),
    ),
    (
        ALL,
        &["-Wct", "--will-content-type"],
        Meaning::Property("will", "content-type"),
    ),
    (
        ALL,
        &["-Wrt", "--will-response-topic"],
        Meaning::Property("will", "response-topic"),
    ),
    (
        ALL,
        &["-Wcd", "--will-correlation-data"],
        Meaning::Property("will", "correlation-data"),
    ),
    (
        ALL,
        &["-Wup", "--will-user-properties"],
        Meaning::Pair("will"),
    ),
    (
        SENDS,
        &["-pf", "--payload-format-indicator"],
        Meaning::IsSet("publish", "payload-format-indicator", "1"),
    ),
    (
        SENDS,
        &["--message-expiry-interval"],
        Meaning::Property("publish", "message-expiry-interval"),
    ),
    (
        SENDS,
        &["-ta", "--topic-alias"],
        Meaning::Property("publish", "topic-alias"),
    ),
    (
        SENDS,
        &["-cd", "--correlation-data"],
        Meaning::Property("publish", "correlation-data"),
    ),
    (
        SENDS,
        &["-ct", "--content-type"],
        Meaning::Property("publish", "content-type"),
    ),
    (
        PUB,
        &["-rt", "--response-topic"],
        Meaning::Property("publish", "response-topic"),
    ),
    (SENDS, &["-m:file"], Meaning::Flag("--file")),
    (SENDS, &["-m:empty"], Meaning::Words(&["--null-message"])),
    (
        SUB,
        &["-si", "--subscription-identifier"],
        Meaning::Property("subscribe", "subscription-identifier"),
    ),
    (SUB, &["-nl", "--no_local"], Meaning::Words(&["--no-local"])),
    (SUB, &["-rap"], Meaning::Words(&["--retain-as-published"])),
    (SUB, &["-rh"], Meaning::Flag("--retain-handling")),
    (SUB, &["--output-mode"], Meaning::OutputMode),
    (SUB, &["-b64"], Meaning::Words(&["-F", "base64"])),
    (SUB, &["-J"], Meaning::Words(&["-F", "json"])),
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::Cli;

    fn spelled(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let ours = arguments(words, &Cli::command());
        let ours: Vec<_> = ours.iter().map(|word| word.to_str().unwrap()).collect();
        ours.join(" ")
    }

    #[test]
    fn every_row_comes_to_something_that_we_understand() {
        for (tools, spellings, _) in TABLE {
            for (tool, spelling) in tools
                .iter()
                .flat_map(|tool| spellings.iter().map(move |spelling| (tool, spelling)))
            {
                let value = match *spelling {
                    "-up"
                    | "--user-properties"
                    | "--userProperty"
                    | "-Cup"
                    | "--conn-user-properties"
                    | "-Wup"
                    | "--will-user-properties" => " k:v",
                    "--no-cleanStart"
                    | "--req-response-info"
                    | "--no-req-problem-info"
                    | "-ws"
                    | "-Wr"
                    | "-Wpf"
                    | "--will-payload-format-indicator"
                    | "-pf"
                    | "--payload-format-indicator"
                    | "-m:empty"
                    | "-nl"
                    | "--no_local"
                    | "-rap"
                    | "-b64"
                    | "-J" => "",
                    "--output-mode" => " clean",
                    _ => " 1",
                };
                let line = spelled(&format!("vencejo {tool} {spelling}{value}"));
                let read = Cli::try_parse_from(line.split(' '));
                assert!(read.is_ok(), "{line}: {}", read.err().unwrap());
                assert!(!line.contains(&format!(" {spelling} ")), "{line}");
            }
        }
    }

    #[test]
    fn what_others_write_is_ours() {
        for (line, ours) in [
            (
                "vencejo pub -t a -m x -up k:v --content-type=text",
                "vencejo pub -t a -m x -D publish user-property k v -D publish content-type text",
            ),
            (
                "vencejo sub -t a -si 7 -rh 2 --output-mode clean",
                "vencejo sub -t a -D subscribe subscription-identifier 7 --retain-handling 2 -F json",
            ),
            // One that is set, and whether; a word that is not the property's.
            (
                "vencejo pub -pf -t a -m x",
                "vencejo pub -D publish payload-format-indicator 1 -t a -m x",
            ),
            (
                "vencejo pub -pf 0 -t a -m x",
                "vencejo pub -D publish payload-format-indicator 0 -t a -m x",
            ),
            (
                "vencejo pub -t a -m x -pf 1",
                "vencejo pub -t a -m x -D publish payload-format-indicator 1",
            ),
            (
                "vencejo pub -pf yes -m x",
                "vencejo pub yes -D publish payload-format-indicator 1 -m x",
            ),
            // Values, other commands, what stands behind --, and what lacks its value.
            ("vencejo pub -m -up -t -J", "vencejo pub -m -up -t -J"),
            (
                "vencejo pub -D publish user-property -up -rt -m x",
                "vencejo pub -D publish user-property -up -rt -m x",
            ),
            (
                "vencejo pub --message -up -rt a",
                "vencejo pub --message -up -D publish response-topic a",
            ),
            ("vencejo sub -t a -- -J", "vencejo sub -t a -- -J"),
            ("vencejo retained ls -J", "vencejo retained ls -J"),
            (
                "vencejo rr -t a --response-topic b -m c",
                "vencejo rr -t a --response-topic b -m c",
            ),
            ("vencejo pub -up", "vencejo pub -up"),
            ("vencejo", "vencejo"),
        ] {
            assert_eq!(spelled(line), ours);
        }
    }
}
