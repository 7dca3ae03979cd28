//! What both sides train on: histories as a file with one a line, item indices oldest first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xtask::Dataset;

/// Latest events that a model looks at.
pub const WINDOW: usize = 200;
/// Last events of every history that are not learnt from: those of validation and test.
pub const LEFT_OUT: usize = 2;
/// Items of ml-1m before rare ones are dropped: the size of catalogue that is usual in published timings.
const CATALOGUE: usize = 3_706;

/// Histories, and how many items there are.
pub struct Histories {
    users: Vec<Vec<u32>>,
    items: usize,
}

/// A file of them.
pub struct HistoriesFile {
    /// What to call it.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Size of the catalogue.
    pub items: usize,
    /// How many histories it holds.
    pub users: usize,
    /// From how many events a next item is learnt in an epoch.
    pub inputs: usize,
}

impl Histories {
    /// Of a data set; untouched items fill the catalogue up.
    pub fn of(data: &Dataset) -> Self {
        let touched: BTreeSet<i64> = data.interactions.iter().map(|event| event.item_id).collect();
        let index: HashMap<i64, u32> = touched.into_iter().zip(0..).collect();
        let mut users: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for event in &data.interactions {
            users.entry(event.user_id).or_default().push((event.at, event.position, index[&event.item_id]));
        }
        let in_order = |mut events: Vec<(Option<i64>, Option<i64>, u32)>| {
            events.sort_by_key(|&(at, position, _)| (at, position));
            events.into_iter().map(|(.., item)| item).collect()
        };
        Self { users: users.into_values().map(in_order).collect(), items: index.len().max(CATALOGUE) }
    }

    /// At most so many users, evenly spaced.
    pub fn of_users(&self, most: usize) -> Self {
        let step = self.users.len().div_ceil(most).max(1);
        Self { users: self.users.iter().step_by(step).cloned().collect(), items: self.items }
    }

    /// The same events laid end to end and cut into at most so many histories that fill the window exactly, so that
    /// nobody gains by not computing padding.
    pub fn of_equal_length(&self, most: usize) -> Self {
        let events: Vec<u32> = self.users.iter().flatten().copied().collect();
        // Each input has an answer after it.
        let cut = events.chunks_exact(WINDOW + 1 + LEFT_OUT).take(most);
        Self { users: cut.map(<[u32]>::to_vec).collect(), items: self.items }
    }

    /// Writes them to `folder`.
    pub fn written(&self, folder: &Path, name: &'static str) -> Result<HistoriesFile> {
        let path = folder.join(format!("{name}.txt"));
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(std::fs::File::create(&path)?);
            for history in &self.users {
                let items: Vec<String> = history.iter().map(u32::to_string).collect();
                writeln!(file, "{}", items.join(" "))?;
            }
            file.flush()
        };
        write().with_context(|| format!("writing {}", path.display()))?;
        let inputs = |history: &Vec<u32>| history.len().saturating_sub(LEFT_OUT + 1).min(WINDOW);
        let inputs = self.users.iter().map(inputs).sum();
        Ok(HistoriesFile { name, path, items: self.items, users: self.users.len(), inputs })
    }
}

/// Reads what [`Histories::written`] wrote.
pub fn read(path: &Path) -> Result<Vec<Vec<u32>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let history = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
    text.lines().map(history).collect::<Result<_, _>>().with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use xtask::data::Interaction;

    use super::*;

    fn data(events: &[(i64, i64, i64)]) -> Dataset {
        let interactions = events.iter().map(|&(user_id, item_id, at)| Interaction {
            user_id,
            item_id,
            at: Some(at),
            position: None,
            rating: None,
        });
        Dataset { interactions: interactions.collect(), ..Dataset::default() }
    }

    #[test]
    fn a_file_has_every_history_in_the_order_of_time() {
        let folder = std::env::temp_dir();
        let name = format!("pgrec-histories-{}", std::process::id());
        let histories = Histories::of(&data(&[(2, 70, 5), (1, 50, 9), (2, 60, 4), (1, 70, 1), (1, 60, 3), (1, 50, 8)]));
        let file = histories.written(&folder, name.leak()).unwrap();
        let read = read(&file.path).unwrap();
        std::fs::remove_file(&file.path).unwrap();
        assert_eq!(read, [vec![2, 1, 0, 0], vec![1, 2]]);
        assert_eq!((file.items, file.users, file.inputs), (CATALOGUE, 2, 1));
    }

    #[test]
    fn equal_histories_fill_the_window_and_lose_no_event_on_the_way() {
        let events: Vec<_> = (0..1000).map(|at| (at % 7, at * 3, at)).collect();
        let histories = Histories::of(&data(&events));
        let equal = histories.of_equal_length(3);
        assert_eq!(equal.users.len(), 3);
        assert!(equal.users.iter().all(|history| history.len() == WINDOW + 1 + LEFT_OUT));
        let all: Vec<u32> = histories.users.concat();
        assert_eq!(equal.users.concat(), all[..3 * (WINDOW + 1 + LEFT_OUT)]);
        assert_eq!(histories.of_users(3).users.len(), 3);
        assert_eq!(histories.of_users(usize::MAX).users, histories.users);
    }
}
