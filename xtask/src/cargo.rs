//! Calling cargo again, for the other crates.

use std::path::PathBuf;
use std::process::Command;

use crate::home::Home;
use crate::postgres::Postgres;
use crate::toolchain::Toolchain;

/// What the outer `cargo run` sets about xtask itself; passed on, it would change the fingerprints of build scripts.
const OF_THE_OUTER_CARGO: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

/// `cargo SUBCOMMAND --release` in the repository.
///
/// Always the release profile: one compilation of each dependency, and one run of each build script, then serves
/// lints, documentation, tests and the extension.
#[must_use]
pub fn cargo(home: &Home, subcommand: &str) -> Command {
    let mut command = plain(home);
    command.args([subcommand, "--release"]);
    command
}

/// `cargo` in the repository, without a profile.
#[must_use]
pub fn plain(home: &Home) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(home.repository());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OF_THE_OUTER_CARGO.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// `cargo SUBCOMMAND --release` prepared for pgrx against `postgres`.
#[must_use]
pub fn cargo_for(home: &Home, subcommand: &str, toolchain: &Toolchain, postgres: &Postgres) -> Command {
    let mut command = cargo(home, subcommand);
    toolchain.apply(&mut command, postgres);
    command
}

/// Where the release profile leaves its artefacts.
#[must_use]
pub fn release_dir(home: &Home) -> PathBuf {
    home.target().join("release")
}
