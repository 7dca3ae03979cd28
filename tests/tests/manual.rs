//! What `\df+`, `\d+` and `\dx+` show, and that every function survives arguments of nothing.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, each_database};

/// Everything the extension owns, by class and name.
const MEMBERS: &str =
    "FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    AND d.deptype = 'e' AND e.extname = 'pgrec'";

#[test]
fn every_function_table_view_and_column_has_a_comment() {
    each_database(|database| {
        let functions = format!(
            "SELECT p.oid::regprocedure FROM pg_proc p WHERE obj_description(p.oid, 'pg_proc') IS NULL AND (
                 p.oid IN (SELECT d.objid {MEMBERS} WHERE d.classid = 'pg_proc'::regclass)
                 OR p.pronamespace = 'shop'::regnamespace)"
        );
        assert_eq!(database.ask(&functions), "", "functions without a comment");
        let relations = "SELECT c.oid::regclass, a.attname FROM pg_class c LEFT JOIN pg_attribute a
                ON a.attrelid = c.oid AND a.attnum > 0 AND NOT attisdropped AND col_description(c.oid, a.attnum) IS NULL
            WHERE c.relnamespace IN ('rec'::regnamespace, 'shop'::regnamespace) AND c.relkind IN ('r', 'v', 'm', 'p')
                AND (a.attname IS NOT NULL OR obj_description(c.oid, 'pg_class') IS NULL)";
        assert_eq!(database.ask(relations), "", "relations and columns without a comment");
        let schemas = "SELECT nspname FROM pg_namespace WHERE nspname IN ('rec', 'shop') AND obj_description(oid,
            'pg_namespace') IS NULL";
        assert_eq!(database.ask(schemas), "", "schemas without a comment");
        // psql shows them.
        assert!(database.ask("\\df+ rec_next").contains("most likely to touch next"));
        assert!(database.ask("\\df+ shop.rec_next").contains("most likely to touch next"));
        assert!(
            database.ask("\\d+ rec.model").contains("Models: trained or imported")
                || database.ask("\\dt+ rec.model").contains("Models: trained or imported")
        );
    });
}

#[test]
fn comments_are_sentences_that_a_manual_could_print() {
    each_database(|database| {
        let comments = format!(
            "SELECT p.oid::regprocedure || ': ' || description FROM pg_description
                JOIN pg_proc p ON classoid = 'pg_proc'::regclass AND objoid = p.oid
             WHERE p.oid IN (SELECT d.objid {MEMBERS} WHERE d.classid = 'pg_proc'::regclass)
             OR p.pronamespace = 'shop'::regnamespace
             UNION ALL SELECT objoid::regclass || '.' || objsubid || ': ' || description FROM pg_description
             JOIN pg_class c ON classoid = 'pg_class'::regclass AND objoid = c.oid
             WHERE c.relnamespace IN ('rec'::regnamespace, 'shop'::regnamespace)"
        );
        let all = database.ask(&comments);
        assert!(all.lines().count() > 100);
        for line in all.lines() {
            let ended = line.ends_with('.') || line.ends_with('…');
            assert!(ended && !line.contains("  ") && !line.contains("TODO"), "{line}");
        }
    });
}

#[test]
fn the_extension_lists_nothing_of_the_users() {
    each_database(|database| {
        database.run("CREATE TABLE shop.extra (x integer); SELECT rec_create('second', user_type => 'uuid')");
        let foreign = format!(
            "SELECT pg_describe_object(d.classid, d.objid, d.objsubid) {MEMBERS}
             WHERE pg_describe_object(d.classid, d.objid,
             d.objsubid) !~ '(^(function|procedure) (rec_|rec\\.)|^schema rec$| rec\\.|access method usearch$)'
               AND pg_describe_object(d.classid, d.objid, d.objsubid) !~ 'semantic_id'
               AND NOT (d.classid = 'pg_proc'::regclass AND (SELECT proname FROM pg_proc
               WHERE oid = d.objid) LIKE 'rec\\_%')
               AND d.classid <> 'pg_type'::regclass"
        );
        assert_eq!(database.ask(&foreign), "");
        let shown = database.ask("\\dx+ pgrec");
        assert!(shown.contains("rec.model") && !shown.contains("shop.") && !shown.contains("second."), "{shown}");
        // And the other way round: nothing in the users' schemas belongs to an extension.
        assert_eq!(
            database.ask(
                "SELECT count(*) FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass
                AND d.objid = c.oid
                          WHERE d.deptype = 'e' AND c.relnamespace IN ('shop'::regnamespace, 'second'::regnamespace)"
            ),
            "0"
        );
    });
}

