//! CREATE INDEX and REINDEX.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgrec_engine::index;
use pgrec_kernels::{Format, KernelError, Metric, SegmentBuilder, near_together};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, IndexBuildResult, IndexInfo, ItemPointer, Relation};
use rayon::Scope;

use super::definition::Definition;
use super::insert::{number_of, store};
use super::open::{OpenIndex, maintenance_memory, maintenance_workers};
use crate::compute;
use crate::error::{SqlError, or_raise};
use crate::pg::interrupt;
use crate::pg::pages::IndexPages;

/// Rows that a thread takes at a time: some milliseconds of work.
const BATCH: usize = 64;
/// Batches that wait for each thread.
const WAITING: usize = 4;
/// Rows, and bytes of their vectors, that are put in order together: [`near_together`].
const WINDOW: usize = 8192;
const WINDOW_BYTES: usize = 32 << 20;

/// What `pg_stat_progress_create_index.phase` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Postgres' own first phase.
    Initializing = 1,
    /// Rows are read and woven into a graph.
    Weaving,
    /// A graph is written into the index's pages.
    Writing,
}

impl Phase {
    /// The phase of a number that `show` gave.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Initializing, Self::Weaving, Self::Writing].into_iter().find(|phase| *phase as i64 == number)
    }

    /// What it is called.
    pub fn name(self) -> &'static CStr {
        match self {
            Self::Initializing => c"initializing",
            Self::Weaving => c"loading tuples",
            Self::Writing => c"writing segment",
        }
    }

    fn show(self) {
        update(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, self as i64);
    }
}

fn update(parameter: u32, value: i64) {
    // SAFETY: sets a number of this process in shared memory.
    unsafe { pg_sys::pgstat_progress_update_param(parameter as i32, value) };
}

/// `ambuild`: reads the table into segments, as large as `maintenance_work_mem` allows.
#[pg_guard]
pub unsafe extern "C-unwind" fn build(
    heap: Relation,
    relation: Relation,
    info: *mut IndexInfo,
) -> *mut IndexBuildResult {
    // SAFETY: the index is open and locked during the call.
    let open = unsafe { OpenIndex::new(relation) };
    let definition = open.definition();
    open.or_raise(index::create(&open.pages, &definition.shape));
    let workers = maintenance_workers();
    let pool = or_raise(compute::pool(workers.max(1), 0));
    let (rows, added) = pool.in_place_scope(|scope| {
        let mut build = Build::new(&open, definition, workers, scope);
        Phase::Weaving.show();
        // SAFETY: table and index are open, and the state outlives the scan.
        let rows = unsafe { build.scan(heap, relation, info) };
        (rows, build.finish())
    });
    // SAFETY: a palloc'd node for the caller.
    unsafe {
        let result = pg_sys::palloc0(size_of::<IndexBuildResult>()).cast::<IndexBuildResult>();
        (*result).heap_tuples = rows;
        (*result).index_tuples = added as f64;
        result
    }
}

/// `ambuildempty`: what an unlogged index is after a crash.
#[pg_guard]
pub unsafe extern "C-unwind" fn build_empty(relation: Relation) {
    // SAFETY: the index is open and locked during the call.
    let (pages, open) = unsafe { (IndexPages::initial(relation), OpenIndex::new(relation)) };
    open.or_raise(index::create(&pages, &open.definition().shape));
    open.or_raise(pages.log_all());
}

/// Rows on their way into the segment that is being built.
struct Build<'a, 'scope> {
    open: &'a OpenIndex,
    definition: Definition,
    exact: Format,
    stored: Format,
    workers: usize,
    scope: &'a Scope<'scope>,
    builder: Arc<SegmentBuilder>,
    /// Rows that a segment may have.
    most: usize,
    /// Rows that are not in order yet.
    window: Batch,
    /// Batches that threads have.
    under_way: Arc<AtomicUsize>,
    failed: Arc<Mutex<Option<KernelError>>>,
    in_builder: usize,
    added: u64,
    scratch: Vec<u8>,
}

#[derive(Default)]
struct Batch {
    tids: Vec<u64>,
    vectors: Vec<u8>,
}

impl Batch {
    /// Some of the rows.
    fn part(&self, exact: &Format, rows: &[usize]) -> Self {
        let size = exact.vector_bytes();
        let vectors = rows.iter().flat_map(|&row| &self.vectors[row * size..(row + 1) * size]);
        Self { tids: rows.iter().map(|&row| self.tids[row]).collect(), vectors: vectors.copied().collect() }
    }

    fn add(&self, exact: &Format, stored: &Format, builder: &SegmentBuilder) -> Result<(), KernelError> {
        let own_error = if exact.metric() == Metric::Cosine { exact.rounding() } else { 0.0 };
        let mut converted = Vec::new();
        for (tid, vector) in self.tids.iter().zip(self.vectors.chunks(exact.vector_bytes())) {
            converted.clear();
            let error = stored.convert(exact, vector, &mut converted);
            builder.add(*tid, &converted, error + own_error)?;
        }
        Ok(())
    }
}

