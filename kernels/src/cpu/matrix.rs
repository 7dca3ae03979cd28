//! Row-major matrices in host memory.

use std::cell::RefCell;

/// One cache line of numbers. Vector loads that stay within a line are twice as fast as those that do not.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Lines that one thread keeps for its next matrices: the working set of a history of some 1,000 events.
const KEPT_LINES: usize = 4 << 20 >> 6;

/// Buffers that one thread keeps.
const KEPT_BUFFERS: usize = 16;

thread_local! {
    /// Buffers of dropped matrices. The matrices of one history together exceed what the allocator keeps: without
    /// this, every call gives its memory back to the system and faults it in again, a sixth of the whole call.
    static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Uninitialised numbers at the beginning of a cache line. Kernels write them before they read them.
pub(super) struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        let wanted = len.div_ceil(16);
        let kept = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let fits = kept.iter().enumerate().filter(|(_, lines)| lines.capacity() >= wanted);
            let best = fits.min_by_key(|(_, lines)| lines.capacity())?.0;
            Some(kept.swap_remove(best))
        });
        Self { lines: kept.ok().flatten().unwrap_or_else(|| Vec::with_capacity(wanted)) }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines.capacity() == 0 {
            return;
        }
        // While a thread ends its list may be gone already; then the buffer is freed like any other.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let held: usize = kept.iter().map(Vec::capacity).sum();
            if kept.len() < KEPT_BUFFERS && held + lines.capacity() <= KEPT_LINES {
                kept.push(lines);
            }
        });
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
