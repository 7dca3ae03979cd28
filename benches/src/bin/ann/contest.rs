//! One method on one table: its index, and searches through it.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use pgrec_benches::Server;

use crate::vectors::Vectors;

/// Database of this bench.
pub const DATABASE: &str = "ann";
/// Nearest rows that are asked for.
pub const K: usize = 10;

/// An access method with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Name in what is printed, and of its table.
    pub name: &'static str,
    access_method: &'static str,
    options: &'static str,
    /// The setting that says how wide the search is.
    width: &'static str,
}

/// What can be compared.
pub const METHODS: [Method; 4] = [
    Method { name: "usearch", access_method: "usearch", options: "", width: "usearch.expansion_search" },
    Method {
        name: "usearch_f16",
        access_method: "usearch",
        options: "WITH (scalar = f16)",
        width: "usearch.expansion_search",
    },
    Method {
        name: "usearch_i8",
        access_method: "usearch",
        options: "WITH (scalar = i8)",
        width: "usearch.expansion_search",
    },
    Method { name: "hnsw", access_method: "hnsw", options: "", width: "hnsw.ef_search" },
];

/// What searches took and found.
#[derive(Debug, Clone, Copy)]
pub struct Searched {
    /// Mean share of the true nearest that was found.
    pub recall: f64,
    /// The least of any query.
    pub lowest: f64,
    /// Mean time of a query in the server.
    pub micros: f64,
}

/// How searches are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Through the index, whatever it costs.
    Index,
    /// Without it.
    Exact,
    /// As the planner thinks best.
    Own,
}

/// Both methods go on until a filtered query has its rows.
const ITERATIVE: &str = "SET hnsw.iterative_scan = strict_order; SET usearch.iterative_scan = strict_order;";

impl Method {
    /// Whether it can index them.
    pub fn takes(&self, vectors: &Vectors) -> bool {
        !self.options.contains("i8") || vectors.operator == "<=>"
    }

    /// Copies the base table and indexes the copy; seconds and bytes.
    pub fn build(&self, server: &Server, vectors: &Vectors, workers: usize, memory: &str) -> Result<(f64, u64)> {
        let Self { name, access_method, options, .. } = self;
        server.ask(
            DATABASE,
            &format!(
                "DROP TABLE IF EXISTS {name}; CREATE TABLE {name} AS TABLE base;
                 ALTER TABLE {name} ALTER v TYPE vector({}); VACUUM ANALYZE {name}; CHECKPOINT",
                vectors.dim
            ),
        )?;
        let started = Instant::now();
        server.ask(
            DATABASE,
            &format!(
                "SET maintenance_work_mem = '{memory}'; SET max_parallel_maintenance_workers = {workers};
                 CREATE INDEX {name}_v ON {name} USING {access_method} (v {}) {options}",
                vectors.class
            ),
        )?;
        let seconds = started.elapsed().as_secs_f64();
        let bytes = server.number(DATABASE, &format!("SELECT pg_relation_size('{name}_v')"))?;
        self.define(server, vectors)?;
        Ok((seconds, bytes as u64))
    }

    /// The function `search_NAME(share)`: all queries among the rows of which `share` in a thousand pass a filter.
    fn define(&self, server: &Server, vectors: &Vectors) -> Result<()> {
        let (name, operator) = (self.name, vectors.operator);
        // Distances are compared, not ids: rows may be equally far. Theirs are sums of many numbers.
        let script = format!(
            "DROP FUNCTION IF EXISTS search_{name};
             CREATE FUNCTION search_{name}(share int, OUT recall float, OUT lowest float, OUT micros float)
             LANGUAGE plpgsql AS $body$
             DECLARE query record; distances float[]; since timestamptz; spent float := 0; found float; count int := 0;
             BEGIN
                 recall := 0; lowest := 1;
                 FOR query IN SELECT q.v, t.distances FROM q JOIN truth t USING (id) WHERE t.share = search_{name}.share
                 ORDER BY q.id LOOP
                     since := clock_timestamp();
                     IF share = 1000 THEN
                         SELECT array_agg(d) INTO distances FROM (
                             SELECT v {operator} query.v AS d FROM {name} ORDER BY v {operator} query.v LIMIT {K}) n;
                     ELSE
                         SELECT array_agg(d) INTO distances FROM (
                             SELECT v {operator} query.v AS d FROM {name} WHERE f < share
                             ORDER BY v {operator} query.v LIMIT {K}) n;
                     END IF;
                     spent := spent + extract(epoch FROM clock_timestamp() - since);
                     SELECT least(1, count(*)::float / cardinality(query.distances)) INTO found
                     FROM unnest(distances) d WHERE d <= query.distances[cardinality(query.distances)] + 1e-6;
                     recall := recall + found; lowest := least(lowest, found); count := count + 1;
                 END LOOP;
                 recall := recall / count; micros := 1e6 * spent / count;
             END $body$"
        );
        server.ask(DATABASE, &script).map(drop)
    }