#[test]
fn the_library_has_every_function_that_is_declared_and_nothing_is_marked_more_than_it_is() {
    each_database(|database| {
        // Each library function is looked up when it is called; the validator does it now.
        database.run(&format!(
            "SELECT fmgr_c_validator(p.oid) FROM pg_proc p JOIN pg_language l ON l.oid = prolang WHERE lanname = 'c'
                AND p.oid IN (SELECT d.objid {MEMBERS} WHERE d.classid = 'pg_proc'::regclass)"
        ));
        let serving = "SELECT proname FROM pg_proc WHERE (proname ~ '^rec_(next|score|similar|encode|explain)'
            OR proname ~ '^(next|score|similar|encode|explain).*_(text|bigint)$')
            AND pronamespace IN ('public'::regnamespace, 'rec'::regnamespace, 'shop'::regnamespace)
            AND (provolatile <> 's' OR proparallel <> 'r' OR prosecdef)";
        assert_eq!(database.ask(serving), "", "serving functions are STABLE, PARALLEL RESTRICTED, SECURITY INVOKER");
        let definer = format!(
            "SELECT p.oid::regprocedure FROM pg_proc p WHERE prosecdef AND p.oid IN (SELECT d.objid {MEMBERS}
                WHERE d.classid = 'pg_proc'::regclass)"
        );
        assert_eq!(database.ask(&definer), "");
    });
}

/// A call of a function with every argument `value` of its type.
fn call(oid: &str, value: &str) -> String {
    // Table functions in FROM, so that the library's idea of the columns is compared with the declared one.
    format!(
        "SELECT format(CASE prokind WHEN 'p' THEN 'CALL %s(%s)' WHEN 'f' THEN 'SELECT *
            FROM %s(%s)' ELSE 'SELECT %s(%s)' END, p.oid::regproc,
             (SELECT string_agg(CASE WHEN t = 'anyarray'::regtype THEN format('%s::bigint[]', v)
             ELSE format('%s::%s', v, t::regtype) END, ', ' ORDER BY n)
              FROM unnest(proargtypes) WITH ORDINALITY a(t, n), LATERAL (SELECT {value} AS v) x))
         FROM pg_proc p WHERE p.oid = {oid}"
    )
}

