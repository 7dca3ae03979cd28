//! A catalogue of titles and vectors that never was: words by Zipf's law, six to twelve a title, vectors in groups.

use std::fmt::Write as _;
use std::io::Write;

use xtask::generate::Random;

/// Words there are.
const WORDS: usize = 100_000;
/// Numbers of a vector.
pub const DIMENSION: usize = 64;
/// Groups of items, whose vectors are near one another.
const GROUPS: usize = 1000;
/// How far vectors of a group are apart, and a query's from its item's, beside the distance of groups.
const SPREAD: f64 = 0.6;
const NOISE: f64 = 1.2;

/// What items are made of, the same for the same seed.
pub struct Catalogue {
    /// Up to each word, from the most frequent on, the share of all words.
    shares: Vec<f64>,
    groups: Vec<Vec<f64>>,
    seed: u64,
}

/// One item.
pub struct Thing {
    /// Its words, by how frequent they are.
    pub words: Vec<usize>,
    /// Its vector.
    pub vector: Vec<f64>,
}

impl Catalogue {
    pub fn new(seed: u64) -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (1..=WORDS)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        let mut random = Random::new(seed);
        let groups = (0..GROUPS).map(|_| normal(&mut random, 1.0)).collect();
        Self { shares, groups, seed }
    }

    /// A word, by its frequency.
    fn word(&self, random: &mut Random) -> usize {
        let share = random.unit();
        self.shares.partition_point(|&up_to| up_to < share).min(WORDS - 1)
    }

    /// The item of this number.
    pub fn thing(&self, item: usize) -> Thing {
        let mut random = Random::new(self.seed ^ (item as u64 + 1).wrapping_mul(0x9e37_79b9));
        let words = (0..6 + random.below(7)).map(|_| self.word(&mut random)).collect();
        let group = &self.groups[random.below(GROUPS)];
        let vector = group.iter().zip(normal(&mut random, SPREAD)).map(|(x, y)| x + y).collect();
        Thing { words, vector }
    }

    /// Rows of `item_id, title, embedding` for COPY, of items numbered from 1.
    pub fn rows(&self, items: usize, out: &mut dyn Write) -> std::io::Result<()> {
        let mut line = String::new();
        for item in 1..=items {
            let thing = self.thing(item);
            line.clear();
            let title: Vec<String> = thing.words.iter().map(|&word| name(word)).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(line, "{item}\t{}\t{}", title.join(" "), literal(&thing.vector));
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    /// What somebody asks who looks for an item: two of its words, and a vector near its own.
    pub fn question(&self, item: usize, random: &mut Random) -> (String, String) {
        let thing = self.thing(item);
        let first = random.below(thing.words.len());
        let second = (first + 1 + random.below(thing.words.len() - 1)) % thing.words.len();
        let words = [first, second].map(|place| name(thing.words[place]));
        let vector: Vec<f64> = thing.vector.iter().zip(normal(random, NOISE)).map(|(x, y)| x + y).collect();
        (words.join(" "), literal(&vector))
    }
}

fn normal(random: &mut Random, scale: f64) -> Vec<f64> {
    (0..DIMENSION).map(|_| scale * random.normal()).collect()
}

/// A word that can be said, one for each number.
fn name(word: usize) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprst";
    const VOWELS: &[u8] = b"aeiou";
    let (mut rest, mut name) = (word + 60, String::new());
    while rest > 0 {
        let syllable = rest % 60;
        name.push(char::from(CONSONANTS[syllable % 12]));
        name.push(char::from(VOWELS[syllable / 12]));
        rest /= 60;
    }
    name
}

/// As pgvector reads it.
fn literal(vector: &[f64]) -> String {
    let numbers: Vec<String> = vector.iter().map(|x| format!("{x:.3}")).collect();
    format!("[{}]", numbers.join(","))
}
