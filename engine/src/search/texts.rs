//! Ranking a whole catalogue by the words of its texts, in memory.

use super::{Bm25, inverse_document_frequency};
use crate::Corpus;

/// Which items' texts have each word, and what the words say. A corpus does not tell how often a text has a word: once counts.
pub struct Texts {
    /// Where the items of each word begin, and the end of the last.
    offsets: Vec<usize>,
    items: Vec<u32>,
    /// What each word says.
    says: Vec<f64>,
    /// Words of each text.
    lengths: Vec<u32>,
    bm25: Bm25,
}

impl Texts {
    /// Of a corpus' items.
    pub fn of(corpus: &Corpus) -> Self {
        let (count, words) = (corpus.items().len(), corpus.lexicon().len());
        let mut offsets = vec![0; words + 1];
        (0..count).flat_map(|item| corpus.words_of(item)).for_each(|&word| offsets[word as usize + 1] += 1);
        (0..words).for_each(|word| offsets[word + 1] += offsets[word]);
        let (mut next, mut items) = (offsets.clone(), vec![0; offsets[words]]);
        for item in 0..count {
            for &word in corpus.words_of(item) {
                items[next[word as usize]] = item as u32;
                next[word as usize] += 1;
            }
        }
        let having = offsets.windows(2).map(|bounds| (bounds[1] - bounds[0]) as f64);
        Self {
            says: having.map(|having| inverse_document_frequency(having, count as f64)).collect(),
            bm25: Bm25 { mean_length: items.len() as f64 / count.max(1) as f64 },
            lengths: (0..count).map(|item| corpus.words_of(item).len() as u32).collect(),
            offsets,
            items,
        }
    }

    /// Whether no item has a text.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items that have any of some words of the lexicon, without repeats, best first, ties in the order of the catalogue.
    pub fn ranked(&self, words: &[u32]) -> Vec<(u32, f64)> {
        let mut matched: Vec<(u32, f64)> = Vec::new();
        for &word in words {
            let own = &self.items[self.offsets[word as usize]..self.offsets[word as usize + 1]];
            matched.extend(own.iter().map(|&item| (item, self.says[word as usize])));
        }
        matched.sort_by_key(|&(item, _)| item);
        let score = |matched: &[(u32, f64)]| {
            let item = matched[0].0;
            let length = f64::from(self.lengths[item as usize]);
            (item, self.bm25.score(length, matched.iter().map(|&(_, says)| (says, 1.0))))
        };
        let mut ranked: Vec<(u32, f64)> = matched.chunk_by(|a, b| a.0 == b.0).map(score).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalogue::IdKind;
    use crate::corpus::{CorpusBuilder, ItemKey};

    #[test]
    fn items_are_ranked_by_what_their_texts_have_of_the_query() {
        let mut builder = CorpusBuilder::new(IdKind::Int);
        let texts = ["red shoe", "red red hat with a feather", "blue shoe", "", "feather"];
        for (item, text) in (0..).zip(texts) {
            builder.item(ItemKey::Int(item)).unwrap();
            builder.words(ItemKey::Int(item), text.split_whitespace()).unwrap();
        }
        let corpus = builder.finish().unwrap();
        let word = |word: &str| corpus.lexicon().iter().position(|other| other == word).unwrap() as u32;
        let texts = Texts::of(&corpus);
        let ranked = |words: &[&str]| {
            let ranked = texts.ranked(&words.iter().map(|w| word(w)).collect::<Vec<_>>());
            ranked.into_iter().map(|(item, _)| item).collect::<Vec<_>>()
        };
        assert_eq!(ranked(&["red", "shoe"]), [0, 2, 1]);
        assert_eq!(ranked(&["feather"]), [4, 1]);
        assert!(ranked(&[]).is_empty() && !texts.is_empty());
        // By hand: "feather" is in two of five texts, of which the mean length is 10 / 5.
        let says = inverse_document_frequency(2.0, 5.0);
        let wanted = Bm25 { mean_length: 2.0 }.score(1.0, [(says, 1.0)]);
        assert!((texts.ranked(&[word("feather")])[0].1 - wanted).abs() < 1e-12);
    }
}
