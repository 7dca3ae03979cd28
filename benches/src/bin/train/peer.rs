//! The peer: PyTorch, in whatever form is the fastest here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::process::captured;
use xtask::toolchain::PythonEnv;
use xtask::{Home, Progress};

use crate::Loss;
use crate::contest::{Measured, Side, last_line};
use crate::histories::HistoriesFile;

/// How to start it.
pub struct Peer {
    python: PythonEnv,
    script: PathBuf,
    compiled: PathBuf,
    threads: usize,
}

/// The peer in one of its forms.
pub struct Formed<'a> {
    peer: &'a Peer,
    /// The script's own choice where absent: as the published port has it.
    form: Option<String>,
}

impl Peer {
    /// The scripts of this repository, run by `python`.
    pub fn new(home: &Home, python: PythonEnv, threads: usize) -> Result<Self> {
        let script = home.repository().join("benches/train/peer.py");
        Ok(Self { python, script, compiled: home.folder("bench-train")?.join("compiled"), threads })
    }

    /// As the published port has it.
    pub fn usual(&self) -> Formed<'_> {
        Formed { peer: self, form: None }
    }

    /// The form that is the fastest for a loss, after some steps in every one.
    pub fn fastest(&self, loss: Loss, histories: &HistoriesFile, progress: &Progress) -> Result<Formed<'_>> {
        let what = format!("{}: which form of the peer is the fastest", loss.name());
        let output = progress.step(&what, |_| captured(self.command(loss, histories).arg("--try"), "the peer"))?;
        let forms: BTreeMap<String, Value> = last_line(&output)?;
        for (form, outcome) in &forms {
            let outcome = outcome.as_f64().map_or_else(|| outcome.to_string(), |s| format!("{:.0} ms a step", 1e3 * s));
            progress.say(&format!("    {form}: {outcome}"));
        }
        let times = forms.into_iter().filter_map(|(form, seconds)| Some((seconds.as_f64()?, form)));
        let (_, form) = times.min_by(|(a, _), (b, _)| a.total_cmp(b)).context("the peer works in no form")?;
        Ok(Formed { peer: self, form: Some(form) })
    }

    fn command(&self, loss: Loss, histories: &HistoriesFile) -> Command {
        let mut command = self.python.command();
        command.env("OMP_NUM_THREADS", self.threads.to_string()).env("TORCHINDUCTOR_CACHE_DIR", &self.compiled);
        command.arg(&self.script).arg(&histories.path);
        command.args(["--items", &histories.items.to_string(), "--loss", loss.name()]);
        command.args(["--threads", &self.threads.to_string()]);
        command
    }
}

impl Side for Formed<'_> {
    fn name(&self) -> &str {
        "peer"
    }

    fn train(&self, loss: Loss, histories: &HistoriesFile) -> Result<Measured> {
        let mut command = self.peer.command(loss, histories);
        if let Some(form) = &self.form {
            command.args(["--form", form]);
        }
        last_line(&captured(&mut command, "the peer's training")?)
    }
}
