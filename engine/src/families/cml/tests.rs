//! The gradient against differences of a loss in double precision, and the lists against all distances.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::batch::{self, Event, History, Pool};
use super::space::Space;
use super::{NAME, Params};
use crate::families::Training;
use crate::families::seen::Own;
use crate::random::SplitMix;
use crate::{Artifact, Control, Corpus, Error, ItemId, Query, families, testing};

/// Everything that is learnt, in double precision.
#[derive(Clone)]
struct Double {
    points: Vec<f64>,
    attention: Vec<f64>,
    recency: Vec<f64>,
}

impl Double {
    fn of(space: &Space) -> Self {
        let wide = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect();
        Self { points: wide(space.points.as_slice()), attention: wide(&space.attention), recency: wide(&space.recency) }
    }

    fn point(&self, dim: usize, item: u32) -> &[f64] {
        &self.points[item as usize * dim..][..dim]
    }
}

/// The loss of a batch as the paper has it, whose other items are those that the training draws. `weights` are the events'
/// factors, which have no gradient: made where there are none yet.
fn loss(
    at: &Double,
    params: &Params,
    histories: &[Vec<u32>],
    events: &[Event],
    key: u64,
    weights: &mut Vec<f64>,
) -> f64 {
    let (dim, items) = (params.dim, at.attention.len());
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let mut sum = 0.0;
    let mut learnt = Vec::new();
    for (number, event) in events.iter().enumerate() {
        let history = &histories[event.user as usize];
        let mut seen = history.clone();
        seen.sort_unstable();
        seen.dedup();
        let item = history[event.place as usize];
        learnt.push(item);
        let context = batch::context(history, event.place as usize, params);
        let logits: Vec<f64> = context
            .iter()
            .rev()
            .enumerate()
            .map(|(ago, &item)| at.attention[item as usize] + at.recency[ago])
            .collect();
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        let mut user = vec![0.0; dim];
        for (&item, logit) in context.iter().rev().zip(logits) {
            user.iter_mut().zip(at.point(dim, item)).for_each(|(u, x)| *u += logit.exp() / total * x);
        }
        let mut random = batch::random(key, number);
        let drawn = batch::others(
            History { events: history, seen: Own { items: &seen, filter: &[] } },
            params,
            Pool::All(items),
            &mut random,
        );
        let distances: Vec<f64> = drawn.map(|other| square(&user, at.point(dim, other))).collect();
        let own = params.margin + square(&user, at.point(dim, item));
        let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
        if weights.len() == number {
            let impostors = distances.iter().filter(|&&distance| distance < own).count();
            weights.push((1.0 + items as f64 * impostors as f64 / distances.len() as f64).ln());
        }
        sum += weights[number] * (own - least).max(0.0);
    }
    let n = learnt.len() as f64;
    let mean: Vec<f64> = (0..dim).map(|c| learnt.iter().map(|&item| at.point(dim, item)[c]).sum::<f64>() / n).collect();
    let entry = |a: usize, b: usize| {
        let centred = |item: u32, c: usize| at.point(dim, item)[c] - mean[c];
        learnt.iter().map(|&item| centred(item, a) * centred(item, b)).sum::<f64>() / n
    };
    let pairs = (0..dim).flat_map(|a| (0..dim).map(move |b| (a, b))).filter(|(a, b)| a != b);
    sum + n * params.covariance * pairs.map(|(a, b)| entry(a, b).powi(2)).sum::<f64>()
}

#[test]
fn without_an_order_a_point_is_made_of_the_latest_others() {
    let (events, params) = ([5, 6, 7, 8, 9], Params { window: 2, ordered: false, ..Params::default() });
    let all = (0..5).map(|place| batch::context(&events, place, &params).into_owned()).collect::<Vec<_>>();
    assert_eq!(all, [[8, 9], [8, 9], [8, 9], [7, 9], [7, 8]]);
    let wide = Params { window: 9, ..params };
    assert_eq!(batch::context(&events, 2, &wide).into_owned(), [5, 6, 8, 9]);
}

