//! Attention within histories.

use std::sync::Arc;

use super::driver::{Buffer, Grid, Panels};
use super::matrix::Matrix;
use super::program::{Program, Source};
use super::resident::{Batch, TILE, WIDE_TILE};
use super::rows::check_offsets;
use super::{Cuda, CudaError, Precision, View};
use crate::{PairBias, Rows, Sequences, SiluAttention, TIME_BUCKETS};

const THREADS: u32 = 128;
/// Threads on Hopper: those that copy, and two groups that compute.
const HOPPER_THREADS: u32 = 384;
/// Columns of a head that Hopper's kernel is for.
const HOPPER_DIMS: [usize; 2] = [64, 128];
/// What shared memory begins at a multiple of there.
const PANEL_ALIGNED: usize = 1024;
/// Shared memory of a block that every device has: tiles of keys are made smaller to stay below.
const MOST_SHARED: usize = 96 << 10;
/// Beginnings of buckets and biases.
const BUCKET_BYTES: usize = 12 * TIME_BUCKETS + 4;
/// What alignment may add.
const SLACK: usize = 64;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Parameters {
    q: View,
    k: View,
    v: View,
    out: View,
    own_k: View,
    own_v: View,
    tiles: u64,
    offsets: u64,
    positions: u64,
    buckets: u64,
    begins: u64,
    times: u64,
    until: u64,
    rows: u32,
    heads: u32,
    known: u32,
    factor: f32,
}

/// Parameters on Hopper: matrices as the copy engine takes them first.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct HopperParameters {
    panels: [Panels; 3],
    of: Parameters,
    /// Up to a multiple of 128 bytes, as the kernel's structure is aligned.
    unused: [u64; 11],
}

const _: () = assert!(size_of::<HopperParameters>().is_multiple_of(128));

/// What scores become.
#[derive(Clone, Copy)]
enum Scores<'a> {
    Softmax,
    Silu { bias: Option<&'a PairBias>, divisor: f32 },
}

impl<'a> From<&'a SiluAttention> for Scores<'a> {
    fn from(attention: &'a SiluAttention) -> Self {
        Self::Silu { bias: Some(&attention.bias), divisor: attention.divisor }
    }
}

/// What attention is computed of; candidates have keys and values of their own.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: &'a Matrix,
    k: &'a Matrix,
    v: &'a Matrix,
    own: Option<[&'a Matrix; 2]>,
}

/// Sizes that a kernel is compiled for.
#[derive(Clone, Copy)]
struct Shape {
    dim: usize,
    value_dim: usize,
    softmax: bool,
    positioned: bool,
    timed: bool,
    precision: Precision,
}

impl Shape {
    /// Keys of a tile, and bytes of shared memory of a block that computes [`TILE`] rows.
    fn tile(self) -> (usize, usize) {
        let Self { dim, value_dim, .. } = self;
        let bytes = self.precision.bytes();
        let chunk = 16 / bytes;
        let width = dim.next_multiple_of(16) + chunk;
        let multiple = if self.precision == Precision::Bf16 { 16 } else { 32 };
        let value_width = value_dim.next_multiple_of(multiple) + chunk;
        // Queries stay in registers, and come to them through the room of a tile of keys, which has to have as many rows.
        let held = self.precision == Precision::Bf16 && dim <= 128;
        let shared = |keys: usize| {
            let queries = if held { 1 } else { TILE } * width * bytes;
            let weights = if self.precision == Precision::F32 { TILE * (keys + chunk) * 4 } else { 0 };
            let times = if self.timed { 2 * keys * 8 + BUCKET_BYTES } else { 0 };
            2 * keys * (width + value_width) * bytes + queries + 2 * (TILE + keys + 4) * 4 + times + weights + SLACK
        };
        let sizes: &[usize] = if held { &[64] } else { &[64, 32, 16] };
        let fitting = sizes.iter().copied().find(|&keys| shared(keys) <= MOST_SHARED);
        let keys = fitting.unwrap_or(if held { 64 } else { 16 });
        (keys, shared(keys))
    }

    /// Bytes of shared memory of a block that computes one row.
    fn last(self) -> usize {
        4 * (self.dim + THREADS as usize + 4 * self.value_dim + 4) + if self.timed { BUCKET_BYTES } else { 0 } + SLACK
    }

    fn program(self, last: bool, candidates: bool) -> (Program, usize) {
        let mut variant = vec![
            ("DIM", self.dim as u32),
            ("VALUE_DIM", self.value_dim as u32),
            ("SOFTMAX", u32::from(self.softmax)),
            ("POSITIONED", u32::from(self.positioned)),
            ("TIMED", u32::from(self.timed)),
            ("BF16", u32::from(self.precision == Precision::Bf16)),
        ];
        if last {
            let shared = self.last();
            variant.push(("SHARED", shared as u32));
            return (Program::new(Source::LAST_ATTENTION, "last_attention", &variant), shared);
        }
        let (keys, shared) = self.tile();
        let sizes = [("ROWS", TILE as u32), ("KEYS", keys as u32), ("FIRST_THREAD", 0), ("SHARED", shared as u32)];
        variant.push(("CANDIDATES", u32::from(candidates)));
        variant.extend(sizes);
        (Program::new(Source::ATTENTION, "attention", &variant), shared)
    }

