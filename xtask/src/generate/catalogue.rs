//! The generated items: cluster, popularity, successors, title, attributes, vector.

use std::collections::HashMap;

use super::Shop;
use super::random::Random;
use super::words::{BRANDS, COLOURS, THEMES};
use crate::data::Item;

/// Popularity of the item at rank r is (r + 1) to the power of minus this.
const ZIPF_EXPONENT: f64 = 0.9;
/// How many items follow an item by habit.
pub(super) const SUCCESSORS: usize = 3;

/// The items with what the visits are drawn from.
pub(super) struct Catalogue {
    pub items: Vec<Item>,
    /// Positions in `items`, for each cluster.
    pub members: Vec<Vec<usize>>,
    /// For each cluster the running sum of its members' popularity, in the order of `members`.
    cumulative: Vec<Vec<f64>>,
    /// For each item the items that follow it by habit, most usual first, all in its own cluster.
    pub successors: Vec<Vec<usize>>,
}

impl Catalogue {
    pub fn new(shop: &Shop, random: &mut Random) -> Self {
        let clusters = shop.clusters.clamp(1, shop.items.max(1));
        let mut members = vec![Vec::new(); clusters];
        (0..shop.items).for_each(|item| members[item % clusters].push(item));

        let mut ranks: Vec<usize> = (0..shop.items).collect();
        random.shuffle(&mut ranks);
        let weight = |item: usize| (ranks[item] as f64 + 1.0).powf(-ZIPF_EXPONENT);
        let running_sum = |cluster: &Vec<usize>| {
            let sums = cluster.iter().scan(0.0, |sum, &item| {
                *sum += weight(item);
                Some(*sum)
            });
            sums.collect()
        };
        let cumulative = members.iter().map(running_sum).collect();
        let successors = (0..shop.items).map(|item| successors(item, &members[item % clusters], random)).collect();

        let mut namer = Namer::default();
        let centres: Vec<Vec<f64>> = (0..clusters).map(|_| gaussian(shop.dimension, random)).collect();
        let items = (0..shop.items)
            .map(|item| {
                let cluster = item % clusters;
                let (title, attributes) = namer.describe(cluster, random);
                let embedding = (shop.dimension > 0).then(|| near(&centres[cluster], random));
                Item { item_id: item as i64 + 1, title, attributes, embedding }
            })
            .collect();
        Self { items, members, cumulative, successors }
    }

    /// An item of the cluster, by popularity.
    pub fn popular(&self, cluster: usize, random: &mut Random) -> usize {
        let sums = &self.cumulative[cluster];
        let point = random.unit() * sums.last().copied().unwrap_or(0.0);
        let place = sums.partition_point(|&sum| sum <= point).min(sums.len() - 1);
        self.members[cluster][place]
    }
}

/// Different items of the same cluster, whatever their popularity: only a model that looks at sequences finds them.
fn successors(item: usize, cluster: &[usize], random: &mut Random) -> Vec<usize> {
    let mut chosen = Vec::with_capacity(SUCCESSORS);
    let possible = SUCCESSORS.min(cluster.len() - 1);
    while chosen.len() < possible {
        let candidate = *random.pick(cluster);
        if candidate != item && !chosen.contains(&candidate) {
            chosen.push(candidate);
        }
    }
    chosen
}

/// Makes titles and keeps them different.
#[derive(Default)]
struct Namer {
    used: HashMap<String, usize>,
}

impl Namer {
    fn describe(&mut self, cluster: usize, random: &mut Random) -> (String, Vec<String>) {
        let theme = &THEMES[cluster % THEMES.len()];
        let (noun, quality) = (*random.pick(theme.nouns), *random.pick(theme.qualities));
        let (brand, colour) = (*random.pick(BRANDS), *random.pick(COLOURS));
        let plain = format!("{brand} {quality} {noun}");
        let copies = self.used.entry(plain.clone()).or_default();
        *copies += 1;
        let title = if *copies == 1 { plain } else { format!("{plain}, no. {copies}") };
        // Clusters beyond the known themes repeat one, but stay apart by their number.
        let department = match cluster / THEMES.len() {
            0 => theme.name.to_owned(),
            round => format!("{} {}", theme.name, round + 1),
        };
        (title, vec![department, noun.to_owned(), quality.to_owned(), brand.to_owned(), colour.to_owned()])
    }
}

fn gaussian(dimension: usize, random: &mut Random) -> Vec<f64> {
    (0..dimension).map(|_| random.normal()).collect()
}

/// A unit vector around a centre.
fn near(centre: &[f64], random: &mut Random) -> Vec<f32> {
    const SPREAD: f64 = 0.7;
    let moved: Vec<f64> = centre.iter().map(|value| value + SPREAD * random.normal()).collect();
    let length = moved.iter().map(|value| value * value).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    moved.iter().map(|value| (value / length) as f32).collect()
}
