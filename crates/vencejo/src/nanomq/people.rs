//! Who gets in by a nanomq.conf, and what one may do.
//!
//! Owns: users with passwords, anonymous clients, rules. Does not own: what of a rule can be kept (see `import::grants`), rules in
//! Erlang (see `emqx::acl`). Start reading at [`let_in`]. Invariant: where something about users is not known, nobody gets in
//! without proof.

use std::fmt::Write as _;

use server::authentication::StoredPassword;

use super::Work;
use crate::emqx::acl;
use crate::emqx::is_name;
use crate::import::grants::{self, Effect, Grant, Order, Topic, Who};
use crate::import::hocon::{self, Key, Value};
use crate::import::rows::Outcome;
use crate::import::target::{Table, Target};

/// Says who gets in, and what one may do.
pub(super) fn let_in(work: &mut Work) {
    let is_unclear = ["auth", "authorization", "authentication", "mqtt"]
        .iter()
        .any(|section| {
            // Rules that cannot be read allow nothing: that is said there.
            let rules = Key::of("auth.acl");
            let section = Key::of(section);
            work.settings.is_hidden(&section) || work.settings.is_unclear_but(&section, &rules)
        });
    let users = passwords(work);
    let asks = by_http(work) || foreign(work);
    anonymous(work, users, is_unclear || asks);
    rules(work);
    no_match(work);
    work.settings.note(
        "$SYS",
        Outcome::Changed,
        "$SYS and what else begins with $ is for those whom a rule names it to",
    );
}

/// Makes a password file of names with passwords in the clear; returns how many there are.
fn passwords(work: &mut Work) -> usize {
    let all = Key::of("auth.password");
    let mut found: Vec<(String, Key)> = Vec::new();
    for name in work.settings.names_below(&all) {
        found.push((name.clone(), all.with(name)));
    }
    // From 0.14 to 0.18.
    for source in work.settings.elements(&Key::of("authorization.sources")) {
        let is_simple = work.settings.text(&source.then("type")) == Some("simple");
        if !is_simple || work.settings.truth(&source.then("enable")) == Some(false) {
            continue;
        }
        work.settings.kept(&source.then("type"), "password_file");
        work.settings.kept(&source.then("enable"), "password_file");
        for user in work.settings.elements(&source.then("users")) {
            if let Some(name) = work
                .settings
                .text(&user.then("username"))
                .map(str::to_owned)
            {
                work.settings.kept(&user.then("username"), "password_file");
                found.push((name, user.then("password")));
            }
        }
    }
    let mut lines = String::new();
    let mut count = 0;
    for (name, at) in found {
        let Some(password) = work.settings.text(&at).map(str::to_owned) else {
            continue;
        };
        if password.is_empty() || !is_name(&name) {
            work.settings.ignored(
                &at,
                "a user needs a password, and a name that can stand in a password file",
            );
            continue;
        }
        match StoredPassword::new(password.as_bytes()) {
            Ok(stored) => {
                // Writing to a text cannot fail.
                writeln!(lines, "{name}:{}", stored.expose()).ok();
                count += 1;
                work.settings
                    .kept(&at, format!("password_file: {name:?}, hashed by argon2id"));
            }
            Err(error) => work.settings.ignored(&at, error),
        }
    }
    if count > 0 {
        let path = work.output.join("nanomq.passwords");
        let path = std::path::absolute(&path).unwrap_or(path);
        work.target
            .authentication
            .text("password_file", path.to_string_lossy());
        let why = "the password file, for its owner only, read at the start and at SIGHUP; the old one is not read any more";
        work.settings
            .note(path.display().to_string(), Outcome::Changed, why);
        work.files.push((path, lines));
    }
    count
}

