//! What the system says of a process: CPU, memory, calls of the system.
//!
//! Owns: reading /proc, counting calls by `perf`. Does not own: processes (see `brokers`).
//! Start reading at [`Process`]. Invariant: all threads of a process count, and nothing else.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process that is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Time on a CPU of all its threads so far.
    pub(crate) fn cpu(self) -> Duration {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.0)) else {
            return Duration::ZERO;
        };
        let nanos = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Resident memory that is its own, in bytes.
    pub(crate) fn memory(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Begins to count its calls of the system, if `perf` may.
    pub(crate) fn count_calls(self) -> Option<Calls> {
        let child = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"])
            .arg(self.0.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        Some(Calls(child))
    }
}

/// Calls that are being counted.
#[derive(Debug)]
pub(crate) struct Calls(Child);

impl Calls {
    /// How many there were; `None` if they could not be counted.
    pub(crate) fn end(self) -> Option<u64> {
        let id = self.0.id().to_string();
        // It prints what it has when it is interrupted.
        let told = Command::new("kill").args(["-INT", &id]).status();
        if !told.is_ok_and(|status| status.success()) {
            return None;
        }
        let output: io::Result<_> = self.0.wait_with_output();
        let text = String::from_utf8(output.ok()?.stderr).ok()?;
        count_in(&text)
    }
}

/// The figure of a line of `perf stat -x ,`.
fn count_in(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("sys_enter"))?;
    line.split(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_what_perf_prints() {
        let line = "12345,,raw_syscalls:sys_enter,2000000,100.00,,\n";
        assert_eq!(count_in(line), Some(12_345));
        assert_eq!(
            count_in("<not counted>,,raw_syscalls:sys_enter,0,0.00,,"),
            None
        );
        assert_eq!(count_in("Error: no permission\n"), None);
    }

    #[test]
    fn own_process_has_used_time_and_memory() {
        let own = Process(std::process::id());
        assert!(own.cpu() > Duration::ZERO && own.memory() > 0);
    }
}
