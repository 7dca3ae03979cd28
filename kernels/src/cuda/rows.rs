//! Operators that go row by row.

use super::driver::Grid;
use super::program::{Program, Source};
use super::{Cuda, CudaError, Matrix, View};
use crate::{LayerNorm, Sequences, Tensor};

const THREADS: u32 = 256;
/// Rows of a block at a time, one a warp.
const ROWS: usize = 8;
/// Blocks beyond which each takes several rows a warp.
const BLOCKS: usize = 1 << 16;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Embed {
    items: View,
    positions: View,
    item_ids: u64,
    position_ids: u64,
    out: View,
    rows: u32,
    cols: u32,
    scale: f32,
    unused: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Norm {
    x: View,
    gate: View,
    out: View,
    weight: u64,
    bias: u64,
    rows: u32,
    cols: u32,
    eps: f32,
    unused: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Pairs {
    x: View,
    y: View,
    out: View,
    rows: u32,
    cols: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Last {
    x: View,
    out: View,
    offsets: u64,
    histories: u32,
    cols: u32,
}

/// All kernels in both precisions.
pub(super) fn programs() -> Vec<Program> {
    let kernels = ["embed", "layer_norm", "l2_normalize", "add", "multiply", "last_rows"];
    let of = |kernel| [0, 1].map(|bf16| Program::new(Source::ROWS, kernel, &[("BF16", bf16)]));
    kernels.into_iter().flat_map(of).collect()
}

fn grid(rows: usize) -> Grid {
    Grid { blocks: [rows.div_ceil(ROWS).min(BLOCKS) as u32, 1, 1], threads: THREADS, shared: 0 }
}

impl Cuda {
    pub(super) fn embed_rows(&self, items: &Tensor, positions: &Tensor, scale: f32, batch: &Sequences<'_>) -> Matrix {
        let (events, dim) = (batch.items.len(), items.cols());
        assert_eq!(positions.cols(), dim, "position and item vectors differ in length");
        assert_eq!(batch.positions.len(), events, "a position for every event");
        self.computed(events, dim, |out| {
            let items = self.matrix(items, self.precision)?;
            let positions = self.matrix(positions, self.precision)?;
            let batch = self.batch(batch)?;
            let parameters = Embed {
                items: (&*items).into(),
                positions: (&*positions).into(),
                item_ids: batch.items.address(),
                position_ids: batch.positions.address(),
                out: out.into(),
                rows: events as u32,
                cols: dim as u32,
                scale,
                unused: 0,
            };
            // SAFETY: indices are in range, as the operator asks of its caller, and the rest is of these sizes.
            unsafe { self.launch(Source::ROWS, "embed", &[], grid(events), &parameters) }
        })
    }

    /// `kernel` is one of rows.cu that takes a [`Norm`].
    fn norm(&self, kernel: &'static str, x: &Matrix, norm: &LayerNorm, gate: Option<&Matrix>) -> Matrix {
        let (rows, cols) = (x.rows(), x.cols());
        self.computed(rows, cols, |out| {
            let [weight, bias] = [&norm.weight, &norm.bias].map(|vector| {
                vector.as_ref().map(|vector| {
                    assert_eq!(vector.as_slice().len(), cols, "a layer norm of {cols} columns");
                    self.vector(vector)
                })
            });
            let (weight, bias) = (weight.transpose()?, bias.transpose()?);
            let parameters = Norm {
                x: x.into(),
                gate: gate.map_or(View::NOTHING, View::from),
                out: out.into(),
                weight: weight.as_ref().map_or(0, |weight| weight.address()),
                bias: bias.as_ref().map_or(0, |bias| bias.address()),
                rows: rows as u32,
                cols: cols as u32,
                eps: norm.eps,
                unused: 0,
            };
            // SAFETY: matrices and vectors are of these sizes.
            unsafe { self.launch(Source::ROWS, kernel, &[], grid(rows), &parameters) }
        })
    }

    /// Normalised rows, times the gate where there is one.
    pub(super) fn norm_rows(&self, x: &Matrix, norm: &LayerNorm, gate: Option<&Matrix>) -> Matrix {
        self.norm("layer_norm", x, norm, gate)
    }

    pub(super) fn unit_rows(&self, x: &Matrix) -> Matrix {
        self.norm("l2_normalize", x, &LayerNorm { weight: None, bias: None, eps: 1e-6 }, None)
    }

    fn pairs(&self, kernel: &'static str, x: &Matrix, y: &Matrix, out: &Matrix) -> Result<(), CudaError> {
        let parameters =
            Pairs { x: x.into(), y: y.into(), out: out.into(), rows: x.rows() as u32, cols: x.cols() as u32 };
        // SAFETY: the callers made sure that the three are of one shape; a thread reads what it overwrites.
        unsafe { self.launch(Source::ROWS, kernel, &[], grid(x.rows()), &parameters) }
    }

    pub(super) fn add_rows(&self, x: &Matrix, y: &Matrix) {
        assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "sum of different shapes");
        self.attempt(|| self.pairs("add", x, y, x));
    }

    pub(super) fn multiply_rows(&self, x: &Matrix, y: &Matrix) -> Matrix {
        assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "product of different shapes");
        self.computed(x.rows(), x.cols(), |out| self.pairs("multiply", x, y, out))
    }

    pub(super) fn rows_asked(&self, x: &Matrix, batch: &Sequences<'_>) -> Matrix {
        check_offsets(batch, x);
        let (histories, cols) = (batch.len(), x.cols());
        assert!(batch.offsets.windows(2).all(|w| w[0] < w[1]), "an empty history has no last row");
        self.computed(histories, cols, |out| {
            let offsets = &self.batch(batch)?.offsets;
            let parameters = Last {
                x: x.into(),
                out: out.into(),
                offsets: offsets.address(),
                histories: histories as u32,
                cols: cols as u32,
            };
            // SAFETY: the offsets end at the rows of x.
            unsafe { self.launch(Source::ROWS, "last_rows", &[], grid(histories), &parameters) }
        })
    }
}

/// Panics unless the offsets ascend from 0 to the rows of `x`.
pub(super) fn check_offsets(batch: &Sequences<'_>, x: &Matrix) {
    let ascend = batch.offsets.windows(2).all(|w| w[0] <= w[1]) && batch.offsets.first().is_none_or(|&o| o == 0);
    assert!(ascend, "offsets of a batch must ascend from 0");
    assert_eq!(batch.offsets.last().copied().unwrap_or(0), x.rows(), "offsets of a batch must end at its rows");
}
