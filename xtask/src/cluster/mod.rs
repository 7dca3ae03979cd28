//! Private Postgres clusters: made, started, stopped, killed and removed by the process that wants one.
//!
//! A cluster lives in one folder: `data` is the data directory, `server.log` its log. Connections come over a unix
//! socket in that folder, which only its owner can enter, or over TCP on 127.0.0.1 with a random password.

mod client;
mod options;
mod processes;
mod standby;
mod state;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::home::Home;
use crate::postgres::Postgres;
use crate::process::captured;
use crate::server_user::ServerUser;

pub use options::{Options, Shutdown};

/// The database superuser of every cluster.
pub const SUPERUSER: &str = "postgres";

/// How often another port is tried when somebody took the first one between the look and the use.
const PORT_ATTEMPTS: u32 = 5;

/// A running (or stopped) private server. Dropping it stops the server and removes its folder, unless
/// [`Options::persistent`] says otherwise.
#[derive(Debug)]
pub struct Cluster {
    postgres: Postgres,
    user: ServerUser,
    dir: PathBuf,
    socket: PathBuf,
    port: u16,
    password: String,
    options: Options,
}

impl Cluster {
    /// Makes a cluster in `dir`, which must not exist yet, and starts it.
    ///
    /// # Errors
    /// When `dir` exists, initdb fails, or the server does not come up; the message quotes its log.
    pub fn start(postgres: &Postgres, dir: &Path, options: &Options) -> Result<Self> {
        let mut cluster = Self::init(postgres, dir, options)?;
        cluster.first_start()?;
        Ok(cluster)
    }

