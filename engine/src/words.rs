//! The words a model knows, and which of them a misspelt one was most likely meant to be.

use std::cmp::Ordering;

use crate::artifact::Texts;
use crate::{Artifact, Error, Result};

/// Words, numbered in the order of their bytes.
pub(crate) struct Lexicon(Texts);

impl Lexicon {
    /// The words that an artifact has under this name.
    pub(crate) fn open(artifact: &Artifact, name: &str) -> Result<Self> {
        let words = artifact.texts(name)?;
        match words.is_ascending() {
            true => Ok(Self(words)),
            false => Err(Error::Malformed(format!("words \"{name}\" are not in order"))),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of a word.
    pub(crate) fn number(&self, word: &str) -> Option<u32> {
        self.0.find(word, 0..self.0.len())
    }

    /// The word of a number.
    pub(crate) fn text(&self, word: u32) -> Option<String> {
        ((word as usize) < self.0.len()).then(|| self.0.text(word as usize))
    }

    /// The word nearest to one that is not among them; of several as near that of most weight.
    pub(crate) fn nearest(&self, word: &str, weight: impl Fn(u32) -> f32) -> Option<u32> {
        Ascending { count: self.0.len(), get: |number| self.0.get(number) }.nearest(word, weight)
    }
}

/// The place of the word nearest to one that is not among `words`, which ascend by their bytes and have weights; of several
/// as near that of most weight. None where none is near: shorter words than four characters are near to anything, up to
/// seven characters one edit is allowed, and two from there on. An edit inserts, deletes or replaces a character, or
/// exchanges two neighbours, which are not edited again (optimal string alignment).
pub fn nearest(words: &[(String, f32)], word: &str) -> Option<usize> {
    let ascending = Ascending { count: words.len(), get: |number: usize| words[number].0.as_bytes() };
    ascending.nearest(word, |number| words[number as usize].1).map(|number| number as usize)
}

/// Words in the order of their bytes.
struct Ascending<F> {
    count: usize,
    get: F,
}

impl<'a, F: Fn(usize) -> &'a [u8]> Ascending<F> {
    /// The word that takes fewest edits, within what [`most_edits`] allows; of several that of most weight, and of those the
    /// first.
    ///
    /// Words in order are a trie: the rows of the table of distances that belong to a common beginning are computed once,
    /// and where a beginning is too far away already, so is every word that has it.
    fn nearest(&self, word: &str, weight: impl Fn(u32) -> f32) -> Option<u32> {
        let mut table = Distances::to(word);
        let mut most = most_edits(table.wanted.len());
        let mut best: Option<(usize, f32, u32)> = None;
        let mut number = 0;
        while number < self.count {
            let text = std::str::from_utf8((self.get)(number)).unwrap_or_default();
            match table.reach(text, most) {
                Reached::Beginning(bytes) => {
                    number = self.past(number, &text.as_bytes()[..bytes]);
                    continue;
                }
                Reached::End(edits) if edits <= most => {
                    let found = (edits, weight(number as u32), number as u32);
                    most = edits;
                    if best.is_none_or(|best| found.0.cmp(&best.0).then(best.1.total_cmp(&found.1)) == Ordering::Less) {
                        best = Some(found);
                    }
                }
                Reached::End(_) => {}
            }
            number += 1;
        }
        best.map(|(_, _, number)| number)
    }

    /// The first word after `from` that does not begin with this, as the word `from` does.
    fn past(&self, from: usize, beginning: &[u8]) -> usize {
        let begins = |word: usize| word < self.count && (self.get)(word).starts_with(beginning);
        let mut step = 1;
        while begins(from + step) {
            step *= 2;
        }
        // Between these two the beginning ends.
        let (mut inside, mut outside) = (from + step / 2, from + step);
        while inside + 1 < outside {
            let middle = usize::midpoint(inside, outside);
            if begins(middle) {
                inside = middle;
            } else {
                outside = middle;
            }
        }
        outside
    }
}

/// How many edits a word of so many characters may be away: shorter ones would be near to anything.
fn most_edits(characters: usize) -> usize {
    match characters {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    }
}

/// What comparing a word gave.
enum Reached {
    /// Its distance.
    End(usize),
    /// Every word that begins with so many of its bytes is too far away.
    Beginning(usize),
}

/// The table of distances between beginnings of a word and of what is wanted.
struct Distances {
    wanted: Vec<char>,
    /// The characters that there are rows of.
    word: Vec<char>,
    /// A row a beginning, from the empty one on, of `wanted.len() + 1` numbers.
    rows: Vec<usize>,
}

impl Distances {
    fn to(wanted: &str) -> Self {
        let wanted: Vec<char> = wanted.chars().collect();
        Self { rows: (0..=wanted.len()).collect(), word: Vec::new(), wanted }
    }

    /// Goes on to another word, with the rows that the last one has in common with it.
    fn reach(&mut self, word: &str, most: usize) -> Reached {
        let common = self.word.iter().zip(word.chars()).take_while(|(a, b)| **a == *b).count();
        self.word.truncate(common);
        self.rows.truncate((common + 1) * (self.wanted.len() + 1));
        for (at, character) in word.char_indices().skip(common) {
            self.extend(character);
            if self.is_too_far(most) {
                return Reached::Beginning(at + character.len_utf8());
            }
        }
        // The last number of the last row.
        Reached::End(self.rows[self.rows.len() - 1])
    }

    /// The row of the beginning that is one character longer.
    fn extend(&mut self, character: char) {
        let width = self.wanted.len() + 1;
        let before = self.rows.len() - width;
        self.rows.push(self.word.len() + 1);
        for at in 1..width {
            let replaced = self.rows[before + at - 1] + usize::from(self.wanted[at - 1] != character);
            let inserted = self.rows[before + width + at - 1] + 1;
            let mut least = replaced.min(inserted).min(self.rows[before + at] + 1);
            let exchanged =
                at > 1 && self.wanted[at - 2] == character && self.word.last() == Some(&self.wanted[at - 1]);
            if exchanged {
                least = least.min(self.rows[before - width + at - 2] + 1);
            }
            self.rows.push(least);
        }
        self.word.push(character);
    }

    /// Whether whatever goes on from here takes more edits: a next row comes from this one, or by an exchange from the one
    /// before.
    fn is_too_far(&self, most: usize) -> bool {
        let width = self.wanted.len() + 1;
        let least = |row: &[usize]| row.iter().copied().min().unwrap_or(0);
        let (before, last) = self.rows[self.rows.len() - 2 * width..].split_at(width);
        least(last) > most && least(before) >= most
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ArtifactBuilder;
    use crate::random::SplitMix;
    use crate::testing;

    fn lexicon(words: &[String]) -> Lexicon {
        let corpus = testing::corpus(&[&[1]]);
        let mut artifact = ArtifactBuilder::new("keywords", &json!({}), corpus.items(), &[1.0]);
        artifact.texts("words", words);
        Lexicon::open(&Artifact::from_vec(artifact.finish().unwrap()).unwrap(), "words").unwrap()
    }

    fn of(words: &[&str]) -> Lexicon {
        let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        words.sort();
        lexicon(&words)
    }

    /// The definition, without any shortcut.
    fn distance(a: &str, b: &str) -> usize {
        let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                d[i][j] = match (i, j) {
                    (0, _) => j,
                    (_, 0) => i,
                    _ => {
                        let replaced = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                        let mut least = replaced.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
                        if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                            least = least.min(d[i - 2][j - 2] + 1);
                        }
                        least
                    }
                };
            }
        }
        d[a.len()][b.len()]
    }

