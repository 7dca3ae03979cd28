//! A `tsvector` as Postgres lays it out (`tsearch/ts_type.h`).

use pgrx::FromDatum;
use pgrx::pg_sys::{self, Datum, Oid};

/// A detoasted varlena's own header, then the number of words.
const HEADER: usize = 8;
/// An entry: whether the word has positions, its length and its place, in 1, 11 and 20 bits from the lowest.
const ENTRY: usize = 4;

/// The words of a text, ascending, with how often each stands in it.
#[derive(Debug)]
pub struct TsVector {
    bytes: Vec<u8>,
    words: usize,
}

impl TsVector {
    /// Of the bytes after the varlena's header of four; what is not laid out so has no words.
    fn new(bytes: Vec<u8>) -> Self {
        let count = bytes.get(4..HEADER).and_then(|count| count.try_into().ok()).map_or(0, i32::from_ne_bytes);
        let fits = |&words: &usize| words.checked_mul(ENTRY).is_some_and(|size| HEADER + size <= bytes.len());
        let words = usize::try_from(count).ok().filter(fits).unwrap_or(0);
        Self { bytes, words }
    }

    /// A word and how often it stands in the text: once, where that is not stored.
    fn entry(&self, index: usize) -> (&[u8], usize) {
        let at = HEADER + index * ENTRY;
        let entry =
            self.bytes.get(at..at + ENTRY).and_then(|entry| entry.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let (positioned, length, place) = (entry & 1 == 1, (entry >> 1 & 0x7ff) as usize, (entry >> 12) as usize);
        let texts = HEADER + self.words * ENTRY;
        let end = texts + place + length;
        let word = self.bytes.get(texts + place..end).unwrap_or_default();
        if !positioned {
            return (word, 1);
        }
        // Positions begin at an even place from the texts' begin, with how many there are.
        let positions = texts + (place + length).next_multiple_of(2);
        let count = self.bytes.get(positions..positions + 2).and_then(|count| count.try_into().ok());
        (word, count.map_or(1, u16::from_ne_bytes).max(1).into())
    }

    /// How many words the text has, each as often as it stands there.
    pub fn length(&self) -> usize {
        (0..self.words).map(|index| self.entry(index).1).sum()
    }

    /// How often a word stands in the text.
    pub fn times(&self, word: &str) -> usize {
        let (mut low, mut high) = (0, self.words);
        while low < high {
            let middle = low + (high - low) / 2;
            let (other, times) = self.entry(middle);
            match other.cmp(word.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return times,
            }
        }
        0
    }
}

impl FromDatum for TsVector {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller says that the datum is a tsvector, which is a varlena; a detoasted one is as long as it says,
        // and its bytes are copied before a copy that detoasting made is freed.
        unsafe {
            let given = datum.cast_mut_ptr::<pg_sys::varlena>();
            let value = pg_sys::pg_detoast_datum(given);
            let bytes = std::slice::from_raw_parts(value.cast::<u8>(), pgrx::varsize_any(value)).to_vec();
            if value != given {
                pg_sys::pfree(value.cast());
            }
            Some(Self::new(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 'apple':1,4 'pear' 'zoo':2, as Postgres writes it.
    fn fruit() -> TsVector {
        let entry = |positioned: u32, length: u32, place: u32| (positioned | length << 1 | place << 12).to_ne_bytes();
        let mut bytes = vec![0; 4];
        bytes.extend(3i32.to_ne_bytes());
        // "apple" is followed by a byte that brings its positions to an even place.
        bytes.extend([entry(1, 5, 0), entry(0, 4, 12), entry(1, 3, 16)].concat());
        bytes.extend(b"apple\0");
        [2u16, 1, 4].iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        bytes.extend(b"pearzoo\0");
        [1u16, 2].iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        TsVector::new(bytes)
    }

    #[test]
    fn words_are_found_with_how_often_they_stand_there() {
        let fruit = fruit();
        assert_eq!(["apple", "pear", "zoo", "app", "quince", ""].map(|word| fruit.times(word)), [2, 1, 1, 0, 0, 0]);
        assert_eq!(fruit.length(), 4);
    }

    #[test]
    fn what_is_cut_short_has_fewer_words_and_no_panic() {
        let whole = fruit().bytes;
        for end in 0..whole.len() {
            let cut = TsVector::new(whole[..end].to_vec());
            assert!(cut.length() <= 4 && cut.times("zoo") <= 1);
        }
        let mut wild = whole;
        wild[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        assert_eq!(TsVector::new(wild).length(), 0);
    }
}
