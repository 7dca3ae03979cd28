//! `rec_search`: candidates of text, of vectors and of a model, and one list of them.

use std::collections::HashSet;
use std::rc::Rc;

use pgrec_engine::ItemId;
use pgrec_engine::search::fuse_with_model;

use super::allowed::Allowed;
use super::text::{self, Matches, Texts};
use super::vectors;
use crate::catalog::model;
use crate::catalog::recommender::{self, Recommender};
use crate::error::{Result, SqlError};
use crate::history::History;
use crate::ids::Id;
use crate::pg::spi::Mode;
use crate::serve::{DEFAULT_K, Item, Scope, Session};
use crate::settings;
use crate::storage::open::{self, OpenModel};

/// What is searched for.
#[derive(Debug, Default)]
pub struct Request {
    /// Who asks, where that is known.
    pub user: Option<Id>,
    /// In words.
    pub query: String,
    /// As a vector among those of the items.
    pub embedding: Option<Vec<f32>>,
    /// What may be found. Whether the user's own items may: by `exclude_seen`, where that is said.
    pub scope: Scope,
    /// Whether the user's own items are left out; by default only where nothing is asked for.
    pub exclude_seen: Option<bool>,
}

/// The best items, best first. Nothing asked for is [`Session::list`].
pub fn search(request: Request) -> Result<Vec<Item>> {
    let Request { user, query, embedding, mut scope, exclude_seen } = request;
    let query = super::checked(query)?;
    let asked = !query.trim().is_empty() || embedding.is_some();
    scope.exclude_seen = exclude_seen.unwrap_or(!asked);
    if !asked {
        let session = Session::open(scope)?;
        let history = session.history(user.as_ref(), &[])?;
        return session.list(&history);
    }
    let search = Search::open(user.as_ref(), scope)?;
    let history = match &search.model {
        Some(session) => session.history(user.as_ref(), &[])?,
        None => History::default(),
    };
    let words = text::words(&search.recommender, &query)?;
    search.list(&Asked { words, embedding, history: &history, sources: Sources::ALL })
}

/// Which sources are asked.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// The words of the items' texts.
    pub text: bool,
    /// Their vectors.
    pub vectors: bool,
    /// The model.
    pub model: bool,
}

impl Sources {
    /// As far as there are.
    const ALL: Self = Self { text: true, vectors: true, model: true };
}

/// A question.
pub struct Asked<'a> {
    /// The words of the query.
    pub words: Vec<String>,
    /// Its vector.
    pub embedding: Option<Vec<f32>>,
    /// What is known of who asks, in the terms of the model.
    pub history: &'a History,
    /// Where answers are looked for.
    pub sources: Sources,
}

/// Items that a model adds to what text and vectors have found, at least.
const GUESSES: usize = 200;

/// Where is searched.
pub struct Search {
    recommender: Rc<Recommender>,
    k: usize,
    allowed: Allowed,
    texts: Option<Texts>,
    /// Serving from a model that knows queries, where there is one.
    pub model: Option<Session>,
}

impl Search {
    /// In the items that a scope allows. `user`: whose items are left out where the scope says so.
    pub fn open(user: Option<&Id>, scope: Scope) -> Result<Self> {
        let recommender = recommender::resolve(Mode::Read, scope.recommender.as_deref())?;
        let k = scope.k.unwrap_or(DEFAULT_K);
        let k = usize::try_from(k).map_err(|_| SqlError::parameter(format!("k must not be negative, and is {k}")))?;
        let unseen_by = user.filter(|_| scope.exclude_seen);
        let allowed = Allowed::new(&recommender, scope.candidates.as_deref(), &scope.exclude, unseen_by)?;
        let model = match model_of(&recommender, scope.model.as_deref())? {
            Some(open) => Some(Session::with(Rc::clone(&recommender), open, scope)?),
            None => None,
        };
        let texts = Texts::of(&recommender)?;
        Ok(Self { recommender, k, allowed, texts, model })
    }

    /// Whether the items have texts.
    pub fn has_texts(&self) -> bool {
        self.texts.is_some()
    }

