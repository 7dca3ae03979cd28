//! A sequence encoder's checkpoint made of random numbers, so that there is one without real data.

use std::collections::BTreeMap;
use std::fmt::Write;

use safetensors::tensor::{Dtype, TensorView};

use crate::random::Random;

const DIM: usize = 16;
const INNER: usize = 32;
const BLOCKS: usize = 2;
const WINDOW: usize = 20;

/// The tensors of a checkpoint in the naming of the BERT-like recommenders: two post-norm blocks, two heads.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// How many items; item n is row n, row 0 is padding, the last row a mask token.
    pub items: usize,
    /// Shape and values by name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Encoder {
    /// Random weights: the same for the same seed.
    #[must_use]
    pub fn new(seed: u64, items: usize) -> Self {
        let mut random = Random::new(seed);
        let mut layers = vec![
            ("item_embeddings.weight".to_owned(), vec![items + 2, DIM], 1.0, 0.0),
            ("position_embeddings.weight".to_owned(), vec![WINDOW, DIM], 0.5, 0.0),
        ];
        layers.extend(norm("LayerNorm"));
        for block in 0..BLOCKS {
            let layer = format!("item_encoder.layer.{block}");
            layers.extend(norm(&format!("{layer}.attention.LayerNorm")));
            layers.extend(norm(&format!("{layer}.intermediate.LayerNorm")));
            for name in ["query", "key", "value", "dense"] {
                layers.extend(linear(&format!("{layer}.attention.{name}"), DIM, DIM));
            }
            layers.extend(linear(&format!("{layer}.intermediate.dense_1"), DIM, INNER));
            layers.extend(linear(&format!("{layer}.intermediate.dense_2"), INNER, DIM));
        }
        let tensors = layers.into_iter().map(|(name, shape, scale, around)| {
            let values = (0..shape.iter().product()).map(|_| around + scale * random.signed()).collect();
            (name, (shape, values))
        });
        let tensors = tensors.collect();
        Self { items, tensors }
    }

    /// The file.
    ///
    /// # Panics
    /// When a shape does not fit its values.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let data: Vec<Vec<u8>> =
            self.tensors.values().map(|(_, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let views = self.tensors.iter().zip(&data).map(|((name, (shape, _)), bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    /// The statement that imports it under a name.
    #[must_use]
    pub fn import_sql(&self, name: &str, leave_last: u32) -> String {
        format!(
            "SELECT rec_import('{name}', {}, {}::bigint[], leave_last => {leave_last}, recommender => 'shop');",
            hex(&self.bytes()),
            array(1..=self.items)
        )
    }
}

/// A tensor to be: name, shape, and how far its values are from a mean.
type Layer = (String, Vec<usize>, f32, f32);

fn norm(layer: &str) -> [Layer; 2] {
    [(format!("{layer}.weight"), vec![DIM], 0.1, 1.0), (format!("{layer}.bias"), vec![DIM], 0.1, 0.0)]
}

/// Stored `[outputs, inputs]`, as PyTorch does.
fn linear(layer: &str, inputs: usize, outputs: usize) -> [Layer; 2] {
    [(format!("{layer}.weight"), vec![outputs, inputs], 0.4, 0.0), (format!("{layer}.bias"), vec![outputs], 0.1, 0.0)]
}

/// Bytes as an SQL literal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len() + 16);
    text.push_str("'\\x");
    bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap_or_default());
    text.push_str("'::bytea");
    text
}

/// An array as an SQL literal.
pub fn array<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("'{{{}}}'", values.join(","))
}
