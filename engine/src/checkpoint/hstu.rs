//! HSTU checkpoints: the names of the authors' research code.

use pgrec_kernels::TIME_BUCKETS;

use super::formats::Params;
use super::source::Source;
use super::{order, start};
use crate::families::hstu::{Config, PADDING};
use crate::families::neighbours::{SEGMENT_ABOVE, add_segment};
use crate::families::sequential::{Architecture, ITEMS, SCORED, unit_rows};
use crate::{ArtifactBuilder, Control, Error, ItemId, Result};

/// What stands before all names where the model was trained on several devices.
const PREFIXES: [&str; 2] = ["", "module."];
const TABLE: &str = "_embedding_module._item_emb.weight";
const POSITIONS: &str = "_input_features_preproc._pos_emb.weight";

/// The names of a checkpoint of HSTU.
pub(super) struct Names {
    prefix: &'static str,
}

impl Names {
    /// None where a file is not one.
    pub(super) fn recognise(source: &Source<'_>) -> Option<Self> {
        let known = |prefix: &&str| source.has(&format!("{prefix}{TABLE}")) && source.has(&layer(prefix, 0, "_uvqk"));
        PREFIXES.into_iter().find(known).map(|prefix| Self { prefix })
    }

    fn table(&self) -> String {
        format!("{}{TABLE}", self.prefix)
    }

    fn positions(&self) -> String {
        format!("{}{POSITIONS}", self.prefix)
    }

    fn layer(&self, block: usize, part: &str) -> String {
        layer(self.prefix, block, part)
    }

    /// The configuration, from the shapes.
    fn config(&self, source: &Source<'_>, params: &Params) -> Result<(Config, usize)> {
        let rectangle = |name: &str| match source.shape(name)?.as_slice() {
            &[rows, cols] => Ok((rows, cols)),
            other => Err(Error::Malformed(format!("tensor \"{name}\" is not a matrix: {other:?}"))),
        };
        let (table_rows, dim) = rectangle(&self.table())?;
        let (padded, _) = rectangle(&self.positions())?;
        let (_, projected) = rectangle(&self.layer(0, "_uvqk"))?;
        let (_, values) = rectangle(&self.layer(0, "_o.weight"))?;
        let (heads, queries) = (params.heads.unwrap_or(1), (projected / 2).saturating_sub(values));
        if heads == 0 || !values.is_multiple_of(heads) || !queries.is_multiple_of(heads) {
            let why = format!("{heads} heads do not divide queries of {queries} and values of {values}");
            return Err(Error::Parameter(why));
        }
        let config = Config {
            dim,
            blocks: source.blocks(&format!("{}_hstu._attention_layers.", self.prefix)),
            heads,
            query_dim: queries / heads,
            value_dim: values / heads,
            window: params.window.unwrap_or(padded.saturating_sub(PADDING).max(1)),
            padded,
            times: source.has(&self.layer(0, "_rel_attn_bias._ts_w")),
            norm_eps: params.norm_eps.unwrap_or(1e-6),
        };
        config.check()?;
        Ok((config, table_rows))
    }
}

fn layer(prefix: &str, block: usize, part: &str) -> String {
    format!("{prefix}_hstu._attention_layers.{block}.{part}")
}

pub(super) fn import(
    names: &Names,
    source: &Source<'_>,
    rows: &[Option<ItemId>],
    params: &Params,
    control: &Control,
) -> Result<ArtifactBuilder> {
    let (config, table_rows) = names.config(source, params)?;
    let Config { dim, padded, .. } = config;
    let (ids, order) = order(rows, params.first_row.unwrap_or(1), table_rows)?;
    let table = source.numbers(&names.table(), &[table_rows, dim])?;
    let items: Vec<f32> = order.iter().flat_map(|&row| &table[row * dim..(row + 1) * dim]).copied().collect();
    let scored = unit_rows(&items, dim);

    let mut builder = start(&config, &ids, &vec![0.0; ids.len()])?;
    builder.f32(ITEMS, &[ids.len(), dim], items);
    builder.f32("positions", &[padded, dim], source.numbers(&names.positions(), &[padded, dim])?);
    builder.f32(SCORED, &[ids.len(), dim], scored.clone());
    let (queries, values) = (config.heads * config.query_dim, config.heads * config.value_dim);
    for block in 0..config.blocks {
        let projected = 2 * (queries + values);
        let all = source.numbers(&names.layer(block, "_uvqk"), &[dim, projected])?;
        let mut first = 0;
        for (part, width) in [("gate", values), ("value", values), ("query", queries), ("key", queries)] {
            let columns = all.chunks_exact(projected).flat_map(|row| &row[first..first + width]).copied().collect();
            builder.f32(&format!("blocks.{block}.{part}.weight"), &[dim, width], columns);
            first += width;
        }
        // PyTorch's layers are `[outputs, inputs]`.
        let output = source.numbers(&names.layer(block, "_o.weight"), &[dim, values])?;
        let transposed = (0..values * dim).map(|at| output[at % dim * values + at / dim]).collect();
        builder.f32(&format!("blocks.{block}.output.weight"), &[values, dim], transposed);
        let mut vector = |ours: &str, theirs: &str, len: usize| {
            builder.f32(
                &format!("blocks.{block}.{ours}"),
                &[len],
                source.numbers(&names.layer(block, theirs), &[len])?,
            );
            Ok::<(), Error>(())
        };
        vector("output.bias", "_o.bias", dim)?;
        vector("position_bias", "_rel_attn_bias._pos_w", 2 * padded - 1)?;
        if config.times {
            vector("time_bias", "_rel_attn_bias._ts_w", TIME_BUCKETS)?;
        }
    }
    add_segment(&mut builder, &scored, dim, params.segment_above.unwrap_or(SEGMENT_ABOVE), control)?;
    Ok(builder)
}
