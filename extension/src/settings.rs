//! The settings `rec.*`.

use std::ffi::CString;
use std::time::Duration;

use pgrec_kernels::cuda::Precision;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

static RECOMMENDER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static EXACT_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(200_000);
static HISTORY_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static SEARCH_CANDIDATES: GucSetting<i32> = GucSetting::<i32>::new(1000);
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static OPEN_MODELS: GucSetting<i32> = GucSetting::<i32>::new(16);
static HISTORY_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(32 << 10);
static DEVICE: GucSetting<Device> = GucSetting::<Device>::new(Device::cpu);
static CUDA_PRECISION: GucSetting<CudaPrecision> = GucSetting::<CudaPrecision>::new(CudaPrecision::f32);
static USE_WORKER: GucSetting<bool> = GucSetting::<bool>::new(true);
static WORKER_FALLBACK: GucSetting<Fallback> = GucSetting::<Fallback>::new(Fallback::local);
static WORKER_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(128);
static WORKER_SLOT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(32);
static WORKER_THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static WORKER_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(4 << 20);
static GPU_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(4 << 20);
static WORKER_BATCH: GucSetting<i32> = GucSetting::<i32>::new(256);
static WORKER_DELAY: GucSetting<i32> = GucSetting::<i32>::new(200);
static MAX_TRAINING_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static SCHEDULE_NAPTIME: GucSetting<i32> = GucSetting::<i32>::new(60);
static TRAINING_THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static TRAINING_NICENESS: GucSetting<i32> = GucSetting::<i32>::new(10);
static TRAINING_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(1 << 20);
static TRAINING_CHECKPOINT: GucSetting<i32> = GucSetting::<i32>::new(30);

/// `rec.device`.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PostgresGucEnum)]
pub enum Device {
    auto,
    cpu,
    cuda,
}

/// `rec.cuda_precision`.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PostgresGucEnum)]
enum CudaPrecision {
    f32,
    bf16,
}

/// `rec.worker_fallback`.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PostgresGucEnum)]
pub enum Fallback {
    local,
    error,
}

