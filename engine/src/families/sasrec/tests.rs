#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::{Block, Config, Nonlinearity, Positions};
use crate::families::neighbours::SEGMENT;
use crate::families::sequential::{Architecture, SCORED};
use crate::{Artifact, ArtifactBuilder, Control, Error, Model, Query, Scored, families};

const ITEMS: usize = 40;

fn config() -> Config {
    Config {
        dim: 8,
        blocks: 2,
        heads: 2,
        ffn: 16,
        window: 5,
        block: Block::Original,
        activation: Nonlinearity::Relu,
        item_scale: 8f64.sqrt(),
        norm_eps: 1e-8,
        positions: Positions::FromEnd,
        normalized: false,
    }
}

/// Fixed numbers between −1 and 1 without a pattern that matters.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn builder(config: &Config, items: usize, change: impl Fn(&str, &mut Vec<f32>)) -> ArtifactBuilder {
    let ids: Vec<i64> = (0..items as i64).map(|i| 10 * i).collect();
    let mut builder =
        ArtifactBuilder::new("sasrec", &serde_json::to_value(config).unwrap(), &ids.into(), &vec![0.0; items]);
    let weights = config.weights(items).into_iter().filter(|weight| weight.name != SCORED);
    for (seed, weight) in weights.enumerate() {
        let mut values = numbers(weight.shape.iter().product(), seed);
        change(&weight.name, &mut values);
        builder.f32(&weight.name, &weight.shape, values);
    }
    builder
}

fn open(builder: &ArtifactBuilder) -> crate::Result<Box<dyn Model>> {
    families::open(Arc::new(Artifact::from_vec(builder.finish().unwrap()).unwrap()))
}

fn model() -> Box<dyn Model> {
    open(&builder(&config(), ITEMS, |_, _| ())).unwrap()
}

fn ask(model: &dyn Model, query: Query<'_>) -> Vec<Scored> {
    model.recommend(&[query], &Control::default()).unwrap().remove(0)
}

fn items(list: &[Scored]) -> Vec<u32> {
    list.iter().map(|s| s.item).collect()
}

#[test]
fn only_the_window_counts() {
    let model = model();
    assert_eq!(model.window(), 5);
    let long: Vec<u32> = (0..30).map(|i| i * 3 % 17).collect();
    let whole = Query { history: &long, k: 10, ..Query::default() };
    let tail = Query { history: &long[25..], k: 10, ..Query::default() };
    assert_eq!(ask(&*model, whole), ask(&*model, tail));
    let shorter = Query { history: &long[26..], k: 10, ..Query::default() };
    assert_ne!(ask(&*model, whole), ask(&*model, shorter));
}

#[test]
fn positions_from_the_start_and_from_the_end_agree_on_full_windows_only() {
    let from_start = Config { positions: Positions::FromStart, ..config() };
    let from_start = open(&builder(&from_start, ITEMS, |_, _| ())).unwrap();
    let from_end = model();
    for (history, same) in [(&[1u32, 2, 3, 4, 5][..], true), (&[1, 2, 3], false)] {
        let query = Query { history, k: 5, ..Query::default() };
        assert_eq!(ask(&*from_start, query) == ask(&*from_end, query), same);
    }
}

#[test]
fn requests_at_the_edges_are_answered() {
    let model = model();
    assert!(ask(&*model, Query { history: &[], k: 10, ..Query::default() }).is_empty());
    assert!(ask(&*model, Query { history: &[1], k: 0, ..Query::default() }).is_empty());
    assert!(model.recommend(&[], &Control::default()).unwrap().is_empty());
    let all = ask(&*model, Query { history: &[1], k: usize::MAX, ..Query::default() });
    assert_eq!(all.len(), ITEMS);
    assert!(all.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.item < b.item)));
    assert!(matches!(model.encode(&Query::default()), Err(Error::Data(_))));
    assert!(matches!(model.score(&Query::default(), &[1]), Err(Error::Data(_))));
    assert!(matches!(model.explain(&Query::default(), 1), Err(Error::Data(_))));
    let beyond = ITEMS as u32;
    let query = Query { history: &[1], k: 3, ..Query::default() };
    let strange = Query { history: &[beyond], ..query };
    assert!(matches!(model.recommend(&[strange], &Control::default()), Err(Error::Parameter(_))));
    let strange = Query { filter: Filter { exclude: &[], candidates: Some(&[0, beyond]) }, ..query };
    assert!(matches!(model.recommend(&[strange], &Control::default()), Err(Error::Parameter(_))));
    assert!(matches!(model.similar(1, &strange), Err(Error::Parameter(_))));
    assert!(matches!(model.score(&query, &[beyond]), Err(Error::Parameter(_))));
    assert!(matches!(model.similar(beyond, &query), Err(Error::Parameter(_))));
    assert!(matches!(model.explain(&query, beyond), Err(Error::Parameter(_))));
}

