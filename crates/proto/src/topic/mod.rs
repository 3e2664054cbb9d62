//! Topic Names and Topic Filters (section 4.7), Shared Subscription filters (section 4.8.2).
//!
//! Owns: what is well-formed, and which filter matches which name, as text.
//! Does not own: the subscription tree (see the engine). Start reading at [`check_filter`].
//! Invariant: nothing is normalised, [MQTT-4.7.3-4], [v3.1.1 MQTT-4.7.3-4]; no recursion.

#[cfg(test)]
mod tests;

use crate::packet::Malformed;

/// Checks a Topic Name.
/// # Errors
/// It is empty or holds a wildcard character.
pub fn check_name(name: &str) -> Result<(), Malformed> {
    // [MQTT-4.7.3-1] [v3.1.1 MQTT-4.7.3-1]
    if name.is_empty() {
        return Err(Malformed::TopicNameEmpty);
    }
    // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [v3.1.1 MQTT-3.3.2-2] [v3.1.1 MQTT-4.7.1-1]
    if name.bytes().any(|byte| byte == b'+' || byte == b'#') {
        return Err(Malformed::WildcardInTopicName);
    }
    Ok(())
}

/// Checks a Topic Filter, with or without `$share/`; returns whether it is a Shared Subscription's.
/// # Errors
/// It is empty, a wildcard does not stand for whole levels, or the ShareName is not one.
pub fn check_filter(filter: &str) -> Result<bool, Malformed> {
    match filter.strip_prefix("$share") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
            let (share_name, inner) = rest
                .strip_prefix('/')
                .and_then(|rest| rest.split_once('/'))
                .ok_or(Malformed::ShareNameInvalid)?;
            if share_name.is_empty() || share_name.contains(['+', '#']) || inner.is_empty() {
                return Err(Malformed::ShareNameInvalid);
            }
            check_plain_filter(inner)?;
            Ok(true)
        }
        _ => check_plain_filter(filter).map(|()| false),
    }
}

/// The ShareName and the Topic Filter of a well-formed Shared Subscription filter, or `None`.
#[must_use]
pub fn split_shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

fn check_plain_filter(filter: &str) -> Result<(), Malformed> {
    // [MQTT-4.7.3-1] [v3.1.1 MQTT-4.7.3-1]
    if filter.is_empty() {
        return Err(Malformed::TopicFilterEmpty);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        // [MQTT-4.7.1-1] [v3.1.1 MQTT-4.7.1-2]
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(Malformed::TopicFilterMultiLevel);
        }
        // [MQTT-4.7.1-2] [v3.1.1 MQTT-4.7.1-3]
        if level.contains('+') && level != "+" {
            return Err(Malformed::TopicFilterSingleLevel);
        }
    }
    Ok(())
}

/// Whether `filter` (well-formed, without `$share/`) matches `name`. O(length).
#[must_use]
pub fn matches(filter: &str, name: &str) -> bool {
    // [MQTT-4.7.2-1] [v3.1.1 MQTT-4.7.2-1]
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// How many levels a Topic Name or Topic Filter has.
#[must_use]
pub fn level_count(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'/').count() + 1
}
