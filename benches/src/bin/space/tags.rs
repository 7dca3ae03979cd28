//! citeulike-t: three of five papers of each user are learnt from, and which of all papers are recommended is measured by
//! the share of another fifth that is among them.

use anyhow::Result;
use xtask::{Dataset, Home, Progress};

use crate::Arguments;
use crate::fit::{Contestant, corpus};
use crate::held_out::{histories, three_to_one};
use crate::measure::{Case, lists, recall, shown};

const CONTESTANTS: [Contestant; 3] = [
    Contestant { label: "popularity", family: "popularity", params: "" },
    Contestant { label: "cml", family: "cml", params: UNORDERED },
    Contestant { label: "cml_tags", family: "cml", params: TAGS },
];

const UNORDERED: &str = r#""ordered": false"#;
const TAGS: &str = r#""ordered": false, "features": "attributes""#;

const KS: [usize; 2] = [50, 100];

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    let Some(folder) = home.data().map(|data| data.join("citeulike-t")).filter(|folder| folder.is_dir()) else {
        println!("citeulike-t: not there");
        return Ok(());
    };
    let data = progress.step("reading citeulike-t", |_| Dataset::load(&folder))?;
    let users = histories(&data);
    for contestant in CONTESTANTS.iter().filter(|contestant| arguments.wants(contestant.label)) {
        let (mut figures, mut chosen_by, mut seconds) = (KS.map(|_| Vec::new()), Vec::new(), 0.0);
        for seed in 1..=arguments.seeds {
            let parts = three_to_one(&users, seed);
            let learnt = corpus(&data.items, parts.iter().map(|parts| parts.learnt.as_slice()))?;
            let fitted = contestant.fit(&learnt, 0, seed, &arguments.params)?;
            let measured = || parts.iter().filter(|parts| !parts.test.is_empty());
            let cases: Vec<Case<'_>> =
                measured().map(|parts| Case { history: &parts.learnt, targets: &parts.test }).collect();
            let found = lists(&*fitted.model, &cases, KS[KS.len() - 1], None)?;
            figures.iter_mut().zip(KS).for_each(|(all, k)| all.extend(recall(&found, &cases, k)));
            let cases: Vec<Case<'_>> =
                measured().map(|parts| Case { history: &parts.learnt, targets: &parts.validation }).collect();
            chosen_by.extend(recall(&found, &cases, KS[0]));
            seconds += fitted.seconds / arguments.seeds as f64;
        }
        let [at_50, at_100] = figures.map(|figures| shown(&figures));
        let label = contestant.label;
        let validation = shown(&chosen_by);
        results.push(format!(
            "RESULT space.tags.{label} recall@50 {at_50} recall@100 {at_100}, {seconds:.1} s; recall@50 of the validation fifth {validation}"
        ));
        println!("{}", results.last().map_or("", String::as_str));
    }
    Ok(())
}