    /// The kernel for Hopper, and the shared memory of a block, where there is one for this shape.
    fn hopper_program(self) -> Option<(Program, usize)> {
        let Self { dim, value_dim, softmax, positioned, timed, precision } = self;
        if precision != Precision::Bf16 || dim != value_dim || !HOPPER_DIMS.contains(&dim) {
            return None;
        }
        let slots = if dim == 64 { 6 } else { 5 };
        let biases = (2 * WIDE_TILE + 4) * 4 + if timed { WIDE_TILE * 8 } else { 0 };
        let barriers = (2 * slots + 1) * 8;
        let tiles = (1 + slots) * WIDE_TILE * dim * 2;
        let used = tiles + (slots / 2 + 1) * biases + if timed { BUCKET_BYTES } else { 0 } + barriers + SLACK;
        let shared = used.next_multiple_of(PANEL_ALIGNED) + PANEL_ALIGNED;
        let variant = [
            ("DIM", dim as u32),
            ("VALUE_DIM", dim as u32),
            ("SOFTMAX", u32::from(softmax)),
            ("POSITIONED", u32::from(positioned)),
            ("TIMED", u32::from(timed)),
            ("BF16", 1),
            ("CANDIDATES", 0),
            ("ROWS", WIDE_TILE as u32),
            ("KEYS", WIDE_TILE as u32),
            ("FIRST_THREAD", THREADS),
            ("SLOTS", slots as u32),
            ("SHARED", shared as u32),
        ];
        Some((Program::new(Source::HOPPER_ATTENTION, "hopper_attention", &variant), shared))
    }
}

/// Representative shapes of all kernels.
pub(super) fn programs() -> Vec<Program> {
    let mut all = Vec::new();
    for precision in [Precision::F32, Precision::Bf16] {
        for dim in [25, 32, 64, 128] {
            let kinds = [(true, false, false), (false, false, false), (false, true, false), (false, true, true)];
            for (softmax, positioned, timed) in kinds {
                let shape = Shape { dim, value_dim: dim, softmax, positioned, timed, precision };
                all.push(shape.program(false, false).0);
                all.extend(shape.hopper_program().map(|(program, _)| program));
                all.extend((dim == 64).then(|| shape.program(true, false).0));
                all.extend((dim == 64 && !softmax).then(|| shape.program(false, true).0));
            }
        }
    }
    all
}

/// Columns of a head. Panics unless they are the same for all.
fn head_dim(x: &Matrix, heads: usize) -> usize {
    assert!(heads > 0 && x.cols().is_multiple_of(heads), "{} columns do not divide into {heads} heads", x.cols());
    x.cols() / heads
}

/// Panics where the biases do not fit the batch.
fn check_bias(bias: &PairBias, batch: &Sequences<'_>) {
    let positions = bias.positions.as_slice().len();
    let longest = batch.offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
    assert!(positions % 2 == 1, "biases of pairs for 2·N − 1 differences, not {positions}");
    assert!(longest <= positions.div_ceil(2), "a history of {longest} events and {positions} biases");
    if let Some(times) = &bias.times {
        let events = batch.offsets.last().copied().unwrap_or(0);
        assert_eq!(times.as_slice().len(), TIME_BUCKETS, "biases by time");
        assert_eq!((batch.times.len(), batch.until.len()), (events, events), "times of {events} events");
    }
}

/// Biases on the device, kept until the kernel was started.
#[derive(Default)]
struct Biases {
    kept: Vec<Arc<Buffer>>,
    positions: u64,
    known: u32,
    buckets: u64,
    begins: u64,
}

impl Cuda {
    fn biases(&self, scores: Scores<'_>) -> Result<Biases, CudaError> {
        let Scores::Silu { bias: Some(bias), .. } = scores else { return Ok(Biases::default()) };
        let mut biases = Biases { known: bias.positions.as_slice().len().div_ceil(2) as u32, ..Biases::default() };
        let mut keep = |buffer: Arc<Buffer>| {
            let address = buffer.address();
            biases.kept.push(buffer);
            address
        };
        let positions = keep(self.vector(&bias.positions)?);
        let (mut buckets, mut begins) = (0, 0);
        if let Some(times) = &bias.times {
            (buckets, begins) = (keep(self.vector(times)?), keep(self.bucket_begins()?));
        }
        (biases.positions, biases.buckets, biases.begins) = (positions, buckets, begins);
        Ok(biases)
    }

