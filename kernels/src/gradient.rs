//! The derivative of a loss by a table of which a step touches few rows or all.

use crate::Optimizers;

/// An accumulator of row gradients: a full table, or the touched rows alone.
#[derive(Debug, Clone, Default)]
pub struct TableGradient {
    cols: usize,
    rows: Vec<f32>,
    touched: Touched,
}

#[derive(Debug, Clone, Default)]
enum Touched {
    /// `rows` is the whole table.
    #[default]
    All,
    /// Row `n` of `rows` belongs to `ids[n]`; `place[id]` is n + 1, or 0 for a row that is not there.
    Some { ids: Vec<u32>, place: Vec<u32> },
}

impl TableGradient {
    /// An accumulator of zeros for every one of `rows` rows.
    pub fn dense(rows: usize, cols: usize) -> Self {
        Self { cols, rows: vec![0.0; rows * cols], touched: Touched::All }
    }

    /// An accumulator that holds the rows it is asked for, of a table of `rows` rows: 4 bytes a row of the table.
    pub fn sparse(rows: usize, cols: usize) -> Self {
        Self { cols, rows: Vec::new(), touched: Touched::Some { ids: Vec::new(), place: vec![0; rows] } }
    }

    /// Columns of the table.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows of the table.
    pub fn table_rows(&self) -> usize {
        match &self.touched {
            Touched::All => self.rows.len().checked_div(self.cols).unwrap_or(0),
            Touched::Some { place, .. } => place.len(),
        }
    }

    /// The accumulated row of `id`, zeros at first. Panics where the table has no such row.
    #[inline]
    pub fn row_mut(&mut self, id: u32) -> &mut [f32] {
        let cols = self.cols;
        let at = match &mut self.touched {
            Touched::All => id as usize,
            Touched::Some { ids, place } => {
                let at = claim(ids, &mut place[id as usize], id);
                if ids.len() * cols > self.rows.len() {
                    self.rows.resize(ids.len() * cols, 0.0);
                }
                at as usize
            }
        };
        &mut self.rows[at * cols..(at + 1) * cols]
    }

    /// Makes sure that the rows of `ids` are there, and lists at which row of [`TableGradient::values`] each lies.
    /// Panics where the table has no such row.
    pub(crate) fn places(&mut self, ids: &[u32], places: &mut Vec<u32>) {
        places.clear();
        match &mut self.touched {
            Touched::All => {
                let rows = self.rows.len().checked_div(self.cols).unwrap_or(0);
                assert!(ids.iter().all(|&id| (id as usize) < rows), "a row beyond the table's {rows}");
                places.extend_from_slice(ids);
            }
            Touched::Some { ids: touched, place } => {
                places.extend(ids.iter().map(|&id| claim(touched, &mut place[id as usize], id)));
                self.rows.resize(touched.len() * self.cols, 0.0);
            }
        }
    }

    /// The whole table, where it is dense.
    pub fn dense_mut(&mut self) -> Option<&mut [f32]> {
        matches!(self.touched, Touched::All).then_some(&mut self.rows[..])
    }

    /// The ids of the rows of [`TableGradient::values`], or `None` where all are there in order.
    pub fn ids(&self) -> Option<&[u32]> {
        match &self.touched {
            Touched::All => None,
            Touched::Some { ids, .. } => Some(ids),
        }
    }

    /// The accumulated rows, `[ids, cols]`.
    pub fn values(&self) -> &[f32] {
        &self.rows
    }

