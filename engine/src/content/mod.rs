//! What is known of items besides who touched them, and the network that places them by it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::families::Needs;
use crate::{Corpus, Error, Result};

pub(crate) mod features;
mod network;
mod placer;
mod projection;

use features::Features;
pub(crate) use network::{Form, Learner, Network};
pub use placer::ItemContent;
pub(crate) use placer::{Placer, Way};
pub(crate) use projection::Projection;

/// Which of what is known of items is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Use {
    /// Nothing.
    #[default]
    None,
    /// Their vectors.
    Embedding,
    /// Their attributes.
    Attributes,
    /// Vectors and attributes.
    Both,
}

impl Use {
    pub(crate) fn vectors(self) -> bool {
        matches!(self, Self::Embedding | Self::Both)
    }

    pub(crate) fn attributes(self) -> bool {
        matches!(self, Self::Attributes | Self::Both)
    }
}

/// What has to be read of items by the parameter `features`; one that cannot be read is complained of when the model is
/// fitted.
pub(crate) fn needs(params: &Value) -> Needs {
    let features = params.get("features").cloned().and_then(|features| serde_json::from_value(features).ok());
    let features: Use = features.unwrap_or_default();
    Needs { attributes: features.attributes(), vectors: features.vectors(), ..Needs::NOTHING }
}

/// Items by their content: what a network is given.
#[derive(Debug, Default)]
pub(crate) struct Content {
    vectors: Option<Vectors>,
    words: Option<Words>,
}

/// `[items, dim]`, each of length 1 or 0.
#[derive(Debug)]
struct Vectors {
    dim: usize,
    rows: Vec<f32>,
}

/// Attributes with their TF-IDF weights.
#[derive(Debug)]
struct Words {
    /// What they are called, ascending.
    names: Arc<[String]>,
    /// What each weighs before an item's are brought to length 1.
    idf: Vec<f32>,
    /// Where each item's begin, and the end of the last.
    offsets: Vec<u64>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
}

impl Content {
    /// What a corpus has of its items; `None` where nothing is wanted.
    ///
    /// # Errors
    /// [`Error::Data`] where the items do not have what is wanted.
    pub(crate) fn of(corpus: &Corpus, wanted: Use) -> Result<Option<Self>> {
        if wanted == Use::None {
            return Ok(None);
        }
        let mut content = Self::default();
        if wanted.vectors()
            && let Features::Vectors { dim, rows } = Features::vectors(corpus)?
        {
            content.vectors = Some(Vectors { dim, rows });
        }
        if wanted.attributes()
            && let Features::Attributes { offsets, tokens, weights } = Features::attributes(corpus)?
        {
            let idf = features::idf(corpus).into_iter().map(|x| x as f32).collect();
            content.words = Some(Words { names: Arc::clone(corpus.vocabulary()), idf, offsets, tokens, weights });
        }
        let nothing = (0..corpus.items().len()).all(|item| !content.knows(item));
        match nothing {
            true => Err(Error::Data("nothing is known of any item that would tell it from others".into())),
            false => Ok(Some(content)),
        }
    }

    /// Items that something is known of, ascending: those that somebody has touched, and the others.
    pub(crate) fn parted(&self, counts: &[f32]) -> (Vec<u32>, Vec<u32>) {
        let known = (0..counts.len() as u32).filter(|&item| self.knows(item as usize));
        known.partition(|&item| counts[item as usize] > 0.0)
    }

    /// Bytes of what a corpus has.
    pub(crate) fn bytes(corpus: &Corpus, wanted: Use) -> usize {
        let vectors = if wanted.vectors() { corpus.vectors().len() } else { 0 };
        let words = if wanted.attributes() { 3 * corpus.attributes().len() } else { 0 };
        (vectors + words).saturating_mul(size_of::<f32>())
    }

    /// Numbers of a vector, and attributes that there are: what a layer's weights are for.
    pub(crate) fn inputs(corpus: &Corpus, wanted: Use) -> usize {
        let vectors = if wanted.vectors() { corpus.vector_dim() } else { 0 };
        vectors + if wanted.attributes() { corpus.vocabulary().len() } else { 0 }
    }

    /// An item's attributes and their weights.
    #[cfg(test)]
    pub(crate) fn words_of(&self, item: usize) -> (&[u32], &[f32]) {
        self.words.as_ref().map_or((&[], &[]), |words| words.of(item))
    }

    /// Whether anything is known of an item.
    pub(crate) fn knows(&self, item: usize) -> bool {
        let vector = self.vectors.as_ref().is_some_and(|v| v.row(item).iter().any(|&x| x != 0.0));
        vector || self.words.as_ref().is_some_and(|words| !words.of(item).0.is_empty())
    }
}

impl Vectors {
    fn row(&self, item: usize) -> &[f32] {
        &self.rows[item * self.dim..][..self.dim]
    }
}

impl Words {
    /// How many there are.
    fn count(&self) -> usize {
        self.names.len()
    }

    fn of(&self, item: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[item] as usize..self.offsets[item + 1] as usize;
        (&self.tokens[range.clone()], &self.weights[range])
    }
}

#[cfg(test)]
mod tests;
