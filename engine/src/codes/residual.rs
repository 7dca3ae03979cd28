//! Residual k-means: each level's code words are the means of what the levels before have left.

use super::means::means;
use super::quantizer::subtract;
use super::{Form, Options, Quantizer};
use crate::random::SplitMix;
use crate::{Control, Result};

/// Learns codebooks from `vectors` (`[n, dim]`), level by level.
///
/// # Errors
/// [`crate::Error::Data`] where there are no vectors, [`crate::Error::Parameter`] for levels or sizes without meaning.
pub fn fit(vectors: &[f32], dim: usize, options: &Options, control: &Control) -> Result<Quantizer> {
    options.check(vectors, dim)?;
    let mut random = SplitMix::new(options.seed);
    let mut rest = vectors.to_vec();
    let mut codebooks = Vec::with_capacity(options.levels);
    control.enter("learning codebooks", options.levels as u64);
    for _ in 0..options.levels {
        let codebook = means(&rest, dim, options, &mut random, control)?;
        subtract(&mut rest, &codebook, control)?;
        codebooks.push(codebook);
        control.advance(1)?;
    }
    Ok(Quantizer { form: Form::Residual, codebooks })
}
