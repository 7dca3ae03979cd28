//! What a transaction sees: its own events and deployments, nobody else's before they commit, and only rows it may.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, Session, each_database};

const NEXT: &str = "SELECT * FROM rec_next(1, 20)";
const DEPLOYED: &str = "SELECT name FROM rec.models WHERE deployed";

/// The first item of user 1's list, and the list as it should be once the user has touched it: the same item given
/// as a session instead of a row.
fn expectation(database: &Database<'_>) -> (i64, String, String) {
    let before = database.ask(NEXT);
    let item = database.items(NEXT)[0];
    let after = database.ask(&format!("SELECT * FROM rec_next(1, 20, session => '{{{item}}}')"));
    assert_ne!(before, after);
    (item, before, after)
}

fn touch(item: i64) -> String {
    format!("INSERT INTO shop.interaction (user_id, item_id) VALUES (1, {item})")
}

#[test]
fn an_event_counts_in_its_own_transaction_and_not_after_a_rollback() {
    each_database(|database| {
        for model in ["tgh", "encoder", "popular"] {
            database.run(&format!("SELECT rec_deploy('{model}')"));
            let (item, before, after) = expectation(database);
            let (mut mine, mut other) = (database.session(), database.session());
            assert_eq!(mine.ask(NEXT), before);
            mine.ask("BEGIN");
            mine.ask(&touch(item));
            assert_eq!(mine.ask(NEXT), after, "{model}");
            assert_eq!(mine.ask("SELECT rank, item_id, score FROM rec_next_many('{1}', 20)"), after, "{model}");
            assert_eq!(other.ask(NEXT), before, "{model} in another session");
            mine.ask("ROLLBACK");
            assert_eq!(mine.ask(NEXT), before, "{model}");
            // Written and asked in one statement: the statement's snapshot is older than its rows.
            assert_eq!(
                mine.ask(&format!(
                    "WITH touched AS ({} RETURNING user_id) SELECT n.* FROM touched, rec_next(touched.user_id, 20) n",
                    touch(item)
                )),
                before,
                "{model}"
            );
            assert_eq!(mine.ask(NEXT), after, "{model} after the commit");
            assert_eq!(other.ask(NEXT), after, "{model} after the commit");
            database.run(&format!("DELETE FROM shop.interaction WHERE user_id = 1 AND item_id = {item}"));
            assert_eq!(other.ask(NEXT), before, "{model} after a deletion");
        }
    });
}

#[test]
fn savepoints_take_events_and_deployments_back() {
    each_database(|database| {
        let (item, before, after) = expectation(database);
        let popular = database.ask("SELECT * FROM rec_next(1, 20, model => 'popular')");
        let mut session = database.session();
        session.ask("BEGIN; SAVEPOINT a");
        session.ask(&touch(item));
        session.ask("SAVEPOINT b; SELECT rec_deploy('popular')");
        assert_eq!(session.ask(DEPLOYED), "popular");
        assert_eq!(session.ask(NEXT), session.ask("SELECT * FROM rec_next(1, 20, model => 'popular')"));
        session.ask("ROLLBACK TO b");
        assert_eq!(session.ask(NEXT), after);
        session.ask("ROLLBACK TO a");
        assert_eq!(session.ask(NEXT), before);
        assert_eq!(session.run("SELECT 1 / 0").error(), "22012");
        session.ask("ROLLBACK TO a; SELECT rec_deploy('popular'); RELEASE a");
        assert_eq!(session.ask(NEXT), popular);
        session.ask("ROLLBACK");
        assert_eq!(session.ask(NEXT), before);
        // In PL/pgSQL an exception block is a savepoint.
        session.ask(&format!(
            "DO $$ BEGIN
                BEGIN {}; RAISE 'undo'; EXCEPTION WHEN OTHERS THEN NULL; END;
                IF (SELECT item_id FROM rec_next(1, 1)) <> {item} THEN RAISE 'a rolled-back event counts'; END IF;
                {};
                IF (SELECT item_id FROM rec_next(1, 1)) = {item} THEN RAISE 'an event does not count'; END IF;
            END $$",
            touch(item),
            touch(item)
        ));
        assert_eq!(session.ask(NEXT), after);
    });
}

