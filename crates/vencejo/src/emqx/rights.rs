//! What one may do by an emqx.conf.
//!
//! Owns: the order of its sources, what is allowed where none says anything. Does not own: rules (see `acl`, `import::grants`),
//! databases and services (see `directories`, `services`). Start reading at [`take_over`]. Invariant: where a source cannot be
//! asked any more, nothing is allowed that it might have denied.

use super::people::Chain;
use super::{Work, acl, directories, services};
use crate::import::grants::{self, Order};
use crate::import::hocon::{self, Key};
use crate::import::rows::Outcome;
use crate::import::target::Table;

/// Says what one may do. `chain` is who is asked at all listeners.
pub(super) fn take_over(work: &mut Work, chain: &Chain) {
    let section = Key::of("authorization");
    superusers(work);
    let all = section.then("sources");
    let mut sources = Sources::default();
    if work.settings.is_unclear(&section) || work.settings.is_hidden(&section) {
        sources.is_cut = true;
    }
    let elements = work.settings.elements(&all);
    if elements.is_empty() && !work.settings.has(&all) {
        default_file(work, &mut sources);
    }
    // What is asked by SQL stands before rules here, but for those that are first.
    let last_of_sql = elements.iter().rposition(|key| {
        let kind = work.settings.text(&key.then("type")).unwrap_or_default();
        ["postgresql", "mysql"].contains(&kind)
            && work.settings.truth(&key.then("enable")) != Some(false)
    });
    for (number, key) in elements.iter().enumerate() {
        sources.is_first = last_of_sql.is_some_and(|last| number < last);
        source(work, chain, key, &mut sources);
    }
    no_match(work, &section, &sources);
    grants::denials(&mut work.settings, &section);
    work.settings.note(
        "$SYS",
        Outcome::Changed,
        "$SYS and what else begins with $ is for those whom a rule names it to",
    );
}

/// Where no source is named, EMQX has one: the acl.conf beside its configuration.
fn default_file(work: &mut Work, sources: &mut Sources) {
    let (outcome, why) = match work.path("${EMQX_ETC_DIR}/acl.conf") {
        Ok(path) if file(work, &path, sources) => (
            Outcome::Kept,
            "acl.conf beside it is read, as EMQX does".to_owned(),
        ),
        Ok(path) => (
            Outcome::Changed,
            format!(
                "nothing is allowed: EMQX reads {} then; put it there, or say authorization.sources = [] if there was none",
                path.display()
            ),
        ),
        Err(why) => {
            sources.is_cut = true;
            (Outcome::Changed, format!("nothing is allowed: {why}"))
        }
    };
    let option = "(no authorization.sources)";
    work.settings.note(option, outcome, why);
}

/// How far sources have been gone through.
#[derive(Debug, Default)]
struct Sources {
    /// One of those before cannot be asked: no more is allowed.
    is_cut: bool,
    is_first: bool,
    asks_http: bool,
}

/// Superusers of EMQX may do everything.
fn superusers(work: &mut Work) {
    let everything = |name: &str| {
        let mut rule = Table::default();
        rule.text("name", name);
        rule.text("effect", "allow");
        rule.texts("topics", &["#", "$SYS/#"]);
        rule.raw("first", true);
        rule
    };
    if !work.superusers.is_empty() {
        let mut rule = everything("superusers of EMQX");
        rule.texts("users", &work.superusers);
        work.target.rules.push(rule);
        let option = format!("is_superuser: {}", work.superusers.join(", "));
        let why = "a rule that allows everything; administrators are made by vencejo user add NAME --admin";
        work.settings.note(option, Outcome::Changed, why);
    }
    if work.has_administrators {
        let mut rule = everything("administrators");
        rule.raw("administrator", true);
        work.target.rules.push(rule);
        work.settings.note(
            "is_superuser",
            Outcome::Kept,
            "an administrator, to whom a rule allows everything",
        );
    }
}