    /// Runs all queries once over one connection.
    pub fn search(&self, server: &Server, width: usize, share: usize, plan: Plan) -> Result<Searched> {
        let Self { name, width: setting, .. } = self;
        let planned = match plan {
            Plan::Index => "SET enable_seqscan = off; SET enable_sort = off;",
            Plan::Exact => "SET enable_indexscan = off;",
            Plan::Own => "",
        };
        let filtered = if share < 1000 { ITERATIVE } else { "" };
        // The first call plans the queries and opens the index.
        let printed = server.ask(
            DATABASE,
            &format!(
                "SET max_parallel_workers_per_gather = 0; {planned} {filtered} SET {setting} = {width};
                 SELECT v FROM {name} ORDER BY v {} (SELECT v FROM q LIMIT 1) LIMIT 1;
                 SELECT * FROM search_{name}({share})",
                self.operator(server)?
            ),
        )?;
        let last = printed.lines().last().unwrap_or_default();
        let numbers: Vec<f64> = last.split('|').filter_map(|number| number.parse().ok()).collect();
        let [recall, lowest, micros] = numbers[..] else { bail!("search_{name} prints {printed:?}") };
        Ok(Searched { recall, lowest, micros })
    }

    fn operator(&self, server: &Server) -> Result<String> {
        let name = self.name;
        server.ask(
            DATABASE,
            &format!(
                "SELECT o.oprname FROM pg_index i JOIN pg_opclass c ON c.oid = indclass[0] JOIN pg_amop a
                 ON a.amopfamily = c.opcfamily JOIN pg_operator o ON o.oid = amopopr
                 WHERE indexrelid = '{name}_v'::regclass LIMIT 1"
            ),
        )
    }

    /// Whether a search through the index is what the planner does when it may do nothing else.
    pub fn is_used(&self, server: &Server, vectors: &Vectors) -> Result<bool> {
        let (name, operator) = (self.name, vectors.operator);
        let plan = server.ask(
            DATABASE,
            &format!(
                "SET enable_seqscan = off; SET enable_sort = off;
                 EXPLAIN SELECT v FROM {name} ORDER BY v {operator} (SELECT v FROM q LIMIT 1) LIMIT {K}"
            ),
        )?;
        Ok(plan.contains(&format!("{name}_v")))
    }

    /// Seconds that a script takes, in which `@` is the method's table.
    pub fn timed(&self, server: &Server, script: &str) -> Result<f64> {
        let started = Instant::now();
        server.ask(DATABASE, &script.replace('@', self.name))?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Private memory of a backend before and after it searches, in bytes.
    pub fn memory(&self, server: &Server, vectors: &Vectors) -> Result<(u64, u64)> {
        let (name, operator) = (self.name, vectors.operator);
        let status = "SELECT (regexp_match(pg_read_file('/proc/self/status'), 'RssAnon:\\s+(\\d+)'))[1]";
        let printed = server.ask(
            DATABASE,
            &format!(
                "SET enable_seqscan = off; LOAD 'pgrec'; SELECT count(*) FROM q; {status};
                 DO $$ DECLARE x record; BEGIN FOR x IN SELECT v FROM q LOOP
                     PERFORM v FROM {name} ORDER BY v {operator} x.v LIMIT {K}; END LOOP; END $$; {status}"
            ),
        )?;
        let numbers: Vec<u64> = printed.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let [_, before, after] = numbers[..] else { bail!("the memory of a backend is {printed:?}") };
        Ok((before * 1024, after * 1024))
    }
}

/// The table `truth (share, id, distances)`: the nearest of each query, by comparing with all rows of a table.
pub fn find_truth(server: &Server, vectors: &Vectors, table: &str, shares: &[usize]) -> Result<()> {
    let operator = vectors.operator;
    let mut script = "DROP TABLE IF EXISTS truth; CREATE TABLE truth (share int, id int, distances float[]);
         SET enable_indexscan = off; SET max_parallel_workers_per_gather = 4;"
        .to_owned();
    for share in shares {
        script.push_str(&format!(
            "INSERT INTO truth SELECT {share}, q.id, (SELECT array_agg(d ORDER BY d) FROM (
                 SELECT v {operator} q.v AS d FROM {table} WHERE {share} = 1000 OR f < {share}
                 ORDER BY v {operator} q.v LIMIT {K}) n) FROM q;"
        ));
    }
    script.push_str("ANALYZE truth");
    server.ask(DATABASE, &script).map(drop).context("comparing with all rows")
}
