//! One training, from its data to its stored model.

use std::ffi::CStr;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrec_engine::evaluate::{self, EvalRow, Protocol, Spec};
use pgrec_engine::train::Kept;
use pgrec_engine::{Artifact, Control, Corpus, Model, families};
use pgrec_kernels::cpu::Isa;
use rayon::ThreadPool;
use serde_json::{Map, Value, json};

use super::compare::Verdict;
use super::duty::{self, Part};
use super::request::{self, Params, Trainable};
use crate::catalog::model::{Cut, Trained};
use crate::catalog::progress::{self, Progress};
use crate::catalog::recommender;
use crate::catalog::training::{self, Task};
use crate::catalog::{artifact, deployment, model};
use crate::compute;
use crate::corpus::{self, Read};
use crate::error::{Result, SqlError};
use crate::outcomes;
use crate::pg::lock::{self, Held};
use crate::pg::spi::Mode;
use crate::pg::{interrupt, process, role, transaction};
use crate::settings;
use crate::storage::{open, unfinished};

/// Last events that must be unseen for a model to be validated when it is trained.
pub const VALIDATED: u32 = 2;

/// How often a training says how far it is.
const PUBLISH: Duration = Duration::from_secs(1);

/// For what a crash of the server may lose: nobody waits until the disk has it.
const UNHURRIED: &[(&CStr, &CStr)] = &[(c"synchronous_commit", c"off")];

/// For what others may have locked for longer than a training should stand in the way of the next.
const IMPATIENT: &[(&CStr, &CStr)] = &[(c"lock_timeout", c"1s")];

/// Does a training and writes how it ended. `alive` is the lock that shows it to be under way.
pub fn run(task: &Task, alive: Held) {
    duty::assume(task.id, Part::Worker);
    if let Err(error) = Job::new(task).and_then(|mut job| job.run()) {
        let error = error.into_cancellation();
        pgrx::log!(
            "pgrec: training of model \"{}\" of recommender \"{}\" failed: {}",
            task.model,
            task.recommender,
            error.reason()
        );
        // A second failure (the catalogue is dropped, or whoever stopped this keeps the row locked) leaves what the
        // lock's end shows.
        if let Err(error) = transaction::run_with(IMPATIENT, || training::fail(task.id, &error)) {
            pgrx::log!("pgrec: that cannot be written: {}", error.reason());
        }
    }
    duty::release();
    drop(alive);
    if let Some(waiter) = task.order.waiter {
        process::wake(waiter);
    }
}

struct Job<'a> {
    task: &'a Task,
    family: Trainable,
    params: Params,
    pool: ThreadPool,
    /// How often it keeps how far it is.
    keeps: Option<Duration>,
    start: Instant,
    cpu: f64,
}

/// What is read before it is fitted.
struct Input {
    read: Read,
    init: Option<Arc<Artifact>>,
    base: Option<Arc<Artifact>>,
    members: Vec<Arc<Artifact>>,
    /// Where it keeps how far it is.
    unfinished: PathBuf,
}

/// What fitting makes.
pub struct Output {
    /// The artifact's bytes.
    pub bytes: Vec<u8>,
    curve: Value,
    metrics: Map<String, Value>,
}

impl<'a> Job<'a> {
    fn new(task: &'a Task) -> Result<Self> {
        let family = request::trainable(Some(&task.family))?;
        let params = Params::parse(task.params.clone())?;
        let threads = usize::try_from(task.order.threads).unwrap_or(0);
        let pool = compute::pool(threads, task.order.niceness)?;
        let keeps = settings::training_checkpoint();
        Ok(Self { task, family, params, pool, keeps, start: Instant::now(), cpu: process::cpu_seconds() })
    }

    /// Nothing is held while it computes: no snapshot, no transaction, no lock but the one that says it is alive.
    fn run(&mut self) -> Result<()> {
        self.show("reading");
        let input = transaction::run(|| self.read())?;
        let mut output = self.compute("fitting", |control| self.fit(&input, control))?;
        let verdict = self.judge(&mut output, &input.read.corpus)?;
        let (items, fingerprint, unfinished) =
            (input.read.corpus.items().len(), input.read.fingerprint, input.unfinished);
        self.enter("storing", &Progress::default())?;
        let trained = self.trained(output.curve.clone());
        transaction::run(|| self.store(&output, items, &fingerprint, &trained, &verdict))?;
        // Most have none.
        let _ = fs::remove_file(unfinished);
        Ok(())
    }

