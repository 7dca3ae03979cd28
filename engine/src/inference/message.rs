//! Questions and replies as words of 32 bits, as they lie in memory that two processes share.
//!
//! Both sides are one binary, so there is no version. What is read is checked all the same: a word that is not what it
//! should be gives an error, never a wrong list.

use std::ops::Range;

use pgrec_kernels::cuda::Precision;
use pgrec_kernels::{Filter, Scored};

use crate::serve::{Answer, Source};
use crate::{Error, Query, Result, query};

/// Which artifact is asked. Ids are of a database, and never used again within it; the checksum tells a restored
/// database's model from a former one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Oid of the database.
    pub database: u32,
    /// The model's id there.
    pub model: i64,
    /// CRC32C of the artifact.
    pub checksum: u32,
    /// Length of the artifact.
    pub bytes: u64,
}

/// Where a question is to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the CPU.
    Cpu,
    /// On a CUDA device, or not at all.
    Cuda(Precision),
    /// On a CUDA device where there is one.
    Auto(Precision),
}

/// What is asked of the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call<'a> {
    /// A list for each.
    Recommend,
    /// The scores of these items for the first.
    Score(&'a [u32]),
    /// The vector of the first.
    Encode,
}

/// A question to the worker.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Of which model.
    pub identity: Identity,
    /// Where to compute.
    pub place: Place,
    /// What to compute.
    pub call: Call<'a>,
    /// Of what. Lists that lie at the same place in several queries are written once.
    pub queries: &'a [Query<'a>],
}

/// Instead of a length: the list of the query before.
const SAME: u32 = u32::MAX;
/// Instead of a length: no list.
const NONE: u32 = u32::MAX - 1;

/// The longest list that has a length.
const LONGEST: usize = NONE as usize - 1;

impl Question<'_> {
    /// The question in words. Fails for lists of four billion numbers.
    pub fn encode(&self) -> Result<Vec<u32>> {
        let mut words = Vec::with_capacity(64);
        push_u64(&mut words, self.identity.model as u64);
        push_u64(&mut words, self.identity.bytes);
        words.extend([self.identity.database, self.identity.checksum, place_word(self.place)]);
        match self.call {
            Call::Recommend => words.push(0),
            Call::Encode => words.push(1),
            Call::Score(items) => {
                words.extend([2, length(items.len())?]);
                words.extend_from_slice(items);
            }
        }
        words.push(length(self.queries.len())?);
        let mut former: Option<&Query<'_>> = None;
        for query in self.queries {
            let lists = [
                list_word(Some(query.filter.exclude), former.map(|f| Some(f.filter.exclude)))?,
                list_word(query.filter.candidates, former.map(|f| f.filter.candidates))?,
            ];
            words.extend([length(query.history.len())?, length(query.times.len())?]);
            words.extend([length(query.outcomes.len())?, length(query.words.len())?]);
            words.extend([length(query.searches.ends.len())?, length(query.searches.words.len())?]);
            words.extend([number(query.k), number(query.exact_limit)]);
            words.extend(lists);
            push_u64(&mut words, query.at.to_bits());
            push_u64(&mut words, query.remember as u64);
            words.extend_from_slice(query.history);
            query.times.iter().for_each(|time| push_u64(&mut words, time.to_bits()));
            words.extend_from_slice(query.outcomes);
            words.extend_from_slice(query.words);
            words.extend_from_slice(query.searches.ends);
            // As many as there are searches, whatever the caller has.
            words
                .extend(query.searches.ends.iter().enumerate().map(|(n, _)| query.searches.after.get(n).unwrap_or(&0)));
            words.extend_from_slice(query.searches.words);
            for (word, list) in lists.into_iter().zip([Some(query.filter.exclude), query.filter.candidates]) {
                if word != SAME {
                    words.extend_from_slice(list.unwrap_or(&[]));
                }
            }
            former = Some(query);
        }
        Ok(words)
    }

    /// Words that the reply takes at most, of a model with so many items and vectors of so many numbers.
    pub fn reply_words(&self, items: usize) -> usize {
        match self.call {
            Call::Recommend => {
                let list = |query: &Query<'_>| 3 + 2 * query.k.min(query.filter.candidates.map_or(items, <[u32]>::len));
                2 + self.queries.iter().map(list).sum::<usize>()
            }
            Call::Score(items) => 2 + items.len(),
            // Most vectors are shorter; one that is longer is computed by whoever asks.
            Call::Encode => 2 + 4096,
        }
    }
}

