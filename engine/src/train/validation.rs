//! Validation while training, by the protocol of every evaluation: full ranking, seen items left out.

use std::sync::Arc;

use super::SequenceModel;
use crate::evaluate::{Protocol, Spec, evaluate};
use crate::families::{self, Training};
use crate::train::batches::{HeldOut, Histories};
use crate::{Artifact, ArtifactBuilder, Control, Corpus, Error, Result};

/// Users of whom one event is kept back where the whole history may be learnt from: one in so many, at most.
const KEPT_BACK: usize = 20;

/// What is ranked.
pub(crate) struct Validation {
    corpus: Corpus,
    protocol: Protocol,
    metrics: Metrics,
}

/// The metric by which the best weights are chosen, larger being better, and one more that is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metrics {
    names: [&'static str; 2],
    k: usize,
    /// What they are called in a curve.
    pub(crate) labels: [&'static str; 2],
}

impl Metrics {
    /// Of a model that learns what comes next.
    pub(crate) const RANKING: Self = Self { names: ["ndcg", "hr"], k: 10, labels: ["ndcg@10", "hr@10"] };

    /// Of a model that learns what comes next, or what comes of events.
    pub(super) fn of(model: &impl SequenceModel) -> Self {
        match model.first_outcome() {
            None => Self::RANKING,
            Some(_) => Self { names: OUTCOMES, k: 0, labels: OUTCOMES },
        }
    }
}

const OUTCOMES: [&str; 2] = ["auc", "normalized_entropy"];

impl Validation {
    /// Splits what a training may look at from what it is validated by.
    ///
    /// From `leave_last` 2 on, the second-last event of every user is the target, as everywhere. Below, the last
    /// event of some users is kept back from learning.
    pub(crate) fn split<'a>(
        training: &Training<'_>,
        learnt: &'a Corpus,
        users: usize,
        metrics: Metrics,
    ) -> (Histories<'a>, Self) {
        if training.leave_last >= 2 {
            let corpus = training.corpus.sample(users);
            let histories = Histories { corpus: learnt, held_out: HeldOut::Nobody, described: None };
            return (histories, Self { corpus, protocol: Protocol::Validation, metrics });
        }
        let most = users.min(learnt.users().div_ceil(KEPT_BACK)).max(1);
        let held_out = HeldOut::Every(learnt.sampled_every(most));
        let corpus = learnt.sample(most);
        (Histories { corpus: learnt, held_out, described: None }, Self { corpus, protocol: Protocol::Test, metrics })
    }

    /// Whose events the targets are, and which.
    pub(crate) fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Measures by every target. `None` where no history is long enough to have one.
    pub(crate) fn measure(&self, model: &ArtifactBuilder, control: &Control) -> Result<Option<[f64; 2]>> {
        let model = families::open(Arc::new(Artifact::from_vec(model.finish()?)?))?;
        let spec = Spec { protocol: self.protocol, ..Spec::default() };
        match evaluate(&*model, &self.corpus, &spec, control) {
            Ok(report) => {
                let [figure, other] = self.metrics.names.map(|name| report.value(name, self.metrics.k));
                Ok(figure.zip(other).map(|(figure, other)| [figure, other]))
            }
            Err(Error::Data(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
