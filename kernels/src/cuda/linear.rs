//! Linear layers.

use super::driver::{Grid, Panels};
use super::matrix::Matrix;
use super::program::{Program, Source};
use super::{Cuda, CudaError, Precision, View};
use crate::{Activation, LayerNorm, Linear};

/// Columns of a block's tile.
const COLUMNS: usize = 64;
/// Layers of a launch.
const LAYERS: usize = 4;
/// Rows of a batch from which on a block takes twice as many, and Hopper's kernel is used: fewer would leave
/// multiprocessors idle.
pub(super) const MANY_ROWS: usize = 8192;
/// Hopper's kernels take tiles of so many rows, and so deep.
const HOPPER_ROWS: usize = 128;
const HOPPER_DEPTH: usize = 64;
/// What a multiprocessor of Hopper has to share.
const HOPPER_SHARED: usize = 227 << 10;
/// The widest rows that a block of Hopper keeps in shared memory.
const HOPPER_KEPT: usize = 512;
/// Threads that compute a tile on Hopper, and those of the warp and of the four warps beside them.
const TEAM: u32 = 256;
const WARP: u32 = 32;
const GROUP: u32 = 128;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Layer {
    weight: View,
    bias: u64,
    out: u64,
    out_stride: u32,
    cols: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Parameters {
    x: View,
    gate: View,
    residual: View,
    norm_weight: u64,
    norm_bias: u64,
    layers: [Layer; LAYERS],
    layer_count: u32,
    rows: u32,
    inputs: u32,
    eps: f32,
    tiles: u32,
    unused: u32,
}

/// Parameters on Hopper: matrices as the copy engine takes them first.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct HopperParameters {
    x: Panels,
    weights: [Panels; LAYERS],
    of: Parameters,
    /// Up to a multiple of 128 bytes, as the kernel's structure is aligned.
    unused: [u64; 1],
}

const _: () = assert!(size_of::<HopperParameters>().is_multiple_of(128));

/// A kernel of Hopper and what a block of it takes.
struct Hopper {
    program: Program,
    threads: u32,
    shared: usize,
    /// Blocks of a multiprocessor.
    resident: usize,
}

impl Hopper {
    /// Layers of rows as they lie in memory, with a residual or without.
    fn of_rows(columns: usize, activation: u32, residual: bool) -> Self {
        const STAGES: usize = 3;
        let left = STAGES * HOPPER_ROWS;
        let sizes = [columns, left, STAGES, 2];
        let more = [("RESIDUAL", u32::from(residual))];
        Self::new(Source::HOPPER_LINEAR, "hopper_linear", sizes, TEAM + WARP, activation, &more)
    }

    /// Layers of rows of so many numbers that it normalises; gated ones have a residual.
    fn of_normalized(inputs: usize, columns: usize, prologue: u32, activation: u32) -> Self {
        let panels = inputs.div_ceil(HOPPER_DEPTH).next_power_of_two();
        let left = panels * HOPPER_ROWS;
        // Two teams that take turns, or several blocks where they are small.
        let (teams, stages, threads) = if columns > COLUMNS { (2, 6, 2 * TEAM + GROUP) } else { (1, 4, TEAM + WARP) };
        let resident = if teams > 1 { 1 } else { (HOPPER_SHARED / Self::shared(left, stages, columns)).clamp(1, 3) };
        let residual = u32::from(prologue == 2);
        let more = [("LEFT_PANELS", panels as u32), ("TEAMS", teams), ("PROLOGUE", prologue), ("RESIDUAL", residual)];
        let sizes = [columns, left, stages, resident];
        Self::new(Source::HOPPER_NORM_LINEAR, "hopper_norm_linear", sizes, threads, activation, &more)
    }

    /// Shared memory of a block with so many rows of left tiles and so many stages.
    fn shared(left: usize, stages: usize, columns: usize) -> usize {
        // Barriers, up to a multiple, and what it takes to begin at one.
        2 * HOPPER_DEPTH * (left + stages * columns) + 1024 + 1024
    }

    fn new(
        source: Source,
        kernel: &'static str,
        [columns, left, stages, resident]: [usize; 4],
        threads: u32,
        activation: u32,
        more: &[(&'static str, u32)],
    ) -> Self {
        let shared = Self::shared(left, stages, columns);
        let mut variant = vec![
            ("COLUMNS", columns as u32),
            ("STAGES", stages as u32),
            ("ACTIVATION", activation),
            ("SHARED", shared as u32),
            ("RESIDENT", resident as u32),
            ("BF16", 1),
        ];
        variant.extend_from_slice(more);
        Self { program: Program::new(source, kernel, &variant), threads, shared, resident }
    }
}

/// What the left operand is made of.
#[derive(Clone, Copy)]
struct Left<'a> {
    x: &'a Matrix,
    norm: Option<&'a LayerNorm>,
    gate: Option<&'a Matrix>,
}

impl Left<'_> {
    fn prologue(&self) -> u32 {
        match (self.norm, self.gate) {
            (None, _) => 0,
            (Some(_), None) => 1,
            (Some(_), Some(_)) => 2,
        }
    }
}

