//! The step language of the rows: one line, one step, on one of several connections.
//!
//! Owns: splitting a row's text into steps, and the words `connect`, `send`, `expect`, `refused`,
//! `closed`, `silence`, `limit`, `differ`, `disconnect`, `drop`, `version`, `exceed`.
//! Does not own: what bytes mean (see `bytes`), doing the steps (see `runner`).
//! Start reading at [`parse`]. Invariant: a row that parses has no unknown word in it.

use crate::bytes::{self, Atom, Version};
use crate::expectation::Expectation;

/// One step of a row.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The line as written, for the report.
    pub(crate) text: String,
    /// The connection it acts on; `a` where the line names none.
    pub(crate) connection: String,
    /// What is done.
    pub(crate) action: Action,
}

/// What a step does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Sends a CONNECT and expects a CONNACK with code 0.
    Connect(Box<Connect>),
    /// Says which version a connection speaks whose CONNECT is sent as bytes.
    Version(Version),
    /// Sends bytes.
    Send(Vec<Atom>),
    /// Waits for one of these.
    ExpectOne(Vec<Expectation>),
    /// Waits for all of these, in any order.
    ExpectAll(Vec<Expectation>),
    /// Reads over other packets until this one comes.
    ExpectEventually(Expectation),
    /// Sends PINGREQ; the next packet must be PINGRESP.
    Silence,
    /// No packet larger than this may come, in bytes.
    Limit(usize),
    /// These variables, without their `$`, must all have been bound to different values.
    Differ(Vec<String>),
    /// Sends a normal DISCONNECT and waits for the end.
    Disconnect,
    /// Closes the socket without a word.
    Drop,
    /// Sends one QoS 2 PUBLISH more than the announced Receive Maximum allows.
    ExceedReceiveMaximum,
    /// Sends one PUBLISH that is one byte larger than the announced Maximum Packet Size.
    ExceedMaximumPacketSize,
}

/// The `connect` word with what follows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connect {
    /// Another version than the row's.
    pub(crate) version: Option<Version>,
    /// Clean Start (Clean Session) 0.
    pub(crate) resume: bool,
    /// Session Present must be 1.
    pub(crate) present: bool,
    /// Another Client Identifier than the connection's own.
    pub(crate) client_id: Option<Vec<Atom>>,
    /// The Keep Alive, two bytes; 60 s if none.
    pub(crate) keep_alive: Option<Vec<Atom>>,
    /// The property list with its length; MQTT 5.0 only.
    pub(crate) properties: Option<Vec<Atom>>,
    /// The Will.
    pub(crate) will: Option<Will>,
}

/// The Will of a `connect`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Will {
    /// The Will Topic.
    pub(crate) topic: Vec<Atom>,
    /// The Will Payload.
    pub(crate) payload: Vec<Atom>,
    /// Will QoS and Will Retain as they stand in the Connect Flags.
    pub(crate) flags: u8,
    /// The Will Properties with their length; MQTT 5.0 only.
    pub(crate) properties: Option<Vec<Atom>>,
}

/// Reads the steps of a row: one a line, or several with `;` between.
pub(crate) fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for line in text.lines().flat_map(split_at_semicolons) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        steps.push(parse_step(line).map_err(|error| format!("step `{line}`: {error}"))?);
    }
    if steps.is_empty() {
        Err("no steps".to_owned())
    } else {
        Ok(steps)
    }
}

fn split_at_semicolons(line: &str) -> Vec<&str> {
    let mut is_quoted = false;
    line.split(|next| {
        is_quoted ^= next == '\'';
        next == ';' && !is_quoted
    })
    .collect()
}

fn parse_step(line: &str) -> Result<Step, String> {
    let mut tokens = tokens(line)?;
    let mut connection = "a".to_owned();
    if let Some(name) = tokens.first().and_then(|token| token.strip_suffix(':')) {
        connection = name.to_owned();
        tokens.remove(0);
    }
    let (word, rest) = tokens.split_first().ok_or("nothing to do")?;
    let action = match word.as_str() {
        "connect" => Action::Connect(Box::new(parse_connect(rest)?)),
        "version" => Action::Version(Version::parse(&rest.join(" "))?),
        "send" => Action::Send(bytes::parse(&rest.join(" "))?),
        "expect" => parse_expect(rest)?,
        "refused" | "closed" => Action::ExpectOne(vec![Expectation::parse(&tokens)?]),
        "silence" => Action::Silence,
        "limit" => {
            let limit = rest.concat().parse();
            Action::Limit(limit.map_err(|_| "a number of bytes is due".to_owned())?)
        }
        "differ" => Action::Differ(rest.iter().map(|name| name.replacen('$', "", 1)).collect()),
        "disconnect" => Action::Disconnect,
        "drop" => Action::Drop,
        "exceed" => match rest.concat().as_str() {
            "receive-maximum" => Action::ExceedReceiveMaximum,
            "maximum-packet-size" => Action::ExceedMaximumPacketSize,
            other => return Err(format!("nothing called {other:?} to exceed")),
        },
        other => return Err(format!("no such word: {other}")),
    };
    Ok(Step {
        text: line.to_owned(),
        connection,
        action,
    })
}

