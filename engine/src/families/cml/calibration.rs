//! How likely a distance makes it that somebody's next new item is this one, measured on events that nothing was learnt
//! from (as Campo et al. 2018 calibrate what distances to a release say of who will see it).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Params;
use super::model::Cml;
use crate::calibration::{Logistic, Pair};
use crate::content::{Content, Learner};
use crate::evaluate::{Case, Cases, Space};
use crate::families::{Model, Training};
use crate::random::SplitMix;
use crate::train::{Options, Validation};
use crate::{Artifact, ArtifactBuilder, Error, Result};

/// `[2, 2]`: a and b, of items with points of their own, then of those that only content places. No number: not measured.
const CALIBRATION: &str = "calibration";

/// Users that are asked, at most.
const USERS: usize = 10_000;
/// Other items each is compared with.
const OTHERS: usize = 100;
/// One item in so many is held out of the network that stands for the model's own.
const HELD_OUT: usize = 10;
/// Items in one of its steps, passes over all of them, and its steps, at least and at most.
const ROWS: usize = 512;
const PASSES: usize = 20;
const STEPS: [usize; 2] = [500, 2_000];

/// What an artifact has.
pub(super) fn open(artifact: &Artifact) -> Result<[Option<Logistic>; 2]> {
    if !artifact.has(CALIBRATION) {
        return Ok([None; 2]);
    }
    let tensor = artifact.tensor_of(CALIBRATION, &[2, 2])?;
    let of = |row: usize| {
        let (a, b) = (f64::from(tensor.row(row)[0]), f64::from(tensor.row(row)[1]));
        (a.is_finite() && b.is_finite()).then_some(Logistic { a, b })
    };
    Ok([of(0), of(1)])
}

/// Measures a model that is whole but for this, adds what was found to its artifact, and gives the figures: of items with
/// points (`learnt`), and of those that only content places (`placed`). Nothing where too few events were held out.
pub(super) fn calibrate(
    training: &Training<'_>,
    params: &Params,
    validation: &Validation,
    content: Option<&Content>,
    counts: &[f32],
    artifact: &mut ArtifactBuilder,
) -> Result<Map<String, Value>> {
    let model = Cml::open(&Arc::new(Artifact::from_vec(artifact.finish()?)?))?;
    let corpus = validation.corpus().sample(USERS);
    let cases = Cases::of(&corpus, validation.protocol());
    let space = Space::new(model.catalogue(), &corpus, &cases);
    let asked = Asked { model: &model, cases: space.prepare(&cases, &cases.users, true), training };
    let touched: Vec<u32> = (0..counts.len() as u32).filter(|&item| counts[item as usize] > 0.0).collect();
    let mut found = vec![(0, "learnt", asked.measure(&touched, |item| model.point(item))?)];
    if let Some(content) = content {
        let (known, _) = content.parted(counts);
        let (held_out, others) = parted(&known, training.seed);
        let places = places(training, params, content, &model, &others, &held_out)?;
        let place = |item: u32| &places[held_out.partition_point(|&other| other < item) * params.dim..][..params.dim];
        found.push((1, "placed", asked.measure(&held_out, place)?));
    }
    let mut numbers = vec![f32::NAN; 4];
    let mut figures = Map::new();
    for (row, name, measured) in found {
        let Some((Logistic { a, b }, judged)) = measured else { continue };
        (numbers[2 * row], numbers[2 * row + 1]) = (a as f32, b as f32);
        figures.insert(name.to_owned(), judged);
    }
    artifact.f32(CALIBRATION, &[2, 2], numbers);
    Ok(figures)
}

/// Items that are held out, ascending, and the others.
fn parted(items: &[u32], seed: u64) -> (Vec<u32>, Vec<u32>) {
    items.iter().partition(|&&item| SplitMix::new(seed ^ u64::from(item)).below(HELD_OUT) == 0)
}