fn length(len: usize) -> Result<u32> {
    u32::try_from(len)
        .ok()
        .filter(|&len| len as usize <= LONGEST)
        .ok_or_else(|| Error::Parameter(format!("a list of {len} numbers is too long")))
}

/// A number beyond which more makes no difference: no list has four billion items.
fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// What stands for a list: its length, or that there is none, or that it is the former query's.
#[allow(clippy::option_option)]
fn list_word(list: Option<&[u32]>, former: Option<Option<&[u32]>>) -> Result<u32> {
    match (list, former) {
        (Some(list), Some(Some(former))) if !list.is_empty() && std::ptr::eq(list, former) => Ok(SAME),
        (Some(list), _) => length(list.len()),
        (None, _) => Ok(NONE),
    }
}

fn push_u64(words: &mut Vec<u32>, value: u64) {
    words.extend([value as u32, (value >> 32) as u32]);
}

fn place_word(place: Place) -> u32 {
    match place {
        Place::Cpu => 0,
        Place::Cuda(Precision::F32) => 1,
        Place::Cuda(Precision::Bf16) => 2,
        Place::Auto(Precision::F32) => 3,
        Place::Auto(Precision::Bf16) => 4,
    }
}

fn place_of(word: u32) -> Result<Place> {
    Ok(match word {
        0 => Place::Cpu,
        1 => Place::Cuda(Precision::F32),
        2 => Place::Cuda(Precision::Bf16),
        3 => Place::Auto(Precision::F32),
        4 => Place::Auto(Precision::Bf16),
        _ => return Err(malformed("a place")),
    })
}

fn malformed(what: &str) -> Error {
    Error::Malformed(format!("a message between a session and the worker is damaged: {what}"))
}

/// Reads words one after the other.
struct Reader<'a> {
    words: &'a [u32],
    next: usize,
}

impl Reader<'_> {
    fn range(&mut self, len: usize) -> Result<Range<usize>> {
        let end = self.next.checked_add(len).filter(|&end| end <= self.words.len());
        let end = end.ok_or_else(|| malformed("it ends early"))?;
        let range = self.next..end;
        self.next = end;
        Ok(range)
    }

    fn list(&mut self) -> Result<Range<usize>> {
        let len = self.word()? as usize;
        self.range(len)
    }

    fn word(&mut self) -> Result<u32> {
        let place = self.range(1)?.start;
        Ok(self.words[place])
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from(self.word()?) | u64::from(self.word()?) << 32)
    }
}

/// The same as [`Call`], with places of words.
#[derive(Debug)]
enum AskedCall {
    Recommend,
    Score(Range<usize>),
    Encode,
}

/// One query's places in the words.
#[derive(Debug)]
struct Places {
    history: Range<usize>,
    times: Range<usize>,
    outcomes: Range<usize>,
    words: Range<usize>,
    /// Of what was looked for: ends, `after` and words.
    searches: [Range<usize>; 3],
    exclude: Range<usize>,
    candidates: Option<Range<usize>>,
    k: usize,
    exact_limit: usize,
    at: f64,
    remember: usize,
}

/// A question as the worker has read it.
#[derive(Debug)]
pub struct Asked {
    words: Vec<u32>,
    times: Vec<f64>,
    identity: Identity,
    place: Place,
    call: AskedCall,
    queries: Vec<Places>,
}

