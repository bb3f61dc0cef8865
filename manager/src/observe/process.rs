//! The kernel's data about this process, with the names that Prometheus' own clients use.

use std::fs;

/// Ticks of a second in /proc: 100 on every architecture that this runs on (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// A process at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) start_seconds: f64,
    pub(super) threads: u64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
}

impl Process {
    /// This one. What cannot be read is 0.
    pub(super) fn this() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "));
        let boot: f64 = boot.and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut process = Self::parse(&stat, &status);
        if process.start_seconds > 0.0 {
            process.start_seconds += boot;
        }
        process.open_fds = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        process.max_fds = limit.current.unwrap_or(0);
        process
    }

    /// The fields of /proc/self/stat; the name before them may hold anything, a `)` too. And the lines
    /// of /proc/self/status, `VmRSS:  1234 kB`.
    fn parse(stat: &str, status: &str) -> Self {
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        // The first of these is field 3 of proc(5).
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |field: usize| -> f64 {
            let text = fields.get(field - 3).copied().unwrap_or_default();
            text.parse().unwrap_or(0.0)
        };
        let told = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_ascii_whitespace().next());
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Self {
            cpu_seconds: (number(14) + number(15)) / TICKS,
            start_seconds: number(22) / TICKS,
            threads: told("Threads:"),
            virtual_bytes: told("VmSize:") * 1024,
            resident_bytes: told("VmRSS:") * 1024,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let process = Process::this();
        assert!(process.threads >= 1 && process.open_fds >= 3 && process.max_fds >= 3);
        assert!(process.resident_bytes > 1 << 20 && process.start_seconds > 1.7e9);
        let odd = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 9 0 1000 4096 2";
        let odd = Process::parse(odd, "Name:\tx\nThreads:\t9\nVmRSS:\t    8 kB\n");
        assert_eq!(
            (odd.threads, odd.virtual_bytes, odd.resident_bytes),
            (9, 0, 8192)
        );
        assert!((odd.cpu_seconds - 2.0).abs() < 1e-9 && (odd.start_seconds - 10.0).abs() < 1e-9);
    }
}
