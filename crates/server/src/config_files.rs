//! The files that a configuration names, looked at without a Server.
//!
//! Owns: [`check_files`]. Does not own: what is in them (see `tls`, `authentication`, `authorization`).
//! Start reading at [`check_files`]. Invariant: what is found wrong here keeps a Server from starting, too.

use crate::authentication::read_password_file;
use crate::authorization;
use crate::config::Config;
use crate::outbound::Outbound;
use crate::reload::{Policy, ReloadError};
use crate::tls;

/// What cannot be used of the files that `config` names: certificates, keys, passwords, ACLs. A key set at a URL is asked
/// for, but not waited for.
#[must_use]
pub fn check_files(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    for listener in &config.listeners {
        let loaded = listener.tls.as_ref();
        let loaded = loaded.map(|tls| tls::load(tls, listener.transport, listener.sniff));
        if let Some(Err(error)) = loaded {
            wrong.push(format!("listener {}: {error}", listener.name));
        }
    }
    let passwords = config.authentication.password_file.as_deref();
    if let Some(Err(error)) = passwords.map(read_password_file) {
        wrong.push(error.to_string());
    }
    if let Err(error) = authorization::rules(config, true) {
        wrong.push(error.to_string());
    }
    if wrong.is_empty()
        && let Err(error) = Policy::new(config, None, None, &Outbound::default())
    {
        wrong.push(ReloadError::from(error).to_string());
    }
    wrong
}