fn source(work: &mut Work, chain: &Chain, key: &Key, sources: &mut Sources) {
    if work.settings.truth(&key.then("enable")) == Some(false) {
        return work.settings.all_ignored(key, "it is not enabled");
    }
    let kind_at = key.then("type");
    let kind = work.settings.text(&kind_at).unwrap_or_default().to_owned();
    let files = work.files.len();
    let link = |name: &str| chain.links.iter().position(|link| *link == name);
    let has_condition = work
        .settings
        .text(&key.then("precondition"))
        .is_some_and(|text| !text.is_empty());
    let made = match kind.as_str() {
        _ if work.settings.is_unclear(key) => {
            Err("of what is said here something is not known".to_owned())
        }
        _ if has_condition => {
            Err("a source is asked about everybody: conditions are not there".to_owned())
        }
        "file" => rules(work, key, sources),
        "http" | "postgresql" | "mysql" if sources.is_cut => {
            Err("what is asked before it is not there".to_owned())
        }
        "http" => services::rights_by_http(work, key).map(|()| sources.asks_http = true),
        "postgresql" | "mysql" => {
            let name = if kind == "mysql" { "mysql" } else { "postgres" };
            match link(name).and_then(|place| chain.keys.get(place)) {
                Some(of) => directories::rights(work, key, &of.clone(), name),
                None => Err(
                    "rights are asked for where users are, and they are not asked for there"
                        .to_owned(),
                ),
            }
        }
        "" => Err("its type is not said".to_owned()),
        other => Err(format!("{other:?} cannot be asked here")),
    };
    match made {
        Ok(()) => {
            work.settings.kept(&kind_at, "[authorization]");
            work.settings.kept(&key.then("enable"), "[authorization]");
            if sources.asks_http {
                // What comes behind it is not asked: where it says nothing, that is no.
                sources.is_cut = true;
            }
        }
        Err(why) => {
            work.files.truncate(files);
            let why = format!("left out: {why}; what is asked behind it allows nothing any more");
            work.settings.all_ignored(key, &why);
            sources.is_cut = true;
        }
    }
}

fn rules(work: &mut Work, key: &Key, sources: &mut Sources) -> Result<(), String> {
    let at = key.then("path");
    let inline = key.then("rules");
    if let Some(text) = work.settings.text(&inline).map(str::to_owned) {
        let grants = acl::grants("rules", &text).map_err(|fault| fault.to_string())?;
        take(work, grants, sources);
        work.settings.kept(&inline, "[[authorization.rules]]");
        return Ok(());
    }
    let written = work
        .settings
        .text(&at)
        .unwrap_or("${EMQX_ETC_DIR}/acl.conf")
        .to_owned();
    let path = work.path(&written)?;
    work.settings.kept(&at, "its rules, one by one");
    file(work, &path, sources);
    Ok(())
}

/// The rules of an acl.conf; one that cannot be read allows nothing. Returns whether it can.
fn file(work: &mut Work, path: &std::path::Path, sources: &mut Sources) -> bool {
    let name = path.file_name().unwrap_or_default().display().to_string();
    let read = hocon::text_of(path).map_err(|error| format!("{}: {error}", path.display()));
    let read = read.and_then(|text| acl::grants(&name, &text).map_err(|fault| fault.to_string()));
    match read {
        Ok(grants) => {
            take(work, grants, sources);
            true
        }
        Err(why) => {
            let first = why.lines().next().unwrap_or_default().to_owned();
            let why = format!("{first}: nothing is allowed, nor by what is asked behind it");
            work.settings.note(name, Outcome::Ignored, why);
            let why = "an acl.conf that cannot be read";
            // It may have denied what is allowed behind it.
            work.target
                .rules
                .push(grants::nothing(why, sources.is_first));
            sources.is_cut = true;
            false
        }
    }
}

fn take(work: &mut Work, grants: Vec<grants::Grant>, sources: &Sources) {
    let order = Order {
        is_first: sources.is_first,
        denies_only: sources.is_cut,
    };
    grants::take_over(&mut work.settings, &mut work.target, grants, order);
}

/// What is allowed where nobody says anything.
fn no_match(work: &mut Work, section: &Key, sources: &Sources) {
    let at = section.then("no_match");
    let is_said = work.settings.has(&at);
    let denies = is_said && work.settings.text(&at) != Some("allow");
    let (outcome, why) = match () {
        () if denies => (Outcome::Kept, "what no rule allows is denied"),
        () if sources.is_cut => (
            Outcome::Changed,
            "what no rule allows is denied: not all that was asked is asked",
        ),
        () => {
            work.target
                .rules
                .push(grants::everything("no_match = allow"));
            (
                Outcome::Kept,
                "a last rule allows everything but what begins with $",
            )
        }
    };
    if work.target.rules.is_empty() && work.target.authorization.is_empty() {
        work.target
            .rules
            .push(grants::nothing("no_match = deny", false));
    }
    match (is_said, outcome) {
        (true, Outcome::Kept) => work.settings.kept(&at, why),
        (true, _) => work.settings.changed(&at, why),
        (false, outcome) => work
            .settings
            .note("(no authorization.no_match)", outcome, why),
    }
}
