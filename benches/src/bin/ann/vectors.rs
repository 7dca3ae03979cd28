//! The vectors that are searched, and those that are searched with.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use pgrec_benches::{Server, folder_of};
use xtask::generate::Random;
use xtask::progress::grouped;
use xtask::{Dataset, Home, Progress};

use crate::clusters::Clusters;
use crate::method::Metric;
use crate::model;
use crate::table::UNFILTERED;

/// Where vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// 100,000 × 64, generated as item vectors lie: clusters of unequal sizes, unequal lengths; Euclidean distance
    Items,
    /// The same by cosine
    ItemsCosine,
    /// Item vectors of a SASRec trained on Beauty, searched with its users' vectors; inner product
    Beauty,
    /// The same on ml-1m
    #[value(name = "ml-1m")]
    Ml1m,
    /// Vectors of the item texts of Beauty, 384 numbers; cosine
    Text,
    /// 1,000,000 × 128, generated; Euclidean distance
    Million,
}

/// A table's worth of vectors.
pub struct Vectors {
    /// What is compared by.
    pub metric: Metric,
    /// In no order.
    pub rows: Vec<Vec<f32>>,
    /// Not among the rows.
    pub queries: Vec<Vec<f32>>,
}

impl Source {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it is made up, so that there may be more or fewer rows.
    pub fn is_generated(self) -> bool {
        matches!(self, Self::Items | Self::ItemsCosine | Self::Million)
    }

    /// Reads, learns or makes the vectors; None where the data is not there.
    pub fn vectors(
        self,
        rows: Option<usize>,
        queries: usize,
        home: &Home,
        server: &Server,
        progress: &Progress,
    ) -> Result<Option<Vectors>> {
        let vectors = match self {
            Self::Items => generated(rows.unwrap_or(100_000), 64, Metric::L2, queries, progress)?,
            Self::ItemsCosine => generated(rows.unwrap_or(100_000), 64, Metric::Cosine, queries, progress)?,
            Self::Million => generated(rows.unwrap_or(1_000_000), 128, Metric::L2, queries, progress)?,
            Self::Beauty | Self::Ml1m => {
                let Some(folder) = folder_of(home, &self.name()) else { return Ok(None) };
                let vectors = model::vectors(&folder, queries, server, progress)?;
                Vectors { rows: shuffled(vectors.rows), ..vectors }
            }
            Self::Text => {
                let Some(folder) = folder_of(home, "beauty") else { return Ok(None) };
                let data = progress.step(&format!("reading {}", folder.display()), |_| Dataset::load(&folder))?;
                let mut all = shuffled(data.items.into_iter().filter_map(|item| item.embedding).collect());
                let rows = all.split_off(queries.min(all.len() / 2));
                Vectors { metric: Metric::Cosine, rows, queries: all }
            }
        };
        Ok(Some(vectors).filter(|vectors| !vectors.rows.is_empty() && !vectors.queries.is_empty()))
    }
}

fn generated(rows: usize, dim: usize, metric: Metric, queries: usize, progress: &Progress) -> Result<Vectors> {
    progress.step(&format!("making up {} vectors", grouped(rows)), |_| {
        let mut clusters = Clusters::new(rows, dim, 11);
        Ok(Vectors { metric, rows: clusters.take(rows), queries: clusters.take(queries) })
    })
}

fn shuffled(mut vectors: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    Random::new(5).shuffle(&mut vectors);
    vectors
}

impl Vectors {
    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    /// Makes and fills the tables `item (id, bucket, embedding)` and `query (id, embedding)` in a database.
    pub fn fill(&self, server: &Server, database: &str, workers: usize) -> Result<()> {
        let dim = self.dim();
        // How many workers help to build an index depends on the table's size where the table does not say.
        server.ask(
            database,
            &format!(
                "CREATE TABLE item (id int NOT NULL, bucket int NOT NULL, embedding vector({dim}) NOT NULL)
                     WITH (parallel_workers = {workers});
                 CREATE TABLE query (id int NOT NULL, embedding vector({dim}) NOT NULL)"
            ),
        )?;
        let mut random = Random::new(17);
        server.cluster.copy_in(database, "item (id, bucket, embedding)", |out| {
            self.rows.iter().enumerate().try_for_each(|(id, row)| {
                write!(out, "{id}\t{}\t", random.below(UNFILTERED as usize))?;
                write_vector(out, row)
            })
        })?;
        server.cluster.copy_in(database, "query (id, embedding)", |out| {
            self.queries.iter().enumerate().try_for_each(|(id, query)| {
                write!(out, "{id}\t")?;
                write_vector(out, query)
            })
        })?;
        server.ask(database, "VACUUM ANALYZE item; VACUUM ANALYZE query").map(drop)
    }
}

/// A vector as pgvector reads it, and the end of the line.
fn write_vector(out: &mut dyn Write, vector: &[f32]) -> std::io::Result<()> {
    for (place, number) in vector.iter().enumerate() {
        write!(out, "{}{number}", if place == 0 { '[' } else { ',' })?;
    }
    out.write_all(b"]\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_written_as_pgvector_reads_them() {
        let mut out = Vec::new();
        write_vector(&mut out, &[0.5, -1.0, 1e-7]).unwrap();
        assert_eq!(out, b"[0.5,-1,0.0000001]\n");
    }
}
