//! The peer: matrix factorisation of the Python package `implicit`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use pgrec_benches::python;
use xtask::process::captured;
use xtask::toolchain::PythonEnv;
use xtask::{Home, Progress};

use crate::held_out::Parts;

/// The best by the validation fifth of one split, of rates .05, .1 and .2, l2 of .003, .01, .03 and .1, and 300 and 1,000
/// epochs.
const SETTINGS: [&str; 6] = ["--rate", "0.05", "--l2", "0.03", "--epochs", "1000"];

/// How to start it.
pub struct Implicit {
    python: PythonEnv,
    script: PathBuf,
    folder: PathBuf,
}

impl Implicit {
    /// Where it can be installed.
    pub fn new(home: &Home, progress: &Progress) -> Result<Self> {
        let python = python(home, &["numpy", "scipy", "implicit"], progress)?;
        let script = home.repository().join("benches/space/implicit_bpr.py");
        Ok(Self { python, script, folder: home.folder("bench-space")? })
    }

    /// Lists of `k` items for each user, and the seconds that learning took.
    pub fn lists(&self, parts: &[Parts], k: usize, seed: u64) -> Result<(Vec<Vec<i64>>, f64)> {
        let mut ids: Vec<i64> = parts.iter().flat_map(|parts| &parts.learnt).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let dense: HashMap<i64, usize> = ids.iter().copied().zip(0..).collect();
        let mut events = String::new();
        for (user, parts) in parts.iter().enumerate() {
            parts.learnt.iter().try_for_each(|item| writeln!(events, "{user} {}", dense[item]))?;
        }
        let [from, to] = ["events.txt", "lists.txt"].map(|name| self.folder.join(name));
        std::fs::write(&from, events).with_context(|| format!("writing {}", from.display()))?;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut command = self.python.command();
        // Else its own threads and those of its linear algebra are in each other's way.
        command.env("OPENBLAS_NUM_THREADS", "1").arg(&self.script).args([&from, &to]).args(SETTINGS);
        command.args(["--users", &parts.len().to_string(), "--items", &ids.len().to_string(), "--k", &k.to_string()]);
        command.args(["--threads", &threads.to_string(), "--seed", &seed.to_string()]);
        let seconds = captured(&mut command, "implicit")?;
        let seconds = seconds.lines().last().unwrap_or_default().trim().parse().context("reading its seconds")?;
        let text = std::fs::read_to_string(&to).with_context(|| format!("reading {}", to.display()))?;
        let list =
            |line: &str| line.split(' ').filter_map(|place| ids.get(place.parse::<usize>().ok()?).copied()).collect();
        Ok((text.lines().map(list).collect(), seconds))
    }
}
