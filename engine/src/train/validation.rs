//! Validation while training, by the protocol of every evaluation: full ranking, seen items left out.

use std::sync::Arc;

use crate::evaluate::{Protocol, Spec, evaluate};
use crate::families::{self, Training};
use crate::train::batches::{HeldOut, Histories};
use crate::{Artifact, ArtifactBuilder, Control, Corpus, Error, Result};

/// The metric by which the best weights are chosen.
pub(super) const METRIC: &str = "ndcg@10";

/// Users of whom one event is kept back where the whole history may be learnt from: one in so many, at most.
const KEPT_BACK: usize = 20;

/// What is ranked.
pub(super) struct Validation {
    corpus: Corpus,
    protocol: Protocol,
}

/// One validation's figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    pub(super) ndcg: f64,
    pub(super) hr: f64,
}

impl Validation {
    /// Splits what a training may look at from what it is validated by.
    ///
    /// From `leave_last` 2 on, the second-last event of every user is the target, as everywhere. Below, the last
    /// event of some users is kept back from learning.
    pub(super) fn split<'a>(training: &Training<'_>, learnt: &'a Corpus, users: usize) -> (Histories<'a>, Self) {
        if training.leave_last >= 2 {
            let corpus = training.corpus.sample(users);
            let histories = Histories { corpus: learnt, held_out: HeldOut::Nobody };
            return (histories, Self { corpus, protocol: Protocol::Validation });
        }
        let most = users.min(learnt.users().div_ceil(KEPT_BACK)).max(1);
        let held_out = HeldOut::Every(learnt.sampled_every(most));
        (Histories { corpus: learnt, held_out }, Self { corpus: learnt.sample(most), protocol: Protocol::Test })
    }

    /// Ranks every target. `None` where no history is long enough to have one.
    pub(super) fn measure(&self, model: &ArtifactBuilder, control: &Control) -> Result<Option<Figures>> {
        let model = families::open(Arc::new(Artifact::from_vec(model.finish()?)?))?;
        let spec = Spec { protocol: self.protocol, ..Spec::default() };
        match evaluate(&*model, &self.corpus, &spec, control) {
            Ok(report) => {
                let value = |metric| report.value(metric, 10).unwrap_or(0.0);
                Ok(Some(Figures { ndcg: value("ndcg"), hr: value("hr") }))
            }
            Err(Error::Data(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
