//! Texts of an artifact, used where they lie in its bytes.

use std::cmp::Ordering;
use std::ops::Range;

use super::Shared;

/// Where the offsets are of texts of this name.
pub(super) fn offsets(name: &str) -> String {
    format!("{name}.offsets")
}

/// Texts, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Texts {
    bytes: Shared<u8>,
    offsets: Shared<u64>,
}

impl PartialEq for Texts {
    fn eq(&self, other: &Self) -> bool {
        *self.bytes == *other.bytes && *self.offsets == *other.offsets
    }
}

impl Texts {
    /// Offsets must ascend from zero to the end, and what lies between two of them be text; else what is wrong.
    pub(crate) fn new(bytes: Shared<u8>, offsets: Shared<u64>) -> Result<Self, &'static str> {
        let ends = (offsets.first() == Some(&0)) && offsets.last() == Some(&(bytes.len() as u64));
        if !ends || !offsets.is_sorted() {
            return Err("offsets of their texts are not ascending from the start to the end");
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| "they are not UTF-8")?;
        if !offsets.iter().all(|&offset| text.is_char_boundary(offset as usize)) {
            return Err("they are not UTF-8");
        }
        Ok(Self { bytes, offsets })
    }

    /// Bytes and offsets of texts.
    pub(crate) fn laid_out(texts: &[String]) -> (Vec<u8>, Vec<u64>) {
        let ends = texts.iter().scan(0, |end, text| {
            *end += text.len() as u64;
            Some(*end)
        });
        (texts.concat().into_bytes(), std::iter::once(0).chain(ends).collect())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The bytes of one.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    /// One as text.
    pub(crate) fn text(&self, index: usize) -> String {
        String::from_utf8_lossy(self.get(index)).into_owned()
    }

    /// Whether each is larger than the one before it, by bytes.
    pub(crate) fn is_ascending(&self) -> bool {
        (1..self.len()).all(|index| self.get(index - 1) < self.get(index))
    }

    /// Where one of an ascending stretch is.
    pub(crate) fn find(&self, text: &str, within: Range<usize>) -> Option<u32> {
        let Range { start: mut low, end: mut high } = within;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(text.as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(middle as u32),
            }
        }
        None
    }
}
