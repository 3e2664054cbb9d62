//! Databases that an emqx.conf asks for users.
//!
//! Owns: [`postgres`], [`mysql`], [`redis`], [`ldap`], and rights that stand there. Does not own: the chain (see `people`). Start
//! reading at [`postgres`]. Invariant: a hash that cannot be verified here lets nobody in.

use super::Work;
use super::bootstrap::Hashing;
use super::services::{is_here, pool};
use crate::import::hocon::Key;
use crate::import::rows::Outcome;
use crate::import::target::Table;

pub(super) fn postgres(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    sql(
        work,
        key,
        &Sql {
            link: "postgres",
            scheme: "postgres",
            port: 5432,
            encode: |prefix, salt, hash| {
                format!(
                    "'{prefix}' || replace(encode(convert_to({salt}, 'UTF8'), 'base64'), E'\\n', '') || '$' || replace(encode(decode({hash}, 'hex'), 'base64'), E'\\n', '')"
                )
            },
        },
    )
}

pub(super) fn mysql(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    sql(
        work,
        key,
        &Sql {
            link: "mysql",
            scheme: "mysql",
            port: 3306,
            encode: |prefix, salt, hash| {
                format!(
                    "CONCAT('{prefix}', REPLACE(TO_BASE64({salt}), '\\n', ''), '$', REPLACE(TO_BASE64(UNHEX({hash})), '\\n', ''))"
                )
            },
        },
    )
}

/// What differs between databases that are asked by SQL.
struct Sql {
    link: &'static str,
    scheme: &'static str,
    port: u16,
    /// A hash in our notation, of what stands before it, and the columns of salt and hash.
    encode: fn(&str, &str, &str) -> String,
}

fn sql(work: &mut Work, key: &Key, sql: &Sql) -> Result<&'static str, String> {
    alone(work, sql.link)?;
    let mut table = Table::default();
    server(work, key, sql.scheme, sql.port, &mut table)?;
    let at = key.then("query");
    let written = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .ok_or("query is not said")?;
    let written = placeholders(written.trim().trim_end_matches(';'))?;
    let lower = written.to_ascii_lowercase();
    let has = |column: &str| {
        lower
            .split(|one: char| !one.is_ascii_alphanumeric() && one != '_')
            .any(|word| word == column)
    };
    let hash = if has("password_hash") {
        "password_hash"
    } else {
        "password"
    };
    let hashing = Hashing::of(work, key);
    let (password, is_verified) = match hashing.notation() {
        Some(prefix) if has("salt") => {
            ((sql.encode)(&prefix, "q.salt", &format!("q.{hash}")), true)
        }
        _ => (format!("q.{hash}"), false),
    };
    let mut columns = vec![format!("{password} AS password")];
    if has("is_superuser") {
        columns.push("q.is_superuser AS administrator".to_owned());
        work.has_administrators = true;
    }
    let mut inner = written;
    if sql.link == "mysql" {
        let (with_name, name) = named(&inner).ok_or(
            "MySQL compares names without regard to case: write a query with a column username",
        )?;
        inner = with_name;
        columns.push(format!("q.{name} AS username"));
    }
    table.text(
        "query",
        format!("SELECT {} FROM ({inner}) q", columns.join(", ")),
    );
    work.settings.changed(
        &at,
        "query, with columns password and administrator around it",
    );
    let hashes = key.then("password_hash_algorithm");
    match is_verified {
        true => work.settings.rest(
            &hashes,
            Outcome::Kept,
            "the query makes a notation of it that is verified here",
        ),
        false => not_verified(work, &hashes, &hashing),
    }
    work.target.authentication.raw(sql.link, table.inline());
    work.settings
        .kept(&key.then("prepared_statement"), "values are bound, always");
    Ok(sql.link)
}

fn not_verified(work: &mut Work, hashes: &Key, hashing: &Hashing) {
    let why = format!(
        "{} is not verified here: nobody gets in by it until there are hashes there that vencejo passwd makes",
        hashing.shown()
    );
    if !work.settings.has(hashes) {
        return work
            .settings
            .note(format!("(no {hashes})"), Outcome::Changed, why);
    }
    work.settings.rest(hashes, Outcome::Changed, &why);
}

