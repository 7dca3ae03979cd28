//! Scoring items and keeping the best.

use super::driver::{Buffer, Grid};
use super::matrix::Matrix;
use super::program::{Program, Source};
use super::{Cuda, CudaError, Precision, View};
use crate::{Filter, Scored, Tensor};

const THREADS: u32 = 256;
/// Queries of a block.
const QUERIES: usize = 32;
/// Items of a tile.
const ITEMS: usize = 128;
/// Entries that are found at a time; who wants more is given the next ones in another pass.
const LIST: usize = 128;
/// Blocks that fill a device.
const BLOCKS: usize = 264;

#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Entry {
    score: f32,
    item: u32,
}

/// What every entry comes after.
const FIRST: Entry = Entry { score: f32::NAN, item: 0 };

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct TopK {
    queries: View,
    items: View,
    exclude: u64,
    exclude_offsets: u64,
    candidates: u64,
    candidate_offsets: u64,
    after: u64,
    best: u64,
    found: u64,
    query_count: u32,
    item_count: u32,
    dim: u32,
    k: u32,
    share: u32,
    unused: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Dots {
    query: View,
    items: View,
    rows: u64,
    out: u64,
    count: u32,
    dim: u32,
}

/// All kernels in both precisions.
pub(super) fn programs() -> Vec<Program> {
    let of = |kernel| [0, 1].map(|bf16| Program::new(Source::TOP_K, kernel, &[("BF16", bf16)]));
    ["top_k", "top_k_of_candidates", "dots"].into_iter().flat_map(of).collect()
}

/// Bytes of shared memory of a block that goes through the catalogue.
fn shared(precision: Precision) -> usize {
    let rows = match precision {
        Precision::F32 => (QUERIES + ITEMS) * 17 * 4,
        // While one part is multiplied, the next is copied.
        Precision::Bf16 => 2 * (QUERIES + ITEMS) * 64 * 2,
    };
    QUERIES * (LIST * size_of::<Entry>() + ITEMS * 4) + rows
}

/// Lists of indices laid end to end, and their bounds.
fn laid_out<'a>(lists: impl Iterator<Item = &'a [u32]>) -> Result<(Vec<u32>, Vec<u32>), CudaError> {
    let (mut all, mut bounds) = (Vec::new(), vec![0]);
    for list in lists {
        all.extend_from_slice(list);
        bounds.push(u32::try_from(all.len()).map_err(|_| CudaError::TooLarge { what: "items of filters" })?);
    }
    Ok((all, bounds))
}

/// Queries that are answered together: all of the catalogue, or all of candidates.
struct Group<'a> {
    /// Their numbers.
    queries: Vec<usize>,
    filters: &'a [Filter<'a>],
    listed: bool,
}

