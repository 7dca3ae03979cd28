//! A fitted graph, used where it lies in the artifact.

use pgrec_kernels::{Filter, Scored, Tensor};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::edges::{Edges, EdgesView};
use super::rings::{Lists, best};
use super::stages::{Anchor, Ring, fill, list_score};
use super::{Config, NAME};
use crate::artifact::Shared;
use crate::content::features::{Features, FeaturesView};
use crate::families::{Model, popularity};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, Query, Result};

/// Name of what likeness is computed from, as in the parameter `similarity`.
pub(super) fn kind(features: &Features) -> &'static str {
    match features {
        Features::None => "none",
        Features::Attributes { .. } => "attributes",
        Features::Vectors { .. } => "vector",
    }
}

/// Writes the tensors that [`Graph::open`] reads.
pub(super) fn write(artifact: &mut ArtifactBuilder, edges: Edges, features: Features, one: Lists, two: Lists) {
    artifact.u64("edges.offsets", edges.offsets).u32("edges.items", edges.items).u32("edges.counts", edges.counts);
    for (name, lists) in [("ring1", one), ("ring2", two)] {
        let shape = [lists.scores.len()];
        artifact.u64(&format!("{name}.offsets"), lists.offsets).u32(&format!("{name}.items"), lists.items).f32(
            &format!("{name}.scores"),
            &shape,
            lists.scores,
        );
    }
    match features {
        Features::None => {}
        Features::Attributes { offsets, tokens, weights } => {
            let shape = [weights.len()];
            artifact.u64("attributes.offsets", offsets).u32("attributes.tokens", tokens).f32(
                "attributes.weights",
                &shape,
                weights,
            );
        }
        Features::Vectors { dim, rows } => {
            artifact.f32("vectors", &[rows.len() / dim, dim], rows);
        }
    }
}

/// One list of indices an item.
struct Rows {
    offsets: Shared<u64>,
    items: Shared<u32>,
}

impl Rows {
    fn open(artifact: &Artifact, name: &str, items: &str, below: usize) -> Result<Self> {
        let rows = artifact.catalogue().len();
        let wrong = || Error::Malformed(format!("lists \"{name}\" of the artifact are inconsistent"));
        let offsets = artifact.u64s(&format!("{name}.offsets"))?;
        let items = artifact.u32s(&format!("{name}.{items}"))?;
        let spans = offsets.len() == rows + 1 && offsets[0] == 0 && offsets[rows] == items.len() as u64;
        if !spans || !offsets.is_sorted() || !items.iter().all(|&item| (item as usize) < below) {
            return Err(wrong());
        }
        Ok(Self { offsets, items })
    }

    fn range(&self, item: u32) -> std::ops::Range<usize> {
        self.offsets[item as usize] as usize..self.offsets[item as usize + 1] as usize
    }
}

/// A ring of every item.
struct RingLists {
    rows: Rows,
    scores: Tensor,
}

impl RingLists {
    fn open(artifact: &Artifact, name: &str) -> Result<Self> {
        let rows = Rows::open(artifact, name, "items", artifact.catalogue().len())?;
        Ok(Self { scores: finite(artifact, &format!("{name}.scores"), rows.items.len())?, rows })
    }

    fn of(&self, item: u32) -> (&[u32], &[f32]) {
        let range = self.rows.range(item);
        (&self.rows.items[range.clone()], &self.scores.as_slice()[range])
    }
}

/// What likeness is computed from.
enum Likeness {
    None,
    Attributes(Rows, Tensor),
    Vectors(Tensor),
}

fn finite(artifact: &Artifact, name: &str, len: usize) -> Result<Tensor> {
    let tensor = artifact.tensor_of(name, &[len])?;
    if !tensor.as_slice().iter().all(|x| x.is_finite()) {
        return Err(Error::Malformed(format!("tensor \"{name}\" holds a number that is not finite")));
    }
    Ok(tensor)
}

