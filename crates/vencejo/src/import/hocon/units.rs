//! Durations, sizes and truths as EMQX and NanoMQ write them.
//!
//! Owns: [`duration_ms`], [`size_bytes`], [`truth`], [`rate`]. Does not own: what they are of. Start reading at any. Invariant:
//! what is not understood is `None`, never a guess.

/// Milliseconds in `15s`, `1h30m`, `100ms`, `2 d`; a number alone counts `bare_ms` each.
pub(crate) fn duration_ms(text: &str, bare_ms: u64) -> Option<u64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<u64>() {
        return number.checked_mul(bare_ms);
    }
    let mut rest = text;
    let mut all: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|one: char| !one.is_ascii_digit() && one != '.')?;
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind
            .find(|one: char| !one.is_ascii_alphabetic())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let unit_ms: u64 = match unit.to_ascii_lowercase().as_str() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return None,
        };
        all = all.checked_add(times(number, unit_ms)?)?;
        rest = behind.trim_start();
    }
    (all > 0 || text.starts_with('0')).then_some(all)
}

/// The same in whole seconds, more rather than less.
pub(crate) fn duration_seconds(text: &str, bare_ms: u64) -> Option<u64> {
    duration_ms(text, bare_ms).map(|ms| ms.div_ceil(1000))
}

/// Bytes in `1MB`, `16KB`, `512`; 1 KB are 1024.
pub(crate) fn size_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|one: char| !one.is_ascii_digit() && one != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" | "kib" => 1 << 10,
        "mb" | "m" | "mib" => 1 << 20,
        "gb" | "g" | "gib" => 1 << 30,
        _ => return None,
    };
    times(number, unit)
}

/// `1000/s`, `1MB/10s`: how many in one second, at least one.
pub(crate) fn rate(text: &str) -> Option<u64> {
    let (number, interval) = text.split_once('/')?;
    let interval = match interval.trim() {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => duration_ms(other, 1000)?,
    };
    let number = size_bytes(number)?;
    Some(number.checked_mul(1000)?.checked_div(interval)?.max(1))
}

/// `true` or `false` in one of the words of HOCON.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Some(true),
        "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// A decimal number times `unit`, without its fraction.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    // Of a fraction nine digits are enough.
    let fraction: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let fraction: u64 = fraction.parse().ok()?;
    let billion = u128::from(fraction) * u128::from(unit) / 1_000_000_000;
    whole
        .checked_mul(unit)?
        .checked_add(u64::try_from(billion).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, ms) in [
            ("15s", Some(15_000)),
            ("1m", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("100ms", Some(100)),
            ("2d", Some(172_800_000)),
            ("0s", Some(0)),
            ("5", Some(5000)),
            ("", None),
            ("s", None),
            ("5x", None),
            ("-5s", None),
            ("infinity", None),
            ("99999999999999999999d", None),
            ("99999999999999999d", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(duration_ms(text, 1000), ms, "{text}");
        }
        assert_eq!(duration_seconds("1500ms", 1000), Some(2));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("512", Some(512)),
            ("1KB", Some(1024)),
            ("1 mb", Some(1 << 20)),
            ("1.5MB", Some(3 << 19)),
            ("2GB", Some(2 << 30)),
            ("x", None),
            ("", None),
            ("1TB", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(size_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn rates_are_of_one_second() {
        for (text, of) in [
            ("1000/s", Some(1000)),
            ("60/m", Some(1)),
            ("1/h", Some(1)),
            ("1MB/s", Some(1 << 20)),
            ("100/10s", Some(10)),
            ("infinity", None),
            ("1/0s", None),
            ("a/s", None),
        ] {
            assert_eq!(rate(text), of, "{text}");
        }
    }
}
