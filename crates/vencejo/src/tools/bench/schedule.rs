//! When each message is due: a schedule that does not wait for anybody's answer.
//!
//! Owns: [`Rate`], [`Schedule`]. Does not own: clocks, sending (see `pace`). Start reading at [`Schedule::due`].
//! Invariant: when something is due depends on the plan alone, not on how a server answers.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::time::Duration;

/// So many in a second, to a thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    in_1000_seconds: NonZeroU64,
}

impl Rate {
    /// So many in a second; one of nothing is one in a thousand seconds.
    pub(super) fn per_second(count: u64) -> Self {
        Self::in_1000_seconds(count.saturating_mul(1000))
    }

    fn in_1000_seconds(count: u64) -> Self {
        Self {
            in_1000_seconds: NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN),
        }
    }

    /// This rate over so many.
    pub(super) fn over(self, count: u32) -> Self {
        Self::in_1000_seconds(self.in_1000_seconds.get() / u64::from(count.max(1)))
    }

    /// So many of this rate.
    pub(super) fn times(self, count: u32) -> Self {
        Self::in_1000_seconds(self.in_1000_seconds.get().saturating_mul(u64::from(count)))
    }

    /// This rate, scaled.
    pub(super) fn scaled(self, scale: Scale) -> Self {
        Self::in_1000_seconds(scale.of(self.in_1000_seconds.get()))
    }

    pub(super) fn as_f64(self) -> f64 {
        self.in_1000_seconds.get() as f64 / 1000.0
    }

    /// When the event with this number is due, if the first is at 0.
    fn at(self, number: u64) -> Duration {
        let nanos =
            u128::from(number) * NANOS_IN_1000_SECONDS / u128::from(self.in_1000_seconds.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are due before `end`.
    fn count_before(self, end: Duration) -> u64 {
        let count = (end.as_nanos() * u128::from(self.in_1000_seconds.get()))
            .div_ceil(NANOS_IN_1000_SECONDS);
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `1000`, `0.5`, `50K`.
    fn from_str(text: &str) -> Result<Self, String> {
        let thousandths = thousandths(text).filter(|rate| (1..=RATE_MAX).contains(rate));
        thousandths.map(Self::in_1000_seconds).ok_or_else(|| {
            "wanted a number in a second, from 0.001 to 10M, like 1000 or 50K".to_owned()
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

/// Part of a scenario that is done, in thousandths of a thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale(u64);

impl Scale {
    pub(super) const ONE: Self = Self(1_000_000);

    /// So much of `number`, rounded, and at least 1.
    pub(super) fn of(self, number: u64) -> u64 {
        let scaled = (u128::from(number) * u128::from(self.0) + 500_000) / 1_000_000;
        u64::try_from(scaled).unwrap_or(u64::MAX).max(1)
    }

    /// So many of `count` clients.
    pub(super) fn clients(self, count: u32) -> u32 {
        u32::try_from(self.of(u64::from(count))).unwrap_or(u32::MAX)
    }

    pub(super) fn as_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 = text.parse().unwrap_or(0.0);
        let is_known = number > 0.0 && number <= 1000.0;
        let parts = Duration::try_from_secs_f64(number)
            .ok()
            .filter(|_| is_known);
        let parts = parts.map(|number| number.as_micros());
        let parts = parts.and_then(|parts| u64::try_from(parts).ok());
        let parts = parts.filter(|parts| *parts > 0).map(Self);
        parts.ok_or_else(|| "wanted a part, from 0.000001 to 1000, like 0.1".to_owned())
    }
}

/// Messages that several senders send in turn, evenly over the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    rate: Rate,
    senders: NonZeroU32,
    /// How long it is not measured, at the beginning.
    warm_up: Duration,
    count: u64,
}

impl Schedule {
    /// All that is due in the warm-up and the time that is measured.
    pub(super) fn for_time(rate: Rate, senders: u32, warm_up: Duration, time: Duration) -> Self {
        Self {
            rate,
            senders: NonZeroU32::new(senders).unwrap_or(NonZeroU32::MIN),
            warm_up,
            count: rate.count_before(warm_up.saturating_add(time)),
        }
    }

    /// One from each sender.
    pub(super) fn one_each(rate: Rate, senders: u32) -> Self {
        Self {
            count: u64::from(senders),
            ..Self::for_time(rate, senders, Duration::ZERO, Duration::ZERO)
        }
    }

    /// How many there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// How many of them are of this sender.
    #[cfg(test)]
    pub(super) fn count_of(&self, sender: u32) -> u64 {
        let senders = u64::from(self.senders.get());
        let rest = u64::from(u64::from(sender) < self.count % senders);
        self.count / senders + rest
    }

    /// When the message with this number is due; nothing is after the last.
    pub(super) fn due(&self, number: u64) -> Option<Duration> {
        (number < self.count).then(|| self.rate.at(number))
    }

    /// Whose it is, and which of theirs.
    pub(super) fn split(&self, number: u64) -> (u32, u64) {
        let senders = u64::from(self.senders.get());
        let sender = u32::try_from(number % senders).unwrap_or(0);
        (sender, number / senders)
    }

    /// When a sender's message is due, whatever sender and message are said to be.
    pub(super) fn due_of(&self, sender: u32, sequence: u64) -> Option<Duration> {
        let senders = u64::from(self.senders.get());
        let number = sequence
            .checked_mul(senders)?
            .checked_add(u64::from(sender));
        number
            .filter(|_| sender < self.senders.get())
            .and_then(|number| self.due(number))
    }

    /// Whether what is due then counts.
    pub(super) fn is_measured(&self, due: Duration) -> bool {
        due >= self.warm_up
    }
}

/// `2.5`, `50K` or `1M` in thousandths; the rest is cut.
pub(super) fn thousandths(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix(['k', 'K', 'm', 'M']) {
        Some(digits) if text.ends_with(['m', 'M']) => (digits, 1_000_000),
        Some(digits) => (digits, 1000),
        None => (text, 1),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) {
        return None;
    }
    let part: String = format!("{part}000").chars().take(3).collect();
    let thousandths = whole.parse::<u64>().ok()?.checked_mul(1000)?;
    thousandths
        .checked_add(part.parse().ok()?)?
        .checked_mul(factor)
}

const NANOS_IN_1000_SECONDS: u128 = 1_000_000_000_000;
/// Ten millions in a second.
const RATE_MAX: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_spread_evenly_over_senders_and_time() {
        let (warm_up, time) = (Duration::from_millis(10), Duration::from_millis(20));
        let schedule = Schedule::for_time(Rate::per_second(1000), 4, warm_up, time);
        assert_eq!(schedule.count(), 30);
        let all: Vec<_> = (0..30).map(|number| schedule.split(number)).collect();
        assert_eq!(all[..6], [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1)]);
        for number in 0..30 {
            let due = schedule.due(number).unwrap();
            assert_eq!(due, Duration::from_millis(number));
            let (sender, sequence) = schedule.split(number);
            assert_eq!(schedule.due_of(sender, sequence), Some(due));
            assert_eq!(schedule.is_measured(due), number >= 10);
        }
        assert_eq!(schedule.due(30), None);
        let of_each: Vec<_> = (0..4).map(|sender| schedule.count_of(sender)).collect();
        assert_eq!(of_each, [8, 8, 7, 7]);
    }

    #[test]
    fn what_a_stranger_says_is_not_due() {
        let schedule = Schedule::one_each(Rate::per_second(10), 3);
        assert_eq!(schedule.due_of(2, 0), Some(Duration::from_millis(200)));
        for (sender, sequence) in [(3, 0), (0, 1), (u32::MAX, u64::MAX)] {
            assert_eq!(schedule.due_of(sender, sequence), None);
        }
    }

    #[test]
    fn slow_rates_do_not_drift() {
        let rate: Rate = "0.3".parse().unwrap();
        let schedule = Schedule::for_time(rate, 1, Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(schedule.count(), 1080);
        assert_eq!(schedule.due(900), Some(Duration::from_secs(3000)));
        let fast: Rate = "3M".parse().unwrap();
        let schedule = Schedule::for_time(fast, 1, Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(
            schedule.due(3_000_000 * 3599),
            Some(Duration::from_secs(3599))
        );
    }

    #[test]
    fn rates_and_scales_are_what_they_say() {
        for (text, rate) in [
            ("1000", 1000.0),
            ("0.5", 0.5),
            ("2.5K", 2500.0),
            ("1M", 1e6),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap().as_f64(), rate, "{text}");
        }
        for text in [
            "", "0", "0.0001", "-1", "K", "1KK", ".5", "1e3", "11M", "1.5.5", "nan",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        let scale: Scale = "0.01".parse().unwrap();
        assert_eq!((scale.clients(50_000), scale.clients(5)), (500, 1));
        assert_eq!(Rate::per_second(250_000).scaled(scale).as_f64(), 2500.0);
        for text in ["0", "-1", "nan", "inf", "1001", "1e-9", ""] {
            assert!(text.parse::<Scale>().is_err(), "{text}");
        }
    }
}
