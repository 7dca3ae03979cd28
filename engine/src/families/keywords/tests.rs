//! The adjacency against its definition, and the model by what it ranks.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use pgrec_kernels::Filter;
use serde_json::{Value, json};

use super::NAME;
use crate::catalogue::IdKind;
use crate::corpus::{CorpusBuilder, ItemKey, SearchRow};
use crate::families::Training;
use crate::random::SplitMix;
use crate::{Control, Corpus, Error, Model, Query, testing};

/// Texts of items, by number, and histories.
fn corpus(texts: &[&str], histories: &[&[i64]]) -> CorpusBuilder {
    let mut builder = CorpusBuilder::new(IdKind::Int);
    for (item, text) in (0..).zip(texts) {
        builder.item(ItemKey::Int(item)).unwrap();
        builder.words(ItemKey::Int(item), text.split_whitespace()).unwrap();
    }
    for history in histories {
        builder.user().unwrap();
        history.iter().for_each(|&item| builder.event(ItemKey::Int(item), None).unwrap());
    }
    builder
}

fn search(builder: &mut CorpusBuilder, words: &[&str], item: Option<i64>) {
    builder.search(&SearchRow { words, item: item.map(ItemKey::Int), ..SearchRow::default() }).unwrap();
}

/// Nails and hair, each with words that everybody of that taste meets.
fn shop() -> Corpus {
    let texts = ["nail lacquer red", "nail polish blue", "glitter top coat", "hair shampoo", "hair oil", "brush", ""];
    let (nails, hair) = (&[0, 1, 2][..], &[3, 4, 5][..]);
    corpus(&texts, &[nails, nails, hair, hair, &[0, 2], &[4, 5]]).finish().unwrap()
}

fn list(model: &dyn Model, query: Query<'_>) -> Vec<u32> {
    let list = model.recommend(&[query], &Control::default()).unwrap().remove(0);
    list.iter().map(|scored| scored.item).collect()
}

fn numbers(model: &dyn Model, words: &[&str]) -> Vec<u32> {
    words.iter().map(|word| model.word(word).unwrap()).collect()
}

/// Words of random items, users who touch some of them and look for some words, and searches of nobody.
fn random(seed: u64) -> Corpus {
    let mut random = SplitMix::new(seed);
    let words: Vec<String> = (0..25).map(|word| format!("w{word}")).collect();
    let mut some =
        |most: usize| -> Vec<&str> { (0..random.below(most)).map(|_| words[random.below(25)].as_str()).collect() };
    let texts: Vec<String> = (0..30).map(|_| some(6).join(" ")).collect();
    let queries: Vec<Vec<&str>> = (0..60).map(|_| some(3)).collect();
    let mut random = SplitMix::new(!seed);
    let mut builder = corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    for (number, query) in queries.iter().enumerate() {
        if number >= 10 {
            builder.user().unwrap();
        }
        let events = if number < 10 { 0 } else { random.below(9) };
        (0..events).for_each(|_| builder.event(ItemKey::Int(random.below(30) as i64), None).unwrap());
        let led = (random.below(3) > 0).then(|| random.below(30) as i64);
        search(&mut builder, query, led);
    }
    builder.finish().unwrap()
}

/// A weight as the adjacency's definition has it, without any of its shortcuts; None of a word that is no keyword.
fn defined(corpus: &Corpus, word: u32, item: u32, propagated: bool, direct: f64) -> Option<f64> {
    let set = |items: &[u32]| items.iter().copied().collect::<BTreeSet<u32>>();
    let says = |item: u32, word: u32| corpus.words_of(item as usize).contains(&word);
    let people: Vec<(BTreeSet<u32>, BTreeSet<u32>)> = (0..corpus.users())
        .map(|user| {
            let asked = corpus.searches(user).flat_map(|search| corpus.query_words(search.query)).copied();
            (set(corpus.history(user)), asked.collect())
        })
        .chain(corpus.anonymous_searches().filter_map(|s| Some((set(&[s.item?]), set(corpus.query_words(s.query))))))
        .collect();
    // Of nobody who is known only what they looked for.
    let has = |person: usize, word: u32| {
        let (items, asked) = &people[person];
        asked.contains(&word) || person < corpus.users() && items.iter().any(|&item| says(item, word))
    };
    let users = |word: u32| (0..people.len()).filter(|&person| has(person, word)).count() as f64;
    let known = people.iter().filter(|(items, asked)| !items.is_empty() || !asked.is_empty());
    let iuf = (known.count() as f64 / users(word)).ln();
    if users(word) < 2.0 {
        return None;
    }
    let searches = || (0..corpus.users()).flat_map(|user| corpus.searches(user)).chain(corpus.anonymous_searches());
    let often = |word: u32| {
        let led = searches().filter(|s| s.item == Some(item) && corpus.query_words(s.query).contains(&word)).count();
        led as f64 + f64::from(u8::from(says(item, word)))
    };
    let log = |often: f64| if often > 0.0 { 1.0 + often.ln() } else { 0.0 };
    let words = 0..corpus.lexicon().len() as u32;
    let length: f64 = words.filter(|&word| users(word) >= 2.0).map(|word| log(often(word))).sum();
    let own = if often(word) > 0.0 { direct * log(often(word)) / length.sqrt() } else { 0.0 };
    if !propagated {
        return Some(iuf * own);
    }
    let mut sum = 0.0;
    for (items, asked) in &people[..corpus.users()] {
        let others = items.iter().any(|&other| other != item && says(other, word));
        if items.contains(&item) && (others || asked.contains(&word)) {
            sum += 1.0 / (items.len() as f64).sqrt();
        }
    }
    sum += searches().filter(|s| s.item == Some(item) && corpus.query_words(s.query).contains(&word)).count() as f64;
    let visits = people.iter().filter(|(items, _)| items.contains(&item)).count().max(1) as f64;
    Some(iuf * (sum / users(word).sqrt() / visits.powf(0.4) + own))
}

