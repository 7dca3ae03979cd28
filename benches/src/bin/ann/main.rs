//! Nearest neighbours as an index: `usearch` against pgvector's `hnsw`, on the same tables in one server.

mod changes;
mod clusters;
mod curve;
mod filters;
mod method;
mod model;
mod report;
mod sweep;
mod table;
mod vectors;

use std::num::NonZero;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use pgrec_benches::Server;
use xtask::progress::grouped;
use xtask::{Home, Progress};

use curve::Answer;
use method::Method;
use report::{Report, megabytes, ms};
use sweep::{Side, Sweep};
use table::{Built, Path, Search, Table, UNFILTERED};
use vectors::{Source, Vectors};

/// Queries with a filter, which may take long.
const FILTERED_QUERIES: usize = 100;
/// The widest search of tables that change, which are searched in several states.
const CHANGES_WIDTH: usize = 240;

/// usearch against pgvector's hnsw: speed by recall, filters, building, changes, memory.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench ann", bin_name = "cargo xtask bench ann")]
struct Arguments {
    /// Vectors to search
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Source::Items, Source::Beauty, Source::Ml1m, Source::Text])]
    sets: Vec<Source>,
    /// What to compare: usearch and hnsw, each with options of its index behind colons, as in usearch:scalar=f16
    #[arg(long, value_delimiter = ',', default_value = "usearch,usearch:scalar=f16,hnsw")]
    methods: Vec<Method>,
    /// What to measure besides building; changes are made to generated vectors only
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Part::Sweep, Part::Filters, Part::Memory, Part::Changes])]
    parts: Vec<Part>,
    /// Rows of generated vectors, instead of what their kind says
    #[arg(long)]
    rows: Option<usize>,
    /// How many queries
    #[arg(long, default_value_t = 300)]
    queries: usize,
    /// Widths of the search
    #[arg(long, value_delimiter = ',', default_values_t = [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 400, 800])]
    widths: Vec<usize>,
    /// How often the methods take turns at being searched; the fastest time of each query counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How often they take turns at being built; the fastest counts
    #[arg(long, default_value_t = 1)]
    builds: usize,
    /// max_parallel_maintenance_workers; without, one less than there are cores
    #[arg(long)]
    workers: Option<usize>,
    /// maintenance_work_mem; without, 1GB, and 4GB for a million rows
    #[arg(long)]
    memory: Option<String>,
    /// A setting for all sessions, as in hnsw.max_scan_tuples=40000; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Recall and speed by the width of the search
    Sweep,
    /// Searches among the rows that pass a filter
    Filters,
    /// Private memory of a session
    Memory,
    /// Inserts, deletes, VACUUM, and searches in between
    Changes,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let large = arguments.sets.contains(&Source::Million);
    let settings = [
        // Nobody measures the disk.
        ("shared_buffers", if large { "4GB" } else { "1GB" }),
        ("max_wal_size", "16GB"),
        ("checkpoint_timeout", "1h"),
        ("autovacuum", "off"),
    ];
    let server = Server::start_with(&home, &progress, "bench-ann", &settings)?;
    let mut report = Report::default();
    for (place, &source) in arguments.sets.iter().enumerate() {
        let vectors = source.vectors(arguments.rows, arguments.queries, &home, &server, &progress)?;
        let Some(vectors) = vectors else {
            progress.say(&format!("\n{}: the data is not there", source.name()));
            continue;
        };
        let database = format!("ann_{place}");
        server.ask("postgres", &format!("CREATE DATABASE {database}"))?;
        server.ask(&database, "SET client_min_messages = warning; CREATE EXTENSION pgrec CASCADE")?;
        report.set(&source.name());
        compare(&arguments, source, vectors, &server, &database, &progress, &mut report)?;
        server.ask("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"))?;
    }
    report.finish();
    Ok(())
}

