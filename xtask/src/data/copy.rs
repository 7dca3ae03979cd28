//! Data sets as rows of `COPY … FROM STDIN` in its text format.

use std::fmt::Write as _;
use std::io::{Result, Write};

use super::{Dataset, Interaction, Item};

impl Dataset {
    /// The columns that [`Dataset::copy_interactions`] writes: those the source has, and `at` in any case, because a
    /// missing time has to be NULL and not the column's default.
    #[must_use]
    pub fn interaction_columns(&self) -> Vec<&'static str> {
        let has = |field: fn(&Interaction) -> bool| self.interactions.iter().any(field);
        let mut columns = vec!["user_id", "item_id", "at"];
        for (name, present) in
            [("position", has(|event| event.position.is_some())), ("rating", has(|event| event.rating.is_some()))]
        {
            if present {
                columns.push(name);
            }
        }
        columns
    }

    /// The columns that [`Dataset::copy_items`] writes.
    #[must_use]
    pub fn item_columns(&self) -> Vec<&'static str> {
        let mut columns = vec!["item_id", "title", "attributes"];
        if self.dimension().is_some() {
            columns.push("embedding");
        }
        columns
    }

    /// Writes the interactions, one line each, with the columns of [`Dataset::interaction_columns`].
    ///
    /// # Errors
    /// Those of `out`.
    pub fn copy_interactions(&self, out: &mut dyn Write) -> Result<()> {
        let columns = self.interaction_columns();
        let mut line = String::new();
        for event in &self.interactions {
            line.clear();
            for (place, column) in columns.iter().enumerate() {
                if place > 0 {
                    line.push('\t');
                }
                let value = match *column {
                    "user_id" => Some(event.user_id.to_string()),
                    "item_id" => Some(event.item_id.to_string()),
                    "at" => event.at.map(timestamp),
                    "position" => event.position.map(|position| position.to_string()),
                    _ => event.rating.map(|rating| rating.to_string()),
                };
                line.push_str(value.as_deref().unwrap_or("\\N"));
            }
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    /// Writes the items, one line each, with the columns of [`Dataset::item_columns`]: attributes as a JSON array of
    /// strings, the vector as pgvector reads it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn copy_items(&self, out: &mut dyn Write) -> Result<()> {
        let with_vectors = self.dimension().is_some();
        self.items.iter().try_for_each(|item| out.write_all(item_line(item, with_vectors).as_bytes()))
    }
}

fn item_line(item: &Item, with_vector: bool) -> String {
    let attributes = serde_json::Value::from(item.attributes.clone()).to_string();
    let title = match item.title.as_str() {
        "" => "\\N".to_owned(),
        title => escape(title),
    };
    let mut line = format!("{}\t{title}\t{}", item.item_id, escape(&attributes));
    if with_vector {
        match &item.embedding {
            None => line.push_str("\t\\N"),
            Some(vector) => {
                for (place, value) in vector.iter().enumerate() {
                    let _ = write!(line, "{}{value}", if place == 0 { "\t[" } else { "," });
                }
                line.push(']');
            }
        }
    }
    line.push('\n');
    line
}

/// Escapes what the text format gives a meaning to.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            // Postgres has no such character.
            '\0' => {}
            c => out.push(c),
        }
    }
    out
}

/// Seconds since 1970 as a timestamp with time zone.
fn timestamp(unix: i64) -> String {
    let (days, seconds) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    // Days since 1970 to a date in the Gregorian calendar, in years that begin in March so that the leap day is last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}+00")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_calendar_dates() {
        assert_eq!(timestamp(0), "1970-01-01 00:00:00+00");
        assert_eq!(timestamp(881_250_949), "1997-12-04 15:55:49+00");
        assert_eq!(timestamp(951_782_400), "2000-02-29 00:00:00+00");
        assert_eq!(timestamp(1_735_689_599), "2024-12-31 23:59:59+00");
        assert_eq!(timestamp(-1), "1969-12-31 23:59:59+00");
    }

    #[test]
    fn a_title_cannot_break_out_of_its_column() {
        let item = Item {
            item_id: 7,
            title: "a\tb\\c\nd".into(),
            attributes: vec!["it's \"x\"".into()],
            embedding: Some(vec![0.5, -1.0]),
        };
        assert_eq!(item_line(&item, true), "7\ta\\tb\\\\c\\nd\t[\"it's \\\\\"x\\\\\"\"]\t[0.5,-1]\n");
        assert_eq!(item_line(&Item { item_id: 1, ..Item::default() }, true), "1\t\\N\t[]\t\\N\n");
    }

    #[test]
    fn a_source_without_times_says_so_instead_of_leaving_it_to_the_default() {
        let event = Interaction { user_id: 1, item_id: 2, at: None, position: Some(0), rating: None };
        let data = Dataset { interactions: vec![event], ..Dataset::default() };
        let mut out = Vec::new();
        data.copy_interactions(&mut out).unwrap();
        assert_eq!(data.interaction_columns(), ["user_id", "item_id", "at", "position"]);
        assert_eq!(out, b"1\t2\t\\N\t0\n");
    }
}
