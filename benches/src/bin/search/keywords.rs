//! People of whom nothing is known but a few words: a tenth of beauty's users, of whom nothing is learnt.
//!
//! Their keywords are the words of the texts of all that they touched but the last item, or some of these words, drawn; the
//! last item is to be found among all others. Beside it leave-one-out, by the words of histories. Words are lower-cased runs of letters and digits without stop words: Postgres,
//! whose search configuration makes them where an application binds texts, does not run here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use pgrec_benches::{Contest, histories, object, real};
use pgrec_engine::catalogue::IdKind;
use pgrec_engine::corpus::{CorpusBuilder, ItemKey};
use pgrec_engine::evaluate::{Protocol, Spec, evaluate};
use pgrec_engine::families::{self, Training};
use pgrec_engine::{Artifact, Control, Corpus, ItemId, Model, Query, serve};
use pgrec_kernels::Filter;
use xtask::generate::Random;
use xtask::{Home, Progress};

const DATA: &str = "beauty";

const STOP_WORDS: [&str; 17] =
    ["a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "s", "the", "to", "with", "your"];

/// One user in so many is held out.
const HELD_OUT: usize = 10;
/// How many words are given; all without.
const GIVEN: [Option<usize>; 4] = [None, Some(1), Some(3), Some(5)];
const K: usize = 10;
const LONG: usize = 20;

/// Families that are compared with counting common words.
const CONTESTANTS: [(&str, &str, &str); 3] = [
    ("keywords", "keywords", ""),
    ("direct", "keywords", r#""adjacency": "direct""#),
    ("popularity", "popularity", ""),
];

pub fn run(home: &Home, progress: &Progress, contest: &Contest, results: &mut Vec<String>) -> Result<()> {
    let Some(data) = real(home, progress, DATA)? else { return Ok(()) };
    let texts: HashMap<i64, Vec<String>> = data.items.iter().map(|item| (item.item_id, words(&item.title))).collect();
    let mut figures: BTreeMap<(usize, &str), Figures> = BTreeMap::new();
    for seed in contest.all_seeds() {
        let mut users = histories(&data);
        Random::new(seed).shuffle(&mut users);
        let learnt = users.split_off(users.len() / HELD_OUT);
        let all = corpus(&texts, &learnt)?;
        let models = CONTESTANTS.iter().map(|contestant| fit(contestant, &all, 0, &contest.params));
        let models = models.collect::<Result<Vec<_>>>()?;
        for (place, given) in GIVEN.into_iter().enumerate() {
            let mut random = Random::new(!seed);
            let held_out = users.iter().filter(|history| history.len() > 1);
            let cases: Vec<Case> =
                held_out.map(|history| Case::new(&all, &texts, history, given, &mut random)).collect();
            for ((label, ..), model) in CONTESTANTS.iter().zip(&models) {
                figures.entry((place, label)).or_default().add(&cases, &recommended(&**model, &cases)?);
            }
            figures.entry((place, "overlap")).or_default().add(&cases, &overlapping(&all, &cases));
        }
    }
    for ((place, label), figures) in figures {
        let given = GIVEN[place].map_or_else(|| "all".to_owned(), |given| given.to_string());
        results.push(format!("RESULT search.keywords.{DATA}.{given}.{label} {}", figures.shown()));
    }
    leave_one_out(&corpus(&texts, &histories(&data))?, &contest.params, results)
}

/// By the words of everybody's history.
fn leave_one_out(all: &Corpus, params: &str, results: &mut Vec<String>) -> Result<()> {
    for contestant in &CONTESTANTS {
        let model = fit(contestant, all, 2, params)?;
        let mut shown = String::new();
        for protocol in [Protocol::Validation, Protocol::Test] {
            let report = evaluate(&*model, all, &Spec { protocol, ..Spec::default() }, &Control::default())?;
            for row in report.rows.iter().filter(|row| ["hr", "ndcg"].contains(&row.metric)) {
                let half = row.high.map_or(f64::NAN, |high| high - row.value);
                shown += &format!(" {} {}@{} {:.4} ± {half:.4}", protocol.name(), row.metric, row.k, row.value);
            }
        }
        results.push(format!("RESULT search.keywords.{DATA}.history.{}{shown}", contestant.0));
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty() && !STOP_WORDS.contains(word)).map(str::to_owned).collect()
}

fn corpus(texts: &HashMap<i64, Vec<String>>, histories: &[Vec<i64>]) -> Result<Corpus> {
    let mut corpus = CorpusBuilder::new(IdKind::Int);
    for (&item, words) in texts {
        corpus.item(ItemKey::Int(item))?;
        corpus.words(ItemKey::Int(item), words.iter().map(String::as_str))?;
    }
    for history in histories {
        corpus.user()?;
        history.iter().try_for_each(|&item| corpus.event(ItemKey::Int(item), None))?;
    }
    Ok(corpus.finish()?)
}

fn fit(
    (label, family, own): &(&str, &str, &str),
    corpus: &Corpus,
    leave_last: usize,
    more: &str,
) -> Result<Box<dyn Model>> {
    let more = if *label == "keywords" { more } else { "" };
    let params = serde_json::from_str(&object(&[own, more])).context("reading parameters")?;
    let fit = families::find(family).and_then(|family| family.fit).ok_or_else(|| anyhow!("there is no {family}"))?;
    let (control, start) = (Control::default(), Instant::now());
    let artifact = fit(&Training { leave_last, ..Training::new(corpus, &params, &control) })?.artifact.finish()?;
    println!("{label}: {:.1} s, {} kB", start.elapsed().as_secs_f64(), artifact.len() >> 10);
    Ok(families::open(Arc::new(Artifact::from_vec(artifact)?))?)
}

/// Somebody of whom some words are known.
struct Case {
    words: Vec<String>,
    /// What they have touched, dense and ascending.
    touched: Vec<u32>,
    target: u32,
}

impl Case {
    fn new(
        corpus: &Corpus,
        texts: &HashMap<i64, Vec<String>>,
        history: &[i64],
        given: Option<usize>,
        random: &mut Random,
    ) -> Self {
        let (known, target) = (&history[..history.len() - 1], history[history.len() - 1]);
        let mut words: Vec<String> = known.iter().filter_map(|item| texts.get(item)).flatten().cloned().collect();
        words.sort_unstable();
        words.dedup();
        if let Some(given) = given {
            random.shuffle(&mut words);
            words.truncate(given);
        }
        let dense = |item: i64| corpus.items().index_of(&ItemId::Int(item)).unwrap_or(u32::MAX);
        let target = dense(target);
        let mut touched: Vec<u32> = known.iter().map(|&item| dense(item)).filter(|&item| item != target).collect();
        touched.sort_unstable();
        touched.dedup();
        Self { words, touched, target }
    }
}

fn recommended(model: &dyn Model, cases: &[Case]) -> Result<Vec<Vec<u32>>> {
    let number = |word: &String| model.word(word);
    let words: Vec<Vec<u32>> = cases.iter().map(|case| case.words.iter().filter_map(number).collect()).collect();
    let ask = |(case, words)| {
        let (case, words): (&Case, &Vec<u32>) = (case, words);
        Query { words, k: LONG, filter: Filter { exclude: &case.touched, candidates: None }, ..Query::default() }
    };
    let queries: Vec<Query<'_>> = cases.iter().zip(&words).map(ask).collect();
    let start = Instant::now();
    let answers = serve::recommend(model, &queries, &Control::default())?;
    println!("{} lists in {:.2} s", queries.len(), start.elapsed().as_secs_f64());
    Ok(answers.iter().map(|answer| answer.items.iter().map(|scored| scored.item).collect()).collect())
}

/// Items by how many of the words their texts have, of equal ones the most popular first.
fn overlapping(corpus: &Corpus, cases: &[Case]) -> Vec<Vec<u32>> {
    let counts = corpus.counts();
    let mut having: HashMap<&str, Vec<u32>> = HashMap::new();
    for item in 0..corpus.items().len() {
        for &word in corpus.words_of(item) {
            having.entry(&corpus.lexicon()[word as usize]).or_default().push(item as u32);
        }
    }
    let list = |case: &Case| {
        let mut common = vec![0u32; corpus.items().len()];
        let found = case.words.iter().filter_map(|word| having.get(word.as_str())).flatten();
        found.for_each(|&item| common[item as usize] += 1);
        let mut items: Vec<u32> = (0..common.len() as u32).collect();
        items.retain(|item| case.touched.binary_search(item).is_err());
        items.sort_by_key(|&item| std::cmp::Reverse((common[item as usize], counts[item as usize])));
        items.truncate(LONG);
        items
    };
    cases.iter().map(list).collect()
}

/// Of every user whether and where the target was found.
#[derive(Default)]
struct Figures {
    hits: Vec<f64>,
    gains: Vec<f64>,
    long_hits: Vec<f64>,
}

impl Figures {
    fn add(&mut self, cases: &[Case], lists: &[Vec<u32>]) {
        for (case, list) in cases.iter().zip(lists) {
            let place = list.iter().position(|&item| item == case.target);
            let near = place.filter(|&place| place < K);
            self.hits.push(f64::from(u8::from(near.is_some())));
            self.gains.push(near.map_or(0.0, |place| 1.0 / (place as f64 + 2.0).log2()));
            self.long_hits.push(f64::from(u8::from(place.is_some())));
        }
    }

    fn shown(&self) -> String {
        let [hits, gains, long] = [&self.hits, &self.gains, &self.long_hits].map(|values| mean(values));
        format!("hr@{K} {hits} ndcg@{K} {gains} recall@{LONG} {long} of {} users", self.hits.len())
    }
}

/// The mean over users and splits, and half of its 95 % confidence interval.
fn mean(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    format!("{mean:.4} ± {:.4}", 1.96 * (variance / n).sqrt())
}
