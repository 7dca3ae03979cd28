//! Who has touched what, and what they looked for when they found it.

use std::collections::BTreeMap;

use super::Params;
use super::sparse::Sparse;
use crate::Corpus;
use crate::corpus::Search;
use crate::families::seen::distinct;
use crate::random::SplitMix;
use crate::train::Histories;

/// In the place of a user where nobody is known.
pub(super) const NOBODY: u32 = u32::MAX;

/// An edge: somebody and an item that they have touched, or found.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    /// Or [`NOBODY`].
    pub(super) user: u32,
    pub(super) item: u32,
    /// Which event it is of the user's; of an item that was only found, how many there are.
    pub(super) place: u32,
    /// Whether the item is among those that the user is known by.
    pub(super) touched: bool,
    /// The queries that led there.
    pub(super) queries: Vec<u32>,
}

/// What somebody looked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    query: u32,
    item: Option<u32>,
    after: u32,
}

/// Users, items and queries.
#[derive(Debug)]
pub(super) struct Graph {
    /// The items that each user is known by.
    pub(super) items_of: Vec<Vec<u32>>,
    pub(super) edges: Vec<Edge>,
    /// Means over a user's items, `[users, items]`, and back.
    pub(super) users: [Sparse; 2],
    /// Means over an item's users, `[items, users]`, and back.
    pub(super) items: [Sparse; 2],
    /// Shares of queries in the mean of an item's intents, `[items, queries]`, and back.
    pub(super) intents: [Sparse; 2],
    /// Means over a query's words, `[queries, words]`, and back.
    pub(super) words: [Sparse; 2],
    /// How many edges an item has.
    pub(super) degrees: Vec<f32>,
    /// The queries that most often led to each item.
    pub(super) top: Vec<Vec<u32>>,
    /// How often each word was looked for.
    pub(super) word_counts: Vec<f32>,
    searches: Vec<Vec<Wanted>>,
    ordered: bool,
}

impl Graph {
    /// Of what may be learnt from.
    pub(super) fn new(histories: &Histories<'_>, params: &Params) -> Self {
        let corpus = histories.corpus;
        let told = if params.searches { told(histories) } else { vec![Vec::new(); corpus.users()] };
        let items_of: Vec<Vec<u32>> =
            (0..corpus.users()).map(|user| distinct(histories.of(user), params.window)).collect();
        let mut edges = Vec::new();
        for (user, items) in items_of.iter().enumerate() {
            edges.extend(edges_of(user as u32, histories.of(user), items, &told[user]));
        }
        let anonymous = corpus.anonymous_searches().filter(|_| params.searches);
        edges.extend(anonymous.filter_map(|search| {
            Some(Edge { user: NOBODY, item: search.item?, place: 0, touched: false, queries: vec![search.query] })
        }));
        let ordered = (0..corpus.users())
            .any(|user| told[user].iter().any(|search| (search.after as usize) < histories.of(user).len()));
        Self::of_edges(corpus, params, items_of, edges, (told, ordered))
    }

