//! Ways to search, each ranking the whole catalogue.

use std::collections::HashMap;

use pgrec_engine::corpus::Search;
use pgrec_engine::evaluate::{SearchCase, Searcher};
use pgrec_engine::search::{Texts, fuse, fuse_with_model};
use pgrec_engine::{Asked, Control, Corpus, Model, Query};
use pgrec_kernels::Filter;

/// What lists that are made one of are cut at, and what the model guesses, as in `rec_search`.
const FUSED: usize = 1000;
const GUESSED: usize = 200;

/// What text, vectors and popularity know of the items.
pub struct Index<'a> {
    corpus: &'a Corpus,
    texts: Texts,
    /// `[items, dim]`: means of the vectors of the queries that led to each, of length 1.
    vectors: Vec<f32>,
    popularity: Vec<u32>,
    /// Best items of a query by text and by vector, as they are the same for everybody.
    text: HashMap<u32, Vec<(u32, f64)>>,
    vector: HashMap<u32, Vec<(u32, f64)>>,
}

impl<'a> Index<'a> {
    /// Over the words of items, of what was learnt from and in the same catalogue and lexicon as `corpus`.
    pub fn of(learnt: &Corpus, corpus: &'a Corpus) -> Self {
        let items = corpus.items().len();
        let dim = learnt.query_dim();
        let mut vectors = vec![0.0; items * dim];
        for search in (0..learnt.users()).flat_map(|user| learnt.searches(user)) {
            let Some(item) = search.item else { continue };
            let of_query = &learnt.query_vectors()[search.query as usize * dim..][..dim];
            let row = &mut vectors[item as usize * dim..][..dim];
            row.iter_mut().zip(of_query).for_each(|(sum, x)| *sum += x);
        }
        vectors.chunks_exact_mut(dim.max(1)).for_each(|row| {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= length.max(f32::MIN_POSITIVE));
        });
        Self {
            corpus,
            texts: Texts::of(corpus),
            vectors,
            popularity: learnt.counts(),
            text: HashMap::new(),
            vector: HashMap::new(),
        }
    }

    /// Items with a word of the query, by BM25, best first, ties in the order of the catalogue.
    fn by_text(&mut self, query: u32) -> &[(u32, f64)] {
        self.text.entry(query).or_insert_with(|| self.texts.ranked(self.corpus.query_words(query)))
    }

    /// The same, ties by popularity.
    fn by_text_and_popularity(&mut self, query: u32) -> Vec<u32> {
        let mut all = self.by_text(query).to_vec();
        let count = |item: u32| self.popularity[item as usize];
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(count(b.0).cmp(&count(a.0))));
        all.into_iter().map(|(item, _)| item).collect()
    }

    /// Items by the cosine of their vector and the query's.
    fn by_vector(&mut self, query: u32) -> &[(u32, f64)] {
        self.vector.entry(query).or_insert_with(|| {
            let dim = self.corpus.query_dim();
            let asked = &self.corpus.query_vectors()[query as usize * dim..][..dim];
            let cosine = |row: &[f32]| f64::from(row.iter().zip(asked).map(|(a, b)| a * b).sum::<f32>());
            let mut all: Vec<(u32, f64)> = (0..).zip(self.vectors.chunks_exact(dim).map(cosine)).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            all
        })
    }
}

/// All ways.
pub struct Ways<'a> {
    pub index: Index<'a>,
    pub model: &'a dyn Model,
    /// The model's numbers of the words of the corpus.
    words: Vec<Option<u32>>,
    /// The model's numbers of the items of the corpus, and back.
    known: Vec<Option<u32>>,
    items: Vec<Option<u32>>,
    /// The model's list of the case that was asked last, and which that was.
    last: Option<(usize, u32, Scores)>,
}

/// Items with their scores, best first.
type Scores = Vec<(u32, f64)>;

const TEXT: usize = 0;
const POPULAR: usize = 1;
const VECTOR: usize = 2;
const HYBRID: usize = 3;
const UNKNOWN: usize = 4;
const MODEL: usize = 5;
/// One list of all three.
const ALL: usize = 6;
const WITHIN: usize = 7;

impl<'a> Ways<'a> {
    pub fn new(index: Index<'a>, model: &'a dyn Model) -> Self {
        let words = index.corpus.lexicon().iter().map(|word| model.word(word)).collect();
        let (own, catalogue) = (index.corpus.items(), model.catalogue());
        let known = (0..own.len()).map(|item| catalogue.index_of(&own.get(item))).collect();
        let items = (0..catalogue.len() as u32).map(|item| own.index_of(&catalogue.id(item))).collect();
        Self { index, model, words, known, items, last: None }
    }

