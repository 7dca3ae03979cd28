//! The vectors of a model that is trained in the run: those of its items to be searched, of its users to search with.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use pgrec_benches::{Server, Training};
use safetensors::SafeTensors;
use xtask::{Dataset, Progress};

use crate::method::Metric;
use crate::vectors::Vectors;

/// A few epochs, after which items lie as they do later.
const PARAMS: &str = r#"{"epochs": 6}"#;
/// Item vectors in an exported model: the first of these that it has is what scores are made of.
const TABLES: [&str; 2] = ["scored_items", "items"];

/// Item vectors, and the vectors of so many users, of a SASRec on the data in a folder; a score is their inner product.
pub fn vectors(folder: &Path, users: usize, server: &Server, progress: &Progress) -> Result<Vectors> {
    const DATABASE: &str = "ann_model";
    let mut data = Dataset::load(folder)?;
    data.items.iter_mut().for_each(|item| item.embedding = None);
    server.load(progress, DATABASE, &data)?;
    let training = Training { model: "m", family: "sasrec", params: PARAMS, memory: None };
    server.train(progress, DATABASE, &training)?;
    let items = server.ask(DATABASE, "SELECT encode(rec_export('m', 'shop'), 'hex')")?;
    let rows = item_vectors(&bytes(&items)?)?;
    let queries = server.ask(
        DATABASE,
        &format!(
            "SELECT rec_encode(user_id, model => 'm', recommender => 'shop')
             FROM (SELECT DISTINCT user_id FROM shop.interaction) u ORDER BY hashint8(user_id) LIMIT {users}"
        ),
    )?;
    let queries = queries.lines().map(|line| serde_json::from_str(line).with_context(|| format!("\"{line}\"")));
    let queries = queries.collect::<Result<_>>().context("reading users' vectors")?;
    server.ask("postgres", &format!("DROP DATABASE {DATABASE}"))?;
    Ok(Vectors { metric: Metric::InnerProduct, rows, queries })
}

fn item_vectors(model: &[u8]) -> Result<Vec<Vec<f32>>> {
    let tensors = SafeTensors::deserialize(model).context("reading the exported model")?;
    let table = TABLES.iter().find_map(|name| tensors.tensor(name).ok());
    let table = table.with_context(|| format!("no item vectors among {:?}", tensors.names()))?;
    let width = table.shape().last().copied().filter(|&width| width > 0).context("item vectors of no length")?;
    let numbers: Vec<f32> = table.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(numbers.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let (pairs, rest) = hex.trim().as_bytes().as_chunks::<2>();
    ensure!(rest.is_empty(), "an odd number of hexadecimal digits");
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| Some((16 * digit(high)? + digit(low)?) as u8);
    pairs.iter().map(byte).collect::<Option<_>>().context("no hexadecimal digits")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    #[test]
    fn bytes_are_read_from_hexadecimal_digits() {
        assert_eq!(bytes("00ff1A\n").unwrap(), [0, 255, 26]);
        assert!(bytes("0").is_err() && bytes("0x").is_err());
    }

    #[test]
    fn the_vectors_that_scores_are_made_of_win_over_those_that_were_learnt() {
        let table = |numbers: &[f32]| -> Vec<u8> { numbers.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let (learnt, scored) = (table(&[2.0, 0.0, 0.0, 4.0]), table(&[1.0, 0.0, 0.0, 1.0]));
        let view = |bytes| TensorView::new(Dtype::F32, vec![2, 2], bytes).unwrap();
        let plain = safetensors::serialize([("items", view(&learnt))], None).unwrap();
        assert_eq!(item_vectors(&plain).unwrap(), [[2.0, 0.0], [0.0, 4.0]]);
        let both = safetensors::serialize([("items", view(&learnt)), ("scored_items", view(&scored))], None).unwrap();
        assert_eq!(item_vectors(&both).unwrap(), [[1.0, 0.0], [0.0, 1.0]]);
        let none = safetensors::serialize([("other", view(&learnt))], None).unwrap();
        assert!(item_vectors(&none).is_err());
    }
}
