//! Weaving the graph, with usearch.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::SegmentOptions;
use super::entries;
use super::format::{Format, Metric};
use super::layout::{HEADER, Header, Layout, write_levels};
use super::repair::repair;
use crate::KernelError;
use crate::cpu::{Comparison, Isa, Pair, hamming};

/// So many vectors are added one after the other: threads that begin a graph at once do not find each other's vectors,
/// and leave some to which no link leads.
const FIRST: usize = 500;

/// A segment being built, from several threads.
pub struct SegmentBuilder {
    format: Format,
    options: SegmentOptions,
    threads: usize,
    index: RwLock<Index>,
    /// Held while one of the first vectors is added.
    first: Mutex<()>,
    /// Bits of f32s that are not negative, which are in the order of the numbers.
    longest: AtomicU32,
    error: AtomicU32,
}

fn refused(error: impl std::fmt::Display) -> KernelError {
    KernelError::Segment(error.to_string())
}

impl SegmentBuilder {
    /// An empty one with room for `capacity` vectors, growing beyond it, for `threads` that add at the same time.
    pub fn new(format: Format, options: &SegmentOptions, capacity: usize, threads: usize) -> Result<Self, KernelError> {
        let mut index = Index::new(&IndexOptions {
            // usearch knows nothing of the vectors but how many bytes they have.
            dimensions: format.vector_bytes(),
            metric: MetricKind::IP,
            quantization: ScalarKind::I8,
            connectivity: options.connectivity,
            expansion_add: options.expansion_add,
            expansion_search: options.expansion_search,
            multi: true,
        })
        .map_err(refused)?;
        let threads = threads.max(1);
        index.reserve_capacity_and_threads(capacity.max(threads), threads).map_err(refused)?;
        set_metric(&mut index, format);
        Ok(Self {
            format,
            options: *options,
            threads,
            index: RwLock::new(index),
            first: Mutex::new(()),
            longest: AtomicU32::new(0),
            error: AtomicU32::new(0),
        })
    }

    /// Adds a vector that [`Format::store`] stored, which lost at most `error` of its length.
    ///
    /// Fails where it has another size, where it is so long that products overflow, or where memory runs out.
    pub fn add(&self, key: u64, stored: &[u8], error: f32) -> Result<(), KernelError> {
        if stored.len() != self.format.vector_bytes() {
            return Err(KernelError::Shape { shape: vec![self.format.dim()], bytes: stored.len() });
        }
        let longest = self.format.length(stored);
        if !longest.is_finite() || !error.is_finite() {
            return Err(KernelError::Segment("a vector is too long for products in f32".to_owned()));
        }
        self.longest.fetch_max(longest.to_bits(), Ordering::Relaxed);
        self.error.fetch_max(error.max(0.0).to_bits(), Ordering::Relaxed);
        loop {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            if index.size() + self.threads <= index.capacity() {
                let _alone = (index.size() < FIRST).then(|| self.first.lock().unwrap_or_else(PoisonError::into_inner));
                return index.add(key, bytemuck::cast_slice::<u8, i8>(stored)).map_err(refused);
            }
            drop(index);
            self.grow()?;
        }
    }

    fn grow(&self) -> Result<(), KernelError> {
        let index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let needed = index.size() + self.threads;
        if needed > index.capacity() {
            index.reserve_capacity_and_threads(needed + needed / 2, self.threads).map_err(refused)?;
        }
        Ok(())
    }

    /// How many vectors were added.
    pub fn len(&self) -> usize {
        self.index.read().unwrap_or_else(PoisonError::into_inner).size()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segment's bytes.
    pub fn finish(self) -> Result<Vec<u8>, KernelError> {
        let index = self.index.into_inner().unwrap_or_else(PoisonError::into_inner);
        let len = index.size();
        let index_bytes = if len == 0 { 0 } else { index.serialized_length() };
        let mut header = Header {
            format: self.format,
            len,
            longest: f32::from_bits(self.longest.into_inner()),
            error: f32::from_bits(self.error.into_inner()),
            options: self.options,
            index_bytes,
            entries: 0,
        };
        let mut bytes = vec![0; HEADER + index_bytes + 4 * len];
        header.write(&mut bytes)?;
        if len == 0 {
            return Ok(bytes);
        }
        let (index_part, levels) = bytes[HEADER..].split_at_mut(index_bytes);
        index.save_to_buffer(index_part).map_err(refused)?;
        write_levels(index_part, len, self.format.vector_bytes(), levels)?;
        let layout = Layout::read(&header, &bytes)?;
        header.entries = entries::append(&self.format, &layout, &mut bytes);
        header.write(&mut bytes)?;
        drop(index);
        repair(bytes)
    }

    /// About how many bytes a builder of `rows` vectors takes until it is finished.
    pub fn memory(format: &Format, options: &SegmentOptions, rows: usize) -> usize {
        rows.saturating_mul(Self::memory_of_one(format, options))
    }

    fn memory_of_one(format: &Format, options: &SegmentOptions) -> usize {
        // A node with the links of its lowest level and, on average, of 1/(connectivity − 1) more; pointers to node and
        // vector, an entry in usearch's table of keys, which is at most two thirds empty; and the finished bytes.
        let node = 10 + 4 + 8 * options.connectivity + 8;
        2 * (format.vector_bytes() + node) + 16 + 48
    }
}

/// Makes the index measure with our own kernels; usearch's, without its SIMD crate, are plain loops.
fn set_metric(index: &mut Index, format: Format) {
    let (isa, dim, size) = (Isa::detect(), format.dim(), format.vector_bytes());
    let comparison = match format.metric() {
        Metric::L2 => Comparison::SquaredL2,
        Metric::InnerProduct => Comparison::HalfCosine,
        Metric::Cosine | Metric::Hamming => Comparison::Product,
    };
    match format.number() {
        Some(number) => index.change_metric::<i8>(Box::new(move |a, b| {
            let pair = Pair { comparison, number, a: a.cast(), b: b.cast(), dim };
            // SAFETY: usearch passes two vectors of the index's bytes. It may pass them unaligned, which the kernels
            // allow. `detect` gives an instruction set that is available.
            unsafe { pair.distance(isa) }
        })),
        None => index.change_metric::<i8>(Box::new(move |a, b| {
            // SAFETY: usearch passes two vectors of the index's bytes, which live while it calls.
            let (a, b) =
                unsafe { (std::slice::from_raw_parts(a.cast(), size), std::slice::from_raw_parts(b.cast(), size)) };
            hamming(a, b)
        })),
    }
}
