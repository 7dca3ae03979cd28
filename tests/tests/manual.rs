//! psql is the manual: everything the extension installs says what it is, and is what it says.
#![allow(clippy::unwrap_used)]

use pgrec_tests::each_database;

/// Functions and procedures of the extension.
const FUNCTIONS: &str = "SELECT p.oid FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid \
    AND d.deptype = 'e' JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'pgrec'";

#[test]
fn every_function_has_a_comment() {
    each_database(|database| {
        let silent = database.ask(&format!(
            "SELECT oid::regprocedure FROM pg_proc WHERE oid IN ({FUNCTIONS}) AND obj_description(oid, 'pg_proc') IS NULL"
        ));
        assert_eq!(silent, "");
        let typed = database.ask(
            "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'shop'::regnamespace \
             AND obj_description(oid, 'pg_proc') IS NULL",
        );
        assert_eq!(typed, "");
        assert_ne!(database.ask("SELECT count(*) FROM pg_proc WHERE pronamespace = 'shop'::regnamespace"), "0");
    });
}

#[test]
fn every_relation_and_column_has_a_comment() {
    each_database(|database| {
        let silent = database.ask(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
             WHERE c.relnamespace IN ('rec'::regnamespace, 'shop'::regnamespace) AND c.relkind IN ('r', 'v') \
             AND NOT a.attisdropped \
             AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)",
        );
        assert_eq!(silent, "");
    });
}

#[test]
fn the_extension_owns_nothing_of_the_application() {
    each_database(|database| {
        let owned = database.ask(
            "SELECT pg_describe_object(classid, objid, 0) FROM pg_depend WHERE deptype = 'e' \
             AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgrec')",
        );
        assert!(owned.contains("table rec.model"));
        let others: Vec<&str> = owned.lines().filter(|line| line.contains("shop")).collect();
        assert_eq!(others, Vec::<&str>::new());
        let answers = database.ask("SELECT count(*) FROM shop.interaction");
        database.run("DROP EXTENSION pgrec CASCADE");
        assert_eq!(answers, database.ask("SELECT count(*) FROM shop.interaction"), "DROP EXTENSION touched a table");
        database.run("CREATE EXTENSION pgrec");
        database.run(
            "SELECT rec_drop('shop') WHERE false; \
             SELECT rec_create('again', interactions => 'shop.interaction', time_column => 'at', items => 'shop.item')",
        );
    });
}

/// A declaration that disagrees with the library reads arguments that are not there.
#[test]
fn every_function_survives_nulls_and_empty_arrays() {
    each_database(|database| {
        let calls = |value: &str| {
            database.ask(&format!(
                "SELECT CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE 'SELECT ' END || p.oid::regproc || '(' || \
                 coalesce((SELECT string_agg({value}, ', ' ORDER BY n) FROM unnest(p.proargtypes) WITH ORDINALITY t(t, n)), '') || ')' \
                 FROM pg_proc p WHERE p.oid IN ({FUNCTIONS}) AND p.prokind IN ('f', 'p') ORDER BY 1"
            ))
        };
        let null = "'NULL::' || CASE WHEN t::regtype::text IN ('anyarray') THEN 'bigint[]' ELSE t::regtype::text END";
        let empty = "CASE WHEN t::regtype::text = 'anyarray' THEN '''{}''::bigint[]' \
                     WHEN t::regtype::text LIKE '%[]' THEN '''{}''::' || t::regtype \
                     WHEN t::regtype::text = 'jsonb' THEN '''{}''::jsonb' WHEN t::regtype::text = 'bytea' THEN '''''::bytea' \
                     WHEN t::regtype::text IN ('bigint', 'integer') THEN '0' \
                     WHEN t::regtype::text IN ('text', 'name') THEN '''''::' || t::regtype ELSE 'NULL::' || t::regtype END";
        let mut session = database.session();
        let mut called = 0;
        for call in calls(null).lines().chain(calls(empty).lines()) {
            let reply = session.run(call);
            assert_ne!(reply.sqlstate.as_deref(), Some("lost"), "{call} ended the connection: {}", reply.text);
            assert_ne!(reply.sqlstate.as_deref(), Some("XX000"), "{call}: {}", reply.text);
            called += 1;
        }
        assert!(called > 80, "only {called} calls were tried");
        assert_eq!(session.ask("SELECT count(*) FROM rec_next(1, 3, recommender => 'shop')"), "3");
    });
}
