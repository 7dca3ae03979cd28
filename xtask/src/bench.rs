//! Benches: binaries of the crate in `benches/`, found by their files, so that there is no list to keep.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::home::Home;
use crate::process::streamed;

/// Runs the bench `name` with `arguments`.
///
/// # Errors
/// When there is no such bench (the message lists those there are), or it fails.
pub fn run(home: &Home, name: &str, arguments: &[String]) -> Result<()> {
    let folder = home.repository().join("benches");
    if !names(&folder)?.iter().any(|(known, _)| known == name) {
        bail!("there is no bench \"{name}\"; there are:\n{}", list(home)?);
    }
    let mut bench = cargo(home, "run");
    bench.arg("--manifest-path").arg(folder.join("Cargo.toml")).args(["--bin", name, "--"]).args(arguments);
    streamed(&mut bench, &format!("bench {name}"))
}

/// One line a bench: its name and what it compares.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(home: &Home) -> Result<String> {
    let lines = names(&home.repository().join("benches"))?;
    let lines: Vec<String> = lines.into_iter().map(|(name, about)| format!("  {name:<12} {about}")).collect();
    Ok(if lines.is_empty() { "  (none)".to_owned() } else { lines.join("\n") })
}

/// Name and first line of documentation of every binary: `src/bin/NAME.rs` or `src/bin/NAME/main.rs`.
fn names(folder: &Path) -> Result<Vec<(String, String)>> {
    let binaries = folder.join("src/bin");
    if !binaries.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&binaries).with_context(|| format!("reading {}", binaries.display()))? {
        let path = entry?.path();
        let Some(source) = source(&path) else { continue };
        let text = std::fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        let about = text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or_default().to_owned();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((name, about));
    }
    found.sort();
    Ok(found)
}

fn source(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.join("main.rs")).filter(|main| main.is_file());
    }
    path.extension().is_some_and(|extension| extension == "rs").then(|| path.to_path_buf())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_is_listed_by_its_file_and_first_line() {
        let folder = std::env::temp_dir().join(format!("pgrec-benches-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("src/bin/serve")).unwrap();
        std::fs::write(folder.join("src/bin/serve/main.rs"), "//! Serving against a peer.\nfn main() {}\n").unwrap();
        std::fs::write(folder.join("src/bin/index.rs"), "fn main() {}\n").unwrap();
        let found = names(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let pair = |name: &str, about: &str| (name.to_owned(), about.to_owned());
        assert_eq!(found, [pair("index", ""), pair("serve", "Serving against a peer.")]);
    }
}
