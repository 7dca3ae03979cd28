//! How good searching is: of every search that led to the target, where the target stands in each way to search.
//!
//! The target is as in [`super::evaluate`]; a case is one search that led to it, so that a target with several searches has
//! several cases. Every way ranks the whole catalogue, items that the user has touched included: one looks for those again.
//! The same query is asked by many, and what is good for it is alike, so intervals are by query: 95 % of means over 1000
//! draws of as many queries as there are, with replacement, each with all its cases (cluster bootstrap, Efron & Tibshirani
//! 1993). All ways and metrics are measured on the same draws.

use std::collections::BTreeMap;

use super::groups::quartiles;
use super::split::Cases;
use super::{EvalRow, Protocol, Report};
use crate::corpus::Search;
use crate::metrics::Metric;
use crate::random::SplitMix;
use crate::{Control, Corpus, Error, Result};

/// Draws of queries.
const DRAWS: usize = 1000;

/// What is measured.
const METRICS: [Metric; 3] = [Metric::Mrr, Metric::Ndcg, Metric::Hr];

/// One search that led to a target.
#[derive(Debug, Clone, Copy)]
pub struct SearchCase<'a> {
    /// The user.
    pub user: usize,
    /// What they had touched before, in items of the corpus, oldest first.
    pub history: &'a [u32],
    /// What they had looked for before, oldest first.
    pub earlier: &'a [Search<'a>],
    /// What they look for now.
    pub search: Search<'a>,
    /// What they found, in items of the corpus.
    pub target: u32,
}

/// One or more ways to search.
pub trait Searcher {
    /// What they are called.
    fn ways(&self) -> &[&'static str];

    /// The `k` best items of one way, as items of the corpus, best first. Of one case all ways are asked one after the other.
    ///
    /// # Errors
    /// Those of the search.
    fn ranked(&mut self, way: usize, case: &SearchCase<'_>, k: usize) -> Result<Vec<u32>>;
}

/// Into which groups of cases the figures are broken down, beside those of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchBy {
    /// None.
    #[default]
    Nothing,
    /// Quartiles of how often the query had been asked.
    Frequency,
    /// Quartiles of the length of the history.
    Activity,
}

/// What is measured of searches.
#[derive(Debug, Clone, Copy)]
pub struct SearchSpec<'a> {
    /// Which event is the target.
    pub protocol: Protocol,
    /// Lengths at which lists are cut.
    pub ks: &'a [usize],
    /// Groups of cases.
    pub by: SearchBy,
    /// What the draws of the intervals depend on.
    pub seed: u64,
}

/// Measures ways to search on the searches of a corpus. [`Report::users`] counts cases, and so does every row.
///
/// # Errors
/// [`Error::Parameter`] when a k is 0 or there is none; [`Error::Data`] when no search led to a target; those of the searcher.
pub fn evaluate_search(
    searcher: &mut dyn Searcher,
    corpus: &Corpus,
    spec: &SearchSpec<'_>,
    control: &Control,
) -> Result<Report> {
    let mut ks = spec.ks.to_vec();
    ks.sort_unstable();
    ks.dedup();
    let Some(&most) = ks.last().filter(|_| ks[0] > 0) else {
        return Err(Error::Parameter("k must be one or more numbers above 0".into()));
    };
    let cases = Cases::of(corpus, spec.protocol);
    let back = spec.protocol.back();
    let before = corpus.without_last(back);
    control.begin(cases.users.len() as u64);
    let (mut asked, mut places) = (Vec::new(), Vec::new());
    for &user in &cases.users {
        let earlier: Vec<Search<'_>> = before.searches(user).collect();
        let (history, target) = (cases.history(user), cases.target(user));
        for search in corpus.searches_for(user, back) {
            let case = SearchCase { user, history, earlier: &earlier, search, target };
            for way in 0..searcher.ways().len() {
                let list = searcher.ranked(way, &case, most)?;
                places.push(list.iter().take(most).position(|&item| item == target));
            }
            asked.push(Asked { query: search.query, events: history.len() });
        }
        control.advance(1)?;
    }
    if asked.is_empty() {
        return Err(Error::Data(format!("no search led to the {} targets", cases.users.len())));
    }
    let groups = groups(&asked, spec.by, &before);
    let ways = searcher.ways();
    let mut rows = Vec::new();
    for (name, members) in &groups {
        let draws = Draws::of(members.iter().map(|&case| asked[case].query), spec.seed);
        for (way, label) in ways.iter().enumerate() {
            let grp = if name.is_empty() { (*label).to_owned() } else { format!("{label}: {name}") };
            for &k in &ks {
                for metric in METRICS {
                    let value = |&case: &usize| {
                        let hit: Vec<usize> = places[case * ways.len() + way].into_iter().collect();
                        metric.of(&hit, 1, k)
                    };
                    let (value, interval) = draws.measure(members.iter().map(value));
                    let (low, high) = (interval.map(|(low, _)| low), interval.map(|(_, high)| high));
                    let users = members.len() as u64;
                    rows.push(EvalRow { grp: grp.clone(), metric: metric.name(), k, value, low, high, users });
                }
            }
        }
    }
    Ok(Report { rows, users: asked.len() as u64, skipped: cases.skipped, ..Report::default() })
}

