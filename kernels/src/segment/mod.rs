//! Immutable nearest-neighbour segments: a usearch graph behind a small header, read in place from shared bytes.
//!
//! The graph is searched by inner products themselves (ip-NSW: Morozov & Babenko 2018, "Non-metric similarity
//! graphs for maximum inner product search"), and woven by a·b/√(|a|·|b|). Weaving by inner products as well
//! links few vectors to the short ones; by cosines, few to the long ones. The usual reduction to distances,
//! which appends √(M² − |v|²) to every vector, pulls short vectors together and away from every query. On 10,000
//! clustered vectors of 64 with lengths from 1 to 4 and these defaults (`examples/segment.rs`), recall at 10 and
//! at 100 was:
//!
//! | woven by | queries near the clusters | queries anywhere |
//! |---|---|---|
//! | this | 1.000, .999 | .999, .992 |
//! | inner products | 1.000, .995 | .999, .989 |
//! | cosines | 1.000, .992 | .990, .949 |
//! | distances | 1.000, .804 | .610, .508 |
//!
//! The reduction, measured with a connectivity of 16 and expansions of 128, gave .946 and .521 at 10 where inner
//! products gave .999 and .989, and found nothing at all for some queries.
//!
//! ```text
//! offset  bytes
//!      0  8     "pgrecseg"
//!      8  4     format version
//!     12  4     numbers a vector
//!     16  8     vectors
//!     24  4     length of the longest vector, f32
//!     28  12    connectivity, expansion_add, expansion_search
//!     40  16    zero
//!     56        the usearch index; absent when there are no vectors
//! ```
//! All numbers are little-endian. usearch puts 8 bytes before its vectors, which therefore begin at a multiple
//! of 64. There is no checksum: the bytes lie in an artifact, which has one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

use rayon::prelude::*;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::cpu::{Isa, Pair};
use crate::{Bytes, KernelError, Scored};

const MAGIC: &[u8; 8] = b"pgrecseg";
const VERSION: u32 = 1;
const HEADER: usize = 56;
/// Inner products up to here, and the sums on the way to them, are far from overflowing.
const LARGEST_PRODUCT: f64 = f32::MAX as f64 / 16.0;

/// How densely the graph is woven and how widely it is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Neighbours a vector keeps in each layer; twice as many in the lowest.
    pub connectivity: usize,
    /// Candidates kept while a vector is inserted.
    pub expansion_add: usize,
    /// Candidates kept while searching.
    pub expansion_search: usize,
}

impl Default for SegmentOptions {
    /// Recall at 10 of .9995 on 100,000 clustered vectors of 64, for queries near the clusters
    /// (`examples/segment.rs`).
    fn default() -> Self {
        Self { connectivity: 32, expansion_add: 128, expansion_search: 256 }
    }
}

/// The header's numbers.
struct Header {
    dim: usize,
    len: usize,
    longest: f32,
    options: SegmentOptions,
}

