//! `rec_evaluate(task => 'search')`: what the searches that led to everybody's last event find.

use pgrec_engine::evaluate::{Protocol, SearchBy, SearchSpec};
use pgrec_engine::families::Needs;

use super::{Evaluated, read_as_caller, require_unseen};
use crate::catalog::{model, recommender};
use crate::error::{Result, SqlError};
use crate::pg::spi::Mode;
use crate::search::{self, Search};
use crate::serve::Scope;

/// How answers to searches are measured.
pub(super) struct Request {
    pub(super) model: Option<String>,
    pub(super) protocol: Protocol,
    pub(super) ks: Vec<usize>,
    pub(super) by: SearchBy,
}

/// What searches are grouped by.
pub(super) fn by(by: Option<&str>) -> Result<SearchBy> {
    match by {
        None => Ok(SearchBy::Nothing),
        Some("frequency") => Ok(SearchBy::Frequency),
        Some("activity") => Ok(SearchBy::Activity),
        Some(other) => Err(SqlError::parameter(format!("searches cannot be grouped by \"{other}\""))
            .hint("One of frequency, activity, or NULL.")),
    }
}

/// What the draws of intervals depend on: always the same, so that two evaluations agree.
const SEED: u64 = 1;

/// Measures text, vectors, the model and all of them on the searches that led to everybody's last event.
pub(super) fn evaluate(request: Request, recommender: Option<&str>) -> Result<Evaluated> {
    let found = recommender::resolve(Mode::Read, recommender)?;
    found.require_readable()?;
    if found.searches.is_none() {
        return Err(SqlError::state(format!("recommender \"{}\" has no searches", found.name))
            .hint("Bind them with rec_create(…, searches => '…')."));
    }
    let Request { model, protocol, ks, by } = request;
    let k = ks.iter().copied().max().and_then(|k| i32::try_from(k).ok());
    let scope = Scope { recommender: Some(found.name.clone()), model, k, ..Scope::default() };
    let search = Search::open(None, scope)?;
    let row = search.model.as_ref().map(|session| &session.open.row);
    if let Some(row) = row {
        require_unseen(row, protocol)?;
    }
    if let Some(row) = model::newest(Mode::Read, &found, "retriever")? {
        require_unseen(&row, protocol)?;
    }
    let (name, family) = (row.map(|row| row.name.clone()), row.map(|row| row.family.clone()));
    let vectors = found.searches.as_ref().is_some_and(|searches| searches.embedding.is_some());
    let needs = Needs { searches: true, query_vectors: vectors, ..Needs::NOTHING };
    let read = read_as_caller(&found, needs, &[], "rec_evaluate")?;
    let spec = SearchSpec { protocol, ks: &ks, by, seed: SEED };
    Ok((name, family, search::judge(search, &read.corpus, &spec)?.rows))
}
