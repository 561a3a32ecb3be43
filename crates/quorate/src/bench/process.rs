//! What a process has cost so far: CPU time, memory, files and bytes written, as Linux tells them in /proc.

use std::time::Duration;

/// What USER_HZ is on every Linux: /proc counts CPU time in hundredths of a second.
const TICKS_PER_SECOND: u64 = 100;

/// One process, or `None` where there is no /proc: then costs are unknown, and said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
}

/// Memory of a process that is in RAM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Resident {
    pub all_bytes: u64,
    /// Heap, stacks, and what it has changed of its files.
    pub own_bytes: u64,
    /// Of files, above all of the program: processes share them, and the kernel takes them back when it must.
    pub file_bytes: u64,
}

impl Process {
    pub fn this() -> Self {
        Self { id: std::process::id() }
    }

    /// User and system time of all its threads.
    pub fn cpu(self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id)).ok()?;
        cpu_of(&stat)
    }

    pub fn resident_bytes(self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        bytes_of(&status, "VmRSS:")
    }

    pub fn resident(self) -> Option<Resident> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        Some(Resident {
            all_bytes: bytes_of(&status, "VmRSS:")?,
            own_bytes: bytes_of(&status, "RssAnon:")?,
            file_bytes: bytes_of(&status, "RssFile:")?,
        })
    }

    pub fn open_files(self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/fd", self.id)).ok()?.count())
    }

    /// Bytes that it caused to be sent to the disk.
    pub fn written_bytes(self) -> Option<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id)).ok()?;
        io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
    }

    /// How many files it may have open at the same time.
    pub fn open_files_max(self) -> Option<usize> {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.id)).ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }
}

/// CPU time of several processes together.
pub fn cpu(processes: &[Process]) -> Option<Duration> {
    processes.iter().map(|process| process.cpu()).sum()
}

/// `pid (name, which may hold blanks and parentheses) state ppid …`: utime and stime are fields 14 and 15 of proc(5).
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let total = ticks()? + ticks()?;
    Some(Duration::from_millis(total * 1_000 / TICKS_PER_SECOND))
}

fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("42"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_known() {
        let this = Process::this();
        assert!(this.resident_bytes().is_some_and(|bytes| bytes > 1 << 16));
        let resident = this.resident().unwrap();
        assert!(resident.own_bytes > 0 && resident.own_bytes + resident.file_bytes <= resident.all_bytes);
        assert!(this.open_files().is_some_and(|files| files > 0));
        assert!(this.open_files_max().is_some_and(|files| files > 0));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        let status = "Name:\tx\nVmRSS:\t  2048 kB\nRssAnon:\t 1024 kB\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(2 << 20));
        assert_eq!(bytes_of(status, "RssAnon:"), Some(1 << 20));
        assert_eq!(bytes_of(status, "RssFile:"), None);
    }
}
