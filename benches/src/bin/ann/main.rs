//! Nearest neighbours as an index: `usearch` against pgvector's `hnsw`, on the same tables in one server.

mod contest;
mod curve;
mod vectors;

use anyhow::{Result, bail};
use clap::Parser;
use pgrec_benches::Server;
use xtask::progress::grouped;
use xtask::{Home, Progress};

use contest::{DATABASE, METHODS, Method, Plan, find_truth};
use curve::{Point, qps_at};
use vectors::{Source, Vectors};

/// Recalls at which speeds are compared.
const RECALLS: [f64; 3] = [0.90, 0.95, 0.99];
/// Of a thousand rows, how many pass a filter.
const SHARES: [usize; 4] = [1000, 100, 10, 1];
/// Width of filtered searches.
const FILTERED: usize = 100;

/// Speed, recall, cost of building and of changing: usearch against pgvector's hnsw.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench ann", bin_name = "cargo xtask bench ann")]
struct Arguments {
    /// Vectors to search; may be given several times
    #[arg(long, value_enum, default_values_t = [Source::Items, Source::Model, Source::Text])]
    sets: Vec<Source>,
    /// How many generated vectors; without, what their kind says
    #[arg(long)]
    rows: Option<usize>,
    /// How many queries
    #[arg(long, default_value_t = 300)]
    queries: usize,
    /// Methods, by their names
    #[arg(long, value_delimiter = ',', default_value = "usearch,usearch_f16,usearch_i8,hnsw")]
    methods: Vec<String>,
    /// Widths of the search
    #[arg(long, value_delimiter = ',', default_values_t = [10, 20, 30, 40, 60, 80, 120, 200, 400, 800])]
    widths: Vec<usize>,
    /// Rounds in turns, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// max_parallel_maintenance_workers for both
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// maintenance_work_mem for both
    #[arg(long, default_value = "2GB")]
    memory: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let methods: Vec<Method> =
        METHODS.into_iter().filter(|method| arguments.methods.iter().any(|name| name == method.name)).collect();
    if methods.len() != arguments.methods.len() {
        bail!("the methods are {}", METHODS.map(|method| method.name).join(", "));
    }
    let home = Home::locate()?;
    let progress = Progress::new();
    let server = Server::start(&home, &progress, "bench-ann")?;
    server.ask("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    server.ask(DATABASE, "SET client_min_messages = warning; CREATE EXTENSION pgrec CASCADE")?;
    let mut results = Vec::new();
    for &source in &arguments.sets {
        let found = Vectors::of(source, arguments.rows, arguments.queries, &home, &server, &progress)?;
        let Some(vectors) = found else {
            println!("{source:?}: the data is not there");
            continue;
        };
        let methods = methods.iter().copied().filter(|method| method.takes(&vectors)).collect();
        Set { arguments: &arguments, server: &server, progress: &progress, vectors, methods }.run(&mut results)?;
    }
    println!("\nResults\n{}", results.join("\n"));
    Ok(())
}

/// One table's worth of comparing.
struct Set<'a> {
    arguments: &'a Arguments,
    server: &'a Server,
    progress: &'a Progress,
    vectors: Vectors,
    methods: Vec<Method>,
}

