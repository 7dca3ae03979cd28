//! What a cluster is made with.

/// How a cluster is made and run. The default is fast and not durable.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines of the configuration, in order: the last one of a name wins.
    pub settings: Vec<(String, String)>,
    /// Whether writes survive a failure of the machine. A killed server loses nothing either way, because the
    /// operating system keeps its pages; tests of recovery ask for it all the same.
    pub durable: bool,
    /// Whether pages have checksums; `None` leaves the version's default (off before 18, on from 18).
    pub checksums: Option<bool>,
    /// More arguments for initdb.
    pub initdb: Vec<String>,
    /// Whether the server keeps running when the [`super::Cluster`] is dropped.
    pub persistent: bool,
}

impl Options {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With `fsync` and full page writes.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// With or without page checksums.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = Some(on);
        self
    }

    /// The server outlives the value that started it.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }
}

/// How a server is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Disconnects everybody and writes a checkpoint.
    Fast,
    /// No checkpoint: the next start recovers from the log.
    Immediate,
}