impl Asked {
    /// Reads what [`Question::encode`] wrote.
    pub fn decode(words: Vec<u32>) -> Result<Self> {
        let mut reader = Reader { words: &words, next: 0 };
        let (model, bytes) = (reader.u64()? as i64, reader.u64()?);
        let (database, checksum) = (reader.word()?, reader.word()?);
        let place = place_of(reader.word()?)?;
        let call = match reader.word()? {
            0 => AskedCall::Recommend,
            1 => AskedCall::Encode,
            2 => AskedCall::Score(reader.list()?),
            _ => return Err(malformed("a call")),
        };
        let mut times = Vec::new();
        let mut queries: Vec<Places> = Vec::new();
        for _ in 0..reader.word()? {
            let (history, timed) = (reader.word()? as usize, reader.word()? as usize);
            let (outcomes, said) = (reader.word()? as usize, reader.word()? as usize);
            let (asked, sought) = (reader.word()? as usize, reader.word()? as usize);
            let (k, exact_limit) = (reader.word()? as usize, reader.word()? as usize);
            let (exclude, candidates) = (reader.word()?, reader.word()?);
            let (at, remember) = (f64::from_bits(reader.u64()?), reader.u64()? as usize);
            let history = reader.range(history)?;
            let first = times.len();
            for _ in 0..timed {
                times.push(f64::from_bits(reader.u64()?));
            }
            let (outcomes, words) = (reader.range(outcomes)?, reader.range(said)?);
            let searches = [reader.range(asked)?, reader.range(asked)?, reader.range(sought)?];
            let former = queries.last();
            let exclude = match exclude {
                SAME => former.map(|f| f.exclude.clone()).ok_or_else(|| malformed("no former list"))?,
                len => reader.range(len as usize)?,
            };
            let candidates = match candidates {
                SAME => Some(former.and_then(|f| f.candidates.clone()).ok_or_else(|| malformed("no former list"))?),
                NONE => None,
                len => Some(reader.range(len as usize)?),
            };
            let times = first..times.len();
            queries.push(Places {
                history,
                times,
                outcomes,
                words,
                searches,
                exclude,
                candidates,
                k,
                exact_limit,
                at,
                remember,
            });
        }
        if queries.is_empty() && !matches!(call, AskedCall::Recommend) {
            return Err(malformed("nothing is asked"));
        }
        Ok(Self { identity: Identity { database, model, checksum, bytes }, place, call, queries, times, words })
    }

    /// Whoever wants something remembered wants so many bytes of it: what is kept for all is nobody's to choose.
    pub fn remember(&mut self, bytes: usize) {
        self.queries.iter_mut().filter(|query| query.remember > 0).for_each(|query| query.remember = bytes);
    }

    /// Of which model.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where to compute.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What to compute.
    pub fn call(&self) -> Call<'_> {
        match &self.call {
            AskedCall::Recommend => Call::Recommend,
            AskedCall::Encode => Call::Encode,
            AskedCall::Score(items) => Call::Score(&self.words[items.clone()]),
        }
    }

    /// How many queries there are.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Of what.
    pub fn queries(&self) -> impl Iterator<Item = Query<'_>> {
        let words = |range: &Range<usize>| &self.words[range.clone()];
        self.queries.iter().map(move |places| Query {
            history: words(&places.history),
            times: &self.times[places.times.clone()],
            outcomes: words(&places.outcomes),
            words: words(&places.words),
            searches: {
                let [ends, after, sought] = &places.searches;
                query::Asked { words: words(sought), ends: words(ends), after: words(after) }
            },
            at: places.at,
            k: places.k,
            filter: Filter { exclude: words(&places.exclude), candidates: places.candidates.as_ref().map(words) },
            exact_limit: places.exact_limit,
            remember: places.remember,
        })
    }
}

/// What comes of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Lists, one a query.
    Lists(Vec<Answer>),
    /// Scores, or a vector.
    Numbers(Vec<f32>),
    /// An error, in words that both sides understand.
    Refused(String),
    /// The worker cannot compute this, and whoever asks may.
    Unable(Inability),
}

/// Why the worker cannot compute something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inability {
    /// The model's file is not there.
    Missing,
    /// The reply is longer than the room for it.
    TooLong,
}

impl Reply {
    /// The reply in no more than `room` words, of which there must be two: else [`Inability::TooLong`]. What is refused
    /// is cut.
    pub fn encode(&self, room: usize) -> Vec<u32> {
        let mut words = Vec::with_capacity(64);
        match self {
            Self::Lists(answers) => {
                words.extend([0, number(answers.len())]);
                for answer in answers {
                    let popular = answer.source == Source::Popularity;
                    words.extend([u32::from(popular), number(answer.from_model), number(answer.items.len())]);
                    answer.items.iter().for_each(|scored| words.extend([scored.item, scored.score.to_bits()]));
                }
            }
            Self::Numbers(numbers) => {
                words.extend([1, number(numbers.len())]);
                words.extend(numbers.iter().map(|number| number.to_bits()));
            }
            Self::Refused(text) => {
                let text = cut(text, room.saturating_sub(2) * size_of::<u32>());
                words.extend([2, number(text.len())]);
                words.extend(text.as_bytes().chunks(size_of::<u32>()).map(|bytes| {
                    let mut word = [0; size_of::<u32>()];
                    word[..bytes.len()].copy_from_slice(bytes);
                    u32::from_le_bytes(word)
                }));
            }
            Self::Unable(Inability::Missing) => words.extend([3, 0]),
            Self::Unable(Inability::TooLong) => words.extend([3, 1]),
        }
        if words.len() > room { vec![3, 1] } else { words }
    }

