//! What a data set asks of a recommender, before any is trained: how far the next item lies in the transition
//! graph, whether consecutive items look alike, and whether old events matter. After the analysis that goes with
//! the graph heuristic (TGH, 2026).
//!
//! The graph is counted on all but the last two events of every user; the target is the last event, the anchor
//! the one before it, and users with fewer than two events say nothing.

use rayon::prelude::*;

use crate::content::features::{Features, FeaturesView};
use crate::families::graph::edges::{Edges, EdgesView};
use crate::metrics::discount;
use crate::random::SplitMix;
use crate::{Control, Corpus, Error, Result};

/// One measure.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Its name.
    pub measure: &'static str,
    /// Its value.
    pub value: f64,
    /// What it says.
    pub meaning: &'static str,
}

/// How far back "older events" reach: positions −2 to −10.
const OLDER: usize = 9;
/// Length of the lists behind the `_ndcg10` measures.
const K: usize = 10;
/// Pairs of items drawn, with replacement, for a feature's smoothness, of each kind.
const PAIRS: usize = 100_000;
/// Users handled between two looks at the control.
const SLICE: usize = 64;

/// Measures a corpus. The same `seed` draws the same random pairs.
///
/// [`Error::Data`] when no user has two events.
pub fn audit(corpus: &Corpus, seed: u64, control: &Control) -> Result<Vec<AuditRow>> {
    let users: Vec<usize> = (0..corpus.users()).filter(|&user| corpus.history(user).len() > 1).collect();
    if users.is_empty() {
        return Err(Error::Data("no user has two interactions: there is nothing to predict".into()));
    }
    control.begin(users.len() as u64);
    let train = corpus.without_last(2);
    let edges = Edges::count(&train, control)?;
    let mut rows = Vec::new();
    branching(edges.view(), &mut rows);
    rows.extend(reach(corpus, &train, edges.view(), &users, control)?);
    for (of, names) in [
        (Features::attributes(corpus), ["attribute_cosine_consecutive", "attribute_cosine_random"]),
        (Features::vectors(corpus), ["vector_cosine_consecutive", "vector_cosine_random"]),
    ] {
        if let Ok(features) = of {
            rows.extend(smoothness(corpus, features.view(), names, seed, control)?);
        }
    }
    Ok(rows)
}

fn branching(edges: EdgesView<'_>, rows: &mut Vec<AuditRow>) {
    let mut degrees: Vec<usize> = edges.offsets.windows(2).map(|row| (row[1] - row[0]) as usize).collect();
    degrees.retain(|&degree| degree > 0);
    degrees.sort_unstable();
    let middle = degrees.get(degrees.len() / 2).copied().unwrap_or(0);
    let mean = edges.items.len() as f64 / degrees.len().max(1) as f64;
    let mut row = |measure, value, meaning| rows.push(AuditRow { measure, value, meaning });
    row("edges", edges.items.len() as f64, "different pairs of consecutive items");
    row("out_degree_mean", mean, "different items that follow an item, mean over items that are followed");
    row("out_degree_median", middle as f64, "the same, median: the smaller, the more the last item decides");
}

/// What is added up over the users.
#[derive(Debug, Clone, Default)]
struct Reach {
    /// Targets in ring 1, 2, 3 of the anchor.
    rings: [u64; 3],
    /// Targets in ring 1 of an older item, not of the anchor.
    older_only: u64,
    edge_ndcg: f64,
    popularity_ndcg: f64,
}

