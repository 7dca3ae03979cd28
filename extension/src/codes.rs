//! Semantic IDs: which item has which code, whether it got it in the training or since.

use std::collections::HashSet;
use std::rc::Rc;

use pgrec_engine::codes::statistics;
use pgrec_engine::codes::{Codes, Form};
use pgrec_engine::families::semantic_ids::SemanticIds;
use pgrec_engine::{ItemId, families};

use crate::catalog::code::{self, Given};
use crate::catalog::model;
use crate::catalog::recommender::{self, Recommender, quoted};
use crate::error::{Result, SqlError};
use crate::history;
use crate::ids::{self, Id};
use crate::pg::spi::{self, Arg, Mode};
use crate::storage::open::{self, OpenModel};

/// As a code is stored and sent: two bytes a level, the larger first, so that bytes are in the order of codes.
pub fn to_bytes(code: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * code.len());
    code.iter().for_each(|code| bytes.extend_from_slice(&code.to_be_bytes()));
    bytes
}

/// What [`to_bytes`] wrote.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<u16>> {
    let (codes, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() || codes.len() > pgrec_engine::codes::MOST_LEVELS {
        return Err(SqlError::new(
            pgrx::PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
            format!("{} bytes are no semantic_id", bytes.len()),
        ));
    }
    Ok(codes.iter().map(|bytes| u16::from_be_bytes(*bytes)).collect())
}

/// An item and its code.
pub struct Coded {
    /// The item.
    pub item: ItemId,
    /// Its code.
    pub code: Vec<u16>,
}

/// An item near another one.
pub struct Neighbour {
    /// The item and its code.
    pub coded: Coded,
    /// Levels on which both have the same code: leading ones where each level codes what those before have left, else any.
    pub shared: usize,
    /// Between what the codes stand for.
    pub distance: f32,
}

/// One number of a model's statistics; of a level, or of all.
pub struct Statistic {
    /// From 1; none for all.
    pub level: Option<i32>,
    /// Its name.
    pub metric: &'static str,
    /// Its value.
    pub value: f64,
}

/// A code word as a language model would be told of it.
pub struct Word {
    /// From 1.
    pub level: i32,
    /// Its number.
    pub code: u16,
    /// Items that have it on that level.
    pub items: i64,
    /// The word; none on a level that only numbers items.
    pub vector: Option<Vec<f32>>,
}

/// A model with semantic IDs, under the caller's snapshot.
pub struct Lookup {
    /// Its recommender.
    pub recommender: Rc<Recommender>,
    open: Rc<OpenModel>,
    mode: Mode,
}

impl Lookup {
    /// The model of that name; without one the deployed one, if it has semantic IDs, else the newest that codes items.
    pub fn open(mode: Mode, recommender: Option<&str>, name: Option<&str>) -> Result<Self> {
        let recommender = recommender::resolve(mode, recommender)?;
        recommender.require_readable()?;
        let family = families::semantic_ids::FAMILY.name;
        let coded = |open: &OpenModel| open.model.semantic_ids().is_some();
        let open = open::suiting(mode, &recommender, name, coded, family)?.ok_or_else(|| {
            SqlError::state(format!("recommender \"{}\" has no model with semantic IDs", recommender.name))
                .detail(model::overview(&recommender))
                .hint("CALL rec_train('semantic_ids'); learns them from the items' embedding column.")
        })?;
        if open.model.semantic_ids().is_none() {
            return Err(SqlError::parameter(format!("model \"{}\" has no semantic IDs", open.row.name))
                .detail(format!("It is of family \"{}\".", open.row.family))
                .hint("CALL rec_train('semantic_ids'); makes one that has."));
        }
        Ok(Self { recommender, open, mode })
    }

    fn model(&self) -> Result<&SemanticIds> {
        self.open.model.semantic_ids().ok_or_else(|| SqlError::corrupted("a model has lost its semantic IDs"))
    }

    fn id(&self) -> i64 {
        self.open.row.id
    }