    /// Reads what [`Reply::encode`] wrote.
    pub fn decode(words: &[u32]) -> Result<Self> {
        let mut reader = Reader { words, next: 0 };
        Ok(match (reader.word()?, reader.word()?) {
            (0, lists) => Self::Lists((0..lists).map(|_| answer(&mut reader)).collect::<Result<_>>()?),
            (1, len) => {
                Self::Numbers(words[reader.range(len as usize)?].iter().map(|&bits| f32::from_bits(bits)).collect())
            }
            (2, len) => {
                let range = reader.range((len as usize).div_ceil(size_of::<u32>()))?;
                let mut bytes: Vec<u8> = words[range].iter().flat_map(|word| word.to_le_bytes()).collect();
                bytes.truncate(len as usize);
                Self::Refused(String::from_utf8(bytes).map_err(|_| malformed("a text"))?)
            }
            (3, 0) => Self::Unable(Inability::Missing),
            (3, 1) => Self::Unable(Inability::TooLong),
            _ => return Err(malformed("a reply")),
        })
    }
}

fn answer(reader: &mut Reader<'_>) -> Result<Answer> {
    let source = if reader.word()? == 0 { Source::Model } else { Source::Popularity };
    let (from_model, len) = (reader.word()? as usize, reader.word()? as usize);
    let range = reader.range(len.checked_mul(2).ok_or_else(|| malformed("a list"))?)?;
    let scored = |pair: &[u32]| Scored { item: pair[0], score: f32::from_bits(pair[1]) };
    Ok(Answer { items: reader.words[range].chunks_exact(2).map(scored).collect(), source, from_model })
}

