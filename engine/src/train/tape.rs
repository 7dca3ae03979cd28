//! Reverse-mode differentiation: the operators of a forward pass, remembered with their way back.
//!
//! A tape computes on one thread over one slice of a batch. What a way back needs is shared with the forward pass
//! and freed as soon as nobody needs it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrec_kernels::cpu::{Cpu, Matrix};
use pgrec_kernels::{
    Activation, Backward, LayerNorm, Linear, Noise, Operators, PairBias, Rows, Sequences, SiluAttention, Tensor,
};

use super::parameters::{Gradients, Parameter};

/// A matrix that was computed on a tape.
pub(crate) struct Var<M> {
    node: usize,
    value: Rc<M>,
}

impl<M> Var<M> {
    /// Its numbers.
    pub(crate) fn value(&self) -> &M {
        &self.value
    }

    fn share(&self) -> Rc<M> {
        Rc::clone(&self.value)
    }
}

/// The shares that fall away in training.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Dropout {
    /// Of numbers between layers.
    pub(crate) hidden: f32,
    /// Of attention weights.
    pub(crate) attention: f32,
}

impl Dropout {
    /// Both shares times `factor`.
    pub(crate) fn scaled(self, factor: f32) -> Self {
        Self { hidden: self.hidden * factor, attention: self.attention * factor }
    }
}

/// The way back of one operator: from the derivative of its result to those of its operands and weights.
type Step<'a, D> = Box<dyn FnOnce(&D, <D as Operators>::Matrix, &mut Flow<'_, D>) + 'a>;

/// Derivatives on their way back.
struct Flow<'g, D: Backward> {
    nodes: Vec<Option<D::Matrix>>,
    weights: &'g mut Gradients<D::Matrix>,
}

impl<D: Backward> Flow<'_, D> {
    fn add(&mut self, device: &D, node: usize, gradient: D::Matrix) {
        match &mut self.nodes[node] {
            Some(sum) => device.add(sum, &gradient),
            empty => *empty = Some(gradient),
        }
    }
}

/// A forward pass in the making.
pub(crate) struct Tape<'a, D: Backward> {
    device: &'a D,
    weights: &'a [Tensor],
    batch: Sequences<'a>,
    /// Others with a row for each of the batch's, that are looked up only.
    others: &'a [Sequences<'a>],
    /// One key a history, see [`Noise`].
    keys: &'a [u64],
    dropout: Dropout,
    sites: Cell<u32>,
    steps: RefCell<Vec<Step<'a, D>>>,
}

impl<'a, D: Backward> Tape<'a, D> {
    /// An empty tape over one slice of histories.
    pub(crate) fn new(
        device: &'a D,
        weights: &'a [Tensor],
        batch: Sequences<'a>,
        keys: &'a [u64],
        dropout: Dropout,
    ) -> Self {
        let (sites, steps) = (Cell::new(0), RefCell::new(Vec::new()));
        Self { device, weights, batch, others: &[], keys, dropout, sites, steps }
    }

