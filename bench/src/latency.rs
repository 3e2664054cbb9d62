//! How long messages took, counted in buckets that are 1/32 wide.
//!
//! Owns: [`Latency`]. Start reading at [`Latency::add`]. Invariant: a percentile is at most 1/32 too large.

/// Times in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    buckets: Vec<u64>,
    count: u64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; (64 - SUB_BITS as usize + 1) << SUB_BITS],
            count: 0,
        }
    }

    pub(crate) fn add(&mut self, nanos: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(nanos)) {
            *bucket += 1;
            self.count += 1;
        }
    }

    /// What so many of a thousand are not above; 0 if there was nothing.
    pub(crate) fn at(&self, per_mille: u64) -> u64 {
        let wanted = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return end_of(at);
            }
        }
        0
    }
}

fn bucket_of(nanos: u64) -> usize {
    let shift = (64 - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
    let mantissa = nanos >> shift;
    usize::try_from((u64::from(shift) << SUB_BITS) + mantissa).unwrap_or(usize::MAX)
}

/// The largest that falls into a bucket.
fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let mantissa = bucket - (shift << SUB_BITS);
    (mantissa << shift) | ((1_u64 << shift) - 1)
}

/// Each power of two has two to this many buckets.
const SUB_BITS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_ends_close_above_what_it_holds() {
        for nanos in (0..200).chain([1_000, 12_345, 1 << 40, u64::MAX]) {
            let end = end_of(bucket_of(nanos));
            assert!(
                end >= nanos && end - nanos <= nanos / 32,
                "{nanos} ends at {end}"
            );
        }
    }

    #[test]
    fn percentiles_count_from_below() {
        let mut latency = Latency::new();
        assert_eq!(latency.at(500), 0);
        for nanos in 1..=1000 {
            latency.add(nanos);
        }
        assert!((500..=516).contains(&latency.at(500)));
        assert!((990..=1022).contains(&latency.at(990)));
    }
}