impl<'a, 'scope> Build<'a, 'scope> {
    fn new(open: &'a OpenIndex, definition: Definition, workers: usize, scope: &'a Scope<'scope>) -> Self {
        let format = |result: pgrec_engine::Result<Format>| open.or_raise(result);
        let (exact, stored) = (format(definition.shape.exact_format()), format(definition.shape.stored_format()));
        let memory = SegmentBuilder::memory(&stored, &definition.shape.options, 1);
        let most = (maintenance_memory() / memory).max(1_000);
        Self {
            open,
            definition,
            exact,
            stored,
            workers,
            scope,
            builder: Arc::new(builder(&stored, &definition, workers)),
            most,
            window: Batch::default(),
            under_way: Arc::default(),
            failed: Arc::default(),
            in_builder: 0,
            added: 0,
            scratch: Vec::new(),
        }
    }

    /// # Safety
    /// Table and index are open, and `info` is the index's.
    unsafe fn scan(&mut self, heap: Relation, relation: Relation, info: *mut IndexInfo) -> f64 {
        // SAFETY: the caller's; the state is only used while the scan runs.
        unsafe {
            let Some(scan) = (*(*heap).rd_tableam).index_build_range_scan else {
                SqlError::state("the table's access method cannot be indexed").raise()
            };
            let state: *mut c_void = std::ptr::from_mut(self).cast();
            let (first, all) = (0, pg_sys::InvalidBlockNumber);
            scan(heap, relation, info, true, false, true, first, all, Some(take_row), state, std::ptr::null_mut())
        }
    }

    /// # Safety
    /// A value of the index's column, not NULL.
    unsafe fn take(&mut self, tid: u64, value: Datum) {
        let mut stored = std::mem::take(&mut self.scratch);
        // SAFETY: the caller's.
        if unsafe { store(value, &self.definition, &mut stored) } {
            self.window.tids.push(tid);
            self.window.vectors.extend_from_slice(&stored);
        }
        self.scratch = stored;
        if self.window.tids.len() >= WINDOW || self.window.vectors.len() >= WINDOW_BYTES {
            self.pass_all_on();
        }
    }

    /// Passes on all rows of the window.
    fn pass_all_on(&mut self) {
        let window = std::mem::take(&mut self.window);
        for rows in near_together(&self.exact, &window.vectors).chunks(BATCH) {
            self.pass_on(window.part(&self.exact, rows));
        }
    }

    /// Gives a batch to a thread, or adds it here when they have enough to do.
    fn pass_on(&mut self, batch: Batch) {
        let rows = batch.tids.len();
        if self.workers == 0 || self.under_way.load(Ordering::Acquire) >= WAITING * self.workers {
            if let Err(error) = batch.add(&self.exact, &self.stored, &self.builder) {
                self.fail(error);
            }
        } else {
            let (under_way, failed, builder) =
                (Arc::clone(&self.under_way), Arc::clone(&self.failed), Arc::clone(&self.builder));
            let (exact, stored) = (self.exact, self.stored);
            under_way.fetch_add(1, Ordering::AcqRel);
            self.scope.spawn(move |_| {
                if let Err(error) = batch.add(&exact, &stored, &builder) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                drop(builder);
                under_way.fetch_sub(1, Ordering::AcqRel);
            });
        }
        self.check_failed();
        self.in_builder += rows;
        self.added += rows as u64;
        update(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE, self.added as i64);
        interrupt::check();
        if self.in_builder >= self.most {
            self.write_segment();
        }
    }

    fn check_failed(&self) {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = failed {
            self.fail(error);
        }
    }

    fn fail(&self, error: KernelError) -> ! {
        SqlError::from(pgrec_engine::Error::from(error)).raise()
    }

    /// Ends the segment that is being built, and begins another.
    fn write_segment(&mut self) {
        while self.under_way.load(Ordering::Acquire) > 0 {
            interrupt::check();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.check_failed();
        let fresh = Arc::new(builder(&self.stored, &self.definition, self.workers));
        let Some(done) = Arc::into_inner(std::mem::replace(&mut self.builder, fresh)) else {
            SqlError::state("a thread still builds the index").raise()
        };
        self.in_builder = 0;
        Phase::Writing.show();
        let rows = done.len() as u32;
        let bytes = done.finish().unwrap_or_else(|error| self.fail(error));
        self.open.or_raise(index::publish(&self.open.pages, &bytes, rows));
        Phase::Weaving.show();
    }

    /// Writes what is left; gives how many rows the index has.
    fn finish(mut self) -> u64 {
        self.pass_all_on();
        if self.in_builder > 0 {
            self.write_segment();
        }
        self.added
    }
}

fn builder(format: &Format, definition: &Definition, workers: usize) -> SegmentBuilder {
    let threads = workers + 1;
    SegmentBuilder::new(*format, &definition.shape.options, BATCH * threads, threads)
        .unwrap_or_else(|error| SqlError::from(pgrec_engine::Error::from(error)).raise())
}

/// Takes a row of the table.
#[pg_guard]
unsafe extern "C-unwind" fn take_row(
    _index: Relation,
    tid: ItemPointer,
    values: *mut Datum,
    nulls: *mut bool,
    _alive: bool,
    state: *mut c_void,
) {
    // SAFETY: the state is what `scan` gave, and nobody else uses it meanwhile; an index has one column.
    unsafe {
        if !*nulls {
            (*state.cast::<Build<'_, '_>>()).take(number_of(tid), *values);
        }
    }
}