#[test]
fn a_deployment_is_seen_when_it_commits_and_never_by_halves() {
    each_database(|database| {
        let list = |model: &str| database.ask(&format!("SELECT * FROM rec_next(1, 20, model => '{model}')"));
        let (tgh, encoder, popular) = (list("tgh"), list("encoder"), list("popular"));
        let (mut mine, mut other) = (database.session(), database.session());
        assert_eq!(other.ask(NEXT), tgh);
        mine.ask("BEGIN; SELECT rec_deploy('encoder')");
        assert_eq!((mine.ask(NEXT), other.ask(NEXT)), (encoder.clone(), tgh.clone()));
        mine.ask("SELECT rec_deploy('popular')");
        assert_eq!(mine.ask(NEXT), popular);
        mine.ask("SELECT rec_rollback()");
        assert_eq!(mine.ask(NEXT), encoder);
        mine.ask("ROLLBACK");
        assert_eq!((mine.ask(NEXT), other.ask(NEXT)), (tgh.clone(), tgh.clone()));

        mine.ask("BEGIN; SELECT rec_deploy('encoder')");
        assert_eq!(mine.run("SELECT * FROM rec_next(1, -1)").error(), "22023");
        mine.ask("COMMIT");
        assert_eq!((mine.ask(NEXT), other.ask(DEPLOYED)), (tgh.clone(), "tgh".to_owned()), "an aborted deployment");

        // A snapshot keeps its model, whatever is deployed meanwhile.
        other.ask("BEGIN ISOLATION LEVEL REPEATABLE READ");
        assert_eq!(other.ask(NEXT), tgh);
        mine.ask("SELECT rec_deploy('encoder')");
        assert_eq!((mine.ask(NEXT), other.ask(NEXT)), (encoder.clone(), tgh.clone()));
        mine.ask(
            "SELECT rec_deploy('popular'); INSERT INTO shop.interaction (user_id, item_id) SELECT 1, item_id
            FROM rec_next(1, 5)",
        );
        assert_eq!(other.ask(NEXT), tgh);
        other.ask("COMMIT");
        assert_eq!(other.ask(NEXT), mine.ask(NEXT));
        assert_ne!(other.ask(NEXT), tgh);
    });
}

#[test]
fn two_rollbacks_at_once_take_back_two_deployments() {
    each_database(|database| {
        database.run("SELECT rec_deploy('encoder'); SELECT rec_deploy('popular')");
        let (mut one, mut two) = (database.session(), database.session());
        assert_eq!(one.ask("BEGIN; SELECT rec_rollback()"), "encoder");
        two.send("SELECT rec_rollback()");
        database.wait_for(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                AND query LIKE '%rec_rollback%'",
            "1",
        );
        one.ask("COMMIT");
        assert_eq!(two.reply().rows(), "tgh");
        assert_eq!(database.ask(DEPLOYED), "tgh");
        assert_eq!(two.run("SELECT rec_rollback()").error(), "55000");
    });
}

#[test]
fn a_model_dropped_while_it_serves_ends_in_an_error_and_not_in_a_wrong_answer() {
    each_database(|database| {
        let mut session = database.session();
        let query = "SELECT count(*) FROM rec_next(1, model => 'encoder')";
        assert_eq!(session.ask(query), "10");
        database.run("SELECT rec_drop_model('encoder')");
        assert_eq!(session.run(query).error(), "42704");
        // Another model of the same name is not the one that this session has open.
        database.run("CALL rec_train('popularity', model => 'encoder')");
        assert_eq!(
            session.ask("SELECT * FROM rec_next(1, model => 'encoder')"),
            database.ask("SELECT * FROM rec_next(1, model => 'encoder')")
        );
        assert_eq!(session.run("SELECT rec_encode(1, model => 'encoder')").error(), "0A000");
    });
}

