//! Who runs the server: the caller, or an unprivileged user when the caller is root (Postgres refuses root).

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow};

/// The account that owns data directories and runs server-side programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUser {
    /// User and group to change to; `None` runs as the caller.
    other: Option<(u32, u32)>,
}

impl ServerUser {
    /// The caller, or `nobody` when the caller is root.
    ///
    /// # Errors
    /// When the caller is root and /etc/passwd knows no `nobody`: initdb wants an account with a name.
    pub fn current() -> Result<Self> {
        let effective = std::fs::metadata("/proc/self").context("reading /proc/self")?.uid();
        if effective != 0 {
            return Ok(Self { other: None });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let ids = account(&passwd, "nobody").ok_or_else(|| {
            anyhow!(
                "Postgres does not run as root and there is no user \"nobody\" to run it: run this as a normal user"
            )
        })?;
        Ok(Self { other: Some(ids) })
    }

    /// Whether server programs run as someone else than the caller.
    #[must_use]
    pub fn is_other(&self) -> bool {
        self.other.is_some()
    }

    /// Makes `command` run as this user.
    pub fn apply(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid).env("HOME", "/");
        }
    }

    /// Gives `path` to this user.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn own(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.other {
            chown(path, Some(uid), Some(gid)).with_context(|| format!("giving {} to the server", path.display()))?;
        }
        Ok(())
    }

    /// Whether this user can reach `folder` by its path: every part that exists must be open to it.
    #[must_use]
    pub fn can_reach(&self, folder: &Path) -> bool {
        const OTHERS_MAY_ENTER: u32 = 0o001;
        self.other.is_none()
            || folder
                .ancestors()
                .filter_map(|part| part.metadata().ok())
                .all(|part| part.mode() & OTHERS_MAY_ENTER != 0)
    }
}

/// User and group id of `name` in the text of a passwd file, unless it is root's.
fn account(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::account;

    #[test]
    fn ids_come_from_the_right_fields() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/nonexistent:/bin/false\n";
        assert_eq!(account(passwd, "nobody"), Some((65534, 65533)));
    }

    #[test]
    fn root_and_damaged_lines_are_no_server_user() {
        assert_eq!(account("nobody:x:0:0::/:/bin/sh", "nobody"), None);
        assert_eq!(account("nobody:x\nnobody", "nobody"), None);
        assert_eq!(account("", "nobody"), None);
    }
}