/// Everything about one set of vectors.
fn compare(
    arguments: &Arguments,
    source: Source,
    vectors: Vectors,
    server: &Server,
    database: &str,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let (rows, queries, metric) = (vectors.rows.len(), vectors.queries.len(), vectors.metric);
    let (name, dim, operator) = (source.name(), vectors.dim(), metric.operator());
    progress.say(&format!("\n{name}: {} × {dim}, {queries} queries, {operator}", grouped(rows)));
    let workers = arguments.workers.unwrap_or_else(|| cores().saturating_sub(1));
    progress.step("filling the table", |_| vectors.fill(server, database, workers))?;
    drop(vectors);

    let settings = settings(arguments, workers, rows);
    let base = Table { server, database, name: "item".to_owned(), metric, settings: &settings };
    let methods: Vec<&Method> = arguments.methods.iter().filter(|method| method.takes(metric)).collect();
    build(&base, &methods, arguments.builds, progress, report)?;

    let exact = Search { path: Path::Exact, share: UNFILTERED, order: None, queries };
    let truth: Vec<Answer> =
        progress.step("comparing with all rows", |_| Ok(base.search(&exact)?.into_iter().flatten().collect()))?;
    let side = |&method| Side { method, table: base.clone(), curve: Vec::new() };
    let mut sides: Vec<Side<'_>> = methods.iter().map(side).collect();
    let has = |part| arguments.parts.contains(&part);
    let sweep = Sweep { widths: &arguments.widths, rounds: arguments.rounds, queries };
    if has(Part::Sweep) {
        sweep.run("search", &mut sides, &truth, progress, report)?;
    }
    if has(Part::Filters) {
        filters::run(&sides, queries.min(FILTERED_QUERIES), progress, report)?;
    }
    if has(Part::Memory) {
        memory(&sides, queries, report)?;
    }
    drop(sides);
    if has(Part::Changes) && source.is_generated() {
        // Not needed any more, and nothing else should be in memory.
        methods.iter().try_for_each(|method| base.drop_index(method))?;
        let widths: Vec<usize> = arguments.widths.iter().copied().filter(|&width| width <= CHANGES_WIDTH).collect();
        let sweep = Sweep { widths: &widths, rounds: arguments.rounds.min(2), queries };
        changes::run(&base, &methods, rows, &sweep, progress, report)?;
    }
    Ok(())
}

/// Builds all indexes on one table, in turns.
fn build(
    table: &Table<'_>,
    methods: &[&Method],
    rounds: usize,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let mut best: Vec<Option<Built>> = vec![None; methods.len()];
    for round in 0..rounds.max(1) {
        for (best, method) in best.iter_mut().zip(methods) {
            table.drop_index(method)?;
            let built = progress.watched(
                &format!("building {}, round {}", method.label, round + 1),
                || build_status(table),
                |_| table.build(method),
            )?;
            if best.is_none_or(|best| built.seconds < best.seconds) {
                *best = Some(built);
            }
        }
    }
    let peer = methods.iter().zip(&best).find(|(method, _)| method.is_peer()).and_then(|(_, built)| *built);
    for (method, built) in methods.iter().zip(&best) {
        let Some(built) = built else { continue };
        let peer = peer.filter(|_| !method.is_peer());
        let times = peer.map_or_else(String::new, |peer| format!(", {:.2} × hnsw", peer.seconds / built.seconds));
        report.result(
            &format!("build.{}", method.label),
            &format!(
                "{:.2} s{times}, {:.2} s of processors, {}",
                built.seconds,
                built.cpu_seconds,
                megabytes(built.bytes)
            ),
        );
    }
    Ok(())
}

/// How far CREATE INDEX is.
fn build_status(table: &Table<'_>) -> Option<String> {
    let query = "SELECT phase || ', ' || tuples_done || ' rows' FROM pg_stat_progress_create_index";
    table.ask(query).ok().filter(|status| !status.is_empty())
}

fn memory(sides: &[Side<'_>], queries: usize, report: &mut Report) -> Result<()> {
    for side in sides {
        let memory = side.table.memory(side.method, side.width_for(0.95), queries)?;
        report.result(
            &format!("memory.{}", side.method.label),
            &format!(
                "a session has {} of its own before it searches, {} after the first search, {} after {queries}; the \
                 first one takes {}",
                megabytes(memory.before),
                megabytes(memory.first),
                megabytes(memory.after),
                ms(memory.first_seconds)
            ),
        );
    }
    Ok(())
}

/// Statements for all sessions.
fn settings(arguments: &Arguments, workers: usize, rows: usize) -> String {
    let memory = arguments.memory.as_deref().unwrap_or(if rows < 500_000 { "1GB" } else { "4GB" });
    let own = [format!("maintenance_work_mem = '{memory}'"), format!("max_parallel_maintenance_workers = {workers}")];
    own.iter().chain(&arguments.settings).map(|setting| format!("SET {setting};")).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
