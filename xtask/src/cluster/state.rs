//! What is written beside the data directory: the server's settings, and how a later process connects to it.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::{Cluster, Options};
use crate::postgres::Postgres;
use crate::server_user::ServerUser;

/// Connection facts, in the cluster's folder.
const STATE: &str = "cluster.json";
/// Settings, in the data directory; a standby gets its own.
const SETTINGS: &str = "xtask.conf";

/// Fit for small machines and many clusters at once.
const COMMON: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "60"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %d "),
    ("lc_messages", "C"),
];

/// For clusters whose data nobody would miss. Commits are still written to the operating system, so that a standby
/// and a killed server have them.
const NOT_DURABLE: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off")];

impl Cluster {
    /// Finds a cluster again that an earlier process made persistent in `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn attach(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir)?;
        let path = dir.join(STATE);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("there is no cluster in {}", dir.display()))?;
        let state: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let field = |name: &str| {
            state[name].as_str().map(str::to_owned).ok_or_else(|| anyhow!("{} lacks {name}", path.display()))
        };
        let port = field("port")?;
        Ok(Self {
            postgres: Postgres::from_pg_config(Path::new(&field("pg_config")?))?,
            user: ServerUser::current()?,
            socket: field("socket")?.into(),
            port: port.parse().with_context(|| format!("port {port} in {}", path.display()))?,
            password: field("password")?,
            options: Options { settings: settings_of(&state["settings"]), ..Options::new().persistent() },
            dir,
        })
    }

    /// Writes what [`Cluster::attach`] reads.
    pub(super) fn save(&self) -> Result<()> {
        let state = json!({
            "pg_config": self.postgres.pg_config.to_string_lossy(),
            "socket": self.socket.to_string_lossy(),
            "port": self.port.to_string(),
            "password": self.password,
            "settings": self.options.settings,
        });
        let path = self.dir.join(STATE);
        std::fs::write(&path, state.to_string())
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Makes the server read the file of [`Cluster::write_settings`].
    pub(super) fn include_settings(&self) -> Result<()> {
        let path = self.data_dir().join("postgresql.conf");
        let mut text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let _ = writeln!(text, "include = '{SETTINGS}'");
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        self.write_settings()
    }

    /// Writes every setting as it is now.
    pub(super) fn write_settings(&self) -> Result<()> {
        let mut text = String::new();
        let port = self.port.to_string();
        let socket = self.socket.to_string_lossy();
        let own = [("port", port.as_str()), ("unix_socket_directories", &socket)];
        let loose = if self.options.durable { &[] } else { NOT_DURABLE };
        let asked = self.options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in COMMON.iter().copied().chain(own).chain(loose.iter().copied()).chain(asked) {
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        }
        let path = self.data_dir().join(SETTINGS);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        self.user.own(&path)
    }
}

/// The socket's folder of the cluster in `dir`, where it is another one than `dir`.
pub(super) fn socket_folder(dir: &Path) -> Option<PathBuf> {
    let state: Value = serde_json::from_str(&std::fs::read_to_string(dir.join(STATE)).ok()?).ok()?;
    let socket = PathBuf::from(state["socket"].as_str()?);
    (socket != dir).then_some(socket)
}

fn settings_of(list: &Value) -> Vec<(String, String)> {
    let pairs = list.as_array().into_iter().flatten();
    pairs.filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()))).collect()
}
