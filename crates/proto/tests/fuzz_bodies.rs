//! The fuzz targets on the stable toolchain: a few thousand seeded inputs each.
//!
//! Owns: the inputs. Does not own: what is checked (see `fuzz/bodies`). Start reading at [`Seeded`].
//! Invariant: the same inputs on every run; the seed of a failure is in its message.
#![allow(
    clippy::disallowed_methods,
    reason = "any instant will do to start from"
)]

#[path = "../../../fuzz/bodies/connection_ops.rs"]
mod connection_ops;
#[path = "../../../fuzz/bodies/decode.rs"]
mod decode;
#[path = "../../../fuzz/bodies/session_ops.rs"]
mod session_ops;
#[path = "../../../fuzz/bodies/topic_filters.rs"]
mod topic_filters;

use vencejo_proto::Version;
use vencejo_proto::packet::{Connect, Packet, encode};

const RUNS: u64 = 4000;

/// `splitmix64`: enough for inputs.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("a small number, a short packet")
    }

    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max);
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

fn each_run(body: impl Fn(&mut Seeded)) {
    for seed in 0..RUNS {
        let _guard = Told(seed);
        body(&mut Seeded(seed));
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

/// Packets a Client may send, one after the other, with some bytes changed.
fn stream(seeded: &mut Seeded) -> Vec<u8> {
    let version = [Version::V31, Version::V311, Version::V5][seeded.below(3)];
    let mut connect = Connect::new(version, "c");
    if version == Version::V5 && seeded.below(2) == 0 {
        connect.properties.authentication_method = Some("m".to_owned());
    }
    if version == Version::V5 && seeded.below(2) == 0 {
        connect.properties.topic_alias_maximum = 2;
        let size = 5 + u32::try_from(seeded.below(100)).expect("a small number, a short packet");
        connect.properties.maximum_packet_size_bytes = std::num::NonZeroU32::new(size);
    }
    let mut stream = vec![seeded.next().to_le_bytes()[0]];
    encode(&Packet::Connect(Box::new(connect)), version, &mut stream)
        .expect("a small number, a short packet");
    let later: [&[u8]; 9] = [
        &[0xC0, 0],
        b"\x30\x07\x00\x01a\x03\x23\x00\x01",
        b"\x30\x06\x00\x00\x03\x23\x00\x01",
        b"\x32\x06\x00\x01a\x00\x01\x00",
        b"\x34\x06\x00\x01a\x00\x02\x00",
        &[0x62, 2, 0, 2],
        b"\x82\x07\x00\x01\x00\x00\x01#\x00",
        b"\xF0\x06\x18\x04\x15\x00\x01m",
        &[0xE0, 0],
    ];
    for _ in 0..seeded.below(12) {
        stream.extend_from_slice(later[seeded.below(later.len())]);
    }
    for _ in 0..seeded.below(3) {
        let at = seeded.below(stream.len());
        stream[at] = seeded.next().to_le_bytes()[0];
    }
    stream
}

#[test]
fn decode_answers_seeded_bytes() {
    each_run(|seeded| {
        let mut input = seeded.bytes(100);
        if let Some(len) = input.get_mut(1) {
            *len &= 0x1F;
        }
        decode::run(&input);
        decode::run(&stream(seeded)[1..]);
    });
}

#[test]
fn a_connection_survives_seeded_streams() {
    each_run(|seeded| connection_ops::run(&stream(seeded)));
}

#[test]
fn topics_match_as_read_for_seeded_filters() {
    each_run(|seeded| {
        let mut text = |alphabet: &[u8]| -> Vec<u8> {
            let len = seeded.below(10);
            (0..len)
                .map(|_| alphabet[seeded.below(alphabet.len())])
                .collect()
        };
        let filter = text(b"a/+#$/");
        let name = text(b"a/$");
        topic_filters::run(&[&filter[..], &[0], &name].concat());
    });
}

#[test]
fn a_session_survives_seeded_operations() {
    each_run(|seeded| session_ops::run(&seeded.bytes(300)));
}
