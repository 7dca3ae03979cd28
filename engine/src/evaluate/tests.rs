#![allow(clippy::unwrap_used)]

use pgrec_kernels::Scored;
use serde_json::{Value, json};

use super::*;
use crate::metrics::discount;
use crate::testing;
use crate::{Catalogue, ItemId};

/// A model over the items of another that always answers the same list, filtered.
struct Fixed {
    catalogue: Catalogue,
    list: Vec<u32>,
}

impl Fixed {
    /// `list` are item ids; the model knows the items of `corpus`.
    fn new(corpus: &Corpus, list: &[i64]) -> Self {
        let catalogue = testing::fit("popularity", corpus, json!({})).catalogue().clone();
        let list = list.iter().map(|&id| catalogue.index_of(&ItemId::Int(id)).unwrap()).collect();
        Self { catalogue, list }
    }
}

impl Model for Fixed {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        1
    }

    fn recommend(&self, queries: &[Query<'_>], _: &Control) -> Result<Vec<Vec<Scored>>> {
        let answer = |query: &Query<'_>| {
            let free = self.list.iter().filter(|item| query.filter.exclude.binary_search(item).is_err());
            let scored = free.enumerate().map(|(place, &item)| Scored { item, score: -(place as f32) });
            scored.take(if query.history.is_empty() { 0 } else { query.k }).collect()
        };
        Ok(queries.iter().map(answer).collect())
    }

    fn score(&self, _: &Query<'_>, _: &[u32]) -> Result<Vec<f32>> {
        unreachable!("an evaluation ranks")
    }

    fn similar(&self, _: u32, _: &Query<'_>) -> Result<Vec<Scored>> {
        unreachable!("an evaluation ranks")
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        unreachable!("an evaluation ranks")
    }

    fn explain(&self, _: &Query<'_>, _: u32) -> Result<Value> {
        unreachable!("an evaluation ranks")
    }
}

fn run(model: &dyn Model, corpus: &Corpus, spec: &Spec<'_>) -> Report {
    evaluate(model, corpus, spec, &Control::default()).unwrap()
}

fn near(found: Option<f64>, expected: f64) {
    assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?} is not {expected}");
}

#[test]
fn figures_are_those_computed_by_hand() {
    let corpus = testing::corpus(&[
        &[1, 2, 3], // target 3; 1 and 2 are seen: list 3 4 5, rank 1
        &[2, 4, 5], // list 1 3 5: rank 3
        &[4, 4, 4], // the target was seen and may be recommended all the same: list 1 2 3 4, rank 4
        &[5],       // too short
        &[],        // too short
    ]);
    let model = Fixed::new(&corpus, &[1, 2, 3, 4, 5]);
    let report = run(&model, &corpus, &Spec { ks: &[3, 10, 3], ..Spec::default() });
    assert_eq!((report.users, report.skipped, report.fallback, report.unknown_targets), (3, 2, 0, 0));
    near(report.value("hr", 3), 2.0 / 3.0);
    near(report.value("hr", 10), 1.0);
    near(report.value("ndcg", 3), (1.0 + 0.5) / 3.0);
    near(report.value("ndcg", 10), (1.0 + 0.5 + discount(3)) / 3.0);
    near(report.value("mrr", 10), (1.0 + 1.0 / 3.0 + 0.25) / 3.0);
    near(report.value("map", 10), (1.0 + 1.0 / 3.0 + 0.25) / 3.0);
    near(report.value("precision", 3), 2.0 / 9.0);
    near(report.value("recall", 3), 2.0 / 3.0);
    near(report.value("f1", 3), 1.0 / 3.0);
    // Lists of three: 3 4 5, 1 3 5 and 1 2 3.
    near(report.value("coverage", 3), 1.0);
    // Shown 2, 1, 3, 1, 2 times: ascending 1 1 2 2 3.
    near(report.value("gini", 3), (-4.0 - 2.0 + 0.0 + 4.0 + 12.0) / (4.0 * 9.0));
    // Users who had touched 1…5 before their target: 1, 2, 0, 2, 0.
    near(report.value("arp", 3), (2.0 / 3.0 + 1.0 / 3.0 + 3.0 / 3.0) / 3.0);
    let epc =
        |hit: f64, touched: f64, length: usize| hit * (1.0 - touched / 3.0) / (0..length).map(discount).sum::<f64>();
    near(report.value("epc", 3), (epc(1.0, 0.0, 3) + epc(0.5, 0.0, 3)) / 3.0);
    // 80 % of five touches are four: 2 and 4 are the head.
    near(report.value("aclt", 3), (2.0 + 3.0 + 2.0) / 3.0);
    let row = report.rows.iter().find(|row| row.metric == "hr" && row.k == 3).unwrap();
    let deviation = (2.0f64 * (1.0f64 / 3.0).powi(2) + (2.0f64 / 3.0).powi(2)) / 2.0;
    near(row.high, 2.0 / 3.0 + 1.96 * (deviation / 3.0).sqrt());
    assert!(report.rows.iter().all(|row| row.low.is_some() != ["coverage", "gini", "popreo"].contains(&row.metric)));
}

