//! Alarms that hold as long as what they tell of: nobody acknowledges them, and nothing of them is kept on disk.
//!
//! Owns: [`Standing`]. Does not own: alarms of the store, which are acknowledged (see `persist::alarming`); who
//! shows them (`shard::commands`, as `$SYS/broker/alarms`). Start reading at [`Standing::set`].
//! Invariant: of one kind there is one at most.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::authentication::AnonymousPolicy;
use crate::config::{ClientCertificates, Config, ListenerConfig};

/// What can be wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// Who can reach the Server needs no proof.
    Open,
    /// The last configuration was refused.
    Reload,
    /// Files of TLS that have changed are not taken over.
    Tls,
}

/// Everything that is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<BTreeMap<Condition, String>>);

impl Standing {
    /// Says that `condition` holds, in these words, or no longer.
    pub(crate) fn set(&self, condition: Condition, alarm: Option<String>) {
        match alarm {
            Some(alarm) => self.lock().insert(condition, alarm),
            None => self.lock().remove(&condition),
        };
    }

    /// All, in lines behind `others`.
    pub(crate) fn append_to(&self, others: &mut String) {
        for alarm in self.lock().values() {
            if !others.is_empty() {
                others.push('\n');
            }
            others.push_str(alarm);
        }
    }

    /// Looks at who gets in by `config`; whoever leaves a listener open to the network is told so, and goes on being told.
    pub(crate) fn judge(&self, config: &Config) {
        let is_open = |listener: &&ListenerConfig| {
            let tls = listener.tls.as_ref();
            listener.anonymous(&config.authentication) == AnonymousPolicy::Always
                // A proxy brings whoever can reach it.
                && (listener.proxy.is_some() || !listener.address.is_local())
                && tls.is_none_or(|tls| tls.client_certificates != ClientCertificates::Required)
        };
        let open = config.listeners.iter().filter(is_open);
        let open: Vec<_> = open.map(|listener| listener.name.as_str()).collect();
        let alarm = (!open.is_empty()).then(|| {
            let listeners = open.join(", ");
            tracing::warn!(listener = listeners, "clients need no proof beyond this machine");
            format!("whoever can reach a listener is let in without proof (anonymous = \"always\"): {listeners}")
        });
        self.set(Condition::Open, alarm);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Condition, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn text(standing: &Standing) -> String {
        let mut text = String::new();
        standing.append_to(&mut text);
        text
    }

    #[test]
    fn one_alarm_of_a_kind_stands_until_it_is_taken_back() {
        let standing = Standing::default();
        standing.set(Condition::Tls, Some("t".to_owned()));
        standing.set(Condition::Reload, Some("r".to_owned()));
        standing.set(Condition::Reload, Some("again".to_owned()));
        assert_eq!(text(&standing), "again\nt");
        standing.set(Condition::Reload, None);
        assert_eq!(text(&standing), "t");
    }

    /// P17: anonymous beyond loopback is a warning that stays.
    #[test]
    fn listener_that_is_open_to_the_network_is_an_alarm_as_long_as_it_is() {
        let standing = Standing::default();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 1883));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:1884".parse().expect("an address");
        let mut config = Config {
            listeners: vec![everywhere.into(), mapped.into()],
            ..Config::default()
        };
        standing.judge(&config);
        assert_eq!(text(&standing), "");
        config.authentication.anonymous = AnonymousPolicy::Always;
        standing.judge(&config);
        assert!(
            text(&standing).ends_with(": 0.0.0.0:1883"),
            "{}",
            text(&standing)
        );
        config.listeners[0].client_id_from_user = true;
        standing.judge(&config);
        assert_eq!(text(&standing), "");
        config.listeners[0].client_id_from_user = false;
        standing.judge(&config);
        assert_ne!(text(&standing), "");
        config.listeners[0].anonymous = Some(AnonymousPolicy::Never);
        standing.judge(&config);
        assert_eq!(text(&standing), "");
    }
}
