//! Parameters of how items are known by their content beside their own vectors.

use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::content::{Content, Use};
use crate::families::Training;
use crate::train::ByContent;
use crate::{Error, Result};

/// The parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Parameters {
    /// What is known of items by which they are placed too: those that nobody has touched by nothing else.
    features: Use,
    /// Share of the items that a step knows by their content alone.
    content_dropout: f64,
    /// Learning rate of the projection of content, as a multiple of that of all else.
    content_rate: f64,
    /// Its decoupled weight decay.
    content_decay: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { features: Use::None, content_dropout: 0.0, content_rate: 1.0, content_decay: 0.0 }
    }
}

/// What is learnt of the items' content.
pub(super) struct Items {
    content: Content,
    parameters: Parameters,
    bytes: usize,
}

impl Items {
    /// What a corpus has, where it is wanted.
    pub(super) fn of<A: Architecture>(
        architecture: &A,
        training: &Training<'_>,
        parameters: Parameters,
    ) -> Result<Option<Self>> {
        let Parameters { features, content_dropout, content_rate, content_decay } = parameters;
        if !(0.0..1.0).contains(&content_dropout) {
            return Err(Error::Parameter("content_dropout is a share, from 0 to below 1".into()));
        }
        if !(content_rate.is_finite() && content_rate > 0.0 && content_decay.is_finite() && content_decay >= 0.0) {
            return Err(Error::Parameter("content_rate is a number above 0, content_decay one from 0 on".into()));
        }
        if features != Use::None && (architecture.outcomes() > 0 || training.start.is_some()) {
            let why = "features are for families that rank, and not together with init: their projection begins anew";
            return Err(Error::Parameter(why.into()));
        }
        // The content, and of the projection weights, two means, what it was, and derivatives.
        let inputs = Content::inputs(training.corpus, features).saturating_mul(architecture.dim());
        let bytes = inputs.saturating_mul(5 * size_of::<f32>());
        let bytes = bytes.saturating_add(Content::bytes(training.corpus, features));
        Ok(Content::of(training.corpus, features)?.map(|content| Self { content, parameters, bytes }))
    }

    /// What the training loop is told.
    pub(super) fn by<'a>(&'a self, counts: &'a [f32]) -> ByContent<'a> {
        let Parameters { content_dropout, content_rate, content_decay, .. } = self.parameters;
        let (dropout, rate, decay) = (content_dropout, content_rate, content_decay);
        ByContent { content: &self.content, counts, dropout, rate, decay, bytes: self.bytes }
    }
}
