//! Clients that applications use, each against a real server: sqlx here, SQLAlchemy in `clients/`.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::path::Path;

use pgrec_tests::{Database, each_database};
use pgvector::Vector;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow, Row};
use xtask::progress::Progress;
use xtask::toolchain::python_env;

/// A row of the application's own table.
#[derive(Debug, PartialEq, FromRow)]
struct Article {
    id: i64,
    name: String,
    embedding: Option<Vector>,
}

/// A row of a list.
#[derive(Debug, PartialEq, FromRow)]
struct Recommended {
    rank: i32,
    item_id: i64,
    score: f32,
}

/// Runs a client in a database of its own, connected over TCP with a password.
fn connected<F: Future<Output = sqlx::Result<()>>>(client: impl Fn(PgConnection) -> F) {
    each_database(|database| {
        let url = database.cluster.url(&database.name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { client(PgConnection::connect(&url).await?).await }).unwrap();
    });
}

#[test]
fn sqlx_declares_a_table_inserts_and_reads_recommendations_and_vectors() {
    connected(|mut db| async move {
        sqlx::raw_sql(
            "CREATE TABLE article (id bigint PRIMARY KEY, name text NOT NULL, embedding vector(3));
             CREATE TABLE purchase (customer bigint NOT NULL, article bigint NOT NULL REFERENCES article,
             at timestamptz NOT NULL DEFAULT now());
             CREATE INDEX ON purchase (customer, at DESC) INCLUDE (article)",
        )
        .execute(&mut db)
        .await?;
        let articles: Vec<Article> = (1..=20)
            .map(|id| Article {
                id,
                name: format!("article {id}"),
                embedding: (id % 5 > 0).then(|| Vector::from(vec![id as f32, 0.5, -1.0])),
            })
            .collect();
        for article in &articles {
            let insert = sqlx::query("INSERT INTO article (id, name, embedding) VALUES ($1, $2, $3)");
            insert.bind(article.id).bind(&article.name).bind(&article.embedding).execute(&mut db).await?;
        }
        for customer in 1_i64..=30 {
            let bought: Vec<i64> = (0..5).map(|n| (customer + n * n) % 20 + 1).collect();
            let insert = sqlx::query(
                "INSERT INTO purchase (customer, article, at) SELECT $1, a, now() + n * interval '1 minute'
                    FROM unnest($2::bigint[]) WITH ORDINALITY u(a, n)",
            );
            insert.bind(customer).bind(&bought).execute(&mut db).await?;
        }
        sqlx::raw_sql(
            "SELECT rec_create('sales', interactions => 'purchase', user_column => 'customer', item_column => 'article',
                 items => 'article', item_id_column => 'id', title_column => 'name', embedding_column => 'embedding')",
        )
        .execute(&mut db)
        .await?;
        sqlx::query("CALL rec_train('graph', recommender => $1, deploy => true)")
            .bind("sales")
            .execute(&mut db)
            .await?;

        let read: Vec<Article> =
            sqlx::query_as("SELECT id, name, embedding FROM article ORDER BY id").fetch_all(&mut db).await?;
        assert_eq!(read, articles);
        // Parameters that know their types, kept prepared or not, and a literal that has none.
        let list = "SELECT rank, item_id, score FROM sales.rec_next($1, $2)";
        let typed: Vec<Recommended> = sqlx::query_as(list).bind(3_i64).bind(5_i32).fetch_all(&mut db).await?;
        assert_eq!(typed.iter().map(|row| row.rank).collect::<Vec<i32>>(), [1, 2, 3, 4, 5]);
        assert!(typed.is_sorted_by(|a, b| a.score >= b.score));
        let narrow: Vec<Recommended> = sqlx::query_as("SELECT n.* FROM sales.rec_next($1, $2) n")
            .bind(3_i32)
            .bind(5_i32)
            .fetch_all(&mut db)
            .await?;
        assert_eq!(narrow, typed);
        let unprepared: Vec<Recommended> =
            sqlx::query_as(list).bind(3_i64).bind(5_i32).persistent(false).fetch_all(&mut db).await?;
        assert_eq!(unprepared, typed);
        let literal =
            sqlx::raw_sql("SELECT rank, item_id, score FROM sales.rec_next('3', '5')").fetch_all(&mut db).await?;
        let literal: Vec<i64> = literal.iter().map(|row| row.get("item_id")).collect();
        assert_eq!(literal, typed.iter().map(|row| row.item_id).collect::<Vec<i64>>());
        // Arrays, NULL, and a join with the application's table.
        let many: i64 = sqlx::query_scalar("SELECT count(*) FROM sales.rec_next_many($1, 2)")
            .bind(vec![1_i64, 2, 3])
            .fetch_one(&mut db)
            .await?;
        assert_eq!(many, 6);
        let nobody: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sales.rec_next($1)").bind(None::<i64>).fetch_one(&mut db).await?;
        assert_eq!(nobody, 10);
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT a.name FROM sales.rec_next($1, 5) n JOIN article a ON a.id = n.item_id ORDER BY n.rank",
        )
        .bind(3_i64)
        .fetch_all(&mut db)
        .await?;
        assert_eq!(names, typed.iter().map(|row| format!("article {}", row.item_id)).collect::<Vec<String>>());
        // An error keeps its SQLSTATE and its hint on the way.
        let error = sqlx::query("SELECT * FROM sales.rec_next($1, $2)")
            .bind(1_i64)
            .bind(-1_i32)
            .execute(&mut db)
            .await
            .unwrap_err();
        let error = error.into_database_error().unwrap();
        assert_eq!(error.code().as_deref(), Some("22023"));

        // Fresh within the transaction, gone with it.
        let mut transaction = db.begin().await?;
        let insert =
            sqlx::query("INSERT INTO purchase (customer, article, at) VALUES ($1, $2, now() + interval '1 day')");
        insert.bind(3_i64).bind(typed[0].item_id).execute(&mut *transaction).await?;
        let fresh: Vec<Recommended> = sqlx::query_as(list).bind(3_i64).bind(5_i32).fetch_all(&mut *transaction).await?;
        assert!(fresh.iter().all(|row| row.item_id != typed[0].item_id));
        transaction.rollback().await?;
        let again: Vec<Recommended> = sqlx::query_as(list).bind(3_i64).bind(5_i32).fetch_all(&mut db).await?;
        assert_eq!(again, typed);
        db.close().await
    });
}

