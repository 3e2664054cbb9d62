//! What Clients may do: the rules of the configuration and of mosquitto's ACL file, as the engine has them.
//!
//! Owns: [`rules`], what is allowed where nothing is configured. Does not own: how rules decide (see
//! `engine::Rules`), the form of the configuration (see `config`). Start reading at [`rules`].
//! Invariant: where rules are configured and cannot be read, there are none to serve by.

mod acl_file;
mod http;
mod own_rules;

use std::io;
use std::path::{Path, PathBuf};

use engine::{Actions, Notation, Rule, TopicPattern, Topics, Who};

use crate::config::Config;
use crate::outbound::HttpError;

pub use acl_file::{AclError, parse as parse_acl};
pub(crate) use http::{HttpRights, no_answer};
pub use own_rules::{OwnRule, OwnRules, OwnRulesError};
// To ask them as a Server does.
pub use engine::{Principal, Request, Rules, Subject};

/// Why there are no rules to serve by.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationError {
    /// The ACL file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It says something that cannot be.
    #[error("{}:{}: {error}", path.display(), error.line())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What, and where.
        error: AclError,
    },
    /// A service cannot be asked by HTTP.
    #[error("authorization.http: {0}")]
    Http(#[from] HttpError),
    /// It says nothing.
    #[error(
        "{}: there is no rule in it; that would deny everything to everyone, or was written by mistake", path.display()
    )]
    Empty {
        /// Which.
        path: PathBuf,
    },
}

/// The rules that `config` asks for: its own, then the lines of its ACL file, then that administrators may
/// read `$SYS`. Without `[authorization]` everything is allowed but `$SYS`, which is for administrators and, as
/// long as there are no users, so that a first start shows something, for anonymous Clients of this machine. Whose
/// proof has brought rules along is allowed what these say, and nothing else.
/// # Errors
/// The ACL file cannot be read, is empty, or says something that cannot be.
pub fn rules(config: &Config, has_users: bool) -> Result<Rules, AuthorizationError> {
    let Some(authorization) = &config.authorization else {
        return Ok(Rules::new(rules_without_configuration(has_users)));
    };
    let mut rules = authorization.rules.clone();
    if let Some(path) = &authorization.acl_file {
        rules.extend(load_acl(path)?);
    }
    rules.push(administrators_read_sys());
    let rules = Rules::new(rules);
    Ok(match authorization.http {
        Some(_) => rules.asking(HttpRights::NAME),
        None => rules,
    })
}

fn load_acl(path: &Path) -> Result<Vec<Rule>, AuthorizationError> {
    let path = path.to_owned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(AuthorizationError::Unreadable { path, source }),
    };
    let name = path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    match acl_file::parse(&bytes, &name) {
        Ok(rules) if rules.is_empty() => Err(AuthorizationError::Empty { path }),
        Ok(rules) => Ok(rules),
        Err(error) => Err(AuthorizationError::Invalid { path, error }),
    }
}

fn rules_without_configuration(has_users: bool) -> Vec<Rule> {
    let this_machine = Rule {
        who: Who {
            anonymous: Some(true),
            loopback: Some(true),
            ..Who::default()
        },
        ..sys_rule(Rule::allow(
            "while there are no users, this machine reads $SYS",
        ))
    };
    let mut rules = vec![
        administrators_read_sys(),
        sys_rule(Rule::deny("$SYS is for administrators")),
    ];
    if !has_users {
        rules.insert(0, this_machine);
    }
    // Whatever a proof has brought along.
    for rule in &mut rules {
        rule.is_first = true;
    }
    rules.push(Rule {
        who: Who {
            own_rules: Some(false),
            ..Who::default()
        },
        ..Rule::allow("there is no [authorization]")
    });
    rules
}

fn administrators_read_sys() -> Rule {
    Rule {
        who: Who {
            administrator: Some(true),
            ..Who::default()
        },
        ..sys_rule(Rule::allow("administrators read $SYS"))
    }
}

/// The same for what the Server says about itself.
fn sys_rule(rule: Rule) -> Rule {
    let pattern = TopicPattern::parse("$SYS/#", Notation::Plain);
    Rule {
        actions: Actions::SUBSCRIBE.and(Actions::RECEIVE),
        topics: Topics::Matching(pattern.into_iter().collect()),
        ..rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthorizationConfig;
    use crate::testing::TempFolder;

    fn may(rules: &Rules, principal: &Principal, request: Request<'_>) -> bool {
        let subject = Subject {
            principal,
            client_id: "c",
        };
        let applying = rules.applying(subject);
        rules.decide(&applying, subject, request).is_allowed
    }

    fn at(address: [u8; 4]) -> Principal {
        Principal {
            address: Some(address.into()),
            ..Principal::default()
        }
    }

    /// P12: what the Server says about itself is for those who run it.
    #[test]
    fn sys_is_for_administrators_and_for_a_first_start() {
        let open = rules(&Config::default(), false).expect("rules");
        let with_users = rules(&Config::default(), true).expect("rules");
        let configured = Config {
            authorization: Some(AuthorizationConfig {
                rules: vec![Rule {
                    actions: Actions::PUBLISH,
                    ..Rule::allow("publish")
                }],
                ..AuthorizationConfig::default()
            }),
            ..Config::default()
        };
        let configured = rules(&configured, false).expect("rules");
        let user = Principal {
            user: Some("ann".into()),
            ..at([127, 0, 0, 1])
        };
        let administrator = Principal {
            is_administrator: true,
            ..user.clone()
        };
        for request in [
            Request::Subscribe { filter: "$SYS/#" },
            Request::Receive {
                topic: "$SYS/broker/uptime",
            },
        ] {
            for (who, is_open, is_configured) in [
                (&at([127, 0, 0, 1]), true, false),
                (&at([192, 0, 2, 1]), false, false),
                (&user, false, false),
                (&administrator, true, true),
            ] {
                assert_eq!(may(&open, who, request), is_open, "{who:?}");
                assert_eq!(may(&configured, who, request), is_configured, "{who:?}");
                assert_eq!(may(&with_users, who, request), is_configured, "{who:?}");
            }
        }
        for topic in ["a", "$other/a"] {
            assert!(may(&open, &at([192, 0, 2, 1]), Request::Receive { topic }));
        }
    }

    /// P17: security that cannot be read, is empty or is wrong is no security, and nothing is served by it.
    #[test]
    fn acl_file_that_cannot_be_used_leaves_no_rules() {
        let folder = TempFolder::new();
        let path = folder.path().join("acl");
        let with = |text: Option<&[u8]>| {
            std::fs::remove_file(&path).ok();
            if let Some(text) = text {
                std::fs::write(&path, text).expect("a temporary file");
            }
            let config = Config {
                authorization: Some(AuthorizationConfig {
                    acl_file: Some(path.clone()),
                    ..AuthorizationConfig::default()
                }),
                ..Config::default()
            };
            rules(&config, false).map_err(|error| error.to_string())
        };
        assert!(with(Some(b"topic read a\n")).is_ok());
        for (text, expected) in [
            (None, "acl: cannot be read: "),
            (Some(&b""[..]), "acl: there is no rule in it"),
            (
                Some(b"# topic read a\nuser ann\n"),
                "acl: there is no rule in it",
            ),
            (Some(b"topic a\n\ntopic read a/#/b\n"), "acl:3: "),
            (Some(b"topic a\xFF\n"), "acl:1: "),
        ] {
            let error = with(text).expect_err("is refused");
            assert!(error.contains(expected), "{error}");
        }
    }
}