#[test]
fn deleted_items_leave_the_list_as_excluding_them_would() {
    each_database(|database| {
        for model in ["popular", "encoder", "tgh"] {
            for user in [1, 2, 3] {
                let next =
                    |more: &str| database.ask(&format!("SELECT * FROM rec_next({user}, 10, model => '{model}'{more})"));
                let items = database.items(&format!("SELECT * FROM rec_next({user}, 10, model => '{model}')"));
                let gone = format!("{},{}", items[2], items[9]);
                let without = next(&format!(", exclude => '{{{gone}}}'"));
                let mut session = database.session();
                session.ask(&format!("BEGIN; DELETE FROM shop.item WHERE item_id IN ({gone})"));
                let left = session.ask(&format!("SELECT * FROM rec_next({user}, 10, model => '{model}')"));
                let many = session.ask(&format!(
                    "SELECT rank, item_id, score FROM rec_next_many('{{{user}}}', 10, model => '{model}')"
                ));
                assert_eq!(left, without, "{model} for user {user}");
                assert_eq!(many, without, "{model} for user {user} among many");
            }
        }
    });
}

/// A session that has become another role.
fn as_role(database: &Database<'_>, role: &str) -> Session {
    let mut session = database.session();
    session.ask(&format!("SET ROLE {role}"));
    session
}

#[test]
fn row_level_security_decides_what_a_history_holds() {
    each_database(|database| {
        let role = database.role("limited");
        let everything = database.ask(NEXT);
        let (item, ..) = expectation(database);
        database.run(&touch(item));
        database.run(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA shop TO {role};
                GRANT SELECT ON shop.interaction, shop.item TO {role};
             ALTER TABLE shop.interaction ENABLE ROW LEVEL SECURITY;
             CREATE POLICY hidden ON shop.interaction TO {role} USING (item_id <> {item} AND user_id <> 2)"
        ));
        let mut limited = as_role(database, &role);
        assert_eq!(limited.ask(NEXT), everything, "the hidden event counts");
        assert_eq!(limited.ask("SELECT * FROM shop.rec_next(1, 20)"), everything);
        assert_eq!(limited.ask("SELECT rank, item_id, score FROM rec_next_many('{1}', 20)"), everything);
        assert_ne!(database.ask(NEXT), everything, "the owner sees every event");
        assert_eq!(limited.ask("SELECT rec_explain(2, 1) -> 'history' ->> 'events'"), "0");
        assert_eq!(
            limited.ask("SELECT * FROM rec_next(2, 20)"),
            database.ask("SELECT * FROM rec_next(99999, 20)"),
            "a hidden user is an unknown one"
        );
        // What a role may not see it cannot measure either.
        let users = "SELECT users FROM rec_evaluate('tgh') WHERE metric = 'hr'";
        assert_eq!((database.ask(users), limited.ask(users)), ("300".to_owned(), "299".to_owned()));
        // In one session the rights change with the role.
        let (with, without) = (database.ask(NEXT), everything);
        for _ in 0..3 {
            assert_eq!(limited.ask("RESET ROLE").as_str(), "");
            assert_eq!(limited.ask(NEXT), with);
            limited.ask(&format!("SET ROLE {role}"));
            assert_eq!(limited.ask(NEXT), without);
        }
        drop(limited);
        database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    });
}

#[test]
fn a_policy_on_items_decides_what_can_be_recommended() {
    each_database(|database| {
        let role = database.role("shopper");
        database.run(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA shop TO {role};
                GRANT SELECT ON shop.interaction, shop.item TO {role};
             ALTER TABLE shop.item ENABLE ROW LEVEL SECURITY;
             CREATE POLICY odd ON shop.item TO {role} USING (item_id % 2 = 1)"
        ));
        let mut shopper = as_role(database, &role);
        for query in [
            "SELECT item_id FROM rec_next(1, 20)",
            "SELECT item_id FROM rec_similar(1, 20)",
            "SELECT item_id FROM rec_next_many('{1,2}', 20)",
        ] {
            let items = shopper.ask(query);
            assert!(
                items.lines().count() >= 5 && items.lines().all(|item| item.parse::<i64>().unwrap() % 2 == 1),
                "{query}: {items}"
            );
        }
        drop(shopper);
        database.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    });
}

