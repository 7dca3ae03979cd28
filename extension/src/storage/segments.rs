//! Segments of indexes, each in a cache file that all backends map.
//!
//! A segment's identity is a random number of 64 bits that no other has, and its bytes never change, so a file is right
//! if it has the identity in its name and the segment's size. The segments of a temporary table are its session's alone
//! and stay in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrec_engine::index::{SegmentEntry, Segments, Source};
use pgrec_engine::{Error, Result};
use pgrec_kernels::{Bytes, Segment};

use super::cache::{self, FOLDER};
use super::mapping;
use crate::error::SqlError;
use crate::pg::{relation, transaction};

struct Open {
    index: u32,
    identity: u64,
    bytes: u64,
    segment: Arc<Segment>,
}

thread_local! {
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    /// Whether this session has written a file since it last removed those that nobody needs.
    static WRITTEN: Cell<bool> = const { Cell::new(false) };
}

/// The segments of one index.
pub struct IndexSegments {
    /// Its relation.
    pub index: u32,
    /// Whether it is this session's alone.
    pub temporary: bool,
}

impl Segments for IndexSegments {
    fn open(&self, entry: &SegmentEntry, source: &mut Source<'_>) -> Result<Arc<Segment>> {
        let known = OPEN.with_borrow(|open| {
            let found = open.iter().find(|open| open.identity == entry.identity && open.index == self.index);
            found.map(|open| Arc::clone(&open.segment))
        });
        if let Some(segment) = known {
            return Ok(segment);
        }
        let bytes = if self.temporary { in_memory(entry, source)? } else { self.map(entry, source)? };
        let segment = Arc::new(Segment::view(bytes)?);
        let open =
            Open { index: self.index, identity: entry.identity, bytes: entry.bytes, segment: Arc::clone(&segment) };
        OPEN.with_borrow_mut(|all| all.push(open));
        Ok(segment)
    }

    fn keep(&self, entries: &[SegmentEntry]) {
        let current = |identity: u64| entries.iter().any(|entry| entry.identity == identity);
        let closed = OPEN.with_borrow_mut(|open| {
            let before = open.len();
            open.retain(|open| open.index != self.index || current(open.identity));
            before > open.len()
        });
        if (WRITTEN.take() || closed) && !self.temporary {
            self.remove_others(current);
        }
    }
}

fn in_memory(entry: &SegmentEntry, source: &mut Source<'_>) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(entry.bytes as usize);
    source(&mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(Arc::new(bytes))
}

impl IndexSegments {
    fn map(&self, entry: &SegmentEntry, source: &mut Source<'_>) -> Result<Bytes> {
        let path = self.path(entry.identity);
        let mut failed = None;
        let found = cache::found_or_made(&path, entry.bytes, || {
            WRITTEN.set(true);
            cache::write(&path, |put| {
                let outcome = source(&mut |piece| put(piece).map_err(into_engine));
                outcome.map_err(|error| {
                    let message = error.to_string();
                    failed = Some(error);
                    SqlError::corrupted(message)
                })
            })
        });
        let file = match failed {
            Some(error) => return Err(error),
            None => found.map_err(into_engine)?,
        };
        mapping::map(&file).map_err(|e| into_engine(cache::file_error("map", &path, &e)))
    }

    fn path(&self, identity: u64) -> PathBuf {
        Path::new(FOLDER).join(format!("{}{identity:016x}", self.prefix()))
    }

    fn prefix(&self) -> String {
        format!("index_{}_{}_", cache::database(), self.index)
    }

    /// Removes the files of segments and of indexes that there are no more. One that another session still needs is made
    /// again.
    fn remove_others(&self, current: impl Fn(u64) -> bool) {
        let Ok(entries) = fs::read_dir(FOLDER) else {
            return;
        };
        let prefix = self.prefix();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            let identity = name.strip_prefix(&prefix).and_then(|identity| u64::from_str_radix(identity, 16).ok());
            // To the transaction that drops an index it is gone already, and back when that aborts.
            let unneeded = || !transaction::has_written() && is_of_no_index(name);
            if identity.map_or_else(unneeded, |identity| !current(identity)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn into_engine(error: SqlError) -> Error {
    Error::File(error.reason())
}

/// The database and the index in a file's name, and the process that is writing it.
fn parse(name: &str) -> Option<(u32, u32, Option<u32>)> {
    let mut parts = name.strip_prefix("index_")?.split('_');
    let (database, index) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let writer = parts.next()?.split_once(".tmp").map(|(_, writer)| writer.parse());
    Some((database, index, writer.transpose().ok()?))
}

/// Whether a file of the cache is that of an index of this database which is gone.
fn is_of_no_index(name: &str) -> bool {
    parse(name).is_some_and(|(database, index, writer)| {
        writer.is_none() && database == cache::database() && relation::qualified_name(index.into()).is_none()
    })
}

/// Whether a file of the cache is that of an index or a database which is gone, or a temporary one whose writer is.
pub(super) fn is_orphan(name: &str, databases: &HashSet<u32>) -> bool {
    parse(name).is_some_and(|(database, _, writer)| match writer {
        Some(writer) => !Path::new("/proc").join(writer.to_string()).exists(),
        None => !databases.contains(&database) || is_of_no_index(name),
    })
}

/// Bytes of the files and of the memory that this session has open for an index.
pub fn open_bytes(index: u32) -> u64 {
    OPEN.with_borrow(|open| open.iter().filter(|open| open.index == index).map(|open| open.bytes).sum())
}
