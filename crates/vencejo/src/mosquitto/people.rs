//! Who gets in by a mosquitto.conf, and what they may do.
//!
//! Owns: anonymous clients, ACL files, plugins. Does not own: listeners (see `doors`), `passwords`, the form of ACL and
//! dynamic security files (see `acl`, `dynsec`). Start reading at [`let_in`]. Invariant: what decided and cannot be asked any
//! more lets nobody in.

use std::path::Path;

use super::doors::Opened;
use super::lines::Line;
use super::translate::Work;
use super::{acl, dynsec, passwords};
use crate::import::rows::Outcome;
use crate::import::target::Table;

/// What lines say of some listeners.
#[derive(Debug, Default)]
struct Said<'l> {
    anonymous: Option<&'l Line>,
    passwords: Option<&'l Line>,
    acl: Option<&'l Line>,
    /// A plugin decides that is not there.
    is_decided_elsewhere: bool,
}

/// Whether a line is about users and rights.
pub(super) fn is_about_people(word: &str) -> bool {
    PEOPLE.contains(&word)
        || ["auth_opt_", "plugin_opt_"]
            .iter()
            .any(|of| word.starts_with(of))
}

/// Says who gets in.
pub(super) fn let_in(work: &mut Work, broker: &[Line], opened: &[Opened], folder: &Path) {
    let of_broker: Vec<Line> = broker
        .iter()
        .filter(|line| is_about_people(&line.word))
        .cloned()
        .collect();
    let mut doors = Vec::new();
    let mut acls: Vec<(&Opened, Option<&Line>)> = Vec::new();
    if work.per_listener {
        for door in opened {
            let mut dynamic = String::new();
            let names = Some(door.names.as_slice());
            let said = plugins_and_more(work, &door.options, names, &mut dynamic);
            let anonymous = anonymous(work, &said, door.is_local_only);
            for place in &door.places {
                if let Some(listener) = work.target.listeners.get_mut(*place) {
                    listener.text("anonymous", anonymous);
                }
            }
            doors.push(passwords::Door {
                places: door.places.clone(),
                file: said.passwords,
                dynamic,
                is_by_certificate: door.names_users,
            });
            acls.push((door, said.acl));
        }
        acls_of_listeners(work, &acls);
    } else {
        let mut dynamic = String::new();
        let said = plugins_and_more(work, &of_broker, None, &mut dynamic);
        let is_local_only = opened.iter().all(|door| door.is_local_only);
        let anonymous = anonymous(work, &said, is_local_only);
        work.target.authentication.text("anonymous", anonymous);
        doors.push(passwords::Door {
            places: opened.iter().flat_map(|door| door.places.clone()).collect(),
            file: said.passwords,
            dynamic,
            is_by_certificate: false,
        });
        if let Some(line) = said.acl {
            work.target.authorization.text("acl_file", &line.value);
            work.kept_file(line, "authorization.acl_file");
        }
    }
    passwords::take_over(work, &doors, folder);
    if let Some(prefix) = &work.prefix {
        // Behind the rules for some, for the first that is about a client decides.
        let mut rule = Table::default();
        rule.text("name", format!("clientid_prefixes {prefix}"));
        rule.texts("patterns", &[work.open_pattern()]);
        work.target.client_ids.push(rule);
    }
    links(work, opened);
    if work.target.authorization.is_empty() && work.target.rules.is_empty() {
        work.note(
            "$SYS",
            Outcome::Changed,
            "$SYS is for administrators (vencejo user add NAME --admin), and for clients of this machine until there are users",
        );
    }
}

/// Plugins, and what is said beside them.
fn plugins_and_more<'l>(
    work: &mut Work,
    lines: &'l [Line],
    listeners: Option<&[String]>,
    dynamic: &mut String,
) -> Said<'l> {
    let mut said = Said::default();
    for line in lines {
        match line.word.as_str() {
            "allow_anonymous" => said.anonymous = Some(line),
            "password_file" => said.passwords = Some(line),
            "acl_file" => said.acl = Some(line),
            "psk_file" => work.ignored(line, "TLS is there with certificates only, not with PSK"),
            "plugin" | "auth_plugin" | "global_plugin" | "plugin_load" => {
                if !line.value.contains("dynamic_security") {
                    said.is_decided_elsewhere = true;
                    work.ignored(
                        line,
                        "plugins are not asked: see docs/users.md for databases, HTTP and tokens",
                    );
                } else if let Err(why) = dynamic_security(work, line, lines, listeners, dynamic) {
                    said.is_decided_elsewhere = true;
                    work.ignored(line, format!("{why}: nobody gets in by it"));
                }
            }
            "allow_zero_length_clientid" if line.truth() == Some(false) => {
                work.changed(line, "a client without an identifier is given one");
            }
            "allow_zero_length_clientid" => work.kept(line, "as always here"),
            "auto_id_prefix" => work.changed(line, "identifiers that are given have no prefix"),
            word if word.ends_with("opt_config_file") => {}
            _ => work.ignored(line, "of a plugin"),
        }
    }
    said
}

