//! CPU time and memory of the proxy's process, from Linux's `/proc`.

use std::fs;

/// A process that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeasuredProcess {
    pid: u32,
}

/// The resources that a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU milliseconds since its start, of all its threads.
    pub(super) cpu_ms: u64,
    /// Resident bytes.
    pub(super) memory: u64,
}

impl MeasuredProcess {
    /// The process `pid`.
    pub(super) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// The used resources; `None` without `/proc`, or if the process does not exist.
    pub(super) fn usage(self) -> Option<Usage> {
        let folder = format!("/proc/{}", self.pid);
        let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
        let status = fs::read_to_string(format!("{folder}/status")).ok()?;
        Some(Usage {
            cpu_ms: cpu_ms(&stat, rustix::param::clock_ticks_per_second())?,
            memory: memory(&status)?,
        })
    }
}

/// Fields 14 and 15 of `proc_pid_stat(5)`. The name in field 2 may contain spaces and brackets.
fn cpu_ms(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1000 / ticks_per_second.max(1))
}

fn memory(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_of_proc_files() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 100 1000 10";
        assert_eq!(cpu_ms(stat, 100), Some(2000));
        assert_eq!(memory("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!((cpu_ms("", 100), memory("")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory() {
        assert!(
            MeasuredProcess::new(std::process::id())
                .usage()
                .unwrap()
                .memory
                > 1 << 20
        );
        assert_eq!(MeasuredProcess::new(u32::MAX).usage(), None);
    }
}
