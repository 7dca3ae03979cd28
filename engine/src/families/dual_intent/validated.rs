//! How good a model under way is, by what was kept from learning.

use crate::evaluate::{SearchBy, SearchCase, SearchSpec, Searcher, Spec, evaluate, evaluate_search};
use crate::train::Validation;
use crate::{Control, Corpus, Error, Model, Query, Result};

/// Users whose searches are looked at, at most.
const USERS: usize = 2000;
const K: usize = 10;

/// NDCG and hit rate of recommending what was kept, among the nearest candidates as in a large catalogue: scoring every item
/// would take longer than an epoch. None where no history is long enough.
pub(super) fn recommended(model: &dyn Model, validation: &Validation, control: &Control) -> Result<Option<[f64; 2]>> {
    let spec = Spec { protocol: validation.protocol(), exact_limit: 0, ..Spec::default() };
    match evaluate(model, validation.corpus(), &spec, control) {
        Ok(report) => Ok(report.value("ndcg", K).zip(report.value("hr", K)).map(|(ndcg, hr)| [ndcg, hr])),
        Err(Error::Data(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same of finding it by what was typed. None where nothing was.
pub(super) fn found(model: &dyn Model, validation: &Validation, control: &Control) -> Result<Option<[f64; 2]>> {
    if !model.answers_queries() {
        return Ok(None);
    }
    let corpus = validation.corpus().sample(USERS);
    let spec = SearchSpec { protocol: validation.protocol(), ks: &[K], by: SearchBy::Nothing, seed: 0 };
    match evaluate_search(&mut Search { model, corpus: &corpus, control }, &corpus, &spec, control) {
        Ok(report) => {
            let value = |metric: &str| report.rows.iter().find(|row| row.metric == metric).map(|row| row.value);
            Ok(value("ndcg").zip(value("hr")).map(|(ndcg, hr)| [ndcg, hr]))
        }
        Err(Error::Data(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Those words of a query that a model knows.
pub(super) fn known_words(model: &dyn Model, corpus: &Corpus, query: u32) -> Vec<u32> {
    let words = corpus.query_words(query).iter();
    words.filter_map(|&word| model.word(&corpus.lexicon()[word as usize])).collect()
}

/// A model as the one way to search, over the items of a corpus.
struct Search<'a> {
    model: &'a dyn Model,
    corpus: &'a Corpus,
    control: &'a Control,
}

impl Searcher for Search<'_> {
    fn ways(&self) -> &[&'static str] {
        &["model"]
    }

    fn ranked(&mut self, _: usize, case: &SearchCase<'_>, k: usize) -> Result<Vec<u32>> {
        let words = known_words(self.model, self.corpus, case.search.query);
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let query = Query { history: case.history, words: &words, k, exact_limit: 0, ..Query::default() };
        let lists = self.model.recommend(&[query], self.control)?;
        Ok(lists.into_iter().flatten().map(|scored| scored.item).collect())
    }
}
