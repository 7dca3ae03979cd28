//! A fitted adjacency, used where it lies in the artifact.

use std::ops::Range;

use pgrec_kernels::{Filter, Scored, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::graph::{Graph, Lists};
use super::{Adjacency, NAME, Params};
use crate::artifact::Shared;
use crate::families::graph::best;
use crate::families::sequential::check_known;
use crate::families::{Model, popularity};
use crate::words::Lexicon;
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Corpus, Error, Query, Result};

const WORDS: &str = "words";
const USERS: &str = "words.users";
const SAID: &str = "items.words";
const ROWS: &str = "adjacency.items";
const WEIGHTS: &str = "adjacency.weights";

/// Queries that are answered on one thread.
const SLICE: usize = 64;

/// Keywords that an explanation names.
const EXPLAINED: usize = 10;

#[derive(Debug, Serialize, Deserialize)]
struct Config {
    adjacency: Adjacency,
    window: usize,
}

/// What [`Keywords::open`] reads. `words`: the keywords, by their places in the lexicon.
pub(super) fn artifact(
    params: &Params,
    corpus: &Corpus,
    words: &[u32],
    graph: Graph,
    rows: Vec<Vec<Scored>>,
) -> ArtifactBuilder {
    let config = json!(Config { adjacency: params.adjacency, window: params.window });
    let counts: Vec<f32> = corpus.counts().into_iter().map(|count| count as f32).collect();
    let texts: Vec<String> = words.iter().map(|&word| corpus.lexicon()[word as usize].clone()).collect();
    let mut artifact = ArtifactBuilder::new(NAME, &config, corpus.items(), &counts);
    artifact.texts(WORDS, &texts).u32(USERS, graph.users);
    store(&mut artifact, SAID, graph.said);
    let (mut items, mut weights) = (Lists::new(), Vec::new());
    for row in rows {
        items.push(row.iter().map(|scored| scored.item));
        weights.extend(row.iter().map(|scored| scored.score));
    }
    store(&mut artifact, ROWS, items);
    artifact.f32(WEIGHTS, &[weights.len()], weights);
    artifact
}

fn store(artifact: &mut ArtifactBuilder, name: &str, lists: Lists) {
    artifact.u64(&format!("{name}.offsets"), lists.offsets).u32(name, lists.numbers);
}

/// Lists of numbers below a bound.
struct Stored {
    offsets: Shared<u64>,
    numbers: Shared<u32>,
}

impl Stored {
    fn open(artifact: &Artifact, name: &str, count: usize, below: usize) -> Result<Self> {
        let (offsets, numbers) = (artifact.u64s(&format!("{name}.offsets"))?, artifact.u32s(name)?);
        let spans = offsets.len() == count + 1 && offsets[0] == 0 && offsets[count] == numbers.len() as u64;
        let ascending = spans && offsets.is_sorted();
        let lists = Self { offsets, numbers };
        let sorted = ascending && (0..count).all(|list| lists.of(list as u32).is_sorted_by(|a, b| a < b));
        match sorted && lists.numbers.iter().all(|&number| (number as usize) < below) {
            true => Ok(lists),
            false => Err(Error::Malformed(format!("{NAME}: lists \"{name}\" of the artifact are inconsistent"))),
        }
    }

    fn range(&self, list: u32) -> Range<usize> {
        self.offsets[list as usize] as usize..self.offsets[list as usize + 1] as usize
    }

    fn of(&self, list: u32) -> &[u32] {
        &self.numbers[self.range(list)]
    }
}

/// The model.
pub(super) struct Keywords {
    catalogue: Catalogue,
    config: Config,
    words: Lexicon,
    users: Shared<u32>,
    /// The keywords of each item's text.
    said: Stored,
    /// The items of each keyword, and how much they have to do with it.
    rows: Stored,
    weights: Tensor,
}

