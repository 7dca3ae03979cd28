//! Serving what is asked for in words: search queries, keywords, and what is to be generated.

use pgrec_engine::families::generative::Generated;
use pgrec_engine::serve::{self, Answer};
use pgrec_engine::{Control, ItemId, Query, Scored};
use pgrec_kernels::Filter;

use super::{Item, Session};
use crate::compute;
use crate::error::{Result, SqlError};
use crate::history::History;
use crate::ids::{self, Id};
use crate::inference::client;

/// Beams up to which a search is done on the session's own thread.
const QUICK_BEAMS: usize = 512;

impl Session {
    /// The numbers of those words that the model knows.
    pub fn words(&self, words: &[String]) -> Result<Vec<u32>> {
        let model = &*self.open.model;
        if !words.is_empty() && !model.knows_words() {
            return Err(SqlError::parameter(format!("model \"{}\" knows no words", self.open.row.name))
                .detail("Models of family \"generative\" learn the items' attributes, where those are bound and alignment is above 0.")
                .hint("Bind attributes_column with rec_create, then CALL rec_train('generative', '{\"alignment\": 1}');"));
        }
        Ok(words.iter().filter_map(|word| model.word(word)).collect())
    }

    /// The numbers of the words of a query: of those that the model does not know, those that they were most likely meant to be.
    pub fn query_words(&self, words: &[String]) -> Vec<u32> {
        let model = &*self.open.model;
        words.iter().filter_map(|word| model.word(word).or_else(|| model.nearest_word(word))).collect()
    }

    /// The best items for somebody of whom only words are known; what is popular where the model knows none of them.
    pub fn list_for(&self, words: &[String]) -> Result<Vec<Item>> {
        self.require_queries()?;
        let words = self.query_words(words);
        let answers = self.existing(&[History::default()], |queries| {
            let queries: Vec<Query<'_>> = queries.iter().map(|query| Query { words: &words, ..*query }).collect();
            self.ask(&queries)
        })?;
        Ok(answers.iter().flat_map(|answer| self.named(&answer.items)).collect())
    }

    fn require_queries(&self) -> Result<()> {
        if self.open.model.answers_queries() {
            return Ok(());
        }
        Err(SqlError::parameter(format!("model \"{}\" knows no queries", self.open.row.name))
            .detail(format!("It is of family \"{}\".", self.open.row.family))
            .hint("Models of the families dual_intent and keywords do."))
    }

    /// The words nearest to what a user with this history would want of an item now, nearest first, with how near they are.
    pub fn demand(&self, history: &History, item: &Id) -> Result<Vec<(String, f32)>> {
        let model = &*self.open.model;
        let item = ids::item_id(item, self.recommender.item_type)?;
        let Some(index) = model.catalogue().index_of(&item) else { return Ok(Vec::new()) };
        let words = model.demand(&self.query(history, &[], self.k), index)?.ok_or_else(|| {
            SqlError::parameter(format!("model \"{}\" generates no demand", self.open.row.name))
                .detail(format!("It is of family \"{}\".", self.open.row.family))
                .hint("Models of family dual_intent do: CALL rec_train('dual_intent');")
        })?;
        Ok(words.into_iter().filter_map(|(word, weight)| Some((model.word_text(word)?, weight))).collect())
    }

    /// The `k` best items for a query of these words and a user with this history, only such as exist; none without words.
    pub fn find(&self, history: &History, words: &[u32], k: usize) -> Result<Vec<Item>> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.existing(std::slice::from_ref(history), |queries| {
            let queries: Vec<Query<'_>> = queries.iter().map(|query| Query { words, k, ..*query }).collect();
            self.ask(&queries)
        })?;
        let own = answers.iter().flat_map(|answer| &answer.items[..answer.from_model]);
        Ok(self.named(&own.copied().collect::<Vec<_>>()))
    }

    /// The model's scores of those of some items that it knows, for a query of these words and a user with this history; none
    /// without words.
    pub fn found(&self, history: &History, words: &[u32], items: &[ItemId]) -> Result<Vec<(ItemId, f64)>> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let catalogue = self.open.model.catalogue();
        let known: Vec<(&ItemId, u32)> =
            items.iter().filter_map(|item| Some((item, catalogue.index_of(item)?))).collect();
        let query = Query { words, filter: Filter::default(), ..self.query(history, &[], known.len()) };
        let indices: Vec<u32> = known.iter().map(|(_, index)| *index).collect();
        let scores = match client::scores(&self.open, &query, &indices)? {
            Some(scores) => scores,
            None => self.open.model.score(&query, &indices)?,
        };
        Ok(known.into_iter().zip(scores).map(|((item, _), score)| (item.clone(), f64::from(score))).collect())
    }

    /// Items that a beam search of this width finds for one history and what is wanted in words, only such as exist, and how
    /// each was found.
    pub fn generate(&self, history: &History, words: &[u32], beam: Option<usize>) -> Result<Vec<(Item, Generated)>> {
        let model = &*self.open.model;
        let own = model.beam().ok_or_else(|| self.generates_nothing())?;
        let mut found: Vec<Generated> = Vec::new();
        let answers = self.existing(std::slice::from_ref(history), |queries| {
            let mut generated = |query: &Query<'_>| {
                let query = &Query { words, ..*query };
                // Some milliseconds at most: to wake another thread would take as long.
                let list = match beam.unwrap_or(own).max(query.k) <= QUICK_BEAMS {
                    true => model.generate(query, beam, &Control::default())?,
                    false => compute::run("rec_generate", |control| model.generate(query, beam, control))?,
                };
                found = list.ok_or_else(|| self.generates_nothing())?;
                let items: Vec<Scored> = found.iter().map(|item| item.found).collect();
                Ok(Answer { from_model: items.len(), items, source: serve::Source::Model })
            };
            queries.iter().map(&mut generated).collect()
        })?;
        // The one question was asked last with the answer that it got.
        Ok(answers.iter().flat_map(|answer| self.named(&answer.items)).zip(found).collect())
    }

    fn generates_nothing(&self) -> SqlError {
        let row = &self.open.row;
        SqlError::parameter(format!("model \"{}\" generates nothing", row.name))
            .detail(format!("It is of family \"{}\".", row.family))
            .hint("CALL rec_train('generative'); makes one that does.")
    }
}
