//! Which events are learnt from.

use xtask::generate::Random;

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
