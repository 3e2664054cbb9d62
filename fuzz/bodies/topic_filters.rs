//! A filter and a name, parted by a zero: matching is what the naive reading of section 4.7 says.

use vencejo_proto::topic::{check_filter, check_name, matches};

/// Compares `matches` with a recursive reading of the standard.
pub(crate) fn run(data: &[u8]) {
    let Some((filter, name)) = std::str::from_utf8(data)
        .ok()
        .and_then(|text| text.split_once('\0'))
    else {
        return;
    };
    let is_shared = check_filter(filter);
    if is_shared != Ok(false) || check_name(name).is_err() || filter.len() > 200 {
        return;
    }
    let filter_levels: Vec<_> = filter.split('/').collect();
    let name_levels: Vec<_> = name.split('/').collect();
    let is_hidden = name.starts_with('$') && filter.starts_with(['+', '#']);
    let expected = !is_hidden && naive(&filter_levels, &name_levels);
    assert_eq!(matches(filter, name), expected, "{filter} {name}");
}

fn naive(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, name @ ..]) => naive(filter, name),
        ([level, filter @ ..], [other, name @ ..]) => level == other && naive(filter, name),
        _ => false,
    }
}
