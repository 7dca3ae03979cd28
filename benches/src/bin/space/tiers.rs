//! Leave-one-out by how much users have done before: frequent and casual ones.

use anyhow::{Context, Result};
use pgrec_benches::{histories, real};
use pgrec_engine::Control;
use pgrec_engine::evaluate::{By, Spec, evaluate};
use xtask::{Home, Progress};

use crate::Arguments;
use crate::fit::{CONTENT, Contestant, corpus};

const CONTESTANTS: [Contestant; 4] = [
    Contestant { label: "popularity", family: "popularity", params: "" },
    Contestant { label: "cml", family: "cml", params: "" },
    Contestant { label: "cml_content", family: "cml", params: CONTENT },
    Contestant { label: "content", family: "content", params: "" },
];

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    for name in &arguments.data {
        let Some(data) = real(home, progress, name)? else { continue };
        let users = histories(&data);
        let all = corpus(&data.items, users.iter().map(Vec::as_slice))?;
        for contestant in CONTESTANTS.iter().filter(|contestant| arguments.contest.wants(contestant.label)) {
            let fitted = contestant.fit(&all, 2, 1, &arguments.contest.params)?;
            let spec = Spec { by: By::Activity, ..Spec::default() };
            let report = evaluate(&*fitted.model, &all, &spec, &Control::default())?;
            let rows = report.rows.iter().filter(|row| row.metric == "hr");
            let shown = rows.map(|row| {
                let (low, high) = (row.low.unwrap_or(f64::NAN), row.high.unwrap_or(f64::NAN));
                format!("{} {:.4} ({low:.4} … {high:.4})", row.grp, row.value)
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            results.push(format!("RESULT space.tiers.{name}.{} hr@10 {shown}", contestant.label));
            println!("{}", results.last().context("no result")?);
        }
    }
    Ok(())
}
