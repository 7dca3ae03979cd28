//! Tables that change: rows inserted at once and one by one, a tenth more of them, many more, a fifth removed.

use anyhow::Result;
use xtask::Progress;

use crate::curve::Answer;
use crate::method::Method;
use crate::report::{Report, rate};
use crate::sweep::{Side, Sweep};
use crate::table::{Path, Search, Table, UNFILTERED};

/// The share of the rows that are there when the index is built.
const START: f64 = 0.7;
/// How much more of that is inserted before the first search, half of it one by one.
const DELTA: f64 = 0.1;

/// Ids in the order in which rows come.
struct Stages {
    start: usize,
    at_once: usize,
    one_by_one: usize,
    all: usize,
}

impl Stages {
    fn of(rows: usize) -> Self {
        let start = (rows as f64 * START) as usize;
        let delta = (start as f64 * DELTA) as usize;
        Self { start, at_once: start + delta / 2, one_by_one: start + delta, all: rows }
    }
}

/// Measures changes of copies of a table, one for each method.
pub fn run(
    base: &Table<'_>,
    methods: &[&Method],
    rows: usize,
    sweep: &Sweep<'_>,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let stages = Stages::of(rows);
    let mut sides = Vec::new();
    for (place, &method) in methods.iter().enumerate() {
        let table = Table { name: format!("item_{place}"), ..base.clone() };
        progress.step(&format!("another table for {}", method.label), |_| prepare(base, &table, method, &stages))?;
        sides.push(Side { method, table, curve: Vec::new() });
    }

    for side in &sides {
        let what = format!("inserting {} % into {}", 100.0 * DELTA, side.method.label);
        let text = progress.step(&what, |_| first_inserts(base, side, &stages))?;
        report.result(&format!("insert.{}.few", side.method.label), &text);
    }
    searches("delta", &mut sides, sweep, progress, report)?;

    let mut inserted = Vec::new();
    for side in &sides {
        let what = format!("inserting the rest into {}", side.method.label);
        inserted.push(progress.step(&what, |_| Inserted::measure(base, side, &stages))?);
    }
    let peer = sides.iter().zip(&inserted).find(|(side, _)| side.method.is_peer()).map(|(_, inserted)| inserted);
    for (side, inserted) in sides.iter().zip(&inserted) {
        let peer = peer.filter(|_| !side.method.is_peer());
        report.result(&format!("insert.{}.many", side.method.label), &inserted.text(peer));
    }
    searches("grown", &mut sides, sweep, progress, report)?;

    for side in &sides {
        side.table.ask(&format!("DELETE FROM {} WHERE id % 5 = 0", side.table.name))?;
    }
    searches("deleted", &mut sides, sweep, progress, report)?;
    for side in &sides {
        let text = progress.step(&format!("VACUUM of {}", side.method.label), |_| vacuum(side))?;
        report.result(&format!("vacuum.{}", side.method.label), &text);
    }
    searches("vacuumed", &mut sides, sweep, progress, report)?;

    for side in &sides {
        side.table.ask(&format!("DROP TABLE {}", side.table.name))?;
    }
    Ok(())
}

/// A copy of the first rows, with an index.
fn prepare(base: &Table<'_>, table: &Table<'_>, method: &Method, stages: &Stages) -> Result<()> {
    let (name, from, start) = (&table.name, &base.name, stages.start);
    table.ask(&format!(
        "CREATE TABLE {name} (LIKE {from}); INSERT INTO {name} SELECT * FROM {from} WHERE id < {start};
         VACUUM ANALYZE {name}"
    ))?;
    table.build(method).map(drop)
}

