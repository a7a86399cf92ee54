//! What the operating system says of this process; `None` where it does not.

use std::time::Duration;

/// Largest resident memory so far, in bytes (Linux: `VmHWM`).
pub(super) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Processor time of all threads of the process (Linux: the first field of `schedstat`).
pub(super) fn cpu_time() -> Option<Duration> {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        let nanoseconds: u64 = stat.split_whitespace().next()?.parse().ok()?;
        total += nanoseconds;
    }
    Some(Duration::from_nanos(total))
}
