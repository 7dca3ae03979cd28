//! Items whose vectors are near a query's.

use pgrec_engine::ItemId;

use super::allowed::{Allowed, Among};
use super::statistics;
use crate::catalog::recommender::{Recommender, quoted};
use crate::catalog::schemas::Schemas;
use crate::error::{Result, SqlError};
use crate::history::{item_expression, item_of};
use crate::pg::relation;
use crate::pg::spi::{self, Arg, Mode};

/// Most that is looked at for candidates to be picked from.
const PICKED: f64 = 4096.0;

/// The `most` nearest items, nearest first, with their distances: by the metric of an index on their vectors where there is
/// one, else by the cosine. Fewer, but `k`, where there are so many candidates that they are picked from what is near.
pub fn nearest(
    recommender: &Recommender,
    vector: &[f32],
    (k, most): (usize, usize),
    allowed: &Allowed,
) -> Result<Vec<(ItemId, f64)>> {
    let bound = recommender.items.as_ref().and_then(|items| Some((items, items.embedding.as_ref()?)));
    let (Some((items, embedding)), Some(name)) = (bound, recommender.items_name()?) else {
        return Err(SqlError::state(format!("the items of recommender \"{}\" have no vectors", recommender.name))
            .hint("Bind their column with rec_create(…, embedding_column => '…'), or leave out embedding."));
    };
    let schema = &Schemas::find()?.vector;
    let kind = match relation::column_type(items.relation, embedding).as_deref() {
        Some("halfvec") => "halfvec",
        _ => "vector",
    };
    let distance = format!(
        "(i.{} OPERATOR({schema}.{}) $1::{schema}.vector::{schema}.{kind})",
        quoted(embedding),
        operator(recommender, embedding)?
    );
    let ordered = |among: Among, most: usize| -> Result<Vec<(ItemId, f64)>> {
        let sql = format!(
            "SELECT {}, {distance}::pg_catalog.float8 FROM {name} AS i WHERE i.{} IS NOT NULL{} ORDER BY {distance} LIMIT {most}",
            item_expression(&items.id, recommender.item_type),
            quoted(embedding),
            allowed.conditions(&quoted(&items.id), 2, among),
        );
        let args: Vec<Arg<'_>> = [Arg::Float4s(vector)].into_iter().chain(allowed.args(among)).collect();
        let mut found = Vec::new();
        spi::each_planned(Mode::Read, &sql, &args, |row| {
            let distance: f64 = row.need(1)?;
            // A vector of length 0 has no cosine.
            let item = item_of(row, 0, recommender.item_type).filter(|_| !distance.is_nan());
            found.extend(item.filter(|item| allowed.is_candidate(item)).map(|item| (item, distance)));
            Ok(())
        })?;
        Ok(found)
    };
    let Some(candidates) = allowed.many() else { return ordered(Among::Candidates, most) };
    // So many that twice as many as are wanted should be among them.
    let needed = 2.0 * k as f64 * statistics::rows(items.relation)? / candidates as f64;
    if needed <= PICKED {
        let found = ordered(Among::All, most.max(needed.ceil() as usize))?;
        if found.len() >= k {
            return Ok(found);
        }
    }
    ordered(Among::Candidates, most)
}

/// The operator that an index on the vectors orders by.
fn operator(recommender: &Recommender, column: &str) -> Result<&'static str> {
    let Some(items) = &recommender.items else { return Ok("<=>") };
    let class = spi::first(
        Mode::Read,
        "SELECT o.opcname::pg_catalog.text FROM pg_catalog.pg_index x \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] \
         JOIN pg_catalog.pg_opclass o ON o.oid = x.indclass[0] \
         WHERE x.indrelid = $1 AND a.attname = $2::pg_catalog.name AND x.indisvalid \
         AND o.opcname ~ '_(cosine|ip|l2)_ops$' ORDER BY x.indexrelid LIMIT 1",
        &[Arg::Oid(items.relation), Arg::Text(column)],
        |row| row.need::<String>(0),
    )?;
    Ok(match class.as_deref() {
        Some(class) if class.ends_with("_l2_ops") => "<->",
        Some(class) if class.ends_with("_ip_ops") => "<#>",
        _ => "<=>",
    })
}
