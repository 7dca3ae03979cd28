//! Recall and speed by the width of the search.

use anyhow::Result;
use xtask::Progress;

use crate::curve::{Answer, Point, fastest, speed_at};
use crate::method::Method;
use crate::report::Report;
use crate::table::{Path, Search, Table, UNFILTERED};

/// Recalls at which speeds are compared.
pub const RECALLS: [f64; 3] = [0.90, 0.95, 0.99];

/// A method, and the table that has its index.
pub struct Side<'a> {
    /// The method.
    pub method: &'a Method,
    /// The table; several methods may have the same.
    pub table: Table<'a>,
    /// Recall and speed as they were measured last, by width.
    pub curve: Vec<Point>,
}

/// How speeds are measured.
#[derive(Debug, Clone, Copy)]
pub struct Sweep<'a> {
    /// Widths of the search.
    pub widths: &'a [usize],
    /// How often the methods take turns; the fastest time of each query counts.
    pub rounds: usize,
    /// How many queries.
    pub queries: usize,
}

impl Side<'_> {
    /// The narrowest of the measured widths that reaches a recall; the widest where none does.
    pub fn width_for(&self, recall: f64) -> usize {
        let reaching = self.curve.iter().find(|point| point.recall >= recall);
        reaching.or(self.curve.last()).map_or(100, |point| point.width)
    }
}

impl Sweep<'_> {
    /// Measures all sides in turns and prints what came out; `when` names the state that the tables are in.
    pub fn run(
        &self,
        when: &str,
        sides: &mut [Side<'_>],
        truth: &[Answer],
        progress: &Progress,
        report: &mut Report,
    ) -> Result<()> {
        // By side, then by width, then by round.
        let mut answers: Vec<Vec<Vec<Vec<Answer>>>> = vec![vec![Vec::new(); self.widths.len()]; sides.len()];
        for round in 0..self.rounds.max(1) {
            let mut order: Vec<usize> = (0..sides.len()).collect();
            order.rotate_left(round % sides.len().max(1));
            for place in order {
                let side = &sides[place];
                let what = format!("searching {when}, round {}: {}", round + 1, side.method.label);
                let search = Search {
                    path: Path::Index(side.method, self.widths),
                    share: UNFILTERED,
                    order: None,
                    queries: self.queries,
                };
                let of_round = progress.step(&what, |_| side.table.search(&search))?;
                answers[place].iter_mut().zip(of_round).for_each(|(rounds, round)| rounds.push(round));
            }
        }
        for (side, answers) in sides.iter_mut().zip(&answers) {
            let by_width = self.widths.iter().zip(answers);
            side.curve = by_width.map(|(&width, rounds)| Point::of(width, &fastest(rounds), truth)).collect();
        }
        print(sides);
        results(when, sides, report);
        Ok(())
    }
}

fn print(sides: &[Side<'_>]) {
    println!(
        "    {:<24} {:>5} {:>8} {:>7} {:>10} {:>9} {:>9}",
        "", "width", "recall", "lowest", "queries/s", "mean", "p99"
    );
    for side in sides {
        for point in &side.curve {
            let Point { width, recall, lowest, seconds, p99 } = point;
            println!(
                "    {:<24} {width:>5} {recall:>8.4} {lowest:>7.1} {:>10.0} {:>6.3} ms {:>6.3} ms",
                side.method.label,
                point.qps(),
                1e3 * seconds,
                1e3 * p99
            );
        }
    }
}

fn results(when: &str, sides: &[Side<'_>], report: &mut Report) {
    for recall in RECALLS {
        let peer = sides.iter().find(|side| side.method.is_peer()).and_then(|side| speed_at(&side.curve, recall));
        for side in sides {
            let key = format!("{when}.{}.qps@{recall:.2}", side.method.label);
            let Some(speed) = speed_at(&side.curve, recall) else {
                report.result(&key, "not reached");
                continue;
            };
            let times = peer.filter(|_| !side.method.is_peer());
            let times = times.map_or_else(String::new, |peer| format!(", {:.2} × hnsw", speed.qps / peer.qps));
            report.result(&key, &format!("{:.0} queries/s{times}, lowest recall {:.1}", speed.qps, speed.lowest));
        }
    }
}
