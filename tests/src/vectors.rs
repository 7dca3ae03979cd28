//! A table of vectors with an index of the access method `usearch`, and whether the two agree.

use crate::Database;

/// Numbers of a vector of [`VECTORS`]: so many that a thousand rows are sealed into a segment.
pub const DIM: usize = 512;

/// The functions that make vectors, and the empty table `t (id, grp, v)` with the index `t_v`.
pub const VECTORS: &str = "
    CREATE FUNCTION make_vector(seed bigint, dim int) RETURNS real[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT array_agg((hashint8extended(seed, i) % 1000) / 1000.0 + (hashint8extended(seed % 7, i) % 1000) / 500.0)
            FROM generate_series(1, dim) i)::real[];
    CREATE TABLE t (id bigint PRIMARY KEY, grp int, v vector(512));
    CREATE INDEX t_v ON t USING usearch (v vector_l2_ops) WITH (connectivity = 8, expansion_add = 24);";

/// A statement that inserts rows `from ..= to`.
#[must_use]
pub fn insert(from: usize, to: usize) -> String {
    format!("INSERT INTO t SELECT i, i % 100, make_vector(i, {DIM}) FROM generate_series({from}, {to}) i")
}

/// All rows that a search through the index gives, the nearest ten in order, and their number.
const THROUGH_INDEX: &str = "
    SET enable_seqscan = off; SET enable_sort = off; SET usearch.iterative_scan = relaxed_order;
    WITH found AS MATERIALIZED (SELECT id FROM t ORDER BY v <-> make_vector(3, 512)::vector(512) LIMIT 1000000)
    SELECT count(*), count(DISTINCT id), md5(string_agg(id::text, ',' ORDER BY id)) FROM found";

const THROUGH_TABLE: &str = "
    SET enable_indexscan = off;
    SELECT count(*), count(DISTINCT id), md5(string_agg(id::text, ',' ORDER BY id)) FROM t WHERE v IS NOT NULL";

/// Checks that the index has exactly the rows of the table, that near ones come first, and that it is in use.
///
/// # Panics
/// When it is not so; `when` says after what.
pub fn check_index(database: &Database<'_>, when: &str) {
    let plan = database.ask(
        "SET enable_seqscan = off; EXPLAIN (COSTS off) SELECT id FROM t ORDER BY v <-> make_vector(3, 512)::vector(512)",
    );
    assert!(plan.contains("using t_v"), "{when}: {plan}");
    assert_eq!(database.ask(THROUGH_INDEX), database.ask(THROUGH_TABLE), "{when}: the index and the table disagree");
    let rows: f64 = database.ask("SELECT count(v) FROM t").parse().unwrap();
    if rows > 100.0 {
        let recall: f64 = database.ask("SELECT recall FROM rec_index_recall('t_v', 20)").parse().unwrap();
        // The vectors are hashes: hard to tell apart, and the graphs are thin.
        assert!(recall > 0.75, "{when}: recall {recall}");
    }
}
