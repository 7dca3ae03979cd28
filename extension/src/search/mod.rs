//! Searching: text, vectors and a model that knows queries, each with its own candidates, ranked together.

mod allowed;
mod judge;
mod lists;
pub mod recent;
mod statistics;
mod text;
mod vectors;

pub use judge::judge;
pub use lists::{Request, Search, search};

use crate::catalog::recommender::{Recommender, Searches, quoted};
use crate::error::{Result, SqlError};

/// The words of some texts by the recommender's configuration, each once.
pub fn words(recommender: &Recommender, texts: &[String]) -> Result<Vec<String>> {
    text::words(recommender, &checked(texts.join("\n"))?)
}

/// A query that is not too long.
fn checked(query: String) -> Result<String> {
    if query.len() <= LONGEST {
        return Ok(query);
    }
    let (most, kilobytes) = (LONGEST >> 10, query.len().div_ceil(1 << 10));
    Err(SqlError::parameter(format!("a query has at most {most} kB, and this one has {kilobytes}"))
        .hint("Search for the words that matter."))
}

/// Longest query, in bytes.
const LONGEST: usize = 10 << 10;

/// The words of the query column as text[]. Of what is longer than a query may be only the begin counts.
pub fn query_words(recommender: &Recommender, searches: &Searches) -> String {
    format!(
        "pg_catalog.tsvector_to_array(pg_catalog.to_tsvector({}, pg_catalog.left({}::pg_catalog.text, {LONGEST})))",
        recommender.config(),
        quoted(&searches.query)
    )
}
