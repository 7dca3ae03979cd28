//! Where a training stands, in a file: one like it goes on from there after an interruption, to the same weights.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a training keeps how far it is.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The file: only for trainings of the same family, parameters, seed and items. Whoever names it removes it.
    pub file: &'a Path,
    /// It is written after an epoch where the last time is so long ago.
    pub every: Duration,
}

/// The numbers of a training beside its weights.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Epochs that are over.
    pub epoch: u32,
    /// Of those, the last ones without a better validation figure.
    pub without_gain: u32,
    pub steps: u64,
    pub events: u64,
    pub seconds: f64,
    /// What random numbers go on from.
    pub random: u64,
    /// The best validation figure, by its bits.
    pub best: Option<u64>,
    pub curve: Vec<Value>,
}

/// The only entry of the file's header that is no tensor.
const STANDING: &str = "standing";

/// Writes a file, which appears under its name when it is whole.
pub(super) fn write(file: &Path, standing: &Standing, numbers: &[(String, &[f32])]) -> io::Result<()> {
    let header = HashMap::from([(STANDING.to_owned(), serde_json::to_string(standing)?)]);
    let mut views = Vec::with_capacity(numbers.len());
    for &(ref name, numbers) in numbers {
        let view = TensorView::new(Dtype::F32, vec![numbers.len()], bytemuck::cast_slice(numbers));
        views.push((name, view.map_err(io::Error::other)?));
    }
    let temporary = file.with_extension(format!("tmp{}", std::process::id()));
    let written = serialize_to_file(views, Some(header), &temporary)
        .map_err(io::Error::other)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        // What cannot be written is perhaps half there.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// What such a file holds.
pub(super) struct Found<'a> {
    pub standing: Standing,
    tensors: SafeTensors<'a>,
}

impl<'a> Found<'a> {
    /// Nothing where the bytes are not such a file's.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        let standing = header.metadata().as_ref()?.get(STANDING)?;
        Some(Self { standing: serde_json::from_str(standing).ok()?, tensors: SafeTensors::deserialize(bytes).ok()? })
    }

    /// Fills in numbers by their name, if there are as many.
    pub(super) fn fill(&self, name: &str, numbers: &mut [f32]) -> Option<()> {
        let found = self.tensors.tensor(name).ok()?;
        if found.dtype() != Dtype::F32 || found.data().len() != size_of_val(numbers) {
            return None;
        }
        for (number, bytes) in numbers.iter_mut().zip(found.data().chunks_exact(size_of::<f32>())) {
            *number = bytemuck::pod_read_unaligned(bytes);
        }
        Some(())
    }
}
