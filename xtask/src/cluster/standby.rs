//! Streaming standbys.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Cluster, Options, SUPERUSER};
use crate::process::captured;

impl Cluster {
    /// Takes a base backup of this running server into `dir` and starts it there as a hot standby.
    ///
    /// # Errors
    /// When the backup fails or the standby does not come up.
    pub fn standby(&self, dir: &Path, options: &Options) -> Result<Self> {
        let mut standby = Self::place(&self.postgres, dir, options, self.password.clone())?;
        let mut backup = standby.server_program("pg_basebackup");
        backup.arg("-h").arg(&self.socket).args(["-p", &self.port.to_string(), "-U", SUPERUSER]);
        backup.args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(standby.data_dir());
        captured(&mut backup, "pg_basebackup")?;
        standby.save()?;
        standby.first_start()?;
        Ok(standby)
    }

    /// Waits until this standby has replayed everything that `primary` has done so far.
    ///
    /// # Errors
    /// When it does not within `patience`.
    pub fn wait_for_replay(&self, primary: &Self, patience: Duration) -> Result<()> {
        // What a transaction without an id has logged, VACUUM for one, is written at leisure; a commit writes it all.
        primary.psql("SELECT pg_logical_emit_message(true, 'pgrec', 'written')")?;
        let position = primary.psql("SELECT pg_current_wal_lsn()")?;
        self.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'"), "t", patience)
    }
}
