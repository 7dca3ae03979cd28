//! What the bench prints: lines for people as it goes, and at its end the RESULT lines for scripts.

/// Lines, kept for the end.
#[derive(Default)]
pub struct Report {
    set: String,
    results: Vec<String>,
}

impl Report {
    /// What follows is about another set of vectors.
    pub fn set(&mut self, name: &str) {
        self.set = name.to_owned();
    }

    /// Says something that is worth keeping.
    pub fn result(&mut self, key: &str, text: &str) {
        println!("  {key}: {text}");
        self.results.push(format!("RESULT ann.{}.{key} {text}", self.set));
    }

    /// Prints everything again.
    pub fn finish(&self) {
        println!("\nResults\n{}", self.results.join("\n"));
    }
}

/// Rows a second, or queries.
pub fn rate(count: usize, seconds: f64) -> String {
    format!("{:.0}", count as f64 / seconds)
}

/// Seconds as milliseconds.
pub fn ms(seconds: f64) -> String {
    format!("{:.3} ms", 1e3 * seconds)
}

/// Bytes in millions.
pub fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}
