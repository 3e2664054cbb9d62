//! The fuzz target of the client on the stable toolchain: a few thousand seeded inputs.
//!
//! Owns: the inputs. Does not own: what is checked (see `fuzz/bodies`). Start reading at
//! [`a_client_survives_seeded_servers`]. Invariant: the same inputs on every run; the seed of a failure is in its message.

#[path = "../../../fuzz/bodies/client.rs"]
mod client;

const RUNS: u64 = 4000;

/// `splitmix64`: enough for inputs.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_le_bytes()[0]
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

/// Half of them begin with a CONNACK of success, since little can happen without one.
#[test]
fn a_client_survives_seeded_servers() {
    for seed in 0..RUNS {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let mut data = vec![seeded.next()];
        if seed % 2 == 0 {
            data.extend([12, 0, 7, 3, 0, 0, 0, 0, 0, 0]);
        }
        data.extend((0..300).map(|_| seeded.next()));
        client::run(&data);
    }
}