#[test]
fn gradients_are_differences_of_the_loss_in_double_precision() {
    let mut random = SplitMix::new(testing::fresh_seed());
    for (ordered, covariance, margin) in [(true, 0.0, 1.0), (true, 3.0, 0.3), (false, 3.0, 1.9)] {
        let params = Params { dim: 5, window: 4, ordered, covariance, margin, negatives: 3, ..Params::default() };
        let items = 40;
        let mut space = Space::new(&params, items, &mut random).unwrap();
        space.attention.iter_mut().for_each(|x| *x = random.truncated_normal());
        if ordered {
            space.recency.iter_mut().for_each(|x| *x = random.truncated_normal());
        }
        let histories: Vec<Vec<u32>> =
            (0..8).map(|user| (0..2 + user).map(|_| random.below(items) as u32).collect()).collect();
        let history = |user: u32| &histories[user as usize];
        let seen: Vec<Vec<u32>> = histories
            .iter()
            .map(|history| {
                let mut seen = history.clone();
                seen.sort_unstable();
                seen
            })
            .collect();
        let events: Vec<Event> = (0..8u32)
            .flat_map(|user| (1..history(user).len() as u32).map(move |place| Event { user, place }))
            .collect();
        let key = random.next();
        let of = |user: u32| History { events: history(user), seen: Own { items: &seen[user as usize], filter: &[] } };
        let told = batch::gradient(&space, &params, Pool::All(items), of, &events, key, &Control::default()).unwrap();
        let (at, mut weights) = (Double::of(&space), Vec::new());
        let value = loss(&at, &params, &histories, &events, key, &mut weights);
        assert!((told.loss - value).abs() < 1e-4 * value, "{} and {value}", told.loss);
        let (mut points, mut attention) = (vec![0.0f64; items * 5], vec![0.0f64; items]);
        let stretches = space.stretches();
        let all = (0..items.div_ceil(stretches.len())).flat_map(|place| told.shares.of_stretch(place, stretches));
        for share in all {
            let vector = told.shares.vector(&share, 5).unwrap_or(space.point(share.item));
            for (c, x) in vector.iter().enumerate() {
                points[share.item as usize * 5 + c] += f64::from(share.by * x);
            }
            attention[share.item as usize] += f64::from(share.attention);
        }
        let mut compare = |own: &[f64], table: fn(&mut Double) -> &mut Vec<f64>, what: &str| {
            for (place, own) in own.iter().enumerate() {
                let mut at_step = |step: f64| {
                    let mut moved = at.clone();
                    table(&mut moved)[place] += step;
                    loss(&moved, &params, &histories, &events, key, &mut weights)
                };
                let right = (at_step(1e-6) - at_step(-1e-6)) / 2e-6;
                assert!((own - right).abs() < 2e-3 * (1.0 + right.abs()), "{what} {place}: {own}, {right}");
            }
        };
        compare(&points, |at| &mut at.points, "point");
        compare(&attention, |at| &mut at.attention, "attention");
        if ordered {
            let recency: Vec<f64> = told.recency.iter().copied().map(f64::from).collect();
            compare(&recency, |at| &mut at.recency, "recency");
        } else {
            assert!(told.recency.iter().all(|&x| x == 0.0));
        }
    }
}

#[test]
fn points_stay_in_the_ball_and_are_the_same_by_any_number_of_threads() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 80, 50);
    let params = json!({ "dim": 7, "batch": 100, "epochs": 4, "window": 9, "learning_rate": 0.3 });
    let one = testing::fit_by_threads(NAME, &corpus, &params, 1);
    assert!(one == testing::fit_by_threads(NAME, &corpus, &params, 3), "threads change what is learnt");
    let model = families::open(Arc::new(Artifact::from_vec(one).unwrap())).unwrap();
    for item in 0..model.catalogue().len() as u32 {
        let square: f64 = model.item_vector(item).unwrap().iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!(square <= 1.0, "item {item}: {square}");
    }
}

