//! How much memory the process may hold for its peers.
//!
//! Owns: [`Budget`], what a container or the machine says. Does not own: what is done when it runs out (see `machine`).
//! Start reading at [`Budget::new`]. Invariant: what the system does not say limits nothing.

use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) bytes: u64,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Configuration,
    Cgroup,
    Machine,
    Nobody,
}

impl Budget {
    /// As `configured`, else three quarters of what the control group allows, else of what the machine has: the rest is
    /// for the program itself, for what the allocator keeps and for the system's buffers.
    pub(crate) fn new(configured: Option<usize>) -> Self {
        Self::found(configured, |path| std::fs::read_to_string(path).ok())
    }

    fn found(configured: Option<usize>, read: impl Fn(&Path) -> Option<String>) -> Self {
        let share = |bytes: u64| bytes / 4 * 3;
        let machine = machine_bytes(&read);
        let cgroup = cgroup_bytes(&read).filter(|bytes| machine.is_none_or(|all| *bytes < all));
        let (bytes, source) = match (configured, cgroup, machine) {
            (Some(bytes), ..) => (bytes as u64, Source::Configuration),
            (None, Some(bytes), _) => (share(bytes), Source::Cgroup),
            (None, None, Some(bytes)) => (share(bytes), Source::Machine),
            (None, None, None) => (u64::MAX, Source::Nobody),
        };
        Self { bytes, source }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "from memory_max_bytes",
            Self::Cgroup => "three quarters of what the control group allows",
            Self::Machine => "three quarters of the memory of this machine",
            Self::Nobody => "the system does not say how much there is",
        })
    }
}

impl Budget {
    /// Who says so, for the log.
    pub(crate) fn source(&self) -> impl fmt::Display + use<> {
        self.source
    }
}

fn machine_bytes(read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let meminfo = read(Path::new("/proc/meminfo"))?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least that this process' control group or one above it allows, of either version.
fn cgroup_bytes(read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // In a container the path may be that of outside, of which only the root is seen.
        let mut below = PathBuf::from(group.trim_start_matches('/'));
        let mut least: Option<u64> = None;
        loop {
            let limit = read(&Path::new(root).join(&below).join(name));
            let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
            least = match (least, limit) {
                (Some(one), Some(another)) => Some(one.min(another)),
                (one, another) => one.or(another),
            };
            if !below.pop() {
                return least;
            }
        }
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], configured: Option<usize>) -> Budget {
        Budget::found(configured, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn budget_is_what_is_configured_or_a_share_of_what_the_least_group_or_the_machine_has() {
        let machine = ("/proc/meminfo", "MemFree: 1 kB\nMemTotal:     4000 kB\n");
        let of = |files: &[_]| {
            let budget = found(files, None);
            (budget.bytes, budget.source)
        };
        assert_eq!(of(&[machine]), (3_072_000, Source::Machine));
        let v2 = ("/proc/self/cgroup", "0::/a/b\n");
        let inner = ("/sys/fs/cgroup/a/b/memory.max", "max\n");
        let outer = ("/sys/fs/cgroup/a/memory.max", "4000\n");
        assert_eq!(of(&[machine, v2, inner]), (3_072_000, Source::Machine));
        let within = [machine, v2, inner, outer];
        assert_eq!(of(&within), (3000, Source::Cgroup));
        let v1 = ("/proc/self/cgroup", "4:cpu:/a\n3:hugetlb,memory:/a\n");
        let limit = ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8000\n");
        assert_eq!(of(&[machine, v1, limit]), (6000, Source::Cgroup));
        let none = (
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(of(&[machine, v1, none]), (3_072_000, Source::Machine));
        assert_eq!(of(&[]), (u64::MAX, Source::Nobody));
        let configured = found(&within, Some(77));
        assert_eq!(
            (configured.bytes, configured.source),
            (77, Source::Configuration)
        );
    }
}