#[test]
fn sqlx_reads_a_users_vector_as_pgvectors_own_type() {
    connected(|mut db| async move {
        let query = "SELECT rec_encode($1, model => $2)";
        let vector: Vector = sqlx::query_scalar(query).bind(1_i64).bind("encoder").fetch_one(&mut db).await?;
        assert_eq!(vector.as_slice().len(), 16);
        assert!(vector.as_slice().iter().all(|value| value.is_finite()));
        let nobody: Option<Vector> =
            sqlx::query_scalar(query).bind(99_999_i64).bind("encoder").fetch_one(&mut db).await?;
        assert_eq!(nobody, None);
        // Vectors sent and compared: the items most like the user's vector would be found by pgvector's operators.
        let distance: f64 = sqlx::query_scalar("SELECT rec_encode($1, model => 'encoder') <-> $2")
            .bind(1_i64)
            .bind(&vector)
            .fetch_one(&mut db)
            .await?;
        assert!(distance.abs() < 1e-6, "{distance}");
        let own: Vec<Vector> =
            sqlx::query_scalar("SELECT embedding FROM shop.item ORDER BY item_id LIMIT 3").fetch_all(&mut db).await?;
        assert!(own.iter().all(|vector| vector.as_slice().len() == 8));
        db.close().await
    });
}

#[test]
fn sqlx_passes_text_where_ids_are_uuids() {
    connected(|mut db| async move {
        sqlx::raw_sql("SELECT rec_create('people', user_type => 'uuid', item_type => 'text')").execute(&mut db).await?;
        sqlx::raw_sql(
            "INSERT INTO people.item (item_id) SELECT 'i' || n FROM generate_series(1, 9) n;
             INSERT INTO people.interaction (user_id, item_id) SELECT ('00000000-0000-4000-8000-00000000000'
             || u)::uuid, 'i' || n FROM generate_series(1, 5) u, generate_series(1, u) n",
        )
        .execute(&mut db)
        .await?;
        sqlx::query("CALL rec_train('popularity', recommender => $1, deploy => true)")
            .bind("people")
            .execute(&mut db)
            .await?;
        let items: Vec<String> = sqlx::query_scalar("SELECT item_id FROM people.rec_next($1, 2)")
            .bind("00000000-0000-4000-8000-000000000003")
            .fetch_all(&mut db)
            .await?;
        assert_eq!(items, ["i4", "i5"]);
        db.close().await
    });
}

/// What the script needs beyond Python.
const PACKAGES: [&str; 3] = ["sqlalchemy>=2", "psycopg[binary]>=3.1", "pgvector>=0.5"];

#[test]
fn sqlalchemy_declares_a_table_inserts_and_reads_recommendations_and_vectors() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/sqlalchemy_client.py");
    each_database(|database: &Database<'_>| {
        let home = xtask::Home::locate().unwrap();
        let python = python_env(&home, &PACKAGES, &Progress::new()).unwrap();
        let url = database.cluster.url(&database.name);
        let output = python.command().arg(&script).arg(&url).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.trim_end().ends_with("ok"), "{said}");
    });
}