    /// The accumulated rows, to change.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.rows
    }

    /// Adds all of `tables`, accumulators of the same table, to the first of them, in their order. The work is left to
    /// the parts, of up to `rows` rows each, which may run in any order and at the same time.
    pub fn sum(tables: &mut [Self], rows: usize) -> Vec<PartialSum<'_>> {
        let Some((first, others)) = tables.split_first_mut() else { return Vec::new() };
        let others = &*others;
        assert!(
            others.iter().all(|other| (other.table_rows(), other.cols) == (first.table_rows(), first.cols)),
            "sum of different shapes"
        );
        if let Touched::Some { ids, place } = &mut first.touched {
            for other in others {
                match other.ids() {
                    Some(more) => more.iter().for_each(|&id| _ = claim(ids, &mut place[id as usize], id)),
                    None => place.iter_mut().zip(0..).for_each(|(place, id)| _ = claim(ids, place, id)),
                }
            }
            first.rows.resize(ids.len() * first.cols, 0.0);
        }
        let cols = first.cols.max(1);
        let ids = match &first.touched {
            Touched::All => None,
            Touched::Some { ids, .. } => Some(&ids[..]),
        };
        let parts = first.rows.chunks_mut(rows.max(1) * cols).enumerate();
        parts.map(|(n, to)| PartialSum { to, first: n * rows.max(1), cols, ids, others }).collect()
    }

    /// The accumulated row of `id`, where there is one.
    fn row(&self, id: u32) -> Option<&[f32]> {
        let at = match &self.touched {
            Touched::All => id,
            Touched::Some { place, .. } => place[id as usize].checked_sub(1)?,
        };
        Some(&self.rows[at as usize * self.cols..][..self.cols])
    }

    /// Back to zero, keeping the memory.
    pub fn clear(&mut self) {
        match &mut self.touched {
            Touched::All => self.rows.fill(0.0),
            Touched::Some { ids, place } => {
                ids.drain(..).for_each(|id| place[id as usize] = 0);
                self.rows.clear();
            }
        }
    }
}

/// Where the row lies whose entry of `place` this is; a new row is the last.
fn claim(ids: &mut Vec<u32>, place: &mut u32, id: u32) -> u32 {
    if *place == 0 {
        ids.push(id);
        *place = ids.len() as u32;
    }
    *place - 1
}

/// Some rows of a sum of accumulators.
#[derive(Debug)]
pub struct PartialSum<'a> {
    to: &'a mut [f32],
    /// Row of the first accumulator at which `to` begins.
    first: usize,
    cols: usize,
    /// What the first accumulator's rows are, where it does not hold the table.
    ids: Option<&'a [u32]>,
    others: &'a [TableGradient],
}

impl PartialSum<'_> {
    /// Computes it.
    pub fn run(self, device: &impl Optimizers) {
        let Self { to, first, cols, ids, others } = self;
        for other in others {
            if let (None, Touched::All) = (ids, &other.touched) {
                device.accumulate(to, &other.rows[first * cols..][..to.len()]);
                continue;
            }
            for (n, to) in to.chunks_exact_mut(cols).enumerate() {
                let id = ids.map_or((first + n) as u32, |ids| ids[first + n]);
                if let Some(from) = other.row(id) {
                    device.accumulate(to, from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    #[test]
    fn touched_rows_and_whole_tables_add_up_to_the_same() {
        let (mut dense, mut sparse) = (TableGradient::dense(5, 2), TableGradient::sparse(5, 2));
        for round in 0..2 {
            for (id, x) in [(3, 1.0), (0, 2.0), (3, 4.0)] {
                for table in [&mut dense, &mut sparse] {
                    table.row_mut(id).iter_mut().for_each(|to| *to += x);
                }
            }
            assert_eq!(sparse.ids(), Some(&[3, 0][..]), "round {round}");
            assert_eq!(sparse.values(), [5.0, 5.0, 2.0, 2.0]);
            let mut other = TableGradient::sparse(5, 2);
            other.row_mut(1)[0] = 8.0;
            for parts in [1, 2, 100] {
                let tables = [&dense, &sparse, &other];
                for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
                    let mut tables = order.map(|n| tables[n].clone());
                    TableGradient::sum(&mut tables, parts).into_iter().rev().for_each(|part| part.run(&Cpu::new()));
                    for (id, row) in [(0, [4.0; 2]), (1, [8.0, 0.0]), (2, [0.0; 2]), (3, [10.0; 2])] {
                        assert_eq!(tables[0].row_mut(id), row, "{order:?} in parts of {parts}");
                    }
                    assert_eq!(tables[1].values(), [&dense, &sparse, &other][order[1]].values());
                }
            }
            dense.clear();
            sparse.clear();
            assert!(sparse.values().is_empty() && dense.values().iter().all(|&x| x == 0.0));
        }
    }
}