    /// The best items for a question, best first.
    pub fn list(&self, asked: &Asked<'_>) -> Result<Vec<Item>> {
        let Asked { words, embedding, sources, .. } = asked;
        let most = settings::search_candidates().max(self.k);
        let embedding = embedding.as_ref().filter(|_| sources.vectors);
        if self.k == 0 || words.is_empty() && embedding.is_none() {
            return Ok(Vec::new());
        }
        let model = self.model.as_ref().filter(|_| sources.model).map(|session| (session, session.query_words(words)));
        if self.texts.is_none() && embedding.is_none() && model.is_none() {
            return Err(text::no_texts(&self.recommender));
        }
        let texts = self.texts.as_ref().filter(|_| sources.text && !words.is_empty());
        let mut matches = match texts {
            Some(texts) => texts.matching(words.clone(), (self.k, most), &self.allowed, &|word| self.meant(word))?,
            None => Matches::none(),
        };
        let near = match embedding {
            // All items are near, more or less: what is far down the list answers nothing.
            Some(vector) => {
                // Where words have found something half as many are company enough.
                let enough = if matches.is_empty() { self.k } else { self.k.div_ceil(2) };
                let wanted = (enough, (most / 5).max(self.k));
                vectors::nearest(&self.recommender, &self.projected(vector)?, wanted, &self.allowed)?
            }
            None => Vec::new(),
        };
        let guessed = match &model {
            Some((session, known)) => session.find(asked.history, known, GUESSES.max(self.k))?,
            None => Vec::new(),
        };
        if let Some(texts) = texts {
            let others = near.iter().map(|(item, _)| item).chain(guessed.iter().map(|item| &item.id));
            texts.see_items(&mut matches, &others.cloned().collect::<Vec<_>>(), &self.allowed)?;
        }
        let matching = matches.ranked();
        let near: Vec<(ItemId, f64)> = near.into_iter().map(|(item, distance)| (item, -distance)).collect();
        let (modelled, weight) = match &model {
            Some((session, known)) => {
                let found = matching.iter().chain(&near).map(|(item, _)| item);
                // A model counts as much as it knows of the query.
                let share = known.len() as f64 / words.len().max(1) as f64;
                let modelled = modelled(session, asked.history, known, guessed, found)?;
                (modelled, share * session.open.model.search_weight())
            }
            None => (Vec::new(), 0.0),
        };
        let list = fuse_with_model([&matching, &near, &modelled], weight);
        Ok(list.into_iter().take(self.k).map(|(id, score)| Item { id, score: score as f32 }).collect())
    }

    /// The vector by which items are looked for: by what the newest model of family `retriever` has learnt, where there is one.
    fn projected(&self, vector: &[f32]) -> Result<Vec<f32>> {
        let projected = match model::newest(Mode::Read, &self.recommender, "retriever")? {
            Some(row) => open::open_row(row)?.model.project(vector)?,
            None => None,
        };
        Ok(projected.unwrap_or_else(|| vector.to_vec()))
    }

    /// What a word that no text has was most likely meant to be.
    fn meant(&self, word: &str) -> Option<String> {
        let model = &self.model.as_ref()?.open.model;
        model.word_text(model.nearest_word(word)?)
    }
}

/// A model's list for a query of these of its words: what it has guessed itself, and what it says of all else that was found.
fn modelled<'a>(
    session: &Session,
    history: &History,
    words: &[u32],
    guessed: Vec<Item>,
    found: impl Iterator<Item = &'a ItemId>,
) -> Result<Vec<(ItemId, f64)>> {
    let mut once: HashSet<&ItemId> = guessed.iter().map(|item| &item.id).collect();
    let others: Vec<ItemId> = found.filter(|item| once.insert(*item)).cloned().collect();
    let mut scored = session.found(history, words, &others)?;
    scored.extend(guessed.into_iter().map(|item| (item.id, f64::from(item.score))));
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(scored)
}

/// The model that knows queries: the named one, else the deployed one, if it does.
fn model_of(recommender: &Rc<Recommender>, name: Option<&str>) -> Result<Option<Rc<OpenModel>>> {
    let Some(name) = name else {
        return Ok(open::deployed(Mode::Read, recommender)?.filter(|open| open.model.answers_queries()));
    };
    let open = open::open(recommender, Some(name))?;
    match open.model.answers_queries() {
        true => Ok(Some(open)),
        false => Err(SqlError::parameter(format!("model \"{name}\" knows no queries"))
            .detail(format!("It is of family \"{}\".", open.row.family))
            .hint(
                "Models of the families dual_intent and keywords do; without a model text and vectors are searched.",
            )),
    }
}