fn parse_expect(tokens: &[String]) -> Result<Action, String> {
    if let Some((word, rest)) = tokens.split_first()
        && word == "eventually"
    {
        return Ok(Action::ExpectEventually(Expectation::parse(rest)?));
    }
    let has = |separator: &str| tokens.iter().any(|token| token == separator);
    match (has("&"), has("|")) {
        (true, true) => Err("`&` and `|` in one step".to_owned()),
        (true, false) => split_expectations(tokens, "&").map(Action::ExpectAll),
        _ => split_expectations(tokens, "|").map(Action::ExpectOne),
    }
}

fn split_expectations(tokens: &[String], separator: &str) -> Result<Vec<Expectation>, String> {
    tokens
        .split(|token| token == separator)
        .map(Expectation::parse)
        .collect()
}

fn parse_connect(tokens: &[String]) -> Result<Connect, String> {
    let mut connect = Connect::default();
    let mut tokens = tokens.iter();
    while let Some(word) = tokens.next() {
        let mut bytes = || {
            let token = tokens
                .next()
                .ok_or_else(|| format!("nothing after {word}"))?;
            bytes::parse(token)
        };
        match word.as_str() {
            "resume" => connect.resume = true,
            "present" => connect.present = true,
            "as" => connect.client_id = Some(bytes()?),
            "keep" => connect.keep_alive = Some(bytes()?),
            "props" => connect.properties = Some(bytes()?),
            "will" => {
                let (topic, payload) = (bytes()?, bytes()?);
                connect.will = Some(Will {
                    topic,
                    payload,
                    ..Will::default()
                });
            }
            "willprops" => will_of(&mut connect)?.properties = Some(bytes()?),
            "willretain" => will_of(&mut connect)?.flags |= 0x20,
            "willqos1" => will_of(&mut connect)?.flags |= 0x08,
            "willqos2" => will_of(&mut connect)?.flags |= 0x10,
            other => {
                let version = other
                    .strip_prefix('v')
                    .ok_or("no such word after connect")?;
                connect.version = Some(Version::parse(version)?);
            }
        }
    }
    Ok(connect)
}

fn will_of(connect: &mut Connect) -> Result<&mut Will, String> {
    connect
        .will
        .as_mut()
        .ok_or_else(|| "`will` must come first".to_owned())
}

/// Splits a step at its spaces; a quoted text and a bracketed block stay whole.
pub(crate) fn tokens(line: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    let mut is_quoted = false;
    let mut depth = 0_u32;
    for next in line.chars() {
        match next {
            '\'' => is_quoted = !is_quoted,
            '(' | '[' if !is_quoted => depth += 1,
            ')' | ']' if !is_quoted => depth = depth.checked_sub(1).ok_or("a bracket too many")?,
            _ => {}
        }
        if next.is_whitespace() && !is_quoted && depth == 0 {
            if !token.is_empty() {
                tokens.push(std::mem::take(&mut token));
            }
        } else {
            token.push(next);
        }
    }
    if is_quoted || depth > 0 {
        return Err("a quote or bracket is not closed".to_owned());
    }
    if !token.is_empty() {
        tokens.push(token);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_semicolons_both_part_steps() {
        let steps = parse("connect; send 'a;b'\n\n# a remark\nb: closed").unwrap();
        let texts: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
        assert_eq!(texts, ["connect", "send 'a;b'", "b: closed"]);
        assert_eq!(steps[0].connection, "a");
        assert_eq!(steps[2].connection, "b");
    }

    #[test]
    fn quoted_text_and_blocks_stay_whole() {
        let tokens = tokens("publish 'a b' ( 01 s'x y' ) FF").unwrap();
        assert_eq!(tokens, ["publish", "'a b'", "( 01 s'x y' )", "FF"]);
    }

    #[test]
    fn expectations_part_at_bars_or_ampersands_but_not_both() {
        let steps = parse("expect disconnect 81 | suback 0001 8F").unwrap();
        assert!(matches!(&steps[0].action, Action::ExpectOne(list) if list.len() == 2));
        let steps = parse("expect suback 0001 00 & publish retain 'a' 'x'").unwrap();
        assert!(matches!(&steps[0].action, Action::ExpectAll(list) if list.len() == 2));
        assert!(parse("expect closed | puback 0001 & puback 0002").is_err());
    }

    #[test]
    fn connect_takes_its_words_in_any_order() {
        let steps = parse(
            "connect v5 resume present will 'w' 'x' willqos1 willretain as 'c' props ( 21 0001 )",
        )
        .unwrap();
        let Action::Connect(connect) = &steps[0].action else {
            panic!("not a connect")
        };
        assert!(connect.resume && connect.present);
        assert_eq!(connect.version, Some(Version::V5));
        assert_eq!(connect.will.as_ref().map(|will| will.flags), Some(0x28));
        assert!(connect.client_id.is_some() && connect.properties.is_some());
    }

    #[test]
    fn an_unknown_word_is_an_error_that_shows_the_step() {
        let error = parse("connect\nsned 00").unwrap_err();
        assert!(error.contains("sned 00") && error.contains("no such word"));
        assert!(
            parse("connect willretain")
                .unwrap_err()
                .contains("must come first")
        );
        assert!(parse("connect resmue").is_err());
        assert!(parse("").is_err());
    }
}