#[test]
fn validation_leaves_the_last_event_out() {
    let corpus = testing::corpus(&[&[1, 2, 3], &[1, 3]]);
    let model = Fixed::new(&corpus, &[2, 3]);
    let spec = Spec { protocol: Protocol::Validation, ks: &[1], ..Spec::default() };
    let report = run(&model, &corpus, &spec);
    assert_eq!((report.users, report.skipped), (1, 1));
    near(report.value("hr", 1), 1.0);
}

#[test]
fn seen_items_take_places_when_they_are_let_in() {
    let corpus = testing::corpus(&[&[1, 2, 3]]);
    let model = Fixed::new(&corpus, &[1, 2, 3]);
    near(run(&model, &corpus, &Spec { exclude_seen: false, ..Spec::default() }).value("mrr", 10), 1.0 / 3.0);
    near(run(&model, &corpus, &Spec::default()).value("mrr", 10), 1.0);
}

#[test]
fn a_model_of_other_items_is_measured_by_id() {
    // The model knows 2, 3, 4 as 0, 1, 2; the corpus knows 1, 2, 3, 9 as 0 … 3.
    let model = Fixed::new(&testing::corpus(&[&[2, 3, 4]]), &[3, 2, 4]);
    let corpus = testing::corpus(&[
        &[1, 2, 3], // history 2, target 3: rank 1
        &[2, 9],    // target unknown to the model: a miss
        &[1, 2],    // nothing in the history is known: popularity answers, 2 first
    ]);
    let report = run(&model, &corpus, &Spec { ks: &[3], ..Spec::default() });
    assert_eq!((report.users, report.unknown_targets, report.fallback), (3, 1, 1));
    near(report.value("hr", 3), 2.0 / 3.0);
    near(report.value("mrr", 3), 2.0 / 3.0);
    // The items of both together: 1, 2, 3, 4, 9.
    near(report.value("coverage", 3), 3.0 / 5.0);
}

#[test]
fn groups_part_the_users_and_add_up_to_all() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 300, 80);
    let labels: Vec<String> = (0..300).map(|user| format!("label {}", user % 7)).collect();
    let model = testing::fit("graph", &corpus.without_last(2), json!({}));
    for (by, most) in [(By::Activity, 4), (By::Popularity, 3), (By::Labels(&labels), 7), (By::Nothing, 0)] {
        let report = run(model.as_ref(), &corpus, &Spec { by, ..Spec::default() });
        let hits: Vec<&EvalRow> = report.rows.iter().filter(|row| row.metric == "hr").collect();
        assert!(hits.len() <= most + 1 && hits.len() > most.min(1), "{by:?}");
        assert_eq!((hits[0].grp.as_str(), hits[0].users), ("all", report.users));
        if most > 0 {
            assert_eq!(hits[1..].iter().map(|row| row.users).sum::<u64>(), report.users);
            let sum: f64 = hits[1..].iter().map(|row| row.value * row.users as f64).sum();
            assert!((sum / report.users as f64 - hits[0].value).abs() < 1e-9);
        }
    }
}

#[test]
fn thread_counts_do_not_change_a_figure() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 400, 70);
    let rows = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model = testing::fit("graph", &corpus.without_last(2), json!({}));
            run(model.as_ref(), &corpus, &Spec { ks: &[1, 10], by: By::Activity, ..Spec::default() }).rows
        })
    };
    assert_eq!(rows(1), rows(3));
}

#[test]
fn wrong_questions_get_an_error() {
    let corpus = testing::corpus(&[&[1, 2, 3]]);
    let model = Fixed::new(&corpus, &[1]);
    let control = Control::default();
    let ask = |corpus: &Corpus, spec: &Spec<'_>| evaluate(&model, corpus, spec, &control);
    for ks in [&[][..], &[0], &[10, 0]] {
        assert!(matches!(ask(&corpus, &Spec { ks, ..Spec::default() }), Err(Error::Parameter(_))));
    }
    let labels = Spec { by: By::Labels(&[]), ..Spec::default() };
    assert!(matches!(ask(&corpus, &labels), Err(Error::Parameter(_))));
    assert!(matches!(ask(&testing::corpus(&[&[1]]), &Spec::default()), Err(Error::Data(_))));
    assert!(matches!(ask(&Corpus::default(), &Spec::default()), Err(Error::Data(_))));
    control.cancel();
    assert!(matches!(ask(&corpus, &Spec::default()), Err(Error::Cancelled)));
}
