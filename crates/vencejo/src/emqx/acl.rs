//! The rules of an acl.conf.
//!
//! Owns: [`grants`]. Does not own: the form of terms (see `terms`), what of a rule can be kept (see `import::grants`). Start
//! reading at [`grants`]. Invariant: a rule that is not understood is a fault of the whole file, as with EMQX.

use super::terms::{self, Sentence, Term};
use crate::import::grants::{Effect, Grant, Topic, Who};
use crate::import::hocon::Fault;

/// The rules in `text` of the file `name`, in their order.
/// # Errors
/// The file is not made of rules.
pub(crate) fn grants(name: &str, text: &str) -> Result<Vec<Grant>, Fault> {
    let sentences = terms::read(name, text)?;
    let grants = sentences.into_iter().map(|sentence| {
        let place = format!("{name}:{}", sentence.line);
        grant(&place, &sentence)
            .map_err(|why| Fault::of(format!("{place}: {why}: {}", sentence.shown)))
    });
    grants.collect()
}

fn grant(place: &str, sentence: &Sentence) -> Result<Grant, String> {
    let Term::Tuple(parts) = &sentence.term else {
        return Err("wanted {allow, ...} or {deny, ...}".to_owned());
    };
    let effect = match parts.first() {
        Some(Term::Atom(word)) if word == "allow" => Effect::Allow,
        Some(Term::Atom(word)) if word == "deny" => Effect::Deny,
        _ => return Err("a rule begins with allow or deny".to_owned()),
    };
    let mut grant = Grant {
        place: place.to_owned(),
        shown: sentence.shown.clone(),
        effect,
        who: Who::everyone(),
        action: None,
        topics: Vec::new(),
        qos: Vec::new(),
        retain: None,
    };
    match parts.as_slice() {
        [_, Term::Atom(all)] if all == "all" => {
            // To deny all is to deny what begins with $, too.
            let topics: &[&str] = match effect {
                Effect::Allow => &["#"],
                Effect::Deny => &["#", "$SYS/#"],
            };
            let plain = |filter: &&str| Topic {
                filter: (*filter).to_owned(),
                is_exact: false,
            };
            grant.topics = topics.iter().map(plain).collect();
        }
        [_, whom, what, Term::List(topics)] => {
            grant.who = who(whom)?;
            action(what, &mut grant)?;
            grant.topics = topics.iter().map(topic).collect::<Result<_, _>>()?;
        }
        _ => return Err("wanted {allow, who, action, [topics]}".to_owned()),
    }
    Ok(grant)
}

fn who(term: &Term) -> Result<Who, String> {
    let unknown = || Err("this is nobody that a rule can be about".to_owned());
    let parts = match term {
        Term::Atom(all) if all == "all" => return Ok(Who::everyone()),
        Term::Tuple(parts) => parts.as_slice(),
        _ => return unknown(),
    };
    let (Some(Term::Atom(word)), [_, value]) = (parts.first(), parts) else {
        return unknown();
    };
    match (word.as_str(), value) {
        ("user" | "username", Term::Text(name)) => Ok(Who::user(name)),
        ("client" | "clientid", Term::Text(name)) => Ok(Who::client_id(name)),
        ("user" | "username", value) => by_pattern(value, Who::user),
        ("client" | "clientid", value) => by_pattern(value, Who::client_id),
        ("ipaddr", Term::Text(address)) => Ok(Who::addresses(std::slice::from_ref(address))),
        ("ipaddrs", Term::List(all)) => {
            let text = |term: &Term| match term {
                Term::Text(text) => Some(text.clone()),
                _ => None,
            };
            let all: Option<Vec<String>> = all.iter().map(text).collect();
            all.map_or_else(unknown, |all| Ok(Who::addresses(&all)))
        }
        ("and", Term::List(all)) => {
            let all: Result<_, _> = all.iter().map(who).collect();
            Ok(Who::all_of(all?))
        }
        ("or", Term::List(all)) => {
            let all: Result<_, _> = all.iter().map(who).collect();
            Ok(Who::one_of(all?))
        }
        ("client_attr", _) => Ok(Who::Unknown(
            "attributes that EMQX makes are not there".to_owned(),
        )),
        _ => unknown(),
    }
}

/// `{re, "^name$"}`: one that can be nobody else is a name.
fn by_pattern(term: &Term, of: fn(&str) -> Who) -> Result<Who, String> {
    let Term::Tuple(parts) = term else {
        return Err("this is nobody that a rule can be about".to_owned());
    };
    let [Term::Atom(re), Term::Text(pattern)] = parts.as_slice() else {
        return Err("this is nobody that a rule can be about".to_owned());
    };
    if re != "re" {
        return Err("this is nobody that a rule can be about".to_owned());
    }
    let inner = pattern
        .strip_prefix('^')
        .and_then(|rest| rest.strip_suffix('$'));
    let is_name = |name: &&str| {
        name.chars()
            .all(|one| one.is_alphanumeric() || "-_@ ".contains(one))
    };
    Ok(match inner.filter(is_name) {
        Some(name) => of(name),
        None => Who::Unknown(format!("who matches {pattern} cannot be told by a name")),
    })
}

fn action(term: &Term, grant: &mut Grant) -> Result<(), String> {
    let (word, options) = match term {
        Term::Atom(word) => (word, None),
        Term::Tuple(parts) => match parts.as_slice() {
            [Term::Atom(word), options] => (word, Some(options)),
            _ => return Err("wanted publish, subscribe or all".to_owned()),
        },
        _ => return Err("wanted publish, subscribe or all".to_owned()),
    };
    grant.action = match word.as_str() {
        "publish" => Some("publish"),
        "subscribe" => Some("subscribe"),
        "all" | "pubsub" => None,
        _ => return Err("wanted publish, subscribe or all".to_owned()),
    };
    let options: &[Term] = match options {
        None => &[],
        Some(Term::List(all)) => all,
        Some(one) => std::slice::from_ref(one),
    };
    for option in options {
        let Term::Tuple(parts) = option else {
            return Err("wanted {qos, 1} or {retain, true}".to_owned());
        };
        match parts.as_slice() {
            [Term::Atom(word), Term::Number(level @ 0..=2)] if word == "qos" => {
                grant.qos.push(*level);
            }
            [Term::Atom(word), Term::List(levels)] if word == "qos" => {
                for level in levels {
                    let Term::Number(level @ 0..=2) = level else {
                        return Err("a QoS is 0, 1 or 2".to_owned());
                    };
                    grant.qos.push(*level);
                }
            }
            [Term::Atom(word), Term::Atom(value)] if word == "retain" => {
                grant.retain = match value.as_str() {
                    "true" => Some(true),
                    "false" => Some(false),
                    "all" => None,
                    _ => return Err("retain is true, false or all".to_owned()),
                };
            }
            _ => return Err("wanted {qos, 1} or {retain, true}".to_owned()),
        }
    }
    Ok(())
}

fn topic(term: &Term) -> Result<Topic, String> {
    match term {
        Term::Text(text) => Ok(match text.strip_prefix("eq ") {
            Some(exact) => Topic {
                filter: exact.to_owned(),
                is_exact: true,
            },
            None => Topic {
                filter: text.clone(),
                is_exact: false,
            },
        }),
        Term::Tuple(parts) => match parts.as_slice() {
            [Term::Atom(eq), Term::Text(text)] if eq == "eq" => Ok(Topic {
                filter: text.clone(),
                is_exact: true,
            }),
            _ => Err("wanted a topic or {eq, \"topic\"}".to_owned()),
        },
        _ => Err("wanted a topic or {eq, \"topic\"}".to_owned()),
    }
}
