//! Measures ours beside others: `cargo xtask bench`, and `cargo xtask soak`.
//!
//! Owns: what has to be built and installed for it, which core is whose, what is noted of the machine. Does not own: what is
//! measured (see `bench`). Start reading at [`run`]. Invariant: what is installed stays in the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds ours and the generator, installs rumqttd if it is missing, and measures; `words` go to `bench run`.
///
/// # Errors
/// A sentence if something cannot be built, installed or started.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<bool, String> {
    let release = build(root)?;
    let peers = target(root).join("peers");
    let rumqttd = peers.join("bin/rumqttd");
    if !rumqttd.exists() {
        let mut install = Command::new(cargo());
        install
            .args(["install", "--quiet", "rumqttd", "--version", RUMQTTD])
            .arg("--root")
            .arg(&peers)
            .arg("--target-dir")
            .arg(peers.join("build"));
        done(install, "cargo install rumqttd")?;
    }
    let mut bench = pinned(&release.join("bench"));
    bench
        .args(["run", "--rumqttd"])
        .arg(&rumqttd)
        .arg("--vencejo")
        .arg(release.join("vencejo"))
        .args(["--prefix", &broker_prefix("0")])
        .args(["--prefix-of-shards", &broker_prefix("0,1")])
        .args(["--note", &note(root, words)])
        .args(words)
        .current_dir(root);
    let status = bench.status().map_err(|error| format!("bench: {error}"))?;
    Ok(status.success())
}

/// The same for the soak; `words` go to `bench soak`.
///
/// # Errors
/// A sentence if something cannot be built or started.
pub(crate) fn soak(root: &Path, words: &[&str]) -> Result<bool, String> {
    let release = build(root)?;
    let status = Command::new(release.join("bench"))
        .args(["soak", "--vencejo"])
        .arg(release.join("vencejo"))
        .args(words)
        .current_dir(root)
        .status()
        .map_err(|error| format!("bench: {error}"))?;
    Ok(status.success())
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let mut build = Command::new(cargo());
    build
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "vencejo",
            "--package",
            "bench",
        ])
        .current_dir(root);
    done(build, "cargo build")?;
    Ok(target(root).join("release"))
}

fn done(mut command: Command, name: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: {status}")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The generator has the second core for itself, where there is one and a way to say so.
fn pinned(program: &Path) -> Command {
    if !can_pin() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", "1"]).arg(program);
    command
}

fn broker_prefix(cores: &str) -> String {
    if can_pin() {
        format!("taskset -c {cores}")
    } else {
        String::new()
    }
}

fn can_pin() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let has_taskset = Command::new("taskset").arg("--version").output().is_ok();
    cores > 1 && has_taskset
}

/// What a reader has to know of a run.
fn note(root: &Path, words: &[&str]) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(root)
            .output();
        let text = output
            .ok()
            .and_then(|output| String::from_utf8(output.stdout).ok());
        text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "`cargo xtask bench {}` at {} on {}, {model}, {cores} cores, Linux {}; rumqttd {RUMQTTD}, {}.",
        words.join(" "),
        said("git", &["rev-parse", "--short=10", "HEAD"]),
        said("date", &["+%Y-%m-%d"]),
        said("uname", &["-r"]),
        said("sh", &["-c", "/usr/sbin/mosquitto -h | head -n 1"]),
    )
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// The version that is measured.
const RUMQTTD: &str = "0.20.0";
