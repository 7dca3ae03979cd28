//! Right and wrong calls in psql, and what each of them prints: `regress/*.sql` against `regress/expected/*.out`.
//!
//! `PGREC_REWRITE=1 cargo test --package pgrec-tests --test input` writes the expectations anew; read the diff.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Stdio;

use pgrec_tests::{Database, each_database};

const REWRITE: &str = "PGREC_REWRITE";

#[test]
fn every_wrong_call_gets_its_error_and_says_what_to_do() {
    each_database(|database| compare(database, "wrong_calls"));
}

#[test]
fn calls_at_the_edge_of_sense_behave() {
    each_database(|database| compare(database, "calls"));
}

#[test]
fn ids_of_every_type_and_untyped_parameters_find_their_function() {
    each_database(|database| compare(database, "id_types"));
}

#[test]
fn views_and_tables_of_the_application_can_be_bound() {
    each_database(|database| compare(database, "binding"));
}

#[test]
fn searches_for_what_makes_no_sense_get_an_error_or_nothing() {
    each_database(|database| compare(database, "search"));
}

#[test]
fn metric_aggregates_agree_with_a_calculation_by_hand() {
    each_database(|database| compare(database, "metrics"));
}

/// Runs a script as psql shows it and compares with what it printed when somebody last read it.
fn compare(database: &Database<'_>, name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("regress");
    let expected_file = folder.join(format!("expected/{name}.out"));
    let printed = printed(database, &folder.join(format!("{name}.sql")));
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&expected_file, printed).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&expected_file).unwrap_or_default();
    if printed != expected {
        let difference = difference(&expected, &printed);
        panic!("{name}.sql prints something else than {}:\n{difference}", expected_file.display());
    }
}

/// The statements with their rows and messages, without the place in the source that raised an error,
/// and whatever the database is called.
fn printed(database: &Database<'_>, script: &std::path::Path) -> String {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut psql = database.client("psql");
    psql.args(["-X", "-a", "-q", "-v", "HIDE_TABLEAM=on"]).env("PGTZ", "UTC");
    psql.stdin(std::fs::File::open(script).unwrap()).stdout(writer.try_clone().unwrap()).stderr(Stdio::from(writer));
    let mut child = psql.spawn().unwrap();
    drop(psql);
    let text = std::io::read_to_string(reader).unwrap();
    child.wait().unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("LOCATION:"));
    lines.map(|line| format!("{}\n", line.trim_end().replace(&database.name, "DATABASE"))).collect()
}

/// Lines that differ, each change with the statement above it.
fn difference(expected: &str, printed: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), printed.lines().collect());
    // Lengths of the longest common subsequences of what is left: the files are hundreds of lines, not more.
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            common[i][j] = if a == b { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out, mut context) = (0, 0, String::new(), None);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            context = Some((j, new[j]));
            (i, j) = (i + 1, j + 1);
            continue;
        }
        if let Some((line, text)) = context.take() {
            out += &format!("{:5}  {text}\n", line + 1);
        }
        if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            out += &format!("     - {}\n", old[i]);
            i += 1;
        } else {
            out += &format!("     + {}\n", new[j]);
            j += 1;
        }
    }
    out
}
