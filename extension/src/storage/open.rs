//! Models open in this backend. Weights are mapped, so an open model costs little private memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use pgrec_engine::{Artifact, Model, families};

use super::cache;
use crate::catalog::{ModelRow, Recommender, model};
use crate::error::{Result, SqlError};
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

thread_local! {
    /// Least recently used first. A model is identified by id and checksum: ids are never used again within a
    /// database, and the checksum tells a restored database's model from a former one of the same id.
    static OPEN: RefCell<Vec<Rc<OpenModel>>> = const { RefCell::new(Vec::new()) };
}

/// The model of that name, or the deployed one.
pub fn open(recommender: &Recommender, name: Option<&str>) -> Result<Rc<OpenModel>> {
    open_row(model::ready(recommender, name)?)
}

/// Opens the model of a catalogue row, or finds it open.
pub fn open_row(row: ModelRow) -> Result<Rc<OpenModel>> {
    let known = OPEN.with_borrow_mut(|open| {
        let index = open.iter().position(|m| m.row.id == row.id && m.row.checksum == row.checksum)?;
        let model = open.remove(index);
        open.push(Rc::clone(&model));
        Some(model)
    });
    if let Some(model) = known {
        return Ok(model);
    }
    let bytes = cache::map(&row)?;
    let damaged = |e: pgrec_engine::Error| {
        SqlError::corrupted(format!("model \"{}\" cannot be opened", row.name)).detail(e.to_string())
    };
    let artifact = Arc::new(Artifact::parse(bytes).map_err(damaged)?);
    let model = families::open(Arc::clone(&artifact)).map_err(damaged)?;
    let opened = Rc::new(OpenModel { row, model, artifact });
    OPEN.with_borrow_mut(|open| {
        while open.len() >= settings::open_models() {
            open.remove(0);
        }
        open.push(Rc::clone(&opened));
    });
    Ok(opened)
}