/// Declares the settings; called once when the library is loaded.
pub fn define() {
    GucRegistry::define_string_guc(
        c"rec.recommender",
        c"The recommender that functions use when none is named.",
        c"Empty: a schema of the search_path that is a recommender's, else the only one there is.",
        &RECOMMENDER,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.exact_limit",
        c"Catalogues up to this many items are scored exactly.",
        c"Larger ones are searched through the model's nearest-neighbour segment, and the best are scored exactly.",
        &EXACT_LIMIT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.history_limit",
        c"At most this many of a user's latest events are read.",
        c"Bounds the cost of one call; items touched before them count as not seen.",
        &HISTORY_LIMIT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.search_candidates",
        c"How many items rec_search looks at of each source: text, vectors, model.",
        c"Bounds the cost of one call. Of words that more items have, only those items are looked at that the other words or sources find.",
        &SEARCH_CANDIDATES,
        1,
        1_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.threads",
        c"Threads of calls that compute for many users.",
        c"0: as many as there are cores. Takes effect when the first such call of a session starts its threads.",
        &THREADS,
        0,
        1024,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.open_models",
        c"How many models a session keeps open.",
        c"Beyond it the one unused for longest is closed. Weights are mapped files, shared by all sessions.",
        &OPEN_MODELS,
        1,
        10_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.history_memory",
        c"Memory that a session keeps of long histories, for each model.",
        c"A question about a history of 512 events or more that has grown since computes only what is new. 0: nothing is kept. The inference worker keeps as much as the configuration file says, for all sessions.",
        &HISTORY_MEMORY,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    define_devices();
    define_worker();
    define_training();
}

fn define_worker() {
    GucRegistry::define_bool_guc(
        c"rec.use_worker",
        c"Whether calls are computed by the inference worker.",
        c"It runs where shared_preload_libraries names pgrec, and shares models and devices between all sessions; elsewhere every session computes by itself.",
        &USE_WORKER,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"rec.worker_fallback",
        c"What happens to a call that the inference worker does not answer.",
        c"local: the session computes it; error: it fails.",
        &WORKER_FALLBACK,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.worker_threads",
        c"Threads of the inference worker for calls for one user, and as many for others.",
        c"0: as many as there are cores. Takes effect when the worker starts.",
        &WORKER_THREADS,
        0,
        1024,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.worker_memory",
        c"Size of the models that the inference worker keeps open.",
        c"Beyond it the one unused for longest is closed. Weights are mapped files, shared with all sessions.",
        &WORKER_MEMORY,
        1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"rec.gpu_memory",
        c"Size of the models that the inference worker keeps on a CUDA device.",
        c"Beyond it the one unused for longest is taken off the device.",
        &GPU_MEMORY,
        1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"rec.worker_batch",
        c"How many lists the inference worker computes together at most.",
        c"On the CPU no more than take some two milliseconds.",
        &WORKER_BATCH,
        1,
        1 << 20,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.worker_delay",
        c"How many microseconds the inference worker waits for more questions before it starts a CUDA device.",
        c"Only while questions come in numbers. On the CPU it does not wait.",
        &WORKER_DELAY,
        0,
        100_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_devices() {
    GucRegistry::define_enum_guc(
        c"rec.device",
        c"Where calls for many users compute.",
        c"cpu; cuda: on the first CUDA device, an error where there is none; auto: large calls on it where rec_devices() lists one. Calls for one user compute there only with cuda and the inference worker.",
        &DEVICE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"rec.cuda_precision",
        c"Numbers that a CUDA device computes with.",
        c"f32: the lists of the CPU; bf16: faster, on tensor cores, with three significant digits between layers.",
        &CUDA_PRECISION,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// Settings that have a meaning only where the postmaster loads the library, and cannot be declared elsewhere.
pub fn define_preloaded() {
    GucRegistry::define_int_guc(
        c"rec.worker_slots",
        c"How many sessions can ask the inference worker at the same time.",
        c"Others wait. 0: there is no worker.",
        &WORKER_SLOTS,
        0,
        65_536,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.worker_slot_size",
        c"Shared memory for each of these.",
        c"What is longer, such as calls for many users, travels in a segment of dynamic shared memory.",
        &WORKER_SLOT_SIZE,
        1,
        1 << 20,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
}

fn define_training() {
    GucRegistry::define_int_guc(
        c"rec.max_training_workers",
        c"How many models are trained at the same time in the whole server.",
        c"Further trainings wait in state queued. Each that runs needs one of max_worker_processes.",
        &MAX_TRAINING_WORKERS,
        1,
        64,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.schedule_naptime",
        c"Time between two looks of the launcher for scheduled trainings.",
        c"0: it does not look. The launcher runs where shared_preload_libraries names pgrec.",
        &SCHEDULE_NAPTIME,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"rec.training_threads",
        c"Threads of a training.",
        c"0: as many as there are cores. The value of the session that asks for the training counts.",
        &TRAINING_THREADS,
        0,
        1024,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.training_niceness",
        c"How far the threads of a training stand back behind other processes, as the command nice does.",
        c"0: not at all; 19: they run only when nothing else wants to. The value of the session that asks counts.",
        &TRAINING_NICENESS,
        0,
        19,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"rec.training_memory",
        c"Memory that a training may use.",
        c"What does not fit ends with an error that says so. The value of the session that asks counts.",
        &TRAINING_MEMORY,
        1 << 10,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"rec.training_checkpoint",
        c"How often a training in epochs keeps how far it is.",
        c"One that was interrupted goes on from there when it is asked for again in the same words within a week. -1: never.",
        &TRAINING_CHECKPOINT,
        -1,
        i32::MAX / 1000,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

/// `rec.use_worker`.
pub fn use_worker() -> bool {
    USE_WORKER.get()
}

/// `rec.worker_fallback`.
pub fn worker_fallback() -> Fallback {
    WORKER_FALLBACK.get()
}

/// `rec.worker_slots`.
pub fn worker_slots() -> usize {
    WORKER_SLOTS.get().max(0) as usize
}

/// `rec.worker_slot_size`, in bytes.
pub fn worker_slot_bytes() -> usize {
    WORKER_SLOT_SIZE.get().max(1) as usize * 1024
}

/// `rec.worker_threads`, 0 for all cores.
pub fn worker_threads() -> usize {
    WORKER_THREADS.get().max(0) as usize
}

/// `rec.worker_memory`, in bytes.
pub fn worker_memory() -> u64 {
    WORKER_MEMORY.get().max(1) as u64 * 1024
}

/// `rec.gpu_memory`, in bytes.
pub fn gpu_memory() -> u64 {
    GPU_MEMORY.get().max(1) as u64 * 1024
}

/// `rec.worker_batch`, at least 1.
pub fn worker_batch() -> usize {
    WORKER_BATCH.get().max(1) as usize
}

/// `rec.worker_delay`.
pub fn worker_delay() -> std::time::Duration {
    std::time::Duration::from_micros(WORKER_DELAY.get().max(0) as u64)
}

/// `rec.max_training_workers`.
pub fn max_training_workers() -> i32 {
    MAX_TRAINING_WORKERS.get().max(1)
}

/// `rec.schedule_naptime`, in seconds; 0 for never.
pub fn schedule_naptime() -> u64 {
    SCHEDULE_NAPTIME.get().max(0) as u64
}

/// `rec.training_threads`, 0 for all cores.
pub fn training_threads() -> i32 {
    TRAINING_THREADS.get().max(0)
}

/// `rec.training_niceness`, 0 to 19.
pub fn training_niceness() -> i32 {
    TRAINING_NICENESS.get().clamp(0, 19)
}

/// `rec.training_checkpoint`; None where nothing is kept.
pub fn training_checkpoint() -> Option<Duration> {
    u64::try_from(TRAINING_CHECKPOINT.get()).ok().map(Duration::from_secs)
}

/// `rec.training_memory`, in kB.
pub fn training_memory() -> i32 {
    TRAINING_MEMORY.get().max(1)
}

/// `rec.recommender`, None when empty.
pub fn recommender() -> Option<String> {
    RECOMMENDER.get().and_then(|s| s.into_string().ok()).filter(|s| !s.is_empty())
}

/// `rec.search_candidates`
pub fn search_candidates() -> usize {
    SEARCH_CANDIDATES.get() as usize
}

/// `rec.exact_limit`, in items.
pub fn exact_limit() -> usize {
    EXACT_LIMIT.get().max(0) as usize
}

/// `rec.history_limit`, in events.
pub fn history_limit() -> usize {
    HISTORY_LIMIT.get().max(1) as usize
}

/// `rec.threads`, 0 for all cores.
pub fn threads() -> usize {
    THREADS.get().max(0) as usize
}

/// `rec.history_memory`, in bytes.
pub fn history_memory() -> usize {
    HISTORY_MEMORY.get().max(0) as usize * 1024
}

/// `rec.device`.
pub fn device() -> Device {
    DEVICE.get()
}

/// `rec.cuda_precision`.
pub fn cuda_precision() -> Precision {
    match CUDA_PRECISION.get() {
        CudaPrecision::f32 => Precision::F32,
        CudaPrecision::bf16 => Precision::Bf16,
    }
}

/// `rec.open_models`.
pub fn open_models() -> usize {
    OPEN_MODELS.get().max(1) as usize
}
