//! A table of vectors in the server, its indexes, and searches in it.
//!
//! Searches run in the server: a PL/pgSQL function goes through the table of queries, with the statement prepared, and
//! takes the time of each. Where a table has several indexes, a search drops the others in a transaction that it rolls
//! back: all methods search the same table, and each plan is the one that the planner makes with that index alone.

use anyhow::{Context, Result, bail, ensure};
use pgrec_benches::Server;

use crate::curve::Answer;
use crate::method::{Method, Metric, Order};

/// The nearest rows that are asked for.
pub const K: usize = 10;
/// Searches of a new session that do not count: they open what the others find open.
const WARM_UP: usize = 30;
/// Rows in a thousand that pass a filter: all of them, that is, none is asked for.
pub const UNFILTERED: u32 = 1000;

/// A table `(id, bucket, embedding)`, where `bucket` is below 1,000 and has nothing to do with the vector.
#[derive(Clone)]
pub struct Table<'a> {
    /// The server.
    pub server: &'a Server,
    /// The database, which also has the table `query (id, embedding)`.
    pub database: &'a str,
    /// Name of the table.
    pub name: String,
    /// What the indexes are for.
    pub metric: Metric,
    /// Statements before each search and each CREATE INDEX.
    pub settings: &'a str,
}

/// How rows are looked for.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    /// Through the index of a method, whatever the planner thinks of it, with these widths.
    Index(&'a Method, &'a [usize]),
    /// By comparing with all rows.
    Exact,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// How.
    pub path: Path<'a>,
    /// Rows in a thousand that pass the filter.
    pub share: u32,
    /// Whether the scan goes on when the filter leaves too few rows; None leaves it to the default.
    pub order: Option<Order>,
    /// How many queries, of those there are.
    pub queries: usize,
}

/// What CREATE INDEX took.
#[derive(Debug, Clone, Copy)]
pub struct Built {
    /// On the clock.
    pub seconds: f64,
    /// Of all processes.
    pub cpu_seconds: f64,
    /// Of the finished index.
    pub bytes: f64,
}

/// Memory of a session that nobody shares with it, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Before it searches.
    pub before: f64,
    /// After its first search.
    pub first: f64,
    /// After all of them.
    pub after: f64,
    /// What the first search took.
    pub first_seconds: f64,
}

