//! Several questions to one model, computed at once.

use pgrec_kernels::cuda::Cuda;

use super::message::{Asked, Call, Reply};
use crate::serve::{self, Answer};
use crate::{Control, Error, Model, Query, Result};

/// What comes of each of these questions to one model, in their order. All lists are computed as one jagged batch; where
/// that fails, each by itself, so that an error is only its own question's.
pub fn answer(model: &dyn Model, device: Option<&Cuda>, asked: &[&Asked], control: &Control) -> Vec<Result<Reply>> {
    let lists: Vec<&Asked> = asked.iter().filter(|asked| asked.call() == Call::Recommend).copied().collect();
    let together = match lists.len() {
        0 | 1 => None,
        _ => recommend(model, device, &lists, control).ok(),
    };
    let mut together = together.map(Vec::into_iter);
    asked
        .iter()
        .map(|asked| match (asked.call(), &mut together) {
            (Call::Recommend, Some(answers)) => Ok(Reply::Lists(answers.by_ref().take(asked.len()).collect())),
            _ => alone(model, device, asked, control),
        })
        .collect()
}

fn recommend(model: &dyn Model, device: Option<&Cuda>, asked: &[&Asked], control: &Control) -> Result<Vec<Answer>> {
    let queries: Vec<Query<'_>> = asked.iter().flat_map(|asked| asked.queries()).collect();
    serve::recommend_on(device, model, &queries, control)
}

fn alone(model: &dyn Model, device: Option<&Cuda>, asked: &Asked, control: &Control) -> Result<Reply> {
    control.check()?;
    let first = || asked.queries().next().ok_or_else(|| Error::Malformed("nothing is asked".into()));
    Ok(match asked.call() {
        Call::Recommend => Reply::Lists(recommend(model, device, &[asked], control)?),
        Call::Score(items) => Reply::Numbers(model.score(&first()?, items)?),
        Call::Encode => Reply::Numbers(model.encode(&first()?)?),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pgrec_kernels::Scored;
    use serde_json::{Value, json};

    use super::*;
    use crate::inference::message::{Identity, Place, Question};
    use crate::{Catalogue, testing};

    fn asked(call: Call<'_>, queries: &[Query<'_>]) -> Asked {
        let identity = Identity { database: 1, model: 1, checksum: 1, bytes: 1 };
        Asked::decode(Question { identity, place: Place::Cpu, call, queries }.encode().unwrap()).unwrap()
    }

    #[test]
    fn questions_together_get_what_each_gets_alone() {
        let corpus = testing::corpus(&[&[1, 2, 3, 4], &[2, 3, 4, 5], &[1, 3, 5, 6], &[6, 5, 4]]);
        let model = testing::fit("graph", &corpus, json!({}));
        let histories: [&[u32]; 4] = [&[0, 1], &[], &[2], &[5, 4, 3]];
        let queries: Vec<Query<'_>> =
            histories.iter().map(|history| Query { history, k: 4, ..Query::default() }).collect();
        let mut all: Vec<Asked> = queries.iter().map(|query| asked(Call::Recommend, &[*query])).collect();
        all.insert(1, asked(Call::Score(&[3, 0]), &queries[..1]));
        all.push(asked(Call::Recommend, &queries));
        all.push(asked(Call::Recommend, &[]));
        let replies = answer(model.as_ref(), None, &all.iter().collect::<Vec<_>>(), &Control::default());
        assert_eq!(replies.len(), all.len());
        for (asked, reply) in all.iter().zip(replies) {
            let alone = answer(model.as_ref(), None, &[asked], &Control::default()).remove(0);
            assert_eq!(reply.unwrap(), alone.unwrap());
        }
    }

    /// Refuses one item.
    struct Picky(Box<dyn Model>);

    impl Model for Picky {
        fn catalogue(&self) -> &Catalogue {
            self.0.catalogue()
        }

        fn window(&self) -> usize {
            self.0.window()
        }

        fn recommend(&self, queries: &[Query<'_>], control: &Control) -> Result<Vec<Vec<Scored>>> {
            match queries.iter().any(|query| query.history == [2]) {
                true => Err(Error::Parameter("not this one".into())),
                false => self.0.recommend(queries, control),
            }
        }

        fn score(&self, query: &Query<'_>, items: &[u32]) -> Result<Vec<f32>> {
            self.0.score(query, items)
        }

        fn similar(&self, item: u32, query: &Query<'_>) -> Result<Vec<Scored>> {
            self.0.similar(item, query)
        }

        fn encode(&self, query: &Query<'_>) -> Result<Vec<f32>> {
            self.0.encode(query)
        }

        fn explain(&self, query: &Query<'_>, item: u32) -> Result<Value> {
            self.0.explain(query, item)
        }
    }

    #[test]
    fn an_error_is_only_its_own_questions() {
        let model = Picky(testing::fit("graph", &testing::corpus(&[&[1, 2, 3], &[2, 3, 1]]), json!({})));
        let question = |history| asked(Call::Recommend, &[Query { history, k: 2, ..Query::default() }]);
        let (good, bad) = (question(&[0]), question(&[2]));
        let replies = answer(&model, None, &[&good, &bad, &good], &Control::default());
        assert_eq!(replies.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }
}
