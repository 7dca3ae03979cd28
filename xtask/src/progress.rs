//! One line a step with the time it took; on a terminal a long step ticks while it runs.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Between two lines on how long work is getting on, where output is not a terminal.
const PLAIN_LINE: Duration = Duration::from_secs(10);

/// The steps of one command, printed on standard output.
pub struct Progress {
    started: Instant,
    terminal: bool,
}

/// The step that is running; lets its work add a remark to its line.
#[derive(Default)]
pub struct Step {
    remark: RefCell<String>,
}

impl Step {
    /// Sets the remark printed after the step's time, such as `60,000 interactions`.
    pub fn remark(&self, text: impl Into<String>) {
        *self.remark.borrow_mut() = text.into();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), terminal: std::io::stdout().is_terminal() }
    }

    /// Seconds since the command began.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Prints a line of its own.
    pub fn say(&self, line: &str) {
        println!("{line}");
        let _ = std::io::stdout().flush();
    }

    /// Runs quiet work: `what` is shown at once, its time when it is done.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn step<T>(&self, what: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        self.watched(what, || None, work)
    }

    /// Runs long work that can be asked how it is getting on: on a terminal its answer stands beside the time, else
    /// it is printed as a line now and then.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn watched<T>(
        &self,
        what: &str,
        status: impl Fn() -> Option<String> + Sync,
        work: impl FnOnce(&Step) -> Result<T>,
    ) -> Result<T> {
        let began = Instant::now();
        print!("  {what} …");
        let _ = std::io::stdout().flush();
        let step = Step::default();
        let result = std::thread::scope(|scope| {
            let (done, waiting) = channel::<()>();
            let status = &status;
            scope.spawn(move || self.tick(what, began, status, waiting));
            let result = work(&step);
            drop(done);
            result
        });
        let remark = step.remark.into_inner();
        let outcome = match (&result, remark.is_empty()) {
            (Err(_), _) => " failed".to_owned(),
            (Ok(_), true) => String::new(),
            (Ok(_), false) => format!(" ({remark})"),
        };
        let restart = if self.terminal { format!("\r\x1b[K  {what} …") } else { String::new() };
        println!("{restart} {:.1} s{outcome}", began.elapsed().as_secs_f64());
        result
    }

    fn tick(&self, what: &str, began: Instant, status: &impl Fn() -> Option<String>, waiting: Receiver<()>) {
        let every = if self.terminal { Duration::from_millis(500) } else { PLAIN_LINE };
        while waiting.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            let status = status();
            let seconds = began.elapsed().as_secs_f64();
            match (self.terminal, status) {
                (true, status) => print!("\r\x1b[K  {what} … {seconds:.0} s  {}", status.unwrap_or_default()),
                (false, Some(status)) => print!("\n    {seconds:.0} s: {status}"),
                (false, None) => continue,
            }
            let _ = std::io::stdout().flush();
        }
    }

    /// Runs work whose children print their own progress, between a line that opens it and one that closes it.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn phase<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        self.say(&format!("  {what} …"));
        let result = work();
        let outcome = if result.is_ok() { "" } else { " failed" };
        self.say(&format!("  {what} … {:.1} s{outcome}", began.elapsed().as_secs_f64()));
        result
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_separated() {
        assert_eq!(
            [0, 999, 1000, 60_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "60,000", "1,234,567"].map(str::to_owned)
        );
    }
}
