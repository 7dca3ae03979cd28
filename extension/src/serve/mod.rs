//! Serving: resolve, read, compute, return.

mod words;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgrec_engine::serve::{self, Answer};
use pgrec_engine::{Control, ItemContent, ItemId, Query, Scored};
use pgrec_kernels::Filter;
use rayon::prelude::*;

use crate::catalog::recommender::{self, Recommender, quoted};
use crate::error::{Result, SqlError};
use crate::history::{self, History, Wanted};
use crate::ids::{self, Id, Keys};
use crate::inference::client;
use crate::pg::spi::{self, Mode};
use crate::search::recent;
use crate::settings;
use crate::storage::open::{self, OpenModel};
use crate::vectors::{self, Published};
use crate::{compute, device};

/// How many users of a batch are read and computed at a time: bounds memory, keeps the cores busy.
const SLICE: usize = 1024;

/// What to serve from and what may be returned: the arguments that all list functions share.
#[derive(Debug, Default)]
pub struct Scope {
    /// Recommender by name.
    pub recommender: Option<String>,
    /// Model by name; the deployed one without.
    pub model: Option<String>,
    /// How many items; None for the default.
    pub k: Option<i32>,
    /// Only these may be returned.
    pub candidates: Option<Vec<Id>>,
    /// These may not be returned.
    pub exclude: Vec<Id>,
    /// Whether the user's own items are left out.
    pub exclude_seen: bool,
    /// Unix time of the question in seconds.
    pub at: f64,
    /// What is meant beside the history.
    pub steer: Option<Steer>,
}

/// What is meant, in the terms of the items' content where the model has learnt to look at that, else as a vector of the
/// model's own, and its share in the user's vector.
#[derive(Debug)]
pub struct Steer {
    /// The vector.
    pub vector: Vec<f32>,
    /// From 0 to 1.
    pub weight: f32,
}

/// k where the caller gave NULL.
pub const DEFAULT_K: i32 = 10;

/// A recommended item.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// Its score; larger is better.
    pub score: f32,
}

/// A scope made concrete: recommender, model and filters in dense indices.
pub struct Session {
    /// The recommender.
    pub recommender: Rc<Recommender>,
    /// The model.
    pub open: Rc<OpenModel>,
    k: usize,
    candidates: Option<Vec<u32>>,
    exclude: Vec<u32>,
    exclude_seen: bool,
    at: f64,
    /// The same as they were given: the model need not know them.
    candidates_given: Option<Vec<ItemId>>,
    exclude_given: Vec<ItemId>,
    steer: Option<Steer>,
    /// Its vectors, where they are published.
    published: Option<Published>,
}

impl Session {
    /// Resolves names under the caller's snapshot and checks the caller's right to the interactions.
    pub fn open(scope: Scope) -> Result<Self> {
        let recommender = recommender::resolve(Mode::Read, scope.recommender.as_deref())?;
        recommender.require_readable()?;
        let open = open::open(&recommender, scope.model.as_deref())?;
        Self::new(recommender, open, scope)
    }

    /// The same with a model that is open.
    pub fn with(recommender: Rc<Recommender>, open: Rc<OpenModel>, scope: Scope) -> Result<Self> {
        recommender.require_readable()?;
        Self::new(recommender, open, scope)
    }

    fn new(recommender: Rc<Recommender>, open: Rc<OpenModel>, scope: Scope) -> Result<Self> {
        let k = scope.k.unwrap_or(DEFAULT_K);
        let k = usize::try_from(k).map_err(|_| {
            SqlError::parameter(format!("k must not be negative, and is {k}")).hint("0 gives no rows; NULL gives 10.")
        })?;
        let catalogue = open.model.catalogue();
        let kind = recommender.item_type;
        let all = |ids: &[Id]| ids.iter().map(|id| ids::item_id(id, kind)).collect::<Result<Vec<ItemId>>>();
        let candidates_given = scope.candidates.as_deref().map(all).transpose()?;
        let exclude_given = all(&scope.exclude)?;
        let candidates = candidates_given.as_deref().map(|given| ids::known_sorted(given, catalogue));
        let exclude = ids::known_sorted(&exclude_given, catalogue);
        let published = match open.model.places() {
            true => Published::of_open(&recommender, &open)?,
            false => None,
        };
        let Scope { exclude_seen, at, steer, .. } = scope;
        Ok(Self {
            k,
            candidates,
            exclude,
            exclude_seen,
            at,
            candidates_given,
            exclude_given,
            steer,
            published,
            recommender,
            open,
        })
    }

