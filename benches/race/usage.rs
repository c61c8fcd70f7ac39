//! What a process has used, as Linux tells it.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;

/// CPU time of all threads, user and kernel, to the nanosecond.
pub(crate) fn cpu_time(pid: Pid) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))? {
        // A thread may end while the folder is read.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            let first = text.split(' ').next().and_then(|word| word.parse().ok());
            nanos += first.unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory, in KiB.
pub(crate) fn resident(pid: Pid) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.ok_or_else(|| io::Error::other("no VmRSS"))
}