/// The model.
pub(super) struct Graph {
    catalogue: Catalogue,
    config: Config,
    edges: Rows,
    edge_counts: Shared<u32>,
    one: RingLists,
    two: RingLists,
    likeness: Likeness,
}

impl Graph {
    pub(super) fn open(artifact: &Artifact) -> Result<Self> {
        let config: Config = artifact.config()?;
        let catalogue = artifact.catalogue().clone();
        if config.budgets.len() != config.variant.default_budgets().len() {
            return Err(Error::Malformed("the graph's budgets are not those of its variant".into()));
        }
        let edges = Rows::open(artifact, "edges", "items", catalogue.len())?;
        let edge_counts = artifact.u32s("edges.counts")?;
        if edge_counts.len() != edges.items.len() {
            return Err(Error::Malformed("the graph has edges without a count".into()));
        }
        let likeness = match config.similarity.as_str() {
            "attributes" => {
                let rows = Rows::open(artifact, "attributes", "tokens", usize::MAX)?;
                let weights = finite(artifact, "attributes.weights", rows.items.len())?;
                Likeness::Attributes(rows, weights)
            }
            "vector" => {
                let vectors = artifact.tensor("vectors")?;
                if vectors.shape().len() != 2 || vectors.rows() != catalogue.len() {
                    return Err(Error::Malformed("the graph's vectors are not one row an item".into()));
                }
                Likeness::Vectors(vectors)
            }
            _ => Likeness::None,
        };
        let (one, two) = (RingLists::open(artifact, "ring1")?, RingLists::open(artifact, "ring2")?);
        Ok(Self { catalogue, config, edges, edge_counts, one, two, likeness })
    }

    fn features(&self) -> FeaturesView<'_> {
        match &self.likeness {
            Likeness::None => FeaturesView::None,
            Likeness::Attributes(rows, weights) => {
                FeaturesView::Attributes { offsets: &rows.offsets, tokens: &rows.items, weights: weights.as_slice() }
            }
            Likeness::Vectors(rows) => FeaturesView::Vectors { dim: rows.cols(), rows: rows.as_slice() },
        }
    }

    fn edges(&self) -> EdgesView<'_> {
        EdgesView { offsets: &self.edges.offsets, items: &self.edges.items, counts: &self.edge_counts }
    }

    fn ring(&self, item: u32, ring: Ring) -> (&[u32], &[f32]) {
        match ring {
            Ring::One => self.one.of(item),
            Ring::Two => self.two.of(item),
        }
    }

    /// The items the rings say something about, best first, at most `limit`.
    fn ring_items(&self, query: &Query<'_>, filter: &Filter<'_>, limit: usize) -> Vec<Scored> {
        let anchor = |anchor| match anchor {
            Anchor::Last => query.history.last(),
            Anchor::Previous => query.history.iter().nth_back(1),
        };
        let stages = self.config.variant.stages(&self.config.budgets, query.k);
        let ring = |of, ring| match anchor(of) {
            Some(&item) => self.ring(item, ring),
            None => (&[][..], &[][..]),
        };
        fill(&stages, limit, ring, |item| allows(filter, item))
    }

    fn recommend_one(&self, query: &Query<'_>) -> Vec<Scored> {
        let mut list = self.ring_items(query, &query.filter, query.k);
        if list.is_empty() {
            return list;
        }
        let popular = popularity::most_counted(&self.catalogue, &query.filter, query.k - list.len(), &list);
        list.extend(popular.into_iter().map(|item| Scored { item, score: self.popularity(item) }));
        list
    }

    /// The score of an item that no ring brings: below 1, where the rings' scores begin.
    fn popularity(&self, item: u32) -> f32 {
        popularity::share(&self.catalogue, item)
    }
}

fn allows(filter: &Filter<'_>, item: u32) -> bool {
    filter.exclude.binary_search(&item).is_err()
        && filter.candidates.is_none_or(|candidates| candidates.binary_search(&item).is_ok())
}

