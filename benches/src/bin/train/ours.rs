//! Our side: the engine, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use pgrec_engine::families::{self, Fitted, Training};
use pgrec_engine::{Control, Corpus, catalogue::IdKind};
use serde_json::{Value, json};
use xtask::process::captured;

use crate::contest::{Measured, Side, last_line};
use crate::histories::{self, HistoriesFile, LEFT_OUT, WINDOW};
use crate::{BATCH, Loss};

/// Steps of which the time is taken, after others that do not count.
const STEPS: usize = 20;
const WARM_UP_STEPS: usize = 3;
/// The first does not count.
const EPOCHS: usize = 3;

/// How to start it.
pub struct Ours {
    /// This program.
    pub program: PathBuf,
    /// Threads to compute with.
    pub threads: usize,
}

impl Side for Ours {
    fn name(&self) -> &str {
        "ours"
    }

    fn train(&self, loss: Loss, histories: &HistoriesFile) -> Result<Measured> {
        let mut command = Command::new(&self.program);
        command.arg("ours").arg(&histories.path);
        command.args(["--items", &histories.items.to_string(), "--loss", loss.name()]);
        command.args(["--threads", &self.threads.to_string()]);
        last_line(&captured(&mut command, "our training")?)
    }
}

/// One training and what it took, printed as JSON.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// A file with one history a line
    histories: PathBuf,
    /// Size of the catalogue
    #[arg(long)]
    items: usize,
    /// What is minimised
    #[arg(long)]
    loss: Loss,
    /// Threads to compute with
    #[arg(long)]
    threads: usize,
}

impl Run {
    /// Trains and prints.
    pub fn print(&self) -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build().context("starting threads")?;
        let measured = pool.install(|| self.measured())?;
        println!("{}", serde_json::to_string(&measured)?);
        Ok(())
    }

    fn measured(&self) -> Result<Measured> {
        let histories = histories::read(&self.histories)?;
        let corpus = self.corpus(&histories)?;
        // An epoch of one batch is a step.
        let batch = self.corpus(&histories[..histories.len().min(BATCH)])?;
        drop(histories);
        let memory_before = memory("VmRSS");
        let steps = self.epochs(&batch, WARM_UP_STEPS + STEPS)?;
        let epochs = self.epochs(&corpus, EPOCHS)?;
        let inputs = |history: &[u32]| history.len().saturating_sub(LEFT_OUT + 1).min(WINDOW);
        Ok(Measured {
            steps: steps[WARM_UP_STEPS..].to_vec(),
            epochs: epochs[1..].to_vec(),
            inputs: corpus.histories().map(inputs).sum(),
            memory_before,
            memory_peak: memory("VmHWM"),
        })
    }

    fn corpus(&self, histories: &[Vec<u32>]) -> Result<Corpus> {
        let mut corpus = CorpusBuilder::new(IdKind::Int);
        (0..self.items).try_for_each(|item| corpus.item(ItemKey::Int(item as i64)))?;
        for history in histories {
            corpus.user()?;
            history.iter().try_for_each(|&item| corpus.event(ItemKey::Int(i64::from(item)), None))?;
        }
        Ok(corpus.finish()?)
    }

    /// Seconds of every epoch of a training.
    fn epochs(&self, corpus: &Corpus, count: usize) -> Result<Vec<f64>> {
        let family = families::find("sasrec").ok_or_else(|| anyhow!("there is no sasrec"))?;
        let fit = family.fit.ok_or_else(|| anyhow!("sasrec cannot be trained"))?;
        let (params, control) = (self.params(count), Control::default());
        let training = Training { leave_last: LEFT_OUT, seed: 1, ..Training::new(corpus, &params, &control) };
        let Fitted { curve, .. } = fit(&training)?;
        let seconds = |point: &Value| point["seconds"].as_f64().ok_or_else(|| anyhow!("an epoch without its time"));
        let ends = curve.iter().map(seconds).collect::<Result<Vec<f64>>>()?;
        let begins = std::iter::once(0.0).chain(ends.iter().copied());
        Ok(ends.iter().zip(begins).map(|(end, begin)| end - begin).collect())
    }

    /// What `model.py` and `losses.py` have as constants. Validation, which the peer does not have, is of one user
    /// after the last epoch.
    fn params(&self, epochs: usize) -> Value {
        let mut params = json!({
            "form": "original", "dim": 64, "blocks": 2, "heads": 1, "ffn": 64, "activation": "relu",
            "window": WINDOW, "windows": "latest", "batch": BATCH, "dropout": 0.2, "attention_dropout": 0.2,
            "anneal_dropout": 0.0,
            "optimizer": "adamw", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.98, "weight_decay": 0.0, "clip": 0.0,
            "schedule": "constant", "warmup": 1, "average": 0.0,
            "epochs": epochs, "patience": 0, "validate_every": epochs, "validation_users": 1,
        });
        let loss = match self.loss {
            Loss::Bce => json!({ "loss": "bce", "normalized": false, "negatives": 1, "shared_negatives": false }),
            Loss::Softmax => json!({ "loss": "softmax", "normalized": false }),
            Loss::SampledSoftmax => json!({
                "loss": "sampled_softmax", "normalized": true, "temperature": 0.05, "negatives": 128,
                "shared_negatives": false, "correction": false,
            }),
        };
        for (name, value) in loss.as_object().into_iter().flatten() {
            params[name] = value.clone();
        }
        params
    }
}

/// Bytes of this process: a line of what Linux knows of it.
fn memory(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
