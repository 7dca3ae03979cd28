//! Stochastic gradient descent over strata.

use pgrec_kernels::cpu::{Cpu, Pairwise};
use rayon::prelude::*;

use super::strata::{Blocks, Event, Strata};
use super::{Negatives, Params, model};
use crate::families::epochs::{self, Learner, Length, Progress};
use crate::families::seen::Seen;
use crate::families::{Fitted, Training};
use crate::random::SplitMix;
use crate::train::{Metrics, Validation};
use crate::{ArtifactBuilder, Error, Result};

/// Deviation of the numbers that vectors begin with, times √dim.
const START: f32 = 0.1;
/// How often another item is drawn where it is one of the user's own.
const DRAWS: usize = 10;

pub(super) fn fit(training: &Training<'_>, params: &Params) -> Result<Fitted> {
    let learnt = training.corpus.without_last(training.leave_last);
    check_memory(training, params)?;
    let (histories, validation) = Validation::split(training, &learnt, params.validation_users, Metrics::RANKING);
    let users = histories.corpus.users();
    let of_user = |user: usize| histories.of(user).iter().map(move |&item| (user as u32, item));
    let events: Vec<(u32, u32)> = (0..users).flat_map(of_user).collect();
    if events.is_empty() {
        return Err(Error::Data("there is no event to learn from".into()));
    }
    let (items, width) = (learnt.items().len(), params.dim + 1);
    let mut random = SplitMix::new(training.seed);
    let scale = START / (params.dim as f32).sqrt();
    let vectors = (0..users * params.dim).map(|_| scale * random.truncated_normal()).collect();
    let start = |at: usize, random: &mut SplitMix| match at % width == params.dim {
        true => 0.0,
        false => scale * random.truncated_normal(),
    };
    let rows = (0..items * width).map(|at| start(at, &mut random)).collect();
    let factors = Factors {
        training,
        params,
        seen: Seen::new(&histories),
        counts: learnt.counts().into_iter().map(|count| count as f32).collect(),
        blocks: Blocks::new(users, items, events.len()),
        events,
        users: vectors,
        items: rows,
        random,
    };
    let &Params { epochs, patience, validate_every, .. } = params;
    epochs::fit(factors, training, &validation, Length { epochs, patience, every: validate_every })
}

fn check_memory(training: &Training<'_>, params: &Params) -> Result<()> {
    let (users, items) = (training.corpus.users(), training.corpus.items().len());
    // Vectors, items once more as they are dealt out, and twice as they are validated; events as they come, as they are
    // sorted, and as users have seen them.
    let rows = users.saturating_add(items.saturating_mul(4)).saturating_mul(params.dim + 1);
    let events = training.corpus.interactions().saturating_mul(5);
    let needed = rows.saturating_add(events).saturating_mul(size_of::<f32>());
    training.require_memory(needed, "vectors and events", "a smaller dim needs less")
}

/// What is learnt.
struct Factors<'a> {
    training: &'a Training<'a>,
    params: &'a Params,
    seen: Seen,
    /// Users and items.
    events: Vec<(u32, u32)>,
    counts: Vec<f32>,
    blocks: Blocks,
    /// `[users, dim]`
    users: Vec<f32>,
    /// `[items, dim + 1]`, the bias last.
    items: Vec<f32>,
    random: SplitMix,
}

impl Learner for Factors<'_> {
    fn steps(&self) -> u64 {
        self.blocks.count as u64
    }

    fn epoch(&mut self, _: u32, progress: &mut Progress<'_>) -> Result<f64> {
        let Self { blocks, params, .. } = *self;
        let (step, cpu) = (Pairwise { rate: params.learning_rate as f32, l2: params.l2 as f32 }, Cpu::new());
        let width = params.dim + 1;
        let strata = Strata::deal(blocks, self.items.len() / width, &self.events, &mut self.random);
        let mut dealt = Vec::with_capacity(self.items.len());
        for &item in &strata.items {
            dealt.extend_from_slice(&self.items[item as usize * width..][..width]);
        }
        for turn in 0..blocks.count {
            self.training.control.check()?;
            let mut items: Vec<&mut [f32]> = dealt.chunks_mut(blocks.items * width).collect();
            // The last blocks may be empty.
            items.resize_with(blocks.count, Default::default);
            items.rotate_left(turn);
            let key = self.random.next();
            let users = self.users.par_chunks_mut(blocks.users * params.dim).enumerate();
            let (seen, strata) = (&self.seen, &strata);
            let told: Vec<(usize, f64)> = users
                .zip(items)
                .map(|((block, users), items)| {
                    let of = (block + turn) % blocks.count;
                    let mut task = Task {
                        params,
                        step,
                        cpu,
                        seen,
                        strata,
                        first_user: block * blocks.users,
                        first_place: of * blocks.items,
                        drawn_from: strata.on(of),
                        users,
                        items,
                        random: SplitMix::new(key ^ block as u64),
                    };
                    let events = strata.of(block, of);
                    (events.len(), events.iter().map(|event| f64::from(task.step(*event))).sum())
                })
                .collect();
            let (events, loss) = told.iter().fold((0, 0.0), |(n, sum), (events, loss)| (n + events, sum + loss));
            progress.step(events, loss);
        }
        for (row, &item) in dealt.chunks_exact(width).zip(&strata.items) {
            self.items[item as usize * width..][..width].copy_from_slice(row);
        }
        let loss = progress.mean();
        match loss.is_finite() {
            true => Ok(loss),
            false => Err(Error::Data(format!("the loss is {loss}: lower learning_rate"))),
        }
    }

    fn artifact(&self) -> Result<ArtifactBuilder> {
        model::artifact(self.params, &self.items, self.training.corpus.items(), &self.counts)
    }
}

/// The steps of a stratum.
struct Task<'a> {
    params: &'a Params,
    step: Pairwise,
    cpu: Cpu,
    seen: &'a Seen,
    strata: &'a Strata,
    first_user: usize,
    first_place: usize,
    /// The events on the block's items.
    drawn_from: &'a [Event],
    users: &'a mut [f32],
    items: &'a mut [f32],
    random: SplitMix,
}

impl Task<'_> {
    /// One step by an event and another item, and the loss before it.
    fn step(&mut self, event: Event) -> f32 {
        let Some(other) = self.other(event.user) else { return 0.0 };
        let (dim, width) = (self.params.dim, self.params.dim + 1);
        let user = &mut self.users[(event.user as usize - self.first_user) * dim..][..dim];
        let [own, other] = [event.place as usize - self.first_place, other].map(|row| row * width..(row + 1) * width);
        // Another item is never the event's own: that the user has seen.
        let Ok([own, other]) = self.items.get_disjoint_mut([own, other]) else { return 0.0 };
        let x = self.cpu.pairwise(&self.step, user, own, other);
        // −ln σ(x); where σ is no number above 0, about −x.
        if x < -80.0 { -x } else { (1.0 + (-x).exp()).ln() }
    }

    /// An item of the block that the user has not touched, as a row of the block; nothing where hardly any is left.
    fn other(&mut self, user: u32) -> Option<usize> {
        let width = self.params.dim + 1;
        let Self { random, strata, seen, drawn_from, first_place, items, .. } = self;
        let rows = items.len() / width;
        let seen = seen.of(user);
        let mut draws = (0..DRAWS).map(|_| match self.params.negatives {
            Negatives::Uniform => random.below(rows),
            Negatives::Popular => drawn_from[random.below(drawn_from.len())].place as usize - *first_place,
        });
        draws.find(|row| !seen.holds(strata.items[*first_place + row]))
    }
}