/// Where the targets lie as seen from the histories.
fn reach(
    corpus: &Corpus,
    train: &Corpus,
    edges: EdgesView<'_>,
    users: &[usize],
    control: &Control,
) -> Result<Vec<AuditRow>> {
    let counts = train.counts();
    let mut by_count: Vec<u32> = (0..counts.len() as u32).collect();
    by_count.sort_by_key(|&item| std::cmp::Reverse(counts[item as usize]));
    let mut place = vec![0usize; counts.len()];
    by_count.iter().enumerate().for_each(|(at, &item)| place[item as usize] = at);
    let sources = sources(edges);

    let slices: Vec<Reach> = users
        .par_chunks(SLICE)
        .map_init(
            || vec![usize::MAX; counts.len()],
            |before_target, slice| {
                let mut sums = Reach::default();
                for &user in slice {
                    control.advance(1)?;
                    let events = corpus.history(user);
                    let (target, history) = (events[events.len() - 1], &events[..events.len() - 1]);
                    let anchor = history[history.len() - 1];
                    let seen = Seen::new(history, target);
                    let near = edges.targets(anchor);
                    if near.binary_search(&target).is_ok() {
                        sums.rings[0] += 1;
                        sums.edge_ndcg += gain(edge_rank(edges, anchor, target, &seen));
                    } else {
                        let older = history.iter().rev().skip(1).take(OLDER);
                        let follows = |&item: &u32| edges.targets(item).binary_search(&target).is_ok();
                        sums.older_only += u64::from(older.into_iter().any(follows));
                        sources.of(target).iter().for_each(|&item| before_target[item as usize] = user);
                        let leads = |&item: &u32| before_target[item as usize] == user;
                        if near.iter().any(leads) {
                            sums.rings[1] += 1;
                        } else if near.iter().any(|&item| edges.targets(item).iter().any(leads)) {
                            sums.rings[2] += 1;
                        }
                    }
                    let earlier = seen.0.iter().filter(|&&item| place[item as usize] < place[target as usize]);
                    sums.popularity_ndcg += gain(place[target as usize] - earlier.count());
                }
                Ok(sums)
            },
        )
        .collect::<Result<_>>()?;

    let mut all = Reach::default();
    for part in slices {
        (0..3).for_each(|ring| all.rings[ring] += part.rings[ring]);
        all.older_only += part.older_only;
        all.edge_ndcg += part.edge_ndcg;
        all.popularity_ndcg += part.popularity_ndcg;
    }
    let n = users.len() as f64;
    let farther = n - all.rings.iter().sum::<u64>() as f64;
    let row = |measure, value: f64, meaning| AuditRow { measure, value: value / n, meaning };
    Ok(vec![
        row("target_in_ring1", all.rings[0] as f64, "share of next items that have followed the last item before"),
        row("target_in_ring2", all.rings[1] as f64, "share at exactly two steps from the last item"),
        row("target_in_ring3", all.rings[2] as f64, "share at exactly three steps"),
        row("target_farther", farther, "share farther away, or not reachable at all: no graph finds these"),
        row("last_item_ndcg10", all.edge_ndcg, "NDCG@10 of what most often followed the last item"),
        row("popularity_ndcg10", all.popularity_ndcg, "NDCG@10 of one list for everybody, which ignores histories"),
        row(
            "target_from_older_only",
            all.older_only as f64,
            "share that has followed one of the nine items before the last, not the last: what a longer memory adds",
        ),
    ])
}

/// Items of a history, once each, without the target.
struct Seen(Vec<u32>);

impl Seen {
    fn new(history: &[u32], target: u32) -> Self {
        let mut items = history.to_vec();
        items.sort_unstable();
        items.dedup();
        items.retain(|&item| item != target);
        Self(items)
    }
}

/// How many items that were not seen follow `anchor` more often than `target` does, ties by ascending index.
fn edge_rank(edges: EdgesView<'_>, anchor: u32, target: u32, seen: &Seen) -> usize {
    let own = edges.count(anchor, target);
    let ahead = |&(&item, &count): &(&u32, &u32)| {
        (count > own || (count == own && item < target)) && seen.0.binary_search(&item).is_err()
    };
    edges.targets(anchor).iter().zip(edges.counts(anchor)).filter(ahead).count()
}

fn gain(rank: usize) -> f64 {
    if rank < K { discount(rank) } else { 0.0 }
}

/// The graph backwards.
struct Sources {
    offsets: Vec<usize>,
    items: Vec<u32>,
}

impl Sources {
    fn of(&self, item: u32) -> &[u32] {
        &self.items[self.offsets[item as usize]..self.offsets[item as usize + 1]]
    }
}

fn sources(edges: EdgesView<'_>) -> Sources {
    let n = edges.offsets.len() - 1;
    let mut offsets = vec![0usize; n + 1];
    edges.items.iter().for_each(|&to| offsets[to as usize + 1] += 1);
    (0..n).for_each(|item| offsets[item + 1] += offsets[item]);
    let (mut next, mut items) = (offsets.clone(), vec![0u32; edges.items.len()]);
    for from in 0..n as u32 {
        for &to in edges.targets(from) {
            items[next[to as usize]] = from;
            next[to as usize] += 1;
        }
    }
    Sources { offsets, items }
}

/// Things of all users, numbered through.
struct Numbered {
    /// How many there are up to each user, inclusive.
    ends: Vec<usize>,
}

