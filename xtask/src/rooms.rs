//! What one PUBLISH costs in each room, in instructions, against what it is known to cost.
//!
//! Owns: counting with callgrind, `bench/rooms/counts.toml`, the tolerance. Does not own: the rooms (see `bench/rooms`).
//! Start reading at [`run`]. Invariants: a count does not depend on what else the machine does; nothing is counted that
//! happens once at the start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::pages::Mode;
use crate::say;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// Whose instructions these are: others are not compared with them.
    counted_by: String,
    instructions: BTreeMap<String, u64>,
}

/// Counts every room; writes the counts down, or says where they are not what they were.
///
/// # Errors
/// A sentence if something cannot be built, run or read.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<bool, String> {
    let program = build(root)?;
    let listed = output_of(&mut Command::new(&program))?;
    let mut counted = BTreeMap::new();
    for room in listed.lines() {
        let (few, many) = (count(&program, room, FEW)?, count(&program, room, MANY)?);
        counted.insert(room.to_owned(), many.saturating_sub(few) / (MANY - FEW));
    }
    let path = root.join(FILE);
    let compiler = compiler()?;
    if mode == Mode::Write {
        let text = written(&compiler, &counted);
        say(&text);
        fs::write(&path, text).map_err(|error| format!("{FILE}: {error}"))?;
        return Ok(true);
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{FILE}: {error}"))?;
    let known: Known = toml::from_str(&text).map_err(|error| format!("{FILE}: {error}"))?;
    let (report, is_good) = compared(&known.instructions, &counted);
    say(&report);
    if compiler != known.counted_by {
        say(&format!(
            "{FILE} was counted by {}, and this is {compiler}: differences prove nothing\n",
            known.counted_by
        ));
        return Ok(true);
    }
    Ok(is_good)
}

/// The compiler and the machine it makes code for.
fn compiler() -> Result<String, String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = output_of(Command::new(rustc).arg("--version"))?;
    // Without the hash and the date, which say nothing more.
    let version: Vec<_> = version.split_whitespace().take(2).collect();
    Ok(format!(
        "{} for {}",
        version.join(" "),
        std::env::consts::ARCH
    ))
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--profile",
            "counted",
            "--package",
            "rooms",
        ])
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo build: {error}"))?;
    if !status.success() {
        return Err("cargo build of rooms failed".to_owned());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("counted/rooms"))
}

/// Instructions of a run.
fn count(program: &Path, room: &str, times: u64) -> Result<u64, String> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([room, &times.to_string()])
        // The C library copies with the same instructions everywhere, as it would on a machine that has no others.
        .env("GLIBC_TUNABLES", TUNABLES);
    let output = command
        .output()
        .map_err(|error| format!("valgrind: {error} (interop/install installs it)"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind {room}: {text}"));
    }
    collected(&text).ok_or_else(|| format!("valgrind {room} has told no count: {text}"))
}

/// The number behind `Collected :`.
fn collected(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("Collected :")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn written(compiler: &str, counted: &BTreeMap<String, u64>) -> String {
    let mut text = HEAD.to_owned();
    writeln!(text, "counted_by = \"{compiler}\"\n\n[instructions]").ok();
    for (room, count) in counted {
        writeln!(text, "{room} = {count}").ok();
    }
    text
}

/// What is to be said, and whether every room is within the tolerance.
fn compared(known: &BTreeMap<String, u64>, counted: &BTreeMap<String, u64>) -> (String, bool) {
    let (mut report, mut is_good) = (String::new(), true);
    let gone = known.keys().filter(|room| !counted.contains_key(*room));
    for room in gone {
        is_good = false;
        writeln!(report, "{room:16} is not there any more").ok();
    }
    for (room, count) in counted {
        let Some(before) = known.get(room) else {
            is_good = false;
            writeln!(report, "{room:16} {count:>8}  is new: `cargo xtask rooms`").ok();
            continue;
        };
        let slack = (before * TOLERANCE_PER_MILLE / 1000).max(SLACK_MIN);
        let verdict = if *count > before + slack {
            is_good = false;
            "  COSTS MORE"
        } else if *count + slack < *before {
            is_good = false;
            "  costs less, which `cargo xtask rooms` writes down"
        } else {
            ""
        };
        let change = *count as f64 / *before as f64 * 100.0 - 100.0;
        writeln!(report, "{room:16} {count:>8}  {change:+6.1} %{verdict}").ok();
    }
    (report, is_good)
}

const FILE: &str = "bench/rooms/counts.toml";
const HEAD: &str = "# Instructions of one PUBLISH in each room (bench/rooms/src/main.rs), as `cargo xtask rooms` has counted them.
# x86-64 with AVX2; `cargo xtask rooms --check` allows 3 % of difference, or 16 instructions, to the same compiler.
";
const TOLERANCE_PER_MILLE: u64 = 30;
/// Of a small room a few instructions are more than that; its count changes by as much with what stands beside it.
const SLACK_MIN: u64 = 16;
const FEW: u64 = 200;
const MANY: u64 = 1200;
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
        rows.iter()
            .map(|(room, count)| ((*room).to_owned(), *count))
            .collect()
    }

    #[test]
    fn three_percent_are_allowed_and_more_is_told_both_ways() {
        let known = counts(&[("decode", 1000), ("encode", 1000)]);
        let check = |decode| compared(&known, &counts(&[("decode", decode), ("encode", 1000)]));
        assert!(check(1030).1 && check(970).1);
        let (report, is_good) = check(1031);
        assert!(!is_good && report.contains("COSTS MORE"), "{report}");
        let (report, is_good) = check(969);
        assert!(!is_good && report.contains("costs less"), "{report}");
    }

    #[test]
    fn few_instructions_of_a_small_room_are_no_difference() {
        let known = counts(&[("encode", 262)]);
        let check = |encode| compared(&known, &counts(&[("encode", encode)])).1;
        assert!(check(246) && check(278));
        assert!(!check(245) && !check(279));
    }

    #[test]
    fn room_that_nobody_knows_or_that_is_gone_is_told() {
        let known = counts(&[("decode", 1000)]);
        assert!(!compared(&known, &counts(&[])).1);
        assert!(!compared(&known, &counts(&[("decode", 1000), ("new", 1)])).1);
        assert!(compared(&known, &known).1);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let counted = counts(&[("deliver-to-100", 7), ("qos1", 8)]);
        let known: Known =
            toml::from_str(&written("rustc 1.95.0 for x86_64", &counted)).expect("it is ours");
        assert_eq!(known.instructions, counted);
        assert_eq!(known.counted_by, "rustc 1.95.0 for x86_64");
    }

    #[test]
    fn count_is_read_from_what_callgrind_says() {
        assert_eq!(
            collected("==1== Events\n==1== Collected : 4711\n"),
            Some(4711)
        );
        assert_eq!(collected("==1== nothing"), None);
    }
}
