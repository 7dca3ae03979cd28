//! What the system says about processes.

use std::path::Path;

use anyhow::{Context, Result};

/// The kernel counts processor time for programs in hundredths of a second, whatever its own clock.
const TICKS: f64 = 100.0;

/// Bytes of a process that are backed by no file and shared with nobody.
pub fn anonymous(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Memory that a process has to itself, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages that it alone has written, in mappings that are not shared.
    pub private: u64,
    /// Page tables, which it has of everything that it has touched.
    pub tables: u64,
}

impl std::iter::Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self { private: a.private + b.private, tables: a.tables + b.tables })
    }
}

impl Memory {
    /// Of a process; nothing where it has ended.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let status = read("status")?;
        let tables = status.lines().find_map(|line| kibibytes(line, "VmPTE:"))?;
        Some(Self { private: private(&read("smaps")?), tables })
    }
}

/// The value of a line with this key.
fn kibibytes(line: &str, key: &str) -> Option<u64> {
    line.strip_prefix(key)?.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What `smaps` says is written by this process alone. Pages of shared mappings, such as shared_buffers, belong to all.
fn private(smaps: &str) -> u64 {
    let (mut shared, mut bytes) = (false, 0);
    for line in smaps.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [key, rights, ..] if !key.ends_with(':') => shared = rights.ends_with('s'),
            _ if !shared => bytes += kibibytes(line, "Private_Dirty:").unwrap_or(0),
            _ => {}
        }
    }
    bytes
}

/// Processor seconds of a process, of its children, and of those that it has waited for.
pub fn family_seconds(parent: u32) -> Result<f64> {
    let times_of = |path: &Path| Times::parse(&std::fs::read_to_string(path.join("stat")).ok()?);
    let own = || times_of(Path::new(&format!("/proc/{parent}"))).context("reading the processor time of a process");
    loop {
        let before = own()?;
        // One that ends meanwhile cannot be read any more.
        let children = std::fs::read_dir("/proc").context("listing processes")?.flatten();
        let children = children.filter_map(|entry| times_of(&entry.path())).filter(|times| times.parent == parent);
        let ticks: u64 = children.map(|times| times.ticks).sum();
        let after = own()?;
        // Else a child was waited for in between: it counted twice, or not at all.
        if after.ticks_waited_for == before.ticks_waited_for {
            return Ok((ticks + after.ticks + after.ticks_waited_for) as f64 / TICKS);
        }
    }
}

/// What `/proc/PID/stat` says about time.
#[derive(Debug, PartialEq, Eq)]
struct Times {
    parent: u32,
    ticks: u64,
    ticks_waited_for: u64,
}

impl Times {
    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything; the state is field 3 of proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(4)?).ok()?,
            ticks: number(14)? + number(15)?,
            ticks_waited_for: number(16)? + number(17)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn pages_of_shared_mappings_are_nobodys_own() {
        let smaps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x\nPrivate_Dirty:         4 kB\n\
                     00e03000-00e24000 rw-s 00000000 00:00 0 /dev/zero\nPrivate_Dirty:       900 kB\n\
                     00f03000-00f24000 rw-p 00000000 00:00 0 [heap]\nRss: 80 kB\nPrivate_Dirty:        12 kB\n";
        assert_eq!(private(smaps), 16 * 1024);
        let own = Memory::of(std::process::id()).unwrap();
        assert!(own.private > 100_000 && own.tables > 10_000, "{own:?}");
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a) b) S 7 1 1 0 -1 4194304 100 0 0 0 31 4 1500 26 20 0 1";
        assert_eq!(Times::parse(stat).unwrap(), Times { parent: 7, ticks: 35, ticks_waited_for: 1526 });
        assert_eq!(Times::parse("12 (a) S 7"), None);
    }

    #[test]
    fn work_of_a_child_counts_while_it_runs_and_after() {
        let me = std::process::id();
        let before = family_seconds(me).unwrap();
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while family_seconds(me).unwrap() < before + 0.2 && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let running = family_seconds(me).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(running >= before + 0.2 && family_seconds(me).unwrap() >= running);
    }
}