/// Rights in the same database as users: `key` is of the source, `of` of the link.
pub(super) fn rights(
    work: &mut Work,
    key: &Key,
    of: &Key,
    link: &'static str,
) -> Result<(), String> {
    for name in ["server", "database"] {
        if work.settings.text(&key.then(name)) != work.settings.text(&of.then(name)) {
            return Err("rights are asked for where users are, in one database".to_owned());
        }
    }
    let at = key.then("query");
    let written = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .ok_or("query is not said")?;
    let written = placeholders(written.trim().trim_end_matches(';'))?;
    let table = work.target.authentication.value(link).map(str::to_owned);
    let table = table.ok_or("users are not asked for there")?;
    let query = format!(
        "SELECT q.permission AS effect, q.action AS actions, q.topic AS topic FROM ({written}) q"
    );
    let inner = table.trim_end_matches(" }");
    let joined = format!(
        "{inner}, rights_query = {} }}",
        crate::import::target::quoted(&query)
    );
    work.target.authentication.raw(link, joined);
    work.settings.changed(
        &at,
        "rights_query, with columns effect, actions and topic around it",
    );
    work.settings.rest(
        key,
        Outcome::Kept,
        &format!("as said of [authentication.{link}]"),
    );
    Ok(())
}

pub(super) fn redis(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    alone(work, "redis")?;
    if ["sentinel", "cluster"].contains(
        &work
            .settings
            .text(&key.then("redis_type"))
            .unwrap_or("single"),
    ) {
        return Err("one server of Redis is asked, no cluster and no sentinel".to_owned());
    }
    work.settings.kept(&key.then("redis_type"), "one server");
    let mut table = Table::default();
    let scheme = if is_secured(work, key) {
        "rediss"
    } else {
        "redis"
    };
    server(work, key, scheme, 6379, &mut table)?;
    let at = key.then("cmd");
    let cmd = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .ok_or("cmd is not said")?;
    let words: Vec<&str> = cmd.split_whitespace().collect();
    let [command, name, fields @ ..] = words.as_slice() else {
        return Err("wanted HMGET key fields".to_owned());
    };
    if !["HMGET", "HGET"].contains(&command.to_ascii_uppercase().as_str())
        || !name.contains("${username}")
    {
        return Err("wanted HMGET of a key with ${username}".to_owned());
    }
    if name.replace("${username}", "").contains("${") {
        return Err("a key is made of ${username} only".to_owned());
    }
    table.text("key", name);
    if let Some(field) = fields.iter().find(|field| field.starts_with("password")) {
        table.text("password_field", field);
    }
    if fields.contains(&"is_superuser") {
        table.text("administrator_field", "is_superuser");
        work.has_administrators = true;
    }
    work.settings
        .kept(&at, "key, password_field, administrator_field");
    let hashing = Hashing::of(work, key);
    not_verified(work, &key.then("password_hash_algorithm"), &hashing);
    work.target.authentication.raw("redis", table.inline());
    work.settings
        .rest(&key.then("auto_reconnect"), Outcome::Kept, "as always here");
    Ok("redis")
}

pub(super) fn ldap(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    alone(work, "ldap")?;
    let mut table = Table::default();
    let scheme = if is_secured(work, key) {
        "ldaps"
    } else {
        "ldap"
    };
    let at = key.then("username");
    let bind_dn = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .filter(|name| !name.is_empty());
    server(
        work,
        key,
        scheme,
        if scheme == "ldaps" { 636 } else { 389 },
        &mut table,
    )?;
    if let Some(name) = bind_dn {
        table.text("bind_dn", name);
        work.settings.kept(&at, "bind_dn");
    }
    let (base_at, filter_at) = (key.then("base_dn"), key.then("filter"));
    let base = work
        .settings
        .text(&base_at)
        .map(str::to_owned)
        .ok_or("base_dn is not said")?;
    let filter = work
        .settings
        .text(&filter_at)
        .unwrap_or("(objectClass=mqttUser)")
        .to_owned();
    let (base, attribute, filter) = people_of(&base, &filter)?;
    let mut users = Table::default();
    users.text("base", base);
    users.text("filter", filter);
    table.raw("users", users.inline());
    if attribute != "uid" {
        table.text("user_attribute", attribute);
    }
    work.settings.kept(&base_at, "users");
    work.settings.kept(&filter_at, "users");
    let method = key.then("method");
    match work.settings.text(&method.then("type")) {
        Some("hash") => work.settings.rest(
            &method,
            Outcome::Changed,
            "the directory verifies the password: the server binds as the user",
        ),
        _ => work.settings.rest(
            &method,
            Outcome::Kept,
            "the directory verifies the password",
        ),
    }
    let timeout = if work.settings.has(&key.then("query_timeout")) {
        "query_timeout"
    } else {
        "request_timeout"
    };
    pool(work, key, &mut table, timeout, 10_000);
    work.target.authentication.raw("ldap", table.inline());
    Ok("ldap")
}