fn dynamic_security(
    work: &mut Work,
    plugin: &Line,
    lines: &[Line],
    listeners: Option<&[String]>,
    dynamic: &mut String,
) -> Result<(), String> {
    let file = lines
        .iter()
        .find(|line| line.word.ends_with("opt_config_file"));
    let file = file.ok_or("there is no plugin_opt_config_file")?;
    let text =
        std::fs::read_to_string(&file.value).map_err(|error| format!("{}: {error}", file.value))?;
    let known =
        dynsec::read(&text, listeners).map_err(|error| format!("{}: {error}", file.value))?;
    work.changed(
        plugin,
        "its users and rules are taken over as they are now; vencejo user and rules change them",
    );
    let (users, rules) = (known.users, known.rules.len());
    work.changed(
        file,
        format!("{users} users as password_file, {rules} rules"),
    );
    for left_out in known.left_out {
        work.note("dynamic security", Outcome::Ignored, left_out);
    }
    dynamic.push_str(&known.passwords);
    work.target.client_ids.extend(known.client_ids);
    work.target.rules.extend(known.rules);
    Ok(())
}

fn anonymous(work: &mut Work, said: &Said<'_>, is_local_only: bool) -> &'static str {
    let allowed = said.anonymous.and_then(Line::truth);
    let word = match allowed {
        _ if said.is_decided_elsewhere => "never",
        Some(true) => "always",
        Some(false) => "never",
        None if is_local_only => "loopback",
        None => "never",
    };
    match said.anonymous {
        Some(line) if allowed == Some(true) && said.is_decided_elsewhere => {
            work.changed(
                line,
                "anonymous = \"never\": the plugin that decided is not asked any more",
            );
        }
        Some(line) if allowed == Some(true) => {
            work.kept(line, "anonymous = \"always\": whoever can reach it gets in");
        }
        Some(line) => work.kept(line, "anonymous = \"never\""),
        None if is_local_only => {}
        None => work.note(
            "(no allow_anonymous)",
            Outcome::Kept,
            "anonymous = \"never\", as mosquitto 2 has it where there is a listener",
        ),
    }
    word
}

/// The ACL files of listeners, each for its own.
fn acls_of_listeners(work: &mut Work, acls: &[(&Opened, Option<&Line>)]) {
    if acls.iter().all(|(_, line)| line.is_none()) {
        return;
    }
    for (door, line) in acls {
        let Some(line) = line else {
            let name = "a listener without an acl_file".to_owned();
            work.target
                .rules
                .push(acl::everything(&name, None, &door.names));
            continue;
        };
        let file = Path::new(&line.value);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let rules = std::fs::read_to_string(file)
            .map_err(|error| error.to_string())
            .and_then(|text| acl::rules(&text, &name, &door.names));
        match rules {
            Ok(rules) => {
                work.changed(
                    line,
                    format!("{} [[authorization.rules]] for this listener", rules.len()),
                );
                work.target.rules.extend(rules);
            }
            Err(why) => {
                let mut nothing = Table::default();
                nothing.text("name", format!("{name} cannot be read"));
                nothing.text("effect", "deny");
                nothing.texts("topics", &["#"]);
                nothing.texts("listeners", &door.names);
                work.target.rules.push(nothing);
                work.ignored(line, format!("{why}: nothing is allowed at this listener"));
            }
        }
    }
}

/// Whom listeners ask, where they do not ask the same.
fn links(work: &mut Work, opened: &[Opened]) {
    if !opened.iter().any(|door| door.names_users) {
        return;
    }
    for door in opened {
        let links: &[&str] = match door.names_users {
            true => &["certificate"],
            false => &["scram", "passwords"],
        };
        for place in &door.places {
            if let Some(listener) = work.target.listeners.get_mut(*place) {
                listener.texts("authentication", links);
            }
        }
    }
}

/// Options about users and rights, which `per_listener_settings` makes those of a listener.
const PEOPLE: [&str; 12] = [
    "acl_file",
    "allow_anonymous",
    "allow_zero_length_clientid",
    "auth_plugin",
    "auth_plugin_deny_special_chars",
    "auto_id_prefix",
    "global_plugin",
    "password_file",
    "plugin",
    "plugin_load",
    "plugin_use",
    "psk_file",
];