fn activation_number(activation: Activation) -> u32 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Gelu => 2,
        Activation::Silu => 3,
    }
}

/// Rows, threads and bytes of shared memory of a block.
fn block(precision: Precision, row_tiles: usize) -> (usize, u32, usize) {
    match precision {
        Precision::F32 => (64, 256, 4 * (64 * 17 + 16 * COLUMNS + 2 * 64)),
        Precision::Bf16 => {
            let rows = 64 * row_tiles;
            (rows, 128, 2 * 2 * (rows * 64 + 64 * COLUMNS) + 4 * 2 * rows)
        }
    }
}

/// Variants of the kernel: those of HSTU, and one of every activation.
pub(super) fn programs() -> Vec<Program> {
    let of = |bf16, row_tiles, prologue, activation| {
        let variant = [("PROLOGUE", prologue), ("ACTIVATION", activation), ("ROW_TILES", row_tiles), ("BF16", bf16)];
        Program::new(Source::LINEAR, "linear", &variant)
    };
    let shapes = [(0, 0), (0, 1), (0, 2), (1, 3), (2, 0)];
    let both = shapes.iter().flat_map(|&(prologue, activation)| {
        [(0, 1), (1, 1), (1, 2)].map(|(bf16, row_tiles)| of(bf16, row_tiles, prologue, activation))
    });
    let plain = [(64, 0), (64, 1), (64, 2), (64, 3), (128, 0), (128, 1), (128, 3)];
    let plain = plain.map(|(columns, activation)| Hopper::of_rows(columns, activation, false));
    let added = [64, 128].map(|columns| Hopper::of_rows(columns, 0, true));
    let normalized = [(1, 3), (2, 0)].into_iter().flat_map(|(prologue, activation)| {
        [(64, 64), (128, 128), (256, 128), (512, 128)]
            .map(|(inputs, columns)| Hopper::of_normalized(inputs, columns, prologue, activation))
    });
    both.chain(plain.into_iter().chain(added).chain(normalized).map(|hopper| hopper.program)).collect()
}

impl Cuda {
    /// Layers of the same rows.
    fn layers<const N: usize>(
        &self,
        left: Left<'_>,
        layers: [&Linear; N],
        activation: Activation,
        residual: Option<&Matrix>,
    ) -> [Matrix; N] {
        assert!(N <= LAYERS, "{N} layers in one launch");
        let (rows, inputs) = (left.x.rows(), left.x.cols());
        for layer in layers {
            assert_eq!(layer.weight.rows(), inputs, "a layer of {inputs} inputs");
            let cols = layer.weight.cols();
            assert!(layer.bias.as_ref().is_none_or(|bias| bias.as_slice().len() == cols), "a bias of {cols} columns");
            assert!(residual.is_none_or(|x| (x.rows(), x.cols()) == (rows, cols)), "sum of different shapes");
        }
        assert!(left.gate.is_none_or(|gate| (gate.rows(), gate.cols()) == (rows, inputs)), "gate of another shape");
        let hopper = self.is_hopper() && self.precision == Precision::Bf16 && rows >= self.many_rows && inputs > 0;
        // Rows that no block of Hopper can keep are normalised before.
        let wide = left.norm.filter(|_| hopper && inputs > HOPPER_KEPT);
        let prepared = wide.map(|norm| self.norm_rows(left.x, norm, left.gate));
        let left = prepared.as_ref().map_or(left, |x| Left { x, norm: None, gate: None });
        let outs = layers.map(|layer| self.computed(rows, layer.weight.cols(), |_| Ok(())));
        self.attempt(|| self.start(left, layers, activation, residual, &outs, hopper));
        outs
    }