impl Set<'_> {
    fn run(&self, results: &mut Vec<String>) -> Result<()> {
        let name = self.vectors.name;
        println!("\n{name}: {} × {}, {}", grouped(self.vectors.rows.len()), self.vectors.dim, self.vectors.operator);
        self.progress.step("filling the table", |_| self.vectors.fill(self.server, DATABASE))?;
        let mut report = |line: String| {
            println!("{line}");
            results.push(format!("RESULT ann.{name}.{line}"));
        };
        for method in &self.methods {
            let (seconds, bytes) = self.progress.step(&format!("building {}", method.name), |_| {
                method.build(self.server, &self.vectors, self.arguments.workers, &self.arguments.memory)
            })?;
            report(format!("{} build {seconds:.2} s, {:.1} MB", method.name, bytes as f64 / 1e6));
            if !method.is_used(self.server, &self.vectors)? {
                bail!("the planner does not use the index of {}", method.name);
            }
        }
        self.progress.step("finding the true nearest", |_| find_truth(self.server, &self.vectors, "base", &SHARES))?;
        self.sweep("", &mut report)?;
        self.filters(&mut report)?;
        self.memory(&mut report)?;
        self.changes(&mut report)
    }

    /// Speeds at the recalls, after what `when` says.
    fn sweep(&self, when: &str, report: &mut impl FnMut(String)) -> Result<()> {
        let mut curves: Vec<Vec<Point>> = vec![Vec::new(); self.methods.len()];
        for &width in &self.arguments.widths {
            let mut best = vec![f64::INFINITY; self.methods.len()];
            let mut found = vec![None; self.methods.len()];
            for _ in 0..self.arguments.rounds {
                for (place, method) in self.methods.iter().enumerate() {
                    let searched = method.search(self.server, width, 1000, Plan::Index)?;
                    best[place] = best[place].min(searched.micros);
                    found[place] = Some(searched);
                }
            }
            for (place, method) in self.methods.iter().enumerate() {
                let Some(searched) = found[place] else { continue };
                let qps = 1e6 / best[place];
                curves[place].push(Point { recall: searched.recall, qps });
                println!(
                    "  {:<12} width {width:>4}{when}: recall {:.4}, lowest {:.1}, {qps:>8.0} queries/s",
                    method.name, searched.recall, searched.lowest
                );
            }
        }
        let peer = self.methods.iter().position(|method| method.name == "hnsw");
        for recall in RECALLS {
            for (place, method) in self.methods.iter().enumerate() {
                let Some(qps) = qps_at(&curves[place], recall) else {
                    report(format!("{} recall {recall:.2}{when} is not reached", method.name));
                    continue;
                };
                let times = peer.and_then(|peer| qps_at(&curves[peer], recall)).map_or(f64::NAN, |peer| qps / peer);
                report(format!("{} recall {recall:.2}{when} {qps:.0} queries/s, {times:.2} of hnsw", method.name));
            }
        }
        Ok(())
    }

    fn filters(&self, report: &mut impl FnMut(String)) -> Result<()> {
        for share in SHARES {
            for method in &self.methods {
                let index = method.search(self.server, FILTERED, share, Plan::Index)?;
                let exact = method.search(self.server, FILTERED, share, Plan::Exact)?;
                let own = method.search(self.server, FILTERED, share, Plan::Own)?;
                report(format!(
                    "{} filter {:.1} % recall {:.3} lowest {:.1}, {:.0} µs; the planner's choice {:.3}, {:.0} µs; exact \
                     {:.0} µs",
                    method.name,
                    share as f64 / 10.0,
                    index.recall,
                    index.lowest,
                    index.micros,
                    own.recall,
                    own.micros,
                    exact.micros
                ));
            }
        }
        Ok(())
    }

    fn memory(&self, report: &mut impl FnMut(String)) -> Result<()> {
        for method in &self.methods {
            let (before, after) = method.memory(self.server, &self.vectors)?;
            let own = after.saturating_sub(before) as f64 / 1e6;
            report(format!(
                "{} private memory {own:.1} MB for searching, {:.1} MB in all",
                method.name,
                after as f64 / 1e6
            ));
        }
        Ok(())
    }

    /// A tenth more rows, then a fifth fewer, in every table, with searches in between.
    fn changes(&self, report: &mut impl FnMut(String)) -> Result<()> {
        let rows = self.vectors.rows.len();
        // Not the base's own, where those are.
        let more = "INSERT INTO @ SELECT a.id + 10000000, a.f,
                (a.v + b.v) * array_fill(0.5::real, ARRAY[vector_dims(a.v)])::vector
            FROM base a JOIN base b ON b.id = a.id + 1 WHERE a.id % 10 = 0";
        let single = (rows / 100).clamp(100, 2_000);
        let one_by_one = format!(
            "DO $$ DECLARE x record; BEGIN FOR x IN SELECT * FROM base WHERE id < {single} LOOP
                 INSERT INTO @ VALUES (x.id + 20000000, x.f, x.v); END LOOP; END $$"
        );
        for method in &self.methods {
            let batch = method.timed(self.server, more)?;
            let rate = (rows / 10) as f64 / batch;
            let each = method.timed(self.server, &one_by_one)?;
            self.settled()?;
            let settled = method.timed(self.server, "VACUUM @")?;
            report(format!(
                "{} inserts {rate:.0} rows/s in a statement, {:.0} rows/s one by one; VACUUM then {settled:.2} s",
                method.name,
                single as f64 / each
            ));
        }
        let first = self.methods.first().map_or("base", |method| method.name);
        find_truth(self.server, &self.vectors, first, &[1000])?;
        self.sweep(", 10 % more rows", report)?;
        for method in &self.methods {
            method.timed(self.server, "DELETE FROM @ WHERE f % 5 = 0")?;
            let vacuum = method.timed(self.server, "VACUUM @")?;
            report(format!("{} VACUUM of a fifth of the rows {vacuum:.2} s", method.name));
        }
        find_truth(self.server, &self.vectors, first, &[1000])?;
        self.sweep(", 20 % fewer rows", report)
    }

    /// Waits for merges in the background.
    fn settled(&self) -> Result<()> {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgrec index'";
        while self.server.number(DATABASE, busy)? > 0.0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }
}
