use std::collections::{HashMap, HashSet};

use super::*;
use crate::data::Interaction;

/// Each user's events in order.
fn histories(data: &Dataset) -> HashMap<i64, Vec<Interaction>> {
    let mut histories: HashMap<i64, Vec<Interaction>> = HashMap::new();
    data.interactions.iter().for_each(|&event| histories.entry(event.user_id).or_default().push(event));
    histories
}

#[test]
fn the_same_seed_gives_the_same_shop_and_another_seed_another() {
    let shop = Shop { users: 50, items: 60, events: 800, ..Shop::default() };
    assert_eq!(generate(&shop), generate(&shop));
    assert_ne!(generate(&shop), generate(&Shop { seed: 8, ..shop }));
}

#[test]
fn sizes_are_as_asked() {
    let shop = Shop::default();
    let data = generate(&shop);
    assert_eq!((data.interactions.len(), data.items.len(), data.users()), (60_000, 800, 2_000));
    assert_eq!(data.dimension(), Some(32));
}

#[test]
fn nobody_takes_an_item_twice_and_time_always_advances() {
    for events in histories(&generate(&Shop::default())).values() {
        let items: HashSet<i64> = events.iter().map(|event| event.item_id).collect();
        assert_eq!(items.len(), events.len());
        assert!(events.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert!(events.len() >= 5);
    }
}

#[test]
fn popularity_falls_like_zipf() {
    let data = generate(&Shop::default());
    let mut counts: HashMap<i64, usize> = HashMap::new();
    data.interactions.iter().for_each(|event| *counts.entry(event.item_id).or_default() += 1);
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let share = |top: usize| counts[..top].iter().sum::<usize>() as f64 / data.interactions.len() as f64;
    // Uniform popularity would give the first tenth a tenth, and half the events to half the items.
    assert!(share(80) > 0.25, "{}", share(80));
    assert!(share(400) > 0.70, "{}", share(400));
}

#[test]
fn users_stay_near_their_tastes() {
    let data = generate(&Shop::default());
    let department: HashMap<i64, &str> =
        data.items.iter().map(|item| (item.item_id, item.attributes[0].as_str())).collect();
    let histories = histories(&data);
    let favourite_share = histories.values().map(|events| {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        events.iter().for_each(|event| *counts.entry(department[&event.item_id]).or_default() += 1);
        counts.into_values().max().unwrap_or(0) as f64 / events.len() as f64
    });
    let mean = favourite_share.sum::<f64>() / 2_000.0;
    // Twelve clusters without taste would give about a quarter at these lengths.
    assert!(mean > 0.5, "{mean}");
}

#[test]
fn the_next_item_is_often_a_successor_of_the_last() {
    let shop = Shop::default();
    let catalogue = Catalogue::new(&shop, &mut Random::new(shop.seed));
    let data = generate(&shop);
    let (mut hits, mut pairs) = (0_usize, 0_usize);
    for events in histories(&data).values() {
        for pair in events.windows(2) {
            let (last, next) = (pair[0].item_id as usize - 1, pair[1].item_id as usize - 1);
            hits += usize::from(catalogue.successors[last].contains(&next));
            pairs += 1;
        }
    }
    let share = hits as f64 / pairs as f64;
    assert!((0.3..0.6).contains(&share), "{share}");
}

#[test]
fn vectors_of_a_department_are_closer_than_others() {
    let data = generate(&Shop::default());
    let vector = |item: usize| data.items[item].embedding.clone().unwrap_or_default();
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    // Item n is of department n modulo 12.
    let same = (0..200).map(|item| cosine(&vector(item), &vector(item + 12))).sum::<f32>() / 200.0;
    let other = (0..200).map(|item| cosine(&vector(item), &vector(item + 5))).sum::<f32>() / 200.0;
    assert!(same > 0.5 && other < 0.3, "{same} {other}");
}

#[test]
fn titles_differ() {
    let data = generate(&Shop::default());
    let titles: HashSet<&str> = data.items.iter().map(|item| item.title.as_str()).collect();
    assert_eq!(titles.len(), data.items.len());
}

#[test]
fn absurd_sizes_end_and_stay_in_bounds() {
    for (users, items, events) in [(0, 0, 0), (0, 10, 10), (5, 1, 100), (3, 10, 2), (10, 7, 1_000), (4, 0, 10)] {
        let shop = Shop { users, items, events, ..Shop::default() };
        let data = generate(&shop);
        assert!(data.interactions.len() <= events, "{shop:?}");
        assert_eq!(data.items.len(), items);
    }
    assert_eq!(generate(&Shop { dimension: 0, ..Shop::default() }).dimension(), None);
}