/// What a case is grouped by.
struct Asked {
    query: u32,
    events: usize,
}

/// Groups by name, all cases first, and their cases.
fn groups(asked: &[Asked], by: SearchBy, before: &Corpus) -> Vec<(String, Vec<usize>)> {
    let mut groups = vec![(String::new(), (0..asked.len()).collect())];
    let (sizes, label, unit): (Vec<usize>, _, _) = match by {
        SearchBy::Nothing => return groups,
        SearchBy::Activity => (asked.iter().map(|case| case.events).collect(), "activity", "events"),
        SearchBy::Frequency => {
            let mut times = vec![0; before.queries()];
            let users = (0..before.users()).flat_map(|user| before.searches(user));
            users.chain(before.anonymous_searches()).for_each(|search| times[search.query as usize] += 1);
            (asked.iter().map(|case| times[case.query as usize]).collect(), "frequency", "times")
        }
    };
    let (names, class) = quartiles(&sizes, label, unit);
    for (quarter, name) in names.into_iter().enumerate() {
        let members: Vec<usize> = (0..asked.len()).filter(|&case| class(sizes[case]) == quarter).collect();
        if !members.is_empty() {
            groups.push((name, members));
        }
    }
    groups
}

/// Draws of queries, for some cases.
struct Draws {
    /// The query of each case, numbered from 0.
    cluster: Vec<usize>,
    /// How many cases each has.
    sizes: Vec<usize>,
    /// By draw, how often each query is in it.
    times: Vec<Vec<u32>>,
}

impl Draws {
    fn of(queries: impl Iterator<Item = u32>, seed: u64) -> Self {
        let (mut numbers, mut cluster, mut sizes) = (BTreeMap::new(), Vec::new(), Vec::new());
        for query in queries {
            let next = numbers.len();
            let number = *numbers.entry(query).or_insert(next);
            sizes.resize(numbers.len(), 0);
            sizes[number] += 1;
            cluster.push(number);
        }
        let mut random = SplitMix::new(seed);
        let mut draw = || {
            let mut times = vec![0; sizes.len()];
            (0..sizes.len()).for_each(|_| times[random.below(sizes.len())] += 1);
            times
        };
        Self { times: (0..DRAWS).map(|_| draw()).collect(), cluster, sizes }
    }

