//! What the planner is told.

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Cost, IndexPath, PlannerInfo, Selectivity};

use super::options::{self, IndexOptions};

/// Vectors that a search compares with for each candidate it keeps and each neighbour that one has: most neighbours of a
/// candidate were met before.
const MET: f64 = 0.5;

/// Rows of a table that are read in order in the time in which an index gives one out of order, where all is in memory:
/// a walk to it, its vector, its tuple (1.6 to 2.7 µs against .05 to .06 µs, `cargo xtask bench ann`).
const OUT_OF_ORDER: f64 = 35.0;

/// `amcostestimate`.
#[pg_guard]
#[allow(clippy::too_many_arguments, reason = "Postgres' signature")]
pub unsafe extern "C-unwind" fn estimate(
    _root: *mut PlannerInfo,
    path: *mut IndexPath,
    _loops: f64,
    startup: *mut Cost,
    total: *mut Cost,
    selectivity: *mut Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: the planner's own structures; the index is opened under the lock that the planner holds.
    unsafe {
        let info = (*path).indexinfo;
        *selectivity = 1.0;
        *correlation = 0.0;
        *pages = 1.0;
        if (*path).indexorderbys.is_null() {
            // Without an order there is nothing to search for.
            *startup = f64::INFINITY;
            *total = f64::INFINITY;
            // From 18 on a path that is disabled less wins, whatever it costs.
            #[cfg(feature = "pg18")]
            {
                (*path).path.disabled_nodes = 2;
            }
            return;
        }
        let rows = (*info).tuples.max(1.0);
        let index = pg_sys::index_open((*info).indexoid, pg_sys::NoLock as pg_sys::LOCKMODE);
        let index_options = IndexOptions::of(index).segment;
        pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
        let expansion = options::expansion_search().unwrap_or(index_options.expansion_search) as f64;
        let compared = (expansion * 2.0 * index_options.connectivity as f64 * MET).min(rows);
        let table = (*info).rel;
        let (own_random, _) = page_costs((*info).reltablespace);
        let (_, sequential) = page_costs((*table).reltablespace);
        // A row's part of the costs of all pages, so that rows that fill a page each are dear in either order.
        let in_order = pg_sys::cpu_tuple_cost + sequential * f64::from((*table).pages) / (*table).tuples.max(1.0);
        // One page is read for the meta page and some for the chain; segments are in memory.
        *startup = own_random + compared * pg_sys::cpu_operator_cost;
        *total = *startup + rows * OUT_OF_ORDER * in_order;
    }
}

/// What a tablespace's pages cost to read: a random one, and one of a sequence.
fn page_costs(tablespace: pg_sys::Oid) -> (f64, f64) {
    let (mut random, mut sequential) = (0.0, 0.0);
    // SAFETY: a look-up in the cache of tablespaces; invalid means the database's own.
    unsafe { pg_sys::get_tablespace_page_costs(tablespace, &mut random, &mut sequential) };
    (random, sequential)
}
