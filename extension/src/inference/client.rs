//! A session's end of the worker: a question is written, handed over, and waited for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use pgrec_engine::Query;
use pgrec_engine::inference::message::{Call, Inability, Place, Question, Reply};
use pgrec_engine::inference::slots::Outcome;
use pgrec_engine::serve::Answer;
use pgrx::PgSqlErrorCode;

use crate::compute::REPORT;
use crate::error::{Result, SqlError};
use crate::pg::board::{Board, Claim, Lane, board};
use crate::pg::interrupt;
use crate::settings::{self, Fallback};
use crate::storage::cache;
use crate::storage::open::OpenModel;

/// How long a session waits for a free place before it computes by itself, or gives up.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often one that waits looks whether its client is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Words of a question or its answer at most: what is longer would crowd the server's shared memory.
const LONGEST: usize = 4 << 20;
/// Queries of a question that is not quick any more.
const MANY: usize = 16;

/// The worker's lists; nothing where this session is to compute them by itself.
pub fn lists(open: &OpenModel, queries: &[Query<'_>], place: Place, what: &str) -> Result<Option<Vec<Answer>>> {
    match ask(open, Call::Recommend, queries, place, what)? {
        Some(Reply::Lists(answers)) if answers.len() == queries.len() => Ok(Some(answers)),
        None => Ok(None),
        _ => Err(SqlError::corrupted("the inference worker answered something else")),
    }
}

/// The worker's scores of these items.
pub fn scores(open: &OpenModel, query: &Query<'_>, items: &[u32]) -> Result<Option<Vec<f32>>> {
    numbers(open, Call::Score(items), query, Some(items.len()))
}

/// The worker's vector.
pub fn vector(open: &OpenModel, query: &Query<'_>) -> Result<Option<Vec<f32>>> {
    numbers(open, Call::Encode, query, None)
}

fn numbers(open: &OpenModel, call: Call<'_>, query: &Query<'_>, len: Option<usize>) -> Result<Option<Vec<f32>>> {
    match ask(open, call, std::slice::from_ref(query), Place::Cpu, "rec_score")? {
        Some(Reply::Numbers(numbers)) if len.is_none_or(|len| len == numbers.len()) => Ok(Some(numbers)),
        None => Ok(None),
        _ => Err(SqlError::corrupted("the inference worker answered something else")),
    }
}

/// Why the worker gave no answer.
enum Silence {
    /// There is none that serves.
    Gone,
    /// All places are taken.
    Full,
    /// It ended, or could not read the question.
    Failed,
    /// The model's file is not there.
    Missing,
}

fn ask(open: &OpenModel, call: Call<'_>, queries: &[Query<'_>], place: Place, what: &str) -> Result<Option<Reply>> {
    let Some(board) = board().filter(|_| settings::use_worker()) else { return Ok(None) };
    let question = Question { identity: cache::identity(&open.row), place, call, queries };
    let words = question.encode()?;
    let room = question.reply_words(open.model.catalogue().len());
    if words.len().max(room) > LONGEST {
        return Ok(None);
    }
    let asking = Asking { board, question: &question, words: &words, room, what };
    let outcome = match asking.once()? {
        Err(Silence::Missing) => {
            // Somebody whose snapshot does not have this model took its file for an orphan's.
            cache::map(&open.row)?;
            asking.once()?
        }
        outcome => outcome,
    };
    match outcome {
        Ok(Reply::Refused(error)) => Err(refused(&error)),
        Ok(Reply::Unable(_)) => Ok(None),
        Ok(reply) => Ok(Some(reply)),
        Err(silence) => match settings::worker_fallback() {
            Fallback::local => Ok(None),
            Fallback::error => Err(explained(&silence)),
        },
    }
}

fn refused(json: &str) -> SqlError {
    match serde_json::from_str(json) {
        Ok(error) => SqlError::from_json(&error),
        // It was longer than the room there was.
        Err(_) => SqlError::state("the inference worker refused a question").detail(json),
    }
}

fn explained(silence: &Silence) -> SqlError {
    let why = match silence {
        Silence::Gone => "It is not running.",
        Silence::Full => "It is busy: no place became free within a second.",
        Silence::Failed => "It ended meanwhile, or failed; the server's log says why.",
        Silence::Missing => "It cannot open the model; the server's log says why.",
    };
    SqlError::new(PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW, "the inference worker does not answer")
        .detail(why)
        .hint("Try again, or SET rec.worker_fallback = local; to compute in the session then. SELECT * FROM rec.stat_worker; shows the worker.")
}

struct Asking<'a> {
    board: &'static Board,
    question: &'a Question<'a>,
    words: &'a [u32],
    room: usize,
    what: &'a str,
}

impl Asking<'_> {
    /// Asks, and waits for what comes of it. An interrupt leaves the place to the worker, if that has begun.
    fn once(&self) -> Result<std::result::Result<Reply, Silence>> {
        if self.board.worker().is_none() {
            return Ok(Err(Silence::Gone));
        }
        let Some(mut claim) = Claim::wait(self.board, PATIENCE) else { return Ok(Err(Silence::Full)) };
        if !claim.ask(self.lane(), self.key(), self.words, self.room) {
            return Ok(Err(Silence::Full));
        }
        Ok(match self.wait(&claim) {
            Outcome::Failed => Err(Silence::Failed),
            Outcome::Answered => match Reply::decode(&claim.answer())? {
                Reply::Unable(Inability::Missing) => Err(Silence::Missing),
                reply => Ok(reply),
            },
        })
    }

    fn lane(&self) -> Lane {
        let longer = self.words.len().max(self.room) > self.board.room();
        match self.question.place {
            Place::Cpu if self.question.queries.len() <= MANY && !longer => Lane::Quick,
            _ => Lane::Other,
        }
    }

    /// Questions of one key may be computed together.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.question.identity.hash(&mut hasher);
        hasher.finish()
    }

    fn wait(&self, claim: &Claim) -> Outcome {
        claim.linger();
        let mut looked = Instant::now();
        let mut reported = Instant::now();
        loop {
            if let Some(outcome) = claim.outcome() {
                return outcome;
            }
            interrupt::sleep(LOOK);
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                interrupt::end_without_client();
            }
            let (done, total) = claim.progress();
            if reported.elapsed() >= REPORT && total > 0 {
                reported = Instant::now();
                crate::compute::notice(self.what, done, total);
            }
        }
    }
}