impl Table<'_> {
    /// Runs a script in the table's database.
    pub fn ask(&self, script: &str) -> Result<String> {
        self.server.ask(self.database, script)
    }

    /// Builds the index of a method; parallel workers are those that the settings allow.
    pub fn build(&self, method: &Method) -> Result<Built> {
        let create = method.create_index(&self.name, self.metric);
        let (seconds, cpu_seconds) = self.timed(&create)?;
        let size = format!("SELECT pg_relation_size('{}')", method.index(&self.name));
        Ok(Built { seconds, cpu_seconds, bytes: self.server.number(self.database, &size)? })
    }

    /// Drops the index of a method, if there is one.
    pub fn drop_index(&self, method: &Method) -> Result<()> {
        self.ask(&format!("SET client_min_messages = warning; DROP INDEX IF EXISTS {}", method.index(&self.name)))
            .map(drop)
    }

    /// Seconds in the server, and processor seconds of the whole of it, that one statement takes.
    pub fn timed(&self, statement: &str) -> Result<(f64, f64)> {
        let before = self.server.cpu_seconds()?;
        let script = format!(
            "SET client_min_messages = warning; {}
             SELECT clock_timestamp() AS since \\gset
             {statement};
             SELECT extract(epoch FROM clock_timestamp() - :'since'::timestamptz);",
            self.settings
        );
        let printed = self.ask(&script)?;
        let last = printed.lines().last().unwrap_or_default();
        let seconds = last.parse().with_context(|| format!("{statement}\nprints {printed:?}, and no time"))?;
        Ok((seconds, self.server.cpu_seconds()? - before))
    }

    /// Waits until nothing is merged in the background any more; seconds and processor seconds that it took.
    pub fn settle(&self) -> Result<(f64, f64)> {
        let before = self.server.cpu_seconds()?;
        let since = std::time::Instant::now();
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pgrec%'";
        while self.server.number(self.database, busy)? > 0.0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok((since.elapsed().as_secs_f64(), self.server.cpu_seconds()? - before))
    }

    /// Searches once for every query in one session, after some that do not count; answers width by width.
    pub fn search(&self, search: &Search<'_>) -> Result<Vec<Vec<Answer>>> {
        let Search { path, share, order, queries } = *search;
        let (method, widths, planner) = match path {
            Path::Index(method, widths) => (Some(method), widths, "SET enable_seqscan = off;"),
            Path::Exact => (None, &[0][..], "SET enable_indexscan = off;"),
        };
        let mut script = self.opening(method, order, share, planner);
        script.push_str(&self.explain(share));
        let mut warm = false;
        for &width in widths {
            if let Some(method) = method {
                script.push_str(&format!("{};\n", method.set_width(width)));
                if !std::mem::replace(&mut warm, true) {
                    script.push_str(&format!("DO 'BEGIN PERFORM pg_temp.search({WARM_UP}); END';\n"));
                }
            }
            script.push_str(&format!("SELECT * FROM pg_temp.search({queries});\n"));
        }
        script.push_str("ROLLBACK;");

        let printed = self.ask(&script)?;
        // Answers have columns; the plan, before them, has none.
        let (answers, plan): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| line.contains('|'));
        let expected = method.map_or_else(|| "Seq Scan on".to_owned(), |method| self.scan_of(method));
        let plan = plan.join("\n");
        ensure!(plan.contains(&expected), "the plan is not \"{expected}\":\n{plan}");
        let answers = answers.into_iter().map(parse).collect::<Result<Vec<Answer>>>()?;
        let (found, wanted) = (answers.len(), widths.len() * queries);
        ensure!(found == wanted && queries > 0, "{found} answers instead of {wanted}");
        Ok(answers.chunks(queries).map(<[Answer]>::to_vec).collect())
    }

    /// Whether the planner by itself goes through the index of a method.
    pub fn would_use(&self, method: &Method, width: usize, share: u32, order: Order) -> Result<bool> {
        let opening = self.opening(Some(method), Some(order), share, "");
        let plan = self.ask(&format!("{opening} {}; {} ROLLBACK;", method.set_width(width), self.explain(share)))?;
        Ok(plan.contains(&self.scan_of(method)))
    }

    /// Private memory of a session in bytes: before it searches, after its first search, and after as many as there
    /// are queries; and the seconds of the first one, in which the session opens what it needs.
    pub fn memory(&self, method: &Method, width: usize, queries: usize) -> Result<Memory> {
        let look = "SELECT (regexp_match(pg_read_file('/proc/self/status'), 'RssAnon:\\s+(\\d+)'))[1];";
        let script = format!(
            "{} {}; SELECT FROM query; {look}
             SELECT * FROM pg_temp.search(1); {look}
             DO 'BEGIN PERFORM pg_temp.search({queries}); END'; {look} ROLLBACK;",
            self.opening(Some(method), None, UNFILTERED, "SET enable_seqscan = off;"),
            method.set_width(width),
        );
        let printed = self.ask(&script)?;
        let (answers, looks): (Vec<&str>, Vec<&str>) =
            printed.lines().filter(|line| !line.is_empty()).partition(|line| line.contains('|'));
        let bytes: Vec<f64> =
            looks.iter().filter_map(|look| look.parse::<f64>().ok()).map(|kib| kib * 1024.0).collect();
        match (answers.as_slice(), bytes.as_slice()) {
            (&[answer], &[before, first, after]) => {
                Ok(Memory { before, first, after, first_seconds: parse(answer)?.seconds })
            }
            _ => bail!("the memory of a session is {printed:?}"),
        }
    }

    /// Makes the session that searches: settings, the function, and in a transaction the one index that counts.
    fn opening(&self, method: Option<&Method>, order: Option<Order>, share: u32, planner: &str) -> String {
        let Self { name, settings, .. } = self;
        let kept = method.map_or_else(String::new, |method| method.index(name));
        let order =
            method.zip(order).map_or_else(String::new, |(method, order)| format!("{};", method.set_order(order)));
        let statement = self.statement(share, "q.embedding");
        format!(
            "SET client_min_messages = warning; {settings}
             SET max_parallel_workers_per_gather = 0; SET jit = off; SET plan_cache_mode = force_generic_plan;
             {planner} {order}
             CREATE FUNCTION pg_temp.search(queries int)
             RETURNS TABLE (query int, seconds float8, ids text, distances text) LANGUAGE plpgsql AS $body$
             DECLARE q record; since timestamptz; until timestamptz; nearest bigint[]; far float8[];
             BEGIN
                 FOR q IN SELECT * FROM query ORDER BY id LIMIT queries LOOP
                     since := clock_timestamp();
                     SELECT array_agg(n.id), array_agg(n.distance) INTO nearest, far FROM ({statement}) n;
                     until := clock_timestamp();
                     query := q.id;
                     seconds := extract(epoch FROM until - since);
                     ids := array_to_string(nearest, ' ');
                     distances := array_to_string(far, ' ');
                     RETURN NEXT;
                 END LOOP;
             END $body$;
             BEGIN;
             DO $drop$ DECLARE other regclass; BEGIN
                 FOR other IN SELECT indexrelid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                              WHERE indrelid = '{name}'::regclass AND relname <> '{kept}' LOOP
                     EXECUTE format('DROP INDEX %s', other);
                 END LOOP; END $drop$;\n"
        )
    }

    fn explain(&self, share: u32) -> String {
        format!("EXPLAIN (GENERIC_PLAN, COSTS OFF) {};\n", self.statement(share, "$1"))
    }

    /// How a plan says that it goes through the index of a method.
    fn scan_of(&self, method: &Method) -> String {
        format!("Index Scan using {} ", method.index(&self.name))
    }

    fn statement(&self, share: u32, query: &str) -> String {
        let (name, operator) = (&self.name, self.metric.operator());
        let filter = if share == UNFILTERED { String::new() } else { format!(" WHERE t.bucket < {share}") };
        format!(
            "SELECT t.id, t.embedding {operator} {query} AS distance FROM {name} t{filter} \
             ORDER BY t.embedding {operator} {query} LIMIT {K}"
        )
    }
}

/// One row of the function's: `query|seconds|ids|distances`.
fn parse(line: &str) -> Result<Answer> {
    let wrong = || format!("\"{line}\" is no answer");
    let mut columns = line.split('|').skip(1);
    let seconds = columns.next().and_then(|text| text.parse().ok()).with_context(wrong)?;
    let (ids, distances) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
    let pairs = ids.split_whitespace().zip(distances.split_whitespace());
    let found = pairs
        .map(|(id, distance)| Some((id.parse().ok()?, distance.parse().ok()?)))
        .collect::<Option<_>>()
        .with_context(wrong)?;
    Ok(Answer { seconds, found })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_their_order_and_may_be_empty() {
        let answer = parse("7|0.00025|12 3|0.5 1e-05").unwrap();
        assert_eq!(answer, Answer { seconds: 0.00025, found: vec![(12, 0.5), (3, 1e-5)] });
        assert!(parse("7|0.1||").unwrap().found.is_empty());
        assert!(parse("7|x|1|2").is_err() && parse("7|0.1|1|x").is_err());
    }
}
