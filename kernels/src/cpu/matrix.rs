//! Row-major matrices in host memory.

use std::cell::{Cell, RefCell};

/// One cache line of numbers. Vector loads that stay within a line are twice as fast as those that do not.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Lines that a thread keeps for its next matrices, where it was not told otherwise: the working set of a history
/// of some 1,000 events.
const KEPT_LINES: usize = 4 << 20 >> 6;

/// Buffers that one thread keeps: more than a training step over a slice of a batch has at a time.
const KEPT_BUFFERS: usize = 512;

thread_local! {
    /// Buffers of dropped matrices. The matrices of one history together exceed what the allocator keeps: without
    /// this, every call gives its memory back to the system and faults it in again, a sixth of the whole call.
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { buffers: Vec::new(), lines: 0 }) };
    /// Lines that may be kept.
    static LIMIT: Cell<usize> = const { Cell::new(KEPT_LINES) };
}

/// Lets the calling thread keep up to `bytes` of the memory of its dropped matrices for the next ones; 4 MB where it
/// is not called. A thread that trains needs what it holds between the way forward and the way back: some 15 matrices
/// a transformer block.
pub fn keep_buffers(bytes: usize) {
    LIMIT.set(bytes / size_of::<Line>());
    // A thread that is ending keeps nothing anyway.
    let _ = KEPT.try_with(|kept| kept.borrow_mut().shrink_to(LIMIT.get()));
}

/// Free buffers, the smallest first, and among equals the one dropped last first: it is the likeliest to be cached.
struct Kept {
    buffers: Vec<Vec<Line>>,
    /// Of all buffers together.
    lines: usize,
}

impl Kept {
    /// The smallest buffer of at least so many lines.
    fn take(&mut self, lines: usize) -> Option<Vec<Line>> {
        let at = self.buffers.partition_point(|buffer| buffer.capacity() < lines);
        let buffer = (at < self.buffers.len()).then(|| self.buffers.remove(at))?;
        self.lines -= buffer.capacity();
        Some(buffer)
    }

    /// Keeps a buffer, for which smaller ones go where there are too many.
    fn give(&mut self, buffer: Vec<Line>, limit: usize) {
        let lines = buffer.capacity();
        if lines == 0 || lines > limit {
            return;
        }
        self.shrink_to(limit - lines);
        let at = self.buffers.partition_point(|buffer| buffer.capacity() < lines);
        self.buffers.insert(at, buffer);
        self.lines += lines;
    }

    fn shrink_to(&mut self, limit: usize) {
        let mut gone = 0;
        while self.lines > limit || self.buffers.len() - gone >= KEPT_BUFFERS {
            self.lines -= self.buffers[gone].capacity();
            gone += 1;
        }
        self.buffers.drain(..gone);
    }
}

/// Uninitialised numbers at the beginning of a cache line. Kernels write them before they read them.
pub(super) struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        let wanted = len.div_ceil(16);
        let kept = KEPT.try_with(|kept| kept.borrow_mut().take(wanted));
        Self { lines: kept.ok().flatten().unwrap_or_else(|| Vec::with_capacity(wanted)) }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // While a thread ends its list may be gone already; then the buffer is freed like any other.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().give(lines, LIMIT.get()));
    }
}

/// A dense row-major matrix of f32 in host memory, beginning at a cache line.
pub struct Matrix {
    data: Scratch,
    rows: usize,
    cols: usize,
}

impl Matrix {
    /// A matrix that `fill` writes completely, through a pointer to `rows·cols` uninitialised numbers.
    ///
    /// # Safety
    /// `fill` initialises every number.
    pub(super) unsafe fn filled_by(rows: usize, cols: usize, fill: impl FnOnce(*mut f32)) -> Self {
        let mut data = Scratch::new(rows.checked_mul(cols).expect("matrix too large"));
        fill(data.as_mut_ptr());
        Self { data, rows, cols }
    }

    /// A copy of row-major numbers. Panics where their count is not a multiple of `cols`.
    pub fn from_slice(values: &[f32], cols: usize) -> Self {
        let rows = values.len().checked_div(cols).unwrap_or(0);
        assert_eq!(rows * cols, values.len(), "{} numbers do not make rows of {cols}", values.len());
        // SAFETY: the copy initialises all rows·cols numbers.
        unsafe { Self::filled_by(rows, cols, |to| std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len())) }
    }

    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        // SAFETY: all rows·cols numbers are written; all bits zero is the number 0.
        unsafe { Self::filled_by(rows, cols, |to| std::ptr::write_bytes(to, 0, rows * cols)) }
    }

    /// Adds rows of as many columns below. Room for a quarter more is made where there is none.
    pub(super) fn append(&mut self, rows: &Self) {
        assert_eq!(self.cols, rows.cols, "rows of another width");
        let (own, more) = (self.rows * self.cols, rows.rows * rows.cols);
        if own + more > 16 * self.data.lines.capacity() {
            let mut data = Scratch::new(own + more + (own + more) / 4);
            // SAFETY: the new buffer has room for the numbers of this matrix, which are initialised.
            unsafe { std::ptr::copy_nonoverlapping(self.as_slice().as_ptr(), data.as_mut_ptr(), own) };
            self.data = data;
        }
        // SAFETY: the buffer has room for both, as just seen to, and is not that of the rows.
        unsafe { std::ptr::copy_nonoverlapping(rows.as_slice().as_ptr(), self.data.as_mut_ptr().add(own), more) };
        self.rows += rows.rows;
    }

    /// Keeps the first rows.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        self.data.lines.capacity() * size_of::<Line>()
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All numbers, row-major.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: the constructor had rows·cols numbers initialised in a buffer of at least that size.
        unsafe { std::slice::from_raw_parts(self.data.lines.as_ptr().cast(), self.rows * self.cols) }
    }

    /// All numbers, row-major, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        let len = self.rows * self.cols;
        // SAFETY: as in `as_slice`, and the matrix is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_mut_ptr(), len) }
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.as_slice()[index * self.cols..(index + 1) * self.cols]
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix[{}, {}]", self.rows, self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> (usize, usize) {
        KEPT.with(|kept| (kept.borrow().lines * size_of::<Line>(), kept.borrow().buffers.len()))
    }

    fn on_a_new_thread(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(test);
        });
    }

    #[test]
    fn a_thread_that_serves_keeps_no_more_than_it_did() {
        on_a_new_thread(|| {
            for rows in [100, 5000, 20] {
                drop([0; 60].map(|_| Matrix::zeros(rows, 64)));
                assert!(kept().0 <= 4 << 20, "{:?}", kept());
            }
            assert!(kept().0 > 3 << 20, "small buffers took the place of large ones: {:?}", kept());
        });
    }

    #[test]
    fn a_thread_that_trains_gets_all_its_buffers_back() {
        on_a_new_thread(|| {
            keep_buffers(64 << 20);
            let step = || [64, 256, 1, 64].map(|cols| [0; 30].map(|_| Matrix::zeros(500, cols)));
            drop(step());
            let after_one = kept();
            assert_eq!(after_one.1, 120);
            let again = step();
            assert_eq!(kept(), (0, 0), "buffers were allocated beside those that were kept");
            drop(again);
            assert_eq!(kept(), after_one);
            keep_buffers(1 << 20);
            assert!(kept().0 <= 1 << 20);
        });
    }
}
