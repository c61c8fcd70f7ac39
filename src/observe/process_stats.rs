//! The `process_*` metrics of Prometheus's own client libraries, read from Linux. Elsewhere there are none.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// `/proc/self`, read once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessStats {
    /// Of all threads, in user and kernel mode.
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_descriptors: u64,
    pub(super) max_descriptors: u64,
}

impl ProcessStats {
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let open_descriptors = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let mut stats = Self::parse(&stat, clock_ticks_per_second(), page_size() as u64)?;
        stats.open_descriptors = open_descriptors.saturating_sub(1); // the folder's own
        stats.max_descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Some(stats)
    }

    /// proc(5): the name in the second field may hold anything, so fields are counted from its last `)`.
    fn parse(stat: &str, ticks_per_second: u64, page: u64) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
        #[expect(
            clippy::cast_precision_loss,
            reason = "a process does not live so long"
        )]
        let cpu_seconds = (field(14)? + field(15)?) as f64 / ticks_per_second.max(1) as f64;
        Some(Self {
            cpu_seconds,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_bracket_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 9 0 5 4096000 321 18446744073709551615";
        let stats = ProcessStats::parse(stat, 100, 4096).unwrap();
        let expected = ProcessStats {
            cpu_seconds: 4.0,
            resident_bytes: 321 * 4096,
            virtual_bytes: 4_096_000,
            threads: 9,
            ..ProcessStats::default()
        };
        assert_eq!(stats, expected);
        assert_eq!(ProcessStats::parse("7 (a", 100, 4096), None);
    }

    #[test]
    fn reads_its_own() {
        let stats = ProcessStats::read().unwrap();
        assert!(stats.resident_bytes > 1 << 20 && stats.threads > 0 && stats.open_descriptors > 2);
        assert!(stats.max_descriptors >= stats.open_descriptors);
    }
}