    /// The mean of the cases' values, and its interval; none where there is but one query.
    fn measure(&self, values: impl Iterator<Item = f64>) -> (f64, Option<(f64, f64)>) {
        let mut sums = vec![0.0; self.sizes.len()];
        self.cluster.iter().zip(values).for_each(|(&cluster, value)| sums[cluster] += value);
        let mean = sums.iter().sum::<f64>() / self.cluster.len() as f64;
        if self.sizes.len() < 2 {
            return (mean, None);
        }
        let of_draw = |times: &Vec<u32>| {
            let (mut sum, mut cases) = (0.0, 0.0);
            for ((&times, own), &size) in times.iter().zip(&sums).zip(&self.sizes) {
                sum += f64::from(times) * own;
                cases += f64::from(times) * size as f64;
            }
            sum / cases
        };
        let mut means: Vec<f64> = self.times.iter().map(of_draw).collect();
        means.sort_by(f64::total_cmp);
        let quantile = |share: f64| means[((means.len() - 1) as f64 * share).round() as usize];
        (mean, Some((quantile(0.025), quantile(0.975))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalogue::IdKind;
    use crate::corpus::{CorpusBuilder, ItemKey, SearchRow};

    /// Lists that are the same for everybody: items ascending, and descending.
    struct Fixed(u32);

    impl Searcher for Fixed {
        fn ways(&self) -> &[&'static str] {
            &["up", "down"]
        }

        fn ranked(&mut self, way: usize, _: &SearchCase<'_>, k: usize) -> Result<Vec<u32>> {
            let all: Vec<u32> = if way == 0 { (0..self.0).collect() } else { (0..self.0).rev().collect() };
            Ok(all.into_iter().take(k).collect())
        }
    }

    /// User n touches 0, then 1, then its target; `queries` led to the target, and one of "old" to what was before.
    fn corpus(users: &[(i64, &[&str])]) -> Corpus {
        let mut builder = CorpusBuilder::new(IdKind::Int);
        (0..4).for_each(|item| builder.item(ItemKey::Int(item)).unwrap());
        for &(target, queries) in users {
            builder.user().unwrap();
            for item in [0, 1, target] {
                let words: &[&str] = if item == target { queries } else { &["old"] };
                for word in words.iter().take(if item == 0 { 0 } else { 9 }) {
                    let item = Some(ItemKey::Int(item));
                    builder.search(&SearchRow { words: &[word], item, ..SearchRow::default() }).unwrap();
                }
                builder.event(ItemKey::Int(item), None).unwrap();
            }
        }
        builder.finish().unwrap()
    }

    fn measured(corpus: &Corpus, by: SearchBy, protocol: Protocol) -> Report {
        let spec = SearchSpec { protocol, ks: &[2, 4], by, seed: 1 };
        evaluate_search(&mut Fixed(4), corpus, &spec, &Control::default()).unwrap()
    }

    fn row(report: &Report, grp: &str, metric: &str, k: usize) -> EvalRow {
        report.rows.iter().find(|row| row.grp == grp && row.metric == metric && row.k == k).unwrap().clone()
    }

    #[test]
    fn figures_are_those_computed_by_hand() {
        // Targets 2 by two queries, and 3 by one: ranks 3, 3 and 4 from below, 2, 2 and 1 from above.
        let corpus = corpus(&[(2, &["a", "b"]), (3, &["a"])]);
        let report = measured(&corpus, SearchBy::Nothing, Protocol::Test);
        assert_eq!((report.users, report.skipped, report.rows.len()), (3, 0, 12));
        let value = |grp: &str, metric: &str, k: usize| row(&report, grp, metric, k).value;
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        near(value("up", "mrr", 4), (1.0 / 3.0 + 1.0 / 3.0 + 1.0 / 4.0) / 3.0);
        near(value("up", "hr", 2), 0.0);
        near(value("down", "mrr", 2), (0.5 + 0.5 + 1.0) / 3.0);
        near(value("down", "ndcg", 4), (2.0 / 3f64.log2() + 1.0) / 3.0);
        // Draws are a, b; a, a; b, b: (1/3 + 1/4)/2, …, 1/3 are the least and the most from below.
        let interval = row(&report, "up", "mrr", 4);
        near(interval.low.unwrap(), (1.0 / 3.0 + 0.25) / 2.0);
        near(interval.high.unwrap(), 1.0 / 3.0);
        // Second-last events were found by "old" alone: one query, no interval.
        let validation = measured(&corpus, SearchBy::Nothing, Protocol::Validation);
        let up = row(&validation, "up", "mrr", 4);
        assert_eq!((up.value, up.low, up.users), (0.5, None, 2));
    }

    #[test]
    fn groups_are_quartiles_of_queries_and_of_histories() {
        let corpus = corpus(&[(2, &["a"]), (2, &["b"]), (3, &["old"])]);
        let report = measured(&corpus, SearchBy::Frequency, Protocol::Test);
        // "old" was asked three times before, "a" and "b" never.
        assert_eq!(row(&report, "up", "mrr", 4).users, 3);
        let frequent = row(&report, "up: frequency 4 (3-3 times)", "mrr", 4);
        assert_eq!((frequent.value, frequent.users), (0.25, 1));
        assert_eq!(row(&report, "down: frequency 1 (0-0 times)", "mrr", 4).users, 2);
        let report = measured(&corpus, SearchBy::Activity, Protocol::Test);
        assert_eq!(row(&report, "up: activity 1 (2-2 events)", "mrr", 4).users, 3);
    }

    #[test]
    fn what_cannot_be_measured_is_refused_in_words() {
        let corpus = corpus(&[(2, &[])]);
        let spec = |ks| SearchSpec { protocol: Protocol::Test, ks, by: SearchBy::Nothing, seed: 0 };
        let refused = |ks| evaluate_search(&mut Fixed(4), &corpus, &spec(ks), &Control::default()).map(|_| "measured");
        assert!(
            matches!(refused(&[]), Err(Error::Parameter(_))) && matches!(refused(&[0, 2]), Err(Error::Parameter(_)))
        );
        assert!(matches!(refused(&[2]), Err(Error::Data(why)) if why.contains("no search led to")));
    }
}
