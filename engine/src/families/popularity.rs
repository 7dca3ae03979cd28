//! Popularity: what everybody touches, of late more than long ago.
//!
//! score(i) = Σ over the events of i of exp(−ln 2 · age / half-life), age measured back from the latest event of
//! the corpus; where events have no time, their number.

use std::sync::Arc;

use pgrec_kernels::{Filter, Scored};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Base, Family, Fitted, Model, Needs, Training, params};
use crate::{Artifact, ArtifactBuilder, Catalogue, Control, Error, Query, Result};

const NAME: &str = "popularity";
const SECONDS_A_DAY: f64 = 86_400.0;

/// The family.
pub const FAMILY: Family = Family {
    name: NAME,
    summary: "what everybody touches, recent events weighing more where they have a time; the same list for all",
    needs: |_| Needs { times: true, ..Needs::NOTHING },
    base: Base::Nothing,
    ranks: true,
    transfers: false,
    tasks: None,
    fit: Some(fit),
    open,
};

/// Parameters of the family.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Days after which an event weighs half; null weighs all events alike. Without a time this is the only way.
    #[serde(default = "quarter")]
    half_life: Option<f64>,
}

/// A season: long enough to be steady, short enough to forget last year's hits.
fn quarter() -> Option<f64> {
    Some(90.0)
}

fn fit(training: &Training<'_>) -> Result<Fitted> {
    let (params, control) = (training.params, training.control);
    let corpus = &training.corpus.without_last(training.leave_last);
    let Params { half_life } = params::read(NAME, params)?;
    if half_life.is_some_and(|days| !(days.is_finite() && days > 0.0)) {
        return Err(Error::Parameter("half_life is a number of days above 0, or null for plain counts".into()));
    }
    let asked_for = params.get("half_life").is_some_and(|value| !value.is_null());
    if asked_for && !corpus.has_times() {
        return Err(Error::Data("half_life needs events with a time: bind a time column, or leave it out".into()));
    }
    if corpus.interactions() == 0 {
        return Err(Error::Data("there are no interactions to count".into()));
    }
    control.begin(corpus.interactions() as u64);
    let half_life = half_life.filter(|_| corpus.has_times());
    let users = 0..corpus.users();
    let latest = users.clone().flat_map(|user| corpus.history_times(user)).copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sums = vec![0f64; corpus.items().len()];
    for user in users {
        let events = corpus.history(user);
        match half_life {
            Some(days) => {
                for (&item, time) in events.iter().zip(corpus.history_times(user)) {
                    sums[item as usize] += (-(latest - time) / (days * SECONDS_A_DAY)).exp2();
                }
            }
            None => events.iter().for_each(|&item| sums[item as usize] += 1.0),
        }
        control.advance(events.len() as u64)?;
    }
    let counts: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
    Ok(ArtifactBuilder::new(NAME, &json!({ "half_life": half_life }), corpus.items(), &counts).into())
}

fn open(artifact: Arc<Artifact>) -> Result<Box<dyn Model>> {
    #[derive(Deserialize)]
    struct Config {
        half_life: Option<f64>,
    }
    let Config { half_life } = artifact.config()?;
    Ok(Box::new(Popularity { catalogue: artifact.catalogue().clone(), half_life }))
}

struct Popularity {
    catalogue: Catalogue,
    half_life: Option<f64>,
}

impl Model for Popularity {
    fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn window(&self) -> usize {
        0
    }

    fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
        let counts = self.catalogue.counts();
        let answer = |query: &Query<'_>| {
            control.check()?;
            let items = most_counted(&self.catalogue, &query.filter, query.k, &[]);
            Ok(items.into_iter().map(|item| Scored { item, score: counts[item as usize] }).collect())
        };
        queries.iter().map(answer).collect()
    }

    fn score(&self, _: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
        Ok(items.iter().map(|&item| self.catalogue.counts()[item as usize]).collect())
    }

    fn similar(&self, _: u32, _: &Query<'_>) -> Result<Vec<Scored>> {
        Err(Error::Unsupported { family: NAME.into(), what: "does not compare items".into() })
    }

    fn encode(&self, _: &Query<'_>) -> Result<Vec<f32>> {
        Err(Error::Unsupported { family: NAME.into(), what: "has no user vectors".into() })
    }

    fn explain(&self, _: &Query<'_>, item: u32) -> Result<Value> {
        Ok(json!({
            "count": self.catalogue.counts()[item as usize],
            "rank": rank(&self.catalogue, item),
            "half_life": self.half_life,
        }))
    }
}