/// A service that is asked by HTTP; returns whether there is one.
fn by_http(work: &mut Work) -> bool {
    let section = Key::of("auth.http_auth");
    let request = section.then("auth_req");
    let Some(url) = work.settings.text(&request.then("url")).map(str::to_owned) else {
        return false;
    };
    if work.settings.truth(&section.then("enable")) == Some(false) {
        work.settings.all_ignored(&section, "it is not enabled");
        return false;
    }
    let mut table = Table::default();
    table.text("url", &url);
    if url.starts_with("http://") && !crate::emqx::is_here(&url) {
        table.raw("insecure", true);
    }
    work.settings.changed(
        &request.then("url"),
        "[authentication.http]: it is sent client_id, user_name, password and more in JSON, and answers in JSON: docs/users.md says what",
    );
    let at = section.then("timeout");
    match work
        .settings
        .text(&at)
        .and_then(|text| hocon::units::duration_ms(text, 1000))
    {
        Some(ms @ 10..=3_600_000) => {
            table.text("timeout", format!("{ms}ms"));
            work.settings.kept(&at, "timeout");
        }
        _ => work.settings.changed(&at, "timeout: the default"),
    }
    let at = section.then("pool_size");
    match work
        .settings
        .text(&at)
        .and_then(|text| text.parse::<u64>().ok())
    {
        Some(number @ 1..=10_000) => {
            table.raw("at_once", number);
            work.settings.kept(&at, "at_once");
        }
        _ => work.settings.changed(&at, "at_once: the default"),
    }
    let mut alone = Target::default();
    alone.authentication.raw("http", table.inline());
    if let Some(fault) = alone.fault() {
        work.settings
            .all_ignored(&section, &format!("nobody gets in by it: {fault}"));
        return true;
    }
    work.target.authentication.raw("http", table.inline());
    let why = "its answer may say \"administrator\": one question is asked, not two";
    work.settings
        .rest(&section.then("super_req"), Outcome::Ignored, why);
    work.settings.rest(
        &section.then("acl_req"),
        Outcome::Ignored,
        "NanoMQ does not ask it either",
    );
    work.settings
        .rest(&section, Outcome::Ignored, "the question has one form");
    true
}

/// Other sources of users that cannot be asked; returns whether there are any.
fn foreign(work: &mut Work) -> bool {
    let mut is_there = false;
    for source in work.settings.elements(&Key::of("authorization.sources")) {
        let kind = work.settings.text(&source.then("type")).unwrap_or_default();
        let is_known = ["simple", "file"].contains(&kind);
        if work.settings.truth(&source.then("enable")) == Some(false) {
            work.settings.all_ignored(&source, "it is not enabled");
        } else if !is_known {
            is_there = true;
            work.settings.all_ignored(
                &source,
                "nobody gets in by it: it cannot be asked in this form",
            );
        }
    }
    is_there
}

/// Whether clients get in without proof. `is_closed`: something about users is not known.
fn anonymous(work: &mut Work, users: usize, is_closed: bool) {
    let places = [
        "auth.allow_anonymous",
        "mqtt.session.allow_anonymous",
        "mqtt.allow_anonymous",
    ];
    let at = places
        .into_iter()
        .map(Key::of)
        .find(|at| work.settings.has(at));
    let at = at.unwrap_or_else(|| Key::of("auth.allow_anonymous"));
    let is_said = work.settings.has(&at);
    // What is no truth is none.
    let allows = !is_said || work.settings.truth(&at) == Some(true);
    let (word, outcome, why) = match allows {
        _ if is_closed => (
            "never",
            Outcome::Changed,
            "not all that decided is known or asked here",
        ),
        false if users == 0 => (
            "never",
            Outcome::Changed,
            "NanoMQ lets everybody in where there are no users; here nobody gets in until there are some",
        ),
        false => (
            "never",
            Outcome::Kept,
            "users with their passwords get in, and nobody else",
        ),
        true if users > 0 => (
            "always",
            Outcome::Changed,
            "whoever can reach it gets in; who gives a User Name has to prove it, which NanoMQ does not ask for",
        ),
        true => ("always", Outcome::Kept, "whoever can reach it gets in"),
    };
    work.target.authentication.text("anonymous", word);
    let why = format!("anonymous = {word:?}: {why}");
    match (is_said, outcome) {
        (true, Outcome::Kept) => work.settings.kept(&at, why),
        (true, _) => work.settings.changed(&at, why),
        (false, outcome) => work.settings.note(format!("(no {at})"), outcome, why),
    }
}