#[test]
fn weights_are_those_of_their_definition() {
    let corpus = random(testing::fresh_seed());
    for (adjacency, direct) in [("propagated", 0.3), ("propagated", 0.0), ("direct", 1.0)] {
        let model = testing::fit(NAME, &corpus, json!({ "adjacency": adjacency, "direct": direct }));
        for (word, text) in (0..).zip(&**corpus.lexicon()) {
            let known = model.word(text);
            for item in 0..30 {
                let wanted = defined(&corpus, word, item, adjacency == "propagated", direct);
                assert_eq!(known.is_some(), wanted.is_some(), "{text}");
                let (Some(known), Some(wanted)) = (known, wanted) else { continue };
                let score = model.score(&Query { words: &[known], ..Query::default() }, &[item]).unwrap()[0];
                let near = (f64::from(score.max(0.0)) - wanted).abs() < 1e-4 * wanted.max(1.0);
                assert!(near, "{adjacency} {direct}, {text} of {item}: {score} is not {wanted}");
            }
        }
    }
}

#[test]
fn words_lead_to_what_those_touch_who_have_them() {
    let model = testing::fit(NAME, &shop(), json!({}));
    let words = numbers(&*model, &["nail", "polish"]);
    let found = list(&*model, Query { words: &words, k: 7, ..Query::default() });
    assert_eq!(found.len(), 7, "what no keyword brings follows by popularity");
    assert_eq!(found[..3].iter().collect::<BTreeSet<_>>(), [0, 1, 2].iter().collect(), "{found:?}");
    assert_eq!(found[6], 6, "nobody has touched it");
    let direct = testing::fit(NAME, &shop(), json!({ "adjacency": "direct" }));
    let score = |model: &dyn Model| model.score(&Query { words: &words, ..Query::default() }, &[2]).unwrap()[0];
    assert!(
        score(&*model) > 0.0 && score(&*direct) < 0.0,
        "the glitter has neither word, but who likes nails likes it"
    );
}

#[test]
fn without_words_a_history_tells_them_and_nothing_tells_nothing() {
    let model = testing::fit(NAME, &shop(), json!({}));
    let filter = Filter { exclude: &[3], candidates: None };
    let found = list(&*model, Query { history: &[3], k: 2, filter, ..Query::default() });
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), [4, 5].iter().collect());
    let words = numbers(&*model, &["nail"]);
    let both = Query { history: &[3], words: &words, k: 3, ..Query::default() };
    assert_eq!(list(&*model, both), list(&*model, Query { history: &[], ..both }), "words that are given count alone");
    assert!(list(&*model, Query { k: 3, ..Query::default() }).is_empty());
    assert!(list(&*model, Query { history: &[6], k: 3, ..Query::default() }).is_empty(), "it has no words");
    let similar = model.similar(4, &Query { k: 3, ..Query::default() }).unwrap();
    assert!(similar.iter().all(|scored| scored.item != 4) && similar.len() == 3 && similar[0].score > 0.0);
}

#[test]
fn scores_are_those_of_the_list_under_every_filter() {
    let corpus = random(testing::fresh_seed());
    let model = testing::fit(NAME, &corpus, json!({ "keep": 4 }));
    let words: Vec<u32> = (0..1000).filter_map(|word| model.word(&format!("w{word}"))).take(3).collect();
    assert_eq!(words.len(), 3);
    for filter in [
        Filter::default(),
        Filter { exclude: &[2, 5, 7], candidates: None },
        Filter { exclude: &[2], candidates: Some(&[1, 2, 3, 9, 20]) },
    ] {
        let query = Query { words: &words, k: 40, filter, ..Query::default() };
        let found = model.recommend(&[query], &Control::default()).unwrap().remove(0);
        let everything: Vec<u32> = (0..30).collect();
        let open = filter.candidates.unwrap_or(&everything).iter().filter(|item| !filter.exclude.contains(item));
        let open: Vec<u32> = open.copied().collect();
        // Where no keyword brings anything there is no list: what is popular then is no answer of this model's.
        let brought = model.score(&query, &open).unwrap().into_iter().any(|score| score > 0.0);
        assert_eq!(found.len(), if brought { open.len() } else { 0 });
        assert!(found.is_sorted_by(|a, b| a.score > b.score || a.score == b.score && a.item < b.item), "{found:?}");
        let items: Vec<u32> = found.iter().map(|scored| scored.item).collect();
        let scores: Vec<f32> = found.iter().map(|scored| scored.score).collect();
        assert_eq!(model.score(&query, &items).unwrap(), scores);
    }
    let wrong = Query { words: &[99], k: 1, ..Query::default() };
    assert!(matches!(model.recommend(&[wrong], &Control::default()), Err(Error::Parameter(_))));
}