#[test]
fn every_function_survives_null_empty_and_extreme_arguments() {
    each_database(|database| {
        let own = format!(
            "SELECT p.oid FROM pg_proc p WHERE (p.oid IN (SELECT d.objid {MEMBERS}
                WHERE d.classid = 'pg_proc'::regclass) OR p.pronamespace = 'shop'::regnamespace)
             AND p.prokind IN ('f', 'a', 'p') AND NOT 'internal'::regtype = ANY (p.proargtypes)
             AND p.prorettype <> 'trigger'::regtype ORDER BY p.oid"
        );
        let oids = database.ask(&own);
        assert!(oids.lines().count() > 50);
        let values = [
            "'NULL'",
            // Empty arrays, empty strings, zero.
            "CASE WHEN t = 'anyarray'::regtype OR t::regtype::text LIKE '%[]' THEN '''{}''' WHEN t = 'text'::regtype
                OR t = 'bytea'::regtype OR t = 'name'::regtype THEN '''''' WHEN t = 'jsonb'::regtype THEN '''{}'''
                WHEN t = 'boolean'::regtype THEN '''f''' WHEN t = ANY ('{regclass,regtype}'::regtype[]) THEN '0::oid'
                ELSE '0' END",
            // The largest, the longest, the strangest.
            "CASE WHEN t::regtype::text = 'double precision[]' THEN '''{NaN,-Infinity}'''
                WHEN t::regtype::text IN ('bigint[]', 'anyarray')
                THEN '''{9223372036854775807,-9223372036854775808,NULL}''' WHEN t::regtype::text = 'integer[]'
                THEN '''{2147483647,NULL}''' WHEN t::regtype::text = 'text[]' THEN '''{\"\",NULL,☃}'''
                WHEN t = 'bigint'::regtype THEN '9223372036854775807' WHEN t = 'integer'::regtype THEN '2147483647'
                WHEN t = 'double precision'::regtype THEN '''NaN''' WHEN t = 'bytea'::regtype THEN '''\\xff'''
                WHEN t = 'jsonb'::regtype THEN '''[null]''' WHEN t = 'boolean'::regtype THEN '''t'''
                WHEN t = ANY ('{regclass,regtype}'::regtype[]) THEN '4294967295::oid' ELSE 'repeat(''☃'', 300)' END",
        ];
        let mut session = database.session();
        for value in values {
            for oid in oids.lines() {
                let statement = session.ask(&call(oid, value));
                // In a transaction that is undone, because some of them succeed. Procedures refuse one.
                session.ask("BEGIN");
                let reply = session.run(&statement);
                session.run("ROLLBACK");
                let state = reply.sqlstate.as_deref().unwrap_or("");
                // Else the call was made wrongly and has tested nothing.
                assert!(state != "42883" && state != "42601", "{statement}\n{}", reply.text);
                // Internal errors, crashes, and types on which the declaration and the library do not agree.
                assert!(
                    state != "lost" && !state.starts_with("XX") && state != "42804" && state != "42P13",
                    "{statement}\n{}",
                    reply.text
                );
                assert!(
                    !reply.text.contains("panicked") && !reply.text.contains("invalid memory"),
                    "{statement}\n{}",
                    reply.text
                );
            }
        }
        assert!(!database.cluster.log().contains("terminated by signal"));
        assert_eq!(database.list("SELECT * FROM rec_next(1)").len(), 10);
    });
}

/// Rows as the functions declare them: all columns of all functions, read by a client that believes the declaration.
#[test]
fn columns_are_of_the_types_that_are_declared() {
    each_database(|database: &Database<'_>| {
        database.run("CREATE INDEX item_near ON shop.item USING usearch (embedding vector_l2_ops)");
        for (query, columns) in [
            ("SELECT * FROM rec_next(1, 1)", "integer,bigint,real"),
            ("SELECT * FROM rec_next_many('{1}', 1)", "bigint,integer,bigint,real"),
            ("SELECT * FROM rec_score(1, '{1}')", "integer,bigint,real"),
            ("SELECT * FROM rec_check()", "text,text,text,text"),
            ("SELECT * FROM rec_families()", "text,boolean,text"),
            ("SELECT * FROM rec_devices()", "text,text,bigint,boolean,text"),
            ("SELECT * FROM rec_audit()", "text,double precision,text"),
            (
                "SELECT * FROM rec_evaluate('tgh')",
                "text,text,text,text,integer,double precision,double precision,double precision,bigint",
            ),
            ("SELECT rec_encode(1, model => 'encoder')", "vector"),
            ("SELECT rec_explain(1, 1)", "jsonb"),
            (
                "SELECT * FROM rec_index_stats('shop.item_near')",
                "integer,bigint,bigint,bigint,bigint,bigint,bigint,bigint",
            ),
            ("SELECT * FROM rec_index_recall('shop.item_near')", "double precision,double precision,bigint"),
            ("SELECT * FROM shop.rec_next(1, 1)", "integer,bigint,real"),
        ] {
            let described = database.ask(&format!("{query} \\gdesc"));
            let types: Vec<&str> = described.lines().map(|line| line.split_once('|').unwrap().1).collect();
            assert_eq!(types.join(","), columns, "{query}");
            database.run(&format!("CREATE TABLE made AS {}; DROP TABLE made", query.replace(" \\gdesc", "")));
        }
    });
}