/// Rules, in their order.
fn rules(work: &mut Work) {
    let acl = Key::of("auth.acl");
    let sources = Key::of("authorization.sources");
    hidden(work, &acl, &sources);
    let mut lists = vec![acl.then("rules")];
    if work.settings.truth(&acl.then("enable")) == Some(false) {
        work.settings.all_ignored(&acl, "it is not enabled");
        lists.clear();
    } else if !work.settings.is_unclear_at(&acl.then("enable")) {
        work.settings
            .kept(&acl.then("enable"), "[[authorization.rules]]");
    }
    for source in work.settings.elements(&sources) {
        let is_file = work.settings.text(&source.then("type")) == Some("file");
        if is_file && work.settings.truth(&source.then("enable")) != Some(false) {
            work.settings
                .kept(&source.then("type"), "[[authorization.rules]]");
            if !work.settings.is_unclear_at(&source.then("enable")) {
                work.settings
                    .kept(&source.then("enable"), "[[authorization.rules]]");
            }
            lists.push(source.then("rules"));
        }
    }
    for list in lists {
        for key in work.settings.elements(&list) {
            rule(work, &key);
        }
    }
    included(work, &acl);
}

/// Where rules may be said that are not known here, nothing is allowed.
fn hidden(work: &mut Work, acl: &Key, sources: &Key) {
    let mut unclear: Vec<Key> = Vec::new();
    for key in [acl, sources] {
        if work.settings.is_hidden(key) {
            unclear.push(key.clone());
        }
    }
    let mut whole = vec![
        acl.clone(),
        acl.then("enable"),
        acl.then("rules"),
        acl.then("rules.include"),
        sources.clone(),
        sources.then("include"),
    ];
    for source in work.settings.elements(sources) {
        // What is not known of a source of users only is said where users are.
        if work.settings.text(&source.then("type")) != Some("simple") {
            whole.extend(
                ["type", "enable", "rules", "rules.include", "include"]
                    .map(|name| source.then(name)),
            );
            whole.push(source);
        }
    }
    unclear.extend(
        whole
            .into_iter()
            .filter(|key| work.settings.is_unclear_at(key)),
    );
    for key in unclear {
        let why = "of the rules that may be said there something is not known: nothing is allowed";
        match work.settings.is_unclear_at(&key) {
            true => work.settings.ignored(&key, why),
            false => work
                .settings
                .note(format!("({key})"), Outcome::Ignored, why),
        }
        let why = "rules that are not known";
        work.target.rules.push(grants::nothing(why, false));
    }
}

/// Takes over the rule at `key`.
fn rule(work: &mut Work, key: &Key) {
    if work.settings.is_unclear(key) {
        // Without one that allows, less is allowed; any other one may have denied.
        if work.settings.text(&key.then("permit")) == Some("allow") {
            let why = "of this rule something is not known: it allows nothing";
            return work.settings.all_ignored(key, why);
        }
        let place = work.settings.place(key);
        work.target.rules.push(grants::nothing(&place, false));
        let why = "of this rule something is not known: from here on nothing is allowed";
        return work.settings.all_ignored(key, why);
    }
    match grant(work, key) {
        Ok(grant) => {
            work.settings.rest(key, Outcome::Kept, "a rule, see below");
            grants::take_over(
                &mut work.settings,
                &mut work.target,
                vec![grant],
                Order::default(),
            );
        }
        Err(why) => {
            let why = format!("{why}: NanoMQ takes it for no rule either");
            work.settings.all_ignored(key, &why);
        }
    }
}

/// Rules in a file that is no HOCON.
fn included(work: &mut Work, acl: &Key) {
    let include = acl.then("include");
    let Some(Value::File(path, why)) = work.settings.value(&include).cloned() else {
        return;
    };
    let name = path.file_name().unwrap_or_default().display().to_string();
    let read = hocon::text_of(&path).and_then(|text| match hocon::is_erlang(&text) {
        true => acl::grants(&name, &text).map_err(|fault| fault.to_string()),
        false => Err(why),
    });
    match read {
        Ok(found) => {
            work.settings.kept(&include, "its rules, one by one");
            grants::take_over(
                &mut work.settings,
                &mut work.target,
                found,
                Order::default(),
            );
        }
        Err(why) => {
            let first = why.lines().next().unwrap_or_default();
            work.settings
                .ignored(&include, format!("{first}: nothing is allowed"));
            work.target
                .rules
                .push(grants::nothing("rules that cannot be read", false));
        }
    }
}