    fn of_edges(
        corpus: &Corpus,
        params: &Params,
        items_of: Vec<Vec<u32>>,
        edges: Vec<Edge>,
        (searches, ordered): (Vec<Vec<Wanted>>, bool),
    ) -> Self {
        let items = corpus.items().len();
        let queries = if params.searches { corpus.queries() } else { 0 };
        let mut words = Sparse::of_width(if params.searches { corpus.lexicon().len() } else { 0 });
        let mut word_counts = vec![0.0; corpus.lexicon().len()];
        for query in 0..queries {
            let own = corpus.query_words(query as u32);
            words.push(own.iter().map(|&word| (word, 1.0 / own.len() as f32)));
        }
        let mut users = Sparse::of_width(items);
        items_of.iter().for_each(|own| users.push(own.iter().map(|&item| (item, 1.0 / own.len() as f32))));
        let mut degrees = vec![0.0f32; items];
        edges.iter().for_each(|edge| degrees[edge.item as usize] += 1.0);
        let mut users_of = vec![Vec::new(); items];
        let mut asked: Vec<BTreeMap<u32, f32>> = vec![BTreeMap::new(); items];
        let mut times: Vec<BTreeMap<u32, usize>> = vec![BTreeMap::new(); items];
        for edge in &edges {
            let item = edge.item as usize;
            if edge.user != NOBODY {
                users_of[item].push(edge.user);
            }
            for &query in &edge.queries {
                *asked[item].entry(query).or_default() += 1.0 / edge.queries.len() as f32 / degrees[item];
                *times[item].entry(query).or_default() += 1;
                corpus.query_words(query).iter().for_each(|&word| word_counts[word as usize] += 1.0);
            }
        }
        let (mut items, mut intents) = (Sparse::of_width(items_of.len()), Sparse::of_width(queries));
        for (users, asked) in users_of.iter().zip(asked) {
            items.push(users.iter().map(|&user| (user, 1.0 / users.len() as f32)));
            intents.push(asked);
        }
        let both = |matrix: Sparse| {
            let back = matrix.transposed();
            [matrix, back]
        };
        Self {
            items_of,
            users: both(users),
            items: both(items),
            intents: both(intents),
            words: both(words),
            degrees,
            top: times.into_iter().map(|times| most(times, params.item_queries)).collect(),
            word_counts,
            edges,
            searches,
            ordered,
        }
    }

    /// The latest queries of an edge's user before it that did not lead to its item, and the weight of each. Without an order
    /// of events and searches some are drawn, as if they were the latest.
    pub(super) fn wanted(&self, edge: &Edge, params: &Params, random: &mut SplitMix) -> Vec<(u32, f32)> {
        let Some(all) = self.searches.get(edge.user as usize) else { return Vec::new() };
        let others = all.iter().filter(|search| search.item != Some(edge.item));
        let mut others: Vec<Wanted> =
            others.filter(|search| !self.ordered || search.after <= edge.place).copied().collect();
        if !self.ordered {
            random.shuffle(&mut others);
        }
        let latest = others.iter().rev().take(params.recent).enumerate();
        let since = |search: &Wanted| if self.ordered { edge.place - search.after } else { 0 };
        latest.map(|(later, search)| (search.query, params.weight(since(search) as usize + later))).collect()
    }
}

/// What may be known of the searches of every user.
fn told(histories: &Histories<'_>) -> Vec<Vec<Wanted>> {
    let wanted = |search: Search<'_>| Wanted { query: search.query, item: search.item, after: search.after as u32 };
    let cut = histories.corpus.without_last(1);
    let of = |user: usize| -> Vec<Wanted> {
        // Of an event that is kept back nothing is told.
        match histories.of(user).len() < histories.corpus.history(user).len() {
            true => cut.searches(user).map(wanted).collect(),
            false => histories.corpus.searches(user).map(wanted).collect(),
        }
    };
    (0..histories.corpus.users()).map(of).collect()
}

/// The edges of a user: `items`, by which they are known, and what else they found.
fn edges_of(user: u32, history: &[u32], items: &[u32], told: &[Wanted]) -> Vec<Edge> {
    let mut queries: BTreeMap<u32, Vec<u32>> = items.iter().map(|&item| (item, Vec::new())).collect();
    for search in told {
        if let Some(item) = search.item {
            queries.entry(item).or_default().push(search.query);
        }
    }
    let mut places: BTreeMap<u32, usize> = BTreeMap::new();
    history.iter().enumerate().for_each(|(place, &item)| _ = places.insert(item, place));
    let edge = |(item, queries)| {
        let (touched, place) = (items.binary_search(&item).is_ok(), places.get(&item).copied());
        Edge { user, item, place: place.unwrap_or(history.len()) as u32, touched, queries }
    };
    queries.into_iter().map(edge).collect()
}

/// The most frequent of some queries, at most so many, ascending.
fn most(times: BTreeMap<u32, usize>, count: usize) -> Vec<u32> {
    let mut queries: Vec<(usize, u32)> = times.into_iter().map(|(query, times)| (times, query)).collect();
    queries.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut queries: Vec<u32> = queries.into_iter().take(count).map(|(_, query)| query).collect();
    queries.sort_unstable();
    queries
}
