//! Placing an item that comes after the training: the way from content into a space that a model keeps.

use std::sync::Arc;

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{Activation, Linear, Operators, Tensor};

use super::{Content, features};
use crate::artifact::Texts;
use crate::{Artifact, ArtifactBuilder, Error, Result};

const VECTORS: [&str; 2] = ["content.vectors.weight", "content.vectors.bias"];
const WORDS: &str = "content.words";
const IDF: &str = "content.idf";
const NAMES: &str = "content.names";
const SLOPE: &str = "content.slope";
const OUT: [&str; 2] = ["content.out.weight", "content.out.bias"];

/// What is known of an item besides who touched it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ItemContent<'a> {
    /// Its vector, where it has one.
    pub vector: Option<&'a [f32]>,
    /// Its attributes ([`crate::corpus::attribute_tokens`]).
    pub attributes: &'a [String],
}

/// Weights on the way from content into a space: y = xW + b + Σ wₜeₜ of a vector x and attributes t with their TF-IDF
/// weights, which is the place, or what lies between: then that is relu(y)W₂ + b₂, the rectifier leaking by a slope.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    vectors: Option<Linear>,
    /// Names, their weights, and e.
    words: Option<(Arc<[String]>, Vec<f32>, Tensor)>,
    out: Option<Linear>,
    slope: f32,
}

impl Way {
    /// A way for such content.
    pub(super) fn new(
        content: &Content,
        vectors: Option<Linear>,
        words: Option<Tensor>,
        out: Option<Linear>,
        slope: f32,
    ) -> Self {
        let known = content.words.as_ref();
        let words = known.zip(words).map(|(known, table)| (Arc::clone(&known.names), known.idf.clone(), table));
        Self { vectors, words, out, slope }
    }

    /// Keeps it in an artifact.
    pub(crate) fn store(&self, builder: &mut ArtifactBuilder) {
        if self.slope != 0.0 {
            builder.f32(SLOPE, &[1], vec![self.slope]);
        }
        let mut put = |name: &str, tensor: &Tensor| {
            builder.f32(name, tensor.shape(), tensor.as_slice().to_vec());
        };
        for (names, layer) in [(VECTORS, &self.vectors), (OUT, &self.out)] {
            let tensors = layer.iter().flat_map(|layer| [Some(&layer.weight), layer.bias.as_ref()]);
            tensors.zip(names).for_each(|(tensor, name)| tensor.into_iter().for_each(|tensor| put(name, tensor)));
        }
        if let Some((names, idf, table)) = &self.words {
            put(WORDS, table);
            builder.f32(IDF, &[idf.len()], idf.clone()).texts(NAMES, names);
        }
    }
}

/// The same, open.
#[derive(Debug)]
pub(crate) struct Placer {
    vectors: Option<Linear>,
    words: Option<Words>,
    out: Option<Linear>,
    slope: f32,
    /// Numbers of a place, and of what lies between, where something does.
    dim: usize,
    hidden: usize,
}

#[derive(Debug)]
struct Words {
    names: Texts,
    idf: Tensor,
    table: Tensor,
}

impl Placer {
    /// What an artifact keeps of a way into a space of so many dimensions; none where it keeps nothing.
    pub(crate) fn open(artifact: &Artifact, dim: usize) -> Result<Option<Self>> {
        let layer = |[weight, bias]: [&str; 2]| -> Result<Option<Linear>> {
            let tensor = |name: &str| artifact.has(name).then(|| artifact.tensor(name)).transpose();
            let (weight, bias) = (tensor(weight)?, tensor(bias)?);
            Ok(weight.map(|weight| Linear { weight, bias }))
        };
        let (vectors, out) = (layer(VECTORS)?, layer(OUT)?);
        let words = match artifact.has(WORDS) {
            true => Some(Words {
                names: artifact.texts(NAMES)?,
                idf: artifact.tensor(IDF)?,
                table: artifact.tensor(WORDS)?,
            }),
            false => None,
        };
        if vectors.is_none() && words.is_none() {
            return Ok(None);
        }
        let hidden = out.as_ref().map_or(dim, |layer| layer.weight.shape().first().copied().unwrap_or(0));
        let slope = if artifact.has(SLOPE) { artifact.tensor_of(SLOPE, &[1])?.as_slice()[0] } else { 0.0 };
        let placer = Self { vectors, words, out, slope, dim, hidden };
        match placer.fits() {
            true => Ok(Some(placer)),
            false => Err(Error::Malformed("the way from content into the space has weights of other sizes".into())),
        }
    }

