//! A private server with data sets in it, and trainings there.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::demo::training_status;
use xtask::extension::installed;
use xtask::toolchain::DEFAULT_MAJOR;
use xtask::{Cluster, Dataset, Home, Options, Progress};

use crate::processes;

/// Between two looks at how much memory a training has.
const LOOK: Duration = Duration::from_millis(200);

/// A server of this bench's own, removed with it.
pub struct Server {
    /// Where it runs.
    pub cluster: Cluster,
}

/// A training to be done with the recommender `shop`.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The family.
    pub family: &'a str,
    /// The family's parameters, as JSON.
    pub params: &'a str,
    /// `rec.training_memory`; absent: the server's default.
    pub memory: Option<&'a str>,
}

/// What a training took, from reading to its stored model.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// On the clock.
    pub seconds: f64,
    /// Of all its threads.
    pub cpu_seconds: f64,
    /// Memory of its own at most, in bytes: neither shared buffers nor files.
    pub memory: u64,
}

impl Server {
    /// Starts a server that has everything in memory.
    ///
    /// # Errors
    /// When the extension cannot be built, or the server does not start.
    pub fn start(home: &Home, progress: &Progress, label: &str) -> Result<Self> {
        Self::start_with(home, progress, label, &[])
    }

    /// [`Server::start`] with more settings, as name and value.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_with(home: &Home, progress: &Progress, label: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let postgres = installed(home, DEFAULT_MAJOR, progress)?;
        let options = Options::new().set("shared_buffers", "256MB").set("max_wal_size", "4GB");
        let options = settings.iter().fold(options, |options, (name, value)| options.set(name, value));
        let cluster = progress.step(&format!("starting a private {}", postgres.version), |_| {
            Cluster::temporary(home, &postgres, label, &options)
        })?;
        Ok(Self { cluster })
    }

    /// Makes a database with a data set in it, as the tour in the README does.
    ///
    /// # Errors
    /// When the server refuses something of it.
    pub fn load(&self, progress: &Progress, database: &str, data: &Dataset) -> Result<()> {
        progress.step("loading items and interactions", |_| {
            let dimension = data.dimension().map_or_else(|| "NULL".to_owned(), |dimension| dimension.to_string());
            self.cluster.psql(&format!("CREATE DATABASE {database}"))?;
            self.cluster.psql_in(
                database,
                &format!(
                    "SET client_min_messages = warning; CREATE EXTENSION pgrec CASCADE; \
                     SELECT rec_create('shop', dimension => {dimension}); \
                     ALTER DATABASE {database} SET search_path = shop, public;"
                ),
            )?;
            data.fill(&self.cluster, database)
        })
    }

    /// Seconds of training and validation NDCG@10 after every epoch that was validated.
    ///
    /// # Errors
    /// The server's.
    pub fn curve(&self, database: &str, model: &str) -> Result<Vec<(f64, f64)>> {
        let query = format!(
            "SELECT seconds, value FROM rec.curve WHERE model = '{model}' AND metric = 'ndcg@10' AND value IS NOT NULL
             ORDER BY epoch"
        );
        let number = |text: &str| text.parse::<f64>().with_context(|| format!("the curve has {text:?}"));
        let rows = self.ask(database, &query)?;
        rows.lines()
            .filter_map(|row| row.split_once('|'))
            .map(|(seconds, value)| Ok((number(seconds)?, number(value)?)))
            .collect()
    }

    /// What a query prints.
    ///
    /// # Errors
    /// The server's.
    pub fn ask(&self, database: &str, query: &str) -> Result<String> {
        self.cluster.psql_in(database, query)
    }

    /// The first number a query prints.
    ///
    /// # Errors
    /// The server's, and when it is not a number.
    pub fn number(&self, database: &str, query: &str) -> Result<f64> {
        let text = self.ask(database, query)?;
        text.trim().parse().with_context(|| format!("{query}\nprints {text:?}, which is no number"))
    }

    /// Processor seconds of the whole server so far, with its processes that have ended.
    ///
    /// # Errors
    /// When it does not run.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let postmaster = self.cluster.postmaster().context("the server does not run")?;
        processes::family_seconds(postmaster)
    }

    /// Trains a model while the progress line says how far it is.
    ///
    /// # Errors
    /// When the training fails.
    pub fn train(&self, progress: &Progress, database: &str, training: &Training<'_>) -> Result<Cost> {
        let Training { model, family, params, memory } = training;
        let bound = memory.map_or_else(String::new, |memory| format!("SET rec.training_memory = '{memory}'; "));
        let memory = progress.watched(
            &format!("training {model}"),
            || training_status(&self.cluster, database),
            |_| {
                let call = format!("CALL rec_train('{family}', '{params}', 'shop', '{model}')");
                let call = format!("SET client_min_messages = warning; {bound}{call}");
                self.watching_memory(database, || self.ask(database, &call).map(drop))
            },
        )?;
        let of =
            |column: &str| self.number(database, &format!("SELECT {column} FROM rec.models WHERE name = '{model}'"));
        Ok(Cost { seconds: of("seconds")?, cpu_seconds: of("cpu_seconds")?, memory })
    }

    /// The most memory of its own that the training process had while `work` was done.
    fn watching_memory(&self, database: &str, work: impl FnOnce() -> Result<()>) -> Result<u64> {
        std::thread::scope(|scope| {
            let (done, waiting) = channel::<()>();
            let watch = scope.spawn(move || {
                let (mut pid, mut most) = (None, 0);
                while waiting.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    pid = pid.or_else(|| self.ask(database, "SELECT pid FROM rec.progress").ok()?.parse::<u32>().ok());
                    most = most.max(pid.and_then(processes::anonymous).unwrap_or(0));
                }
                most
            });
            work()?;
            drop(done);
            Ok(watch.join().unwrap_or(0))
        })
    }
}

/// One JSON object of the members in `parts`, with braces around them or without.
#[must_use]
pub fn object(parts: &[&str]) -> String {
    let bare =
        |part: &str| part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(part).trim().to_owned();
    let members = parts.iter().map(|part| bare(part.trim()));
    format!("{{{}}}", members.filter(|members| !members.is_empty()).collect::<Vec<_>>().join(", "))
}

/// The highest value of a [`Server::curve`]; 0 for an empty one.
#[must_use]
pub fn best(curve: &[(f64, f64)]) -> f64 {
    curve.iter().map(|&(_, value)| value).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_become_one_object() {
        assert_eq!(
            object(&[r#""seed": 1"#, "", "{}", r#" {"dim": 8, "loss": "bce"} "#]),
            r#"{"seed": 1, "dim": 8, "loss": "bce"}"#
        );
        assert_eq!(object(&[r#"{"a": {"b": 1}}"#]), r#"{"a": {"b": 1}}"#);
        assert_eq!(object(&[]), "{}");
    }

    #[test]
    fn the_best_of_nothing_is_nothing() {
        assert_eq!(best(&[]), 0.0);
        assert_eq!(best(&[(1.0, 0.1), (2.0, 0.3), (3.0, 0.2)]), 0.3);
    }
}
