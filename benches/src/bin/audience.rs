//! Who may want an item, among a million users, and what is near to a user: time and recall of the index against exact search.

use anyhow::{Context, Result};
use clap::Parser;
use pgrec_benches::{Server, Training};
use xtask::generate::Shop;
use xtask::progress::grouped;
use xtask::{Dataset, Home, Progress};

const DATABASE: &str = "audience";

/// Audiences of items and neighbours of users by index, against exact search.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench audience", bin_name = "cargo xtask bench audience")]
struct Arguments {
    /// Users of the generated shop
    #[arg(long, default_value_t = 1_000_000)]
    users: usize,
    /// Its items
    #[arg(long, default_value_t = 20_000)]
    items: usize,
    /// Events a user, on average
    #[arg(long, default_value_t = 6)]
    events: usize,
    /// Parameters of the training, as a JSON object
    #[arg(long, default_value = r#"{"epochs": 2}"#)]
    params: String,
    /// Items whose audiences, and users whose neighbours are asked for
    #[arg(long, default_value_t = 100)]
    asked: usize,
    /// usearch.expansion_search of the session; 0: the indexes' own
    #[arg(long, default_values_t = [0])]
    expansion: Vec<usize>,
    /// Length of the lists
    #[arg(long, default_value_t = 50)]
    k: usize,
}

/// The distances of a list by index and of the same by comparing all, as SQL of a subject `s`.
struct Contest {
    name: &'static str,
    subjects: String,
    index: String,
    exact: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let home = Home::locate()?;
    let progress = Progress::new();
    let &Arguments { users, items, events, k, asked, .. } = &arguments;
    let server = Server::start_with(&home, &progress, "bench-audience", &[("maintenance_work_mem", "1GB")])?;
    let interactions = users * events;
    let data = progress.step(&format!("making up {} interactions", grouped(interactions)), |_| {
        Ok(Dataset::generated(&Shop {
            users,
            items,
            events: interactions,
            dimension: 0,
            clusters: 100,
            ..Shop::default()
        }))
    })?;
    server.load(&progress, DATABASE, &data)?;
    drop(data);
    server.train(
        &progress,
        DATABASE,
        &Training { model: "space", family: "cml", params: &arguments.params, memory: None },
    )?;
    let seconds = progress.step("publishing vectors", |_| {
        server.ask(DATABASE, "SELECT rec_deploy('space')")?;
        let timed = "SET client_min_messages = warning; SELECT clock_timestamp() AS begun \\gset
            SELECT * FROM rec_publish_vectors() \\g /dev/null
            SELECT extract(epoch FROM clock_timestamp() - :'begun'::timestamptz)";
        server.number(DATABASE, timed)
    })?;
    println!("RESULT audience.publish {seconds:.0} s for {} users and {} items", grouped(users), grouped(items));
    server.ask(DATABASE, "VACUUM ANALYZE")?;

    let of_item = "(SELECT embedding FROM item_vector WHERE item_id = s)";
    let some_items = format!("SELECT item_id FROM item_vector ORDER BY hashint8(item_id) LIMIT {asked}");
    let some_users = format!("SELECT user_id FROM user_vector ORDER BY hashint8(user_id) LIMIT {asked}");
    let contests = [
        Contest {
            name: "audience",
            subjects: some_items.clone(),
            index: format!("SELECT distance FROM rec_audience(s, {k}, exclude_seen => false)"),
            exact: format!("SELECT embedding <-> {of_item} FROM user_vector ORDER BY 1 LIMIT {k}"),
        },
        Contest {
            name: "audience of the new",
            subjects: some_items,
            index: format!("SELECT distance FROM rec_audience(s, {k})"),
            exact: format!(
                "SELECT embedding <-> {of_item} FROM user_vector v
                 WHERE NOT EXISTS (SELECT FROM interaction i WHERE i.user_id = v.user_id AND i.item_id = s)
                 ORDER BY 1 LIMIT {k}"
            ),
        },
        Contest {
            name: "near",
            subjects: some_users,
            index: format!("SELECT distance FROM rec_near(s, {k}, exclude_seen => false)"),
            exact: format!("SELECT embedding <-> (SELECT rec_encode(s)) FROM item_vector ORDER BY 1 LIMIT {k}"),
        },
    ];
    for expansion in &arguments.expansion {
        for contest in &contests {
            let measured =
                progress.step(&format!("asking for {}", contest.name), |_| measure(&server, contest, *expansion))?;
            println!("RESULT audience.{}.{expansion} {measured}", contest.name.replace(' ', "_"));
        }
    }
    Ok(())
}

/// Recall of the lists by index (as near as the farthest of the exact list), and how long both take, as a session that has asked once sees it.
fn measure(server: &Server, contest: &Contest, expansion: usize) -> Result<String> {
    let Contest { subjects, index, exact, .. } = contest;
    let script = format!(
        "SET usearch.expansion_search = {expansion};
         CREATE TEMP TABLE found (subject bigint, way text, listed float8[], ms float8);
         CREATE FUNCTION pg_temp.by_index(s bigint) RETURNS SETOF float8 LANGUAGE sql AS $$ {index} $$;
         CREATE FUNCTION pg_temp.exactly(s bigint) RETURNS SETOF float8 LANGUAGE sql AS $$ {exact} $$
             SET enable_indexscan = off SET enable_hashjoin = off SET enable_mergejoin = off;
         DO $$
         DECLARE
             s bigint; begun timestamptz; listed float8[];
         BEGIN
             FOR s IN {subjects} LOOP
                 PERFORM pg_temp.by_index(s);
                 begun := clock_timestamp();
                 listed := ARRAY(SELECT pg_temp.by_index(s));
                 INSERT INTO found VALUES (s, 'index', listed, 1000 * extract(epoch FROM clock_timestamp() - begun));
                 begun := clock_timestamp();
                 listed := ARRAY(SELECT pg_temp.exactly(s));
                 INSERT INTO found VALUES (s, 'exact', listed, 1000 * extract(epoch FROM clock_timestamp() - begun));
             END LOOP;
         END $$;
         SELECT (SELECT avg((SELECT count(*) FROM unnest(i.listed) d WHERE d <= e.listed[cardinality(e.listed)] + 1e-6)::float8
                            / cardinality(e.listed))
                 FROM found i JOIN found e USING (subject) WHERE i.way = 'index' AND e.way = 'exact'),
             percentile_cont(.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE way = 'index'),
             percentile_cont(.95) WITHIN GROUP (ORDER BY ms) FILTER (WHERE way = 'index'),
             percentile_cont(.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE way = 'exact') FROM found;"
    );
    let printed = server.ask(DATABASE, &script)?;
    let numbers: Vec<f64> = printed.trim().split('|').filter_map(|number| number.parse().ok()).collect();
    let [recall, median, most, exact] = numbers[..] else {
        return Err(anyhow::anyhow!("{printed}")).context("four numbers");
    };
    Ok(format!(
        "recall {recall:.4}, median {median:.2} ms, 95 % {most:.2} ms; exact {exact:.1} ms, {:.0} x",
        exact / median
    ))
}
