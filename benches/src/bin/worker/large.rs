//! A trained network with a catalogue many times as large as the one it was trained on.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use pgrec_benches::Server;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use xtask::Progress;
use xtask::generate::Random;

/// Standard deviation of what is added to a vector, in that of its own numbers. New items lie around those that were
/// learnt as these lie around each other; vectors without any order would make a graph for nobody.
const BLUR: f32 = 0.3;

/// Gives the recommender in `to` the model of the one in `from`, over items 1 to `items`, whose vectors are those of the
/// model's items, blurred.
///
/// # Errors
/// When the model cannot be exported, read or imported.
pub fn import(server: &Server, progress: &Progress, from: &str, to: &str, model: &str, items: usize) -> Result<()> {
    let path = |name: &str| server.cluster.dir().join(name);
    let (small, large) = (path("model.safetensors"), path("large.safetensors"));
    server.ask(
        from,
        &format!(
            "SELECT lo_from_bytea(1, rec_export('{model}')); SELECT lo_export(1, '{}'); SELECT lo_unlink(1)",
            small.display()
        ),
    )?;
    progress.step("blurring the model's item vectors", |_| enlarge(&small, &large, items))?;
    progress.step("importing them, which weaves the item index", |_| {
        let import = format!("SELECT rec_import_file('{model}', '{}', NULL::bigint[])", large.display());
        server.ask(to, &format!("SET client_min_messages = warning; {import}")).map(drop)
    })
}

fn enlarge(from: &Path, to: &Path, items: usize) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let about: Option<HashMap<String, String>> = metadata.metadata().clone();
    let model = SafeTensors::deserialize(&bytes)?;
    if model.tensor("scored_items").is_ok() {
        bail!("the large catalogue is made for families that score by the vectors that they read, such as sasrec");
    }
    let table = model.tensor("items")?;
    let dim = *table.shape().get(1).context("the item table has no second dimension")?;
    let vectors = little(&blurred(&numbers(table.data()), dim, items));
    let ids: Vec<u8> = (1..=items as i64).flat_map(i64::to_le_bytes).collect();
    let counts = little(&vec![1.0; items]);
    let mut tensors: Vec<(String, TensorView<'_>)> = model
        .iter()
        .filter(|(name, _)| !["items", "ids", "counts"].contains(name))
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .collect();
    tensors.push(("items".into(), TensorView::new(Dtype::F32, vec![items, dim], &vectors)?));
    tensors.push(("ids".into(), TensorView::new(Dtype::I64, vec![items], &ids)?));
    tensors.push(("counts".into(), TensorView::new(Dtype::F32, vec![items], &counts)?));
    let written = || format!("writing {}", to.display());
    safetensors::serialize_to_file(tensors, about, to).with_context(written)?;
    // The server may be another user.
    std::fs::set_permissions(to, Permissions::from_mode(0o644)).with_context(written)
}

fn blurred(table: &[f32], dim: usize, rows: usize) -> Vec<f32> {
    let spread = (table.iter().map(|x| x * x).sum::<f32>() / table.len() as f32).sqrt();
    let mut random = Random::new(23);
    let mut vectors = Vec::with_capacity(rows * dim);
    for row in 0..rows {
        let near = row % (table.len() / dim) * dim;
        vectors.extend(table[near..near + dim].iter().map(|x| x + BLUR * spread * random.normal() as f32));
    }
    vectors
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn little(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn new_items_lie_around_those_that_were_learnt() {
        let table = [1.0, 0.0, 0.0, 10.0];
        let vectors = blurred(&table, 2, 100);
        assert_eq!(vectors.len(), 200);
        for (row, vector) in vectors.chunks(2).enumerate() {
            let away = (vector[0] - table[row % 2 * 2]).hypot(vector[1] - table[row % 2 * 2 + 1]);
            assert!(away > 0.0 && away < 10.0, "{away}");
        }
    }
}