    fn read(&mut self) -> Result<Input> {
        let recommender = recommender::resolve(Mode::Write, Some(&self.task.recommender))?;
        let owner = recommender.owner_oid()?;
        let tasks = role::as_owner(owner, || outcomes::of_training(&recommender, &self.family, &mut self.params))?;
        // Rows of the catalogue written now are seen by nobody before the reading is over; this is.
        let mut shown = Instant::now();
        let mut show = |read: u64, expected: u64| {
            if shown.elapsed() >= PUBLISH {
                shown = Instant::now();
                self.show(&corpus::how_far(read, expected));
            }
        };
        let (needs, memory) = ((self.family.needs)(&self.params.own), self.memory());
        let recommender = recommender.with_embedding(self.params.embedding.as_deref())?;
        let read = role::as_owner(owner, || corpus::read(&recommender, needs, &tasks, memory, &mut show))?;
        if self.family.ranks && read.corpus.interactions() == 0 {
            return Err(nothing_to_train_on());
        }
        let named = self.params.init.as_ref();
        let init = named.map(|name| model::to_continue(&recommender, name, self.family.name)).transpose()?;
        let base = request::base(&recommender, &self.family, &self.params)?;
        let members = request::members(&recommender, &self.family, &self.params)?;
        let checksums = [&init, &base].map(|row| row.as_ref().map(|row| row.checksum));
        let unfinished = unfinished::file_of(self.task, recommender.id, &read.corpus, checksums);
        let open = |row| Ok::<_, SqlError>(Arc::clone(&open::open_row(row)?.artifact));
        let members = members.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Input { read, init: init.map(open).transpose()?, base: base.map(open).transpose()?, members, unfinished })
    }

    /// Bytes that the training may take.
    fn memory(&self) -> usize {
        usize::try_from(self.task.order.memory).unwrap_or(0).saturating_mul(1024)
    }

    fn fit(&self, input: &Input, control: &Control) -> pgrec_engine::Result<Output> {
        let fitted = (self.family.fit)(&families::Training {
            corpus: &input.read.corpus,
            leave_last: self.params.leave_last as usize,
            params: &self.params.own,
            seed: self.params.seed as u64,
            start: input.init.clone(),
            base: input.base.clone().map(|artifact| families::open(artifact).map(Arc::from)).transpose()?,
            members: &input.members,
            memory: self.memory().saturating_sub(input.read.corpus.resident()),
            kept: self.keeps.map(|every| Kept { file: &input.unfinished, every }),
            control,
        })?;
        let bytes = fitted.artifact.finish()?;
        Ok(Output { bytes, curve: Value::Array(fitted.curve), metrics: fitted.metrics })
    }

    /// Measures the model on the validation events that it has not seen, and says whether it is to be deployed.
    fn judge(&self, output: &mut Output, corpus: &Corpus) -> Result<Verdict> {
        let figures = match self.params.leave_last {
            _ if !self.family.ranks => Map::new(),
            0..VALIDATED => Map::new(),
            _ => {
                let artifact = Artifact::from_vec(output.bytes.clone())?;
                self.validate(&*families::open(Arc::new(artifact))?, corpus)?
            }
        };
        let verdict = Verdict::reach(self.task, &figures, |other| self.validate(other, corpus))?;
        if !figures.is_empty() {
            output.metrics.insert("validation".into(), Value::Object(figures));
        }
        output.metrics.extend(verdict.to_json());
        Ok(verdict)
    }

    /// Figures by name, such as `ndcg@10`; none where histories are too short for the protocol.
    fn validate(&self, model: &dyn Model, corpus: &Corpus) -> Result<Map<String, Value>> {
        let spec = Spec { protocol: Protocol::Validation, ..Spec::default() };
        let report = match self.compute("validating", |control| evaluate::evaluate(model, corpus, &spec, control)) {
            Ok(report) => report,
            Err(error) if error.is_state() => return Ok(Map::new()),
            Err(error) => return Err(error),
        };
        let figures = report.rows.iter().filter(|row| row.grp == "all");
        let name = |row: &EvalRow| match row.k {
            0 => row.metric.to_owned(),
            k => format!("{}@{k}", row.metric),
        };
        Ok(figures.map(|row| (name(row), json!(row.value))).collect())
    }

    fn trained(&self, curve: Value) -> Trained {
        Trained {
            curve,
            seconds: self.start.elapsed().as_secs_f64(),
            cpu_seconds: process::cpu_seconds() - self.cpu,
            versions: json!({
                "pgrec": env!("CARGO_PKG_VERSION"),
                "postgres": process::server_version(),
                "instructions": format!("{:?}", Isa::detect()).to_lowercase(),
                "threads": self.pool.current_num_threads(),
            }),
        }
    }

    fn store(
        &self,
        output: &Output,
        items: usize,
        fingerprint: &Value,
        trained: &Trained,
        verdict: &Verdict,
    ) -> Result<()> {
        let checksum = artifact::store(self.task.id, &output.bytes)?;
        let mut cut = Cut::LeaveLast(self.params.leave_last).to_json();
        if let (Value::Object(cut), Value::Object(facts)) = (&mut cut, fingerprint) {
            cut.extend(facts.clone());
        }
        let facts = model::Facts {
            params: &self.params.to_json(),
            cut: &cut,
            metrics: &Value::Object(output.metrics.clone()),
            items,
            bytes: output.bytes.len(),
            checksum,
            training: Some(trained),
        };
        training::remove(self.task.id)?;
        if !model::finish(self.task.id, &facts)? {
            return Err(stopped());
        }
        if verdict.deploys() {
            let recommender = recommender::resolve(Mode::Write, Some(&self.task.recommender))?;
            let row = model::ready(Mode::Write, &recommender, Some(&self.task.model))?;
            deployment::add(&recommender, &row, &self.task.order.started_by)?;
        }
        Ok(())
    }

    /// Computes on the training's threads, and says how far it is while it does.
    fn compute<T: Send>(
        &self,
        phase: &str,
        work: impl FnOnce(&Control) -> pgrec_engine::Result<T> + Send,
    ) -> Result<T> {
        self.enter(phase, &Progress::default())?;
        let mut published = Instant::now();
        transaction::attempt(|| {
            compute::run_on(&self.pool, work, |control| {
                if published.elapsed() < PUBLISH {
                    return Ok(());
                }
                published = Instant::now();
                // The server may be gone; nobody else would tell a process that only computes.
                interrupt::sleep(Duration::ZERO);
                if training::is_forsaken(self.task) {
                    return Err(training::forsaken());
                }
                if lock::database_is_wanted() {
                    return Err(training::cancelled("cancelled: the database was to be dropped or renamed"));
                }
                self.publish(control.phase().unwrap_or(phase), &progress_of(control))
            })
        })
    }

    fn enter(&self, phase: &str, progress: &Progress) -> Result<()> {
        self.show(phase);
        self.publish(phase, progress)
    }

    fn show(&self, phase: &str) {
        process::show_activity(&format!("rec_train: model {} of {}, {phase}", self.task.model, self.task.recommender));
    }

    fn publish(&self, phase: &str, progress: &Progress) -> Result<()> {
        match transaction::run_with(UNHURRIED, || progress::publish(self.task.id, phase, progress))? {
            true => Ok(()),
            false => Err(stopped()),
        }
    }
}

fn progress_of(control: &Control) -> Progress {
    if let Some(training) = control.training() {
        return training.into();
    }
    let (done, total) = control.progress();
    Progress { steps: (total > 0).then_some((done as i64, total as i64)), ..Progress::default() }
}

fn stopped() -> SqlError {
    training::cancelled("cancelled: the training was stopped, or its model dropped")
}

/// An empty corpus.
pub fn nothing_to_train_on() -> SqlError {
    SqlError::state("there is nothing to train on").detail(
        "The interactions relation has no rows that the owner of the recommender can read, or leave_last leaves none.",
    )
}
