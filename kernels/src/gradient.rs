//! The derivative of a loss by a table of which a step touches few rows or all.

/// An accumulator of row gradients: a full table, or the touched rows alone.
#[derive(Debug, Clone)]
pub struct TableGradient {
    cols: usize,
    rows: Vec<f32>,
    touched: Touched,
}

#[derive(Debug, Clone)]
enum Touched {
    /// `rows` is the whole table.
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

    /// The accumulated row of `id`, zeros at first. Panics where the table has no such row.
    #[inline]
    pub fn row_mut(&mut self, id: u32) -> &mut [f32] {
        let cols = self.cols;
        let at = match &mut self.touched {
            Touched::All => id as usize,
            Touched::Some { ids, place } => {
                let place = &mut place[id as usize];
                if *place == 0 {
                    ids.push(id);
                    *place = ids.len() as u32;
                    self.rows.resize(ids.len() * cols, 0.0);
                }
                *place as usize - 1
            }
        };
        &mut self.rows[at * cols..(at + 1) * cols]
    }

    /// Whether every row is there.
    pub fn is_dense(&self) -> bool {
        matches!(self.touched, Touched::All)
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

    /// Adds another accumulator of the same table.
    pub fn merge(&mut self, other: &Self) {
        let add = |to: &mut [f32], from: &[f32]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        match (&self.touched, other.ids()) {
            (Touched::All, None) => add(&mut self.rows, &other.rows),
            (_, Some(ids)) => {
                for (&id, row) in ids.iter().zip(other.rows.chunks_exact(other.cols.max(1))) {
                    add(self.row_mut(id), row);
                }
            }
            (Touched::Some { place, .. }, None) => {
                for (id, row) in (0..place.len() as u32).zip(other.rows.chunks_exact(other.cols.max(1))) {
                    add(self.row_mut(id), row);
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
            let mut sum = dense.clone();
            sum.merge(&sparse);
            assert_eq!(sum.values(), [4.0, 4.0, 0.0, 0.0, 0.0, 0.0, 10.0, 10.0, 0.0, 0.0]);
            let mut sum = sparse.clone();
            sum.merge(&dense);
            assert_eq!(sum.row_mut(3), [10.0, 10.0]);
            dense.clear();
            sparse.clear();
            assert!(sparse.values().is_empty() && dense.values().iter().all(|&x| x == 0.0));
        }
    }
}
