//! `cargo xtask test`: everything from nothing to all tests passed.
//!
//! Cheap and early failures first. A failed phase does not stop the ones that can still tell something.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::cargo::{self, cargo_for};
use crate::cli::TestArgs;
use crate::extension::{build_and_install, variable};
use crate::gpu;
use crate::home::Home;
use crate::postgres::Postgres;
use crate::process::{captured, streamed};
use crate::progress::Progress;
use crate::toolchain::{Toolchain, embedded_postgres};

/// The crates that are compiled together with the extension. Cargo unifies features over the packages it is given, so
/// naming the same set every time keeps it from building a dependency twice.
const EXTENSION: [&str; 3] = ["pgrec", "pgrec-engine", "pgrec-kernels"];
const TOOL: [&str; 1] = ["xtask"];

/// Names a file to which tests add one line for everything they leave out.
const SKIPPED: &str = "PGREC_SKIPPED";

/// What the phases share.
struct Suite<'a> {
    home: &'a Home,
    progress: Progress,
    toolchain: Toolchain,
    filter: Option<&'a str>,
    skipped: PathBuf,
    failed: Vec<String>,
}

/// Runs the tests; the exit code says whether all passed.
///
/// # Errors
/// When the tests cannot be run: something cannot be fetched or built.
pub fn run(home: &Home, progress: Progress, arguments: &TestArgs) -> Result<ExitCode> {
    if let Some(remark) = home.remark() {
        progress.say(&remark);
    }
    let majors: &[u32] = if arguments.quick { &[16] } else { &[16, 18] };
    let mut formatted = Ok(());
    if arguments.filter.is_none() {
        formatted = progress
            .phase("format", || streamed(cargo::plain(home).args(["fmt", "--all", "--check"]), "cargo fmt --check"));
    }
    let toolchain = Toolchain::provision(home, &progress)?;
    let servers = majors.iter().map(|&major| embedded_postgres(home, major, &progress));
    let servers = servers.collect::<Result<Vec<Postgres>>>()?;
    let skipped = home.dir().join("skipped.txt");
    std::fs::write(&skipped, "").with_context(|| format!("writing {}", skipped.display()))?;

    let filter = arguments.filter.as_deref();
    let failed = formatted.err().map(|error| error.to_string()).into_iter().collect();
    let mut suite = Suite { home, progress, toolchain, filter, skipped, failed };
    let others = others(home)?;
    let groups: Vec<Vec<&str>> = [TOOL.to_vec(), EXTENSION.to_vec(), others.iter().map(String::as_str).collect()]
        .into_iter()
        .filter(|group: &Vec<&str>| !group.is_empty())
        .collect();
    if filter.is_none() {
        suite.lints(&groups, &servers[0]);
        if !arguments.quick {
            suite.documentation(&groups, &servers[0]);
        }
    }
    if filter.is_none() {
        suite.phase("CUDA kernels", &mut |suite| gpu::compile(suite.home, &suite.progress));
    }
    suite.phase("unit tests of xtask", &mut |suite| suite.tests(&TOOL, &servers[0], &[]));
    suite.phase("unit tests of engine and kernels", &mut |suite| suite.tests(&EXTENSION, &servers[0], &[]));
    suite.real_servers(&others, &servers)?;
    Ok(suite.summary())
}

/// Says that a test leaves something out for want of data (or of a tool); `cargo xtask test` lists these at its end.
pub fn skip(test: &str, why: &str) {
    println!("skipped {test}: {why}");
    if let Some(path) = std::env::var_os(SKIPPED)
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(path)
    {
        let _ = writeln!(file, "{test}: {why}");
    }
}