    fn coded(&self, item: u32) -> Result<Coded> {
        Ok(Coded { item: self.open.model.catalogue().id(item), code: self.model()?.code(item).to_vec() })
    }

    fn given(&self, given: Given) -> Result<Coded> {
        let item = ids::item_id(&Id::Text(given.item), self.recommender.item_type)?;
        Ok(Coded { item, code: from_bytes(&given.code)? })
    }

    /// Codes given since the training, in their order.
    fn since(&self) -> Result<Vec<Coded>> {
        let given = code::under(self.mode, self.id(), &[], i64::MAX)?;
        given.into_iter().map(|given| self.given(given)).collect()
    }

    /// The code of an item: its own; else the one that it would be given now, where it has a vector.
    pub fn code_of(&self, item: &Id) -> Result<Option<Vec<u16>>> {
        let id = ids::item_id(item, self.recommender.item_type)?;
        match self.own_code(&id)? {
            Some(code) => Ok(Some(code)),
            None => match self.vector_of(&id)? {
                Some(vector) => Ok(Some(self.free_code(&vector)?)),
                None => Ok(None),
            },
        }
    }

    fn own_code(&self, id: &ItemId) -> Result<Option<Vec<u16>>> {
        if let Some(index) = self.open.model.catalogue().index_of(id) {
            return Ok(Some(self.model()?.code(index).to_vec()));
        }
        code::of_item(self.mode, self.id(), &ids::as_text(id))?.map(|bytes| from_bytes(&bytes)).transpose()
    }

    /// The vector that an item has in the items relation, as the current user sees it; none where codes were learnt from
    /// another model's vectors.
    fn vector_of(&self, id: &ItemId) -> Result<Option<Vec<f32>>> {
        let Some((select, column)) = self.vectors()? else { return Ok(None) };
        let kind = self.recommender.item_type;
        let sql = format!("{select} AND {column} = $1::{} LIMIT 1", kind.sql());
        Ok(spi::first(self.mode, &sql, &[Arg::Text(&ids::as_text(id))], |row| Ok(row.get::<Vec<f32>>(1)))?.flatten())
    }

    /// A statement for ids and vectors of items that have one, and the column of the id.
    fn vectors(&self) -> Result<Option<(String, String)>> {
        if !self.model()?.codes_embeddings() {
            return Ok(None);
        }
        let recommender = self.recommender.with_embedding(self.open.row.embedding.as_deref())?;
        let (Some(items), Some(relation)) = (&recommender.items, recommender.items_name()?) else {
            return Ok(None);
        };
        let Some(embedding) = &items.embedding else { return Ok(None) };
        let (id, embedding) = (quoted(&items.id), quoted(embedding));
        let expression = history::item_expression(&items.id, self.recommender.item_type);
        let select = format!(
            "SELECT {expression}, {embedding}::real[] FROM {relation} WHERE {id} IS NOT NULL AND {embedding} IS NOT NULL"
        );
        Ok(Some((select, id)))
    }

    /// The nearest code that no item has.
    fn free_code(&self, vector: &[f32]) -> Result<Vec<u16>> {
        self.model()?.free_code(vector, |prefix| {
            let given = code::under(self.mode, self.id(), &to_bytes(prefix), i64::MAX)?;
            let last = |given: Given| Ok(from_bytes(&given.code)?.last().copied());
            Ok::<HashSet<u16>, SqlError>(
                given.into_iter().map(last).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect(),
            )
        })
    }