#[test]
fn lists_are_the_nearest_items_and_scores_their_squared_distances() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 60, 40);
    let model = testing::fit(NAME, &corpus, json!({ "dim": 6, "epochs": 2, "window": 8 }));
    testing::check_lists(&*model, &testing::HISTORIES.map(|history| Query { history, ..Query::default() }));
    testing::check_scores(&*model, &testing::HISTORIES, |user, item| {
        -user.iter().zip(item).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
    });
}

#[test]
fn what_is_near_is_similar_and_explains() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 60, 40);
    let model = testing::fit(NAME, &corpus, json!({ "dim": 6, "epochs": 2, "window": 3 }));
    let query = Query { k: 4, ..Query::default() };
    let similar = model.similar(7, &query).unwrap();
    assert!(similar.len() == 4 && similar.iter().all(|scored| scored.item != 7));
    assert!(matches!(model.similar(40, &query), Err(Error::Parameter(_))));
    let asked = Query { history: &[9, 1, 2, 7], ..Query::default() };
    let why = model.explain(&asked, 7).unwrap();
    assert_eq!(
        why["nearest"][0],
        json!({ "item": 7, "events_ago": 0, "distance": 0.0, "share": why["nearest"][0]["share"] })
    );
    assert_eq!(why["events_used"], 3);
    let shares: f64 = (0..3).map(|place| why["nearest"][place]["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-5);
    let score = f64::from(model.score(&asked, &[7]).unwrap()[0]);
    assert!((why["score"].as_f64().unwrap() - score).abs() < 1e-5);
    assert!(matches!(model.explain(&Query::default(), 7), Err(Error::Data(_))));
    assert!(matches!(model.encode(&Query { history: &[40], ..Query::default() }), Err(Error::Parameter(_))));
}

#[test]
fn whoever_has_one_event_is_among_what_goes_with_it_and_the_next_moves_them() {
    let corpus = testing::kinds(testing::fresh_seed());
    for ordered in [true, false] {
        let params = json!({ "dim": 16, "ordered": ordered, "negatives": 5, "batch": 64, "epochs": 12 });
        let model = testing::fit(NAME, &corpus, params);
        let kind = |item: u32| match model.catalogue().id(item) {
            ItemId::Int(id) => id % 10,
            other => panic!("{other:?}"),
        };
        let alike = |item: u32| {
            let query = Query { history: &[item], k: 10, ..Query::default() };
            let list = model.recommend(&[query], &Control::default()).unwrap().remove(0);
            list.iter().filter(|scored| kind(scored.item) == kind(item)).count()
        };
        let alike = (0..120).map(alike).sum::<usize>() as f64 / 1200.0;
        assert!(alike > 0.8, "ordered {ordered}: {alike}");
        let encode = |history: &[u32]| model.encode(&Query { history, ..Query::default() }).unwrap();
        assert_ne!(encode(&[1]), encode(&[1, 2]));
    }
}

#[test]
fn what_nobody_has_touched_is_recommended_by_its_content_and_only_by_that() {
    let seed = testing::fresh_seed();
    for (features, attributes) in [("embedding", false), ("attributes", true), ("none", true)] {
        let corpus = testing::described(seed, attributes);
        let params =
            json!({ "dim": 16, "negatives": 5, "batch": 64, "epochs": 12, "features": features, "content_hidden": 32 });
        let model = testing::fit(NAME, &corpus, params);
        let untouched: Vec<u32> = (120..130).collect();
        let right = |item: u32| {
            let filter = Filter { exclude: &[], candidates: Some(&untouched) };
            let query = Query { history: &[item], k: 1, filter, ..Query::default() };
            model.recommend(&[query], &Control::default()).unwrap()[0][0].item % 10 == item % 10
        };
        let found = (0..120).filter(|&item| right(item)).count();
        match features {
            "none" => assert!(found < 60, "{features}: {found} of 120"),
            _ => assert!(found > 96, "{features}: {found} of 120"),
        }
        for item in 0..130 {
            let square: f64 = model.item_vector(item).unwrap().iter().map(|&x| f64::from(x).powi(2)).sum();
            assert!(square <= 1.0, "item {item}: {square}");
        }
    }
}

#[test]
fn distances_are_calibrated_on_what_was_not_learnt_from() {
    let seed = testing::fresh_seed();
    let corpus = testing::described_by(seed, false, 4000);
    let control = Control::default();
    let params =
        json!({ "dim": 16, "negatives": 5, "batch": 64, "epochs": 12, "features": "embedding", "content_hidden": 32 });
    let training = Training { leave_last: 2, seed, ..Training::new(&corpus, &params, &control) };
    let fitted = super::fit(&training).unwrap();
    let model =
        crate::families::open(Arc::new(Artifact::from_vec(fitted.artifact.finish().unwrap()).unwrap())).unwrap();
    for (placed, name) in [(false, "learnt"), (true, "placed")] {
        let figures = &fitted.metrics["calibration"][name];
        let of = |name: &str| figures[name].as_f64().unwrap();
        let found = model.calibration(placed).unwrap();
        assert!((found.a - of("a")).abs() < 1e-5 && (found.b - of("b")).abs() < 1e-5, "{name} {figures}");
        // Nearer is likelier, and that is worth something: whoever stays within a kind is told from all others.
        assert!(found.b > 1.0 && of("brier") < of("brier_of_rate"), "{name} {figures}");
        assert!((of("expected_rate") / of("rate")).ln().abs() < 0.7, "{name} {figures}");
        let rows = figures["reliability"].as_array().unwrap();
        let predicted: Vec<f64> = rows.iter().map(|row| row["predicted"].as_f64().unwrap()).collect();
        assert!(predicted.is_sorted() && rows.len() > 2, "{name} {figures}");
    }
    // Without content there is nothing to place items by, and of a handful of events nothing is said.
    let plain = testing::fit(NAME, &corpus, json!({ "dim": 8, "epochs": 1 }));
    assert!(plain.calibration(true).is_none());
    let few = testing::fit(NAME, &testing::corpus(&[&[1, 2, 3], &[2, 3, 4]]), json!({ "dim": 8, "epochs": 1 }));
    assert!(few.calibration(false).is_none());
}

#[test]
fn what_cannot_be_learnt_is_refused_in_words() {
    let corpus = testing::kinds(1);
    let control = Control::default();
    let fit = |corpus: &Corpus, params: Value| testing::try_fit(NAME, corpus, &params, &control);
    for (params, part) in [
        (json!({ "dim": 0 }), "dim is a whole number from 1"),
        (json!({ "epochs": 0 }), "epochs is a whole number from 1"),
        (json!({ "margin": 0 }), "margin is a number above 0"),
        (json!({ "covariance": -1 }), "covariance is a number from 0"),
        (json!({ "content_weight": -1 }), "content_weight is a number from 0"),
        (json!({ "features": "vectors" }), "unknown variant"),
        (json!({ "depth": 2 }), "unknown field"),
    ] {
        assert!(matches!(fit(&corpus, params.clone()), Err(Error::Parameter(why)) if why.contains(part)), "{params}");
    }
    assert!(matches!(fit(&testing::corpus(&[&[1], &[2]]), json!({})), Err(Error::Data(_))));
    for features in ["embedding", "attributes", "both"] {
        assert!(matches!(fit(&corpus, json!({ "features": features })), Err(Error::Data(_))));
    }
    let params = json!({ "dim": 1000 });
    let training = Training { memory: 1000, ..Training::new(&corpus, &params, &control) };
    assert!(matches!(super::fit(&training), Err(Error::Memory(_))));
    control.cancel();
    assert!(matches!(fit(&corpus, json!({})), Err(Error::Cancelled)));
}
