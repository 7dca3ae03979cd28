//! What many connections cost: memory that their processes have to themselves, page tables included.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pgrec_benches::{Memory, Server};

use crate::{SESSION, Side, random_call};

/// Calls of every connection before it is measured.
const CALLS: usize = 20;
const MEGABYTE: f64 = 1e6;

/// Connections that ask for nothing, connections that compute by themselves, and such as ask the worker.
pub fn compare(server: &Server, database: &str, sides: &[Side], connections: usize) -> Result<()> {
    let call = random_call(server, database)?;
    println!("\n{database}: {connections} connections, {CALLS} calls of rec_next each; memory of their own in MB");
    println!(
        "            a session: private, page tables   all sessions, and the worker   beyond a bare session's, each"
    );
    let bare = measured(server, database, connections, "SELECT 1;\n", SESSION)?;
    report("bare", &bare, &bare, connections);
    for side in sides {
        let memory = measured(server, database, connections, &call, *side)?;
        report(side.name, &memory, &bare, connections);
    }
    Ok(())
}

/// What the processes of sessions have, and what the worker has.
struct Measured {
    sessions: Memory,
    worker: Memory,
}

impl Measured {
    fn all(&self) -> f64 {
        (self.sessions.private + self.sessions.tables + self.worker.private + self.worker.tables) as f64 / MEGABYTE
    }
}

fn report(name: &str, memory: &Measured, bare: &Measured, connections: usize) {
    let each = |bytes: u64| bytes as f64 / MEGABYTE / connections as f64;
    println!(
        "{name:>9}   {:>18.2} {:>11.2}   {:>30.0}   {:>28.2}",
        each(memory.sessions.private),
        each(memory.sessions.tables),
        memory.all(),
        (memory.all() - bare.all()) / connections as f64,
    );
}

/// Has the connections do their calls, and measures them while they are idle.
fn measured(server: &Server, database: &str, connections: usize, call: &str, side: Side) -> Result<Measured> {
    let file = server.cluster.dir().join("memory.sql");
    let script = format!("{}\\sleep 600 s\n", call.repeat(CALLS));
    std::fs::write(&file, script).with_context(|| format!("writing {}", file.display()))?;
    let mut bench = server.cluster.client("pgbench", database);
    bench.env("PGOPTIONS", side.options);
    bench.args(["-n", "-M", "prepared", "-t", "1", "-c", &connections.to_string(), "-f"]).arg(&file);
    let mut bench = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting pgbench")?;
    let outcome = once_idle(server, connections);
    let _ = bench.kill();
    let _ = bench.wait();
    server.cluster.wait_for(
        &format!("SELECT count(*) FROM pg_stat_activity WHERE {SESSIONS}"),
        "0",
        Duration::from_secs(600),
    )?;
    outcome
}

const SESSIONS: &str = "backend_type = 'client backend' AND datname <> 'postgres'";

fn once_idle(server: &Server, connections: usize) -> Result<Measured> {
    let idle = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE {SESSIONS} AND state = 'idle' AND state_change < now() - interval '2 s'"
    );
    let deadline = Instant::now() + Duration::from_secs(1800);
    while server.ask("postgres", &idle)?.trim() != connections.to_string() {
        if Instant::now() > deadline {
            bail!("{connections} connections are not idle after half an hour");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let of = |which: &str| -> Result<Memory> {
        let pids = server.ask("postgres", &format!("SELECT pid FROM pg_stat_activity WHERE {which}"))?;
        Ok(pids.lines().filter_map(|pid| Memory::of(pid.parse().ok()?)).sum())
    };
    Ok(Measured { sessions: of(SESSIONS)?, worker: of("backend_type = 'pgrec inference'")? })
}
