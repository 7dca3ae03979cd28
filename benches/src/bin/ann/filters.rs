//! Searches among the rows that pass a filter, through the index and by comparing with all of them.

use anyhow::Result;
use xtask::Progress;

use crate::curve::{Answer, Point, fastest, mean};
use crate::method::Order;
use crate::report::{Report, ms};
use crate::sweep::Side;
use crate::table::{Path, Search, UNFILTERED};

/// Rows in a thousand that pass.
const SHARES: [u32; 4] = [UNFILTERED, 100, 10, 1];
/// Every method searches as widely as it takes to reach this recall without a filter.
const RECALL: f64 = 0.95;

/// How often each is measured, in turns; the fastest time of each query counts.
const ROUNDS: usize = 2;

/// Measures all filters; the scans go on until the query has its rows.
pub fn run(sides: &[Side<'_>], queries: usize, progress: &Progress, report: &mut Report) -> Result<()> {
    for share in SHARES {
        let percent = f64::from(share) / 10.0;
        let measured = progress.step(&format!("searching where {percent} % of the rows pass"), |_| {
            Filtered::measure(sides, share, queries)
        })?;
        let truth = fastest(&measured.exact);
        let exact = mean(&truth.iter().map(|answer| answer.seconds).collect::<Vec<f64>>());
        report.result(&format!("filter.{percent}%.exact"), &ms(exact));
        for way in &measured.ways {
            let Point { recall, lowest, seconds, p99, width } = Point::of(way.width, &fastest(&way.rounds), &truth);
            let own = if way.side.table.would_use(way.side.method, width, share, way.order)? { "" } else { "not " };
            report.result(
                &format!("filter.{percent}%.{}.{}", way.side.method.label, way.order.name()),
                &format!(
                    "recall {recall:.4}, lowest {lowest:.1}, {} (p99 {}), {:.2} × as fast as exact; width {width}, {own}the \
                     planner's choice",
                    ms(seconds),
                    ms(p99),
                    exact / seconds,
                ),
            );
        }
    }
    Ok(())
}

/// Answers with one filter.
struct Filtered<'a> {
    /// Of exact search, round by round.
    exact: Vec<Vec<Answer>>,
    ways: Vec<Way<'a>>,
}

/// A method, and the order in which it goes on.
struct Way<'a> {
    side: &'a Side<'a>,
    order: Order,
    width: usize,
    rounds: Vec<Vec<Answer>>,
}

impl<'a> Filtered<'a> {
    fn measure(sides: &'a [Side<'a>], share: u32, queries: usize) -> Result<Self> {
        let ways = sides.iter().flat_map(|side| {
            let width = side.width_for(RECALL);
            Order::ALL.map(|order| Way { side, order, width, rounds: Vec::new() })
        });
        let mut measured = Self { exact: Vec::new(), ways: ways.collect() };
        for _ in 0..ROUNDS {
            if let Some(first) = sides.first() {
                let search = Search { path: Path::Exact, share, order: None, queries };
                measured.exact.push(first.table.search(&search)?.concat());
            }
            for way in &mut measured.ways {
                let path = Path::Index(way.side.method, &[way.width]);
                let search = Search { path, share, order: Some(way.order), queries };
                way.rounds.push(way.side.table.search(&search)?.concat());
            }
        }
        Ok(measured)
    }
}
