//! What one Client may publish and subscribe to.
//!
//! Owns: [`Permissions`] and when one Topic Filter covers another. Does not own: who gets which.
//! Start reading at [`Permissions`]. Invariant: a Subscription is allowed only if every topic it can
//! match is allowed.

use proto::topic;

/// The rights of a Client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
}

impl Permissions {
    /// Everything is allowed.
    #[must_use]
    pub const fn allow_all() -> Self {
        Self {
            publish: None,
            subscribe: None,
        }
    }

    /// Only what these Topic Filters match; `None` allows everything.
    #[must_use]
    pub const fn only(publish: Option<Vec<String>>, subscribe: Option<Vec<String>>) -> Self {
        Self { publish, subscribe }
    }

    /// Whether the Client may publish to this Topic Name.
    #[must_use]
    pub fn allows_publish(&self, name: &str) -> bool {
        let Some(filters) = &self.publish else {
            return true;
        };
        filters.iter().any(|filter| topic::matches(filter, name))
    }

    /// Whether the Client may subscribe to this Topic Filter, with or without `$share/`.
    #[must_use]
    pub fn allows_subscribe(&self, filter: &str) -> bool {
        let Some(filters) = &self.subscribe else {
            return true;
        };
        let filter = topic::split_shared(filter).map_or(filter, |(_, inner)| inner);
        filters.iter().any(|allowed| covers(allowed, filter))
    }
}

/// Whether every Topic Name that `filter` matches is matched by `allowed` too. O(length).
fn covers(allowed: &str, filter: &str) -> bool {
    // [MQTT-4.7.2-1] A leading wildcard does not reach `$` topics.
    if filter.starts_with('$') && allowed.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = filter.split('/');
    for allowed in allowed.split('/') {
        match (allowed, levels.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (allowed, Some(level)) if allowed == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_allowed_only_if_all_it_matches_is_allowed() {
        let covered = [
            ("#", "a/+/#"),
            ("a/#", "a"),
            ("a/+", "a/b"),
            ("a/+", "a/+"),
            ("a/#", "a/#"),
        ];
        for (allowed, filter) in covered {
            assert!(covers(allowed, filter), "{allowed} should cover {filter}");
        }
        let wider = [
            ("a/+", "a/#"),
            ("a/b", "a/+"),
            ("a/b", "a"),
            ("a", "a/b"),
            ("#", "$SYS/#"),
        ];
        for (allowed, filter) in wider {
            assert!(
                !covers(allowed, filter),
                "{allowed} should not cover {filter}"
            );
        }
    }

    #[test]
    fn a_shared_subscription_is_judged_by_its_topic_filter() {
        let permissions = Permissions::only(None, Some(vec!["a/#".to_owned()]));
        assert!(permissions.allows_subscribe("$share/g/a/b"));
        assert!(!permissions.allows_subscribe("$share/a/b"));
        assert!(permissions.allows_publish("anything"));
    }
}
