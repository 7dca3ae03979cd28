//! `rec_index_stats`: what an index of the access method `usearch` is made of.

use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

use crate::error::{Result, SqlError, or_raise};
use crate::pg::relation;
use crate::pg::usearch::{Sizes, sizes};

type Row = (i32, i64, i64, i64, i64, i64, i64, i64);

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the macro needs to see the columns")]
fn rec_index_stats(
    index: Oid,
) -> TableIterator<
    'static,
    (
        name!(segments, i32),
        name!(rows, i64),
        name!(dead, i64),
        name!(delta_rows, i64),
        name!(delta_bytes, i64),
        name!(bytes, i64),
        name!(mapped_bytes, i64),
        name!(private_bytes, i64),
    ),
> {
    TableIterator::once(or_raise(stats(index)))
}

fn stats(index: Oid) -> Result<Row> {
    let page = i64::from(pg_sys::BLCKSZ);
    let Sizes { stats, mapped, private } = sizes(index).ok_or_else(|| {
        let name = relation::qualified_name(index).unwrap_or_else(|| index.to_u32().to_string());
        SqlError::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{name} is no index of access method usearch"))
            .hint("CREATE INDEX … USING usearch (column vector_l2_ops) makes one; of a partitioned one, name a partition's.")
    })?;
    let segments = &stats.meta.segments;
    let live: i64 = segments.iter().map(|entry| i64::from(entry.live())).sum();
    Ok((
        segments.len() as i32,
        live + stats.chain_rows as i64,
        segments.iter().map(|entry| i64::from(entry.dead)).sum(),
        stats.chain_rows as i64,
        i64::from(stats.chain_pages) * page,
        i64::from(stats.pages) * page,
        mapped as i64,
        private as i64,
    ))
}
