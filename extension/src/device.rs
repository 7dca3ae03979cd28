//! Where calls for many users compute (`rec.device`), and `rec_devices()`.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;

use pgrec_engine::inference::message::Place;
use pgrec_kernels::cpu::Cpu;
use pgrec_kernels::cuda::{Cuda, CudaError, Precision, cuda_devices};
use pgrx::pg_extern;
use pgrx::prelude::*;

use crate::error::Result;
use crate::pg::interrupt::SignalsBlocked;
use crate::settings::{self, Device};
use crate::storage::cache;

/// Users of a call from which on `auto` looks for a CUDA device: to begin using one takes a process a while, in which the
/// CPU answers for hundreds.
const MANY: usize = 512;

/// The device of this session's last call that used one.
type Open = Option<(Precision, Arc<Cuda>)>;

thread_local! {
    static OPEN: RefCell<Open> = const { RefCell::new(None) };
    /// Whether this session has said that there is none.
    static SAID: Cell<bool> = const { Cell::new(false) };
}

/// Where the inference worker is to compute a call for so many users.
pub fn place(users: usize) -> Place {
    match settings::device() {
        Device::cuda => Place::Cuda(settings::cuda_precision()),
        Device::auto if users >= MANY => Place::Auto(settings::cuda_precision()),
        Device::auto | Device::cpu => Place::Cpu,
    }
}

/// The CUDA device for a call for so many users, or None for the CPU. Fails where one was asked for and there is none.
pub fn for_users(users: usize) -> Result<Option<Arc<Cuda>>> {
    match settings::device() {
        Device::cpu => Ok(None),
        Device::cuda => Ok(Some(open()?)),
        Device::auto if users < MANY || SAID.get() => Ok(None),
        Device::auto => Ok(open().map_err(say).ok()),
    }
}

/// To the server's log, once a session.
fn say(error: CudaError) {
    SAID.set(true);
    pgrx::log!("pgrec computes on the CPU: {error}");
}

fn open() -> std::result::Result<Arc<Cuda>, CudaError> {
    let precision = settings::cuda_precision();
    let kept =
        OPEN.with_borrow(|open| open.as_ref().filter(|open| open.0 == precision).map(|open| Arc::clone(&open.1)));
    if let Some(cuda) = kept {
        return Ok(cuda);
    }
    // The driver starts threads of its own, which must not take the signals of the backend.
    let _signals = SignalsBlocked::all();
    let cuda = Arc::new(Cuda::open(0, precision, Path::new(cache::FOLDER))?);
    OPEN.set(Some((precision, Arc::clone(&cuda))));
    Ok(cuda)
}

#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn rec_devices() -> TableIterator<
    'static,
    (
        name!(device, String),
        name!(name, Option<String>),
        name!(memory, Option<i64>),
        name!(usable, bool),
        name!(detail, String),
    ),
> {
    let isa = format!("{:?}", Cpu::new().isa()).to_lowercase();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut rows = vec![("cpu".to_owned(), Some(isa), None, true, format!("{threads} threads"))];
    let _signals = SignalsBlocked::all();
    match cuda_devices() {
        Ok(devices) if devices.is_empty() => {
            rows.push(("cuda".into(), None, None, false, "the driver is installed, and finds no device".into()));
        }
        Ok(devices) => rows.extend(devices.into_iter().map(|device| {
            let memory = i64::try_from(device.memory).ok();
            // Calls use the first one.
            let usable = device.check().map(|()| device.ordinal == 0);
            let detail = match &usable {
                Ok(true) => device.to_string(),
                Ok(false) => format!("{device}; only cuda:0 is used"),
                Err(error) => error.to_string(),
            };
            (format!("cuda:{}", device.ordinal), Some(device.name), memory, usable.unwrap_or(false), detail)
        })),
        Err(error) => rows.push(("cuda".into(), None, None, false, error.to_string())),
    }
    TableIterator::new(rows)
}