/// Base, attribute and filter by which the entry of a user is found.
fn people_of(base: &str, filter: &str) -> Result<(String, String, String), String> {
    let filter = if filter.starts_with('(') {
        filter.to_owned()
    } else {
        format!("({filter})")
    };
    if let Some((first, rest)) = base.split_once(',')
        && let Some((attribute, "${username}")) = first.split_once('=')
    {
        let attribute = attribute.trim();
        return match rest.contains("${") || filter.contains("${") {
            true => Err("one ${username} finds a user".to_owned()),
            false => Ok((
                rest.trim().to_owned(),
                attribute.to_owned(),
                format!("(&({attribute}=${{username}}){filter})"),
            )),
        };
    }
    let before = filter.split("=${username}").next().unwrap_or_default();
    let attribute = before.rsplit('(').next().unwrap_or_default();
    let is_one = !base.contains("${")
        && filter.matches("${").count() == 1
        && filter.contains("=${username})");
    match is_one && !attribute.is_empty() {
        true => Ok((base.to_owned(), attribute.to_owned(), filter.clone())),
        false => Err("a user is found by one ${username}, in base_dn or in filter".to_owned()),
    }
}

fn alone(work: &Work, link: &'static str) -> Result<(), String> {
    match work.target.authentication.value(link) {
        Some(_) => Err(format!(
            "there is one [authentication.{link}], and another chain has it"
        )),
        None => Ok(()),
    }
}

fn is_secured(work: &Work, key: &Key) -> bool {
    work.settings.truth(&key.then("ssl.enable")) == Some(true)
}

/// Where it is, with whom we are there, and how the way is secured.
fn server(
    work: &mut Work,
    key: &Key,
    scheme: &str,
    port: u16,
    table: &mut Table,
) -> Result<(), String> {
    let at = key.then("server");
    let host = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .ok_or("server is not said")?;
    let is_plain = |text: &str| {
        text.chars()
            .all(|one| one.is_alphanumeric() || "-._:[]".contains(one))
    };
    if host.contains(',') || !is_plain(&host) {
        return Err("one server is asked".to_owned());
    }
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if has_port {
        host
    } else {
        format!("{host}:{port}")
    };
    let name = key.then("username");
    let user = work
        .settings
        .text(&name)
        .map(str::to_owned)
        .unwrap_or_default();
    let is_directory = scheme.starts_with("ldap");
    let login = match user.is_empty() || is_directory {
        true => String::new(),
        false => format!("{}@", encoded(&user)),
    };
    let database = key.then("database");
    let path = work
        .settings
        .text(&database)
        .map(|name| format!("/{}", encoded(name)));
    let url = format!("{scheme}://{login}{host}{}", path.unwrap_or_default());
    table.text("url", &url);
    for at in [&at, &name, &database] {
        work.settings.kept(at, "url");
    }
    secret(work, key, scheme, table);
    way(work, key, &url, table)?;
    if !is_directory {
        pool(work, key, table, "query_timeout", 10_000);
    }
    Ok(())
}

/// The password that we have there.
fn secret(work: &mut Work, key: &Key, scheme: &str, table: &mut Table) {
    let secret = key.then("password");
    if let Some(password) = work
        .settings
        .text(&secret)
        .map(str::to_owned)
        .filter(|text| !text.is_empty())
    {
        let link = match scheme {
            "rediss" => "redis",
            "ldaps" => "ldap",
            scheme => scheme,
        };
        let file = work.file(&format!("emqx.{link}.password"), password);
        table.text("password_file", file);
        work.settings.kept(&secret, "password_file");
    }
}

