//! Models open in this backend. Weights are mapped, so an open model costs little private memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use pgrec_engine::{Artifact, Model, families};

use super::cache;
use crate::catalog::{ModelRow, Recommender, model};
use crate::error::{Result, SqlError};
use crate::pg::lookup::{self, Found, Key, Version};
use crate::pg::spi::Mode;
use crate::settings;

/// A model ready to answer.
pub struct OpenModel {
    /// Its catalogue row.
    pub row: ModelRow,
    /// The model.
    pub model: Box<dyn Model>,
    /// Its artifact.
    pub artifact: Arc<Artifact>,
}

struct Entry {
    /// Version of the catalogue row when it was last looked at.
    version: Option<Version>,
    model: Rc<OpenModel>,
}

thread_local! {
    /// Least recently used first. A model is identified by id and checksum: ids are never used again within a
    /// database, and the checksum tells a restored database's model from a former one of the same id.
    static OPEN: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// The model of that name, or the deployed one, under the caller's snapshot.
pub fn open(recommender: &Recommender, name: Option<&str>) -> Result<Rc<OpenModel>> {
    if name.is_none()
        && let Some((id, version)) = model::deployed_version(recommender)
    {
        let known = take(|entry| entry.model.row.id == id && entry.version == Some(version));
        return match known {
            Some(entry) => Ok(keep(entry)),
            None => open_version(model::ready(Mode::Read, recommender, None)?, Some(version)),
        };
    }
    open_row(model::ready(Mode::Read, recommender, name)?)
}

/// The model of that name, whatever it can do; without one the deployed one, where it suits, else the newest of a family.
pub fn suiting(
    mode: Mode,
    recommender: &Recommender,
    name: Option<&str>,
    suits: impl Fn(&OpenModel) -> bool,
    family: &str,
) -> Result<Option<Rc<OpenModel>>> {
    if name.is_some() {
        return open_row(model::ready(mode, recommender, name)?).map(Some);
    }
    if let Some(deployed) = deployed(mode, recommender)?
        && suits(&deployed)
    {
        return Ok(Some(deployed));
    }
    model::newest(mode, recommender, family)?.map(open_row).transpose()
}

/// The deployed model, where there is one.
pub fn deployed(mode: Mode, recommender: &Recommender) -> Result<Option<Rc<OpenModel>>> {
    model::deployed(mode, recommender)?.map(open_row).transpose()
}

/// The model with this key, which the caller's snapshot has.
pub fn open_id(mode: Mode, id: i64) -> Result<Rc<OpenModel>> {
    let version = lookup::first(c"model", c"model_pkey", 1, Key::Int8(id), Found::version);
    if let Some(entry) = take(|entry| entry.model.row.id == id && version.is_some() && entry.version == version) {
        return Ok(keep(entry));
    }
    let row = model::by_id(mode, id)?.ok_or_else(|| SqlError::undefined(format!("there is no model {id}")))?;
    open_version(row, version)
}

/// Opens the model of a catalogue row, or finds it open.
pub fn open_row(row: ModelRow) -> Result<Rc<OpenModel>> {
    open_version(row, None)
}

fn open_version(row: ModelRow, version: Option<Version>) -> Result<Rc<OpenModel>> {
    if let Some(entry) = take(|entry| entry.model.row.id == row.id && entry.model.row.checksum == row.checksum) {
        return Ok(keep(Entry { version: version.or(entry.version), ..entry }));
    }
    let bytes = cache::map(&row)?;
    let damaged = |e: pgrec_engine::Error| {
        SqlError::corrupted(format!("model \"{}\" cannot be opened", row.name)).detail(e.to_string())
    };
    let artifact = Arc::new(Artifact::parse(bytes).map_err(damaged)?);
    let model = families::open(Arc::clone(&artifact)).map_err(damaged)?;
    Ok(keep(Entry { version, model: Rc::new(OpenModel { row, model, artifact }) }))
}

fn take(wanted: impl Fn(&Entry) -> bool) -> Option<Entry> {
    OPEN.with_borrow_mut(|open| {
        let index = open.iter().position(wanted)?;
        Some(open.remove(index))
    })
}

/// Makes an entry the most recently used one.
fn keep(entry: Entry) -> Rc<OpenModel> {
    let model = Rc::clone(&entry.model);
    OPEN.with_borrow_mut(|open| {
        while open.len() >= settings::open_models() {
            open.remove(0);
        }
        open.push(entry);
    });
    model
}