    fn random_word(random: &mut SplitMix, letters: &[char]) -> String {
        (0..1 + random.below(11)).map(|_| letters[random.below(letters.len())]).collect()
    }

    #[test]
    fn nearest_is_the_nearest_of_all_by_the_definition() {
        let mut random = SplitMix::new(testing::fresh_seed());
        for letters in [&['a', 'b', 'c'][..], &['a', 'é', '字', 'd', 'e']] {
            let mut words: Vec<String> = (0..600).map(|_| random_word(&mut random, letters)).collect();
            words.sort();
            words.dedup();
            let weights: Vec<f32> = words.iter().map(|_| random.below(5) as f32).collect();
            let lexicon = lexicon(&words);
            for _ in 0..400 {
                let asked = random_word(&mut random, letters);
                let near = (0..words.len()).map(|n| (distance(&asked, &words[n]), n));
                let near = near.filter(|&(edits, _)| edits <= most_edits(asked.chars().count()));
                let wanted =
                    near.min_by(|a, b| a.0.cmp(&b.0).then(weights[b.1].total_cmp(&weights[a.1])).then(a.1.cmp(&b.1)));
                let found = lexicon.nearest(&asked, |word| weights[word as usize]);
                assert_eq!(found, wanted.map(|(_, n)| n as u32), "{asked}");
            }
        }
    }

    #[test]
    fn longer_words_may_have_more_wrong() {
        let lexicon = of(&["cat", "lipstick", "nail", "shampoo", "snail"]);
        let nearest = |word: &str| lexicon.nearest(word, |_| 1.0).and_then(|word| lexicon.text(word));
        assert_eq!(nearest("nial").as_deref(), Some("nail"), "an exchange is one edit");
        assert_eq!(nearest("lipstik").as_deref(), Some("lipstick"));
        assert_eq!(nearest("lpistikc").as_deref(), Some("lipstick"), "two of eight");
        assert_eq!(nearest("shampo").as_deref(), Some("shampoo"));
        assert_eq!(nearest("shmp"), None);
        assert_eq!(nearest("cta"), None, "three characters are near to anything");
        assert_eq!(nearest("cat").as_deref(), Some("cat"));
        assert_eq!((nearest(""), of(&[]).nearest("nail", |_| 1.0)), (None, None));
    }

    #[test]
    fn words_have_numbers_in_their_order() {
        let lexicon = of(&["b", "a", "ç"]);
        assert_eq!((lexicon.number("a"), lexicon.number("ç"), lexicon.number("d")), (Some(0), Some(2), None));
        assert_eq!((lexicon.text(1).as_deref(), lexicon.text(3)), (Some("b"), None));
    }
}
