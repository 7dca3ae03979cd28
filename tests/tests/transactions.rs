//! What transactions, roles and policies decide about an answer.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{Database, each_database};

const NEXT: &str = "SELECT * FROM rec_next(42, 5, recommender => 'shop')";
const SERVING: &str = "SELECT name FROM rec.models WHERE deployed AND recommender = 'shop'";

/// An item that user 42 has not touched and that is not the last of their history.
fn untouched(database: &Database<'_>) -> i64 {
    let item = database.ask(
        "SELECT item_id FROM shop.item WHERE item_id NOT IN (SELECT item_id FROM shop.interaction WHERE user_id = 42) \
         AND item_id IN (SELECT item_id FROM shop.interaction) ORDER BY item_id LIMIT 1",
    );
    item.parse().unwrap()
}

#[test]
fn an_event_counts_from_the_next_statement_on_and_is_forgotten_with_its_transaction() {
    each_database(|database| {
        let item = untouched(database);
        let mut session = database.session();
        let before = session.ask(NEXT);
        session.ask("BEGIN");
        session.ask(&format!("INSERT INTO shop.interaction (user_id, item_id) VALUES (42, {item})"));
        let during = session.ask(NEXT);
        assert_ne!(before, during, "the event inserted one line earlier did not count");
        assert_eq!(
            during,
            session.ask(&format!(
                "SELECT * FROM rec_next_session(ARRAY(SELECT item_id FROM shop.interaction WHERE user_id = 42 \
             ORDER BY at NULLS FIRST, position), 5, recommender => 'shop')"
            ))
        );
        assert_eq!(before, database.ask(NEXT), "another session saw an uncommitted event");
        session.ask("ROLLBACK");
        assert_eq!(before, session.ask(NEXT), "a rolled-back event still counts");
    });
}

#[test]
fn an_event_of_an_aborted_savepoint_does_not_count() {
    each_database(|database| {
        let item = untouched(database);
        let mut session = database.session();
        let before = session.ask(NEXT);
        session.ask("BEGIN; SAVEPOINT s");
        session.ask(&format!("INSERT INTO shop.interaction (user_id, item_id) VALUES (42, {item})"));
        assert_ne!(before, session.ask(NEXT));
        session.ask("ROLLBACK TO s");
        assert_eq!(before, session.ask(NEXT));
        session.ask("COMMIT");
    });
}

#[test]
fn a_deployment_serves_its_own_transaction_at_once_and_others_after_commit() {
    each_database(|database| {
        let mut session = database.session();
        let tgh = session.ask(NEXT);
        session.ask("BEGIN");
        session.ask("SELECT rec_deploy('encoder', 'shop')");
        let encoder = session.ask(NEXT);
        assert_ne!(tgh, encoder);
        assert_eq!(tgh, database.ask(NEXT), "an uncommitted deployment served another session");
        session.ask("COMMIT");
        assert_eq!(encoder, database.ask(NEXT));
        session.ask("BEGIN; SELECT rec_rollback('shop')");
        assert_eq!(tgh, session.ask(NEXT));
        session.ask("ROLLBACK");
        assert_eq!(encoder, session.ask(NEXT), "an aborted roll-back was half-seen");
        assert_eq!(session.ask("SELECT rec_rollback('shop')"), "tgh");
        assert_eq!(database.ask(SERVING), "tgh");
    });
}

#[test]
fn a_repeatable_read_transaction_keeps_its_model_and_its_history() {
    each_database(|database| {
        let item = untouched(database);
        let mut session = database.session();
        session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let before = session.ask(NEXT);
        database.run("SELECT rec_deploy('encoder', 'shop')");
        database.run(&format!("INSERT INTO shop.interaction (user_id, item_id) VALUES (42, {item})"));
        assert_eq!(before, session.ask(NEXT));
        session.ask("COMMIT");
        assert_ne!(before, session.ask(NEXT));
    });
}

#[test]
fn imported_and_deployed_in_one_statement_is_deployed() {
    each_database(|database| {
        database.run(
            "SELECT rec_deploy(rec_import('again', rec_export('encoder', 'shop'), NULL::bigint[], leave_last => 2, \
             recommender => 'shop'), 'shop')",
        );
        assert_eq!(database.ask(SERVING), "again");
        let list = |model: &str| {
            database.ask(&format!("SELECT * FROM rec_next(7, 10, model => '{model}', recommender => 'shop')"))
        };
        assert_eq!(list("again"), list("encoder"), "an exported and imported model answers differently");
    });
}

#[test]
fn a_deleted_item_is_not_recommended_and_the_list_stays_full() {
    each_database(|database| {
        let first = database.items(NEXT)[0];
        database.run(&format!("DELETE FROM shop.item WHERE item_id = {first}"));
        let items = database.items(NEXT);
        assert!(!items.contains(&first));
        assert_eq!(items.len(), 5);
        let many = database.ask("SELECT item_id FROM rec_next_many(ARRAY[42], 5, recommender => 'shop') ORDER BY rank");
        assert_eq!(many, items.iter().map(i64::to_string).collect::<Vec<_>>().join("\n"));
    });
}

#[test]
fn policies_on_the_interactions_decide_what_a_history_contains() {
    each_database(|database| {
        let reader = database.role("reader");
        database.run(&format!(
            "CREATE ROLE {reader};
             GRANT USAGE ON SCHEMA shop TO {reader};
             GRANT SELECT ON shop.interaction, shop.item TO {reader};
             ALTER TABLE shop.interaction ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON shop.interaction TO {reader} USING (user_id = 42)"
        ));
        let answered = |user: i64| format!("SELECT rec_explain({user}, 1, recommender => 'shop') ->> 'answered_by'");
        let mut session = database.session();
        session.ask(&format!("SET ROLE {reader}"));
        assert_eq!(session.ask(&answered(42)), "history");
        assert_eq!(session.ask(&answered(43)), "popularity", "a policy did not hide another user's history");
        session.ask("RESET ROLE");
        assert_eq!(session.ask(&answered(43)), "history", "a plan of another role was used");
        drop(session);
        database.run(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
    });
}

#[test]
fn who_may_not_read_the_interactions_is_not_served_and_who_does_not_own_may_not_change() {
    each_database(|database| {
        let stranger = database.role("stranger");
        database.run(&format!("CREATE ROLE {stranger}"));
        let mut session = database.session();
        session.ask(&format!("SET ROLE {stranger}"));
        for call in [
            "SELECT * FROM rec_next(42, recommender => 'shop')",
            "SELECT * FROM rec_next_session(ARRAY[1], recommender => 'shop')",
            "SELECT * FROM rec_similar(1, recommender => 'shop')",
            "SELECT * FROM rec_evaluate('graph', recommender => 'shop')",
            "SELECT rec_deploy('encoder', 'shop')",
            "SELECT rec_rollback('shop')",
            "SELECT rec_drop_model('popular', 'shop')",
            "SELECT rec_export('encoder', 'shop')",
            "SELECT rec_drop('shop')",
            "CALL rec_train('graph', recommender => 'shop')",
            "SELECT data FROM rec.artifact",
            "SELECT rec_import_file('x', '/etc/passwd', NULL::bigint[], recommender => 'shop')",
        ] {
            assert_eq!(session.run(call).error(), "42501", "{call}");
        }
        drop(session);
        assert_eq!(database.ask("SELECT count(*) FROM rec.model"), "3");
        database.run(&format!("DROP ROLE {stranger}"));
    });
}
