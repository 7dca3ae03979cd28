//! The words that a model knows: attributes of its items.

use std::cmp::Reverse;

use super::config::Config;
use crate::artifact::Texts;
use crate::{Artifact, ArtifactBuilder, Corpus, Error, Result};

const WORDS: &str = "words";

/// A word of one item only says nothing of others.
const ITEMS: u32 = 2;

/// Words, numbered in the order of their bytes.
pub(super) struct Vocabulary(Option<Texts>);

impl Vocabulary {
    /// The words of an artifact.
    pub(super) fn open(artifact: &Artifact, config: &Config) -> Result<Self> {
        if config.words == 0 {
            return Ok(Self(None));
        }
        let words = artifact.texts(WORDS)?;
        if words.len() != config.words || !words.is_ascending() {
            return Err(Error::Malformed(
                "the words are not as many as the configuration says, or not in order".into(),
            ));
        }
        Ok(Self(Some(words)))
    }

    /// Keeps words in an artifact.
    pub(super) fn store(words: &[String], builder: &mut ArtifactBuilder) {
        if !words.is_empty() {
            builder.texts(WORDS, words);
        }
    }

    /// The number of a word.
    pub(super) fn number(&self, word: &str) -> Option<u32> {
        let words = self.0.as_ref()?;
        words.find(word, 0..words.len())
    }

    /// All of them.
    pub(super) fn to_words(&self) -> Vec<String> {
        self.0.iter().flat_map(|words| (0..words.len()).map(|word| words.text(word))).collect()
    }
}

/// The words that most items have, at most so many, ascending.
pub(super) fn chosen(corpus: &Corpus, most: usize) -> Vec<String> {
    let mut items = vec![0u32; corpus.vocabulary().len()];
    corpus.attributes().iter().for_each(|&word| items[word as usize] += 1);
    let mut words: Vec<usize> = (0..items.len()).filter(|&word| items[word] >= ITEMS).collect();
    words.sort_by_key(|&word| Reverse(items[word]));
    words.truncate(most);
    words.sort_unstable();
    words.into_iter().map(|word| corpus.vocabulary()[word].clone()).collect()
}

/// What each item is described by, among these words, which ascend.
pub(super) fn of_items(corpus: &Corpus, words: &[String]) -> Vec<Vec<u32>> {
    let numbers: Vec<Option<u32>> =
        corpus.vocabulary().iter().map(|word| words.binary_search(word).ok().map(|place| place as u32)).collect();
    let of = |item: usize| corpus.attributes_of(item).iter().filter_map(|&word| numbers[word as usize]).collect();
    (0..corpus.items().len()).map(of).collect()
}
