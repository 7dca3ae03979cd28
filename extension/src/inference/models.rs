//! The models that the worker has open, of all databases.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pgrec_engine::inference::message::Identity;
use pgrec_engine::{Artifact, Model, families};

use crate::pg::board::{Board, ModelLine, unix_seconds};
use crate::storage::cache;

/// An open model.
pub struct Loaded {
    pub identity: Identity,
    pub model: Box<dyn Model>,
    /// What other processes see of it.
    pub line: &'static ModelLine,
    path: PathBuf,
    /// Mean computing time of a list lately, in nanoseconds; 0 where none was computed.
    nanoseconds: AtomicU64,
}

impl Loaded {
    /// How long a list takes, where that is known.
    pub fn time(&self) -> Option<Duration> {
        let nanoseconds = self.nanoseconds.load(Ordering::Relaxed);
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }

    /// Counts questions that were computed together, for so many users, of which some ended with an error.
    pub fn count(&self, questions: usize, rows: usize, errors: usize, took: Duration) {
        let line = self.line;
        line.questions.fetch_add(questions as u64, Ordering::Relaxed);
        line.rows.fetch_add(rows as u64, Ordering::Relaxed);
        line.errors.fetch_add(errors as u64, Ordering::Relaxed);
        line.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Learns how long lists take.
    pub fn note_time(&self, took: Duration, rows: usize) {
        let each = took.as_nanos() as u64 / rows.max(1) as u64;
        let former = self.nanoseconds.load(Ordering::Relaxed);
        let mean = if former == 0 { each } else { former - former / 8 + each / 8 };
        self.nanoseconds.store(mean.max(1), Ordering::Relaxed);
    }
}

/// All of them.
pub struct Models {
    board: &'static Board,
    /// Least recently used first.
    open: Mutex<Vec<Arc<Loaded>>>,
}

impl Models {
    pub fn new(board: &'static Board) -> Self {
        Self { board, open: Mutex::default() }
    }

    /// The model, where it is open, as the most recently used one.
    pub fn known(&self, identity: Identity) -> Option<Arc<Loaded>> {
        let mut open = self.open.lock();
        let place = open.iter().rposition(|loaded| loaded.identity == identity)?;
        let loaded = open.remove(place);
        open.push(Arc::clone(&loaded));
        loaded.line.used.store(unix_seconds(), Ordering::Relaxed);
        Some(loaded)
    }

    /// The model, opened where it is not; then those unused for longest are closed until what is open fits into so many
    /// bytes. Fails with a sentence where its file is not there or damaged.
    pub fn get(&self, identity: Identity, memory: u64) -> Result<Arc<Loaded>, String> {
        if let Some(loaded) = self.known(identity) {
            return Ok(loaded);
        }
        let path = cache::file_of(&identity);
        // Nothing is locked meanwhile; who opens the same model at the same time finds one of them in the end.
        let model = open(&path, identity)?;
        let mut all = self.open.lock();
        if let Some(loaded) = all.iter().find(|loaded| loaded.identity == identity) {
            return Ok(Arc::clone(loaded));
        }
        let line = self.line_of(identity, &all);
        line.loaded.store(1, Ordering::Relaxed);
        line.unwanted.store(0, Ordering::Relaxed);
        line.used.store(unix_seconds(), Ordering::Relaxed);
        let loaded = Arc::new(Loaded { identity, model, line, path, nanoseconds: AtomicU64::new(0) });
        all.push(Arc::clone(&loaded));
        let mut bytes: u64 = all.iter().map(|loaded| loaded.identity.bytes).sum();
        let mut gone = 0;
        while bytes > memory && gone + 1 < all.len() {
            bytes -= all[gone].identity.bytes;
            close(&all[gone]);
            gone += 1;
        }
        let closed: Vec<_> = all.drain(..gone).collect();
        // What takes time, to let go of them, keeps nobody waiting.
        drop(all);
        drop(closed);
        Ok(loaded)
    }

    /// Closes those that somebody wants closed, and those whose file is gone: their database or model was dropped.
    pub fn sweep(&self) {
        self.close_where(|loaded| loaded.line.unwanted.swap(0, Ordering::Relaxed) != 0 || !loaded.path.exists());
        // Somebody may have wanted one closed that was closed already.
        self.board.models.iter().for_each(|line| line.unwanted.store(0, Ordering::Relaxed));
    }

    /// Closes the models that use a device and were unused for longest until the rest fits into so many bytes of it.
    pub fn fit_device(&self, memory: u64) {
        let mut bytes = 0;
        let mut open = self.open.lock();
        // The most recently used one stays.
        let mut kept: Vec<bool> = Vec::with_capacity(open.len());
        for loaded in open.iter().rev() {
            let own = loaded.line.on_device.load(Ordering::Relaxed);
            bytes += own;
            kept.push(own == 0 || bytes <= memory || bytes == own);
        }
        let mut kept = kept.into_iter().rev();
        let closed: Vec<_> = open.extract_if(.., |_| !kept.next().unwrap_or(true)).collect();
        closed.iter().for_each(|loaded| close(loaded));
        drop(open);
        drop(closed);
    }

    fn close_where(&self, unwanted: impl Fn(&Loaded) -> bool) {
        let mut open = self.open.lock();
        let closed: Vec<_> = open.extract_if(.., |loaded| unwanted(loaded)).collect();
        closed.iter().for_each(|loaded| close(loaded));
        drop(open);
        drop(closed);
    }

    /// A line of the board: the model's own, else a free one, else that of the model that was used least recently.
    fn line_of(&self, identity: Identity, open: &[Arc<Loaded>]) -> &'static ModelLine {
        let lines = &self.board.models;
        if let Some(line) = lines.iter().find(|line| line.identity() == Some(identity)) {
            return line;
        }
        let in_use = |line: &&ModelLine| open.iter().any(|loaded| std::ptr::eq(loaded.line, *line));
        let free = lines.iter().find(|line| line.identity().is_none());
        let idle = || lines.iter().filter(|line| !in_use(line)).min_by_key(|line| line.used.load(Ordering::Relaxed));
        // More models open than lines: the last two share one.
        let line = free.or_else(idle).unwrap_or(&lines[lines.len() - 1]);
        line.begin(identity);
        line
    }
}

fn close(loaded: &Loaded) {
    loaded.line.loaded.store(0, Ordering::Relaxed);
    loaded.line.on_device.store(0, Ordering::Relaxed);
}

fn open(path: &Path, identity: Identity) -> Result<Box<dyn Model>, String> {
    let bytes = cache::map_file(path, identity.bytes).map_err(|error| error.reason())?;
    let bytes = bytes.ok_or_else(|| format!("cache file \"{}\" is not there", path.display()))?;
    Artifact::parse(bytes)
        .and_then(|artifact| families::open(Arc::new(artifact)))
        .map_err(|error| format!("cache file \"{}\" is damaged: {error}", path.display()))
}
