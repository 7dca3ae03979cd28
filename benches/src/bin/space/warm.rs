//! Leave-one-out with and without content: of all users, and of those whose next item hardly anybody has touched.

use std::collections::HashMap;

use anyhow::{Context, Result};
use pgrec_benches::{histories, real};
use xtask::{Home, Progress};

use crate::Arguments;
use crate::fit::{CONTENT, Contestant, corpus};
use crate::measure::{Case, lists, ndcg, recall, shown};

const CONTESTANTS: [Contestant; 7] = [
    Contestant { label: "popularity", family: "popularity", params: "" },
    Contestant { label: "bpr", family: "bpr", params: "" },
    Contestant { label: "cml", family: "cml", params: "" },
    Contestant { label: "cml_content", family: "cml", params: CONTENT },
    Contestant { label: "content", family: "content", params: "" },
    Contestant { label: "sasrec", family: "sasrec", params: "" },
    Contestant { label: "sasrec_content", family: "sasrec", params: CONTENT },
];

/// Fewer events than these make a rare item.
const RARE: usize = 10;
const K: usize = 10;

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    for name in &arguments.data {
        let Some(data) = real(home, progress, name)? else { continue };
        let users = histories(&data);
        let all = corpus(&data.items, users.iter().map(Vec::as_slice))?;
        let mut events: HashMap<i64, usize> = HashMap::new();
        let learnt = users.iter().flat_map(|history| &history[..history.len().saturating_sub(2)]);
        learnt.for_each(|&item| *events.entry(item).or_default() += 1);
        let measured: Vec<&Vec<i64>> = users.iter().filter(|history| history.len() > 1).collect();
        let is_rare = |history: &[i64]| events.get(&history[history.len() - 1]).is_none_or(|&count| count < RARE);
        let rare: Vec<bool> = measured.iter().map(|history| is_rare(history)).collect();
        for contestant in CONTESTANTS.iter().filter(|contestant| arguments.contest.wants(contestant.label)) {
            let mut figures = [const { Vec::new() }; 4];
            let (mut seconds, mut validated) = (0.0, 0.0);
            for seed in arguments.contest.all_seeds() {
                let fitted = contestant.fit(&all, 2, seed, &arguments.contest.params)?;
                let cases: Vec<Case<'_>> = measured
                    .iter()
                    .map(|history| history.split_at(history.len() - 1))
                    .map(|(history, targets)| Case { history, targets })
                    .collect();
                let found = lists(&*fitted.model, &cases, K, None)?;
                let [hits, gains, rare_hits, rare_gains] = &mut figures;
                for (all, of_rare, values) in
                    [(hits, rare_hits, recall(&found, &cases, K)), (gains, rare_gains, ndcg(&found, &cases, K))]
                {
                    of_rare.extend(values.iter().zip(&rare).filter(|(_, rare)| **rare).map(|(value, _)| value));
                    all.extend(values);
                }
                seconds += fitted.seconds / arguments.contest.seeds as f64;
                validated += fitted.validated.unwrap_or(f64::NAN) / arguments.contest.seeds as f64;
            }
            let [hits, gains, rare_hits, rare_gains] = figures.map(|figures| shown(&figures));
            results.push(format!(
                "RESULT space.warm.{name}.{} hr@10 {hits} ndcg@10 {gains}, of {} users whose next item has fewer than {RARE} events {rare_hits} {rare_gains}, {seconds:.1} s; ndcg@10 of validation {validated:.4}",
                contestant.label,
                rare.iter().filter(|&&rare| rare).count(),
            ));
            println!("{}", results.last().context("no result")?);
        }
    }
    Ok(())
}
