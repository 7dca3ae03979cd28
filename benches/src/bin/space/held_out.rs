//! Which events are learnt from.

use std::collections::BTreeMap;

use xtask::Dataset;
use xtask::data::Interaction;
use xtask::generate::Random;

/// What each user has touched, in its order.
pub fn histories(data: &Dataset) -> Vec<Vec<i64>> {
    let mut users: BTreeMap<i64, Vec<&Interaction>> = BTreeMap::new();
    data.interactions.iter().for_each(|event| users.entry(event.user_id).or_default().push(event));
    let ordered = |mut events: Vec<&Interaction>| {
        events.sort_by_key(|event| (event.at, event.position));
        events.into_iter().map(|event| event.item_id).collect()
    };
    users.into_values().map(ordered).collect()
}

/// A history in parts of 3 : 1 : 1, drawn at random.
pub struct Parts {
    pub learnt: Vec<i64>,
    pub validation: Vec<i64>,
    pub test: Vec<i64>,
}

/// Parts of each history, as in the published code of collaborative metric learning: of five events one to choose by and
/// one to measure by; of fewer than five all are learnt from.
pub fn three_to_one(histories: &[Vec<i64>], seed: u64) -> Vec<Parts> {
    let mut random = Random::new(seed);
    let part = |history: &Vec<i64>| {
        let mut items = history.clone();
        random.shuffle(&mut items);
        let fifth = if items.len() < 5 { 0 } else { items.len() / 5 };
        let test = items.split_off(items.len() - fifth);
        let validation = items.split_off(items.len() - fifth);
        Parts { learnt: items, validation, test }
    };
    histories.iter().map(part).collect()
}