/// How the way there is secured.
fn way(work: &mut Work, key: &Key, url: &str, table: &mut Table) -> Result<(), String> {
    let at = key.then("server");
    let ssl = key.then("ssl");
    if is_secured(work, key) {
        if is_here(url) {
            table.text("tls", "verify");
        }
        let ca = ssl.then("cacertfile");
        if let Some(written) = work
            .settings
            .text(&ca)
            .map(str::to_owned)
            .filter(|text| !text.is_empty())
        {
            let path = work.path(&written)?;
            table.text("ca", path.to_string_lossy());
            work.settings.kept(&ca, "ca");
        }
        let verify = ssl.then("verify");
        if work.settings.text(&verify) != Some("verify_peer") {
            work.settings.changed(
                &verify,
                "its certificate is verified, always: ca says by whom it may be signed",
            );
        }
        work.settings.rest(&ssl, Outcome::Kept, "tls");
    } else {
        if !is_here(url) {
            table.text("tls", "off");
            work.settings.changed(
                &at,
                "url, with tls = \"off\": passwords travel in plain text, as before",
            );
        }
        work.settings
            .rest(&ssl, Outcome::Ignored, "it is not enabled");
    }
    Ok(())
}

/// A part of a URL.
fn encoded(text: &str) -> String {
    let mut all = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                all.push(char::from(byte));
            }
            byte => all.push_str(&format!("%{byte:02X}")),
        }
    }
    all
}

/// A statement with our placeholders in it.
fn placeholders(text: &str) -> Result<String, String> {
    let text = text
        .replace("'${", "${")
        .replace("}'", "}")
        .replace("${peerhost}", "${address}");
    for rest in text.split("${").skip(1) {
        let name = rest.split('}').next().unwrap_or_default();
        if !["username", "clientid", "address"].contains(&name) {
            return Err(format!("${{{name}}} is not known to a query here"));
        }
    }
    Ok(text)
}

/// A statement that says the name of the user as it stands in the table, too, and the column that has it.
fn named(text: &str) -> Option<(String, String)> {
    let lower = text.to_ascii_lowercase();
    if lower.len() != text.len() || !lower.starts_with("select ") {
        return None;
    }
    let from = lower.find(" from ")?;
    let before = text.get(..lower.find("${username}")?)?;
    let column = before.trim_end().strip_suffix('=')?.trim_end();
    let column = column.rsplit([' ', '(', ',']).next()?;
    let is_column = column
        .chars()
        .all(|one| one.is_ascii_alphanumeric() || "_.`".contains(one));
    if column.is_empty() || !is_column || from > before.len() {
        return None;
    }
    let name = "name_there".to_owned();
    let made = format!(
        "{}, {column} AS {name}{}",
        text.get(..from)?,
        text.get(from..)?
    );
    Some((made, name))
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn entries_of_people_are_found_as_before() {
        let found = |base: &str, filter: &str| {
            people_of(base, filter)
                .ok()
                .map(|(base, attribute, filter)| format!("{base} {attribute} {filter}"))
        };
        assert_eq!(
            found("uid=${username},ou=people,dc=x", "(objectClass=mqttUser)").as_deref(),
            Some("ou=people,dc=x uid (&(uid=${username})(objectClass=mqttUser))")
        );
        assert_eq!(
            found("ou=people,dc=x", "(&(mail=${username})(a=b))").as_deref(),
            Some("ou=people,dc=x mail (&(mail=${username})(a=b))")
        );
        assert_eq!(found("ou=people,dc=x", "(a=b)"), None);
        assert_eq!(found("uid=${username},ou=${clientid}", "(a=b)"), None);
    }

    #[test]
    fn names_stand_in_what_mysql_answers() {
        let made =
            named("SELECT password_hash, salt FROM mqtt_user where username = ${username} LIMIT 1");
        let (text, _) = made.expect("names a column");
        assert_eq!(
            text,
            "SELECT password_hash, salt, username AS name_there FROM mqtt_user where username = ${username} LIMIT 1"
        );
        assert!(named("SELECT a FROM b WHERE lower(c) = ${username}").is_none());
        assert!(named("CALL who(${username})").is_none());
    }

    #[test]
    fn placeholders_are_ours_and_stand_without_quotation_marks() {
        assert_eq!(
            placeholders("a = '${username}' AND b = ${peerhost}").as_deref(),
            Ok("a = ${username} AND b = ${address}")
        );
        assert!(placeholders("a = ${cert_subject}").is_err());
    }
}