    /// The first `most` items whose codes begin with `prefix`, in the order of their codes.
    pub fn under(&self, prefix: &[u16], most: usize) -> Result<Vec<Coded>> {
        let model = self.model()?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let mut since = code::under(self.mode, self.id(), &to_bytes(prefix), limit)?.into_iter().peekable();
        let catalogue = self.open.model.catalogue();
        let items = model.ordered()[model.under(prefix)].iter().take(most);
        // All of a kind at once: places of memory far apart are then read beside one another.
        let ids: Vec<ItemId> = items.clone().map(|&item| catalogue.id(item)).collect();
        let codes: Vec<u16> = items.flat_map(|&item| model.code(item)).copied().collect();
        let mut trained = ids.into_iter().zip(codes.chunks_exact(model.quantizer().levels())).peekable();
        let mut found = Vec::with_capacity(trained.len());
        while found.len() < most {
            let from_table = match (since.peek(), trained.peek()) {
                (Some(given), Some((_, code))) => given.code < to_bytes(code),
                (given, _) => given.is_some(),
            };
            let next = if from_table {
                since.next().map(|given| self.given(given))
            } else {
                trained.next().map(|(item, code)| Ok(Coded { item, code: code.to_vec() }))
            };
            match next {
                Some(coded) => found.push(coded?),
                None => break,
            }
        }
        Ok(found)
    }

    /// All items, in the order of their codes.
    pub fn all(&self) -> Result<Vec<Coded>> {
        self.under(&[], usize::MAX)
    }

    /// The `most` items whose codes are nearest to an item's: those that share most levels first, of these those first
    /// whose codes stand for the nearest vectors.
    pub fn neighbours(&self, item: &Id, most: usize) -> Result<Vec<Neighbour>> {
        let Some(own) = self.code_of(item)? else { return Ok(Vec::new()) };
        let own_id = ids::item_id(item, self.recommender.item_type)?;
        let model = self.model()?;
        let quantizer = model.quantizer();
        let shared = |code: &[u16]| {
            let alike = code.iter().zip(&own).map(|(a, b)| a == b);
            match quantizer.form {
                Form::Residual => alike.take_while(|&same| same).count(),
                Form::Parallel => alike.filter(|&same| same).count(),
            }
        };
        let own_index = self.open.model.catalogue().index_of(&own_id);
        let since: Vec<Coded> = self.since()?.into_iter().filter(|coded| coded.item != own_id).collect();
        let trained = || (0..self.open.model.catalogue().len() as u32).filter(|&item| Some(item) != own_index);
        // Only who shares enough is compared in full.
        let mut counts = vec![0usize; own.len() + 1];
        trained().for_each(|item| counts[shared(model.code(item))] += 1);
        since.iter().for_each(|coded| counts[shared(&coded.code)] += 1);
        let mut enough = 0;
        let least = (0..=own.len()).rev().find(|&levels| {
            enough += counts[levels];
            enough >= most
        });
        let least = least.unwrap_or(0);
        let vector = quantizer.decode(&own);
        let neighbour = |coded: Coded| Neighbour {
            shared: shared(&coded.code),
            distance: quantizer.error(&vector, &coded.code).sqrt(),
            coded,
        };
        let near = trained().filter(|&item| shared(model.code(item)) >= least).map(|item| self.coded(item));
        let near = near.collect::<Result<Vec<_>>>()?.into_iter();
        let since = since.into_iter().filter(|coded| shared(&coded.code) >= least);
        let mut all: Vec<Neighbour> = near.chain(since).map(neighbour).collect();
        all.sort_by(|a, b| {
            b.shared
                .cmp(&a.shared)
                .then(a.distance.total_cmp(&b.distance))
                .then_with(|| a.coded.item.cmp(&b.coded.item))
        });
        all.truncate(most);
        Ok(all)
    }

    /// How codes are used by all items that have one.
    pub fn statistics(&self) -> Result<Vec<Statistic>> {
        let model = self.model()?;
        let since = self.since()?;
        let all = self.codes_with(&since)?;
        let whole = |metric, value| Statistic { level: None, metric, value };
        let mut rows = vec![
            whole("items", all.len() as f64),
            whole("assigned", since.len() as f64),
            whole("collisions", statistics::collisions(&all) as f64),
        ];
        let of_training = model::metrics(self.mode, self.id())?;
        for metric in ["error", "greedy_error", "greedy_collisions"] {
            rows.extend(of_training["codes"][metric].as_f64().map(|value| whole(metric, value)));
        }
        let sizes = model.quantizer().sizes();
        for (index, level) in statistics::levels(&all, &sizes).into_iter().enumerate() {
            let figures = [
                ("codes", sizes[index] as f64),
                ("used", level.used as f64),
                ("entropy", level.entropy),
                ("balance", level.balance),
            ];
            let of_level = |(metric, value)| Statistic { level: Some(index as i32 + 1), metric, value };
            rows.extend(figures.into_iter().map(of_level));
        }
        Ok(rows)
    }

