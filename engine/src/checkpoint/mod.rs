//! Weights trained elsewhere: reading checkpoints, and writing models so that others can read them.
//!
//! Checkpoints are safetensors files. Four namings are understood: that of HSTU's authors; for SASRec BERT-like ones (post-norm blocks, 2 heads,
//! GELU, eps 1e-12), those of the PyTorch port of SASRec (original blocks, 1 head, ReLU, eps 1e-8; its later
//! versions train `post_ln` or `pre_ln` blocks under the same names, which `block` has to say), and our own
//! exports. The port lets events attend to the padding before them, which no event does here: users with
//! histories shorter than the window get somewhat different scores.
//!
//! An export holds the tensors of the artifact under their names there (linear layers are `[inputs, outputs]`,
//! the transpose of PyTorch's), the item ids as `ids` (`ids.offsets` too for text), their `counts`, and in the
//! metadata under `pgrec` a JSON object with the configuration.

mod formats;
mod hstu;
mod own;
mod source;

use serde::Deserialize;
use serde_json::Value;

use crate::families::neighbours::{SEGMENT_ABOVE, add_segment};
use crate::families::sequential::{Architecture, config_json};
use crate::{ArtifactBuilder, Control, Error, ItemId, ItemIds, Result};
use formats::{Format, Params, Place};
pub use own::export;
use source::Source;

/// Reads a checkpoint. `rows[j]` is the item of row `first_row + j` of its item table; rows without an id
/// (padding, mask tokens, items since gone) are dropped. Must be empty for our own exports, which bring their ids.
///
/// `params` is a JSON object, all of it optional: `heads`, `first_row` (default 1: row 0 is padding), `block`
/// (`original`, `pre_ln`, `post_ln`), `window` (HSTU's), `activation` (`relu`, `gelu`, `silu`), `norm_eps`, `item_scale`,
/// `positions` (`from_end`, `from_start`), `segment_above` (build a nearest-neighbour segment for more items
/// than this). The items' counts are zero until [`ArtifactBuilder::counts`] says otherwise.
///
/// [`Error::Malformed`] when the file is wrong, and says which tensor and where; [`Error::Parameter`] when the
/// mapping or the parameters are.
pub fn import(bytes: &[u8], rows: &[Option<ItemId>], params: &Value, control: &Control) -> Result<ArtifactBuilder> {
    let params: Params = match params {
        Value::Null => Params::default(),
        Value::Object(_) => {
            Params::deserialize(params).map_err(|e| Error::Parameter(format!("import parameters: {e}")))?
        }
        _ => return Err(Error::Parameter("import parameters: not a JSON object".into())),
    };
    let source = Source::open(bytes)?;
    if own::is_own(&source) {
        if !rows.is_empty() {
            return Err(Error::Parameter("the file is an export of pgrec and has its own item ids".into()));
        }
        return own::import(&source, &params, control);
    }
    if let Some(names) = hstu::Names::recognise(&source) {
        return hstu::import(&names, &source, rows, &params, control);
    }
    let format = Format::recognise(&source)?;
    let table_shape = source.shape(format.items())?;
    let &[table_rows, dim] = table_shape.as_slice() else {
        return Err(Error::Malformed(format!("tensor \"{}\" is not a table: {table_shape:?}", format.items())));
    };
    let (ids, order) = order(rows, params.first_row.unwrap_or(1), table_rows)?;
    let (positions, window) = positions(&source, format, dim)?;
    let config = format.config(&source, dim, window, &params)?;

    let table = source.numbers(format.items(), &table_shape)?;
    let items: Vec<f32> = order.iter().flat_map(|&row| &table[row * dim..(row + 1) * dim]).copied().collect();
    let mut builder = start(&config, &ids, &vec![0.0; ids.len()])?;
    for weight in config.weights(ids.len()) {
        let values = match weight.name.as_str() {
            "items" => items.clone(),
            "positions" => positions.clone(),
            name => match format.place(name) {
                Some(place) => read(&source, format, &place, &weight.shape)?,
                None => continue,
            },
        };
        builder.f32(&weight.name, &weight.shape, values);
    }
    add_segment(&mut builder, &items, dim, params.segment_above.unwrap_or(SEGMENT_ABOVE), control)?;
    Ok(builder)
}

/// The mapped ids, ascending, and for each the row it has in the checkpoint.
fn order(rows: &[Option<ItemId>], first_row: usize, table_rows: usize) -> Result<(ItemIds, Vec<usize>)> {
    if first_row.checked_add(rows.len()).is_none_or(|end| end > table_rows) {
        return Err(Error::Parameter(format!(
            "the mapping names {} rows from row {first_row} on, the item table has {table_rows}",
            rows.len()
        )));
    }
    let mut mapped: Vec<(&ItemId, usize)> =
        rows.iter().enumerate().filter_map(|(j, id)| Some((id.as_ref()?, first_row + j))).collect();
    if mapped.is_empty() {
        return Err(Error::Parameter("the mapping gives no row of the item table an id".into()));
    }
    mapped.sort_unstable();
    if let Some(pair) = mapped.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let ((id, a), (_, b)) = (pair[0], pair[1]);
        return Err(Error::Parameter(format!("the mapping gives item {id} to both row {a} and row {b}")));
    }
    let order = mapped.iter().map(|&(_, row)| row).collect();
    let ids = ItemIds::from_ids(mapped.into_iter().map(|(id, _)| id.clone()).collect())?;
    Ok((ids, order))
}

/// The usable rows of the position table. Later versions of the port keep row 0 for padding, as zeros.
fn positions(source: &Source<'_>, format: Format, dim: usize) -> Result<(Vec<f32>, usize)> {
    let rows = source.shape(format.positions())?.first().copied().unwrap_or(0);
    let mut table = source.numbers(format.positions(), &[rows, dim])?;
    let padded = format == Format::Port && rows > 1 && table[..dim].iter().all(|&x| x == 0.0);
    if padded {
        table.drain(..dim);
    }
    Ok((table, rows - usize::from(padded)))
}

/// One tensor of a checkpoint in our layout.
fn read(source: &Source<'_>, format: Format, place: &Place, shape: &[usize]) -> Result<Vec<f32>> {
    let part = |values: Vec<f32>, length: usize| match place.third {
        Some(third) => values[third * length..(third + 1) * length].to_vec(),
        None => values,
    };
    match *shape {
        [inputs, outputs] => {
            let stored = source.numbers(&place.name, &format.stored(place, inputs, outputs))?;
            let stored = part(stored, inputs * outputs);
            Ok((0..inputs * outputs).map(|at| stored[at % outputs * inputs + at / outputs]).collect())
        }
        _ => {
            let length: usize = shape.iter().product();
            let stored = if place.third.is_some() { 3 * length } else { length };
            Ok(part(source.numbers(&place.name, &[stored])?, length))
        }
    }
}

/// An artifact without weights.
fn start<A: Architecture>(architecture: &A, ids: &ItemIds, counts: &[f32]) -> Result<ArtifactBuilder> {
    Ok(ArtifactBuilder::new(A::FAMILY, &config_json(architecture)?, ids, counts))
}

#[cfg(test)]
mod tests;
