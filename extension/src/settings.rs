//! The settings `rec.*`.

use std::ffi::CString;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

static RECOMMENDER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static EXACT_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(200_000);
static HISTORY_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static OPEN_MODELS: GucSetting<i32> = GucSetting::<i32>::new(16);

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
}

/// `rec.recommender`, None when empty.
pub fn recommender() -> Option<String> {
    RECOMMENDER.get().and_then(|s| s.into_string().ok()).filter(|s| !s.is_empty())
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

/// `rec.open_models`.
pub fn open_models() -> usize {
    OPEN_MODELS.get().max(1) as usize
}
