//! mosquitto's dynamic security: users, groups and roles of its JSON file, as a password file and rules.
//!
//! Owns: [`read`]. Does not own: what a rule or a password line means (see `server::authorization`,
//! `server::authentication`). Start reading at [`read`]. Invariant: the first rule about a topic is the one that mosquitto's
//! plugin asks first: roles of the client, then of its groups, each by priority.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;

use super::acl::topic_of;
use crate::import::target::Table;

/// What such a file knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Lines of a password file.
    pub(super) passwords: String,
    pub(super) client_ids: Vec<Table>,
    pub(super) rules: Vec<Table>,
    /// What of it means nothing here.
    pub(super) left_out: Vec<String>,
    pub(super) users: usize,
}

/// Whom rules are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Anonymous,
    Users(Vec<String>),
}

/// Reads the JSON `text`; its rules are for Clients of `listeners`, or of all.
/// # Errors
/// It is none of that plugin.
pub(super) fn read(text: &str, listeners: Option<&[String]>) -> Result<Known, String> {
    let root: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let clients = list(&root, "clients");
    if root.get("clients").is_none() && root.get("roles").is_none() {
        return Err("it has neither clients nor roles".to_owned());
    }
    let mut known = Known::default();
    // Clients with the same roles in the same order share their rules.
    let mut by_roles: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for client in clients {
        let name = word(client, "username");
        if !add_user(&mut known, client, name) {
            continue;
        }
        let roles = roles_of_client(&root, client, name);
        by_roles.entry(roles).or_default().push(name.to_owned());
        let id = word(client, "clientid");
        if !id.is_empty() {
            let mut rule = Table::default();
            rule.text(
                "name",
                format!("dynamic security: client identifier of {name}"),
            );
            rule.texts("patterns", &[id]);
            rule.texts("users", &[name]);
            known.client_ids.push(rule);
        }
    }
    for (roles, users) in by_roles {
        add_roles(&mut known, &root, &roles, &Whom::Users(users), listeners);
    }
    let anonymous = word(&root, "anonymousGroup");
    if !anonymous.is_empty() {
        let groups = list(&root, "groups");
        let group = groups
            .iter()
            .find(|group| word(group, "groupname") == anonymous);
        let roles = group
            .map(|group| names(group, "roles", "rolename"))
            .unwrap_or_default();
        add_roles(&mut known, &root, &roles, &Whom::Anonymous, listeners);
    }
    add_defaults(&mut known, &root, listeners);
    Ok(known)
}

/// Whether it is a user that can log in.
fn add_user(known: &mut Known, client: &Value, name: &str) -> bool {
    let mut left_out = |why: &str| {
        known.left_out.push(format!("client {name:?}: {why}"));
        false
    };
    if name.is_empty() || name.contains(':') || name.contains(char::is_control) {
        return left_out("its name can stand in no password file");
    }
    if client.get("disabled").and_then(Value::as_bool) == Some(true) {
        return left_out("it is disabled");
    }
    let encoded = word(client, "encoded_password");
    let (hash, salt) = (word(client, "password"), word(client, "salt"));
    let iterations = client.get("iterations").and_then(Value::as_u64);
    let line = match (encoded, iterations) {
        (encoded, _) if !encoded.is_empty() => format!("{name}:{encoded}\n"),
        (_, Some(iterations)) if !hash.is_empty() => {
            format!("{name}:$7${iterations}${salt}${hash}\n")
        }
        _ => return left_out("it has no password"),
    };
    known.passwords.push_str(&line);
    known.users += 1;
    true
}

