//! `rec_search`: candidates of text, of vectors and of a model, and one list of them.

use std::collections::HashSet;
use std::rc::Rc;

use pgrec_engine::ItemId;
use pgrec_engine::search::fuse;

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
    let asked = !query.trim().is_empty();
    scope.exclude_seen = exclude_seen.unwrap_or(!asked && embedding.is_none());
    if !asked && embedding.is_none() {
        let session = Session::open(scope)?;
        let history = session.history(user.as_ref(), &[])?;
        return session.list(&history);
    }
    Search::open(user, scope)?.ranked(&query, embedding)
}

/// Everything that is needed to answer.
struct Search {
    recommender: Rc<Recommender>,
    k: usize,
    allowed: Allowed,
    /// A model that knows queries and what it knows of who asks, where there is one.
    model: Option<(Session, History)>,
}

impl Search {
    fn open(user: Option<Id>, scope: Scope) -> Result<Self> {
        let recommender = recommender::resolve(Mode::Read, scope.recommender.as_deref())?;
        let k = scope.k.unwrap_or(DEFAULT_K);
        let k = usize::try_from(k).map_err(|_| SqlError::parameter(format!("k must not be negative, and is {k}")))?;
        let unseen_by = user.as_ref().filter(|_| scope.exclude_seen);
        let allowed = Allowed::new(&recommender, scope.candidates.as_deref(), &scope.exclude, unseen_by)?;
        let model = match model_of(&recommender, scope.model.as_deref())? {
            Some(open) => {
                let session = Session::open(Scope { model: Some(open.row.name.clone()), ..scope })?;
                let history = session.history(user.as_ref(), &[])?;
                Some((session, history))
            }
            None => None,
        };
        Ok(Self { recommender, k, allowed, model })
    }

    fn ranked(&self, query: &str, embedding: Option<Vec<f32>>) -> Result<Vec<Item>> {
        let most = settings::search_candidates().max(self.k);
        let words = text::words(&self.recommender, query)?;
        let texts = Texts::of(&self.recommender)?;
        if self.k == 0 || words.is_empty() && embedding.is_none() {
            return Ok(Vec::new());
        }
        let mut matches = match (&texts, words.is_empty()) {
            (Some(texts), false) => texts.matching(words.clone(), most, &self.allowed, &|word| self.meant(word))?,
            (None, false) if embedding.is_none() && self.model.is_none() => {
                return Err(text::no_texts(&self.recommender));
            }
            _ => Matches::none(),
        };
        let near = match embedding {
            // All items are near, more or less: what is far down the list answers nothing.
            Some(vector) => {
                let few = (most / 5).max(self.k);
                vectors::nearest(&self.recommender, &self.projected(vector)?, few, &self.allowed)?
            }
            None => Vec::new(),
        };
        let guessed = self.guessed(&words, most)?;
        if let Some(texts) = texts.filter(|_| !words.is_empty()) {
            let others = near.iter().map(|(item, _)| item).chain(guessed.iter().map(|item| &item.id));
            texts.see_items(&mut matches, &others.cloned().collect::<Vec<_>>(), &self.allowed)?;
        }
        self.one_list(&words, matches, near, guessed)
    }

    /// The lists of text, vectors and model as one.
    fn one_list(
        &self,
        words: &[String],
        matches: Matches,
        near: Vec<(ItemId, f64)>,
        guessed: Vec<Item>,
    ) -> Result<Vec<Item>> {
        let matching = matches.ranked();
        let near: Vec<(ItemId, f64)> = near.into_iter().map(|(item, distance)| (item, -distance)).collect();
        let modelled = match &self.model {
            Some((session, history)) => {
                let mut known = HashSet::new();
                let union =
                    matching.iter().chain(&near).map(|(item, _)| item).chain(guessed.iter().map(|item| &item.id));
                let union: Vec<ItemId> = union.filter(|item| known.insert((*item).clone())).cloned().collect();
                let mut scored = session.found(history, words, &union)?;
                scored.sort_by(|a, b| b.1.total_cmp(&a.1));
                scored
            }
            None => Vec::new(),
        };
        let lists = [matching, near, modelled];
        let lists: Vec<&Vec<(ItemId, f64)>> = lists.iter().filter(|list| !list.is_empty()).collect();
        let ranked: Vec<(ItemId, f64)> = match lists.as_slice() {
            // The score of the only list says more than a rank.
            [only] => (*only).clone(),
            lists => {
                let ids: Vec<Vec<ItemId>> =
                    lists.iter().map(|list| list.iter().map(|(item, _)| item.clone()).collect()).collect();
                fuse(&ids.iter().map(|list| (1.0, list.as_slice())).collect::<Vec<_>>())
            }
        };
        Ok(ranked.into_iter().take(self.k).map(|(id, score)| Item { id, score: score as f32 }).collect())
    }

    /// What a model that knows queries finds by itself.
    fn guessed(&self, words: &[String], most: usize) -> Result<Vec<Item>> {
        match &self.model {
            Some((session, history)) => session.find(history, words, most),
            None => Ok(Vec::new()),
        }
    }

    /// The vector by which items are looked for: by what the newest model of family `retriever` has learnt, where there is one.
    fn projected(&self, vector: Vec<f32>) -> Result<Vec<f32>> {
        let Some(row) = model::newest(Mode::Read, &self.recommender, "retriever")? else { return Ok(vector) };
        let projected = open::open_row(row)?.model.project(&vector)?;
        Ok(projected.unwrap_or(vector))
    }

    /// What a word that no text has was most likely meant to be.
    fn meant(&self, word: &str) -> Option<String> {
        let model = &self.model.as_ref()?.0.open.model;
        model.word_text(model.nearest_word(word)?)
    }
}

/// The model that knows queries: the named one, else the deployed one, if it does.
fn model_of(recommender: &Rc<Recommender>, name: Option<&str>) -> Result<Option<Rc<OpenModel>>> {
    if name.is_none() && model::deployed(Mode::Read, recommender)?.is_none() {
        return Ok(None);
    }
    let open = open::open(recommender, name)?;
    match (open.model.answers_queries(), name) {
        (true, _) => Ok(Some(open)),
        (false, None) => Ok(None),
        (false, Some(name)) => Err(SqlError::parameter(format!("model \"{name}\" knows no queries"))
            .detail(format!("It is of family \"{}\".", open.row.family))
            .hint(
                "Models of the families dual_intent and keywords do; without a model text and vectors are searched.",
            )),
    }
}
