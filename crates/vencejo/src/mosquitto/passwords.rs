//! The password files of a mosquitto.conf: one as it is, or those of several listeners as one.
//!
//! Owns: [`take_over`], who gets in at which listener by them. Does not own: the form of a line (see
//! `server::authentication`). Start reading at [`take_over`]. Invariant: whoever stands in the file of one listener gets in
//! at no other one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::lines::Line;
use super::translate::Work;
use crate::import::rows::Outcome;
use crate::import::target::Table;

/// What is said of the passwords at some listeners.
#[derive(Debug)]
pub(super) struct Door<'l> {
    /// Their places in the target.
    pub(super) places: Vec<usize>,
    pub(super) file: Option<&'l Line>,
    /// Lines of users of dynamic security.
    pub(super) dynamic: String,
    /// Certificates name users there, and no password is asked for.
    pub(super) is_by_certificate: bool,
}

/// Users, by their names; the first password that is found counts.
#[derive(Debug, Default)]
struct Users {
    hashes: BTreeMap<String, String>,
    /// Names that have two passwords.
    doubled: Vec<String>,
}

impl Users {
    /// The names in the lines of a password file.
    fn add(&mut self, text: &str) -> Vec<String> {
        let mut names = Vec::new();
        for line in text.lines().map(str::trim) {
            let Some((name, hash)) = line.split_once(':').filter(|_| !line.starts_with('#')) else {
                continue;
            };
            names.push(name.to_owned());
            let known = self
                .hashes
                .entry(name.to_owned())
                .or_insert_with(|| hash.to_owned());
            if known != hash {
                self.doubled.push(name.to_owned());
            }
        }
        names
    }
}

/// Says which passwords count at which of `doors`; a file that is needed is to be in `folder`.
pub(super) fn take_over(work: &mut Work, doors: &[Door<'_>], folder: &Path) {
    let (by_certificate, asking): (Vec<&Door<'_>>, Vec<&Door<'_>>) =
        doors.iter().partition(|door| door.is_by_certificate);
    for line in by_certificate.iter().filter_map(|door| door.file) {
        work.ignored(line, "certificates name the users of this listener");
    }
    let mut paths: Vec<Option<&str>> = asking
        .iter()
        .map(|door| door.file.map(|line| line.value.as_str()))
        .collect();
    paths.dedup();
    let has_dynamic = asking.iter().any(|door| !door.dynamic.is_empty());
    match paths.as_slice() {
        [] | [None] if !has_dynamic => {}
        [Some(one)] if !has_dynamic => {
            let authentication = &mut work.target.authentication;
            authentication.text("password_file", one);
            // mosquitto before 2.1 cannot read what it would become.
            authentication.raw("password_file_rehash", false);
            for line in asking.iter().filter_map(|door| door.file) {
                work.kept_file(line, "authentication.password_file");
            }
        }
        _ => join(work, &asking, &folder.join("mosquitto.passwords")),
    }
}

/// Makes one file, at `path`, of all.
fn join(work: &mut Work, doors: &[&Door<'_>], path: &Path) {
    let mut users = Users::default();
    let mut rules = Vec::new();
    for door in doors {
        let mut names = users.add(&door.dynamic);
        if let Some(line) = door.file {
            match std::fs::read_to_string(&line.value) {
                Ok(text) => {
                    names.extend(users.add(&text));
                    let why = match work.per_listener {
                        true => {
                            "its users are copied into one file, and get in at this listener only, without /, + or # in their client identifiers"
                        }
                        false => "its users are copied into one file",
                    };
                    work.changed(line, why);
                }
                Err(error) => {
                    work.ignored(
                        line,
                        format!("{}: {error}: none of its users gets in", line.value),
                    );
                }
            }
        }
        if work.per_listener {
            rules.extend(only_these(work, &door.places, &names));
        }
    }
    work.target.client_ids.extend(rules);
    for name in &users.doubled {
        work.note(
            &format!("user {name}"),
            Outcome::Changed,
            "has two passwords, at two listeners: the first one counts at both",
        );
    }
    if !users.hashes.is_empty() {
        write_to(work, path.to_owned(), &users);
    }
}

fn write_to(work: &mut Work, path: PathBuf, users: &Users) {
    let lines = users
        .hashes
        .iter()
        .map(|(name, hash)| format!("{name}:{hash}\n"));
    let text: String = lines.collect();
    work.target
        .authentication
        .text("password_file", path.to_string_lossy());
    work.note(
        &path.display().to_string(),
        Outcome::Changed,
        "the password file, read at the start and at SIGHUP; the old files are not read any more",
    );
    work.passwords = Some((path, text));
}

/// Rules by which of all users only these get in at some listeners.
fn only_these(work: &Work, places: &[usize], names: &[String]) -> Vec<Table> {
    let listeners = places
        .iter()
        .filter_map(|place| work.target.listeners.get(*place));
    let listeners = listeners.filter_map(|listener| listener.value("address"));
    let listeners = format!("[{}]", listeners.collect::<Vec<_>>().join(", "));
    let mut rules = Vec::new();
    if !names.is_empty() {
        let mut own = Table::default();
        own.text("name", "users of a listener");
        own.raw("listeners", &listeners);
        own.texts("users", names);
        own.texts("patterns", &[work.open_pattern()]);
        rules.push(own);
    }
    let mut others = Table::default();
    others.text("name", "a user of another listener");
    others.raw("listeners", &listeners);
    others.raw("anonymous", false);
    // Nobody has this attribute, so nobody has such an identifier.
    others.texts("patterns", &["${attribute.of-this-listener}"]);
    rules.push(others);
    rules
}
