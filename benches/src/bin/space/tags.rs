//! citeulike-t: three of five papers of each user are learnt from, and which of all papers are recommended is measured by
//! the share of another fifth that is among them.

use anyhow::Result;
use pgrec_benches::{histories, real};
use xtask::{Home, Progress};

use crate::Arguments;
use crate::fit::{Contestant, corpus};
use crate::held_out::{Parts, three_to_one};
use crate::measure::{Case, lists, mean, recall, shown};
use crate::peer::Implicit;

const CONTESTANTS: [Contestant; 4] = [
    Contestant { label: "popularity", family: "popularity", params: "" },
    Contestant { label: "bpr", family: "bpr", params: BPR },
    Contestant { label: "cml", family: "cml", params: UNORDERED },
    Contestant { label: "cml_tags", family: "cml", params: TAGS },
];

/// As many epochs as are best for the peer, without a look at how they do, which it does not take either.
const BPR: &str = r#""epochs": 1000, "patience": 0, "validate_every": 1000, "validation_users": 1"#;
const UNORDERED: &str = r#""ordered": false"#;
/// The content weight is the best by the validation fifth, of 3 and 30.
const TAGS: &str = r#""ordered": false, "features": "attributes", "content_weight": 30"#;

const KS: [usize; 2] = [50, MOST];
const MOST: usize = 100;

/// What is measured of the lists of several splits.
#[derive(Default)]
struct Figures {
    recall: [Vec<f64>; KS.len()],
    /// Of the validation fifth, by the first of the lengths.
    validation: Vec<f64>,
    seconds: Vec<f64>,
}

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    let Some(data) = real(home, progress, "citeulike-t")? else { return Ok(()) };
    let users = histories(&data);
    for contestant in CONTESTANTS.iter().filter(|contestant| arguments.contest.wants(contestant.label)) {
        let mut figures = Figures::default();
        for seed in arguments.contest.all_seeds() {
            let parts = three_to_one(&users, seed);
            let learnt = corpus(&data.items, parts.iter().map(|parts| parts.learnt.as_slice()))?;
            let fitted = contestant.fit(&learnt, 0, seed, &arguments.contest.params)?;
            let histories: Vec<Case<'_>> =
                parts.iter().map(|parts| Case { history: &parts.learnt, targets: &[] }).collect();
            figures.add(&parts, &lists(&*fitted.model, &histories, MOST, None)?, fitted.seconds);
        }
        results.push(figures.line(contestant.label));
        println!("{}", results.last().map_or("", String::as_str));
    }
    if arguments.contest.wants("implicit_bpr") {
        match Implicit::new(home, progress) {
            Err(error) => progress.say(&format!("no peer, because implicit cannot be installed: {error:#}")),
            Ok(peer) => {
                let mut figures = Figures::default();
                for seed in arguments.contest.all_seeds() {
                    let parts = three_to_one(&users, seed);
                    let (lists, seconds) = peer.lists(&parts, MOST, seed)?;
                    figures.add(&parts, &lists, seconds);
                }
                results.push(figures.line("implicit_bpr"));
                println!("{}", results.last().map_or("", String::as_str));
            }
        }
    }
    Ok(())
}

impl Figures {
    /// Adds a list for each user of a split.
    fn add(&mut self, parts: &[Parts], lists: &[Vec<i64>], seconds: f64) {
        let measured = parts.iter().zip(lists).filter(|(parts, _)| !parts.test.is_empty());
        let (parts, lists): (Vec<&Parts>, Vec<Vec<i64>>) = measured.map(|(parts, list)| (parts, list.clone())).unzip();
        let cases = |of: fn(&Parts) -> &[i64]| -> Vec<Case<'_>> {
            parts.iter().map(|parts| Case { history: &parts.learnt, targets: of(parts) }).collect()
        };
        let test = cases(|parts| &parts.test);
        self.recall.iter_mut().zip(KS).for_each(|(all, k)| all.extend(recall(&lists, &test, k)));
        self.validation.extend(recall(&lists, &cases(|parts| &parts.validation), KS[0]));
        self.seconds.push(seconds);
    }

    fn line(&self, label: &str) -> String {
        let [at_50, at_100] = self.recall.each_ref().map(|figures| shown(figures));
        let (seconds, _) = mean(&self.seconds);
        format!(
            "RESULT space.tags.{label} recall@50 {at_50} recall@100 {at_100}, {} splits, {seconds:.1} s; recall@50 of the validation fifth {}",
            self.seconds.len(),
            shown(&self.validation)
        )
    }
}