impl Header {
    fn write(&self, to: &mut [u8]) -> Result<(), KernelError> {
        let small = |n: usize| u32::try_from(n).map_err(|_| KernelError::Segment(format!("{n} is too large")));
        to[..8].copy_from_slice(MAGIC);
        to[8..12].copy_from_slice(&VERSION.to_le_bytes());
        to[12..16].copy_from_slice(&small(self.dim)?.to_le_bytes());
        to[16..24].copy_from_slice(&(self.len as u64).to_le_bytes());
        to[24..28].copy_from_slice(&self.longest.to_le_bytes());
        let SegmentOptions { connectivity, expansion_add, expansion_search } = self.options;
        to[28..32].copy_from_slice(&small(connectivity)?.to_le_bytes());
        to[32..36].copy_from_slice(&small(expansion_add)?.to_le_bytes());
        to[36..40].copy_from_slice(&small(expansion_search)?.to_le_bytes());
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Self, KernelError> {
        let wrong = |what: &str| KernelError::Segment(what.to_owned());
        let header = bytes.get(..HEADER).ok_or_else(|| wrong("shorter than its header"))?;
        if &header[..8] != MAGIC {
            return Err(wrong("not a segment"));
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if word(8) != VERSION {
            return Err(KernelError::Segment(format!("format version {}, not {VERSION}", word(8))));
        }
        let len = u64::from(word(16)) | u64::from(word(20)) << 32;
        let header = Self {
            dim: word(12) as usize,
            len: usize::try_from(len).map_err(|_| wrong("too many vectors"))?,
            longest: f32::from_bits(word(24)),
            options: SegmentOptions {
                connectivity: word(28) as usize,
                expansion_add: word(32) as usize,
                expansion_search: word(36) as usize,
            },
        };
        if header.dim == 0 || len > u64::from(u32::MAX) || !header.longest.is_finite() {
            return Err(wrong("damaged header"));
        }
        Ok(header)
    }

    /// An empty index of the header's shape, with room for `threads` at the same time.
    fn index(&self, threads: usize) -> Result<Index, KernelError> {
        let index = Index::new(&IndexOptions {
            dimensions: self.dim,
            metric: MetricKind::IP,
            quantization: ScalarKind::F32,
            connectivity: self.options.connectivity,
            expansion_add: self.options.expansion_add,
            expansion_search: self.options.expansion_search,
            multi: false,
        })
        .map_err(refused)?;
        index.reserve_capacity_and_threads(0, threads).map_err(refused)?;
        Ok(index)
    }
}

fn refused(error: impl std::fmt::Display) -> KernelError {
    KernelError::Segment(error.to_string())
}

fn square_length(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// What the graph is woven by, and what it is searched by.
#[derive(Clone, Copy)]
enum Metric {
    HalfCosine,
    InnerProduct,
}

/// Makes the index measure with our own kernels; usearch's, without its SIMD crate, are plain loops.
fn set_metric(index: &mut Index, metric: Metric, dim: usize) {
    let isa = Isa::detect();
    let distance = move |a: *const f32, b: *const f32| {
        let pair = Pair { a, b, dim };
        // SAFETY: usearch passes two vectors of the index's dimensions. It may pass them unaligned, which the
        // kernels allow. `detect` gives an instruction set that is available.
        unsafe {
            match metric {
                Metric::HalfCosine => -pair.half_cosine(isa),
                Metric::InnerProduct => -pair.dot(isa),
            }
        }
    };
    index.change_metric::<f32>(Box::new(distance));
}

/// An immutable index of the vectors of a catalogue, for the largest inner products.
pub struct Segment {
    // Before `bytes`: it points into them, and fields are dropped in order.
    index: Option<Index>,
    header: Header,
    threads: Threads,
    #[allow(dead_code, reason = "keeps alive what the index points into")]
    bytes: Bytes,
}

/// How many more threads may search; usearch refuses rather than waits.
struct Threads {
    free: Mutex<usize>,
    returned: Condvar,
}

impl Threads {
    fn with<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Held<'a>(&'a Threads);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                self.0.returned.notify_one();
            }
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.returned.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        let _held = Held(self);
        f()
    }
}

impl Segment {
    /// Builds a segment of row-major vectors of `dim` numbers, on all threads of the current rayon pool. Vector
    /// `i` is item `i`. `should_stop` is asked every few dozen vectors, from any thread.
    ///
    /// Threads race for places in the graph, so two builds of the same vectors differ in bytes and, rarely, in
    /// what they find.
    ///
    /// Fails where the numbers do not make rows, are not finite, or memory runs out.
    pub fn build(
        vectors: &[f32],
        dim: usize,
        options: &SegmentOptions,
        should_stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<u8>, KernelError> {
        if dim == 0 || !vectors.len().is_multiple_of(dim) || vectors.len() / dim > u32::MAX as usize {
            return Err(KernelError::Shape { shape: vec![vectors.len(), dim], bytes: size_of_val(vectors) });
        }
        let len = vectors.len() / dim;
        let squares: Vec<f64> = vectors.par_chunks(dim).map(square_length).collect();
        if let Some(row) = squares.iter().position(|square| !square.is_finite()) {
            return Err(KernelError::NotFinite { row });
        }
        let longest = squares.iter().copied().fold(0.0, f64::max);
        let longest = longest.sqrt();
        if longest * longest > LARGEST_PRODUCT {
            return Err(KernelError::Segment("vectors are too long for inner products in f32".to_owned()));
        }
        let header = Header { dim, len, longest: longest as f32, options: *options };
        if len == 0 {
            let mut bytes = vec![0; HEADER];
            header.write(&mut bytes)?;
            return Ok(bytes);
        }
        let threads = rayon::current_num_threads();
        let mut index = header.index(threads)?;
        index.reserve_capacity_and_threads(len, threads).map_err(refused)?;
        set_metric(&mut index, Metric::HalfCosine, dim);
        vectors.par_chunks(dim).enumerate().try_for_each(|(row, vector)| {
            if row.is_multiple_of(32) && should_stop() {
                return Err(KernelError::Cancelled);
            }
            index.add(row as u64, vector).map_err(refused)
        })?;
        let mut bytes = vec![0; HEADER + index.serialized_length()];
        header.write(&mut bytes)?;
        index.save_to_buffer(&mut bytes[HEADER..]).map_err(refused)?;
        Ok(bytes)
    }

    /// Opens a segment where its bytes lie, at any alignment. They are trusted beyond their header and sizes:
    /// check their CRC before.
    pub fn view(bytes: Bytes) -> Result<Self, KernelError> {
        let all = (*bytes).as_ref();
        let header = Header::read(all)?;
        // The calling thread, a pool and as much again; more callers than that wait for one another.
        let free = 2 * rayon::current_num_threads() + 1;
        let threads = Threads { free: Mutex::new(free), returned: Condvar::new() };
        let body = &all[HEADER..];
        if header.len == 0 {
            let index = None;
            return if body.is_empty() {
                Ok(Self { index, header, threads, bytes })
            } else {
                Err(KernelError::Segment("bytes after an empty index".to_owned()))
            };
        }
        let metadata = Index::metadata_from_buffer(body).map_err(refused)?;
        if metadata.dimensions != header.dim as u64
            || metadata.count_present != header.len as u64
            || metadata.count_deleted != 0
            || metadata.quantization != ScalarKind::F32
            || metadata.multi
        {
            return Err(KernelError::Segment("the header and the index disagree".to_owned()));
        }
        let mut index = header.index(free)?;
        // SAFETY: the index only reads the buffer, and is dropped before `bytes`, which keep it in place: they
        // are behind a shared pointer, and `as_ref` gives the same memory as long as that lives.
        unsafe { index.view_from_buffer(body) }.map_err(refused)?;
        // Viewing puts the built-in metric back.
        set_metric(&mut index, Metric::InnerProduct, header.dim);
        Ok(Self { index: Some(index), header, threads, bytes })
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.header.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.header.len == 0
    }

    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.header.dim
    }

