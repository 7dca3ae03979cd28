//! pgrec: the database itself as the recommender.
//!
//! This crate is glue between SQL and the engine: `sql` holds the functions, `catalog` the rows of schema `rec`,
//! `storage` the cache files, `worker` the trainings, `inference` the process that answers for all sessions, `pg/usearch` the index access method, `pg` everything that calls Postgres' C functions.

mod catalog;
mod codes;
mod compute;
mod corpus;
mod device;
mod error;
mod history;
mod ids;
mod inference;
mod outcomes;
mod pg;
mod search;
mod serve;
mod settings;
mod sql;
mod storage;
mod vectors;
mod worker;

pgrx::pg_module_magic!(name, version);

/// Called by Postgres when the library is loaded.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
    pg::usearch::define_settings();
    pg::usearch::register_options();
    if pg::launch::is_preloading() {
        settings::define_preloaded();
        pg::board::register();
        pg::launch::register();
    }
}
