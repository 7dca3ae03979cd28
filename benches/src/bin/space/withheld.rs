//! A fifth of the items is withheld from training: who is recommended what nobody has touched.
//!
//! Users' events on these items are left out of what is learnt and of histories. Lists are ranked over all items, and over
//! the withheld ones alone, where chance finds k of n.

use std::collections::HashSet;

use anyhow::{Context, Result};
use pgrec_benches::{histories, real};
use xtask::generate::Random;
use xtask::{Dataset, Home, Progress};

use crate::Arguments;
use crate::fit::{CONTENT, Contestant, corpus};
use crate::measure::{Case, lists, ndcg, recall, shown};

const CONTESTANTS: [Contestant; 10] = [
    Contestant { label: "popularity", family: "popularity", params: "" },
    Contestant { label: "bpr", family: "bpr", params: "" },
    Contestant { label: "cml", family: "cml", params: "" },
    Contestant { label: "cml_content", family: "cml", params: CONTENT },
    Contestant { label: "cml_shuffled", family: "cml", params: CONTENT },
    Contestant { label: "content", family: "content", params: "" },
    Contestant { label: "content_shuffled", family: "content", params: "" },
    Contestant { label: "sasrec", family: "sasrec", params: "" },
    Contestant { label: "sasrec_content", family: "sasrec", params: CONTENT },
    Contestant { label: "sasrec_shuffled", family: "sasrec", params: CONTENT },
];

/// One item in so many is withheld.
const WITHHELD: usize = 5;
const K: usize = 10;

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    for name in &arguments.data {
        let Some(data) = real(home, progress, name)? else { continue };
        let users = histories(&data);
        for contestant in CONTESTANTS.iter().filter(|contestant| arguments.contest.wants(contestant.label)) {
            let mut figures = [const { Vec::new() }; 3];
            let (mut seconds, mut chance) = (0.0, 0.0);
            for seed in arguments.contest.all_seeds() {
                let split = Split::new(&data, &users, seed);
                let mut items = data.items.clone();
                if contestant.label.ends_with("_shuffled") {
                    shuffle(&mut items, seed);
                }
                let learnt = corpus(&items, split.learnt.iter().map(Vec::as_slice))?;
                let fitted = contestant.fit(&learnt, 0, seed, &arguments.contest.params)?;
                let cases = split.cases();
                let catalogue = fitted.model.catalogue();
                let mut among: Vec<u32> = split.withheld.iter().filter_map(|&id| catalogue.index_of_int(id)).collect();
                among.sort_unstable();
                let all = lists(&*fitted.model, &cases, K, None)?;
                let alone = lists(&*fitted.model, &cases, K, Some(&among))?;
                let [everywhere, there, order] = &mut figures;
                everywhere.extend(recall(&all, &cases, K));
                there.extend(recall(&alone, &cases, K));
                order.extend(ndcg(&alone, &cases, K));
                seconds += fitted.seconds / arguments.contest.seeds as f64;
                chance = K as f64 / split.withheld.len() as f64;
            }
            let [everywhere, there, order] = figures.map(|figures| shown(&figures));
            results.push(format!(
                "RESULT space.withheld.{name}.{} recall@10 of all {everywhere}, of the withheld {there} (chance {chance:.4}), ndcg@10 {order}, {seconds:.1} s",
                contestant.label
            ));
            println!("{}", results.last().context("no result")?);
        }
    }
    Ok(())
}

struct Split {
    withheld: HashSet<i64>,
    /// Histories without them.
    learnt: Vec<Vec<i64>>,
    /// What each user has touched of them.
    targets: Vec<Vec<i64>>,
}

impl Split {
    fn new(data: &Dataset, users: &[Vec<i64>], seed: u64) -> Self {
        let mut items: Vec<i64> = data.items.iter().map(|item| item.item_id).collect();
        Random::new(seed).shuffle(&mut items);
        items.truncate(items.len() / WITHHELD);
        let withheld: HashSet<i64> = items.into_iter().collect();
        let parted = users.iter().map(|history| history.iter().partition(|item| withheld.contains(item)));
        let (targets, learnt) = parted.unzip();
        Self { withheld, learnt, targets }
    }

    fn cases(&self) -> Vec<Case<'_>> {
        let users = self.learnt.iter().zip(&self.targets);
        let users = users.filter(|(history, targets)| !history.is_empty() && !targets.is_empty());
        users.map(|(history, targets)| Case { history, targets }).collect()
    }
}

/// Gives items each other's vectors and attributes.
fn shuffle(items: &mut [xtask::data::Item], seed: u64) {
    let mut of: Vec<_> = items.iter().map(|item| (item.attributes.clone(), item.embedding.clone())).collect();
    Random::new(!seed).shuffle(&mut of);
    items.iter_mut().zip(of).for_each(|(item, (attributes, embedding))| {
        item.attributes = attributes;
        item.embedding = embedding;
    });
}