/// Place of an item in the order of popularity, the first being 1.
pub(crate) fn rank(catalogue: &Catalogue, item: u32) -> Option<usize> {
    catalogue.by_count().iter().position(|&i| i == item).map(|place| place + 1)
}

/// The `k` items counted most often that pass the filter and are not among `taken`, ties by ascending index.
pub(crate) fn most_counted(catalogue: &Catalogue, filter: &Filter<'_>, k: usize, taken: &[Scored]) -> Vec<u32> {
    let mut used: Vec<u32> = taken.iter().map(|scored| scored.item).collect();
    used.sort_unstable();
    let free = |item: &u32| filter.exclude.binary_search(item).is_err() && used.binary_search(item).is_err();
    match filter.candidates {
        None => catalogue.by_count().iter().copied().filter(free).take(k).collect(),
        Some(candidates) => {
            let counts = catalogue.counts();
            let mut items: Vec<u32> = candidates.iter().copied().filter(free).collect();
            items.sort_by(|&a, &b| counts[b as usize].total_cmp(&counts[a as usize]));
            items.truncate(k);
            items
        }
    }
}

/// Popularity as a number in [0, 1): the count as a share of the largest, for use below a model's own scores.
pub(crate) fn share(catalogue: &Catalogue, item: u32) -> f32 {
    let counts = catalogue.counts();
    let largest = catalogue.by_count().first().map_or(0.0, |&first| counts[first as usize]);
    if largest > 0.0 { counts[item as usize] / largest * 0.999 } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalogue::IdKind;
    use crate::corpus::{Corpus, CorpusBuilder, ItemKey};
    use crate::testing;

    fn timed(events: &[(i64, f64)]) -> Corpus {
        let mut builder = CorpusBuilder::new(IdKind::Int);
        builder.user().unwrap();
        for &(item, days) in events {
            builder.event(ItemKey::Int(item), Some(days * SECONDS_A_DAY)).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn an_event_a_half_life_ago_counts_half() {
        let corpus = timed(&[(1, 0.0), (1, 0.0), (2, 10.0), (3, 20.0)]);
        let scores = |params: Value| testing::fit(NAME, &corpus, params).score(&Query::default(), &[0, 1, 2]).unwrap();
        assert_eq!(scores(json!({ "half_life": 10 })), [0.5, 0.5, 1.0]);
        assert_eq!(scores(json!({ "half_life": null })), [2.0, 1.0, 1.0]);
        let season = scores(json!({}));
        assert!((season[1] - 0.5f32.powf(10.0 / 90.0)).abs() < 1e-6 && season[2] == 1.0);
    }

    #[test]
    fn without_times_events_are_counted_and_a_half_life_is_refused() {
        let corpus = testing::corpus(&[&[7, 5, 7], &[5, 7, 9]]);
        let model = testing::fit(NAME, &corpus, Value::Null);
        assert_eq!(model.catalogue().counts(), [2.0, 3.0, 1.0]);
        let control = Control::default();
        let fit = |params: Value| testing::try_fit(NAME, &corpus, &params, &control);
        assert!(matches!(fit(json!({ "half_life": 5 })), Err(Error::Data(_))));
        assert!(matches!(fit(json!({ "half_life": 0 })), Err(Error::Parameter(_))));
        assert!(matches!(fit(json!({ "halflife": 3 })), Err(Error::Parameter(why)) if why.contains("half_life")));
        assert!(matches!(testing::try_fit(NAME, &Corpus::default(), &json!({}), &control), Err(Error::Data(_))));
    }

    #[test]
    fn the_list_is_the_order_of_counts_under_the_filter() {
        let model = testing::fit(NAME, &testing::corpus(&[&[1, 2, 2, 3, 3, 4]]), json!({}));
        let items = |k, filter| {
            let query = Query { k, filter, ..Query::default() };
            let list = model.recommend(&[query], &Control::default()).unwrap().remove(0);
            list.iter().map(|scored| scored.item).collect::<Vec<_>>()
        };
        assert_eq!(items(9, Filter::default()), [1, 2, 0, 3]);
        assert_eq!(items(2, Filter { exclude: &[1], candidates: None }), [2, 0]);
        assert_eq!(items(9, Filter { exclude: &[2], candidates: Some(&[0, 2, 3]) }), [0, 3]);
        assert!(items(0, Filter::default()).is_empty());
        assert_eq!(model.explain(&Query::default(), 2).unwrap(), json!({ "count": 2.0, "rank": 2, "half_life": null }));
        assert!(matches!(model.encode(&Query::default()), Err(Error::Unsupported { .. })));
    }
}
