//! A training that does not end by itself, to be interrupted: one that takes seconds here is over at once elsewhere.

use std::time::{Duration, Instant};

use crate::database::Database;

/// Arguments of a training that has to be stopped.
pub const ENDLESS: &str =
    "'sasrec', '{\"dim\": 16, \"blocks\": 1, \"window\": 20, \"epochs\": 1000000, \"patience\": 0}', 'slow'";

/// Prints `0` when no process trains.
pub const WORKERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgrec training'";

/// Makes the recommender `slow`: a million random events, which take a while to read.
///
/// # Panics
/// When it cannot be made.
pub fn slow(database: &Database<'_>) {
    database.run(
        "CREATE TABLE event (user_id bigint, item_id bigint, n integer);
         INSERT INTO event SELECT u, 1 + floor(3000 * random()), n FROM generate_series(1, 5000) u, generate_series(1, 200) n;
         VACUUM ANALYZE event;
         SELECT rec_create('slow', 'event', order_column => 'n')",
    );
}

impl Database<'_> {
    /// Waits until a model is being fitted.
    ///
    /// # Panics
    /// When it is not within twenty seconds.
    pub fn wait_until_fitting(&self, model: &str) {
        self.wait_for(&format!("SELECT phase FROM rec.progress WHERE model = '{model}'"), "fitting");
    }

    /// Waits until no process trains, and says how long that took.
    ///
    /// # Panics
    /// When one still does after twenty seconds.
    #[must_use]
    pub fn wait_until_idle(&self) -> Duration {
        let start = Instant::now();
        self.wait_for(WORKERS, "0");
        start.elapsed()
    }
}
