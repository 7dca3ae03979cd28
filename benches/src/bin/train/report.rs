//! What the bench prints: lines for people as it goes, and at its end the RESULT lines for scripts.

use xtask::progress::grouped;

use crate::contest::{Contest, Measured, Turns};

/// Figures, kept for the end.
#[derive(Default)]
pub struct Report {
    results: Vec<String>,
}

impl Report {
    /// Medians over the rounds of every side, and how many times as long as the first the others took, pair by pair.
    pub fn contest(&mut self, contest: &Contest<'_>, turns: &[Turns]) {
        let file = contest.histories;
        let (loss, users, inputs) = (contest.loss.name(), grouped(file.users), grouped(file.inputs));
        println!("\n{loss}, {} histories: {users} with {inputs} inputs", file.name);
        let at = |what: &str| format!("{loss}.{}.{what}", file.name);
        if file.name == "equal" {
            self.times(&at("step"), turns, "ms", 1e3, |turn| median(&turn.steps));
        }
        self.times(&at("epoch"), turns, "s", 1.0, |turn| median(&turn.epochs));
        for side in turns {
            let rates: Vec<f64> = side.rounds.iter().map(|turn| turn.inputs as f64 / median(&turn.epochs)).collect();
            self.result(&at(&format!("rate.{}", side.side)), median(&rates), "events/s", "");
        }
        for side in turns {
            let most = |bytes: fn(&Measured) -> Option<u64>| side.rounds.iter().filter_map(bytes).max();
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let before = most(|turn| turn.memory_before);
            let before = before.map_or_else(String::new, |bytes| format!("{:.0} MiB before training", mib(bytes)));
            if let Some(peak) = most(|turn| turn.memory_peak) {
                self.result(&at(&format!("memory.{}", side.side)), mib(peak), "MiB", &before);
            }
        }
    }

    fn times(&mut self, name: &str, turns: &[Turns], unit: &str, scale: f64, time: impl Fn(&Measured) -> f64) {
        for side in turns {
            let times: Vec<f64> = side.rounds.iter().map(|turn| scale * time(turn)).collect();
            self.result(&format!("{name}.{}", side.side), median(&times), unit, &range(&times));
        }
        let Some((first, others)) = turns.split_first() else { return };
        for other in others {
            let pairs = first.rounds.iter().zip(&other.rounds);
            let ratios: Vec<f64> = pairs.map(|(first, other)| time(other) / time(first)).collect();
            self.result(&format!("{name}.ratio"), median(&ratios), "x", &range(&ratios));
        }
    }

    fn result(&mut self, name: &str, value: f64, unit: &str, remark: &str) {
        println!("  {:>9} {unit:8} {} {remark}", digits(value), name.replace('.', " "));
        self.results.push(format!("RESULT train.{name} {} {unit}", digits(value)));
    }

    /// Prints all figures again.
    pub fn results(&self) {
        println!("\nResults\n{}", self.results.join("\n"));
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[upper],
        _ => (sorted[upper - 1] + sorted[upper]) / 2.0,
    }
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() > 1 { format!("({} … {})", digits(least), digits(most)) } else { String::new() }
}

/// Four digits that matter.
fn digits(value: f64) -> String {
    let whole = if value == 0.0 { 1 } else { value.abs().log10().floor() as i32 + 1 };
    format!("{value:.*}", usize::try_from(4 - whole).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_digits_and_large_ones_all_of_theirs() {
        assert_eq!(
            [0.0, 0.01234567, 1.0, 99.999, 123_456.7].map(digits),
            ["0.000", "0.01235", "1.000", "100.00", "123457"]
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])], [2.0, 2.5]);
    }
}