/// The names of its roles in the order in which they are asked.
fn roles_of_client(root: &Value, client: &Value, name: &str) -> Vec<String> {
    let mut roles = names(client, "roles", "rolename");
    let all_groups = list(root, "groups");
    let mut of_client = names(client, "groups", "groupname");
    // Membership stands with the group, with the client, or with both.
    for group in all_groups {
        let is_member = list(group, "clients")
            .iter()
            .any(|of| word(of, "username") == name);
        let group = word(group, "groupname").to_owned();
        if is_member && !of_client.contains(&group) {
            of_client.push(group);
        }
    }
    for group in of_client {
        let group = all_groups
            .iter()
            .find(|one| word(one, "groupname") == group);
        roles.extend(
            group
                .map(|group| names(group, "roles", "rolename"))
                .unwrap_or_default(),
        );
    }
    roles
}

fn add_roles(
    known: &mut Known,
    root: &Value,
    roles: &[String],
    whom: &Whom,
    listeners: Option<&[String]>,
) {
    for role in roles {
        let role = list(root, "roles")
            .iter()
            .find(|one| word(one, "rolename") == role);
        let Some(role) = role else {
            continue;
        };
        let mut acls: Vec<&Value> = list(role, "acls").iter().collect();
        acls.sort_by_key(|acl| Reverse(priority(acl)));
        for acl in acls {
            let (kind, topic) = (word(acl, "acltype"), word(acl, "topic"));
            let action = match kind {
                "publishClientSend" => "publish",
                "publishClientReceive" => "receive",
                "subscribeLiteral" | "subscribePattern" => "subscribe",
                "unsubscribeLiteral" | "unsubscribePattern" => continue,
                other => {
                    known.left_out.push(format!("acltype {other:?}"));
                    continue;
                }
            };
            if topic.starts_with("$CONTROL/") {
                known
                    .left_out
                    .push(format!("{kind} {topic}: there is no such topic"));
                continue;
            }
            let is_allowed = acl.get("allow").and_then(Value::as_bool).unwrap_or(false);
            let mut rule = Table::default();
            rule.text(
                "name",
                format!("dynamic security: role {}", word(role, "rolename")),
            );
            rule.text("effect", if is_allowed { "allow" } else { "deny" });
            rule.texts("actions", &[action]);
            rule.texts("topics", &[topic_of(topic, true)]);
            match whom {
                Whom::Anonymous => rule.raw("anonymous", true),
                Whom::Users(users) => rule.texts("users", users),
            }
            if let Some(listeners) = listeners {
                rule.texts("listeners", listeners);
            }
            known.rules.push(rule);
        }
    }
}

/// What counts where no role says anything.
fn add_defaults(known: &mut Known, root: &Value, listeners: Option<&[String]>) {
    let access = root.get("defaultACLAccess");
    for (kind, action, usual) in [
        ("publishClientSend", "publish", false),
        ("publishClientReceive", "receive", true),
        ("subscribe", "subscribe", false),
    ] {
        let said = access
            .and_then(|access| access.get(kind))
            .and_then(Value::as_bool);
        if said.unwrap_or(usual) {
            let name = format!("dynamic security: default of {kind}");
            let mut rule = Table::default();
            rule.text("name", name);
            rule.text("effect", "allow");
            rule.texts("actions", &[action]);
            rule.texts("topics", &["#", "$SYS/#"]);
            if let Some(listeners) = listeners {
                rule.texts("listeners", listeners);
            }
            known.rules.push(rule);
        }
    }
    if known.rules.is_empty() {
        // Without a rule everything would be allowed.
        let mut rule = Table::default();
        rule.text("name", "dynamic security: no role allows anything");
        rule.text("effect", "deny");
        rule.texts("topics", &["#"]);
        known.rules.push(rule);
    }
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The highest is asked first.
fn priority(value: &Value) -> i64 {
    value.get("priority").and_then(Value::as_i64).unwrap_or(-1)
}

/// Names of roles or groups that `value` has, in the order in which they count.
fn names(value: &Value, key: &str, name: &str) -> Vec<String> {
    let mut found: Vec<(Reverse<i64>, String)> = list(value, key)
        .iter()
        .map(|one| (Reverse(priority(one)), word(one, name).to_owned()))
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}
