//! `vencejo profile`: connection settings with a name, made, shown and removed.
//!
//! Owns: the commands, what is printed. Does not own: the file (see `profiles`), the flags (see `args`). Start reading at
//! [`run`]. Invariant: a password is never printed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::args::ConnectionArgs;
use super::profiles::{Profile, Profiles};
use crate::printing::{ManyObjects, OneObject};
use crate::serve;

const TOOL: &str = "profile";

/// Name connections, to be used with --profile NAME by pub, sub, rr, probe, retained, explore and bench
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ProfileArgs {
    #[command(subcommand)]
    command: ProfileCommand,
    /// Print help
    #[arg(long, short = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum ProfileCommand {
    /// The names of all profiles, and where each leads
    Ls(ManyObjects),
    /// What a profile says, without its password
    Show(NameArgs),
    /// Make one of the flags that follow its name
    Add(Box<AddArgs>),
    /// Remove one
    Rm(NameArgs),
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct NameArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    printing: OneObject,
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct AddArgs {
    /// Its name: letters, digits, - and _
    name: String,
    /// URL, HOST:PORT or host; as -L, -h and -p
    #[arg(value_name = "URL")]
    server: Option<String>,
    /// Replace one of that name
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `vencejo profile ...`.
pub(crate) fn run(args: &ProfileArgs) -> Result<(), Failure> {
    let mut profiles = Profiles::open()?;
    match &args.command {
        ProfileCommand::Ls(args) => list(&profiles, args.json),
        ProfileCommand::Show(args) => {
            show(&args.name, profiles.named(&args.name)?, args.printing.json)?;
        }
        ProfileCommand::Add(args) => {
            let profile = profile_of(args)?;
            profiles.add(&args.name, &profile, args.force)?;
            say(&args.name, "added", args.json);
        }
        ProfileCommand::Rm(args) => {
            profiles.remove(&args.name)?;
            say(&args.name, "removed", args.printing.json);
        }
    }
    Ok(())
}

fn say(name: &str, outcome: &str, as_json: bool) {
    serve::print(&match as_json {
        true => format!("{}\n", json!({ "name": name, "outcome": outcome })),
        false => format!("profile {name} {outcome}\n"),
    });
}

fn list(profiles: &Profiles, as_json: bool) {
    let mut text = String::new();
    for (name, profile) in profiles.all() {
        let to = place(profile);
        let user = profile.username.as_deref();
        if as_json {
            let line = json!({ "name": name, "to": to, "username": user });
            text.push_str(&format!("{line}\n"));
        } else {
            let user = user.map_or_else(String::new, |user| format!("  as {user}"));
            text.push_str(&format!("{name:<16} {to}{user}\n"));
        }
    }
    serve::print(&text);
}

/// Where it leads, without a password that may stand in the URL.
fn place(profile: &Profile) -> String {
    if let Some(url) = &profile.url {
        return bare_url(url);
    }
    if let Some(path) = &profile.unix {
        return path.display().to_string();
    }
    let host = profile.host.as_deref().unwrap_or("localhost");
    match profile.port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A URL without what stands before the host.
fn bare_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (rest, String::new()),
    };
    let address = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
    format!("{scheme}://{address}{path}")
}

fn show(name: &str, profile: &Profile, as_json: bool) -> Result<(), Failure> {
    let mut shown = profile.without_password();
    shown.url = shown.url.as_deref().map(bare_url);
    let has_password = profile.password.is_some();
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("Error: {error}."));
    let text = if as_json {
        let mut value = serde_json::to_value(&shown).map_err(|error| failed(&error))?;
        if let Value::Object(fields) = &mut value {
            fields.insert("name".to_owned(), json!(name));
            fields.insert("has_password".to_owned(), json!(has_password));
        }
        format!("{value:#}\n")
    } else {
        let mut text = toml::to_string(&shown).map_err(|error| failed(&error))?;
        if has_password {
            text.push_str("# and a password\n");
        }
        text
    };
    serve::print(&text);
    Ok(())
}

/// What the flags say, as far as a profile keeps it.
fn profile_of(args: &AddArgs) -> Result<Profile, Failure> {
    let mut flags = args.connection.clone();
    if let Some(server) = &args.server {
        flags.name_server(server);
    }
    if let Some(flag) = flags.not_in_a_profile() {
        return Err(Failure::usage(
            TOOL,
            format!("a profile does not keep {flag}."),
        ));
    }
    // Whatever is wrong with it is told now, not at its first use.
    let port = flags.port.as_deref().map(str::parse).transpose();
    let port = port.map_err(|_| Failure::usage(TOOL, "the port is a number."))?;
    let keepalive = flags.keepalive.as_deref().map(str::parse).transpose();
    let keepalive = keepalive.map_err(|_| Failure::usage(TOOL, "the keep alive is a number."))?;
    flags.check(TOOL)?;
    let login = flags.login_to_keep(TOOL)?;
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_ref().map(std::path::absolute).transpose();
        path.map_err(|error| Failure::new(format!("Error: {error}.")))
    };
    let tls = &flags.tls;
    Ok(Profile {
        url: flags.url.as_deref().map(bare_url),
        host: flags.host.clone(),
        port,
        unix: absolute(&flags.unix)?,
        id: flags.id.clone(),
        id_prefix: flags.id_prefix.clone(),
        username: login.0,
        password: login.1,
        password_file: absolute(&flags.login.secret.password_file)?,
        auth_method: flags.auth_method.clone(),
        protocol_version: flags.protocol_version.clone(),
        keepalive,
        proxy: flags.proxy.clone(),
        nodelay: flags.nodelay,
        cafile: absolute(&tls.cafile)?,
        capath: absolute(&tls.capath)?,
        tls_use_os_certs: tls.tls_use_os_certs,
        cert: absolute(&tls.cert)?,
        key: absolute(&tls.key)?,
        insecure: tls.insecure,
        tls_version: tls.tls_version.clone(),
        tls_alpn: tls.tls_alpn.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_who_goes_there() {
        for (url, shown) in [
            ("mqtts://me:p%40ss@host:1/a/b", "mqtts://host:1/a/b"),
            ("mqtt://me:p@ss@host", "mqtt://host"),
            ("mqtt://host/a@b", "mqtt://host/a@b"),
            ("host", "host"),
        ] {
            assert_eq!(bare_url(url), shown);
        }
    }
}