impl Numbered {
    fn new(counts: impl Iterator<Item = usize>) -> Self {
        let sum = |sum: &mut usize, count| {
            *sum += count;
            Some(*sum)
        };
        Self { ends: counts.scan(0, sum).collect() }
    }

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The user whose thing has this number, and its place among theirs.
    fn place(&self, number: usize) -> (usize, usize) {
        let user = self.ends.partition_point(|&end| end <= number);
        let start = if user == 0 { 0 } else { self.ends[user - 1] };
        (user, number - start)
    }
}

/// Mean cosine of consecutive items, and of items drawn at random as often as they occur. Some user has two events.
fn smoothness(
    corpus: &Corpus,
    features: FeaturesView<'_>,
    names: [&'static str; 2],
    seed: u64,
    control: &Control,
) -> Result<Vec<AuditRow>> {
    let mut random = SplitMix::new(seed);
    let events = Numbered::new(corpus.histories().map(<[u32]>::len));
    let pairs = Numbered::new(corpus.histories().map(|history| history.len().saturating_sub(1)));
    let (mut consecutive, mut drawn) = (0f64, 0f64);
    for number in 0..PAIRS {
        if number % 1024 == 0 {
            control.check()?;
        }
        let (user, first) = pairs.place(random.below(pairs.len()));
        let history = corpus.history(user);
        consecutive += f64::from(features.cosine(history[first], history[first + 1]));
        let [a, b] = [(); 2].map(|()| {
            let (user, event) = events.place(random.below(events.len()));
            corpus.history(user)[event]
        });
        drawn += f64::from(features.cosine(a, b));
    }
    let row = |measure, sum: f64, meaning| AuditRow { measure, value: sum / PAIRS as f64, meaning };
    Ok(vec![
        row(names[0], consecutive, "mean cosine of consecutive items"),
        row(names[1], drawn, "mean cosine of two random events: the farther below, the more the features say"),
    ])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing;

    fn value(rows: &[AuditRow], measure: &str) -> f64 {
        rows.iter().find(|row| row.measure == measure).unwrap().value
    }

    #[test]
    fn targets_are_found_at_the_distance_they_were_put_at() {
        // Edges of the training part: 1→2→3→4→5, and 9→7 from a user that is a target itself.
        let corpus = testing::corpus(&[
            &[1, 2, 3, 4, 5, 8, 8],
            &[9, 7, 1, 2], // 2 follows 1: ring 1
            &[2, 4],       // 4 is two steps from 2
            &[1, 4],       // 4 is three steps from 1
            &[9, 6, 7],    // 7 follows 9, an older item, and nothing follows 6
            &[3],          // too short
        ]);
        let rows = audit(&corpus, 1, &Control::default()).unwrap();
        // Five users count: the first one's target 8 is nowhere.
        for (measure, share) in [("target_in_ring1", 0.2), ("target_in_ring2", 0.2), ("target_in_ring3", 0.2)] {
            assert_eq!(value(&rows, measure), share, "{measure}");
        }
        assert!((value(&rows, "target_farther") - 0.4).abs() < 1e-12);
        assert_eq!(value(&rows, "target_from_older_only"), 0.2);
        assert_eq!(value(&rows, "edges"), 5.0);
        assert_eq!(value(&rows, "out_degree_mean"), 1.0);
        assert_eq!(value(&rows, "last_item_ndcg10"), 0.2);
        assert!(rows.iter().all(|row| !row.measure.contains("cosine")));
    }

    #[test]
    fn tastes_that_last_show_as_smoothness_and_the_seed_decides_the_sample() {
        let corpus = testing::random_corpus(testing::fresh_seed(), 200, 60);
        let rows = audit(&corpus, 3, &Control::default()).unwrap();
        assert_eq!(rows, audit(&corpus, 3, &Control::default()).unwrap());
        let (near, random) = (value(&rows, "attribute_cosine_consecutive"), value(&rows, "attribute_cosine_random"));
        assert!(near > random + 0.1, "{near} {random}");
    }

    #[test]
    fn nothing_to_predict_is_an_error_and_a_cancellation_stops() {
        let lonely = testing::corpus(&[&[1], &[2], &[]]);
        assert!(matches!(audit(&lonely, 0, &Control::default()), Err(Error::Data(_))));
        let control = Control::default();
        control.cancel();
        assert!(matches!(audit(&testing::corpus(&[&[1, 2, 3]]), 0, &control), Err(Error::Cancelled)));
    }
}