impl Suite<'_> {
    fn lints(&mut self, groups: &[Vec<&str>], postgres: &Postgres) {
        for group in groups {
            self.phase(&format!("lints of {}", group.join(", ")), &mut |suite| {
                let mut clippy = suite.cargo("clippy", group, postgres);
                streamed(clippy.args(["--all-targets", "--", "-D", "warnings"]), "cargo clippy")
            });
        }
    }

    fn documentation(&mut self, groups: &[Vec<&str>], postgres: &Postgres) {
        for group in groups {
            self.phase(&format!("documentation of {}", group.join(", ")), &mut |suite| {
                let mut doc = suite.cargo("doc", group, postgres);
                streamed(doc.arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"), "cargo doc")
            });
        }
    }

    /// Builds and installs the extension for every version, then runs the crates that talk to servers.
    fn real_servers(&mut self, others: &[String], servers: &[Postgres]) -> Result<()> {
        let mut variables = Vec::new();
        for postgres in servers {
            self.progress.phase(&format!("building and installing for {}", postgres.version), || {
                build_and_install(self.home, &self.toolchain, postgres)
            })?;
            variables.push((variable(postgres.major), postgres.pg_config.clone()));
        }
        for package in others {
            self.phase(&format!("tests on real servers: {package}"), &mut |suite| {
                suite.tests(&[package.as_str()], &servers[0], &variables)
            });
        }
        Ok(())
    }

    fn tests(&self, packages: &[&str], postgres: &Postgres, variables: &[(String, PathBuf)]) -> Result<()> {
        let mut test = self.cargo("test", packages, postgres);
        test.args(self.filter).env(SKIPPED, &self.skipped);
        test.envs(variables.iter().map(|(name, value)| (name, value)));
        if let Some(data) = self.home.data() {
            test.env("PGREC_DATA", data);
        }
        streamed(test.arg("--no-fail-fast"), "cargo test")
    }

    fn cargo(&self, subcommand: &str, packages: &[&str], postgres: &Postgres) -> Command {
        let mut command = cargo_for(self.home, subcommand, &self.toolchain, postgres);
        for package in packages {
            command.args(["--package", package]);
        }
        if packages.contains(&EXTENSION[0]) {
            command.args(["--features", &format!("{}/{}", EXTENSION[0], postgres.feature())]);
        }
        command
    }

    fn phase(&mut self, what: &str, work: &mut dyn FnMut(&Self) -> Result<()>) {
        if let Err(error) = self.progress.phase(what, || work(self)) {
            self.progress.say(&format!("  {error:#}"));
            self.failed.push(what.to_owned());
        }
    }

    fn summary(&self) -> ExitCode {
        let skipped = std::fs::read_to_string(&self.skipped).unwrap_or_default();
        if self.home.data().is_none() {
            self.progress.say("real data: none found (set PGREC_DATA), tests on it were skipped");
        }
        if !skipped.is_empty() {
            self.progress.say(&format!("skipped:\n{}", skipped.trim_end()));
        }
        let seconds = self.progress.seconds();
        if self.failed.is_empty() {
            self.progress.say(&format!("all tests passed in {seconds:.0} s"));
            return ExitCode::SUCCESS;
        }
        self.progress.say(&format!("FAILED after {seconds:.0} s: {}", self.failed.join("; ")));
        ExitCode::FAILURE
    }
}

/// The workspace's packages beyond the extension and xtask: tests and benches.
fn others(home: &Home) -> Result<Vec<String>> {
    let text = captured(cargo::plain(home).args(["metadata", "--no-deps", "--format-version=1"]), "cargo metadata")?;
    let metadata: Value = serde_json::from_str(&text).context("reading cargo metadata")?;
    let packages = metadata["packages"].as_array().ok_or_else(|| anyhow!("cargo metadata names no packages"))?;
    let names = packages.iter().filter_map(|package| package["name"].as_str());
    Ok(names.filter(|name| !EXTENSION.contains(name) && !TOOL.contains(name)).map(str::to_owned).collect())
}

/// The folder `name` of the real data, or `None` after saying that `test` leaves it out.
#[must_use]
pub fn data(home: &Home, name: &str, test: &str) -> Option<PathBuf> {
    let folder = home.data().map(|data| data.join(name)).filter(|folder: &PathBuf| Path::is_dir(folder));
    if folder.is_none() {
        skip(test, &format!("no {name} in PGREC_DATA"));
    }
    folder
}
