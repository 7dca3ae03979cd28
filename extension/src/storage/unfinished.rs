//! Where trainings stand that were interrupted: files beside those of the cache, from which one that is asked for again
//! in the same words goes on. They may be lost at any time, and are after a week.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pgrec_engine::Corpus;

use super::cache::{self, FOLDER};
use crate::catalog::training::Task;

/// How long a file is kept that nobody goes on from.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Between database and hash in a file's name.
const MARK: &str = "_unfinished_";

/// The file of a training for the recommender of this id, whose name another may have had, on items with these
/// attributes, from models with these checksums.
pub fn file_of(task: &Task, recommender: i64, corpus: &Corpus, models: [Option<i64>; 2]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), recommender, &task.family, task.params.to_string()).hash(&mut hasher);
    (models, corpus.items()).hash(&mut hasher);
    (corpus.vocabulary(), corpus.attributes(), corpus.attribute_offsets()).hash(&mut hasher);
    // Where the folder cannot be made, the training says that nothing was kept.
    let _ = fs::create_dir_all(FOLDER);
    Path::new(FOLDER).join(format!("{}{MARK}{:016x}", cache::database(), hasher.finish()))
}

/// Whether a file of the folder is such a one and of no more use: its database is gone, its writer is, or it is old.
pub(super) fn is_orphan(path: &Path, is_database: impl Fn(u32) -> bool) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let Some((database, rest)) = name.split_once(MARK) else { return false };
    let writer = rest.split_once(".tmp").map(|(_, writer)| writer);
    let age = || SystemTime::now().duration_since(fs::metadata(path).ok()?.modified().ok()?).ok();
    !database.parse().is_ok_and(is_database)
        || writer.is_some_and(|writer| !Path::new("/proc").join(writer).exists())
        || age().is_some_and(|age| age > KEPT)
}
