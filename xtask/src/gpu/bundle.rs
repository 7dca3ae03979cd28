//! A folder to carry to a machine with a device that has no Rust: tests, the benchmark and a script that runs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::cargo::cargo;
use crate::extension::installed;
use crate::home::Home;
use crate::process::captured;
use crate::progress::Progress;
use crate::toolchain::DEFAULT_MAJOR;

/// A whole Postgres with the extension in it, for the worker's benchmark.
const POSTGRES: &str = "postgres.tar.gz";
/// Where it lies in that.
const INSTALLATION: &str = "package/install";
/// What of it only builds need.
const NOT_CARRIED: [&str; 4] = ["include", "*.a", "pgxs", "*.so.debug"];
/// Files that are carried as they are, from `benches/cuda`.
const SCRIPTS: [&str; 5] = ["run.sh", "nvrtc.py", "report.py", "peers.py", "roofline.py"];
/// The newest glibc that binaries may ask for: Debian 12's.
const NEWEST_GLIBC: (u32, u32) = (2, 36);
/// Bytes of the whole folder at most.
const MOST_BYTES: u64 = 40 << 20;

/// Builds the folder, and gives what it weighs in bytes.
///
/// # Errors
/// When something does not build, asks for a newer glibc, or is too large to carry.
pub(super) fn build(home: &Home, progress: &Progress, folder: &Path) -> Result<u64> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("machines with a device are x86-64: build the bundle on one");
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let binaries = [
        ("kernels_tests", built(home, &["test", "--no-run", "--package", "pgrec-kernels", "--lib"])?),
        ("engine_tests", built(home, &["test", "--no-run", "--package", "pgrec-engine", "--test", "cuda"])?),
        ("server_tests", built(home, &["test", "--no-run", "--package", "pgrec-tests", "--test", "device"])?),
        ("cuda", built(home, &["build", "--package", "pgrec-kernels", "--example", "cuda"])?),
        ("generation", built(home, &["build", "--package", "pgrec-engine", "--example", "generation"])?),
        ("worker", built(home, &["build", "--package", "pgrec-benches", "--bin", "worker"])?),
    ];
    let mut bytes = postgres(home, progress, folder)?;
    for (name, binary) in binaries {
        let carried = folder.join(name);
        strip(&binary, &carried)?;
        bytes += carried.metadata()?.len();
    }
    for script in SCRIPTS {
        let from = home.repository().join("benches/cuda").join(script);
        bytes += std::fs::copy(&from, folder.join(script)).with_context(|| format!("copying {}", from.display()))?;
    }
    if bytes > MOST_BYTES {
        bail!("the bundle weighs {} MiB, more than {}", bytes >> 20, MOST_BYTES >> 20);
    }
    Ok(bytes)
}

/// A copy of a binary without its symbols, which runs on the other machine.
fn strip(binary: &Path, carried: &Path) -> Result<()> {
    captured(Command::new("strip").arg("-o").arg(carried).arg(binary), "strip")?;
    check_glibc(carried)
}

/// Packs the private Postgres, with the extension in it, and gives what it weighs. It lies as deep as in its package,
/// whose libraries it finds by a path relative to its own.
fn postgres(home: &Home, progress: &Progress, folder: &Path) -> Result<u64> {
    let postgres = installed(home, DEFAULT_MAJOR, progress)?;
    let root = postgres.bin.parent().with_context(|| format!("{} is nowhere", postgres.bin.display()))?;
    let staged = folder.join("postgres");
    if staged.exists() {
        std::fs::remove_dir_all(&staged).with_context(|| format!("removing {}", staged.display()))?;
    }
    let own = staged.join(INSTALLATION);
    let parent = own.parent().context("an installation lies in a folder")?;
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    copy(root, &own)?;
    for libraries in libraries_of_package(root) {
        copy(&libraries, &staged)?;
    }
    let library = postgres.libraries.strip_prefix(root).context("libraries lie outside of the installation")?;
    strip(&postgres.libraries.join("pgrec.so"), &own.join(library).join("pgrec.so"))?;
    let packed = folder.join(POSTGRES);
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).args(NOT_CARRIED.map(|pattern| format!("--exclude={pattern}")));
    captured(tar.arg("-czf").arg(&packed).arg("postgres"), "tar")?;
    std::fs::remove_dir_all(&staged).with_context(|| format!("removing {}", staged.display()))?;
    Ok(packed.metadata()?.len())
}

/// Folders of shared libraries that a wheel keeps beside the package that the installation is in.
fn libraries_of_package(root: &Path) -> Vec<PathBuf> {
    let beside = root.ancestors().nth(2).and_then(|folder| std::fs::read_dir(folder).ok());
    let paths = beside.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "libs")).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    captured(Command::new("cp").arg("-a").arg(from).arg(to), "cp").map(drop)
}

/// The executable that a command of cargo makes.
fn built(home: &Home, arguments: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(home, arguments[0]);
    command.args(&arguments[1..]).arg("--message-format=json-render-diagnostics");
    let messages = captured(&mut command, &format!("cargo {}", arguments.join(" ")))?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    messages.lines().filter_map(executable).next_back().ok_or_else(|| anyhow!("cargo names no executable"))
}

/// Fails where a binary asks for a glibc that the other machine may not have.
fn check_glibc(binary: &Path) -> Result<()> {
    let bytes = std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    match newest_glibc(&bytes) {
        Some(newest) if newest > NEWEST_GLIBC => {
            bail!("{} needs glibc {}.{}; build the bundle on Debian 12 or older", binary.display(), newest.0, newest.1)
        }
        _ => Ok(()),
    }
}

/// The newest version that symbols of glibc are asked for.
fn newest_glibc(binary: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let starts = binary.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let version = |start: usize| {
        let text = binary[start + MARK.len()..].split(|byte| !byte.is_ascii_digit() && *byte != b'.').next()?;
        let mut numbers = std::str::from_utf8(text).ok()?.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    starts.filter_map(|(start, _)| version(start)).max()
}

#[cfg(test)]
mod tests {
    use super::newest_glibc;

    #[test]
    fn the_newest_version_that_a_binary_names_is_found() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE\0"), Some((2, 34)));
        assert_eq!(newest_glibc(b"nothing"), None);
    }
}
