//! Folding against the loss it minimises, strata against their definition, and the model by what it ranks.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::NAME;
use super::folding::{Others, fold};
use super::strata::{Blocks, Strata};
use crate::families::Training;
use crate::families::moments::moments;
use crate::random::SplitMix;
use crate::{Control, Corpus, Error, Query, testing};

/// Σᵢ Eⱼ −ln σ(x(i) − x(j)) + λ/2 ‖p‖² for every i, and its derivative.
fn loss(user: &[f64], liked: &[usize], rows: &[f32], l2: f64) -> (f64, Vec<f64>) {
    let dim = user.len();
    let row = |item: usize, at: usize| f64::from(rows[item * (dim + 1) + at]);
    let score = |item: usize| (0..dim).map(|at| user[at] * row(item, at)).sum::<f64>() + row(item, dim);
    let items = rows.len() / (dim + 1);
    let cost = l2 * liked.len() as f64;
    let mut sum = cost / 2.0 * user.iter().map(|p| p * p).sum::<f64>();
    let mut slope: Vec<f64> = user.iter().map(|p| cost * p).collect();
    for &i in liked {
        for j in 0..items {
            let x = score(i) - score(j);
            sum += (1.0 + (-x).exp()).ln() / items as f64;
            let wrong = 1.0 / (1.0 + x.exp()) / items as f64;
            (0..dim).for_each(|at| slope[at] -= wrong * (row(i, at) - row(j, at)));
        }
    }
    (sum, slope)
}

#[test]
fn a_folded_vector_is_all_but_the_one_of_least_loss() {
    let mut random = SplitMix::new(testing::fresh_seed());
    for (dim, items, events, l2) in [(4, 60, 1, 0.03), (8, 200, 12, 0.03), (6, 90, 40, 0.003)] {
        let rows: Vec<f32> = (0..items * (dim + 1)).map(|_| 0.5 * random.truncated_normal()).collect();
        let liked: Vec<usize> = (0..events).map(|_| random.below(items)).collect();
        let (mean, covariance) = moments(&rows, dim + 1, &vec![1.0; items]).unwrap();
        let others = Others { dim, mean: &mean, covariance: &covariance };
        let folded = fold(&others, liked.iter().map(|&item| &rows[item * (dim + 1)..][..dim + 1]), l2);
        let mut best = vec![0.0; dim];
        for _ in 0..20_000 {
            let (_, slope) = loss(&best, &liked, &rows, l2);
            best.iter_mut().zip(slope).for_each(|(p, slope)| *p -= 0.1 / events as f64 * slope);
        }
        let of = |user: &[f64]| loss(user, &liked, &rows, l2).0;
        let own: Vec<f64> = folded.iter().map(|&x| f64::from(x)).collect();
        let (least, start) = (of(&best), of(&vec![0.0; dim]));
        let share = (of(&own) - least) / (start - least);
        assert!(share < 0.1, "dim {dim}: {share} of what was to be gained from {start} to {least} is missing");
    }
}

#[test]
fn tasks_of_a_turn_share_neither_users_nor_items() {
    let mut random = SplitMix::new(testing::fresh_seed());
    for (users, items, count) in [(500, 3000, 20_000), (3, 2000, 90_000), (1, 1, 4), (70, 300, 900)] {
        let events: Vec<(u32, u32)> =
            (0..count).map(|_| (random.below(users) as u32, random.below(items) as u32)).collect();
        let blocks = Blocks::new(users, items, count);
        let strata = Strata::deal(blocks, items, &events, &mut random);
        let mut left: HashMap<(u32, u32), i32> = HashMap::new();
        events.iter().for_each(|&event| *left.entry(event).or_default() += 1);
        for turn in 0..blocks.count {
            let (mut by_user, mut by_item) = (HashMap::new(), HashMap::new());
            for user_block in 0..blocks.count {
                let item_block = (user_block + turn) % blocks.count;
                for event in strata.of(user_block, item_block) {
                    let item = strata.items[event.place as usize];
                    *left.get_mut(&(event.user, item)).unwrap() -= 1;
                    assert_eq!(*by_user.entry(event.user).or_insert(user_block), user_block);
                    assert_eq!(*by_item.entry(item).or_insert(user_block), user_block);
                    assert_eq!(event.place as usize / blocks.items, item_block);
                }
            }
        }
        assert!(left.values().all(|&left| left == 0), "every event is in one stratum");
        let on: usize = (0..blocks.count).map(|block| strata.on(block).len()).sum();
        assert_eq!((on, strata.items.iter().collect::<HashSet<_>>().len()), (count, items));
    }
}

