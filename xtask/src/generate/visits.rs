//! Who takes what, when.

use std::collections::HashSet;

use super::Shop;
use super::catalogue::Catalogue;
use super::random::Random;
use crate::data::Interaction;

/// The year of the shop: 2024, in seconds since 1970.
const OPENING: i64 = 1_704_067_200;
const YEAR: f64 = 366.0 * 86_400.0;

/// How often the next item is a successor of the last one.
const HABIT: f64 = 0.5;
/// Which successor: the sums of .6, .3, .1.
const HABIT_SUMS: [f64; 2] = [0.6, 0.9];
/// How often the favourite cluster is chosen, and this or the second one; the rest is any cluster.
const TASTE_SUMS: [f64; 2] = [0.65, 0.9];
/// Fewest events of a user, where there are enough to go round.
const FEWEST: usize = 5;
/// How many draws may hit an item the user has already before the first free one is taken.
const DRAWS: usize = 40;

pub(super) fn all(shop: &Shop, catalogue: &Catalogue, random: &mut Random) -> Vec<Interaction> {
    let counts = counts(shop, random);
    let mut events = Vec::with_capacity(counts.iter().sum());
    for (user, &count) in counts.iter().enumerate() {
        let items = walk(count, catalogue, random);
        let times = times(count, random);
        events.extend(items.into_iter().zip(times).map(|(item, at)| Interaction {
            user_id: user as i64 + 1,
            item_id: catalogue.items[item].item_id,
            at: Some(at),
            position: None,
            rating: None,
        }));
    }
    events
}

/// How many events each user has: log-normal activity over a floor, their sum as asked for.
fn counts(shop: &Shop, random: &mut Random) -> Vec<usize> {
    if shop.users == 0 {
        return Vec::new();
    }
    // Past half the catalogue a walk without repeats has no tastes left.
    let most = (shop.items / 2).max(shop.items.min(FEWEST));
    let total = shop.events.min(most * shop.users);
    let floor = FEWEST.min(total / shop.users);
    let activity: Vec<f64> = (0..shop.users).map(|_| (0.8 * random.normal()).exp()).collect();
    let share = (total - floor * shop.users) as f64 / activity.iter().sum::<f64>();
    let mut counts: Vec<usize> =
        activity.iter().map(|activity| (floor + (activity * share) as usize).min(most)).collect();
    // Rounding and the cap leave some over.
    let mut left = total - counts.iter().sum::<usize>();
    while left > 0 {
        for count in counts.iter_mut().filter(|count| **count < most).take(left) {
            *count += 1;
            left -= 1;
        }
    }
    counts
}

/// The items of one user in order, none twice.
fn walk(count: usize, catalogue: &Catalogue, random: &mut Random) -> Vec<usize> {
    let clusters = catalogue.members.len();
    let (favourite, second) = (random.below(clusters), random.below(clusters));
    let mut seen = HashSet::with_capacity(count);
    let mut walked: Vec<usize> = Vec::with_capacity(count);
    while walked.len() < count {
        let habit = walked.last().filter(|_| random.unit() < HABIT).and_then(|&last| {
            let point = random.unit();
            let which = HABIT_SUMS.iter().filter(|&&sum| point >= sum).count();
            catalogue.successors[last].get(which).copied()
        });
        let next = habit.filter(|item| !seen.contains(item)).or_else(|| {
            let mut by_taste = || {
                let point = random.unit();
                let cluster = match TASTE_SUMS.iter().filter(|&&sum| point >= sum).count() {
                    0 => favourite,
                    1 => second,
                    _ => random.below(clusters),
                };
                catalogue.popular(cluster, random)
            };
            (0..DRAWS).map(|_| by_taste()).find(|item| !seen.contains(item))
        });
        let next = next.or_else(|| (0..catalogue.items.len()).find(|item| !seen.contains(item)));
        let Some(next) = next else { break };
        seen.insert(next);
        walked.push(next);
    }
    walked
}

/// Strictly rising times: sessions of minutes, days apart, within the year.
fn times(count: usize, random: &mut Random) -> Vec<i64> {
    let mut offset = random.unit() * YEAR * 0.7;
    let start = offset;
    let offsets: Vec<f64> = (0..count)
        .map(|_| {
            let gap = match random.unit() < 0.6 {
                true => random.exponential(600.0),
                false => random.exponential(9.0 * 86_400.0),
            };
            offset += gap;
            offset
        })
        .collect();
    let squeeze = ((YEAR - start) / (offset - start).max(1.0)).min(1.0);
    let mut last = i64::MIN;
    offsets
        .iter()
        .map(|offset| {
            let at = OPENING + (start + (offset - start) * squeeze) as i64;
            last = at.max(last.saturating_add(1));
            last
        })
        .collect()
}