    fn numbers(&self, query: u32) -> Vec<u32> {
        let words = self.index.corpus.query_words(query).iter();
        words.filter_map(|&word| self.words[word as usize]).collect()
    }

    /// The model's list, in items of the corpus.
    fn by_model(&self, case: &SearchCase<'_>, known: bool, k: usize) -> pgrec_engine::Result<Scores> {
        let words = self.numbers(case.search.query);
        let lately = Lately::of(case.earlier, self);
        let searches = Asked { words: &lately.words, ends: &lately.ends, after: &lately.after };
        let mut query = Query { words: &words, k, filter: Filter::default(), ..Query::default() };
        let history: Vec<u32> = case.history.iter().filter_map(|&item| self.known[item as usize]).collect();
        if known {
            query = Query { history: &history, searches, ..query };
        }
        let lists = self.model.recommend(&[query], &Control::default())?;
        let scored = lists.into_iter().flatten();
        Ok(scored.filter_map(|one| Some((self.items[one.item as usize]?, f64::from(one.score)))).collect())
    }

    /// The lists of text and vectors of a query.
    fn both(&mut self, query: u32) -> [Scores; 2] {
        [first(self.index.by_text(query)), first(self.index.by_vector(query))]
    }
}

fn first(list: &[(u32, f64)]) -> Scores {
    list[..list.len().min(FUSED)].to_vec()
}

fn items(list: &[(u32, f64)]) -> Vec<u32> {
    list.iter().map(|(item, _)| *item).collect()
}

/// The latest searches, in the numbers of a model.
#[derive(Default)]
struct Lately {
    words: Vec<u32>,
    ends: Vec<u32>,
    after: Vec<u32>,
}

impl Lately {
    fn of(earlier: &[Search<'_>], ways: &Ways<'_>) -> Self {
        let mut lately = Self::default();
        for search in &earlier[earlier.len().saturating_sub(ways.model.searches())..] {
            lately.words.extend(ways.numbers(search.query));
            lately.ends.push(lately.words.len() as u32);
            lately.after.push(search.after as u32);
        }
        lately
    }
}

impl Searcher for Ways<'_> {
    fn ways(&self) -> &[&'static str] {
        &[
            "text",
            "text_popular",
            "vector",
            "hybrid",
            "dual_intent_without_user",
            "dual_intent",
            "all",
            "dual_intent_within_hybrid",
        ]
    }

    fn ranked(&mut self, way: usize, case: &SearchCase<'_>, k: usize) -> pgrec_engine::Result<Vec<u32>> {
        let query = case.search.query;
        let asked = |last: &(usize, u32, Scores)| last.0 == case.user && last.1 == query;
        if way >= MODEL && !self.last.as_ref().is_some_and(asked) {
            let list = self.by_model(case, true, usize::MAX)?;
            self.last = Some((case.user, query, list));
        }
        let model = self.last.as_ref().map_or_else(Vec::new, |(_, _, list)| list.clone());
        let mut list = match way {
            TEXT => items(self.index.by_text(query)),
            POPULAR => self.index.by_text_and_popularity(query),
            VECTOR => items(self.index.by_vector(query)),
            HYBRID => {
                let [text, vector] = self.both(query);
                items(&fuse(&[(1.0, &text), (1.0, &vector)]))
            }
            UNKNOWN => items(&self.by_model(case, false, k)?),
            MODEL => items(&model),
            ALL => {
                let [text, vector] = self.both(query);
                let mut found = vec![false; self.index.corpus.items().len()];
                let others = text.iter().chain(&vector).map(|(item, _)| *item);
                others.chain(items(&model).into_iter().take(GUESSED)).for_each(|item| found[item as usize] = true);
                let model: Scores = model.into_iter().filter(|(item, _)| found[*item as usize]).collect();
                let words = self.index.corpus.query_words(query).len().max(1);
                let known = self.numbers(query).len() as f64 / words as f64;
                items(&fuse_with_model([&text, &vector, &model], known * self.model.search_weight()))
            }
            WITHIN => {
                let mut among = vec![false; self.index.corpus.items().len()];
                self.both(query).iter().flatten().for_each(|(item, _)| among[*item as usize] = true);
                items(&model).into_iter().filter(|&item| among[item as usize]).collect()
            }
            _ => Vec::new(),
        };
        list.truncate(k);
        Ok(list)
    }
}
