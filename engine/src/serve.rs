//! From questions to answers: a model's list, and what stands in for it when the model has nothing to say.

use pgrec_kernels::Scored;
use pgrec_kernels::cuda::Cuda;

use crate::families::popularity;
use crate::{Control, Model, Query, Result};

/// Where a list came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The model.
    Model,
    /// How often each item was touched in the model's training: the history is empty, or nothing in it tells
    /// the model anything.
    Popularity,
}

impl Source {
    /// Its name in `rec_explain`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Popularity => "popularity",
        }
    }
}

/// One list.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Best first, scores not increasing.
    pub items: Vec<Scored>,
    /// Where it came from.
    pub source: Source,
    /// How many of the leading items are the model's own; the others are popularity's.
    pub from_model: usize,
}

/// Answers every query: the model's list, or popularity from the model's own catalogue under the same filter.
///
/// A model's list that is shorter than `k` is topped up with popularity below the model's last score. By the
/// contract of [`Model::recommend`] such a list means that the filter leaves no other item, so this adds
/// something only where a model could not reach all items, as an approximate search under a narrow filter.
/// Popularity alone is scored in [0, 1), the share of the most popular item's count.
pub fn recommend(model: &dyn Model, queries: &[Query<'_>], control: &Control) -> Result<Vec<Answer>> {
    recommend_on(None, model, queries, control)
}

/// The same, computed on a device where there is one.
pub fn recommend_on(
    device: Option<&Cuda>,
    model: &dyn Model,
    queries: &[Query<'_>],
    control: &Control,
) -> Result<Vec<Answer>> {
    let lists = match device {
        None => model.recommend(queries, control)?,
        Some(device) => model.recommend_on(device, queries, control)?,
    };
    Ok(lists.into_iter().zip(queries).map(|(list, query)| complete(model, list, query)).collect())
}

fn complete(model: &dyn Model, mut items: Vec<Scored>, query: &Query<'_>) -> Answer {
    let from_model = items.len();
    let catalogue = model.catalogue();
    let reach = query.filter.candidates.map_or(catalogue.len(), <[u32]>::len);
    if from_model < query.k.min(reach) {
        let base = items.last().map_or(0.0, |last| last.score - 1.0);
        let popular = popularity::most_counted(catalogue, &query.filter, query.k - from_model, &items);
        items.extend(popular.into_iter().map(|item| Scored { item, score: base + popularity::share(catalogue, item) }));
    }
    let source = if from_model == 0 && !items.is_empty() { Source::Popularity } else { Source::Model };
    Answer { items, source, from_model }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pgrec_kernels::Filter;
    use serde_json::json;

    use super::*;
    use crate::testing;

    fn ask(model: &dyn Model, query: Query<'_>) -> Answer {
        recommend(model, &[query], &Control::default()).unwrap().remove(0)
    }

    #[test]
    fn a_user_without_history_gets_popularity_under_the_same_filter() {
        let model = testing::fit("graph", &testing::corpus(&[&[1, 2, 2, 3, 3, 3]]), json!({}));
        let filter = Filter { exclude: &[2], candidates: None };
        let answer = ask(model.as_ref(), Query { k: 5, filter, ..Query::default() });
        assert_eq!(answer.items.iter().map(|s| s.item).collect::<Vec<_>>(), [1, 0]);
        assert!(answer.items.iter().all(|s| (0.0..1.0).contains(&s.score)));
        assert_eq!((answer.source, answer.from_model), (Source::Popularity, 0));
        let known = ask(model.as_ref(), Query { history: &[0], k: 5, ..Query::default() });
        assert_eq!((known.source, known.from_model), (Source::Model, 3));
    }

    #[test]
    fn nothing_asked_for_and_nothing_allowed_are_empty_answers_of_the_model() {
        let model = testing::fit("popularity", &testing::corpus(&[&[1, 2]]), json!({}));
        for (k, filter) in [(0, Filter::default()), (3, Filter { exclude: &[], candidates: Some(&[]) })] {
            let answer = ask(model.as_ref(), Query { k, filter, ..Query::default() });
            assert_eq!(answer, Answer { items: vec![], source: Source::Model, from_model: 0 });
        }
    }

    #[test]
    fn a_short_list_goes_on_below_its_last_score() {
        let model = testing::fit("popularity", &testing::corpus(&[&[1, 2, 2, 3, 3, 3]]), json!({}));
        let list = vec![Scored { item: 0, score: -4.0 }];
        let answer = complete(model.as_ref(), list, &Query { k: 9, ..Query::default() });
        assert_eq!(answer.items.iter().map(|s| s.item).collect::<Vec<_>>(), [0, 2, 1]);
        assert!(answer.items.is_sorted_by(|a, b| a.score > b.score));
        assert_eq!((answer.source, answer.from_model), (Source::Model, 1));
    }
}