impl Cuda {
    /// [`crate::Device::top_k`]
    pub(super) fn best(
        &self,
        queries: &[f32],
        items: &Tensor,
        k: &[usize],
        filters: &[Filter<'_>],
    ) -> Result<Vec<Vec<Scored>>, CudaError> {
        let (rows, dim) = (items.rows(), items.cols());
        assert_eq!(queries.len(), k.len() * dim, "{} queries of {dim} numbers", k.len());
        assert_eq!(filters.len(), k.len(), "a filter for every query");
        let mut lists = vec![Vec::new(); k.len()];
        if rows == 0 {
            return Ok(lists);
        }
        for listed in [false, true] {
            let of_kind = |&q: &usize| k[q] > 0 && filters[q].candidates.is_some() == listed;
            let mut group = Group { queries: (0..k.len()).filter(of_kind).collect(), filters, listed };
            while !group.queries.is_empty() {
                let missing = group.queries.iter().map(|&q| k[q].min(rows) - lists[q].len()).max().unwrap_or(0);
                let most = missing.min(LIST);
                let found = self.pass(queries, items, &group, &lists, most)?;
                let mut unfinished = Vec::new();
                for (&q, found) in group.queries.iter().zip(found) {
                    let exhausted = found.len() < most;
                    lists[q].extend(found);
                    lists[q].truncate(k[q]);
                    if !exhausted && lists[q].len() < k[q].min(rows) {
                        unfinished.push(q);
                    }
                }
                group.queries = unfinished;
            }
        }
        Ok(lists)
    }

    /// For each query of a group up to `k` entries that come after those it has, best first.
    fn pass(
        &self,
        queries: &[f32],
        items: &Tensor,
        group: &Group<'_>,
        lists: &[Vec<Scored>],
        k: usize,
    ) -> Result<Vec<Vec<Scored>>, CudaError> {
        let (rows, dim, count) = (items.rows(), items.cols(), group.queries.len());
        let driver = &self.driver;
        let item_count = u32::try_from(rows).map_err(|_| CudaError::TooLarge { what: "items" })?;
        let table = self.matrix(items, self.precision)?;
        let own: Vec<f32> = group.queries.iter().flat_map(|&q| &queries[q * dim..(q + 1) * dim]).copied().collect();
        let own = Matrix::upload(driver, self.precision, &own, dim)?;
        let (exclude, exclude_offsets) = laid_out(group.queries.iter().map(|&q| group.filters[q].exclude))?;
        let candidates = group.queries.iter().map(|&q| group.filters[q].candidates.unwrap_or(&[]));
        let (candidates, candidate_offsets) = laid_out(candidates)?;
        let last = |q: usize| lists[q].last().map_or(FIRST, |last| Entry { score: last.score, item: last.item });
        let after: Vec<Entry> = group.queries.iter().map(|&q| last(q)).collect();
        let index = |values: &[u32]| Buffer::of(driver, values);
        let (exclude, exclude_offsets) = (index(&exclude)?, index(&exclude_offsets)?);
        let (candidates, candidate_offsets) = (index(&candidates)?, index(&candidate_offsets)?);
        let after = Buffer::of(driver, &after)?;

        let blocks = if group.listed { count } else { count.div_ceil(QUERIES) };
        let splits = if group.listed { 1 } else { (BLOCKS / blocks).clamp(1, rows.div_ceil(8 * ITEMS)) };
        let share = rows.div_ceil(splits).next_multiple_of(ITEMS);
        let splits = rows.div_ceil(share);
        let mut found = vec![0u32; count * splits];
        let mut entries = vec![FIRST; count * splits * k];
        let best = Buffer::of(driver, &entries)?;
        let counts = Buffer::new(driver, size_of_val(&found[..]))?;
        let parameters = TopK {
            queries: (&own).into(),
            items: (&*table).into(),
            exclude: exclude.address(),
            exclude_offsets: exclude_offsets.address(),
            candidates: candidates.address(),
            candidate_offsets: candidate_offsets.address(),
            after: after.address(),
            best: best.address(),
            found: counts.address(),
            query_count: count as u32,
            item_count,
            dim: dim as u32,
            k: k as u32,
            share: share as u32,
            unused: 0,
        };
        let (kernel, shared) = match group.listed {
            true => ("top_k_of_candidates", LIST * size_of::<Entry>() + THREADS as usize * 4),
            false => ("top_k", shared(self.precision)),
        };
        let grid = Grid { blocks: [blocks as u32, splits as u32, 1], threads: THREADS, shared: shared as u32 };
        // SAFETY: offsets are those of the lists, results have room for every query and split, and a kernel reads no item
        // beyond the table.
        unsafe { self.launch(Source::TOP_K, kernel, &[], grid, &parameters)? };
        driver.download(counts.address(), bytemuck::cast_slice_mut(&mut found))?;
        driver.download(best.address(), bytemuck::cast_slice_mut(&mut entries))?;

        let merged = |query: usize| {
            let parts = (query * splits..(query + 1) * splits).map(|part| &entries[part * k..][..found[part] as usize]);
            let mut all: Vec<Scored> =
                parts.flatten().map(|entry| Scored { item: entry.item, score: entry.score }).collect();
            all.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
            all.truncate(k);
            all
        };
        Ok((0..count).map(merged).collect())
    }

    /// [`crate::Device::scores`]
    pub(super) fn dots(&self, query: &[f32], items: &Tensor, rows: &[u32]) -> Result<Vec<f32>, CudaError> {
        assert_eq!(query.len(), items.cols(), "query and item vectors differ in length");
        assert!(rows.iter().all(|&row| (row as usize) < items.rows()), "rows of a table of {}", items.rows());
        let table = self.matrix(items, self.precision)?;
        let query = Matrix::upload(&self.driver, self.precision, query, items.cols())?;
        let indices = Buffer::of(&self.driver, rows)?;
        let mut out = vec![0.0f32; rows.len()];
        let scores = Buffer::new(&self.driver, size_of_val(&out[..]))?;
        let parameters = Dots {
            query: (&query).into(),
            items: (&*table).into(),
            rows: indices.address(),
            out: scores.address(),
            count: rows.len() as u32,
            dim: items.cols() as u32,
        };
        let grid = Grid { blocks: [rows.len().div_ceil(THREADS as usize) as u32, 1, 1], threads: THREADS, shared: 0 };
        // SAFETY: the rows exist, and there is a score for each.
        unsafe { self.launch(Source::TOP_K, "dots", &[], grid, &parameters)? };
        if !out.is_empty() {
            self.driver.download(scores.address(), bytemuck::cast_slice_mut(&mut out))?;
        }
        Ok(out)
    }
}