/// Where items are placed that the network has not learnt from (`[held out, dim]`): by another one, which learns the points
/// of all others.
fn places(
    training: &Training<'_>,
    params: &Params,
    content: &Content,
    model: &Cml,
    others: &[u32],
    held_out: &[u32],
) -> Result<Vec<f32>> {
    let mut learner = Learner::new(content, params.content_hidden, params.dim, &options(params), !training.seed)?;
    let mut random = SplitMix::new(!training.seed);
    let steps = (others.len().div_ceil(ROWS) * PASSES).clamp(STEPS[0], STEPS[1]);
    training.control.enter("calibrating", steps as u64);
    let (mut order, mut next) = (others.to_vec(), others.len());
    for _ in 0..steps {
        if next >= order.len() {
            random.shuffle(&mut order);
            next = 0;
        }
        let items = &order[next..order.len().min(next + ROWS)];
        let points: Vec<f32> = items.iter().flat_map(|&item| model.point(item)).copied().collect();
        learner.step(items, &points);
        next += ROWS;
        training.control.advance(1)?;
    }
    let mut places = learner.places(held_out);
    places.chunks_exact_mut(params.dim).for_each(|place| {
        super::space::into_ball(place);
    });
    Ok(places)
}

/// How networks that place items learn.
pub(super) fn options(params: &Params) -> Options {
    Options { learning_rate: params.content_learning_rate, weight_decay: params.content_decay, ..Options::default() }
}

/// Users whose next event is known.
struct Asked<'a> {
    model: &'a Cml,
    cases: Vec<Case>,
    training: &'a Training<'a>,
}

impl Asked<'_> {
    /// Fits by half of the users and judges by the other half, given where `items` (ascending) are.
    fn measure<'p>(&self, items: &[u32], place: impl Fn(u32) -> &'p [f32]) -> Result<Option<(Logistic, Value)>> {
        let mut random = SplitMix::new(self.training.seed);
        let (mut fitted, mut judged) = (Vec::new(), Vec::new());
        for case in &self.cases {
            self.training.control.check()?;
            let pairs = if random.below(2) == 0 { &mut fitted } else { &mut judged };
            match self.pairs(case, items, &place, &mut random) {
                Ok(new) => pairs.extend(new),
                // Whoever has touched nothing that the model knows is nowhere.
                Err(Error::Data(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // Where what is near is no likelier, distances say nothing.
        let found = Logistic::fit(&fitted).filter(|logistic| logistic.b > 0.0);
        Ok(found.and_then(|logistic| Some((logistic, logistic.judge(&judged)?))))
    }

    /// What one user tells of some items: of the next, where that is one of these, and of others drawn, each for as many as
    /// it was drawn from.
    fn pairs<'p>(
        &self,
        case: &Case,
        items: &[u32],
        place: &impl Fn(u32) -> &'p [f32],
        random: &mut SplitMix,
    ) -> Result<Vec<Pair>> {
        let query = case.query();
        let mut seen = query.history.to_vec();
        seen.sort_unstable();
        seen.dedup();
        if seen.binary_search(&case.target).is_ok() {
            return Ok(Vec::new());
        }
        let user = self.model.user(query.history)?;
        let distance = |item: u32| {
            let square: f32 = user.iter().zip(place(item)).map(|(u, v)| (u - v) * (u - v)).sum();
            f64::from(square.sqrt())
        };
        let mut pairs = Vec::new();
        if items.binary_search(&case.target).is_ok() {
            pairs.push(Pair { distance: distance(case.target), happened: true, weight: 1.0 });
        }
        let other = |item: &u32| *item != case.target && seen.binary_search(item).is_err();
        let drawn: Vec<u32> = match items.len() <= 2 * OTHERS {
            true => items.iter().copied().filter(other).collect(),
            false => (0..OTHERS).map(|_| items[random.below(items.len())]).filter(other).collect(),
        };
        // Of those drawn, which are as many as they would be, the share that is other items.
        let by = if items.len() <= 2 * OTHERS { 1.0 } else { items.len() as f64 / OTHERS as f64 };
        pairs.extend(drawn.into_iter().map(|item| Pair { distance: distance(item), happened: false, weight: by }));
        Ok(pairs)
    }
}