    /// Attention of queries to keys and values of histories, `[events, …]`, and of candidates also to their own.
    fn attention_of(
        &self,
        inputs: Inputs<'_>,
        heads: usize,
        scores: Scores<'_>,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Matrix {
        let Inputs { q, k, v, own } = inputs;
        check_offsets(batch, k);
        assert_eq!(v.rows(), k.rows(), "keys and values differ in number");
        assert_eq!(q.cols(), k.cols(), "queries and keys differ in width");
        let [dim, value_dim] = [k, v].map(|x| head_dim(x, heads));
        let (softmax, bias, factor) = match scores {
            Scores::Softmax => (true, None, 1.0 / (dim as f32).sqrt()),
            Scores::Silu { bias, divisor } => (false, bias, 1.0 / divisor),
        };
        if let Some(bias) = bias {
            check_bias(bias, batch);
        }
        let (positioned, timed) = (bias.is_some(), bias.is_some_and(|bias| bias.times.is_some()));
        match (rows, own) {
            (_, Some(own)) => {
                assert_eq!(batch.len(), 1, "candidates of one history");
                assert_eq!(own.map(Matrix::rows), [q.rows(); 2], "keys and values of every candidate");
                assert_eq!(own.map(Matrix::cols), [k.cols(), v.cols()], "columns");
            }
            (Rows::All, None) => assert_eq!(q.rows(), k.rows(), "a query for every event"),
            (Rows::Last, None) => {
                assert!(batch.offsets.windows(2).all(|w| w[0] < w[1]), "an empty history has no last row");
                assert_eq!(q.rows(), batch.len(), "a query for every history");
            }
            (Rows::Tail, None) => assert!(batch.len() == 1 && q.rows() <= k.rows(), "the tail of one history"),
        }
        self.computed(q.rows(), v.cols(), |out| {
            let on_device: Arc<Batch> = self.batch(batch)?;
            let biases = self.biases(scores)?;
            let last = rows == Rows::Last && own.is_none();
            let tiles = rows == Rows::All && own.is_none();
            let mut parameters = Parameters {
                q: q.into(),
                k: k.into(),
                v: v.into(),
                out: out.into(),
                own_k: own.map_or(View::NOTHING, |[k, _]| k.into()),
                own_v: own.map_or(View::NOTHING, |[_, v]| v.into()),
                tiles: 0,
                offsets: on_device.offsets.address(),
                positions: biases.positions,
                buckets: biases.buckets,
                begins: biases.begins,
                times: on_device.times.address(),
                until: on_device.until.address(),
                rows: q.rows() as u32,
                heads: heads as u32,
                known: biases.known,
                factor,
            };
            let shape = Shape { dim, value_dim, softmax, positioned, timed, precision: self.precision };
            let heads = heads as u32;
            // The copy engine knows no matrix of nothing.
            if tiles
                && self.is_hopper()
                && q.rows() > 0
                && let Some((program, shared)) = shape.hopper_program()
            {
                let panels = |x| self.panels(x, WIDE_TILE);
                let panels = [panels(q)?, panels(k)?, panels(v)?];
                parameters.tiles = on_device.wide_tiles.of.address();
                let blocks = [on_device.wide_tiles.count as u32, heads, 1];
                let grid = Grid { blocks, threads: HOPPER_THREADS, shared: shared as u32 };
                let parameters = HopperParameters { panels, of: parameters, unused: [0; 11] };
                // SAFETY: as below.
                return unsafe { self.launch(program.source, program.kernel, &program.variant, grid, &parameters) };
            }
            let (program, shared) = shape.program(last, own.is_some());
            let blocks = match (last, tiles) {
                (true, _) => batch.len(),
                (_, true) => on_device.tiles.count,
                _ => q.rows().div_ceil(TILE),
            };
            if tiles {
                parameters.tiles = on_device.tiles.of.address();
            }
            let grid = Grid { blocks: [blocks as u32, heads, 1], threads: THREADS, shared: shared as u32 };
            // SAFETY: matrices, offsets, times and biases are of the sizes that were checked, and what was copied for the
            // call is freed after the kernel.
            unsafe { self.launch(program.source, program.kernel, &program.variant, grid, &parameters) }
        })
    }

    pub(super) fn attend(
        &self,
        q: &Matrix,
        k: &Matrix,
        v: &Matrix,
        heads: usize,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Matrix {
        self.attention_of(Inputs { q, k, v, own: None }, heads, Scores::Softmax, batch, rows)
    }

    pub(super) fn silu_attend(
        &self,
        q: &Matrix,
        k: &Matrix,
        v: &Matrix,
        attention: &SiluAttention,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Matrix {
        self.attention_of(Inputs { q, k, v, own: None }, attention.heads, attention.into(), batch, rows)
    }

    /// Pointwise attention of all events without biases. No family computes it: it is what products and SiLU take by
    /// themselves, to be compared with.
    pub fn unbiased_attention(
        &self,
        [q, k, v]: [&Matrix; 3],
        heads: usize,
        divisor: f32,
        batch: &Sequences<'_>,
    ) -> Matrix {
        let scores = Scores::Silu { bias: None, divisor };
        self.attention_of(Inputs { q, k, v, own: None }, heads, scores, batch, Rows::All)
    }

    pub(super) fn silu_of_candidates(
        &self,
        q: &Matrix,
        own: [&Matrix; 2],
        past: [&Matrix; 2],
        attention: &SiluAttention,
        batch: &Sequences<'_>,
    ) -> Matrix {
        let [k, v] = past;
        self.attention_of(Inputs { q, k, v, own: Some(own) }, attention.heads, attention.into(), batch, Rows::All)
    }
}
