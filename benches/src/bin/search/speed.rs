//! `rec_search` over a million items against Postgres' own text search and pgvector alone, on the same server: how long each
//! takes, and how often it finds what was looked for. Then the same with a model that knows queries.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use pgrec_benches::{Server, Training};
use xtask::generate::Random;
use xtask::progress::grouped;
use xtask::{Home, Progress};

use super::Arguments;
use super::catalogue::{Catalogue, DIMENSION};

const DATABASE: &str = "search";
const SEED: u64 = 41;
/// Who asks, and how much they have touched.
const EVENTS: usize = 50;
/// Of the filters: so many items of which only these may be found, and of which none may.
const CANDIDATES: usize = 10_000;
const EXCLUDED: usize = 100;

/// The log that a model learns from: so many searches an item, of people who made so many each.
const SEARCHED: f64 = 0.1;
const SEARCHES: usize = 8;

/// A way to answer the query `q` and the vector `v`, as SQL.
struct Way {
    name: &'static str,
    list: String,
}

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    let items = arguments.items;
    let settings =
        [("maintenance_work_mem", "2GB"), ("shared_buffers", "2GB"), ("max_parallel_maintenance_workers", "2")];
    let server = Server::start_with(home, progress, "bench-search", &settings)?;
    let catalogue = Catalogue::new(SEED);
    progress.step(&format!("making up {} items", grouped(items)), |_| load(&server, &catalogue, items))?;
    for (what, statement) in [
        ("indexing words", "CREATE INDEX item_words ON shop.item USING gin (words)"),
        ("indexing vectors", "CREATE INDEX item_near ON shop.item USING usearch (embedding vector_cosine_ops)"),
        ("indexing vectors for pgvector", "CREATE INDEX ON peer USING hnsw (embedding vector_cosine_ops)"),
        ("analysing", "VACUUM ANALYZE"),
    ] {
        progress.step(what, |_| server.ask(DATABASE, statement).map(drop))?;
    }
    let ask = |ways: &[Way], results: &mut Vec<String>| -> Result<()> {
        let printed = progress.step(&format!("asking {} questions", grouped(arguments.asked)), |_| {
            server.ask(DATABASE, &script(&catalogue, items, arguments.asked, ways))
        })?;
        for line in printed.lines() {
            results.push(result(line)?);
        }
        Ok(())
    };
    ask(&ways(), results)?;
    let searches = (items as f64 * SEARCHED) as usize;
    progress
        .step(&format!("making up {} searches", grouped(searches)), |_| log(&server, &catalogue, items, searches))?;
    let training = Training { model: "dual", family: "dual_intent", params: r#"{"epochs": 1}"#, memory: Some("12GB") };
    server.train(progress, DATABASE, &training)?;
    server.ask(DATABASE, "SELECT rec_deploy('dual')")?;
    ask(&ways_by_model(), results)
}

/// People who look for items and find them.
fn log(server: &Server, catalogue: &Catalogue, items: usize, searches: usize) -> Result<()> {
    let columns = "shop.search (user_id, query, item_id, at)";
    server.cluster.copy_in(DATABASE, columns, |rows| {
        let mut random = Random::new(SEED + 2);
        (0..searches).try_for_each(|hour| {
            let item = 1 + random.below(items);
            let words = catalogue.question(item, &mut random).0;
            let day = 1 + hour / 24 % 28;
            writeln!(
                rows,
                "{}\t{words}\t{item}\t2000-01-{day:02} {:02}:00",
                2 + random.below(searches / SEARCHES),
                hour % 24
            )
        })
    })?;
    let statement =
        "INSERT INTO shop.interaction (user_id, item_id, at) SELECT user_id, item_id, at FROM shop.search; ANALYZE";
    server.ask(DATABASE, statement).map(drop)
}

fn load(server: &Server, catalogue: &Catalogue, items: usize) -> Result<()> {
    server.cluster.psql(&format!("CREATE DATABASE {DATABASE}"))?;
    server.ask(
        DATABASE,
        &format!(
            "SET client_min_messages = warning; CREATE EXTENSION pgrec CASCADE;
             SELECT rec_create('shop', dimension => {DIMENSION}, search_config => 'simple'); DROP INDEX shop.item_words;
             INSERT INTO shop.interaction (user_id, item_id)
                SELECT 1, 1 + (n * 7919) % {items} FROM generate_series(1, {EVENTS}) n"
        ),
    )?;
    server.cluster.copy_in(DATABASE, "shop.item (item_id, title, embedding)", |rows| catalogue.rows(items, rows))?;
    server.ask(DATABASE, "CREATE TABLE peer AS SELECT item_id, embedding FROM shop.item").map(drop)
}

fn way(name: &'static str, list: &str) -> Way {
    Way { name, list: list.to_owned() }
}

