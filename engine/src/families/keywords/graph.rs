//! Who has which keywords, and who touched what.

use crate::corpus::Search;
use crate::{Control, Corpus, Result};

/// Lists of numbers, one after the other.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) offsets: Vec<u64>,
    pub(super) numbers: Vec<u32>,
}

impl Lists {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { offsets: vec![0], numbers: Vec::new() }
    }

    /// One more.
    pub(super) fn push(&mut self, list: impl IntoIterator<Item = u32>) {
        self.numbers.extend(list);
        self.offsets.push(self.numbers.len() as u64);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// One of them.
    pub(super) fn of(&self, list: usize) -> &[u32] {
        &self.numbers[self.offsets[list] as usize..self.offsets[list + 1] as usize]
    }

    /// In which lists each of so many numbers is, ascending.
    pub(super) fn inverted(&self, numbers: usize) -> Self {
        let mut offsets = vec![0u64; numbers + 1];
        self.numbers.iter().for_each(|&number| offsets[number as usize + 1] += 1);
        (0..numbers).for_each(|number| offsets[number + 1] += offsets[number]);
        let mut filled = Self { numbers: vec![0; self.numbers.len()], offsets };
        let mut next = filled.offsets.clone();
        for list in 0..self.len() {
            for &number in self.of(list) {
                filled.numbers[next[number as usize] as usize] = list as u32;
                next[number as usize] += 1;
            }
        }
        filled
    }
}

/// The distinct items of every user, ascending.
pub(super) fn touched(corpus: &Corpus) -> Lists {
    let mut touched = Lists::new();
    for history in corpus.histories() {
        touched.push(ascending(history.to_vec()));
    }
    touched
}

/// The keywords of a user, and of which it is known because they looked for it, both ascending.
pub(super) fn keywords_of(corpus: &Corpus, touched: &Lists, user: usize) -> (Vec<u32>, Vec<u32>) {
    let asked: Vec<u32> = corpus.searches(user).flat_map(|search| corpus.query_words(search.query)).copied().collect();
    let words = touched.of(user).iter().flat_map(|&item| corpus.words_of(item as usize)).copied();
    let all = words.chain(asked.iter().copied()).collect();
    (ascending(all), ascending(asked))
}

