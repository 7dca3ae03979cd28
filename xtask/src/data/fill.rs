//! Data sets in a database.

use anyhow::Result;

use super::Dataset;
use crate::cluster::Cluster;

impl Dataset {
    /// Loads items and interactions into the tables of the recommender `shop` of a database.
    ///
    /// # Errors
    /// When there is no such recommender, or a row is refused.
    pub fn fill(&self, cluster: &Cluster, database: &str) -> Result<()> {
        let items = format!("shop.item ({})", self.item_columns().join(", "));
        cluster.copy_in(database, &items, |rows| self.copy_items(rows))?;
        let interactions = format!("shop.interaction ({})", self.interaction_columns().join(", "));
        cluster.copy_in(database, &interactions, |rows| self.copy_interactions(rows))?;
        cluster.psql_in(database, "VACUUM ANALYZE shop.interaction, shop.item").map(drop)
    }
}