    /// How many items are wanted.
    pub fn wanted_items(&self) -> usize {
        self.k
    }

    /// Whether the user's own items are left out.
    pub fn excludes_seen(&self) -> bool {
        self.exclude_seen
    }

    /// What the caller leaves out.
    pub fn excluded_ids(&self) -> HashSet<ItemId> {
        self.exclude_given.iter().cloned().collect()
    }

    /// What the caller wants to choose among, where that is not everything.
    pub fn candidate_ids(&self) -> Option<&[ItemId]> {
        self.candidates_given.as_deref()
    }

    /// What is read of a history: all events within the limit when they are also left out of the answer, else only
    /// those that can change it.
    fn wanted(&self) -> Wanted<'_> {
        let limit = settings::history_limit();
        let model = &*self.open.model;
        let events = if self.exclude_seen { limit } else { limit.min(model.window()) };
        let times = model.timed() || recent::needs_times(&self.recommender, model);
        Wanted { events, times, tasks: model.tasks() }
    }

    /// The stored history of a user with the session's items appended.
    pub fn history(&self, user: Option<&Id>, session: &[Id]) -> Result<History> {
        let catalogue = self.open.model.catalogue();
        let mut history = match user {
            Some(user) if self.wanted().events > 0 => history::read(&self.recommender, user, self.wanted(), catalogue)?,
            _ => History::default(),
        };
        if let Some(user) = user {
            self.read_searches(std::slice::from_ref(user), std::slice::from_mut(&mut history))?;
        }
        let mut added = Vec::with_capacity(session.len());
        for id in session {
            let id = ids::item_id(id, self.recommender.item_type)?;
            match catalogue.index_of(&id) {
                Some(index) => added.push(index),
                None => history.unknown.push(id),
            }
        }
        if self.wanted().times {
            // What was touched just now was touched when the question is asked.
            history.times.extend(added.iter().map(|_| self.at));
        }
        if !self.open.model.tasks().is_empty() {
            // Nothing came of it yet.
            history.outcomes.extend(added.iter().map(|_| 0));
        }
        history.items.extend(added);
        Ok(history)
    }

    /// Adds what the users of some histories looked for lately.
    fn read_searches(&self, users: &[Id], histories: &mut [History]) -> Result<()> {
        recent::read(&self.recommender, users, &*self.open.model, histories)
    }

    /// What may not be returned for this history, ascending.
    pub fn excluded(&self, history: &History) -> Vec<u32> {
        if !self.exclude_seen || history.items.is_empty() {
            return self.exclude.clone();
        }
        let mut all = history.seen();
        add_sorted(&mut all, &self.exclude);
        all
    }

    /// The engine's form of a request.
    pub fn query<'a>(&'a self, history: &'a History, exclude: &'a [u32], k: usize) -> Query<'a> {
        Query {
            history: &history.items,
            times: &history.times,
            outcomes: &history.outcomes,
            words: &[],
            searches: history.searches.asked(),
            at: self.at,
            k,
            filter: Filter { exclude, candidates: self.candidates.as_deref() },
            exact_limit: settings::exact_limit(),
            remember: settings::history_memory(),
        }
    }

    /// The best items for one history, with those that came after the training where the model can place them.
    pub fn list(&self, history: &History) -> Result<Vec<Item>> {
        self.list_and_source(history).map(|(list, _)| list)
    }

    /// The same, and where those of the training came from.
    pub fn list_and_source(&self, history: &History) -> Result<(Vec<Item>, serve::Source)> {
        let vector = match (&self.steer, &self.published) {
            (Some(steer), _) => Some(self.steered(history, steer)?),
            (None, Some(_)) => self.vector(history)?,
            _ => None,
        };
        let answer = match (&self.steer, &vector) {
            (Some(_), Some(vector)) => self.answer_by(history, vector)?,
            _ => self.answer(history)?,
        };
        let list = self.named(&answer.items);
        let list = match (&self.published, &vector) {
            (Some(published), Some(vector)) => published.beside(self, history, vector, list)?,
            _ => list,
        };
        Ok((list, answer.source))
    }

    /// The user's vector on its way to what is meant; what is meant, for somebody of whom nothing is known.
    fn steered(&self, history: &History, steer: &Steer) -> Result<Vec<f32>> {
        let model = &*self.open.model;
        let geometry = vectors::geometry(&self.open)?;
        if !(0.0..=1.0).contains(&steer.weight) {
            return Err(SqlError::parameter(format!("weight is a share from 0 to 1, and is {}", steer.weight)));
        }
        let meant = match model.places() {
            true => model.place(&ItemContent { vector: Some(&steer.vector), attributes: &[] })?.ok_or_else(|| {
                SqlError::parameter("steer means nothing: it is zero, or the model looks at attributes alone")
            })?,
            false => steer.vector.clone(),
        };
        let own = model.item_vector(0).map_or(0, <[f32]>::len);
        if meant.len() != own {
            return Err(SqlError::parameter(format!("steer has {} dimensions, vectors of the model {own}", meant.len()))
                .detail("The model knows nothing of the items' content, so that steer is a vector of its own, such as rec_encode gives."));
        }
        Ok(match self.vector(history)? {
            Some(user) => geometry.steered(&user, &meant, steer.weight),
            None => meant,
        })
    }

    /// The vector of a history; None of one that tells the model nothing.
    pub fn vector(&self, history: &History) -> Result<Option<Vec<f32>>> {
        if history.is_empty() {
            return Ok(None);
        }
        match self.encode(&self.query(history, &[], 0)) {
            Err(error) if error.is_state() => Ok(None),
            other => other.map(Some),
        }
    }

    /// The best items for a vector in the place of a history's, only such as exist.
    fn answer_by(&self, history: &History, vector: &[f32]) -> Result<Answer> {
        let mut answers = self.existing(std::slice::from_ref(history), |queries| {
            let listed = |query: &Query<'_>| {
                let items = self.open.model.recommend_by(vector, query)?.unwrap_or_default();
                Ok(Answer { from_model: items.len(), items, source: serve::Source::Model })
            };
            queries.iter().map(listed).collect()
        })?;
        answers.pop().ok_or_else(|| SqlError::corrupted("the engine gave no answer"))
    }

    /// The best items for one history, only such as exist in the bound items relation.
    pub fn answer(&self, history: &History) -> Result<Answer> {
        let mut answers = self.existing(std::slice::from_ref(history), |queries| self.ask(queries))?;
        answers.pop().ok_or_else(|| SqlError::corrupted("the engine gave no answer"))
    }

    /// Lists for few questions. A ranking model goes through every item that may be returned, so it is asked where a
    /// cancel is heard meanwhile.
    fn ask(&self, queries: &[Query<'_>]) -> Result<Vec<Answer>> {
        if let Some(answers) = client::lists(&self.open, queries, device::place(queries.len()), "ranking")? {
            return Ok(answers);
        }
        let model = &*self.open.model;
        if model.tasks().is_empty() {
            return Ok(serve::recommend(model, queries, &Control::default())?);
        }
        compute::run("ranking", |control| serve::recommend(model, queries, control))
    }

    /// The lists of these histories by `ask`. Lists that hold what is not in the items relation (any more) are asked
    /// for again as if it had been excluded, until none does.
    fn existing(
        &self,
        histories: &[History],
        mut ask: impl FnMut(&[Query<'_>]) -> Result<Vec<Answer>>,
    ) -> Result<Vec<Answer>> {
        let mut excluded: Vec<Vec<u32>> = histories.iter().map(|h| self.excluded(h)).collect();
        let mut lists = |questions: &[usize], k: usize, excluded: &[Vec<u32>]| {
            let queries: Vec<Query<'_>> =
                questions.iter().map(|&q| self.query(&histories[q], &excluded[q], k)).collect();
            ask(&queries)
        };
        let mut pending: Vec<usize> = (0..histories.len()).collect();
        let mut answers = lists(&pending, self.k, &excluded)?;
        let mut ahead = self.k;
        loop {
            let gone = self.gone(pending.iter().map(|&q| &answers[q]))?;
            if gone.is_empty() {
                return Ok(answers);
            }
            pending.retain(|&q| answers[q].items.iter().any(|s| gone.binary_search(&s.item).is_ok()));
            pending.iter().for_each(|&q| add_sorted(&mut excluded[q], &gone));
            // Where much is gone, one look far ahead saves many at the next few.
            ahead = ahead.saturating_mul(4);
            let gone = self.gone(lists(&pending, ahead, &excluded)?.iter())?;
            pending.iter().for_each(|&q| add_sorted(&mut excluded[q], &gone));
            for (&question, answer) in pending.iter().zip(lists(&pending, self.k, &excluded)?) {
                answers[question] = answer;
            }
        }
    }

    /// Items of these lists that are not in the items relation, ascending.
    fn gone<'a>(&self, answers: impl Iterator<Item = &'a Answer>) -> Result<Vec<u32>> {
        if self.recommender.items.is_none() {
            return Ok(Vec::new());
        }
        let mut items: Vec<u32> = answers.flat_map(|a| a.items.iter().map(|s| s.item)).collect();
        if items.is_empty() {
            return Ok(items);
        }
        items.sort_unstable();
        items.dedup();
        let alive = self.alive(items.iter().copied())?;
        items.retain(|item| alive.binary_search(item).is_err());
        Ok(items)
    }

    /// Which of the items exist in the items relation, as the caller sees it; ascending.
    fn alive(&self, items: impl Iterator<Item = u32>) -> Result<Vec<u32>> {
        let catalogue = self.open.model.catalogue();
        let ids: Vec<ItemId> = items.map(|item| catalogue.id(item)).collect();
        let existing = self.existing_ids(ids.iter())?.unwrap_or_default();
        let mut found: Vec<u32> = existing.iter().filter_map(|id| catalogue.index_of(id)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Which of some items exist in the items relation, as the caller sees it; None where none is bound.
    pub fn existing_ids<'a>(&self, wanted: impl Iterator<Item = &'a ItemId>) -> Result<Option<HashSet<ItemId>>> {
        let (Some(bound), Some(name)) = (&self.recommender.items, self.recommender.items_name()?) else {
            return Ok(None);
        };
        let kind = self.recommender.item_type;
        let column = quoted(&bound.id);
        let expression = history::item_expression(&bound.id, kind);
        let keys = Keys::of_items(wanted, kind);
        let sql = format!("SELECT {expression} FROM {name} WHERE {column} = {}", keys.any(1));
        let mut found = HashSet::new();
        if kind.is_integer() {
            let alive = spi::bigints(Mode::Read, &sql, &[keys.arg()])?;
            found.extend(alive.into_iter().flatten().map(ItemId::Int));
        } else {
            spi::each(Mode::Read, &sql, &[keys.arg()], |row| {
                found.extend(history::item_of(row, 0, kind));
                Ok(())
            })?;
        }
        Ok(Some(found))
    }

    /// Items of an answer with their ids.
    pub fn named(&self, items: &[Scored]) -> Vec<Item> {
        let catalogue = self.open.model.catalogue();
        items.iter().map(|s| Item { id: catalogue.id(s.item), score: s.score }).collect()
    }

    /// The lists of one slice of a call's users, in their order.
    fn answer_many(&self, users: &[Id], all: usize) -> Result<Vec<Vec<Item>>> {
        let mut histories: Vec<History> = if self.wanted().events == 0 {
            users.iter().map(|_| History::default()).collect()
        } else {
            history::read_many(Mode::Read, &self.recommender, users, self.wanted(), self.open.model.catalogue())?
        };
        self.read_searches(users, &mut histories)?;
        let answers = self.existing(&histories, |queries| self.ask_many(queries, all))?;
        let lists = answers.iter().map(|answer| self.named(&answer.items));
        let Some(published) = &self.published else { return Ok(lists.collect()) };
        let vectors = self.encode_many(&histories)?;
        let beside = |((list, history), vector): ((Vec<Item>, &History), Option<Vec<f32>>)| match vector {
            Some(vector) => published.beside(self, history, &vector, list),
            None => Ok(list),
        };
        lists.zip(&histories).zip(vectors).map(beside).collect()
    }

    /// Vectors of those histories that have something the model knows.
    fn encode_many(&self, histories: &[History]) -> Result<Vec<Option<Vec<f32>>>> {
        let model = &*self.open.model;
        let queries: Vec<Query<'_>> =
            histories.iter().map(|history| Query { remember: 0, ..self.query(history, &[], 0) }).collect();
        compute::run("rec_next_many", |control| {
            let encode = |query: &Query<'_>| {
                control.check()?;
                match query.history.is_empty() && query.searches.ends.is_empty() {
                    true => Ok(None),
                    false => vectors::encoded(model, query),
                }
            };
            queries.par_iter().map(encode).collect()
        })
    }

    /// Lists for many questions, of a call for so many users.
    fn ask_many(&self, queries: &[Query<'_>], users: usize) -> Result<Vec<Answer>> {
        const WHAT: &str = "rec_next_many";
        // Who asks for many users does not ask for the same ones again and again.
        let queries: Vec<Query<'_>> = queries.iter().map(|query| Query { remember: 0, ..*query }).collect();
        if let Some(answers) = client::lists(&self.open, &queries, device::place(users), WHAT)? {
            return Ok(answers);
        }
        let model = &*self.open.model;
        let device = device::for_users(users)?;
        compute::run(WHAT, |control| serve::recommend_on(device.as_deref(), model, &queries, control))
    }

    /// The vector of a history.
    pub fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        match client::vector(&self.open, query)? {
            Some(vector) => Ok(vector),
            None => Ok(self.open.model.encode(query)?),
        }
    }

    /// Scores of given items for one history, in their order; None for items the model does not know.
    pub fn score(&self, history: &History, items: &[Id]) -> Result<Vec<Option<f32>>> {
        let catalogue = self.open.model.catalogue();
        let kind = self.recommender.item_type;
        let mut indices = Vec::with_capacity(items.len());
        for id in items {
            indices.push(catalogue.index_of(&ids::item_id(id, kind)?));
        }
        let mut known: Vec<u32> = indices.iter().flatten().copied().collect();
        known.sort_unstable();
        known.dedup();
        let direct = match history.is_empty() || !self.open.model.tasks().is_empty() {
            true => None,
            false => self.direct_scores(history, &known)?,
        };
        let scores: HashMap<u32, f32> = match direct {
            Some(scores) => known.iter().copied().zip(scores).collect(),
            None => {
                let filter = Filter { exclude: &[], candidates: Some(&known) };
                let query = Query { filter, ..self.query(history, &[], known.len()) };
                let answers = self.ask(&[query])?;
                answers.iter().flat_map(|a| &a.items).map(|s| (s.item, s.score)).collect()
            }
        };
        let mut scores: Vec<Option<f32>> = indices.into_iter().map(|index| scores.get(&index?).copied()).collect();
        self.score_placed(history, items, &mut scores)?;
        Ok(scores)
    }

    /// The model's scores of items, in their order; None for a history that tells it nothing.
    fn direct_scores(&self, history: &History, items: &[u32]) -> Result<Option<Vec<f32>>> {
        let query = Query { filter: Filter::default(), ..self.query(history, &[], DEFAULT_K as usize) };
        let scores = match client::scores(&self.open, &query, items) {
            Ok(None) => self.open.model.score(&query, items).map_err(SqlError::from),
            Ok(Some(scores)) => Ok(scores),
            Err(error) => Err(error),
        };
        match scores {
            Err(error) if error.is_state() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Scores of those items that came after the training, where the model has placed them.
    fn score_placed(&self, history: &History, items: &[Id], scores: &mut [Option<f32>]) -> Result<()> {
        let Some(published) = &self.published else { return Ok(()) };
        if scores.iter().all(Option::is_some) {
            return Ok(());
        }
        let Some(vector) = self.vector(history)? else { return Ok(()) };
        let kind = self.recommender.item_type;
        let ids = items.iter().map(|id| ids::item_id(id, kind)).collect::<Result<Vec<ItemId>>>()?;
        let placed = published.scored(&ids, &HashSet::new(), &vector, self)?;
        let placed: HashMap<ItemId, f32> = placed.into_iter().map(|item| (item.id, item.score)).collect();
        for (score, id) in scores.iter_mut().zip(&ids) {
            *score = score.or_else(|| placed.get(id).copied());
        }
        Ok(())
    }

    /// Items most like one item, only such as exist.
    pub fn similar(&self, item: u32) -> Result<Vec<Item>> {
        let answers = self.existing(&[History::default()], |queries| {
            let listed = |query| {
                let items = self.open.model.similar(item, query)?;
                Ok(Answer { from_model: items.len(), items, source: serve::Source::Model })
            };
            queries.iter().map(listed).collect()
        })?;
        Ok(answers.iter().flat_map(|answer| self.named(&answer.items)).collect())
    }
}

/// Adds items to an ascending list without repeats.
fn add_sorted(list: &mut Vec<u32>, items: &[u32]) {
    if !items.is_empty() {
        list.extend_from_slice(items);
        list.sort_unstable();
        list.dedup();
    }
}

/// Lists for many users, computed a slice at a time as rows are asked for.
pub fn next_many(session: Session, users: Vec<Id>) -> impl Iterator<Item = (Id, i32, Item)> {
    let all = users.len();
    let mut rest = users;
    rest.reverse();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let users: Vec<Id> = (0..SLICE).map_while(|_| rest.pop()).collect();
        let lists = crate::error::or_raise(session.answer_many(&users, all));
        Some(users.into_iter().zip(lists).flat_map(|(user, list)| {
            list.into_iter().enumerate().map(move |(rank, item)| (user.clone(), rank as i32 + 1, item))
        }))
    })
    .flatten()
}