#[test]
fn threads_change_no_bit() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 600, 900);
    let params = json!({ "dim": 7, "epochs": 6, "learning_rate": 0.3 });
    let bytes = |threads: usize| testing::fit_by_threads(NAME, &corpus, &params, threads);
    assert!(bytes(1) == bytes(3));
}

#[test]
fn whoever_has_one_event_gets_what_goes_with_it_and_the_next_moves_them() {
    let corpus = testing::kinds(testing::fresh_seed());
    for negatives in ["uniform", "popular"] {
        let params = json!({ "dim": 16, "negatives": negatives, "epochs": 60 });
        let model = testing::fit(NAME, &corpus, params);
        // Items are numbered as their ids are: 10 n + kind.
        let alike = |item: u32| {
            let query = Query { history: &[item], k: 10, ..Query::default() };
            let list = model.recommend(&[query], &Control::default()).unwrap().remove(0);
            list.iter().filter(|scored| scored.item % 10 == item % 10).count()
        };
        let alike = (0..120).map(alike).sum::<usize>() as f64 / 1200.0;
        assert!(alike > 0.8, "{negatives}: {alike}");
        let encode = |history: &[u32]| model.encode(&Query { history, ..Query::default() }).unwrap();
        assert_ne!(encode(&[1]), encode(&[1, 2]));
        let similar = model.similar(7, &Query { k: 5, ..Query::default() }).unwrap();
        assert!(similar.len() == 5 && similar.iter().all(|scored| scored.item != 7 && scored.item % 10 == 7));
    }
}

#[test]
fn a_score_is_the_product_of_two_vectors_and_the_same_in_a_list_and_alone() {
    let corpus = testing::random_corpus(testing::fresh_seed(), 80, 40);
    let model = testing::fit(NAME, &corpus, json!({ "dim": 6, "epochs": 10, "window": 3 }));
    testing::check_lists(&*model, &testing::HISTORIES.map(|history| Query { history, ..Query::default() }));
    testing::check_scores(&*model, &testing::HISTORIES, testing::dot);
    let everything: Vec<u32> = (0..40).collect();
    for history in [&[3u32][..], &[9, 9, 4], &[1, 2, 3, 4, 5, 6, 7]] {
        let query = Query { history, ..Query::default() };
        let (user, scores) = (model.encode(&query).unwrap(), model.score(&query, &everything).unwrap());
        let why = model.explain(&query, 5).unwrap();
        assert_eq!(why["events_used"], history.len().min(3));
        assert!((why["score"].as_f64().unwrap() - f64::from(scores[5])).abs() < 1e-6);
        assert_eq!(
            user,
            model.encode(&Query { history: &history[history.len().saturating_sub(3)..], ..query }).unwrap()
        );
    }
    assert!(model.recommend(&[Query::default()], &Control::default()).unwrap()[0].is_empty());
    assert!(matches!(model.encode(&Query::default()), Err(Error::Data(_))));
    assert!(matches!(model.encode(&Query { history: &[40], ..Query::default() }), Err(Error::Parameter(_))));
}

#[test]
fn what_cannot_be_learnt_is_refused_in_words() {
    let corpus = testing::kinds(1);
    let control = Control::default();
    let fit = |corpus: &Corpus, params: Value| testing::try_fit(NAME, corpus, &params, &control);
    for (params, part) in [
        (json!({ "dim": 0 }), "dim is a whole number from 1"),
        (json!({ "validate_every": 0 }), "validate_every is a whole number from 1"),
        (json!({ "l2": 0 }), "l2 is a number above 0"),
        (json!({ "negatives": "hard" }), "unknown variant"),
        (json!({ "depth": 2 }), "unknown field"),
    ] {
        assert!(matches!(fit(&corpus, params.clone()), Err(Error::Parameter(why)) if why.contains(part)), "{params}");
    }
    assert!(matches!(fit(&testing::corpus(&[&[], &[]]), json!({})), Err(Error::Data(_))));
    let params = json!({ "dim": 1000 });
    let training = Training { memory: 1000, ..Training::new(&corpus, &params, &control) };
    assert!(matches!(super::fit(&training), Err(Error::Memory(_))));
    control.cancel();
    assert!(matches!(fit(&corpus, json!({})), Err(Error::Cancelled)));
}