/// One rule. Of several that it may be about NanoMQ looks at the first only, in this order.
fn grant(work: &Work, key: &Key) -> Result<Grant, &'static str> {
    let text = |name: &str| work.settings.text(&key.then(name));
    let effect = match text("permit") {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        _ => return Err("permit is neither allow nor deny"),
    };
    let action = match text("action") {
        None | Some("pubsub") => None,
        Some("publish") => Some("publish"),
        Some("subscribe") => Some("subscribe"),
        Some(_) => return Err("action is neither publish, subscribe nor pubsub"),
    };
    let topics = work.settings.texts(&key.then("topics"));
    let topics = match (topics.is_empty(), effect) {
        (false, _) => topics,
        (true, Effect::Allow) => vec!["#".to_owned()],
        (true, Effect::Deny) => vec!["#".to_owned(), "$SYS/#".to_owned()],
    };
    let topics = topics.into_iter().map(|filter| Topic {
        filter,
        is_exact: false,
    });
    Ok(Grant {
        place: work.settings.place(key),
        shown: shown(work, key),
        effect,
        who: who(work, key),
        action,
        topics: topics.collect(),
        qos: Vec::new(),
        retain: None,
    })
}

fn who(work: &Work, key: &Key) -> Who {
    one(work, key, &ORDER).unwrap_or_else(|| {
        for (name, join) in [
            ("and", Who::all_of as fn(Vec<Who>) -> Who),
            ("or", Who::one_of),
        ] {
            let all = work.settings.elements(&key.then(name));
            if !all.is_empty() {
                let all = all.iter().filter_map(|key| one(work, key, &ORDER_WITHIN));
                return join(all.collect());
            }
        }
        Who::everyone()
    })
}

/// `ipaddr`, `ipaddrs`, `username` or `clientid`, of which `#` is everybody; the first of `order` that is there.
fn one(work: &Work, key: &Key, order: &[&str]) -> Option<Who> {
    let all = |of: fn(&str) -> Who, name: &str| match name {
        "#" => Who::everyone(),
        name => of(name),
    };
    let address: fn(&str) -> Who = |name| Who::addresses(&[name.to_owned()]);
    order.iter().find_map(|name| {
        let at = key.then(name);
        if *name == "ipaddrs" {
            let is_there = work.settings.has(&at);
            return is_there.then(|| Who::addresses(&work.settings.texts(&at)));
        }
        let of = match *name {
            "ipaddr" => address,
            "username" => Who::user,
            _ => Who::client_id,
        };
        work.settings.text(&at).map(|name| all(of, name))
    })
}

/// A rule in one line.
fn shown(work: &Work, key: &Key) -> String {
    let mut parts = Vec::new();
    for name in work.settings.names_below(key) {
        let at = key.with(&name);
        match work.settings.value(&at) {
            Some(Value::Text(text)) => parts.push(format!("{name}: {text}")),
            Some(Value::List(all)) => parts.push(format!("{name}: [{}]", all.join(", "))),
            _ => parts.push(format!("{name}: ...")),
        }
    }
    format!("{{ {} }}", parts.join(", "))
}

/// What is allowed where no rule says anything.
fn no_match(work: &mut Work) {
    let places = ["auth.no_match", "authorization.no_match"];
    let at = places
        .into_iter()
        .map(Key::of)
        .find(|at| work.settings.has(at));
    let at = at.unwrap_or_else(|| Key::of("auth.no_match"));
    let is_said = work.settings.has(&at);
    let denies = is_said
        && work
            .settings
            .text(&at)
            .is_none_or(|word| !word.eq_ignore_ascii_case("allow"));
    // With NanoMQ it is asked where there are rules only, or a word that says no.
    let why = if denies {
        // Of the rules that are written there may be none left, and where there is none everything is allowed.
        if work.target.rules.is_empty() {
            work.target
                .rules
                .push(grants::nothing("no_match = deny", false));
        }
        "what no rule allows is denied"
    } else {
        work.target
            .rules
            .push(grants::everything("no_match = allow"));
        "a last rule allows everything but what begins with $"
    };
    match is_said {
        true => work.settings.kept(&at, why),
        false => work.settings.note(format!("(no {at})"), Outcome::Kept, why),
    }
    for section in ["auth", "authorization"] {
        grants::denials(&mut work.settings, &Key::of(section));
    }
}

/// In which NanoMQ looks for whom a rule is about.
const ORDER: [&str; 4] = ["ipaddr", "ipaddrs", "username", "clientid"];
/// The same within `and` and `or`.
const ORDER_WITHIN: [&str; 4] = ["clientid", "username", "ipaddr", "ipaddrs"];
