//! Small kernels held back and started together.
//!
//! What a batch of a few histories computes takes less time than it takes to start its kernels one by one. Such kernels
//! are gathered until something has to follow them, and then started as one graph.

use std::sync::{Arc, Mutex};

use super::driver::{Bf16Matrix, Driver, Function, Grid, Launch, Panels};
use super::program::Program;
use super::{CudaError, locked};

/// Kernels that wait at most: memory that they use is not given back before.
const MOST: usize = 256;

/// A driver that holds back kernels of few blocks.
pub(super) struct Deferred {
    driver: Arc<dyn Driver>,
    /// Blocks of a kernel that is held back, at most.
    small: u32,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    launches: Vec<Launch>,
    /// Memory that was given back since, which the kernels may use.
    freed: Vec<u64>,
}

impl Deferred {
    pub(super) fn new(driver: Arc<dyn Driver>, small: u32) -> Self {
        Self { driver, small, held: Mutex::default() }
    }

    /// Starts what was held back.
    fn start(&self, held: &mut Held) -> Result<(), CudaError> {
        let launches = std::mem::take(&mut held.launches);
        // SAFETY: who handed them over promised it of each, and their memory was not given back.
        let started = if launches.is_empty() { Ok(()) } else { unsafe { self.driver.launch_all(&launches) } };
        held.freed.drain(..).for_each(|address| self.driver.free(address));
        started
    }
}

impl Driver for Deferred {
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.driver.allocate(bytes)
    }

    fn fill_gaps(&self, address: u64, rows: usize, stride: usize, used: usize) -> Result<(), CudaError> {
        self.driver.fill_gaps(address, rows, stride, used)
    }

    fn free(&self, address: u64) {
        let mut held = locked(&self.held);
        match held.launches.is_empty() {
            true => self.driver.free(address),
            false => held.freed.push(address),
        }
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), CudaError> {
        self.driver.upload(to, from)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), CudaError> {
        self.start(&mut locked(&self.held))?;
        self.driver.download(from, to)
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        self.start(&mut locked(&self.held))?;
        self.driver.copy(to, from, bytes)
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.start(&mut locked(&self.held))?;
        self.driver.wait()
    }

    fn multiprocessors(&self) -> usize {
        self.driver.multiprocessors()
    }

    fn is_hopper(&self) -> bool {
        self.driver.is_hopper()
    }

    fn panels(&self, of: Bf16Matrix, rows: u32) -> Result<Panels, CudaError> {
        self.driver.panels(of, rows)
    }

    fn function(&self, program: &Program) -> Result<Function, CudaError> {
        self.driver.function(program)
    }

    unsafe fn launch(&self, function: Function, grid: Grid, parameters: &[u8]) -> Result<(), CudaError> {
        let mut held = locked(&self.held);
        let blocks = grid.blocks.iter().fold(1u32, |product, &n| product.saturating_mul(n));
        if blocks > self.small {
            self.start(&mut held)?;
            // SAFETY: as the caller promises.
            return unsafe { self.driver.launch(function, grid, parameters) };
        }
        held.launches.push(Launch { function, grid, parameters: parameters.to_vec() });
        if held.launches.len() < MOST { Ok(()) } else { self.start(&mut held) }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        // Nobody can see any more what the kernels would have computed.
        let held = std::mem::take(&mut *locked(&self.held));
        held.freed.into_iter().for_each(|address| self.driver.free(address));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Log {
        fn add(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }
    }

    impl Driver for Log {
        fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
            self.add(format!("allocate {bytes}"));
            Ok(bytes as u64)
        }
        fn free(&self, address: u64) {
            self.add(format!("free {address}"));
        }
        fn upload(&self, to: u64, _: &[u8]) -> Result<(), CudaError> {
            self.add(format!("upload {to}"));
            Ok(())
        }
        fn download(&self, from: u64, _: &mut [u8]) -> Result<(), CudaError> {
            self.add(format!("download {from}"));
            Ok(())
        }
        fn copy(&self, to: u64, from: u64, _: usize) -> Result<(), CudaError> {
            self.add(format!("copy {from} to {to}"));
            Ok(())
        }
        fn panels(&self, _: Bf16Matrix, _: u32) -> Result<Panels, CudaError> {
            Ok([0; 16])
        }
        fn function(&self, _: &Program) -> Result<Function, CudaError> {
            Ok(Function(0))
        }
        unsafe fn launch(&self, function: Function, _: Grid, _: &[u8]) -> Result<(), CudaError> {
            self.add(format!("launch {}", function.0));
            Ok(())
        }
        unsafe fn launch_all(&self, launches: &[Launch]) -> Result<(), CudaError> {
            self.add(format!("launch {:?}", launches.iter().map(|l| l.function.0).collect::<Vec<_>>()));
            Ok(())
        }
    }

    #[test]
    fn memory_is_given_back_after_the_kernels_that_were_held_back() {
        let log = Arc::new(Log::default());
        let deferred = Deferred::new(Arc::clone(&log) as Arc<dyn Driver>, 4);
        let launch = |function, blocks| {
            // SAFETY: nothing runs.
            unsafe { deferred.launch(Function(function), Grid { blocks, threads: 32, shared: 0 }, &[]) }.unwrap();
        };
        deferred.free(1);
        launch(2, [4, 1, 1]);
        launch(3, [2, 2, 1]);
        deferred.free(4);
        deferred.upload(5, &[]).unwrap();
        launch(6, [5, 1, 1]);
        launch(7, [1, 1, 1]);
        deferred.download(8, &mut []).unwrap();
        launch(9, [1, 1, 1]);
        deferred.copy(10, 11, 0).unwrap();
        launch(12, [u32::MAX, u32::MAX, 1]);
        launch(13, [1, 1, 1]);
        deferred.free(14);
        drop(deferred);
        let wanted = "free 1, upload 5, launch [2, 3], free 4, launch 6, launch [7], download 8, launch [9], \
                      copy 11 to 10, launch 12, free 14";
        assert_eq!(log.0.lock().unwrap().join(", "), wanted);
    }
}
