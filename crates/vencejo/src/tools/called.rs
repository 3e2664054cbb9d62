//! Under which name this program was called: `vencejo`, or that of one of mosquitto's tools.
//!
//! Owns: [`tool`], how a tool is named to whoever called it. Does not own: flags. Start reading at [`tool`].
//! Invariant: called as a tool of mosquitto's it behaves as that one where ours differ by default.

use std::ffi::OsStr;
use std::path::Path;

/// The tools of mosquitto's that this program is, as a link with such a name.
const TOOLS: [(&str, &str); 3] = [
    ("mosquitto_pub", "pub"),
    ("mosquitto_sub", "sub"),
    ("mosquitto_rr", "rr"),
];

/// The command that the name of this program stands for, if it is a tool of mosquitto's.
pub(crate) fn tool() -> Option<&'static str> {
    named(&std::env::args_os().next()?)
}

/// The name that mosquitto has for a tool.
pub(crate) fn theirs(tool: &str) -> Option<&'static str> {
    let known = TOOLS.iter().find(|(_, command)| *command == tool);
    known.map(|(name, _)| *name)
}

/// What a person types to get to `tool`.
pub(crate) fn shown(tool: &str) -> String {
    match theirs(tool).filter(|_| self::tool() == Some(tool)) {
        Some(name) => name.to_owned(),
        None => format!("vencejo {tool}"),
    }
}

fn named(program: &OsStr) -> Option<&'static str> {
    let name = Path::new(program).file_name()?;
    let known = TOOLS.iter().find(|(of, _)| name == *of);
    known.map(|(_, command)| *command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_mosquittos_tools_are_commands() {
        for (program, command) in [
            ("/usr/bin/mosquitto_pub", Some("pub")),
            ("mosquitto_sub", Some("sub")),
            ("./mosquitto_rr", Some("rr")),
            ("/usr/bin/vencejo", None),
            ("mosquitto_pub.old", None),
            ("", None),
        ] {
            assert_eq!(named(program.as_ref()), command, "{program}");
        }
    }
}
