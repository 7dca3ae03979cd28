//! Which users a figure speaks of.

use std::collections::HashMap;

use super::By;
use super::split::{Cases, Space};

/// Name of the group that everybody is in.
pub(super) const ALL: &str = "all";

/// Shares of the catalogue, in order of popularity, that are the head, and the head and the middle.
const HEAD: f64 = 0.2;
const HEAD_AND_MID: f64 = 0.5;

/// Names of the groups, and the group each measured user is in beside `all`.
pub(super) struct Groups {
    /// `all`, then the others in the order in which they are shown.
    pub(super) names: Vec<String>,
    of: HashMap<usize, usize>,
}

impl Groups {
    pub(super) fn new(by: &By<'_>, cases: &Cases<'_>, space: &Space) -> Self {
        match by {
            By::Nothing => Self { names: vec![ALL.into()], of: HashMap::new() },
            By::Activity => Self::activity(cases),
            By::Popularity => Self::popularity(cases, space),
            By::Labels(labels) => Self::labels(cases, labels),
        }
    }

    /// The groups of a user, `all` first.
    pub(super) fn of(&self, user: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        [Some(0), self.of.get(&user).copied()].into_iter().flatten()
    }

    /// Groups that hold somebody, in the order of `names`, given each user's place in `names`.
    fn from_classes(names: &[String], class: impl Iterator<Item = (usize, usize)>) -> Self {
        let classes: Vec<(usize, usize)> = class.collect();
        let mut place = vec![None; names.len()];
        let mut shown = vec![ALL.to_owned()];
        for (class, name) in names.iter().enumerate() {
            if classes.iter().any(|&(_, c)| c == class) {
                place[class] = Some(shown.len());
                shown.push(name.clone());
            }
        }
        let of = classes.into_iter().filter_map(|(user, class)| Some((user, place[class]?))).collect();
        Self { names: shown, of }
    }

    /// Quartiles of the number of events before the target.
    fn activity(cases: &Cases<'_>) -> Self {
        let length = |user: usize| cases.history(user).len();
        let lengths: Vec<usize> = cases.users.iter().map(|&user| length(user)).collect();
        let (names, class) = quartiles(&lengths, "activity", "events");
        Self::from_classes(&names, cases.users.iter().map(|&user| (user, class(length(user)))))
    }

    fn popularity(cases: &Cases<'_>, space: &Space) -> Self {
        let names = ["head", "mid", "tail"].map(|part| format!("target in {part}"));
        let mut class = vec![2; space.len()];
        let share = |share: f64| (space.len() as f64 * share).ceil() as usize;
        for (place, item) in space.by_popularity().into_iter().enumerate() {
            class[item as usize] = usize::from(place >= share(HEAD)) + usize::from(place >= share(HEAD_AND_MID));
        }
        let of = |&user: &usize| (user, class[space.index(cases.target(user)) as usize]);
        Self::from_classes(&names, cases.users.iter().map(of))
    }

    fn labels(cases: &Cases<'_>, labels: &[String]) -> Self {
        let mut names: Vec<String> = cases.users.iter().map(|&user| labels[user].clone()).collect();
        names.sort_unstable();
        names.dedup();
        let mut shown = vec![ALL.to_owned()];
        shown.extend(names.iter().cloned());
        let place = |user: usize| names.binary_search(&labels[user]).ok().map(|place| place + 1);
        let of = cases.users.iter().filter_map(|&user| Some((user, place(user)?))).collect();
        Self { names: shown, of }
    }
}

/// Names of the quartiles of some sizes, of which there is at least one, and what tells a size's: equal ones are never parted.
pub(super) fn quartiles(sizes: &[usize], label: &str, unit: &str) -> (Vec<String>, impl Fn(usize) -> usize + use<>) {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let bounds = [1, 2, 3].map(|quarter| sizes[(sizes.len() - 1) * quarter / 4]);
    let class = move |size: usize| bounds.iter().filter(|&&bound| size > bound).count();
    let name = |quarter: usize| {
        let mut inside = sizes.iter().filter(|&&size| class(size) == quarter);
        let first = inside.next().copied().unwrap_or(0);
        let last = inside.next_back().copied().unwrap_or(first);
        format!("{label} {} ({first}-{last} {unit})", quarter + 1)
    };
    ((0..4).map(name).collect(), class)
}
