//! Ranking by an item's own vector beside its codes.
//!
//! What is generated and what the history's vector is nearest to are candidates together, and each is scored by both:
//! log p of its codes, and its cosine over τ (a dense retriever beside a generative one: LIGER, Yang et al. 2024).

use std::collections::HashMap;

use pgrec_kernels::{Device, Filter, Scored, Tensor};

use super::Generative;
use super::decode::Width;
use crate::families::sequential::best;
use crate::{Control, Query, Result};

impl Generative {
    /// The best items of each query by both, of as many candidates of either kind as there are beams.
    pub(super) fn fused(
        &self,
        device: &impl Device,
        (items, states): (&Tensor, &[f32]),
        queries: &[Query<'_>],
        width: Width,
        control: &Control,
    ) -> Result<Vec<Vec<Scored>>> {
        let wanted: Vec<Query<'_>> =
            queries.iter().map(|query| Query { k: query.k.max(width.beams), ..*query }).collect();
        let generated = self.ranked(device, states, &wanted, width, control)?;
        let vectors = self.vectors(device, states)?;
        let k: Vec<usize> = wanted.iter().map(|query| query.k.min(items.rows())).collect();
        let filters: Vec<Filter<'_>> = queries.iter().map(|query| query.filter).collect();
        let near = device.top_k(&vectors, items, &k, &filters)?;
        let mut codes: Vec<HashMap<u32, f32>> =
            generated.iter().map(|list| list.iter().map(|g| (g.found.item, g.found.score)).collect()).collect();
        let missing: Vec<Vec<u32>> = near
            .iter()
            .zip(&codes)
            .map(|(near, codes)| sorted(near.iter().map(|s| s.item).filter(|item| !codes.contains_key(item))))
            .collect();
        for (codes, more) in codes.iter_mut().zip(self.by_codes(device, states, &missing, width, control)?) {
            codes.extend(more);
        }
        let all: Vec<Vec<u32>> = codes.iter().map(|codes| sorted(codes.keys().copied())).collect();
        let own = self.by_vectors(device, (items, &vectors), &all)?;
        let list = |((codes, own), query): ((&HashMap<u32, f32>, Vec<Scored>), &Query<'_>)| {
            let sum = |own: Scored| Scored { item: own.item, score: own.score + codes[&own.item] };
            best(own.into_iter().map(sum).collect(), query.k)
        };
        Ok(codes.iter().zip(own).zip(queries).map(list).collect())
    }

    /// log p of the codes of some items of each query, ascending.
    pub(super) fn by_codes(
        &self,
        device: &impl Device,
        states: &[f32],
        items: &[Vec<u32>],
        width: Width,
        control: &Control,
    ) -> Result<Vec<Vec<(u32, f32)>>> {
        let queries = items.iter().map(|items| {
            let filter = Filter { exclude: &[], candidates: Some(items) };
            Query { k: items.len(), filter, ..Query::default() }
        });
        let queries: Vec<Query<'_>> = queries.collect();
        let width = Width { beams: usize::MAX, together: width.rows, ..width };
        let found = self.ranked(device, states, &queries, width, control)?;
        Ok(found.into_iter().map(|list| list.into_iter().map(|g| (g.found.item, g.found.score)).collect()).collect())
    }

    /// The weighted cosines over τ of some items of each query, ascending, with the queries' vectors.
    pub(super) fn by_vectors(
        &self,
        device: &impl Device,
        (table, vectors): (&Tensor, &[f32]),
        items: &[Vec<u32>],
    ) -> Result<Vec<Vec<Scored>>> {
        let weight = (self.config.fusion / self.config.temperature) as f32;
        let k: Vec<usize> = items.iter().map(Vec::len).collect();
        let filters: Vec<Filter<'_>> =
            items.iter().map(|items| Filter { exclude: &[], candidates: Some(items) }).collect();
        let mut found = device.top_k(vectors, table, &k, &filters)?;
        found.iter_mut().flatten().for_each(|scored| scored.score *= weight);
        Ok(found)
    }

    /// The vectors by which items are found, `[queries, dim]`.
    pub(super) fn vectors(&self, device: &impl Device, states: &[f32]) -> Result<Vec<f32>> {
        let vectors = device.l2_normalize(&device.upload(states, self.config.body.dim)?);
        Ok(device.download(&vectors)?.into_owned())
    }
}

fn sorted(items: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut items: Vec<u32> = items.collect();
    items.sort_unstable();
    items
}