impl Keywords {
    /// Opens an artifact of this family.
    ///
    /// # Errors
    /// [`Error::Malformed`] where its tensors do not fit together.
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let (catalogue, words) = (artifact.catalogue().clone(), Lexicon::open(artifact, WORDS)?);
        let rows = Stored::open(artifact, ROWS, words.len(), catalogue.len())?;
        let weights = artifact.tensor_of(WEIGHTS, &[rows.numbers.len()])?;
        let users = artifact.u32s(USERS)?;
        if users.len() != words.len() || !weights.as_slice().iter().all(|weight| weight.is_finite() && *weight > 0.0) {
            return Err(Error::Malformed(format!("{NAME}: words and weights of the artifact are inconsistent")));
        }
        let said = Stored::open(artifact, SAID, catalogue.len(), words.len())?;
        Ok(Self { config: artifact.config()?, said, users, rows, weights, words, catalogue })
    }

    /// The keywords of a question: those that are given, else those of the latest events; ascending.
    fn keywords(&self, query: &Query<'_>) -> Result<Vec<u32>> {
        let mut keywords = match query.words {
            [] => self.keywords_of(self.latest(query.history)?),
            given => given.to_vec(),
        };
        if let Some(word) = keywords.iter().find(|&&word| word as usize >= self.words.len()) {
            return Err(Error::Parameter(format!("word {word} is not below {}", self.words.len())));
        }
        keywords.sort_unstable();
        keywords.dedup();
        Ok(keywords)
    }

    fn latest<'a>(&self, history: &'a [u32]) -> Result<&'a [u32]> {
        let latest = &history[history.len().saturating_sub(self.config.window)..];
        check_known(self.catalogue.len(), latest)?;
        Ok(latest)
    }

    fn keywords_of(&self, items: &[u32]) -> Vec<u32> {
        items.iter().flat_map(|&item| self.said.of(item)).copied().collect()
    }

    /// How much a keyword has to do with an item.
    fn weight(&self, word: u32, item: u32) -> f32 {
        let place = self.rows.of(word).binary_search(&item);
        place.map_or(0.0, |place| self.weights.as_slice()[self.rows.range(word).start + place])
    }

    /// What keywords bring, best first, and below it what is popular.
    fn list(&self, keywords: &[u32], query: &Query<'_>) -> Result<Vec<Scored>> {
        check_known(self.catalogue.len(), query.filter.candidates.unwrap_or(&[]))?;
        let mut list = self.brought(keywords, &query.filter);
        if list.is_empty() {
            return Ok(list);
        }
        best(&mut list, query.k);
        let popular = popularity::most_counted(&self.catalogue, &query.filter, query.k - list.len(), &list);
        list.extend(popular.into_iter().map(|item| Scored { item, score: self.without_keyword(item) }));
        Ok(list)
    }

    /// The items that keywords have to do with and a filter allows, in any order. Weights of an item are added in the order
    /// of the keywords, here as in [`Keywords::score`].
    fn brought(&self, keywords: &[u32], filter: &Filter<'_>) -> Vec<Scored> {
        let mut sums = vec![0f32; self.catalogue.len()];
        let mut items = Vec::new();
        for &word in keywords {
            for (&item, weight) in self.rows.of(word).iter().zip(&self.weights.as_slice()[self.rows.range(word)]) {
                let sum = &mut sums[item as usize];
                if *sum == 0.0 {
                    items.push(item);
                }
                *sum += weight;
            }
        }
        let allowed = |item: &u32| {
            filter.exclude.binary_search(item).is_err()
                && filter.candidates.is_none_or(|candidates| candidates.binary_search(item).is_ok())
        };
        items.into_iter().filter(allowed).map(|item| Scored { item, score: sums[item as usize] }).collect()
    }

    fn sum(&self, keywords: &[u32], item: u32) -> f32 {
        match keywords.iter().map(|&word| self.weight(word, item)).sum::<f32>() {
            0.0 => self.without_keyword(item),
            sum => sum,
        }
    }

    /// The score of an item that no keyword brings: its popularity, below 0, where no weight is.
    fn without_keyword(&self, item: u32) -> f32 {
        popularity::share(&self.catalogue, item) - 1.0
    }
}

impl Model for Keywords {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        self.config.window
    }

    fn answers_queries(&self) -> bool {
        true
    }

    fn word(&self, word: &str) -> Option<u32> {
        self.words.number(word)
    }

    fn word_text(&self, word: u32) -> Option<String> {
        self.words.text(word)
    }

    fn nearest_word(&self, word: &str) -> Option<u32> {
        self.words.nearest(word, |word| self.users[word as usize] as f32)
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let answer = |queries: &[Query<'_>]| -> Result<Vec<Vec<Scored>>> {
            control.check()?;
            queries.iter().map(|query| self.list(&self.keywords(query)?, query)).collect()
        };
        // A session's call for one user is computed on its own thread, and starts no others.
        match queries.len() > SLICE {
            true => Ok(queries.par_chunks(SLICE).map(answer).collect::<Result<Vec<_>>>()?.concat()),
            false => answer(queries),
        }
    }

    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        check_known(self.catalogue.len(), items)?;
        let keywords = self.keywords(query)?;
        Ok(items.iter().map(|&item| self.sum(&keywords, item)).collect())
    }

    /// What the keywords of the item's text bring.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        check_known(self.catalogue.len(), &[item])?;
        let mut exclude = query.filter.exclude.to_vec();
        if let Err(place) = exclude.binary_search(&item) {
            exclude.insert(place, item);
        }
        let filter = Filter { exclude: &exclude, ..query.filter };
        self.list(self.said.of(item), &Query { filter, ..*query })
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        Err(Error::Unsupported { family: NAME.into(), what: "has no user vectors".into() })
    }

    /// The keywords that bring the item, those that do most first, each with the events whose texts have it.
    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        check_known(self.catalogue.len(), &[item])?;
        let (keywords, given) = (self.keywords(query)?, !query.words.is_empty());
        let latest = if given { &[] } else { self.latest(query.history)? };
        let brings = keywords.iter().map(|&word| (word, self.weight(word, item)));
        let mut brings: Vec<(u32, f32)> = brings.filter(|&(_, weight)| weight > 0.0).collect();
        brings.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let named = brings.iter().take(EXPLAINED).map(|&(word, weight)| {
            let of: Vec<u32> = latest.iter().copied().filter(|&i| self.said.of(i).binary_search(&word).is_ok()).collect();
            json!({ "keyword": self.words.text(word), "weight": weight, "users": self.users[word as usize], "items": of })
        });
        Ok(json!({
            "adjacency": self.config.adjacency,
            "score": self.sum(&keywords, item),
            "keywords_of": if given { "question" } else { "history" },
            "keywords_used": keywords.len(),
            "brought_by": named.collect::<Vec<_>>(),
            "popularity": {
                "count": self.catalogue.counts()[item as usize],
                "rank": popularity::rank(&self.catalogue, item),
            },
        }))
    }
}
