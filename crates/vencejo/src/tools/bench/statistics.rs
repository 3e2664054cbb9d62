//! Medians and how far they can be believed, without assuming how figures are spread.
//!
//! Owns: [`median`], [`median_interval`], [`ratio`]. Does not own: which figures (see `compare`).
//! Start reading at [`ratio`]. Invariant: an interval says its coverage, which is computed exactly and is at least
//! [`COVERAGE`]; where so few figures cannot reach that there is no interval.
//!
//! Both intervals are order statistics: that of a median by the binomial distribution (the sign test turned around), that
//! of a ratio by the distribution of Mann and Whitney over all ratios of two figures (the estimate of Hodges and Lehmann).

/// The least probability with which an interval holds what it is for.
pub(super) const COVERAGE: f64 = 0.95;

/// A value between two others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) coverage: f64,
}

/// The middle of these; `None` of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let low = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let high = sorted.get(sorted.len() / 2)?;
    Some((low + high) / 2.0)
}

/// Where the median of all such runs is; `None` of fewer than 6.
pub(super) fn median_interval(values: &[f64]) -> Option<Interval> {
    let sorted = sorted(values);
    // P(Bin(n, 1/2) < cut): the probability that the median is below the figure at `cut`.
    let n = sorted.len();
    let all = 2_f64.powi(i32::try_from(n).ok()?);
    let (mut ways, mut below, mut best) = (1.0, 0.0, None);
    for cut in 1..=n / 2 {
        below += ways;
        let left = (n - cut + 1) as f64;
        ways = ways * left / cut as f64;
        let coverage = 1.0 - 2.0 * below / all;
        if coverage >= COVERAGE {
            best = Some((cut, coverage));
        }
    }
    let (cut, coverage) = best?;
    let low = *sorted.get(cut - 1)?;
    let high = *sorted.get(n - cut)?;
    Some(Interval {
        low,
        high,
        coverage,
    })
}

/// How much larger `new` is than `old`: the middle of all ratios, and where it is; no interval of fewer than 4 on both
/// sides. `None` where a figure is not above 0.
pub(super) fn ratio(old: &[f64], new: &[f64]) -> Option<(f64, Option<Interval>)> {
    if old
        .iter()
        .chain(new)
        .any(|value| !(*value > 0.0 && value.is_finite()))
    {
        return None;
    }
    let ratios = new
        .iter()
        .flat_map(|new| old.iter().map(move |old| new / old));
    let ratios = sorted(&ratios.collect::<Vec<_>>());
    let estimate = median(&ratios)?;
    Some((estimate, ratio_interval(&ratios, old.len(), new.len())))
}

/// By the distribution of Mann and Whitney: of how many of all orders of the figures no more than so many ratios lie
/// on one side.
fn ratio_interval(ratios: &[f64], old: usize, new: usize) -> Option<Interval> {
    let orders = orders(old, new);
    let all: f64 = orders.iter().sum();
    let (mut below, mut best) = (0.0, None);
    for (at, ways) in orders.iter().enumerate().take(ratios.len() / 2) {
        below += ways;
        let coverage = 1.0 - 2.0 * below / all;
        if coverage >= COVERAGE {
            best = Some((at, coverage));
        }
    }
    let (at, coverage) = best?;
    let low = *ratios.get(at)?;
    let high = *ratios.get(ratios.len() - 1 - at)?;
    Some(Interval {
        low,
        high,
        coverage,
    })
}

/// How many orders of `m` and `n` figures have 0, 1, 2, ... pairs in which one of the first stands above one of the
/// second: the Gaussian binomial coefficient, factor by factor.
fn orders(m: usize, n: usize) -> Vec<f64> {
    let mut counts = vec![0.0; m * n + 1];
    if let Some(first) = counts.first_mut() {
        *first = 1.0;
    }
    for factor in 1..=m {
        // Times 1 - x^(n + factor) ...
        for at in (n + factor..counts.len()).rev() {
            let lower = counts.get(at - n - factor).copied().unwrap_or(0.0);
            if let Some(count) = counts.get_mut(at) {
                *count -= lower;
            }
        }
        // ... over 1 - x^factor.
        for at in factor..counts.len() {
            let lower = counts.get(at - factor).copied().unwrap_or(0.0);
            if let Some(count) = counts.get_mut(at) {
                *count += lower;
            }
        }
    }
    counts
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    /// As tables of the sign test have it: 6 figures are the fewest, from 9 on the outermost are left out.
    #[test]
    fn a_median_has_an_interval_of_six_figures_on() {
        let of = |n: u32| {
            let values: Vec<f64> = (1..=n).map(f64::from).collect();
            median_interval(&values).map(|of| (of.low, of.high, (of.coverage * 1e4).round()))
        };
        assert_eq!((of(0), of(1), of(5)), (None, None, None));
        assert_eq!(of(6), Some((1.0, 6.0, 9688.0)));
        assert_eq!(of(8), Some((1.0, 8.0, 9922.0)));
        assert_eq!(of(9), Some((2.0, 8.0, 9609.0)));
        assert_eq!(of(20), Some((6.0, 15.0, 9586.0)));
    }

    /// Counted one by one, for few figures.
    #[test]
    fn orders_are_as_many_as_there_are() {
        for (m, n) in [(1, 1), (2, 3), (3, 3), (4, 4), (5, 2)] {
            let mut counted = vec![0.0; m * n + 1];
            for mask in 0_u32..1 << (m + n) {
                if mask.count_ones() as usize != m {
                    continue;
                }
                let is_first = |at: usize| mask >> at & 1 == 1;
                let above = (0..m + n).filter(|at| is_first(*at));
                let above = above.map(|at| (0..at).filter(|lower| !is_first(*lower)).count());
                counted[above.sum::<usize>()] += 1.0;
            }
            assert_eq!(orders(m, n), counted, "{m} and {n}");
        }
    }

    #[test]
    fn a_ratio_has_an_interval_of_four_figures_on_each_side_on() {
        let few = ratio(&[1.0, 1.1, 1.2], &[2.0, 2.1, 2.2]).unwrap();
        assert_eq!(few.1, None);
        let old = [1.0, 1.1, 1.2, 1.3];
        let new = old.map(|value| value * 2.0);
        let (estimate, interval) = ratio(&old, &new).unwrap();
        let interval = interval.unwrap();
        assert!((estimate - 2.0).abs() < 0.01, "{estimate}");
        assert!(interval.low > 1.0 && interval.high < 3.0, "{interval:?}");
        // 2 of 70 orders are left out.
        assert!(
            (interval.coverage - 68.0 / 70.0).abs() < 1e-9,
            "{interval:?}"
        );
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(ratio(&old, &[wrong]), None);
        }
    }

    /// Figures of one distribution: a difference that is not there is seen in about one of twenty pairs of sets.
    #[test]
    fn what_does_not_differ_is_seldom_said_to() {
        for seed in 1..=3_u64 {
            let mut random = seed;
            let mut next = || {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                1.0 + ((random >> 40) as f64) / f64::from(1 << 24)
            };
            let wrong = (0..1000).filter(|_| {
                let mut set = || [next(), next(), next(), next(), next(), next(), next()];
                let (_, interval) = ratio(&set(), &set()).unwrap();
                interval.is_some_and(|of| of.low > 1.0 || of.high < 1.0)
            });
            let wrong = wrong.count();
            assert!((10..=75).contains(&wrong), "{wrong} of 1000, seed {seed}");
        }
    }
}
