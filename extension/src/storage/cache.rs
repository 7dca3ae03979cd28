//! Cache files: one a model, named by database, model and checksum, in the data directory. Those of index segments
//! (`super::segments`) are beside them.
//!
//! The folder's name begins with `pgsql_tmp`, so base backups leave it out. A file that is missing, of the wrong
//! size or left half-written by a crash is made again from the artifact's rows, on a standby too.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pgrec_engine::inference::message::Identity;
use pgrec_kernels::Bytes;
use pgrx::pg_sys;

use super::{mapping, segments, unfinished};
use crate::catalog::{ModelRow, artifact};
use crate::error::{Result, SqlError};
use crate::pg::lock::Lock;
use crate::pg::spi::{self, Mode};

/// Folder below the data directory, which is every backend's working directory.
pub const FOLDER: &str = "pgsql_tmp_pgrec";

/// Class of the locks of those who make a file.
const MAKING: i32 = 0x7067_7266;

/// The bytes of a model's artifact, mapped from its cache file, which is made first where it is missing.
pub fn map(model: &ModelRow) -> Result<Bytes> {
    let path = file_of(&identity(model));
    let file = found_or_made(&path, model.bytes as u64, || materialise(model, &path))?;
    mapping::map(&file).map_err(|e| file_error("map", &path, &e))
}

/// The bytes of a cache file that has so many; nothing where there is no such file.
pub fn map_file(path: &Path, bytes: u64) -> Result<Option<Bytes>> {
    let Some(file) = open_existing(path, bytes)? else { return Ok(None) };
    mapping::map(&file).map(Some).map_err(|e| file_error("map", path, &e))
}

/// What tells a model of this database from all others of the server.
pub fn identity(model: &ModelRow) -> Identity {
    Identity { database: database(), model: model.id, checksum: model.checksum as u32, bytes: model.bytes as u64 }
}

/// Where a model's cache file is.
pub fn file_of(model: &Identity) -> PathBuf {
    Path::new(FOLDER).join(format!("{}_{}_{:08x}", model.database, model.model, model.checksum))
}

pub(super) fn database() -> u32 {
    // SAFETY: a global set at the start of the backend.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// A file of the cache. Where it is not there yet, one session makes it while others wait, so that all of them map the
/// same file: as many copies of it as there are sessions would fill disk and memory.
pub(super) fn found_or_made(path: &Path, bytes: u64, make: impl FnOnce() -> Result<File>) -> Result<File> {
    if let Some(file) = open_existing(path, bytes)? {
        return Ok(file);
    }
    let key = crc32c::crc32c(path.as_os_str().as_encoded_bytes()) as i32;
    let _making = Lock::of_database(MAKING, key).hold_in_transaction();
    match open_existing(path, bytes)? {
        Some(file) => Ok(file),
        None => make(),
    }
}

/// A file of the cache, if it is there and has its size.
fn open_existing(path: &Path, bytes: u64) -> Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(file_error("open", path, &e)),
    };
    let size = file.metadata().map_err(|e| file_error("examine", path, &e))?.len();
    Ok((size == bytes).then_some(file))
}

fn materialise(model: &ModelRow, path: &Path) -> Result<File> {
    remove_orphans(Mode::Read)?;
    write(path, |put| {
        let mut crc = 0;
        artifact::read(model.id, |chunk| {
            crc = crc32c::crc32c_append(crc, chunk);
            put(chunk)
        })?;
        if i64::from(crc) != model.checksum {
            return Err(SqlError::corrupted(format!("artifact of model \"{}\" is incomplete or damaged", model.name))
                .detail(format!("Its checksum is {crc:08x}, the catalogue says {:08x}.", model.checksum))
                .hint("Restore rec.artifact from a backup, or train or import the model again."));
        }
        Ok(())
    })
}

/// Takes the next bytes of a file.
pub(super) type Put<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// Writes a file of the cache, which appears under its name when it is whole.
///
/// Gives the file that was written, not one opened by name again: another session, whose snapshot does not have its
/// owner yet, may take the name for an orphan's at any moment.
pub(super) fn write(path: &Path, content: impl FnOnce(&mut Put<'_>) -> Result<()>) -> Result<File> {
    fs::create_dir_all(FOLDER).map_err(|e| file_error("create", Path::new(FOLDER), &e))?;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let written = write_temporary(&temporary, content);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    let file = written?;
    fs::rename(&temporary, path).map_err(|e| file_error("rename", path, &e))?;
    sync_folder();
    Ok(file)
}

fn write_temporary(path: &Path, content: impl FnOnce(&mut Put<'_>) -> Result<()>) -> Result<File> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|e| file_error("create", path, &e))?;
    content(&mut |bytes| file.write_all(bytes).map_err(|e| file_error("write", path, &e)))?;
    file.sync_all().map_err(|e| file_error("flush", path, &e))?;
    Ok(file)
}

fn sync_folder() {
    // The file is derived: if the rename is lost in a crash, it is made again.
    if let Ok(folder) = File::open(FOLDER) {
        let _ = folder.sync_all();
    }
}

/// Cache files whose model or database is gone, and temporary ones whose writer is.
pub fn orphans(mode: Mode) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(_) => return Ok(Vec::new()),
    };
    let models: std::collections::HashSet<(i64, i64)> =
        spi::query(mode, "SELECT model_id, coalesce(checksum, 0) FROM rec.model", &[], |row| {
            Ok((row.need(0)?, row.need(1)?))
        })?
        .into_iter()
        .collect();
    let databases: std::collections::HashSet<u32> =
        spi::query(mode, "SELECT oid::bigint FROM pg_catalog.pg_database", &[], |row| Ok(row.need::<i64>(0)? as u32))?
            .into_iter()
            .collect();
    let own = database();
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let orphan = match Name::parse(&name) {
            None if segments::is_orphan(&name, &databases) => true,
            None if unfinished::is_orphan(&entry.path(), |database| databases.contains(&database)) => true,
            Some(Name { writer: Some(pid), .. }) => !Path::new("/proc").join(pid.to_string()).exists(),
            Some(Name { database, .. }) if !databases.contains(&database) => true,
            Some(Name { database, model, checksum, .. }) => database == own && !models.contains(&(model, checksum)),
            None => false,
        };
        if orphan {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes what [`orphans`] finds. A file that another session's uncommitted model needs is only made again.
pub fn remove_orphans(mode: Mode) -> Result<usize> {
    Ok(orphans(mode)?.into_iter().filter(|path| fs::remove_file(path).is_ok()).count())
}

struct Name {
    database: u32,
    model: i64,
    checksum: i64,
    writer: Option<u32>,
}

impl Name {
    fn parse(name: &str) -> Option<Self> {
        let (stem, writer) = match name.split_once(".tmp") {
            Some((stem, pid)) => (stem, Some(pid.parse().ok()?)),
            None => (name, None),
        };
        let mut parts = stem.split('_');
        let parsed = Self {
            database: parts.next()?.parse().ok()?,
            model: parts.next()?.parse().ok()?,
            checksum: i64::from_str_radix(parts.next()?, 16).ok()?,
            writer,
        };
        parts.next().is_none().then_some(parsed)
    }
}

pub(super) fn file_error(what: &str, path: &Path, error: &io::Error) -> SqlError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => pgrx::PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => pgrx::PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    SqlError::new(code, format!("could not {what} cache file \"{}\": {error}", path.display())).hint(
        "The cache of models and indexes is in the server's data directory; the server must be able to write there.",
    )
}