/// As much of a text as fits into so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { database: 5, model: -7, checksum: u32::MAX, bytes: 1 << 40 };

    fn asked(question: &Question<'_>) -> Asked {
        Asked::decode(question.encode().unwrap()).unwrap()
    }

    #[test]
    fn a_question_arrives_as_it_was_asked() {
        let exclude = [1, 4];
        let candidates = [0, 2, 9];
        let queries = [
            Query { history: &[3, 1, 3], times: &[1.5, 2.5, f64::NEG_INFINITY], k: 10, ..Query::default() },
            Query {
                outcomes: &[7],
                words: &[11, 3],
                searches: query::Asked { words: &[5, 6, 2], ends: &[2, 2, 3], after: &[0, 1, 1] },
                at: -0.25,
                filter: Filter { exclude: &exclude, candidates: Some(&candidates) },
                exact_limit: 12,
                remember: 5 << 33,
                ..Query::default()
            },
            Query { filter: Filter { exclude: &exclude, candidates: Some(&candidates) }, k: 1, ..Query::default() },
            Query { filter: Filter { exclude: &[], candidates: Some(&[]) }, ..Query::default() },
        ];
        for place in [Place::Cpu, Place::Cuda(Precision::Bf16), Place::Auto(Precision::F32)] {
            for call in [Call::Recommend, Call::Encode, Call::Score(&[8, 0])] {
                let question = Question { identity: IDENTITY, place, call, queries: &queries };
                let asked = asked(&question);
                assert_eq!((asked.identity(), asked.place(), asked.call()), (IDENTITY, place, call));
                for (read, query) in asked.queries().zip(&queries) {
                    assert_eq!((read.history, read.times), (query.history, query.times));
                    assert_eq!((read.outcomes, read.words), (query.outcomes, query.words));
                    assert_eq!(read.searches, query.searches);
                    assert_eq!(read.filter.exclude, query.filter.exclude);
                    assert_eq!(read.filter.candidates, query.filter.candidates);
                    assert_eq!((read.at, read.k, read.remember), (query.at, query.k, query.remember));
                    assert_eq!(read.exact_limit.min(1 << 20), query.exact_limit.min(1 << 20));
                }
                assert_eq!(asked.len(), queries.len());
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_by_who_remembers() {
        let queries = [Query::default(), Query { remember: 1, ..Query::default() }];
        let question = Question { identity: IDENTITY, place: Place::Cpu, call: Call::Recommend, queries: &queries };
        let mut asked = asked(&question);
        asked.remember(77);
        assert_eq!(asked.queries().map(|query| query.remember).collect::<Vec<_>>(), [0, 77]);
    }

    #[test]
    fn lists_that_queries_share_travel_once() {
        let candidates: Vec<u32> = (0..1000).collect();
        let query = Query { filter: Filter { exclude: &[], candidates: Some(&candidates) }, ..Query::default() };
        let question = |queries| Question { identity: IDENTITY, place: Place::Cpu, call: Call::Recommend, queries };
        let words = question(&[query; 50]).encode().unwrap();
        assert!(words.len() < 2000, "{} words", words.len());
        let asked = Asked::decode(words).unwrap();
        assert!(asked.queries().all(|read| read.filter.candidates == Some(&candidates)));
    }

    #[test]
    fn a_damaged_question_is_an_error_and_never_a_panic() {
        let searches = query::Asked { words: &[5, 6], ends: &[1, 2], after: &[0, 3] };
        let queries = [Query { history: &[3, 1, 3], times: &[1.0, 2.0, 3.0], searches, k: 10, ..Query::default() }; 2];
        let words = Question { identity: IDENTITY, place: Place::Cpu, call: Call::Score(&[1]), queries: &queries };
        let words = words.encode().unwrap();
        for end in 0..words.len() {
            assert!(Asked::decode(words[..end].to_vec()).is_err(), "{end} words");
        }
        for place in 0..words.len() {
            for value in [0, 1, SAME, NONE, LONGEST as u32] {
                let mut changed = words.clone();
                changed[place] = value;
                let _ = Asked::decode(changed)
                    .map(|asked| asked.queries().map(|query| query.searches.iter().count()).sum::<usize>());
            }
        }
    }

    #[test]
    fn a_reply_arrives_as_it_was_given() {
        let list = |source| Answer {
            items: vec![Scored { item: 3, score: 0.5 }, Scored { item: 0, score: -1.0 }],
            source,
            from_model: 1,
        };
        let empty = Answer { items: vec![], source: Source::Model, from_model: 0 };
        for reply in [
            Reply::Lists(vec![]),
            Reply::Lists(vec![list(Source::Model), empty, list(Source::Popularity)]),
            Reply::Numbers(vec![1.5, -0.0]),
            Reply::Refused("{\"what\": \"händisch\"}".into()),
            Reply::Refused(String::new()),
            Reply::Unable(Inability::Missing),
            Reply::Unable(Inability::TooLong),
        ] {
            let words = reply.encode(1000);
            assert_eq!(Reply::decode(&words).unwrap(), reply);
            for end in 0..words.len() {
                assert!(Reply::decode(&words[..end]).is_err());
            }
        }
    }

    #[test]
    fn a_reply_keeps_to_the_room_it_has() {
        let numbers = Reply::Numbers(vec![0.0; 100]);
        assert_eq!(numbers.encode(102).len(), 102);
        assert_eq!(Reply::decode(&numbers.encode(101)).unwrap(), Reply::Unable(Inability::TooLong));
        let words = Reply::Refused("äääääää".into()).encode(5);
        assert_eq!(Reply::decode(&words).unwrap(), Reply::Refused("ääääää".into()));
    }

    #[test]
    fn the_room_that_is_asked_for_is_enough() {
        let queries =
            [Query { k: 3, ..Query::default() }, Query { k: usize::MAX, ..Query::default() }, Query::default()];
        let question = Question { identity: IDENTITY, place: Place::Cpu, call: Call::Recommend, queries: &queries };
        let full = |len: usize| Answer {
            items: vec![Scored { item: 0, score: 0.0 }; len],
            source: Source::Model,
            from_model: len,
        };
        let reply = Reply::Lists(vec![full(3), full(20), full(0)]);
        assert_eq!(reply.encode(usize::MAX).len(), question.reply_words(20));
        let scores = Question { call: Call::Score(&[1, 2]), ..question };
        assert_eq!(Reply::Numbers(vec![0.0; 2]).encode(usize::MAX).len(), scores.reply_words(20));
    }
}