/// Where a model is deployed that knows queries.
fn ways_by_model() -> Vec<Way> {
    vec![
        way("by_model.rec_search.words_and_vector", "SELECT item_id FROM rec_search(1, q, 10, v)"),
        way("by_model.rec_search.words", "SELECT item_id FROM rec_search(1, q, 10)"),
        way("by_model.rec_next", "SELECT item_id FROM rec_next(1, 10)"),
    ]
}

fn ways() -> Vec<Way> {
    vec![
        way("rec_search.words_and_vector", "SELECT item_id FROM rec_search(1, q, 10, v)"),
        way("rec_search.words", "SELECT item_id FROM rec_search(1, q, 10)"),
        way("rec_search.vector", "SELECT item_id FROM rec_search(1, NULL, 10, v)"),
        way(
            "rec_search.words_and_vector.unseen",
            "SELECT item_id FROM rec_search(1, q, 10, v, exclude => excluded, exclude_seen => true)",
        ),
        way(
            "rec_search.words_and_vector.candidates",
            "SELECT item_id FROM rec_search(1, q, 10, v, candidates => candidates)",
        ),
        way(
            "postgres.words",
            "SELECT item_id FROM shop.item, plainto_tsquery('simple', q) AS query WHERE words @@ query \
             ORDER BY ts_rank(words, query) DESC LIMIT 10",
        ),
        way("pgvector", "SELECT item_id FROM peer ORDER BY embedding <=> v::vector LIMIT 10"),
    ]
}

/// Asks every question in every way, once to warm up and once timed, and prints a line a way.
fn script(catalogue: &Catalogue, items: usize, asked: usize, ways: &[Way]) -> String {
    let mut random = Random::new(SEED + 1);
    let mut script = String::from(
        "CREATE TEMP TABLE question (target bigint, q text, v real[], candidates bigint[], excluded bigint[]);
         CREATE TEMP TABLE took (way text, place integer, ms float8, rank integer);\n",
    );
    for _ in 0..asked {
        let item = 1 + random.below(items);
        let (words, vector) = catalogue.question(item, &mut random);
        let vector = vector.replace('[', "{").replace(']', "}");
        let _ = writeln!(script, "INSERT INTO question VALUES ({item}, '{words}', '{vector}');");
    }
    // The one that is looked for is among those that may be found.
    let _ = writeln!(
        script,
        "UPDATE question SET
             candidates = ARRAY(SELECT 1 + (n * 104729 + target - 1) % {items} FROM generate_series(0, {CANDIDATES}) n),
             excluded = ARRAY(SELECT 1 + (n * 15485863) % {items} FROM generate_series(1, {EXCLUDED}) n);"
    );
    for (place, Way { name, list, .. }) in ways.iter().enumerate() {
        let _ = write!(
            script,
            "CREATE FUNCTION pg_temp.way_{place}(target bigint, q text, v real[], candidates bigint[], excluded bigint[]) RETURNS SETOF bigint LANGUAGE sql AS $$ {list} $$;
             DO $$
             DECLARE
                 asked record; begun timestamptz; listed bigint[];
             BEGIN
                 FOR asked IN SELECT * FROM question LIMIT 20 LOOP
                     PERFORM pg_temp.way_{place}(asked.target, asked.q, asked.v, asked.candidates, asked.excluded);
                 END LOOP;
                 FOR asked IN SELECT * FROM question LOOP
                     begun := clock_timestamp();
                     listed := ARRAY(SELECT pg_temp.way_{place}(asked.target, asked.q, asked.v, asked.candidates, asked.excluded));
                     INSERT INTO took VALUES ('{name}', {place}, 1000 * extract(epoch FROM clock_timestamp() - begun),
                         array_position(listed, asked.target));
                 END LOOP;
             END $$;\n"
        );
    }
    script
        + "SELECT way, percentile_cont(.5) WITHIN GROUP (ORDER BY ms), percentile_cont(.99) WITHIN GROUP (ORDER BY ms), max(ms),
               avg((rank IS NOT NULL)::integer), avg(coalesce(1.0 / rank, 0)) FROM took GROUP BY way, place ORDER BY place"
}

fn result(line: &str) -> Result<String> {
    let fields: Vec<&str> = line.split('|').collect();
    let [way, numbers @ ..] = fields.as_slice() else { return Err(anyhow::anyhow!("{line}")) };
    let numbers: Vec<f64> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    let [median, most, worst, hit, reciprocal] = numbers[..] else {
        return Err(anyhow::anyhow!("{line}")).context("five numbers");
    };
    Ok(format!(
        "RESULT search.speed.{way} median {median:.2} ms, 99 % {most:.2} ms, worst {worst:.1} ms; found among ten {hit:.3}, \
         reciprocal rank {reciprocal:.3}"
    ))
}
