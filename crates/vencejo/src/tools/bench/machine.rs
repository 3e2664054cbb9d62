//! On what and by which command it was measured: what somebody needs to do it again.
//!
//! Owns: [`machine`], [`command`]. Does not own: what was measured. Start reading at [`command`]. Invariant: no password is
//! in it.

use std::ffi::OsString;
use std::fs;

use serde_json::{Value, json};

use crate::tools::url::{HIDDEN, without_password};

/// This machine, as far as it says.
pub(super) fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory_kib = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    json!({
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory_bytes": memory_kib.map(|kib| kib * 1024),
        "load_average": read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>(),
        "open_files": rlimit::Resource::NOFILE.get_soft().ok(),
    })
}

/// The command line, without passwords.
pub(super) fn command(arguments: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut command = Vec::new();
    let (mut is_password, mut is_name) = (false, false);
    for argument in arguments {
        let argument = argument.to_string_lossy();
        if is_password {
            command.push(HIDDEN.to_owned());
            is_password = false;
            continue;
        }
        let is_data = argument.eq_ignore_ascii_case(DATA) && !is_name;
        is_password = is_data || PASSWORD_FLAGS.contains(&&*argument);
        is_name = argument.eq_ignore_ascii_case("user-property");
        let hidden = PASSWORD_FLAGS.iter().find_map(|flag| {
            let value = argument.strip_prefix(flag)?;
            let is_joined = !flag.starts_with("--") || value.starts_with('=');
            let equals = if value.starts_with('=') { "=" } else { "" };
            (is_joined && !value.is_empty()).then(|| format!("{flag}{equals}{HIDDEN}"))
        });
        command.push(hidden.unwrap_or_else(|| without_password(&argument)));
    }
    command
}

const PASSWORD_FLAGS: [&str; 3] = ["-P", "--pw", "--password"];
/// The property behind which Authentication Data stands.
const DATA: &str = "authentication-data";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_in_a_command() {
        let line = "vencejo bench -P secret --pw secret --pw=secret -Psecret --password secret \
                    mqtt://me:secret@host/a --proxy socks5h://me:secret@proxy -L mqtt://me@host \
                    -D connect authentication-data secret \
                    --property=CONNECT authentication-data secret \
                    -D connect user-property authentication-data shown pairs";
        let command = command(line.split_whitespace().map(OsString::from));
        let text = command.join(" ");
        assert!(!text.contains("secret"), "{text}");
        let shown = "vencejo bench -P *** --pw *** --pw=*** -P*** --password *** \
                     mqtt://me:***@host/a --proxy socks5h://me:***@proxy -L mqtt://me@host \
                     -D connect authentication-data *** \
                     --property=CONNECT authentication-data *** \
                     -D connect user-property authentication-data shown pairs";
        assert_eq!(text, shown);
    }

    #[test]
    fn the_machine_says_what_it_is() {
        let machine = machine();
        assert_eq!(machine["os"], std::env::consts::OS);
        assert!(machine["cpus"].as_u64() > Some(0), "{machine}");
    }
}
