//! How a search moves what is recommended next, and how that wears off: ml-1m with searches derived from what people watched.
//!
//! Nobody made these searches (`tests/derived/searches.py` does), and the data has an order but no times: an hour an event
//! stands for it.

use std::process::Command;

use anyhow::Result;
use pgrec_benches::{Server, Training, folder_of, real};
use xtask::process::captured;
use xtask::{Dataset, Home, Progress};

use super::Arguments;

const DATABASE: &str = "fresh";
/// Genres that are searched for.
const GENRES: [&str; 5] = ["Horror", "Western", "Musical", "War", "Animation"];
/// Users who search.
const USERS: usize = 100;
/// How many films are watched after the search.
const LATER: [usize; 5] = [0, 1, 2, 4, 8];
const K: usize = 10;

pub fn run(home: &Home, progress: &Progress, arguments: &Arguments, results: &mut Vec<String>) -> Result<()> {
    let (Some(folder), Some(data)) = (folder_of(home, "ml-1m"), real(home, progress, "ml-1m")?) else { return Ok(()) };
    let searches = progress.step("deriving searches", |_| {
        let script = home.repository().join("tests/derived/searches.py");
        captured(Command::new("python3").arg(script).arg(&folder), "deriving searches")
    })?;
    let server = Server::start(home, progress, "bench-fresh")?;
    progress.step("loading", |_| load(&server, &data, &searches))?;
    let training = Training { model: "dual", family: "dual_intent", params: &arguments.contest.params, memory: None };
    let cost = server.train(progress, DATABASE, &training)?;
    server.ask(DATABASE, "SELECT rec_deploy('dual')")?;
    let printed = progress.step("searching and watching", |_| server.ask(DATABASE, &script()))?;
    for line in printed.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [later, without, with, users] = fields[..] else { anyhow::bail!("{line}") };
        results.push(format!(
            "RESULT search.fresh.after_{later} share of the genre among {K}: {without} without the search, {with} with it \
             ({users} searches, derived; learnt in {:.0} s)",
            cost.seconds
        ));
    }
    Ok(())
}

fn load(server: &Server, data: &Dataset, searches: &str) -> Result<()> {
    server.cluster.psql(&format!("CREATE DATABASE {DATABASE}"))?;
    server.ask(
        DATABASE,
        "SET client_min_messages = warning; CREATE EXTENSION pgrec CASCADE;
         CREATE TABLE visit (user_id bigint, item_id bigint, position bigint, at timestamptz);
         CREATE TABLE asked (user_id bigint, position bigint, query text, item_id bigint, at timestamptz);
         CREATE TABLE film (item_id bigint PRIMARY KEY, title text, genres text[],
             words tsvector GENERATED ALWAYS AS (to_tsvector('english', title)) STORED)",
    )?;
    let cluster = &server.cluster;
    cluster.copy_in(DATABASE, "visit (user_id, item_id, position)", |out| {
        let mut rows = data.interactions.iter();
        rows.try_for_each(|event| {
            writeln!(out, "{}\t{}\t{}", event.user_id, event.item_id, event.position.unwrap_or_default())
        })
    })?;
    cluster.copy_in(DATABASE, "film (item_id, title, genres)", |out| {
        for item in &data.items {
            let genres = item.attributes.iter().map(|genre| format!("\"{genre}\"")).collect::<Vec<_>>().join(",");
            writeln!(out, "{}\t{}\t{{{genres}}}", item.item_id, item.title.replace('\\', ""))?;
        }
        Ok(())
    })?;
    cluster.copy_in(DATABASE, "asked (user_id, position, query, item_id)", |out| {
        searches.lines().skip(1).try_for_each(|line| writeln!(out, "{line}"))
    })?;
    server
        .ask(
            DATABASE,
            "SET client_min_messages = warning;
             UPDATE visit SET at = timestamptz '2000-01-01 00:00 UTC' + position * interval '1 hour';
             UPDATE asked SET at = timestamptz '2000-01-01 00:00 UTC' + position * interval '1 hour' - interval '30 minutes';
             CREATE INDEX ON visit (user_id, at); CREATE INDEX ON asked (user_id, at); VACUUM FULL ANALYZE;
             SELECT rec_create('shop', 'visit', items => 'film', title_column => 'title', text_column => 'words',
                 time_column => 'at', searches => 'asked', search_config => 'english')",
        )
        .map(drop)
}

fn script() -> String {
    let genres = GENRES.map(|genre| format!("'{genre}'")).join(", ");
    let later = LATER.map(|n| n.to_string()).join(", ");
    let most = LATER[LATER.len() - 1];
    format!(
        "CREATE TEMP TABLE moved (later integer, without float8, with_it float8);
         CREATE FUNCTION pg_temp.share(u bigint, g text) RETURNS float8 LANGUAGE sql AS $$
             SELECT avg((g = ANY (f.genres))::integer) FROM rec_next(u, {K}) JOIN film f USING (item_id) $$;
         DO $$
         DECLARE
             u bigint; g text; n integer; seen timestamptz; without float8;
         BEGIN
             FOR u IN SELECT user_id FROM visit GROUP BY 1 ORDER BY hashint8(user_id) LIMIT {USERS} LOOP
                 FOREACH g IN ARRAY ARRAY[{genres}] LOOP
                     SELECT max(at) INTO seen FROM visit WHERE user_id = u;
                     FOR n IN 0 .. {most} LOOP
                         IF n > 0 THEN
                             -- Films that have nothing to do with what is searched for.
                             INSERT INTO visit (user_id, item_id, at) SELECT u, item_id, seen + n * interval '1 hour' FROM film
                             WHERE NOT g = ANY (genres) ORDER BY hashint8(item_id * 131 + n + u) LIMIT 1;
                         END IF;
                         IF n = ANY (ARRAY[{later}]) THEN
                             without := pg_temp.share(u, g);
                             INSERT INTO asked (user_id, query, at) VALUES (u, g, seen + interval '30 minutes');
                             INSERT INTO moved VALUES (n, without, pg_temp.share(u, g));
                             DELETE FROM asked WHERE user_id = u AND at = seen + interval '30 minutes';
                         END IF;
                     END LOOP;
                     DELETE FROM visit WHERE user_id = u AND at > seen;
                 END LOOP;
             END LOOP;
         END $$;
         SELECT later, round(avg(without)::numeric, 3), round(avg(with_it)::numeric, 3), count(*) FROM moved GROUP BY 1 ORDER BY 1"
    )
}
