//! The control file and the SQL scripts, made from the folder `sql`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::VERSION;

/// The control file's template in `sql/`.
const CONTROL: &str = "pgrec.control";

/// Name and text of every file for the `extension` folder, made from the folder `sql`.
///
/// # Errors
/// When a file cannot be read, or there is nothing to install.
pub fn scripts(sql: &Path) -> Result<Vec<(String, String)>> {
    let control = text(&sql.join(CONTROL))?.replace("@VERSION@", VERSION);
    let parts = sql_files(sql)?;
    if parts.is_empty() {
        bail!("{} holds no .sql file", sql.display());
    }
    let mut install = String::new();
    for part in &parts {
        install.push_str(&text(part)?);
        install.push('\n');
    }
    let mut files = vec![(CONTROL.to_owned(), control), (format!("pgrec--{VERSION}.sql"), install)];
    for upgrade in sql_files(&sql.join("upgrade"))? {
        let name = upgrade.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push((name, text(&upgrade)?));
    }
    Ok(files)
}

/// The .sql files directly in `folder` in the order of their names; none when there is no such folder.
fn sql_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pgrec-scripts-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("upgrade")).unwrap();
        folder
    }

    #[test]
    fn the_install_script_is_the_parts_in_name_order() {
        let sql = folder("order");
        std::fs::write(sql.join(CONTROL), "default_version = '@VERSION@'\n").unwrap();
        std::fs::write(sql.join("20_second.sql"), "SELECT 2;").unwrap();
        std::fs::write(sql.join("10_first.sql"), "SELECT 1;").unwrap();
        std::fs::write(sql.join("notes.txt"), "not SQL").unwrap();
        std::fs::write(sql.join("upgrade/pgrec--0.0.1--0.1.0.sql"), "SELECT 3;").unwrap();
        let files = scripts(&sql).unwrap();
        std::fs::remove_dir_all(&sql).unwrap();
        assert_eq!(files[0], (CONTROL.into(), format!("default_version = '{VERSION}'\n")));
        assert_eq!(files[1], (format!("pgrec--{VERSION}.sql"), "SELECT 1;\nSELECT 2;\n".into()));
        assert_eq!(files[2], ("pgrec--0.0.1--0.1.0.sql".into(), "SELECT 3;".into()));
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn an_empty_folder_installs_nothing() {
        let sql = folder("empty");
        std::fs::write(sql.join(CONTROL), "").unwrap();
        let error = scripts(&sql).unwrap_err().to_string();
        std::fs::remove_dir_all(&sql).unwrap();
        assert!(error.contains("holds no .sql file"), "{error}");
    }
}