    /// Makes and starts a cluster of its own under [`Home::dir`], named after `label`, removed on drop.
    ///
    /// The first call of a process also removes what killed processes have left behind.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn temporary(home: &Home, postgres: &Postgres, label: &str, options: &Options) -> Result<Self> {
        Self::start(postgres, &Self::fresh_dir(home, label)?, options)
    }

    /// A folder for a temporary cluster, for those who call [`Cluster::init`] or [`Cluster::standby`].
    ///
    /// # Errors
    /// When the folder of clusters cannot be made.
    pub fn fresh_dir(home: &Home, label: &str) -> Result<PathBuf> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let clusters = home.folder("clusters")?;
        SWEEP.call_once(|| processes::sweep(&clusters));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(clusters.join(format!("{label}-{}-{number}", std::process::id())))
    }

    /// Makes a cluster without starting it, as pg_upgrade wants its target.
    ///
    /// # Errors
    /// When `dir` exists, or initdb fails.
    pub fn init(postgres: &Postgres, dir: &Path, options: &Options) -> Result<Self> {
        let cluster = Self::place(postgres, dir, options, random_password()?)?;
        let pwfile = cluster.dir.join("password");
        std::fs::write(&pwfile, &cluster.password).with_context(|| format!("writing {}", pwfile.display()))?;
        cluster.user.own(&pwfile)?;
        let mut initdb = cluster.server_program("initdb");
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        initdb.arg(format!("--username={SUPERUSER}")).arg("--pwfile").arg(&pwfile).arg("-D").arg(cluster.data_dir());
        match options.checksums {
            Some(true) => drop(initdb.arg("--data-checksums")),
            // Before 18 it is the default, and the option does not exist.
            Some(false) if postgres.major >= 18 => drop(initdb.arg("--no-data-checksums")),
            _ => {}
        }
        captured(initdb.args(&options.initdb), "initdb")?;
        cluster.include_settings()?;
        cluster.save()?;
        Ok(cluster)
    }

    /// The folder of the cluster with its socket and credentials, nothing in it yet.
    fn place(postgres: &Postgres, dir: &Path, options: &Options, password: String) -> Result<Self> {
        let user = ServerUser::current()?;
        let dir = std::path::absolute(dir)?;
        if dir.exists() {
            bail!("{} exists: remove it, or choose another folder for the cluster", dir.display());
        }
        private_folder(&dir, &user)?;
        let socket = match socket_fits(&dir) {
            true => dir.clone(),
            false => {
                let short = std::env::temp_dir().join(format!("pgrec-s{:x}-{}", std::process::id(), free_port()?));
                private_folder(&short, &user)?;
                short
            }
        };
        Ok(Self {
            postgres: postgres.clone(),
            user,
            dir,
            socket,
            port: free_port()?,
            password,
            options: options.clone(),
        })
    }

    /// Starts the server of an initialised or stopped cluster and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up; the message quotes its log.
    pub fn start_server(&self) -> Result<()> {
        self.write_settings()?;
        let mut start = self.pg_ctl("start");
        start.arg("-l").arg(self.log_path()).args(["-w", "-t", "120"]);
        // The server inherits these, and would keep a pipe open for as long as it lives.
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = start.status().context("starting pg_ctl")?;
        if !status.success() {
            bail!("the server in {} did not start:\n{}", self.dir.display(), self.log_tail(20));
        }
        Ok(())
    }

    fn first_start(&mut self) -> Result<()> {
        for _ in 1..PORT_ATTEMPTS {
            match self.start_server() {
                Err(_) if self.log_tail(20).contains("Address already in use") => {
                    self.port = free_port()?;
                    self.save()?;
                }
                outcome => return outcome,
            }
        }
        self.start_server()
    }

    /// Stops the server; nothing happens when it is not running.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub fn stop(&self, shutdown: Shutdown) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let mode = match shutdown {
            Shutdown::Fast => "fast",
            Shutdown::Immediate => "immediate",
        };
        captured(self.pg_ctl("stop").args(["-m", mode, "-w", "-t", "120"]), "pg_ctl stop").map(drop)
    }

    /// Stops the server in an orderly way and starts it again, with the settings as they are now.
    ///
    /// # Errors
    /// Those of stopping and starting.
    pub fn restart(&self) -> Result<()> {
        self.stop(Shutdown::Fast)?;
        self.start_server()
    }

    /// Kills the server and all its children with signal 9, as a power failure would, and waits until they are gone.
    ///
    /// # Errors
    /// When it is not running, or does not die.
    pub fn crash(&self) -> Result<()> {
        if !self.is_running() {
            bail!("there is no running server in {}", self.dir.display());
        }
        processes::kill_server(&self.data_dir())
    }

    /// Makes a standby the primary of its own.
    ///
    /// # Errors
    /// When it is no standby.
    pub fn promote(&self) -> Result<()> {
        captured(self.pg_ctl("promote").args(["-w", "-t", "120"]), "pg_ctl promote").map(drop)
    }

    /// Changes a setting; it takes effect at the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.options.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Whether a server runs on this data directory.
    #[must_use]
    pub fn is_running(&self) -> bool {
        processes::postmaster(&self.data_dir()).is_some()
    }

    /// The installation it runs.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The process id of the postmaster, while it runs.
    #[must_use]
    pub fn postmaster(&self) -> Option<u32> {
        processes::postmaster(&self.data_dir())
    }

    /// The cluster's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The server's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// A copy of `file` that the server's user can read, in the cluster's folder.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn bring_in(&self, file: &Path) -> Result<PathBuf> {
        let name = file.file_name().with_context(|| format!("{} is no file", file.display()))?;
        let copy = self.dir.join(name);
        std::fs::copy(file, &copy).with_context(|| format!("copying {}", file.display()))?;
        self.user.own(&copy)?;
        Ok(copy)
    }

    /// A program of the installation, run as the server's user in the cluster's folder: pg_upgrade, pg_controldata.
    #[must_use]
    pub fn server_program(&self, name: &str) -> Command {
        let mut command = Command::new(self.postgres.program(name));
        client::forget_environment(&mut command);
        command.current_dir(&self.dir);
        self.user.apply(&mut command);
        command
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = self.server_program("pg_ctl");
        command.arg(action).arg("-D").arg(self.data_dir());
        command
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.options.persistent {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the end of the server's log:\n{}", self.log_tail(20));
        }
        // Nothing in it is wanted any more, so there is no reason to wait for a checkpoint.
        let _ = processes::kill_server(&self.data_dir());
        let _ = std::fs::remove_dir_all(&self.dir);
        let _ = std::fs::remove_dir_all(&self.socket);
    }
}

/// Stops the server of the cluster in `dir`, if one runs, and removes the folder.
///
/// # Errors
/// When the server does not die or the folder cannot be removed.
pub fn remove(dir: &Path) -> Result<()> {
    processes::kill_server(&dir.join("data"))?;
    if let Some(socket) = state::socket_folder(dir) {
        let _ = std::fs::remove_dir_all(socket);
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a folder that nobody but the server's user (and root) can enter.
fn private_folder(folder: &Path, user: &ServerUser) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))?;
    user.own(folder)
}

/// The kernel's limit for a socket's path is 108 bytes with its terminator.
fn socket_fits(dir: &Path) -> bool {
    dir.as_os_str().len() + "/.s.PGSQL.65535.lock".len() < 100
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn random_password() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
