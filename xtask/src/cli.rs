//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::extension::build_and_install;
use crate::home::Home;
use crate::postgres::Postgres;
use crate::progress::Progress;
use crate::toolchain::Toolchain;
use crate::{bench, clean, demo, gpu, suite};

/// The only build tool of pgrec: what it needs is fetched into target/pgrec.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// From a clone to recommendations: build, start a private Postgres, load data, train, show
    Demo(DemoArgs),
    /// From nothing to all tests passed: format, lints, documentation, unit tests, real servers
    Test(TestArgs),
    /// A prompt on the demo's database; arguments go to psql
    Psql {
        /// Arguments of psql, such as -c 'SELECT …'
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a bench, or list them
    Bench {
        /// Which one; without a name they are listed
        name: Option<String>,
        /// Arguments of the bench
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The CUDA kernels
    Gpu {
        #[command(subcommand)]
        action: GpuAction,
    },
    /// Build for your own Postgres (16 to 18, with pgvector) and copy the files into it
    Install {
        /// The pg_config of that Postgres; its server headers must be installed
        #[arg(long, value_name = "PATH")]
        pg_config: PathBuf,
    },
    /// Stop private servers; remove what was fetched and built
    Clean {
        /// Keep what was fetched and built; only stop and remove the servers and their data
        #[arg(long)]
        servers: bool,
    },
}

#[derive(Debug, Subcommand)]
enum GpuAction {
    /// Compile every kernel for every target, without a device, and print registers and spills
    Compile,
    /// Build a folder of tests, benchmark and script for a machine with a device and without Rust
    Bundle {
        /// The folder; target/gpu without
        folder: Option<PathBuf>,
    },
}

/// Options of `cargo xtask demo`.
#[derive(Debug, Args, Default)]
pub struct DemoArgs {
    /// A folder in the format of shared/data, or the original MovieLens files; without, a generated shop
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A pretrained sequence encoder (safetensors) for this data
    #[arg(long, value_name = "FILE", requires = "data")]
    pub checkpoint: Option<PathBuf>,
    /// Use this Postgres instead of the private one; the extension is installed into it
    #[arg(long, value_name = "PATH")]
    pub pg_config: Option<PathBuf>,
    /// Show the database of the last demo again instead of making a new one
    #[arg(long, conflicts_with_all = ["data", "checkpoint", "pg_config"])]
    pub keep: bool,
    /// Only stop the server of the last demo
    #[arg(long, conflicts_with_all = ["data", "checkpoint", "pg_config", "keep"])]
    pub stop: bool,
}

/// Options of `cargo xtask test`.
#[derive(Debug, Args, Default)]
pub struct TestArgs {
    /// Postgres 16 only, and no documentation
    #[arg(long)]
    pub quick: bool,
    /// Only tests whose name contains this, and no format, lints or documentation
    pub filter: Option<String>,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// When it cannot be done; tests that fail are no error but a failing exit code.
    pub fn run(self) -> Result<ExitCode> {
        let home = Home::locate()?;
        let progress = Progress::new();
        match self.command {
            Action::Demo(arguments) => demo::run(&home, &progress, &arguments)?,
            Action::Test(arguments) => return suite::run(&home, progress, &arguments),
            Action::Psql { arguments } => return demo::psql(&home, &arguments),
            Action::Bench { name: Some(name), arguments } => bench::run(&home, &name, &arguments)?,
            Action::Bench { name: None, .. } => progress.say(&format!("benches:\n{}", bench::list(&home)?)),
            Action::Gpu { action: GpuAction::Compile } => gpu::compile(&home, &progress)?,
            Action::Gpu { action: GpuAction::Bundle { folder } } => gpu::bundle(&home, &progress, folder)?,
            Action::Install { pg_config } => install(&home, &progress, &Postgres::from_pg_config(&pg_config)?)?,
            Action::Clean { servers } => clean::clean(&home, &progress, servers)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn install(home: &Home, progress: &Progress, postgres: &Postgres) -> Result<()> {
    postgres.require_vector()?;
    let toolchain = Toolchain::provision(home, progress)?;
    progress.phase(&format!("building for {} and installing", postgres.version), || {
        build_and_install(home, &toolchain, postgres)
    })?;
    progress.say("Now, in a database of it:\n  CREATE EXTENSION pgrec CASCADE;");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Action, clap::Error> {
        Cli::try_parse_from(format!("xtask {line}").split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn psql_and_bench_pass_on_whatever_follows() {
        let Action::Psql { arguments } = parsed("psql -X -c \\dt").unwrap() else { panic!("not psql") };
        assert_eq!(arguments, ["-X", "-c", "\\dt"]);
        let Action::Bench { name, arguments } = parsed("bench serve --clients 4").unwrap() else { panic!("not bench") };
        assert_eq!((name.as_deref(), arguments), (Some("serve"), vec!["--clients".to_owned(), "4".to_owned()]));
    }

    #[test]
    fn a_checkpoint_needs_its_data_and_keep_makes_nothing_new() {
        assert!(parsed("demo --checkpoint x.safetensors").is_err());
        assert!(parsed("demo --data d --checkpoint x.safetensors").is_ok());
        assert!(parsed("demo --keep --data d").is_err());
        assert!(parsed("install").is_err());
    }
}
