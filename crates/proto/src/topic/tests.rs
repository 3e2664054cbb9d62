//! Topic Names and Topic Filters against the examples of section 4.7.

use proptest::prelude::*;

use super::*;

/// Verifies [MQTT-4.7.3-1]: an empty Topic Name or Topic Filter is refused.
/// Verifies [v3.1.1 MQTT-4.7.3-1]: the same in 3.1.1.
#[test]
fn nothing_is_no_topic() {
    assert_eq!(check_name(""), Err(Malformed::TopicNameEmpty));
    assert_eq!(check_filter(""), Err(Malformed::TopicFilterEmpty));
}

/// Verifies [MQTT-3.3.2-2] [MQTT-4.7.0-1]: a Topic Name holds no wildcard.
/// Verifies [v3.1.1 MQTT-3.3.2-2] [v3.1.1 MQTT-4.7.1-1]: the same in 3.1.1.
#[test]
fn a_topic_name_holds_no_wildcard() {
    for name in ["#", "+", "a/#", "a/+/b", "a+", "#a"] {
        assert_eq!(
            check_name(name),
            Err(Malformed::WildcardInTopicName),
            "{name}"
        );
    }
    for name in ["/", "a//b", "$SYS/x", " ", "A/\u{FEFF}"] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
}

/// Verifies [MQTT-4.7.1-1]: `#` is the whole last level.
/// Verifies [v3.1.1 MQTT-4.7.1-2]: the same in 3.1.1.
#[test]
fn the_multi_level_wildcard_is_the_whole_last_level() {
    for filter in [
        "sport/tennis#",
        "sport/tennis/#/ranking",
        "#/a",
        "##",
        "+#",
        "a/#b",
    ] {
        assert_eq!(
            check_filter(filter),
            Err(Malformed::TopicFilterMultiLevel),
            "{filter}"
        );
    }
    for filter in ["#", "/#", "sport/#", "+/#", "$SYS/#"] {
        assert_eq!(check_filter(filter), Ok(false), "{filter}");
    }
}

/// Verifies [MQTT-4.7.1-2]: `+` is a whole level, at any place.
/// Verifies [v3.1.1 MQTT-4.7.1-3]: the same in 3.1.1.
#[test]
fn the_single_level_wildcard_is_a_whole_level() {
    for filter in ["sport+", "a/+b", "a/b+/c", "++"] {
        assert_eq!(
            check_filter(filter),
            Err(Malformed::TopicFilterSingleLevel),
            "{filter}"
        );
    }
    for filter in ["+", "+/tennis/#", "sport/+/player1", "/+", "+/+"] {
        assert_eq!(check_filter(filter), Ok(false), "{filter}");
    }
}

/// Verifies [MQTT-4.8.2-1]: `$share/` is followed by a ShareName of at least one character.
/// Verifies [MQTT-4.8.2-2]: without `/`, `+`, `#`, and by `/` and a Topic Filter.
#[test]
fn a_shared_subscription_has_a_name_and_a_filter() {
    for filter in [
        "$share/",
        "$share/a",
        "$share//b",
        "$share/a/",
        "$share/+/b",
        "$share/a#/b",
    ] {
        assert_eq!(
            check_filter(filter),
            Err(Malformed::ShareNameInvalid),
            "{filter}"
        );
    }
    assert_eq!(
        check_filter("$share/a/b#"),
        Err(Malformed::TopicFilterMultiLevel)
    );
    for filter in ["$share/a/b", "$share/a//", "$share/a/#", "$share/$share/+"] {
        assert_eq!(check_filter(filter), Ok(true), "{filter}");
    }
    assert_eq!(check_filter("$shared/a"), Ok(false));
    assert_eq!(split_shared("$share/group/a/b"), Some(("group", "a/b")));
    assert_eq!(split_shared("$share/group//b"), Some(("group", "/b")));
    assert_eq!(split_shared("a/b"), None);
}

/// Verifies [MQTT-4.7.2-1]: a leading wildcard does not match a leading `$`.
/// Verifies [v3.1.1 MQTT-4.7.2-1]: the same in 3.1.1.
#[test]
fn a_leading_wildcard_does_not_match_a_leading_dollar() {
    assert!(!matches("#", "$SYS/a"));
    assert!(!matches("+/a", "$SYS/a"));
    assert!(!matches("+", "$SYS"));
    assert!(matches("$SYS/#", "$SYS/a"));
    assert!(matches("$SYS/#", "$SYS"));
    assert!(matches("a/#", "a/$SYS"));
    assert!(matches("+/+", "a/$SYS"));
}

/// Verifies [MQTT-4.7.3-4]: topics are compared as they are, character by character.
/// Verifies [v3.1.1 MQTT-4.7.3-4]: the same in 3.1.1.
#[test]
fn filters_match_as_in_the_examples_of_the_standard() {
    for (filter, name, is_match) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/#", "sport", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("ACCOUNTS", "Accounts", false),
        ("a", "a/", false),
        ("a/", "a", false),
        ("\u{E9}", "e\u{301}", false),
        ("\u{FEFF}a", "a", false),
    ] {
        assert_eq!(matches(filter, name), is_match, "{filter} {name}");
    }
}

/// Section 4.7 read aloud, level by level.
fn matches_naively(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, name @ ..]) => matches_naively(filter, name),
        ([level, filter @ ..], [other, name @ ..]) => {
            level == other && matches_naively(filter, name)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn matching_is_what_the_naive_reading_says(
        filter in "(\\$|[ab+]?)(/[ab$+]?){0,4}(/#)?",
        name in "(\\$|[ab]?)(/[ab$]?){0,4}",
    ) {
        prop_assume!(check_filter(&filter).is_ok() && check_name(&name).is_ok());
        let filter_levels: Vec<_> = filter.split('/').collect();
        let name_levels: Vec<_> = name.split('/').collect();
        let is_hidden = name.starts_with('$') && matches!(filter_levels.first(), Some(&("+" | "#")));
        let expected = !is_hidden && matches_naively(&filter_levels, &name_levels);
        prop_assert_eq!(matches(&filter, &name), expected, "{} {}", filter, name);
    }

    #[test]
    fn any_text_is_checked_without_a_panic(filter in "(\\$share)?[/+#a$]{0,12}") {
        let is_shared = check_filter(&filter);
        if is_shared == Ok(true) {
            let (share_name, inner) = split_shared(&filter).unwrap();
            prop_assert!(!share_name.is_empty() && !inner.is_empty());
        }
        let is_plain_name = check_name(&filter).is_ok();
        prop_assert_eq!(is_plain_name, !filter.is_empty() && !filter.contains(['+', '#']));
    }
}