#[test]
fn an_owner_without_login_or_superuser_trains_with_its_own_rights() {
    each_database(|database| {
        let (owner, member, reader) = (database.role("owner"), database.role("member"), database.role("reader"));
        database.run(&format!(
            "CREATE ROLE {owner} NOLOGIN; CREATE ROLE {member} IN ROLE {owner}; CREATE ROLE {reader};
             GRANT CREATE ON DATABASE {} TO {owner}; CREATE TABLE public.secret (user_id bigint, item_id bigint,
             at timestamptz)",
            database.name
        ));
        let mut session = as_role(database, &owner);
        session.ask("SELECT rec_create('own')");
        session.ask(
            "INSERT INTO own.item (item_id) SELECT generate_series(1, 5);
            INSERT INTO own.interaction (user_id, item_id) SELECT u, i
            FROM generate_series(1, 3) u, generate_series(1, u) i",
        );
        session.ask("CALL rec_train('popularity', recommender => 'own', model => 'counts', deploy => true)");
        assert_eq!(session.run("SELECT rec_create('spy', interactions => 'public.secret')").error(), "42501");
        assert_eq!(database.ask("SELECT owner FROM rec.recommender WHERE name = 'own'"), owner);

        // A member of the owning role may do what the role may; who may only read may only ask.
        let mut member_session = as_role(database, &member);
        member_session.ask(
            "CALL rec_train('popularity', recommender => 'own', model => 'second');
            SELECT rec_deploy('second', 'own'); SELECT rec_rollback('own')",
        );
        session.ask(&format!(
            "GRANT USAGE ON SCHEMA own TO {reader}; GRANT
            SELECT (user_id, item_id, at, position) ON own.interaction TO {reader};
            GRANT SELECT ON own.item TO {reader}"
        ));
        let mut reader_session = as_role(database, &reader);
        assert_eq!(reader_session.ask("SELECT item_id FROM own.rec_next(1, 1)"), "2");
        for statement in [
            "SELECT rec_deploy('second', 'own')",
            "SELECT rec_drop_model('second', 'own')",
            "CALL rec_train('popularity', recommender => 'own')",
            "SELECT rec_drop('own')",
            "SELECT rec_export('second', 'own')",
            "SELECT data FROM rec.artifact",
            "UPDATE rec.model SET name = 'x'",
            "DELETE FROM rec.training",
        ] {
            assert_eq!(reader_session.run(statement).error(), "42501", "{statement}");
        }

        // Trained by a superuser, it still reads with the owner's rights: what the owner may not see is not in it.
        database.run("ALTER TABLE own.interaction OWNER TO postgres; REVOKE ALL ON own.interaction FROM PUBLIC");
        let message = database.fails("CALL rec_train('popularity', recommender => 'own', model => 'stolen')");
        assert!(message.contains("permission denied"), "{message}");
        assert_eq!(database.ask("SELECT state FROM rec.models WHERE name = 'stolen'"), "failed");
        drop((session, member_session, reader_session));
        database.run(&format!(
            "SET client_min_messages = warning; SELECT rec_drop('own', true);
            DROP OWNED BY {owner}, {member}, {reader}; DROP ROLE {owner}, {member}, {reader}"
        ));
    });
}

#[test]
fn nothing_put_into_the_search_path_is_run_with_anybody_elses_rights() {
    each_database(|database| {
        let role = database.role("intruder");
        // Operators and functions that look like the ones the extension's own statements use.
        database.run(&format!(
            "CREATE ROLE {role}; CREATE SCHEMA trap AUTHORIZATION {role}; GRANT USAGE ON SCHEMA shop TO {role};
             GRANT SELECT ON shop.interaction, shop.item TO {role}; CREATE TABLE public.caught (who text);
             GRANT INSERT ON public.caught TO PUBLIC"
        ));
        let mut intruder = as_role(database, &role);
        intruder.ask(
            "CREATE FUNCTION trap.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user = 'postgres' THEN INSERT INTO public.caught VALUES (current_user); END IF;
                 RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
             CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.equal);
             CREATE FUNCTION trap.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user = 'postgres' THEN INSERT INTO public.caught VALUES (current_user); END IF;
                 RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
             CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.equal);
             SET search_path = trap, pg_catalog, public",
        );
        for statement in [
            "SELECT count(*) FROM public.rec_next(1, recommender => 'shop')",
            "SELECT count(*) FROM public.rec_next(1, model => 'encoder', recommender => 'shop')",
            "SELECT count(*) FROM public.rec_next_many('{1}', recommender => 'shop')",
            "SELECT count(*) FROM rec.models",
        ] {
            let _ = intruder.run(statement);
        }
        assert_eq!(database.ask("SELECT count(*) FROM public.caught"), "0");
        drop(intruder);
        database.run(&format!("SET client_min_messages = warning; DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
    });
}