    fn start<const N: usize>(
        &self,
        left: Left<'_>,
        layers: [&Linear; N],
        activation: Activation,
        residual: Option<&Matrix>,
        outs: &[Matrix; N],
        hopper: bool,
    ) -> Result<(), CudaError> {
        let (rows, inputs) = (left.x.rows(), left.x.cols());
        let weights = layers.map(|layer| self.matrix(&layer.weight, self.precision));
        let biases = layers.map(|layer| layer.bias.as_ref().map(|bias| self.vector(bias)).transpose());
        let vector = |of: fn(&LayerNorm) -> Option<&crate::Tensor>| {
            left.norm.and_then(of).map(|vector| {
                assert_eq!(vector.as_slice().len(), inputs, "a layer norm of {inputs} columns");
                self.vector(vector)
            })
        };
        let norm_weight = vector(|norm| norm.weight.as_ref()).transpose()?;
        let norm_bias = vector(|norm| norm.bias.as_ref()).transpose()?;
        let mut parameters = Parameters {
            x: left.x.into(),
            gate: left.gate.map_or(View::NOTHING, View::from),
            residual: residual.map_or(View::NOTHING, View::from),
            norm_weight: norm_weight.as_ref().map_or(0, |buffer| buffer.address()),
            norm_bias: norm_bias.as_ref().map_or(0, |buffer| buffer.address()),
            layers: bytemuck::Zeroable::zeroed(),
            layer_count: N as u32,
            rows: rows as u32,
            inputs: inputs as u32,
            eps: left.norm.map_or(0.0, |norm| norm.eps),
            tiles: 0,
            unused: 0,
        };
        // GELU leaves too few registers for wide tiles.
        let narrow = outs.iter().all(|out| out.cols() <= COLUMNS) || activation == Activation::Gelu;
        let columns = if hopper && !narrow { 2 * COLUMNS } else { COLUMNS };
        let mut kept = Vec::new();
        for (place, ((weight, bias), out)) in weights.into_iter().zip(biases).zip(outs).enumerate() {
            let (weight, bias) = (weight?, bias?);
            parameters.layers[place] = Layer {
                weight: (&*weight).into(),
                bias: bias.as_ref().map_or(0, |bias| bias.address()),
                out: out.address(),
                out_stride: out.stride() as u32,
                cols: out.cols() as u32,
            };
            parameters.tiles += out.cols().div_ceil(columns) as u32;
            kept.push((weight, bias));
        }
        if hopper {
            let mut weights = [[0; 16]; LAYERS];
            for (panels, (weight, _)) in weights.iter_mut().zip(&kept).filter(|(_, (weight, _))| weight.cols() > 0) {
                *panels = self.panels(weight, HOPPER_DEPTH)?;
            }
            let x = self.panels(left.x, HOPPER_ROWS)?;
            let parameters = HopperParameters { x, weights, of: parameters, unused: [0; 1] };
            let activation = activation_number(activation);
            let row_tiles = rows.div_ceil(HOPPER_ROWS);
            let (Hopper { program, threads, shared, resident }, tiles) = match left.prologue() {
                0 => {
                    let all = row_tiles * parameters.of.tiles as usize;
                    (Hopper::of_rows(columns, activation, residual.is_some()), all)
                }
                prologue => (Hopper::of_normalized(inputs, columns, prologue, activation), row_tiles),
            };
            let blocks = tiles.min(resident * self.driver.multiprocessors());
            let grid = Grid { blocks: [blocks as u32, 1, 1], threads, shared: shared as u32 };
            // SAFETY: as below; what was prepared is freed after the kernel.
            return unsafe { self.launch(program.source, program.kernel, &program.variant, grid, &parameters) };
        }
        let row_tiles = if self.precision == Precision::Bf16 && rows >= self.many_rows { 2 } else { 1 };
        let (block_rows, threads, shared) = block(self.precision, row_tiles);
        let blocks = [rows.div_ceil(block_rows) as u32, parameters.tiles, 1];
        let variant = [
            ("PROLOGUE", left.prologue()),
            ("ACTIVATION", activation_number(activation)),
            ("ROW_TILES", row_tiles as u32),
        ];
        // SAFETY: matrices are of the shapes that were checked, and weights are kept until the kernel was started; what
        // is freed on the device is freed after it.
        unsafe {
            let grid = Grid { blocks, threads, shared: shared as u32 };
            self.launch(Source::LINEAR, "linear", &variant, grid, &parameters)
        }
    }

    pub(super) fn linear_rows(&self, x: &Matrix, layer: &Linear, activation: Activation) -> Matrix {
        let [out] = self.layers(Left { x, norm: None, gate: None }, [layer], activation, None);
        out
    }

    pub(super) fn norm_linear_rows<const N: usize>(
        &self,
        x: &Matrix,
        norm: &LayerNorm,
        layers: [&Linear; N],
        activation: Activation,
    ) -> [Matrix; N] {
        self.layers(Left { x, norm: Some(norm), gate: None }, layers, activation, None)
    }

    pub(super) fn gated_linear_rows(
        &self,
        gate: &Matrix,
        x: &Matrix,
        norm: &LayerNorm,
        layer: &Linear,
        residual: &Matrix,
    ) -> Matrix {
        let left = Left { x, norm: Some(norm), gate: Some(gate) };
        let [out] = self.layers(left, [layer], Activation::Identity, Some(residual));
        out
    }
}
