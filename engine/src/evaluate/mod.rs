//! How good a model is: leave-one-out. Lists are ranked over the whole catalogue; of ranking models it is measured how
//! well they tell what came of the target.
//!
//! Test: each user's last event is the target and everything before it the history. Validation: the second-last
//! is the target, the history what comes before that. Items of the history are not recommended again (unless
//! asked for), but the target always may be. Nothing is sampled.

use rayon::prelude::*;

use crate::serve::{self, Source};
use crate::{Control, Corpus, Error, Model, Query, Result};

mod groups;
mod outcomes;
mod search;
mod split;
mod tally;

use groups::Groups;
use outcomes::Judged;
pub use search::{SearchBy, SearchCase, SearchSpec, Searcher, evaluate_search};
pub(crate) use split::{Case, Cases, Space};
use tally::Tally;

/// Which event is the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The last.
    Test,
    /// The second-last; the last is left out.
    Validation,
}

impl Protocol {
    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Validation => "validation",
        }
    }

    /// The protocol of this name.
    pub fn find(name: &str) -> Option<Self> {
        [Self::Test, Self::Validation].into_iter().find(|protocol| protocol.name() == name)
    }

    /// Where the target stands, counted from the end.
    fn back(self) -> usize {
        match self {
            Self::Test => 1,
            Self::Validation => 2,
        }
    }
}

/// Into which groups of users the figures are broken down, beside `all`.
#[derive(Debug, Clone, Copy, Default)]
pub enum By<'a> {
    /// None.
    #[default]
    Nothing,
    /// Quartiles of the length of the history.
    Activity,
    /// Popularity of the target: `head`, the most popular 20 % of the items, `mid`, the next 30 %, and `tail`.
    Popularity,
    /// A label for every user of the corpus, in its order.
    Labels(&'a [String]),
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// Which event is the target.
    pub protocol: Protocol,
    /// Lengths at which lists are cut.
    pub ks: &'a [usize],
    /// Whether items of the history are kept out of the lists.
    pub exclude_seen: bool,
    /// Groups of users.
    pub by: By<'a>,
    /// As in [`Query::exact_limit`].
    pub exact_limit: usize,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self { protocol: Protocol::Test, ks: &[10], exclude_seen: true, by: By::Nothing, exact_limit: usize::MAX }
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalRow {
    /// Group of users.
    pub grp: String,
    /// Name of the metric, lower case.
    pub metric: &'static str,
    /// Length of the lists; 0 where there are none.
    pub k: usize,
    /// The figure.
    pub value: f64,
    /// Lower end of its 95 % confidence interval; `None` where the metric is not a mean over users.
    pub low: Option<f64>,
    /// Upper end of it.
    pub high: Option<f64>,
    /// Users of the group.
    pub users: u64,
}

/// The figures, and what they rest on.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By group (`all` first), k and metric.
    pub rows: Vec<EvalRow>,
    /// Users that were measured.
    pub users: u64,
    /// Users whose history is too short to be: fewer than two events (test) or three (validation).
    pub skipped: u64,
    /// Users for whom the model had nothing to say: popularity answered, or a ranking model was not asked.
    pub fallback: u64,
    /// Targets that the model does not know; they count as misses.
    pub unknown_targets: u64,
}

impl Report {
    /// A figure of all users.
    pub fn value(&self, metric: &str, k: usize) -> Option<f64> {
        self.rows.iter().find(|row| row.grp == groups::ALL && row.metric == metric && row.k == k).map(|row| row.value)
    }
}

/// Users answered at a time: enough to fill every core, few enough to need little memory.
const SLICE: usize = 2048;

/// Measures a model on a corpus. Items are matched by id: the model's catalogue may be another than the corpus'.
///
/// [`Error::Parameter`] when a k is 0 or there is none, or there are more or fewer labels than users;
/// [`Error::Data`] when no user has enough history.
pub fn evaluate(model: &dyn Model, corpus: &Corpus, spec: &Spec<'_>, control: &Control) -> Result<Report> {
    let mut ks = spec.ks.to_vec();
    ks.sort_unstable();
    ks.dedup();
    let Some(&most) = ks.last().filter(|_| ks[0] > 0) else {
        return Err(Error::Parameter("k must be one or more numbers above 0".into()));
    };
    if let By::Labels(labels) = spec.by
        && labels.len() != corpus.users()
    {
        let why = format!("{} labels for {} users", labels.len(), corpus.users());
        return Err(Error::Parameter(why));
    }
    let cases = Cases::of(corpus, spec.protocol);
    if cases.users.is_empty() {
        let why = format!("no user has the {} interactions that the protocol needs", spec.protocol.back() + 1);
        return Err(Error::Data(why));
    }
    let space = Space::new(model.catalogue(), corpus, &cases).with_searches(model, corpus);
    let groups = Groups::new(&spec.by, &cases, &space);
    let mut report = Report { users: cases.users.len() as u64, skipped: cases.skipped, ..Report::default() };
    control.begin(cases.users.len() as u64);
    if !model.tasks().is_empty() {
        return judge(model, (&cases, &space, &groups), report, control);
    }
    let mut tally = Tally::new(&groups, &space, &ks);
    for slice in cases.users.chunks(SLICE) {
        let prepared = space.prepare(&cases, slice, spec.exclude_seen);
        let queries: Vec<Query<'_>> =
            prepared.iter().map(|case| Query { k: most, exact_limit: spec.exact_limit, ..case.query() }).collect();
        for ((answer, case), &user) in serve::recommend(model, &queries, control)?.iter().zip(&prepared).zip(slice) {
            report.fallback += u64::from(answer.source == Source::Popularity);
            report.unknown_targets += u64::from(!space.known(case.target));
            tally.add(groups.of(user), &answer.items, case.target);
        }
        control.advance(slice.len() as u64)?;
    }
    report.rows = tally.rows(&groups);
    Ok(report)
}

/// Asks a ranking model what will come of every target. The corpus has the outcomes of the model's tasks.
fn judge(
    model: &dyn Model,
    (cases, space, groups): (&Cases<'_>, &Space, &Groups),
    mut report: Report,
    control: &Control,
) -> Result<Report> {
    let mut judged = Judged::new(groups, model.tasks());
    for slice in cases.users.chunks(SLICE) {
        let prepared = space.prepare(cases, slice, false);
        let probabilities: Result<Vec<Vec<f32>>> = prepared
            .par_iter()
            .map(|case| {
                control.check()?;
                match case.is_empty() || !space.known(case.target) {
                    true => Ok(Vec::new()),
                    false => model.probabilities(&case.query(), &[case.target]),
                }
            })
            .collect();
        for ((probabilities, case), &user) in probabilities?.iter().zip(&prepared).zip(slice) {
            report.unknown_targets += u64::from(!space.known(case.target));
            report.fallback += u64::from(case.is_empty());
            judged.add(groups.of(user), probabilities, case.outcome);
        }
        control.advance(slice.len() as u64)?;
    }
    report.rows = judged.rows(groups);
    Ok(report)
}

#[cfg(test)]
mod tests;