    /// About how much heap memory this view takes beside the shared bytes: the library's own count of its nodes
    /// and threads, and its table of keys, which it leaves out.
    pub fn private_bytes(&self) -> usize {
        let table = (self.header.len * 4 / 3).next_power_of_two() * size_of::<[u64; 2]>();
        let vectors = self.header.len * size_of::<usize>();
        self.index.as_ref().map_or(0, |index| index.memory_usage() + table + vectors)
    }

    /// About the `k` items with the largest inner products, best first. Scores have the bits of
    /// [`crate::Device::scores`] on a [`crate::cpu::Cpu::new`].
    ///
    /// A query that is not finite, or so long that products overflow, finds nothing. Panics if its length is not
    /// the segment's, or if memory runs out.
    pub fn search(&self, query: &[f32], k: usize) -> Vec<Scored> {
        self.find(query, k, |index, query, wanted| index.search::<f32>(query, wanted))
    }

    /// Like [`Segment::search`], among the items for which `allowed` holds. The fewer they are, the longer it
    /// takes; below a tenth of all, scoring them exactly is faster.
    pub fn search_filtered(&self, query: &[f32], k: usize, allowed: impl Fn(u32) -> bool) -> Vec<Scored> {
        let mut panic = Mutex::new(None);
        let found = self.find(query, k, |index, query, wanted| {
            // A panic must not unwind into C++: hold it until the search is over.
            index.filtered_search::<f32, _>(query, wanted, |key| {
                catch_unwind(AssertUnwindSafe(|| allowed(key as u32))).unwrap_or_else(|payload| {
                    panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
                    false
                })
            })
        });
        if let Some(payload) = panic.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(payload);
        }
        found
    }

    fn find<E: std::fmt::Display>(
        &self,
        query: &[f32],
        k: usize,
        search: impl FnOnce(&Index, &[f32], usize) -> Result<usearch::ffi::Matches, E>,
    ) -> Vec<Scored> {
        assert_eq!(query.len(), self.header.dim, "query and item vectors differ in length");
        let k = k.min(self.header.len);
        let largest = square_length(query).sqrt() * f64::from(self.header.longest);
        let Some(index) = self.index.as_ref().filter(|_| k > 0 && largest <= LARGEST_PRODUCT) else {
            return Vec::new();
        };
        // The search keeps as many candidates as it is asked for, if that is more than its own number; the last
        // few of them are not reliable.
        let wanted = (2 * k).max(self.header.options.expansion_search).min(self.header.len);
        let matches = self
            .threads
            .with(|| search(index, query, wanted))
            .unwrap_or_else(|error| panic!("nearest-neighbour search: {error}"));
        let scored = matches
            .keys
            .iter()
            .zip(&matches.distances)
            .map(|(&key, &distance)| Scored { item: key as u32, score: -distance });
        scored.take(k).collect()
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment[{}, {}]", self.header.len, self.header.dim)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