#[test]
fn filters_remove_items_and_keep_the_order_of_the_others() {
    let model = model();
    let query = Query { history: &[3, 9, 27], k: ITEMS, ..Query::default() };
    let all = items(&ask(&*model, query));
    let exclude = [0, 5, 6, 39];
    let candidates = [1, 5, 8, 9, 30];
    let left = |keep: &dyn Fn(&u32) -> bool| all.iter().copied().filter(keep).collect::<Vec<_>>();
    let filter = Filter { exclude: &exclude, candidates: None };
    assert_eq!(items(&ask(&*model, Query { filter, ..query })), left(&|i| !exclude.contains(i)));
    let filter = Filter { exclude: &exclude, candidates: Some(&candidates) };
    let both = left(&|i| candidates.contains(i) && !exclude.contains(i));
    assert_eq!(items(&ask(&*model, Query { filter, ..query })), both);
    let filter = Filter { exclude: &[], candidates: Some(&[]) };
    assert!(ask(&*model, Query { filter, ..query }).is_empty());
}

#[test]
fn a_score_is_the_same_alone_and_in_a_list() {
    let model = model();
    let query = Query { history: &[3, 9, 27], k: 7, ..Query::default() };
    let list = ask(&*model, query);
    let mut wanted = items(&list);
    wanted.extend_from_within(..2);
    let scores = model.score(&query, &wanted).unwrap();
    for (score, item) in scores.iter().zip(list.iter().cycle()) {
        assert_eq!(*score, item.score);
    }
    assert!(model.score(&query, &[]).unwrap().is_empty());
}

#[test]
fn the_segment_finds_what_scoring_everything_finds() {
    let n = 2000;
    let mut built = builder(&config(), n, |_, _| ());
    let table = Artifact::from_vec(built.finish().unwrap()).unwrap().tensor("items").unwrap();
    let options = pgrec_kernels::SegmentOptions::default();
    let segment = pgrec_kernels::Segment::build(table.as_slice(), 8, &options, &|_| true).unwrap();
    built.bytes(SEGMENT, &segment);
    let model = open(&built).unwrap();
    let (mut found, mut wanted) = (0, 0);
    for user in 0..50u32 {
        let history: Vec<u32> = (0..4).map(|e| (user * 31 + e * 17) % n as u32).collect();
        let exact = Query { history: &history, k: 10, ..Query::default() };
        let best = ask(&*model, exact);
        let exclude = {
            let mut exclude = items(&best[..5]);
            exclude.sort_unstable();
            exclude
        };
        let filter = Filter { exclude: &exclude, candidates: None };
        for exact in [exact, Query { filter, ..exact }] {
            let best = ask(&*model, exact);
            let near = ask(&*model, Query { exact_limit: 1000, ..exact });
            assert_eq!(near.len(), 10);
            wanted += 10;
            found += best.iter().filter(|s| near.contains(s)).count();
        }
    }
    assert!(found * 100 >= wanted * 99, "{found} of {wanted}");
}