#[test]
fn queries_make_keywords_where_items_have_no_texts() {
    let mut builder = corpus(&["", "", "", ""], &[]);
    (0..3).for_each(|_| search(&mut builder, &["red", "shoe"], Some(2)));
    search(&mut builder, &["hat"], Some(1));
    builder.user().unwrap();
    search(&mut builder, &["hat"], None);
    builder.event(ItemKey::Int(3), None).unwrap();
    let model = testing::fit(NAME, &builder.finish().unwrap(), json!({}));
    let found = |words: &[&str]| list(&*model, Query { words: &numbers(&*model, words), k: 1, ..Query::default() });
    assert_eq!(found(&["shoe", "red"]), [2]);
    let hats = model.score(&Query { words: &numbers(&*model, &["hat"]), ..Query::default() }, &[1, 3, 2]).unwrap();
    assert!(hats[0] > hats[1] && hats[1] > 0.0 && hats[2] < 0.0, "{hats:?}");
}

#[test]
fn an_explanation_names_the_keywords_and_where_they_come_from() {
    let model = testing::fit(NAME, &shop(), json!({}));
    let query = Query { history: &[0, 5, 1], ..Query::default() };
    let why = model.explain(&query, 2).unwrap();
    let brought = why["brought_by"].as_array().unwrap();
    assert_eq!((&why["keywords_of"], &why["adjacency"]), (&json!("history"), &json!("propagated")));
    let of = |word: &str| brought.iter().find(|by| by["keyword"] == word).unwrap();
    assert_eq!((&of("nail")["items"], &of("nail")["users"]), (&json!([0, 1]), &json!(3)));
    let sum: f64 = brought.iter().map(|by| by["weight"].as_f64().unwrap()).sum();
    assert!((sum - why["score"].as_f64().unwrap()).abs() < 1e-5);
    assert!(matches!(model.encode(&query), Err(Error::Unsupported { .. })));
    assert_eq!(model.nearest_word("shampo"), model.word("shampoo"));
    assert_eq!(model.word_text(model.word("nail").unwrap()).as_deref(), Some("nail"));
    assert!(model.answers_queries() && model.word("lacquers").is_none());
}

#[test]
fn threads_change_no_bit_and_what_cannot_be_is_refused() {
    let corpus = random(testing::fresh_seed());
    let bytes = |threads: usize| testing::fit_by_threads(NAME, &corpus, &json!({ "keep": 7 }), threads);
    assert!(bytes(1) == bytes(3));
    let fit = |params: Value| testing::try_fit(NAME, &corpus, &params, &Control::default());
    assert!(matches!(fit(json!({ "kept": 3 })), Err(Error::Parameter(why)) if why.contains("keep")));
    assert!(matches!(fit(json!({ "keep": 0 })), Err(Error::Parameter(_))));
    assert!(matches!(fit(json!({ "direct": -1 })), Err(Error::Parameter(_))));
    let wordless = testing::corpus(&[&[1, 2], &[1, 3]]);
    let nothing = testing::try_fit(NAME, &wordless, &json!({}), &Control::default());
    assert!(matches!(nothing, Err(Error::Data(why)) if why.contains("title_column") && why.contains("searches")));
    let (params, control) = (json!({}), Control::default());
    let small = Training { memory: 100, ..Training::new(&corpus, &params, &control) };
    assert!(matches!(super::fit(&small), Err(Error::Memory(_))));
    control.cancel();
    assert!(matches!(testing::try_fit(NAME, &corpus, &params, &control), Err(Error::Cancelled)));
}

#[test]
fn what_is_held_out_leaves_no_trace() {
    let texts = ["a b", "b c", "c d", "d a"];
    let with = corpus(&texts, &[&[0, 1, 2], &[1, 2, 3], &[2, 3, 0]]).finish().unwrap();
    let without = corpus(&texts, &[&[0], &[1], &[2]]).finish().unwrap();
    let control = Control::default();
    let fit = |corpus: &Corpus, leave_last: usize| {
        let training = Training { leave_last, ..Training::new(corpus, &Value::Null, &control) };
        super::fit(&training).unwrap().artifact.finish().unwrap()
    };
    assert!(fit(&with, 2) == fit(&without, 0));
}
