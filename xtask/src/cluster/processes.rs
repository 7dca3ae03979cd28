//! The server as processes: found by its data directory, killed whole.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::captured;

/// How long dead processes may take to disappear.
const PATIENCE: Duration = Duration::from_secs(20);

/// The process id of the live postmaster of a data directory.
///
/// The id in `postmaster.pid` may have been given to another process since, so its command line is checked too.
pub(super) fn postmaster(data: &Path) -> Option<u32> {
    let file = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = file.lines().next()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let directory = data.as_os_str().as_encoded_bytes();
    (is_alive(pid) && command.split(|&byte| byte == 0).any(|argument| argument == directory)).then_some(pid)
}

/// Kills the postmaster of `data` and its children with signal 9; nothing happens when there is none.
pub(super) fn kill_server(data: &Path) -> Result<()> {
    let Some(postmaster) = postmaster(data) else { return Ok(()) };
    // Stopped first, so that it starts no child between the list and the end.
    let _ = signal("STOP", &[postmaster]);
    let mut all = children(postmaster);
    all.push(postmaster);
    // Some may have ended by themselves, which makes kill fail for no reason of ours.
    let _ = signal("KILL", &all);
    let deadline = Instant::now() + PATIENCE;
    while all.iter().any(|&pid| is_alive(pid)) {
        if Instant::now() > deadline {
            bail!("the server with process id {postmaster} does not die");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    remove_locks(data);
    Ok(())
}

/// Removes the lock files of a dead server.
///
/// Postgres does so itself when the process id is free. Where nobody reaps orphans (PID 1 of many containers) the
/// zombie keeps the id, and the next start would believe that the server still runs.
fn remove_locks(data: &Path) {
    let pid_file = data.join("postmaster.pid");
    // Lines four and five of it are the port and the folder of the socket.
    let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
    if let [_, _, _, port, socket, ..] = text.lines().collect::<Vec<&str>>()[..] {
        let _ = std::fs::remove_file(Path::new(socket).join(format!(".s.PGSQL.{port}.lock")));
    }
    let _ = std::fs::remove_file(pid_file);
}

/// Removes the clusters in `folder` whose makers are dead. Names end in `-<process id>-<number>`.
pub(super) fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker: Option<u32> = name.rsplit('-').nth(1).and_then(|pid| pid.parse().ok());
        if maker.is_some_and(|pid| !is_alive(pid)) {
            let _ = super::remove(&entry.path());
        }
    }
}

fn signal(name: &str, pids: &[u32]) -> Result<String> {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    // The shell's own kill: the program is missing on small systems.
    captured(Command::new("sh").arg("-c").arg(format!("kill -{name} {}", list.join(" "))), "kill")
}

fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|&pid| status(pid).is_some_and(|status| status.parent == parent))
        .collect()
}

/// Whether a process exists and is more than a zombie. One whose first thread is a zombie still has its memory, and
/// the server's, while other threads of it are on their way out.
fn is_alive(pid: u32) -> bool {
    status(pid).is_some_and(|status| match status.state {
        'X' => false,
        'Z' => status.threads > 1,
        _ => true,
    })
}

struct Status {
    state: char,
    parent: u32,
    threads: u32,
}

/// From /proc/PID/stat: the name in parentheses may hold anything.
fn status(pid: u32) -> Option<Status> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Status {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reaped_child_is_not() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let pid = child.id();
        assert!(is_alive(pid) && children(std::process::id()).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }

    #[test]
    fn a_reused_process_id_is_not_taken_for_the_server() {
        let data = std::env::temp_dir().join(format!("pgrec-stale-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        let found = postmaster(&data);
        std::fs::remove_dir_all(&data).unwrap();
        assert_eq!(found, None);
    }
}
