//! A user as a row of columns, or as fields with names.
//!
//! Owns: [`Row`], what its columns mean. Does not own: where it comes from (see `postgres`, `mysql`, `redis`).
//! Start reading at [`Row::user`]. Invariants: a row that says it is of another user is none; a password in the
//! clear lets nobody in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Found;
use crate::authentication::Identity;
use crate::authentication::passwords::StoredPassword;
use crate::authorization::{OwnRule, OwnRules, OwnRulesError};

/// What a database has said of a user.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Its name as it is written there.
    pub(super) user_name: Option<String>,
    /// Its stored password.
    pub(super) password: Option<String>,
    pub(super) is_administrator: bool,
    pub(super) groups: Vec<String>,
    pub(super) attributes: BTreeMap<String, String>,
    /// What it may do, if that is said there, too.
    pub(super) rights: Option<Result<OwnRules, OwnRulesError>>,
}

/// One row about what a user may do.
#[derive(Debug, Default)]
pub(super) struct Right {
    pub(super) name: Option<String>,
    pub(super) effect: String,
    /// All of them if there are none.
    pub(super) actions: Vec<String>,
    pub(super) topic: String,
    pub(super) qos_max: Option<i64>,
    pub(super) retain: Option<bool>,
}

/// What `rights` say together.
pub(super) fn own_rules(
    rights: &[Right],
    directory: &'static str,
) -> Result<OwnRules, OwnRulesError> {
    let mut rules = OwnRules::default();
    for (number, right) in (1..).zip(rights) {
        let qos_max = right.qos_max.map(u8::try_from).transpose();
        let rule = OwnRule {
            name: right.name.as_deref(),
            effect: &right.effect,
            actions: right.actions.iter().map(|action| action.trim()).collect(),
            topics: vec![&right.topic],
            qos_max: qos_max.map_err(|_| OwnRulesError::Rule(number))?,
            retain: right.retain,
        };
        rules.push(directory, &rule)?;
    }
    Ok(rules)
}

impl Row {
    /// The user `name`, if this is its row.
    pub(super) fn user(self, name: &str, directory: &'static str) -> Option<Found> {
        // Databases compare names without regard to case, accents or spaces; rules compare letter by letter.
        if self.user_name.is_some_and(|own| own != name) {
            return None;
        }
        let password = self
            .password
            .as_deref()
            .map(str::trim)
            .map(StoredPassword::parse);
        let rights = self.rights.transpose().map_err(|error| error.to_string());
        let password = password.transpose().map_err(|error| error.to_string());
        // Without rights that are understood it is not let in: one that is left out could be one that denies.
        let (password, rights) = match (password, rights) {
            (Ok(password), Ok(rights)) => (password, rights),
            (Err(error), _) | (_, Err(error)) => {
                // The name may hold anything.
                let reason = format!("{directory}, user {name:?}: {error}");
                tracing::warn!(
                    reason,
                    "a user cannot log in: what a database says of it is wrong"
                );
                (None, None)
            }
        };
        let groups = self.groups.iter().map(|group| group.trim());
        let attributes = self.attributes.into_iter();
        Some(Found {
            password,
            identity: Identity {
                is_administrator: self.is_administrator,
                groups: groups
                    .filter(|group| !group.is_empty())
                    .map(Arc::from)
                    .collect::<BTreeSet<Arc<str>>>(),
                attributes: attributes
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
                own_rules: rights.map(OwnRules::into_rules),
                ..Identity::of_user(name)
            },
        })
    }
}

/// Whether a field says yes.
pub(super) fn is_yes(text: &str) -> bool {
    let yes = ["1", "true", "t", "yes", "y"];
    yes.iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
}

/// Groups that stand in one text.
pub(super) fn groups_of(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(user_name: Option<&str>, password: Option<&str>) -> Row {
        Row {
            user_name: user_name.map(str::to_owned),
            password: password.map(str::to_owned),
            groups: groups_of("ops, ,night shift,"),
            is_administrator: is_yes("Yes"),
            attributes: [("site".to_owned(), "north".to_owned())].into(),
            rights: None,
        }
    }

    /// Class F: rights that are not understood are not left out.
    #[test]
    fn user_whose_rights_are_wrong_is_not_let_in() {
        let password = StoredPassword::dummy().expose();
        let user = |right: Right| {
            let mut row = row(None, Some(&password));
            row.rights = Some(own_rules(&[right], "test"));
            row.user("anna", "test").expect("is a row")
        };
        let right = |effect: &str, actions: &str, topic: &str, qos_max| Right {
            effect: effect.to_owned(),
            actions: groups_of(actions),
            topic: topic.to_owned(),
            qos_max,
            ..Right::default()
        };
        let good = user(right(
            "allow",
            "publish, subscribe",
            "a/${username}/#",
            Some(1),
        ));
        assert!(good.password.is_some() && good.identity.own_rules.is_some());
        let wrong = [
            right("Allow", "publish", "a", None),
            right("", "publish", "a", None),
            right("deny", "publsh", "a", None),
            right("deny", "publish", "a/#/b", None),
            right("deny", "publish", "", None),
            right("allow", "publish", "a", Some(3)),
            right("allow", "publish", "a", Some(-1)),
        ];
        for right in wrong {
            let said = format!("{right:?}");
            let found = user(right);
            assert!(
                found.password.is_none() && found.identity.own_rules.is_none(),
                "{said}"
            );
        }
        let mut many = row(None, Some(&password));
        let rights: Vec<Right> = (0..=OwnRules::MAX)
            .map(|_| right("allow", "all", "a", None))
            .collect();
        many.rights = Some(own_rules(&rights, "test"));
        assert_eq!(many.user("anna", "test").expect("is a row").password, None);
    }

    #[test]
    fn row_is_a_user_with_all_that_it_says() {
        let stored = StoredPassword::dummy();
        let password = format!("{} \n", stored.expose());
        let found = row(Some("anna"), Some(&password)).user("anna", "test");
        let found = found.expect("is her row");
        assert_eq!(found.password, Some(stored));
        let Identity {
            user,
            groups,
            attributes,
            is_administrator,
            ..
        } = found.identity;
        assert_eq!(user.as_deref(), Some("anna"));
        assert!(is_administrator);
        assert_eq!(groups, ["ops", "night shift"].map(Arc::from).into());
        assert_eq!(attributes.get("site").map(AsRef::as_ref), Some("north"));
        assert!(!is_yes("0") && !is_yes("") && !is_yes("false"));
    }

    /// Class A: who the database takes for `anna` is not `ANNA`, of whom no rule speaks.
    #[test]
    fn row_of_a_name_that_is_written_otherwise_is_nobodys() {
        let password = StoredPassword::dummy().expose();
        for name in ["ANNA", "anna ", "änna", ""] {
            assert!(
                row(Some("anna"), Some(&password))
                    .user(name, "test")
                    .is_none()
            );
        }
        assert!(row(None, Some(&password)).user("anna", "test").is_some());
    }

    /// Class F: a password in the clear, or none, lets nobody in.
    #[test]
    fn password_that_is_no_hash_lets_nobody_in() {
        for password in [None, Some(""), Some("opensesame"), Some("$7$101$x$y")] {
            let found = row(None, password).user("anna", "test").expect("is a row");
            assert_eq!(found.password, None, "{password:?}");
        }
    }
}