    /// The same, on which other batches may be looked up too.
    pub(crate) fn with(self, others: &'a [Sequences<'a>]) -> Self {
        Self { others, ..self }
    }

    /// An empty one of the same weights and histories, for a slice that is taken in parts.
    pub(crate) fn another(&self) -> Self {
        let (sites, steps) = (Cell::new(0), RefCell::new(Vec::new()));
        Self { sites, steps, ..*self }
    }

    /// Goes back from the derivative of the loss by `output`, and adds the derivatives by weights to `gradients`.
    pub(crate) fn backward(self, output: &Var<D::Matrix>, gradient: D::Matrix, gradients: &mut Gradients<D::Matrix>) {
        self.backward_of([(output, gradient)], gradients);
    }

    /// The same from several outputs.
    pub(crate) fn backward_of<'o>(
        self,
        outputs: impl IntoIterator<Item = (&'o Var<D::Matrix>, D::Matrix)>,
        gradients: &mut Gradients<D::Matrix>,
    ) where
        D::Matrix: 'o,
    {
        let device = self.device;
        let mut steps = self.steps.into_inner();
        let mut flow = Flow { nodes: steps.iter().map(|_| None).collect(), weights: gradients };
        outputs.into_iter().for_each(|(output, gradient)| flow.add(device, output.node, gradient));
        while let Some(step) = steps.pop() {
            if let Some(gradient) = flow.nodes.pop().flatten() {
                step(device, gradient, &mut flow);
            }
        }
    }

    /// A result with its way back.
    fn push(&self, value: D::Matrix, step: impl FnOnce(&D, D::Matrix, &mut Flow<'_, D>) + 'a) -> Var<D::Matrix> {
        self.push_shared(Rc::new(value), step)
    }

    /// A result that its way back, too, looks at.
    fn push_shared(
        &self,
        value: Rc<D::Matrix>,
        step: impl FnOnce(&D, D::Matrix, &mut Flow<'_, D>) + 'a,
    ) -> Var<D::Matrix> {
        let mut steps = self.steps.borrow_mut();
        steps.push(Box::new(step));
        Var { node: steps.len() - 1, value }
    }

    /// An operator of the caller's own: `back` turns the derivative by its result into those by `operands`.
    pub(crate) fn apply(
        &self,
        operands: &[&Var<D::Matrix>],
        value: D::Matrix,
        back: impl FnOnce(&D, D::Matrix) -> Vec<D::Matrix> + 'a,
    ) -> Var<D::Matrix> {
        let nodes: Vec<usize> = operands.iter().map(|operand| operand.node).collect();
        self.push(value, move |device, dy, flow| {
            for (node, gradient) in nodes.into_iter().zip(back(device, dy)) {
                flow.add(device, node, gradient);
            }
        })
    }

    /// An activation on its own.
    pub(crate) fn activated(&self, x: &Var<D::Matrix>, activation: Activation) -> Var<D::Matrix> {
        let (node, input) = (x.node, x.share());
        self.push(self.device.activate(&input, activation), move |device, mut dy, flow| {
            device.activate_backward(&input, activation, &mut dy);
            flow.add(device, node, dy);
        })
    }

    /// A weight's numbers.
    pub(crate) fn tensor(&self, parameter: Parameter) -> Tensor {
        self.weights[parameter.0].clone()
    }

    fn linear_of(&self, layer: &Linear<Parameter>) -> Linear {
        Linear { weight: self.tensor(layer.weight), bias: layer.bias.map(|bias| self.tensor(bias)) }
    }

    fn noise(&self, rate: f32) -> Option<Noise<'a>> {
        let site = self.sites.get();
        self.sites.set(site + 1);
        (rate > 0.0).then_some(Noise { keys: self.keys, site, rate })
    }

    /// The numbers of a matrix nobody else looks at, or a copy of them.
    fn own(&self, x: Rc<D::Matrix>) -> D::Matrix {
        Rc::try_unwrap(x).unwrap_or_else(|shared| self.device.copy(&shared))
    }

    /// A batch that lives as long as the tape does.
    fn kept(&self, batch: &Sequences<'_>) -> Sequences<'a> {
        let same = |own: &&Sequences<'_>| own.items.as_ptr() == batch.items.as_ptr();
        *[&self.batch].into_iter().chain(self.others).find(same).unwrap_or(&self.batch)
    }

    fn is_own_batch(&self, batch: &Sequences<'_>) -> bool {
        batch.offsets.as_ptr() == self.batch.offsets.as_ptr()
    }
}

impl<D: Backward> Operators for Tape<'_, D> {
    type Matrix = Var<D::Matrix>;
    type Weight = Parameter;

    fn embed(&self, items: &Parameter, positions: &Parameter, scale: f32, batch: &Sequences<'_>) -> Self::Matrix {
        let (items, positions, batch) = (*items, *positions, self.kept(batch));
        let value = self.device.embed(&self.weights[items.0], &self.weights[positions.0], scale, &batch);
        self.push(value, move |device, dy, flow| {
            let (ditems, dpositions) = flow.weights.table_and(items, positions);
            device.embed_backward(&dy, scale, &batch, ditems, dpositions);
        })
    }

    fn layer_norm(&self, x: &Self::Matrix, norm: &LayerNorm<Parameter>) -> Self::Matrix {
        let own = LayerNorm {
            weight: norm.weight.map(|weight| self.tensor(weight)),
            bias: norm.bias.map(|bias| self.tensor(bias)),
            eps: norm.eps,
        };
        let (node, input, weight, bias) = (x.node, x.share(), norm.weight, norm.bias);
        self.push(self.device.layer_norm(&input, &own), move |device, dy, flow| {
            let (dweight, dbias) = match (weight, bias) {
                (Some(weight), bias) => {
                    let (dweight, dbias) = flow.weights.pair(weight, bias);
                    (Some(dweight), dbias)
                }
                (None, bias) => (None, bias.map(|bias| flow.weights.whole(bias))),
            };
            let dx = device.layer_norm_backward(&input, &own, &dy, dweight, dbias);
            flow.add(device, node, dx);
        })
    }

    fn linear(&self, x: &Self::Matrix, layer: &Linear<Parameter>, activation: Activation) -> Self::Matrix {
        // Where ReLU's result is positive its input was: it can be fused and needs nothing kept.
        let fused = if activation == Activation::Relu { Activation::Relu } else { Activation::Identity };
        let own = self.linear_of(layer);
        let (node, input, weight, bias) = (x.node, x.share(), layer.weight, layer.bias);
        let value = Rc::new(self.device.linear(&input, &own, fused));
        let result = (fused == Activation::Relu).then(|| Rc::clone(&value));
        let y = self.push_shared(value, move |device, mut dy, flow| {
            if let Some(result) = result {
                device.activate_backward(&result, Activation::Relu, &mut dy);
            }
            let (dweight, dbias) = flow.weights.pair(weight, bias);
            let dx = device.linear_backward(&input, &own, &dy, dweight, dbias);
            flow.add(device, node, dx);
        });
        if activation == fused {
            return y;
        }
        self.activated(&y, activation)
    }

    fn add(&self, x: &mut Self::Matrix, y: &Self::Matrix) {
        let (first, second) = (x.node, y.node);
        let mut sum = self.own(std::mem::replace(&mut x.value, y.share()));
        self.device.add(&mut sum, &y.value);
        *x = self.push(sum, move |device, dy, flow| {
            flow.add(device, second, device.copy(&dy));
            flow.add(device, first, dy);
        });
    }

    fn attention(
        &self,
        q: &Self::Matrix,
        k: &Self::Matrix,
        v: &Self::Matrix,
        heads: usize,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Self::Matrix {
        debug_assert!(self.is_own_batch(batch));
        assert_eq!(rows, Rows::All, "training looks at every event");
        let nodes = [q.node, k.node, v.node];
        let (q, k, v, batch) = (q.share(), k.share(), v.share(), self.batch);
        let noise = self.noise(self.dropout.attention);
        let (out, lse) = self.device.attention_forward(&q, &k, &v, heads, &batch, noise);
        let out = Rc::new(out);
        let result = Rc::clone(&out);
        self.push_shared(out, move |device, dy, flow| {
            let gradients = device.attention_backward(&q, &k, &v, &result, &lse, &dy, heads, &batch, noise);
            for (node, gradient) in nodes.into_iter().zip(gradients) {
                flow.add(device, node, gradient);
            }
        })
    }

    fn silu_attention(
        &self,
        q: &Self::Matrix,
        k: &Self::Matrix,
        v: &Self::Matrix,
        attention: &SiluAttention<Parameter>,
        batch: &Sequences<'_>,
        rows: Rows,
    ) -> Self::Matrix {
        debug_assert!(self.is_own_batch(batch));
        assert_eq!(rows, Rows::All, "training looks at every event");
        let nodes = [q.node, k.node, v.node];
        let (q, k, v, batch) = (q.share(), k.share(), v.share(), self.batch);
        let PairBias { positions, times } = attention.bias;
        let bias = PairBias { positions: self.tensor(positions), times: times.map(|times| self.tensor(times)) };
        let own = SiluAttention { bias, heads: attention.heads, divisor: attention.divisor };
        let out = self.device.silu_attention(&q, &k, &v, &own, &batch, rows);
        self.push(out, move |device, dy, flow| {
            let into = flow.weights.pair(positions, times);
            let gradients = device.silu_attention_backward(&q, &k, &v, &own, &batch, &dy, into);
            for (node, gradient) in nodes.into_iter().zip(gradients) {
                flow.add(device, node, gradient);
            }
        })
    }

    fn multiply(&self, x: &Self::Matrix, y: &Self::Matrix) -> Self::Matrix {
        let nodes = [x.node, y.node];
        let (x, y) = (x.share(), y.share());
        self.push(self.device.multiply(&x, &y), move |device, dy, flow| {
            flow.add(device, nodes[0], device.multiply(&dy, &y));
            flow.add(device, nodes[1], device.multiply(&dy, &x));
        })
    }

    fn last_rows(&self, x: &Self::Matrix, batch: &Sequences<'_>) -> Self::Matrix {
        debug_assert!(self.is_own_batch(batch));
        let (node, batch) = (x.node, self.batch);
        self.push(self.device.last_rows(&x.value, &batch), move |device, dy, flow| {
            let dx = device.last_rows_backward(&dy, &batch);
            flow.add(device, node, dx);
        })
    }

    fn l2_normalize(&self, x: &Self::Matrix) -> Self::Matrix {
        let (node, input) = (x.node, x.share());
        self.push(self.device.l2_normalize(&input), move |device, dy, flow| {
            let dx = device.l2_normalize_backward(&input, &dy);
            flow.add(device, node, dx);
        })
    }

    fn dropout(&self, x: Self::Matrix, batch: &Sequences<'_>) -> Self::Matrix {
        debug_assert!(self.is_own_batch(batch));
        let Some(noise) = self.noise(self.dropout.hidden) else { return x };
        let (node, batch) = (x.node, self.batch);
        let mut value = self.own(x.value);
        self.device.drop_out(&mut value, &batch, noise);
        self.push(value, move |device, mut dy, flow| {
            device.drop_out(&mut dy, &batch, noise);
            flow.add(device, node, dy);
        })
    }
}

impl Tape<'_, Cpu> {
    /// Σ weight·row of a table, for each of some lists of rows and weights.
    pub(crate) fn weighted_sums<'l>(
        &self,
        table: Parameter,
        lists: impl Iterator<Item = (&'l [u32], &'l [f32])>,
    ) -> Var<Matrix> {
        let rows = &self.weights[table.0];
        let (mut ends, mut terms, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for (ids, weights) in lists {
            let first = sums.len();
            sums.resize(first + rows.cols(), 0.0);
            for (&id, &weight) in ids.iter().zip(weights) {
                sums[first..].iter_mut().zip(rows.row(id as usize)).for_each(|(sum, x)| *sum += weight * x);
                terms.push((id, weight));
            }
            ends.push(terms.len());
        }
        self.push(Matrix::from_slice(&sums, rows.cols()), move |_, dy, flow| {
            let (into, mut first) = (flow.weights.table(table), 0);
            for (row, end) in ends.into_iter().enumerate() {
                for &(id, weight) in &terms[first..end] {
                    into.row_mut(id).iter_mut().zip(dy.row(row)).for_each(|(to, x)| *to += weight * x);
                }
                first = end;
            }
        })
    }
}