fn first_inserts(base: &Table<'_>, side: &Side<'_>, stages: &Stages) -> Result<String> {
    let (name, from) = (&side.table.name, &base.name);
    let Stages { start, at_once, one_by_one, .. } = *stages;
    let statement = format!("INSERT INTO {name} SELECT * FROM {from} WHERE id >= {start} AND id < {at_once}");
    let (together, together_cpu) = side.table.timed(&statement)?;
    let (each, each_cpu) = side.table.timed(&format!(
        "DO $$ DECLARE r {from}; BEGIN
             FOR r IN SELECT * FROM {from} WHERE id >= {at_once} AND id < {one_by_one} LOOP
                 INSERT INTO {name} VALUES (r.id, r.bucket, r.embedding); END LOOP; END $$"
    ))?;
    Ok(format!(
        "{} rows/s in one statement ({together_cpu:.2} s of processors), {} rows/s one by one ({each_cpu:.2} s){}",
        rate(at_once - start, together),
        rate(one_by_one - at_once, each),
        state(side)?
    ))
}

/// What it took to insert until the table was whole, with everything that follows.
struct Inserted {
    rows: usize,
    /// Of the statement.
    seconds: f64,
    /// Of merges that still went on in the background.
    settling: f64,
    /// Of the VACUUM after it.
    tidying: f64,
    /// Processor seconds of all that.
    cpu_seconds: f64,
    state: String,
}

impl Inserted {
    fn measure(base: &Table<'_>, side: &Side<'_>, stages: &Stages) -> Result<Self> {
        let (name, from) = (&side.table.name, &base.name);
        let Stages { one_by_one, all, .. } = *stages;
        let statement = format!("INSERT INTO {name} SELECT * FROM {from} WHERE id >= {one_by_one}");
        let (seconds, cpu) = side.table.timed(&statement)?;
        let (settling, settling_cpu) = side.table.settle()?;
        let (tidying, tidying_cpu) = side.table.timed(&format!("VACUUM {name}"))?;
        let cpu_seconds = cpu + settling_cpu + tidying_cpu;
        Ok(Self { rows: all - one_by_one, seconds, settling, tidying, cpu_seconds, state: state(side)? })
    }

    fn total(&self) -> f64 {
        self.seconds + self.settling + self.tidying
    }

    /// One line, with how much faster than a peer that inserted the same.
    fn text(&self, peer: Option<&Self>) -> String {
        let Self { rows, seconds, settling, tidying, cpu_seconds, state } = self;
        let times = |of: fn(&Self) -> f64| {
            peer.map_or_else(String::new, |peer| format!(" ({:.2} × hnsw)", of(peer) / of(self)))
        };
        format!(
            "{} rows/s{} with all that follows, {} rows a processor second{}; {rows} rows in {seconds:.2} s, in the \
             background {settling:.2} s more, VACUUM {tidying:.2} s{state}",
            rate(*rows, self.total()),
            times(Self::total),
            rate(*rows, *cpu_seconds),
            times(|inserted| inserted.cpu_seconds),
        )
    }
}

fn vacuum(side: &Side<'_>) -> Result<String> {
    let (seconds, cpu) = side.table.timed(&format!("VACUUM {}", side.table.name))?;
    let (settling, settling_cpu) = side.table.settle()?;
    let cpu = cpu + settling_cpu;
    Ok(format!("{seconds:.2} s, in the background {settling:.2} s more, {cpu:.2} s of processors{}", state(side)?))
}

/// Speeds on the tables as they are, which all have the same rows.
fn searches(
    when: &str,
    sides: &mut [Side<'_>],
    sweep: &Sweep<'_>,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    let Some(first) = sides.first() else { return Ok(()) };
    let exact = Search { path: Path::Exact, share: UNFILTERED, order: None, queries: sweep.queries };
    let truth: Vec<Answer> = progress.step("comparing with all rows", |_| Ok(first.table.search(&exact)?.concat()))?;
    sweep.run(when, sides, &truth, progress, report)
}

/// What an index says about itself, to stand at the end of a line.
fn state(side: &Side<'_>) -> Result<String> {
    let state = side.method.state(&side.table.name).map(|query| side.table.ask(&query)).transpose()?;
    Ok(state.map_or_else(String::new, |state| format!("; {state}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_first_rows_comes_before_the_rest() {
        let Stages { start, at_once, one_by_one, all } = Stages::of(100_000);
        assert_eq!([start, at_once, one_by_one, all], [70_000, 73_500, 77_000, 100_000]);
    }
}
