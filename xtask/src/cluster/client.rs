//! Talking to a cluster: psql for scripts, connection strings for everything else.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Cluster, SUPERUSER};
use crate::process::{captured, fed};

/// The database that scripts run in unless they name another.
pub const DATABASE: &str = "postgres";

impl Cluster {
    /// Runs a script and returns what it prints: one row a line, columns separated by `|`, no headers.
    ///
    /// Each statement is its own transaction, so procedures that commit can be called.
    ///
    /// # Errors
    /// At the first failing statement, with the server's message.
    pub fn psql(&self, script: &str) -> Result<String> {
        self.psql_in(DATABASE, script)
    }

    /// [`Cluster::psql`] in another database.
    ///
    /// # Errors
    /// At the first failing statement, with the server's message.
    pub fn psql_in(&self, database: &str, script: &str) -> Result<String> {
        let mut psql = self.script_psql(database);
        psql.args(["-A", "-t", "-f", "-"]);
        let out = fed(&mut psql, "psql", |input| input.write_all(script.as_bytes()))?;
        Ok(out.trim_end_matches('\n').to_owned())
    }

    /// Runs the script in a file; output as [`Cluster::psql`].
    ///
    /// # Errors
    /// At the first failing statement, with the server's message.
    pub fn psql_file(&self, database: &str, file: &Path) -> Result<String> {
        let out = captured(self.script_psql(database).args(["-A", "-t", "-f"]).arg(file), "psql")?;
        Ok(out.trim_end_matches('\n').to_owned())
    }

    /// Runs a script with psql variables and returns its output as aligned tables, for people.
    ///
    /// # Errors
    /// At the first failing statement, with the server's message.
    pub fn psql_tables(&self, database: &str, script: &str, variables: &[(&str, &str)]) -> Result<String> {
        let mut psql = self.script_psql(database);
        for (name, value) in variables {
            psql.arg("-v").arg(format!("{name}={value}"));
        }
        psql.args(["-P", "null=", "-P", "footer=off", "-f", "-"]);
        fed(&mut psql, "psql", |input| input.write_all(script.as_bytes()))
    }

    /// Streams rows into `COPY target FROM STDIN`, where `target` is a table with its columns.
    ///
    /// # Errors
    /// When the server refuses a row, or `rows` fails.
    pub fn copy_in(
        &self,
        database: &str,
        target: &str,
        rows: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut psql = self.script_psql(database);
        psql.arg("-c").arg(format!("COPY {target} FROM STDIN"));
        fed(&mut psql, &format!("COPY {target}"), rows).map(drop)
    }

    /// A client program of the installation (`psql`, `pgbench`, `pg_dump`, …) set up to connect as the superuser over
    /// the socket, and blind to the caller's own `PG…` environment.
    #[must_use]
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.postgres.program(program));
        forget_environment(&mut command);
        command
            .env("PGHOST", &self.socket)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", database);
        command
    }

    /// Key-value connection string over the unix socket, as libpq and its friends read it.
    #[must_use]
    pub fn connection(&self, database: &str) -> String {
        format!("host={} port={} user={SUPERUSER} dbname={database}", self.socket.display(), self.port)
    }

    /// Connection URL over TCP, with the password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The TCP port, which is also in the socket's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The superuser's password, for connections over TCP.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Repeats a query until it prints `expected`.
    ///
    /// # Errors
    /// When it still prints something else after `patience`.
    pub fn wait_for(&self, query: &str, expected: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let last = self.psql(query);
            match last {
                Ok(text) if text == expected => return Ok(()),
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Ok(text) => bail!("{query}\nprints {text:?} instead of {expected:?} after {patience:?}"),
                Err(error) => return Err(error),
            }
        }
    }

    /// psql that reads no user's start-up file and stops at the first error.
    fn script_psql(&self, database: &str) -> Command {
        let mut psql = self.client("psql", database);
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]);
        psql
    }
}

/// Removes `PGHOST`, `PGSERVICE`, `PGDATA` and the like.
pub(super) fn forget_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        // PGREC_… is ours and is read by children too. With RUST_BACKTRACE a server puts a stack into every DETAIL.
        if text == "RUST_BACKTRACE" || (text.starts_with("PG") && !text.starts_with("PGREC_")) {
            command.env_remove(&name);
        }
    }
}
