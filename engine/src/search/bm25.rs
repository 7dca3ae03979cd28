//! How well a text matches some words (Okapi BM25; Robertson and Zaragoza 2009, equation 3.15), with an inverse document
//! frequency that is never negative.

/// How quickly more of the same word counts less.
const SATURATION: f64 = 1.2;
/// How much a long text counts less, from 0 to 1.
const LENGTH: f64 = 0.75;

/// How much a word says that so many of so many texts have.
pub fn inverse_document_frequency(having: f64, texts: f64) -> f64 {
    let having = having.clamp(0.0, texts);
    (1.0 + (texts - having + 0.5) / (having + 0.5)).ln()
}

/// What a text's length is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Bm25 {
    /// Words of a text, on average.
    pub mean_length: f64,
}

impl Bm25 {
    /// The score of a text of `length` words; `matched`: of each word of the query that it has, what it says
    /// ([`inverse_document_frequency`]) and how often the text has it.
    pub fn score(&self, length: f64, matched: impl IntoIterator<Item = (f64, f64)>) -> f64 {
        let relative = if self.mean_length > 0.0 { length / self.mean_length } else { 1.0 };
        let norm = SATURATION * (1.0 - LENGTH + LENGTH * relative);
        matched.into_iter().map(|(says, times)| says * times * (SATURATION + 1.0) / (times + norm)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the numbers of the formula written out.
    #[test]
    fn a_text_scores_as_the_formula_says() {
        let says = inverse_document_frequency(1.0, 2.0);
        assert!((says - (1.0f64 + 1.5 / 1.5).ln()).abs() < 1e-12);
        let score = Bm25 { mean_length: 4.0 }.score(8.0, [(says, 3.0)]);
        let wanted = says * 3.0 * 2.2 / (3.0 + 1.2 * (0.25 + 0.75 * 2.0));
        assert!((score - wanted).abs() < 1e-12, "{score} is not {wanted}");
    }

    #[test]
    fn rare_words_short_texts_and_more_matches_score_higher() {
        let bm25 = Bm25 { mean_length: 9.0 };
        let says = |having| inverse_document_frequency(having, 1000.0);
        assert!(says(3.0) > says(30.0) && says(1000.0) > 0.0 && says(2000.0) > 0.0);
        assert!(bm25.score(6.0, [(says(3.0), 1.0)]) > bm25.score(12.0, [(says(3.0), 1.0)]));
        assert!(bm25.score(9.0, [(says(3.0), 1.0), (says(500.0), 1.0)]) > bm25.score(9.0, [(says(3.0), 1.0)]));
        assert!(bm25.score(9.0, []).abs() < 1e-12);
    }
}
