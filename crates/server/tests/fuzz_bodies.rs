//! The fuzz target of ACL files on the stable toolchain: some thousand seeded inputs.
//!
//! Owns: the inputs. Does not own: what is checked (see `fuzz/bodies`). Start reading at [`Seeded`].
//! Invariant: the same inputs on every run; the seed of a failure is in its message.

// The fuzz crate knows it by its whole name.
extern crate proto as vencejo_proto;

#[path = "../../../fuzz/bodies/acl_file.rs"]
mod acl_file;

use vencejo_server::authorization::parse_acl;

/// `splitmix64`: enough for inputs.
struct Seeded(u64);

impl Seeded {
    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let at = (mixed ^ (mixed >> 31)) % u64::try_from(choices.len()).expect("few");
        choices[usize::try_from(at).expect("few")]
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

#[test]
fn acl_files_mean_what_reading_them_line_by_line_means() {
    let levels = [
        "a", "b", "ann", "c1", "+", "%u", "%c", "x%c", "%u%c", "$x", "",
    ];
    let names = ["ann", "bob", "", "c1", "a/b", "+", "a#", "%u"];
    let mut files = 0;
    for seed in 0..30_000 {
        let _guard = Told(seed);
        let mut seeded = Seeded(seed);
        let plain = ["a", "b", "ann", "c1", "xc1", "annc1", "$x", ""];
        let mut topic = vec![seeded.one_of(&plain)];
        while seeded.one_of(&["more", "more", "end"]) == "more" {
            topic.push(seeded.one_of(&plain));
        }
        let (user, client_id) = (seeded.one_of(&names), seeded.one_of(&names));
        let mut file = String::new();
        while seeded.one_of(&["more", "more", "more", "more", "end"]) == "more" {
            match seeded.one_of(&["rule", "rule", "rule", "user", "other"]) {
                "rule" => {
                    file.push_str(seeded.one_of(&["topic ", "topic  ", "pattern "]));
                    file.push_str(seeded.one_of(&["", "read ", "write ", "readwrite ", "deny "]));
                    file.push_str(seeded.one_of(&levels));
                    while seeded.one_of(&["more", "end"]) == "more" {
                        file.push('/');
                        file.push_str(seeded.one_of(&levels));
                    }
                    file.push_str(seeded.one_of(&["", "", "/#", " "]));
                }
                "user" => {
                    file.push_str("user ");
                    file.push_str(seeded.one_of(&["ann", "bob", "a/b", "+"]));
                }
                _ => file.push_str(seeded.one_of(&["", "# why", "topic a b", " topic a", "\r"])),
            }
            file.push('\n');
        }
        files += u32::from(parse_acl(file.as_bytes(), "acl").is_ok_and(|rules| !rules.is_empty()));
        let input = [&topic.join("/"), user, client_id, &file].join("\0");
        acl_file::run(input.as_bytes());
    }
    assert!(files > 10_000, "{files} of them were files");
}