impl Model for Graph {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        self.config.variant.window()
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        const SLICE: usize = 64;
        let answer = |query: &Query<'_>| self.recommend_one(query);
        if queries.len() <= SLICE {
            control.check()?;
            return Ok(queries.iter().map(answer).collect());
        }
        let slices: Vec<Vec<Vec<Scored>>> = queries
            .par_chunks(SLICE)
            .map(|slice| {
                control.check()?;
                Ok(slice.iter().map(answer).collect())
            })
            .collect::<Result<_>>()?;
        Ok(slices.into_iter().flatten().collect())
    }

    /// An item that the filter allows has the score it has in a list of `query.k`; one that it leaves out, the
    /// score it would have if nothing were left out.
    fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        let by_item = |mut list: Vec<Scored>| {
            list.sort_unstable_by_key(|scored| scored.item);
            list
        };
        let find = |list: &[Scored], item: u32| {
            list.binary_search_by_key(&item, |scored| scored.item).ok().map(|place| list[place].score)
        };
        let filtered = by_item(self.ring_items(query, &query.filter, usize::MAX));
        let mut open = None;
        let score = |&item: &u32| {
            let list = if allows(&query.filter, item) {
                &filtered
            } else {
                open.get_or_insert_with(|| by_item(self.ring_items(query, &Filter::default(), usize::MAX)))
            };
            find(list, item).unwrap_or_else(|| self.popularity(item))
        };
        Ok(items.iter().map(score).collect())
    }

    /// Ring 1 of the item, then ring 2, then the items that look most like it.
    fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
        const STAGES: usize = 3;
        let allowed = |other: u32| other != item && allows(&query.filter, other);
        let mut list = Vec::with_capacity(query.k.min(self.catalogue.len()));
        for (stage, ring) in [Ring::One, Ring::Two].into_iter().enumerate() {
            let (items, scores) = self.ring(item, ring);
            let members = items
                .iter()
                .zip(scores)
                .filter(|(other, _)| allowed(**other))
                .map(|(&item, &score)| Scored { item, score: list_score(STAGES, stage, score) });
            list.extend(members.take(query.k - list.len()));
        }
        let features = self.features();
        if list.len() < query.k && !features.is_none() {
            let mut used: Vec<u32> = list.iter().map(|scored| scored.item).collect();
            used.sort_unstable();
            let all = match query.filter.candidates {
                Some(candidates) => candidates.to_vec(),
                None => (0..self.catalogue.len() as u32).collect(),
            };
            let mut alike: Vec<Scored> = all
                .into_iter()
                .filter(|&other| allowed(other) && used.binary_search(&other).is_err())
                .map(|other| Scored { item: other, score: list_score(STAGES, 2, features.cosine(item, other)) })
                .filter(|scored| scored.score > list_score(STAGES, 2, 0.0))
                .collect();
            best(&mut alike, query.k - list.len());
            list.extend(alike);
        }
        Ok(list)
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        Err(Error::Unsupported { family: NAME.into(), what: "has no user vectors".into() })
    }

    fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
        let anchors = query.history.iter().rev().take(self.window()).enumerate().map(|(back, &anchor)| {
            let place = |ring| self.ring(anchor, ring).0.iter().position(|&other| other == item).map(|p| p + 1);
            let (ring, place) = match (place(Ring::One), place(Ring::Two)) {
                (Some(place), _) => (Some(1), Some(place)),
                (None, Some(place)) => (Some(2), Some(place)),
                (None, None) => (None, None),
            };
            json!({
                "item": anchor,
                "anchor": if back == 0 { "last" } else { "previous" },
                "ring": ring,
                "place": place,
                "edge_count": self.edges().count(anchor, item),
                "cosine": (!self.features().is_none()).then(|| self.features().cosine(anchor, item)),
            })
        });
        Ok(json!({
            "variant": self.config.variant,
            "similarity": self.config.similarity,
            "score": self.score(query, &[item])?[0],
            "anchors": anchors.collect::<Vec<_>>(),
            "popularity": {
                "count": self.catalogue.counts()[item as usize],
                "rank": popularity::rank(&self.catalogue, item),
            },
        }))
    }
}