    fn codes_with(&self, since: &[Coded]) -> Result<Codes<'_>> {
        let codes = self.model()?.codes();
        let (levels, mut of) = (codes.levels, codes.of);
        if !since.is_empty() {
            of.to_mut().extend(since.iter().flat_map(|coded| &coded.code));
        }
        Ok(Codes { levels, of })
    }

    /// All code words.
    pub fn vocabulary(&self) -> Result<Vec<Word>> {
        let quantizer = self.model()?.quantizer();
        let since = self.since()?;
        let all = self.codes_with(&since)?;
        let mut words = Vec::new();
        for (index, codebook) in quantizer.codebooks.iter().enumerate() {
            let mut counts = vec![0i64; codebook.size];
            (0..all.len()).for_each(|item| counts[usize::from(all.item(item)[index])] += 1);
            words.extend((0..=u16::MAX).zip(counts).map(|(code, items)| Word {
                level: index as i32 + 1,
                code,
                items,
                vector: (!codebook.is_blank()).then(|| codebook.word(code).to_vec()),
            }));
        }
        Ok(words)
    }

    /// Gives codes to items that have a vector and none yet, as the current user sees the items relation. `each` hears
    /// of every one.
    pub fn assign(&self, mut each: impl FnMut()) -> Result<u64> {
        let (select, _) = self.vectors()?.ok_or_else(|| self.no_vectors())?;
        let known: HashSet<ItemId> = self.since()?.into_iter().map(|coded| coded.item).collect();
        let catalogue = self.open.model.catalogue();
        let mut new: Vec<(ItemId, Vec<f32>)> = Vec::new();
        spi::each(self.mode, &select, &[], |row| {
            let id = history::item_of(row, 0, self.recommender.item_type);
            if let Some(id) = id.filter(|id| catalogue.index_of(id).is_none() && !known.contains(id)) {
                new.push((id, row.need(1)?));
            }
            Ok(())
        })?;
        let mut given = 0;
        for (id, vector) in new {
            given += u64::from(self.assign_to(&id, &vector)?);
            each();
        }
        Ok(given)
    }

    /// Gives one item a code where it has a vector and none yet.
    pub fn assign_one(&self, item: &Id) -> Result<bool> {
        let id = ids::item_id(item, self.recommender.item_type)?;
        if self.own_code(&id)?.is_some() {
            return Ok(false);
        }
        match self.vector_of(&id)? {
            Some(vector) => self.assign_to(&id, &vector),
            None => Ok(false),
        }
    }

    /// Others may take a code that is free now: then the next nearest is tried, until nobody was faster.
    fn assign_to(&self, id: &ItemId, vector: &[f32]) -> Result<bool> {
        let item = ids::as_text(id);
        loop {
            let free = to_bytes(&self.free_code(vector)?);
            if code::give(self.id(), &item, &free)? {
                return Ok(true);
            }
            if code::of_item(self.mode, self.id(), &item)?.is_some() {
                return Ok(false);
            }
            crate::pg::interrupt::check();
        }
    }

    fn no_vectors(&self) -> SqlError {
        let name = &self.open.row.name;
        match self.model().is_ok_and(SemanticIds::codes_embeddings) {
            true => SqlError::state(format!("recommender \"{}\" has no embedding column", self.recommender.name))
                .hint("Create it with items and embedding_column, and train semantic_ids on that."),
            false => SqlError::state(format!("model \"{name}\" has learnt codes from the vectors of another model"))
                .detail("A new item has no vector there.")
                .hint("Train semantic_ids on the items' embedding column, without \"base\", to code new items."),
        }
    }
}
