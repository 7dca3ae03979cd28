//! From item vectors to codes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::NAME;
use super::model::{Config, Source};
use crate::codes;
use crate::codes::unique::{self, Resolved};
use crate::codes::{
    Codebook, Codes, Decoder, Encoder, Form, Learnt, MOST_WORDS, Options, Quantizer, given, mixture, product, residual,
    rq_vae, statistics,
};
use crate::families::{Fitted, Training, params};
use crate::{ArtifactBuilder, Error, ItemIds, Result};

/// Parameters of the family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Params {
    /// How codebooks are learnt.
    quantizer: Method,
    /// Codes of an item, without the level that `collisions = number` adds.
    levels: usize,
    /// Code words of each level.
    codes: usize,
    /// Iterations of k-means at most.
    iterations: usize,
    /// The network of `rq_vae` and `mixture`.
    network: codes::Training,
    /// What is done with items of one code.
    collisions: Collisions,
}

/// As LC-Rec: four levels of 256.
impl Default for Params {
    fn default() -> Self {
        Self {
            quantizer: Method::Residual,
            levels: 4,
            codes: 256,
            iterations: 50,
            network: codes::Training::default(),
            collisions: Collisions::Nearest,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// Residual k-means.
    Residual,
    /// An autoencoder with residual quantisation.
    RqVae,
    /// Optimised product quantisation.
    Product,
    /// An autoencoder with an expert and a codebook a level.
    Mixture,
    /// None: the vectors are codes.
    Given,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Collisions {
    /// All but one get the nearest code that is free.
    Nearest,
    /// Spread over the last level (uniform semantic mapping).
    Map,
    /// Told apart by a number on one more level.
    Number,
}

pub(super) fn fit(training: &Training<'_>) -> Result<Fitted> {
    let params: Params = params::read(NAME, training.params)?;
    let control = training.control;
    let Vectors { rows, ids, vectors, dim } = Vectors::of(training)?;
    let options =
        Options { levels: params.levels, size: params.codes, iterations: params.iterations, seed: training.seed };
    let (mut learnt, curve) = match params.quantizer {
        Method::Residual => (plain(residual::fit(&vectors, dim, &options, control)?), Vec::new()),
        Method::Product => (product::fit(&vectors, dim, &options, control)?, Vec::new()),
        Method::RqVae => rq_vae::fit(&vectors, dim, &options, &params.network, control)?,
        Method::Given => (plain(given::fit(&vectors, dim)?), Vec::new()),
        Method::Mixture => mixture::fit(&vectors, dim, &options, &params.network, control)?,
    };
    control.enter("telling items apart", 0);
    let coded = learnt.encoder.encode(&vectors, dim)?;
    let mut codes = learnt.quantizer.encode(&coded, control)?;
    let quality = |codes: &Codes<'_>, learnt: &Learnt| -> Result<_> {
        Ok((learnt.error(&vectors, &coded, dim, codes)?, statistics::collisions(codes)))
    };
    let greedy = quality(&codes, &learnt)?;
    if params.collisions == Collisions::Number {
        codes = with_numbers(&mut learnt.quantizer, &codes)?;
    }
    let rounds = if params.collisions == Collisions::Map { unique::ROUNDS } else { 0 };
    let resolved = unique::make_unique(&coded, &learnt.quantizer, &mut codes, rounds, control)?;
    let metrics = metrics(greedy, quality(&codes, &learnt)?, &resolved, &learnt.quantizer, &codes);

    let counts = training.corpus.without_last(training.leave_last).counts();
    let counts: Vec<f32> = rows.iter().map(|&row| counts[row] as f32).collect();
    let source = if training.base.is_some() { Source::Model } else { Source::Embedding };
    let config = Config::new(&learnt.encoder, &learnt.quantizer, dim, source);
    let config = serde_json::to_value(&config).map_err(|e| Error::Malformed(e.to_string()))?;
    let mut artifact = ArtifactBuilder::new(NAME, &config, &ids, &counts);
    super::model::store(&mut artifact, &learnt.encoder, &learnt.quantizer, &codes);
    Ok(Fitted { artifact, curve, metrics: Map::from_iter([("codes".to_owned(), metrics)]) })
}

/// Items that have a vector.
struct Vectors {
    /// Their places in the corpus.
    rows: Vec<usize>,
    ids: ItemIds,
    /// `[items, dim]`
    vectors: Vec<f32>,
    dim: usize,
}

impl Vectors {
    /// Those of the base where there is one, else of the items relation.
    fn of(training: &Training<'_>) -> Result<Self> {
        let items = training.corpus.items();
        let all = training.corpus.vectors();
        let row = |row: usize| match &training.base {
            Some(base) => base.item_vector(base.catalogue().index_of(&items.get(row))?),
            None => all.chunks_exact(training.corpus.vector_dim().max(1)).nth(row),
        };
        let present = |place: &usize| row(*place).is_some_and(|vector| vector.iter().any(|&x| x != 0.0));
        let rows: Vec<usize> = (0..items.len()).filter(present).collect();
        let Some(&first) = rows.first() else { return Err(Error::Data(nothing(training))) };
        let dim = row(first).map_or(0, <[f32]>::len);
        let ids = ItemIds::from_ids(rows.iter().map(|&row| items.get(row)).collect())?;
        let vectors = rows.iter().filter_map(|&place| row(place)).flatten().copied().collect();
        Ok(Self { rows, ids, vectors, dim })
    }
}

fn nothing(training: &Training<'_>) -> String {
    match &training.base {
        Some(_) => "the base model has no vectors of these items: name one that has, such as a model of family sasrec",
        None => {
            "no item has a vector: bind an embedding column of the items, or name a model whose item vectors to use as \"base\""
        }
    }
    .to_owned()
}

/// One more level, with room for a third more items of one code than there are, or for as many as other levels have words.
fn with_numbers(quantizer: &mut Quantizer, codes: &Codes<'_>) -> Result<Codes<'static>> {
    let order = codes.order();
    let same = |a: &u32, b: &u32| codes.item(*a as usize) == codes.item(*b as usize);
    let largest = order.chunk_by(same).map(<[u32]>::len).max().unwrap_or(0);
    let others = quantizer.codebooks.iter().map(|codebook| codebook.size).max().unwrap_or(2);
    let size = (largest + largest / 3).max(others);
    if size > MOST_WORDS {
        return Err(Error::Data(format!("{largest} items have one code: raise levels or codes")));
    }
    let width = if quantizer.form == Form::Residual { quantizer.dim() } else { 0 };
    quantizer.codebooks.push(Codebook::blank(size, width));
    let of = (0..codes.len()).flat_map(|item| codes.item(item).iter().copied().chain([0])).collect::<Vec<u16>>().into();
    Ok(Codes { levels: codes.levels + 1, of })
}

/// Codebooks of the vectors themselves.
fn plain(quantizer: Quantizer) -> Learnt {
    Learnt { encoder: Encoder::default(), quantizer, decoder: Decoder::Same }
}

/// Each quality is the error, and how many items have a code that is also another's.
fn metrics(
    greedy: (f64, usize),
    unique: (f64, usize),
    resolved: &Resolved,
    quantizer: &Quantizer,
    codes: &Codes<'_>,
) -> Value {
    let levels = statistics::levels(codes, &quantizer.sizes());
    json!({
        "items": codes.len(),
        "greedy_collisions": greedy.1,
        "mapped": resolved.mapped,
        "placed": resolved.placed,
        "collisions": unique.1,
        "greedy_error": greedy.0,
        "error": unique.0,
        "used": levels.iter().map(|level| level.used).collect::<Vec<_>>(),
        "entropy": levels.iter().map(|level| level.entropy).collect::<Vec<_>>(),
        "balance": levels.iter().map(|level| level.balance).collect::<Vec<_>>(),
    })
}
