//! How much the model counts beside the texts of items where somebody searches: as much as best finds what was kept from
//! learning. A model that has seen each item a hundred times should be asked first; one that has seen most of them once should
//! only be asked where texts are alike.

use serde_json::{Map, Value, json};

use super::validated::known_words;
use crate::evaluate::{SearchBy, SearchCase, SearchSpec, Searcher, evaluate_search};
use crate::search::{Texts, fuse_with_model};
use crate::train::Validation;
use crate::{Control, Corpus, Error, Model, Query, Result};

/// Among which weights is chosen.
const WEIGHTS: [f64; 9] = [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
/// The ways that are measured: the model alone, and both by each weight; by 0 what it has guessed comes after all texts.
const WAYS: [&str; 10] = ["model", "0", "0.125", "0.25", "0.5", "1", "2", "4", "8", "16"];
const ALONE: usize = WAYS.len() - WEIGHTS.len();

/// Users whose searches are looked at, at most.
const USERS: usize = 1000;
/// Of fewer searches nothing is concluded.
const LEAST: u64 = 30;
/// Places that count.
const K: usize = 100;
/// What lists of texts are cut at, and those of the model: about as in the database.
const MATCHED: usize = 1000;
const GUESSED: usize = 200;

/// The best weight, and the mean reciprocal rank of every way; None where there are no texts, or few who were to find anything.
pub(super) fn weigh(
    model: &dyn Model,
    validation: &Validation,
    control: &Control,
) -> Result<Option<(f64, Map<String, Value>)>> {
    let corpus = validation.corpus().sample(USERS);
    let texts = Texts::of(&corpus);
    if texts.is_empty() || !model.answers_queries() {
        return Ok(None);
    }
    control.enter("weighing text and model", 0);
    let spec = SearchSpec { protocol: validation.protocol(), ks: &[K], by: SearchBy::Nothing, seed: 0 };
    let mut both = Both { model, corpus: &corpus, texts, control, last: None };
    let report = match evaluate_search(&mut both, &corpus, &spec, control) {
        Ok(report) if report.users < LEAST => return Ok(None),
        Ok(report) => report,
        Err(Error::Data(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let of =
        |way: &str| report.rows.iter().find(|row| row.grp == way && row.metric == "mrr").map_or(0.0, |row| row.value);
    let measured = WEIGHTS.into_iter().zip(WAYS[ALONE..].iter().map(|way| of(way)));
    // Of equals the smaller: text is there for what the model has not seen.
    let best = measured.reduce(|best, other| if other.1 > best.1 { other } else { best });
    let metrics = WAYS.iter().map(|way| ((*way).to_owned(), json!(of(way)))).collect();
    Ok(best.map(|(weight, _)| (weight, metrics)))
}

/// Items with their scores, best first.
type Scores = Vec<(u32, f64)>;

/// Texts and a model over the same items.
struct Both<'a> {
    model: &'a dyn Model,
    corpus: &'a Corpus,
    texts: Texts,
    control: &'a Control,
    /// What the case that was asked last has found: by text, by the model, and which share of the words the model knows.
    last: Option<(usize, u32, [Scores; 2], f64)>,
}

impl Both<'_> {
    fn found(&self, case: &SearchCase<'_>) -> Result<([Scores; 2], f64)> {
        let query = self.corpus.query_words(case.search.query);
        let mut text = self.texts.ranked(query);
        text.truncate(MATCHED);
        let words = known_words(self.model, self.corpus, case.search.query);
        if words.is_empty() {
            return Ok(([text, Vec::new()], 0.0));
        }
        let asked = Query { history: case.history, words: &words, k: GUESSED, exact_limit: 0, ..Query::default() };
        let guessed = self.model.recommend(&[asked], self.control)?.pop().unwrap_or_default();
        let mut model: Scores = guessed.iter().map(|scored| (scored.item, f64::from(scored.score))).collect();
        let others = text.iter().map(|&(item, _)| item).filter(|item| !guessed.iter().any(|one| one.item == *item));
        let others: Vec<u32> = others.collect();
        let scores = self.model.score(&asked, &others)?;
        model.extend(others.into_iter().zip(scores.into_iter().map(f64::from)));
        model.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(([text, model], words.len() as f64 / query.len() as f64))
    }
}

impl Searcher for Both<'_> {
    fn ways(&self) -> &[&'static str] {
        &WAYS
    }

    fn ranked(&mut self, way: usize, case: &SearchCase<'_>, k: usize) -> Result<Vec<u32>> {
        let asked = (case.user, case.search.query);
        if self.last.as_ref().is_none_or(|last| (last.0, last.1) != asked) {
            let (lists, known) = self.found(case)?;
            self.last = Some((asked.0, asked.1, lists, known));
        }
        let Some((_, _, [text, model], known)) = &self.last else { return Ok(Vec::new()) };
        let list = match way {
            0 => model.clone(),
            _ => fuse_with_model([text, &[], model], known * WEIGHTS[way - ALONE]),
        };
        Ok(list.into_iter().take(k).map(|(item, _)| item).collect())
    }
}
