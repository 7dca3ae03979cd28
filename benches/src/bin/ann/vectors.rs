//! The vectors that are searched, and those that are searched for.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use pgrec_benches::{Server, Training};
use xtask::generate::Random;
use xtask::{Dataset, Home, Progress};

/// Where vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// Generated as a model's item vectors lie: in clusters of unequal sizes, of unequal lengths; 64 numbers, L2
    Items,
    /// Item vectors of a SASRec that is trained on Beauty for three epochs; 64 numbers, inner product
    Model,
    /// Vectors of the item texts of Beauty; 384 numbers, cosine
    Text,
    /// A million generated ones; 128 numbers, L2
    Million,
}

/// A table's worth of vectors.
pub struct Vectors {
    /// Name in what is printed.
    pub name: &'static str,
    /// Prefix of pgvector's operator class and ours.
    pub class: &'static str,
    /// The operator.
    pub operator: &'static str,
    /// Numbers of a vector.
    pub dim: usize,
    /// Row by row.
    pub rows: Vec<Vec<f32>>,
    /// Not among the rows.
    pub queries: Vec<Vec<f32>>,
}

impl Vectors {
    /// Reads or makes them; None where the data is not there.
    pub fn of(
        source: Source,
        rows: Option<usize>,
        queries: usize,
        home: &Home,
        server: &Server,
        progress: &Progress,
    ) -> Result<Option<Self>> {
        let made = |name, rows, dim| {
            let mut clusters = Clusters::new(dim);
            let all = clusters.take(rows + queries);
            Ok(Some(Self::held_out(name, "vector_l2_ops", "<->", all, queries)))
        };
        let beauty = home.data().map(|data| data.join("beauty")).filter(|folder| folder.is_dir());
        match (source, beauty) {
            (Source::Items, _) => made("items", rows.unwrap_or(100_000), 64),
            (Source::Million, _) => made("million", rows.unwrap_or(1_000_000), 128),
            (_, None) => Ok(None),
            (Source::Text, Some(folder)) => {
                let data = Dataset::load(&folder)?;
                let vectors = data.items.into_iter().filter_map(|item| item.embedding).collect();
                Ok(Some(Self::held_out("text", "vector_cosine_ops", "<=>", vectors, queries)))
            }
            (Source::Model, Some(folder)) => {
                let vectors = trained(&Dataset::load(&folder)?, server, progress)?;
                Ok(Some(Self::held_out("model", "vector_ip_ops", "<#>", vectors, queries)))
            }
        }
    }

    fn held_out(
        name: &'static str,
        class: &'static str,
        operator: &'static str,
        mut all: Vec<Vec<f32>>,
        queries: usize,
    ) -> Self {
        Random::new(5).shuffle(&mut all);
        let rows = all.split_off(queries.min(all.len() / 2));
        let dim = rows.first().map_or(0, Vec::len);
        Self { name, class, operator, dim, rows, queries: all }
    }

    /// Fills the tables `base (id, f, v)`, where `f` is a number below 1000, and `q (id, v)`.
    pub fn fill(&self, server: &Server, database: &str) -> Result<()> {
        let dim = self.dim;
        server.ask(
            database,
            &format!(
                "DROP TABLE IF EXISTS base, q CASCADE;
                 CREATE UNLOGGED TABLE base (id int, f int, v vector({dim}));
                 CREATE TABLE q (id int, v vector({dim}))"
            ),
        )?;
        let text = |vector: &[f32]| {
            let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
            format!("[{}]", numbers.join(","))
        };
        server.cluster.copy_in(database, "base (id, f, v)", |out| {
            for (id, row) in self.rows.iter().enumerate() {
                // Not by place: rows next to each other pass different filters.
                writeln!(out, "{id}\t{}\t{}", id * 7_919 % 1_000, text(row))?;
            }
            Ok(())
        })?;
        server.cluster.copy_in(database, "q (id, v)", |out| {
            for (id, row) in self.queries.iter().enumerate() {
                writeln!(out, "{id}\t{}", text(row))?;
            }
            Ok(())
        })?;
        server.ask(database, "VACUUM ANALYZE base; VACUUM ANALYZE q").map(drop)
    }
}

/// Vectors around centres, of which some have many and most have few.
struct Clusters {
    random: Random,
    centres: Vec<Vec<f32>>,
}

impl Clusters {
    fn new(dim: usize) -> Self {
        let mut random = Random::new(11);
        let centres = (0..300).map(|_| (0..dim).map(|_| random.normal() as f32).collect()).collect();
        Self { random, centres }
    }

    fn take(&mut self, count: usize) -> Vec<Vec<f32>> {
        let Self { random, centres } = self;
        let mut vector = || {
            let centre = &centres[(random.unit().powi(2) * centres.len() as f64) as usize];
            let length = 0.5 + random.unit() as f32;
            centre.iter().map(|x| length * (x + 0.5 * random.normal() as f32)).collect()
        };
        (0..count).map(|_| vector()).collect()
    }
}

/// The item vectors of a SASRec that learnt a little.
fn trained(data: &Dataset, server: &Server, progress: &Progress) -> Result<Vec<Vec<f32>>> {
    const DATABASE: &str = "trained";
    server.load(progress, DATABASE, data)?;
    let training = Training { model: "m", family: "sasrec", params: r#"{"epochs": 3}"#, memory: None };
    server.train(progress, DATABASE, &training)?;
    let hex = server.ask(DATABASE, "SELECT encode(rec_export('m', 'shop'), 'hex')")?;
    server.ask("postgres", &format!("DROP DATABASE {DATABASE}"))?;
    let bytes: Vec<u8> = hex
        .as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).context("reading the exported model")?;
    let items =
        tensors.tensors().into_iter().find(|(name, tensor)| name.ends_with("items") && tensor.shape().len() == 2);
    let Some((_, items)) = items else {
        bail!("the exported model has no item vectors; it has {}", tensors.names().join(", "));
    };
    let numbers: Vec<f32> = items.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(numbers.chunks(items.shape()[1]).map(<[f32]>::to_vec).collect())
}