#[test]
fn similar_items_are_ranked_by_cosine() {
    let model = model();
    let query = Query { k: 5, ..Query::default() };
    let near = model.similar(4, &query).unwrap();
    let artifact = Artifact::from_vec(builder(&config(), ITEMS, |_, _| ()).finish().unwrap()).unwrap();
    let table = artifact.tensor("items").unwrap();
    let cosine = |a: usize, b: usize| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let (a, b) = (table.row(a), table.row(b));
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let mut all: Vec<(f64, u32)> = (0..ITEMS).filter(|&i| i != 4).map(|i| (cosine(4, i), i as u32)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!(items(&near), all[..5].iter().map(|&(_, i)| i).collect::<Vec<_>>());
    assert!((f64::from(near[0].score) - all[0].0).abs() < 1e-6);
    let everything = model.similar(4, &Query { k: 1000, ..query }).unwrap();
    assert_eq!(everything.len(), ITEMS - 1, "an item is not similar to itself");
    let filter = Filter { exclude: &[7], candidates: Some(&[4, 7, 8]) };
    assert_eq!(items(&model.similar(4, &Query { filter, ..query }).unwrap()), [8]);
}

#[test]
fn an_explanation_is_what_leaving_an_event_out_changes() {
    let model = model();
    let history = [30, 1, 2, 3, 4, 5, 6];
    let query = Query { history: &history, ..Query::default() };
    let explained = model.explain(&query, 11).unwrap();
    let score = model.score(&query, &[11]).unwrap()[0];
    assert!((explained["score"].as_f64().unwrap() - f64::from(score)).abs() < 1e-4);
    assert_eq!((&explained["window"], &explained["events_used"]), (&json!(5), &json!(5)));
    let contributions = explained["contributions"].as_array().unwrap();
    assert_eq!(contributions.len(), 5);
    for part in contributions {
        let place = history.len() - 1 - part["events_ago"].as_u64().unwrap() as usize;
        assert_eq!(part["item"], json!(history[place]));
        let rest = [&history[..place], &history[place + 1..]].concat();
        let without = model.score(&Query { history: &rest, ..query }, &[11]).unwrap()[0];
        let change = part["contribution"].as_f64().unwrap();
        assert!((change - f64::from(score - without)).abs() < 1e-4, "{part}");
    }
    let only = model.explain(&Query { history: &[8], ..Query::default() }, 11).unwrap();
    assert_eq!(only["contributions"][0]["contribution"], only["score"]);
}

#[test]
fn a_cancelled_call_stops() {
    let model = model();
    let control = Control::default();
    control.cancel();
    let queries = vec![Query { history: &[1, 2, 3], k: 3, ..Query::default() }; 10_000];
    for n in [1, 10_000] {
        assert!(matches!(model.recommend(&queries[..n], &control), Err(Error::Cancelled)));
    }
}

#[test]
fn weights_that_overflow_give_an_answer_without_a_panic() {
    let built = builder(&config(), ITEMS, |_, values| values.iter_mut().for_each(|v| *v *= 1e38));
    let model = open(&built).unwrap();
    let query = Query { history: &[1, 2, 3], k: 3, ..Query::default() };
    assert!(ask(&*model, query).len() <= 3);
    assert!(model.similar(1, &query).unwrap().len() <= 3);
    model.explain(&query, 1).unwrap();
}

#[test]
fn an_artifact_that_does_not_fit_its_configuration_is_refused() {
    let refused = |config: Value| {
        let good = self::config();
        let ids: Vec<i64> = (0..ITEMS as i64).collect();
        let mut built = ArtifactBuilder::new("sasrec", &config, &ids.into(), &[0.0; ITEMS]);
        for weight in good.weights(ITEMS) {
            built.f32(&weight.name, &weight.shape, vec![0.0; weight.shape.iter().product()]);
        }
        assert!(matches!(open(&built), Err(Error::Malformed(_))), "{config}");
    };
    let good = || serde_json::to_value(config()).unwrap();
    for (key, value) in [
        ("dim", json!(16)),
        ("dim", json!(0)),
        ("blocks", json!(3)),
        ("blocks", json!(1_000_000_000)),
        ("heads", json!(3)),
        ("ffn", json!(8)),
        ("window", json!(6)),
        ("norm_eps", json!(-1)),
        ("extra", json!(1)),
    ] {
        let mut config = good();
        config[key] = value;
        refused(config);
    }
    refused(json!({}));
    refused(json!("sasrec"));
}
