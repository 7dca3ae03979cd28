//! How many texts have a word, as Postgres' own statistics know it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrec_engine::words;
use pgrx::pg_sys::Oid;

use crate::error::Result;
use crate::pg::role;
use crate::pg::spi::{self, Arg, Mode};

/// How long what was read is believed: statistics are as old as the last ANALYZE anyway.
const BELIEVED: Duration = Duration::from_secs(30);

/// Statistics of a column of texts.
#[derive(Debug, Default)]
pub struct Statistics {
    /// About how many texts there are; 0 where nobody has counted.
    pub texts: f64,
    /// The most frequent words, ascending, with the share of texts that have them.
    frequent: Vec<(String, f32)>,
    /// The smallest of these shares.
    least: f64,
}

impl Statistics {
    /// About how many texts have a word; a word that is not among the frequent ones is in fewer than those.
    pub fn having(&self, word: &str) -> f64 {
        let place = self.frequent.binary_search_by(|(other, _)| other.as_str().cmp(word));
        place.map_or(self.least / 2.0, |place| f64::from(self.frequent[place].1)) * self.texts
    }

    /// The frequent word that one which no text has was most likely meant to be.
    pub fn nearest(&self, word: &str) -> Option<String> {
        words::nearest(&self.frequent, word).map(|place| self.frequent[place].0.clone())
    }
}

/// What statistics are of, and for whom: row-level security hides them from some.
type Key = (Oid, String, Oid);

thread_local! {
    static LAST: RefCell<Option<(Key, Instant, Rc<Statistics>)>> = const { RefCell::new(None) };
}

/// Those of a column, or of an index on its words, as the caller may see them.
pub fn of(relation: Oid, column: &str) -> Result<Rc<Statistics>> {
    let key = (relation, column.to_owned(), role::current());
    let known = LAST.with_borrow(|last| match last {
        Some((known, read, statistics)) if *known == key && read.elapsed() < BELIEVED => Some(Rc::clone(statistics)),
        _ => None,
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let statistics = Rc::new(read(relation, column)?);
    LAST.set(Some((key, Instant::now(), Rc::clone(&statistics))));
    Ok(statistics)
}

/// About how many rows a relation has; 0 where nobody has counted.
pub fn rows(relation: Oid) -> Result<f64> {
    let sql = "SELECT reltuples::pg_catalog.float8 FROM pg_catalog.pg_class WHERE oid = $1";
    let rows = spi::first(Mode::Read, sql, &[Arg::Oid(relation)], |row| row.need::<f64>(0))?;
    Ok(rows.unwrap_or(0.0).max(0.0))
}

fn read(relation: Oid, column: &str) -> Result<Statistics> {
    let mut statistics = Statistics { texts: rows(relation)?, ..Statistics::default() };
    // Of a tsvector column its own; of a text those of a GIN index on its words.
    let sql = "SELECT e.word, e.share FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname, \
        ROWS FROM (pg_catalog.unnest(s.most_common_elems::pg_catalog.text::pg_catalog.text[]), \
                   pg_catalog.unnest(s.most_common_elem_freqs)) AS e (word, share) \
        WHERE e.word IS NOT NULL AND (c.oid = $1 AND s.attname = $2::pg_catalog.name OR c.oid IN ( \
            SELECT x.indexrelid FROM pg_catalog.pg_index x WHERE x.indrelid = $1 AND x.indexprs IS NOT NULL \
            AND pg_catalog.pg_get_indexdef(x.indexrelid, 1, true) LIKE 'to_tsvector(%')) ORDER BY s.inherited";
    spi::each(Mode::Read, sql, &[Arg::Oid(relation), Arg::Text(column)], |row| {
        statistics.frequent.push((row.need(0)?, row.need(1)?));
        Ok(())
    })?;
    statistics.frequent.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    statistics.frequent.dedup_by(|a, b| a.0 == b.0);
    let least = statistics.frequent.iter().map(|(_, share)| *share).reduce(f32::min);
    statistics.least = f64::from(least.unwrap_or(0.0));
    Ok(statistics)
}
