//! Kernels started together, as a CUDA graph.
//!
//! A graph is a chain of kernels. It is made once for a sequence of kernels and changed in place when the sequence comes
//! again with other parameters or other numbers of blocks, as it does with every batch of other lengths.

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::driver::result::{self as cu, DriverError};
use cudarc::driver::sys::{self, CUDA_KERNEL_NODE_PARAMS, CUgraph, CUgraphExec, CUgraphNode, CUstream};

use super::driver::Launch;

/// Graphs that are kept; a model and a batch size have few.
const KEPT: usize = 32;

/// Graphs by the functions of their kernels.
#[derive(Default)]
pub(super) struct Graphs(HashMap<Vec<usize>, Graph>);

/// A chain of kernels as it was started last.
struct Graph {
    graph: CUgraph,
    nodes: Vec<CUgraphNode>,
    executable: CUgraphExec,
    launches: Vec<Launch>,
}

impl Graphs {
    /// Starts kernels one after the other. The context is current.
    ///
    /// # Safety
    ///
    /// As of [`super::driver::Driver::launch`], of each.
    pub(super) unsafe fn launch(&mut self, launches: &[Launch], stream: CUstream) -> Result<(), DriverError> {
        let key: Vec<usize> = launches.iter().map(|launch| launch.function.0).collect();
        if let Some(graph) = self.0.get_mut(&key) {
            // A graph that changed in part is of no use.
            if let Err(error) = graph.change(launches) {
                self.0.remove(&key);
                return Err(error);
            }
        } else {
            if self.0.len() >= KEPT {
                self.0.clear();
            }
            self.0.insert(key.clone(), Graph::new(launches)?);
        }
        // SAFETY: the graph is whole, and its kernels take what the caller promises.
        self.0.get(&key).map_or(Ok(()), |graph| unsafe { cu::graph::launch(graph.executable, stream) })
    }
}

impl Graph {
    fn new(launches: &[Launch]) -> Result<Self, DriverError> {
        let mut made = Self {
            graph: std::ptr::null_mut(),
            nodes: Vec::new(),
            executable: std::ptr::null_mut(),
            launches: launches.to_vec(),
        };
        // SAFETY: the pointer is to a handle.
        unsafe { sys::cuGraphCreate(&raw mut made.graph, 0) }.result()?;
        for launch in launches {
            let before = made.nodes.last().copied();
            let mut node = std::ptr::null_mut();
            with_parameters(launch, |parameters| {
                // SAFETY: the graph was created above, the node before is of it, and the driver copies the parameters.
                unsafe {
                    let (first, count) = before.as_ref().map_or((std::ptr::null(), 0), |node| (&raw const *node, 1));
                    sys::cuGraphAddKernelNode_v2(&raw mut node, made.graph, first, count, parameters)
                }
            })?;
            made.nodes.push(node);
        }
        // SAFETY: the graph was created above.
        made.executable = unsafe { cu::graph::instantiate(made.graph, sys::CUgraphInstantiate_flags(0)) }?;
        Ok(made)
    }

    /// Sets what differs from the last time. Runs under way keep what they were started with.
    fn change(&mut self, launches: &[Launch]) -> Result<(), DriverError> {
        for ((node, now), wanted) in self.nodes.iter().zip(&mut self.launches).zip(launches) {
            if now == wanted {
                continue;
            }
            with_parameters(wanted, |parameters| {
                // SAFETY: the node is of the graph that the executable one was made of.
                unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.executable, *node, parameters) }
            })?;
            now.clone_from(wanted);
        }
        Ok(())
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: both are this value's alone; runs under way keep what they need. Nothing is to be done where it fails.
        unsafe {
            if !self.executable.is_null() {
                let _ = cu::graph::exec_destroy(self.executable);
            }
            if !self.graph.is_null() {
                let _ = cu::graph::destroy(self.graph);
            }
        }
    }
}

/// Calls with a kernel's parameters as graphs take them.
fn with_parameters(
    launch: &Launch,
    call: impl FnOnce(*const CUDA_KERNEL_NODE_PARAMS) -> sys::CUresult,
) -> Result<(), DriverError> {
    let mut arguments = [launch.parameters.as_ptr().cast_mut().cast::<c_void>()];
    let [x, y, z] = launch.grid.blocks;
    let parameters = CUDA_KERNEL_NODE_PARAMS {
        func: launch.function.0 as sys::CUfunction,
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: launch.grid.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.grid.shared,
        kernelParams: arguments.as_mut_ptr(),
        extra: std::ptr::null_mut(),
        kern: std::ptr::null_mut(),
        ctx: std::ptr::null_mut(),
    };
    call(&raw const parameters).result()
}