fn ascending(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// How many people have each word.
pub(super) struct Counts {
    /// By the number of the word in the lexicon.
    pub(super) users: Vec<u32>,
    /// Events of those users: what a row is made of.
    pub(super) events: Vec<u64>,
    /// Words of the queries that led to an item.
    pub(super) led: usize,
    /// All people.
    pub(super) people: usize,
}

/// A keyword that one user has says nothing of others.
const USERS: u32 = 2;

impl Counts {
    /// Counts users, and those who searched without being known: each of their searches that led to an item is a user who
    /// touched that and has the keywords of the query.
    pub(super) fn new(corpus: &Corpus, touched: &Lists, control: &Control) -> Result<Self> {
        let words = corpus.lexicon().len();
        let mut counts = Self { users: vec![0; words], events: vec![0; words], led: 0, people: 0 };
        control.begin(corpus.users() as u64);
        for user in 0..corpus.users() {
            counts.add(&keywords_of(corpus, touched, user).0, touched.of(user).len());
            let led = corpus.searches(user).filter(|search| search.item.is_some());
            counts.led += led.map(|search| corpus.query_words(search.query).len()).sum::<usize>();
            control.advance(1)?;
        }
        for search in corpus.anonymous_searches().filter(|search| search.item.is_some()) {
            let words = corpus.query_words(search.query);
            counts.add(words, 1);
            counts.led += words.len();
        }
        Ok(counts)
    }

    fn add(&mut self, words: &[u32], items: usize) {
        self.people += usize::from(items > 0 || !words.is_empty());
        for &word in words {
            self.users[word as usize] += 1;
            self.events[word as usize] += items as u64;
        }
    }

    /// The keywords that most people have, at most so many, ascending.
    pub(super) fn keywords(&self, most: usize) -> Vec<u32> {
        let mut words: Vec<u32> =
            (0..self.users.len() as u32).filter(|&word| self.users[word as usize] >= USERS).collect();
        words.sort_by_key(|&word| std::cmp::Reverse(self.users[word as usize]));
        words.truncate(most);
        words.sort_unstable();
        words
    }
}

/// Keywords, users and items, joined. Keywords are numbered among those that are kept.
pub(super) struct Graph {
    /// The items of each user.
    pub(super) touched: Lists,
    /// The users of each keyword, [`asked`] in the last bit.
    pub(super) having: Lists,
    /// The keywords of each item's text, and the items of each keyword.
    pub(super) said: Lists,
    pub(super) saying: Lists,
    /// The items that searches for each keyword led to, ascending, an item as often as searches led to it.
    pub(super) led: Lists,
    /// How many people have each keyword, and all of them.
    pub(super) users: Vec<u32>,
    pub(super) people: usize,
    /// How many people touched each item.
    pub(super) visits: Vec<u32>,
}

/// A user of a keyword, and whether they have looked for it. No corpus has the 2³¹ users whose numbers would not fit.
pub(super) fn asked(user: u32) -> (usize, bool) {
    ((user >> 1) as usize, user & 1 == 1)
}

impl Graph {
    /// Joins what a corpus knows of these words of its lexicon, which ascend.
    pub(super) fn new(
        corpus: &Corpus,
        touched: Lists,
        counts: &Counts,
        words: &[u32],
        control: &Control,
    ) -> Result<Self> {
        let mut numbers = vec![None; corpus.lexicon().len()];
        (0..).zip(words).for_each(|(number, &word)| numbers[word as usize] = Some(number));
        let known = |words: &[u32]| -> Vec<u32> { words.iter().filter_map(|&word| numbers[word as usize]).collect() };
        let mut said = Lists::new();
        (0..corpus.items().len()).for_each(|item| said.push(known(corpus.words_of(item))));
        let mut visits = vec![0u32; corpus.items().len()];
        touched.numbers.iter().for_each(|&item| visits[item as usize] += 1);
        let users: Vec<u32> = words.iter().map(|&word| counts.users[word as usize]).collect();

        let (mut having, mut led) = (Filling::of(&users), Vec::new());
        let mut lead = |search: Search<'_>| {
            let Some(item) = search.item else { return };
            led.extend(known(corpus.query_words(search.query)).into_iter().map(|word| (word, item)));
        };
        control.begin(corpus.users() as u64);
        for user in 0..corpus.users() {
            let (all, looked_for) = keywords_of(corpus, &touched, user);
            for word in all {
                let asked = looked_for.binary_search(&word).is_ok();
                numbers[word as usize].iter().for_each(|&word| having.put(word, (user as u32) << 1 | u32::from(asked)));
            }
            corpus.searches(user).for_each(&mut lead);
            control.advance(1)?;
        }
        for search in corpus.anonymous_searches() {
            search.item.iter().for_each(|&item| visits[item as usize] += 1);
            lead(search);
        }
        led.sort_unstable();
        Ok(Self {
            having: having.finish(),
            saying: said.inverted(words.len()),
            led: grouped(led, words.len()),
            touched,
            said,
            users,
            people: counts.people,
            visits,
        })
    }
}

/// Pairs of a list and a number, ascending, as so many lists.
fn grouped(pairs: Vec<(u32, u32)>, count: usize) -> Lists {
    let mut lists = Lists::new();
    let mut rest = pairs.as_slice();
    for list in 0..count as u32 {
        let (own, others) = rest.split_at(rest.partition_point(|pair| pair.0 <= list));
        lists.push(own.iter().map(|pair| pair.1));
        rest = others;
    }
    lists
}

/// Lists of known length that are filled side by side.
struct Filling {
    lists: Lists,
    next: Vec<u64>,
}

impl Filling {
    fn of(lengths: &[u32]) -> Self {
        let mut offsets = vec![0u64];
        for &length in lengths {
            offsets.push(offsets[offsets.len() - 1] + u64::from(length));
        }
        let numbers = vec![0; offsets[lengths.len()] as usize];
        Self { next: offsets.clone(), lists: Lists { offsets, numbers } }
    }

    fn put(&mut self, list: u32, number: u32) {
        let next = &mut self.next[list as usize];
        self.lists.numbers[*next as usize] = number;
        *next += 1;
    }

    /// The lists without the places that nothing was put into.
    fn finish(self) -> Lists {
        let mut full = Lists::new();
        for list in 0..self.lists.len() {
            let (from, to) = (self.lists.offsets[list] as usize, self.next[list] as usize);
            full.push(self.lists.numbers[from..to].iter().copied());
        }
        full
    }
}
