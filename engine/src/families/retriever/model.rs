//! A fitted projection.

use pgrec_kernels::{Scored, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::projection::Projection;
use super::{NAME, Params};
use crate::content::features::to_unit;
use crate::families::sequential::check_width;
use crate::families::{Model, Training};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, Query, Result};

#[derive(Debug, Serialize, Deserialize)]
struct Config {
    /// Numbers of a query's vector, and of an item's.
    dim: usize,
    rank: usize,
    /// Whether queries are projected at all: what was learnt may have been no better than nothing.
    learnt: bool,
}

/// What [`Retriever::open`] reads.
pub(super) fn artifact(
    params: &Params,
    projection: &Projection<Tensor>,
    dim: usize,
    training: &Training<'_>,
) -> ArtifactBuilder {
    let config = json!(Config { dim, rank: params.rank, learnt: !projection.is_identity() });
    let counts = training.corpus.without_last(training.leave_last).counts();
    let counts: Vec<f32> = counts.into_iter().map(|count| count as f32).collect();
    let mut artifact = ArtifactBuilder::new(NAME, &config, training.corpus.items(), &counts);
    projection.store(&mut artifact, dim, params.rank);
    artifact
}

/// The model.
pub(super) struct Retriever {
    catalogue: Catalogue,
    config: Config,
    projection: Projection<Tensor>,
}

const RANKS_NOTHING: &str =
    "projects queries and ranks nothing: search by what it gives of a query's vector, or train a family that ranks";

impl Retriever {
    /// Opens an artifact of this family.
    ///
    /// # Errors
    /// [`Error::Malformed`] where its weights are not those that its configuration says.
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        if config.dim == 0 {
            return Err(Error::Malformed(format!("{NAME}: there are no vectors of 0 numbers")));
        }
        let projection = match config.learnt {
            true => Projection::open(artifact, config.dim, config.rank)?,
            false => Projection::identity(),
        };
        Ok(Self { catalogue: artifact.catalogue().clone(), config, projection })
    }

    fn unsupported<T>(what: &str) -> Result<T> {
        Err(Error::Unsupported { family: NAME.into(), what: what.into() })
    }
}

impl Model for Retriever {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        0
    }

    /// M q/‖q‖: its product with an item's vector of length 1 is a score. Of a vector of zeros zeros: nothing is nearer to it
    /// than anything else.
    fn project(&self, vector: &[f32]) -> Result<Option<Vec<f32>>> {
        check_width(vector, self.config.dim)?;
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(Error::Parameter("the vector holds a number that is not finite".into()));
        }
        let mut unit = vector.to_vec();
        to_unit(&mut unit);
        Ok(Some(self.projection.project(&unit, self.config.dim)))
    }

    fn recommend(&self, _: &[Query<'_>], _: &Control) -> Result<Vec<Vec<Scored>>> {
        Self::unsupported(RANKS_NOTHING)
    }

    fn score(&self, _: &Query<'_>, _: &[u32]) -> Result<Vec<f32>> {
        Self::unsupported(RANKS_NOTHING)
    }

    fn similar(&self, _: u32, _: &Query<'_>) -> Result<Vec<Scored>> {
        Self::unsupported("does not compare items")
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        Self::unsupported("has no user vectors")
    }

    fn explain(&self, _: &Query<'_>, _: u32) -> Result<Value> {
        Ok(json!({ "dim": self.config.dim, "rank": self.config.rank, "learnt": self.config.learnt }))
    }
}