    fn fits(&self) -> bool {
        let layer = |layer: &Linear, outputs: usize| {
            let [inputs, columns] = *layer.weight.shape() else { return false };
            let bias = layer.bias.as_ref().is_none_or(|bias| bias.shape() == [outputs]);
            inputs > 0 && columns == outputs && bias
        };
        let words = |words: &Words| {
            let count = words.names.len();
            words.names.is_ascending() && words.idf.shape() == [count] && words.table.shape() == [count, self.hidden]
        };
        self.hidden > 0
            && self.vectors.as_ref().is_none_or(|vectors| layer(vectors, self.hidden))
            && self.words.as_ref().is_none_or(words)
            && self.out.as_ref().is_none_or(|out| layer(out, self.dim))
    }

    /// Where content places an item; none where nothing is known of it that this looks at.
    ///
    /// # Errors
    /// [`Error::Data`] of a vector of other dimensions, or with a number that is not finite.
    pub(crate) fn place(&self, item: &ItemContent<'_>) -> Result<Option<Vec<f32>>> {
        let mut hidden = vec![0.0; self.hidden];
        let by_vector = self.add_vector(item, &mut hidden)?;
        let by_words = self.add_words(item, &mut hidden);
        if !by_vector && !by_words {
            return Ok(None);
        }
        let Some(out) = &self.out else { return Ok(Some(hidden)) };
        hidden.iter_mut().filter(|x| **x < 0.0).for_each(|x| *x *= self.slope);
        Ok(Some(linear(&hidden, out)))
    }

    fn add_vector(&self, item: &ItemContent<'_>, hidden: &mut [f32]) -> Result<bool> {
        let Some(layer) = &self.vectors else { return Ok(false) };
        let inputs = layer.weight.rows();
        let mut x = vec![0.0; inputs];
        if let Some(vector) = item.vector {
            if vector.len() != inputs {
                let (given, wanted) = (vector.len(), inputs);
                return Err(Error::Data(format!("the vector has {given} dimensions, those of the training {wanted}")));
            }
            if !vector.iter().all(|x| x.is_finite()) {
                return Err(Error::Data("the vector holds a number that is not finite".into()));
            }
            x.copy_from_slice(vector);
            features::to_unit(&mut x);
        }
        hidden.copy_from_slice(&linear(&x, layer));
        Ok(x.iter().any(|&x| x != 0.0))
    }

    fn add_words(&self, item: &ItemContent<'_>, hidden: &mut [f32]) -> bool {
        let Some(Words { names, idf, table }) = &self.words else { return false };
        let number = |name: &String| names.find(name, 0..names.len());
        let mut known: Vec<u32> = item.attributes.iter().filter_map(number).collect();
        known.sort_unstable();
        known.dedup();
        known.retain(|&word| idf.as_slice()[word as usize] > 0.0);
        let weight = |word: u32| idf.as_slice()[word as usize];
        let norm = known.iter().map(|&word| f64::from(weight(word)).powi(2)).sum::<f64>().sqrt();
        for &word in &known {
            Cpu::new().add_scaled(hidden, (f64::from(weight(word)) / norm) as f32, table.row(word as usize));
        }
        !known.is_empty()
    }
}

/// One row through a layer.
fn linear(x: &[f32], layer: &Linear) -> Vec<f32> {
    Cpu::new().linear(&Matrix::from_slice(x, x.len()), layer, Activation::Identity).as_slice().to_vec()
}
