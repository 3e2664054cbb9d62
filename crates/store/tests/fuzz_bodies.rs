//! The fuzz targets on the stable toolchain: a few thousand seeded inputs each.
//!
//! Owns: the inputs. Does not own: what is checked (see `fuzz/bodies`). Start reading at [`Seeded`].
//! Invariant: the same inputs on every run; the seed of a failure is in its message.

#[path = "../../../fuzz/bodies/records.rs"]
mod records;
#[path = "../../../fuzz/bodies/store_recovery.rs"]
mod store_recovery;

use vencejo_store::codec::Records;

/// `splitmix64`: enough for inputs.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u8 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u8::try_from((mixed ^ (mixed >> 31)) % bound).expect("bounds fit a byte")
    }
}

/// Names the seed when a run panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

/// Bodies of small numbers with right lengths: many of them are records, of few Sessions.
#[test]
fn runs_of_almost_records() {
    let mut record_count = 0;
    for seed in 0..20_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut input = vec![seeded.below(32)];
        for _ in 0..seeded.below(60) {
            let kind = 1 + seeded.below(13);
            let (least, more) = match kind {
                // Only a session; a session and one number; two numbers.
                2 | 13 => (1, 1),
                7 | 11 => (2, 1),
                6 | 10 => (3, 1),
                5 => (7, 6),
                _ => (4, 6),
            };
            let len = least + seeded.below(more);
            input.extend([len + 1, kind]);
            input.extend((0..len).map(|_| seeded.below(5)));
        }
        let found = Records::new(input.get(1..).unwrap_or_default());
        record_count += found.map_while(Result::ok).count();
        records::run(&input);
    }
    assert!(record_count > 50_000, "only {record_count} records");
}

/// A few changes to the files of a log, each of a few bytes.
#[test]
fn a_log_of_any_bytes_opens() {
    for seed in 0..3_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let len = seeded.below(40);
        let bytes: Vec<u8> = (0..len).map(|_| seeded.below(256)).collect();
        store_recovery::run(&bytes);
    }
}
