//! The type `semantic_id`, and `rec_semantic_id`, `rec_semantic_ids`, `rec_semantic_items`, `rec_semantic_neighbours`,
//! `rec_semantic_stats`, `rec_semantic_vocabulary`, `rec_semantic_assign`.

use std::ffi::{CStr, CString};
use std::time::Instant;

use pgrx::prelude::*;
use pgrx::{Internal, pg_extern};

use super::door::Door;
use crate::codes::{Coded, Lookup, from_bytes, to_bytes};
use crate::compute;
use crate::error::{Result, SqlError, or_raise};
use crate::ids;
use crate::pg::message;
use crate::pg::spi::Mode;

/// A code in SQL: the type `semantic_id` is laid out as bytea.
type Bytes = Vec<u8>;

/// `k` of `rec_semantic_items` where the caller gave NULL.
const PAGE: i32 = 1_000;
/// `k` of `rec_semantic_neighbours` where the caller gave NULL.
const NEIGHBOURS: i32 = 10;

#[pg_extern(sql = false)]
fn semantic_id_in(text: &CStr) -> Bytes {
    or_raise(text.to_str().map_err(|_| ()).and_then(parse).map_err(|()| invalid(&text.to_string_lossy())))
}

#[pg_extern(sql = false)]
fn semantic_id_out(code: &[u8]) -> CString {
    CString::new(or_raise(print(code))).unwrap_or_default()
}

#[pg_extern(sql = false)]
fn semantic_id_recv(sent: Internal) -> Bytes {
    let bytes = message::rest(sent);
    or_raise(from_bytes(&bytes));
    bytes
}

#[pg_extern(sql = false)]
fn semantic_id_integers(code: &[u8]) -> Vec<i32> {
    or_raise(from_bytes(code)).into_iter().map(i32::from).collect()
}

#[pg_extern(sql = false)]
fn semantic_id_of_integers(codes: Vec<Option<i32>>) -> Bytes {
    or_raise(of_integers(&codes))
}

#[pg_extern(sql = false)]
fn semantic_id_starts(code: &[u8], prefix: &[u8]) -> bool {
    code.starts_with(prefix)
}

#[pg_extern(sql = false)]
fn rec_semantic_prefix(code: &[u8], levels: i32) -> Bytes {
    let bytes = usize::try_from(levels).unwrap_or(0).saturating_mul(2).min(code.len());
    code[..bytes].to_vec()
}

/// `<a_12><b_7>`: a letter a level. Blanks between levels are skipped; nothing is the beginning of every code.
fn parse(text: &str) -> std::result::Result<Bytes, ()> {
    let mut code = Vec::new();
    let mut rest = text.trim();
    for letter in b'a'..=b'z' {
        if rest.is_empty() {
            break;
        }
        let (token, after) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(())?;
        let digits = token.strip_prefix(char::from(letter)).and_then(|token| token.strip_prefix('_')).ok_or(())?;
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(());
        }
        code.push(digits.parse::<u16>().map_err(|_| ())?);
        rest = after.trim_start();
    }
    if rest.is_empty() { Ok(to_bytes(&code)) } else { Err(()) }
}

fn print(code: &[u8]) -> Result<String> {
    Ok(from_bytes(code)?.iter().zip(b'a'..=b'z').map(|(code, letter)| token(letter, *code)).collect())
}

fn token(letter: u8, code: u16) -> String {
    format!("<{}_{code}>", char::from(letter))
}

fn of_integers(codes: &[Option<i32>]) -> Result<Bytes> {
    let code = |code: &Option<i32>| code.and_then(|code| u16::try_from(code).ok());
    let codes: Option<Vec<u16>> = codes.iter().map(code).collect();
    let codes = codes.filter(|codes| codes.len() <= pgrec_engine::codes::MOST_LEVELS).ok_or_else(|| {
        SqlError::parameter("these numbers are no semantic_id")
            .hint("It is one number from 0 to 65535 a level, of at most 26 levels.")
    })?;
    Ok(to_bytes(&codes))
}

fn invalid(text: &str) -> SqlError {
    SqlError::new(
        PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type semantic_id: \"{text}\""),
    )
    .hint("For example '<a_12><b_7>': a letter a level, in the order of the alphabet.")
}

fn lookup<T: Door>(function: &str, model: Option<String>, recommender: Option<String>) -> Result<Lookup> {
    let lookup = Lookup::open(Mode::Read, recommender.as_deref(), model.as_deref())?;
    if T::INTEGER {
        ids::require_integer_ids(&lookup.recommender, function)?;
    }
    Ok(lookup)
}

fn count(k: Option<i32>, default: i32) -> Result<usize> {
    let k = k.unwrap_or(default);
    usize::try_from(k).map_err(|_| SqlError::parameter(format!("k must not be negative, and is {k}")))
}

fn id_of<T: Door>(item: Option<T>, model: Option<String>, recommender: Option<String>) -> Result<Option<Bytes>> {
    let Some(item) = item else { return Ok(None) };
    let code = lookup::<T>("rec_semantic_id", model, recommender)?.code_of(&item.id())?;
    Ok(code.map(|code| to_bytes(&code)))
}

fn rows<T: Door>(coded: Vec<Coded>) -> Result<Vec<(T, Bytes)>> {
    coded.into_iter().map(|coded| Ok((T::item(&coded.item)?, to_bytes(&coded.code)))).collect()
}

fn all<T: Door>(model: Option<String>, recommender: Option<String>) -> Result<Vec<(T, Bytes)>> {
    rows(lookup::<T>("rec_semantic_ids", model, recommender)?.all()?)
}

fn items<T: Door>(
    prefix: Option<&[u8]>,
    k: Option<i32>,
    model: Option<String>,
    recommender: Option<String>,
) -> Result<Vec<(T, Bytes)>> {
    let lookup = lookup::<T>("rec_semantic_items", model, recommender)?;
    rows(lookup.under(&from_bytes(prefix.unwrap_or_default())?, count(k, PAGE)?)?)
}

type NeighbourRow<T> = (i32, T, i32, f32, Bytes);

fn neighbours<T: Door>(
    item: Option<T>,
    k: Option<i32>,
    model: Option<String>,
    recommender: Option<String>,
) -> Result<Vec<NeighbourRow<T>>> {
    let lookup = lookup::<T>("rec_semantic_neighbours", model, recommender)?;
    let Some(item) = item else { return Ok(Vec::new()) };
    let found = lookup.neighbours(&item.id(), count(k, NEIGHBOURS)?)?;
    let row = |(rank, near): (i32, crate::codes::Neighbour)| {
        Ok((rank, T::item(&near.coded.item)?, near.shared as i32, near.distance, to_bytes(&near.coded.code)))
    };
    (1..).zip(found).map(row).collect()
}

macro_rules! doors {
    ($id:ty, $id_of:ident, $all:ident, $items:ident, $neighbours:ident) => {
        #[pg_extern(sql = false)]
        fn $id_of(item_id: Option<$id>, model: Option<String>, recommender: Option<String>) -> Option<Bytes> {
            or_raise(id_of(item_id, model, recommender))
        }

        #[pg_extern(sql = false)]
        fn $all(
            model: Option<String>,
            recommender: Option<String>,
        ) -> TableIterator<'static, (name!(item_id, $id), name!(code, Bytes))> {
            TableIterator::new(or_raise(all(model, recommender)))
        }

        #[pg_extern(sql = false)]
        fn $items(
            prefix: Option<&[u8]>,
            k: Option<i32>,
            model: Option<String>,
            recommender: Option<String>,
        ) -> TableIterator<'static, (name!(item_id, $id), name!(code, Bytes))> {
            TableIterator::new(or_raise(items(prefix, k, model, recommender)))
        }

        #[pg_extern(sql = false)]
        fn $neighbours(
            item_id: Option<$id>,
            k: Option<i32>,
            model: Option<String>,
            recommender: Option<String>,
        ) -> TableIterator<
            'static,
            (name!(rank, i32), name!(item_id, $id), name!(shared, i32), name!(distance, f32), name!(code, Bytes)),
        > {
            TableIterator::new(or_raise(neighbours(item_id, k, model, recommender)))
        }
    };
}

doors!(i64, rec_semantic_id_bigint, rec_semantic_ids_bigint, rec_semantic_items_bigint, rec_semantic_neighbours_bigint);
doors!(String, rec_semantic_id_text, rec_semantic_ids_text, rec_semantic_items_text, rec_semantic_neighbours_text);

#[pg_extern(sql = false)]
fn rec_semantic_stats(
    model: Option<String>,
    recommender: Option<String>,
) -> TableIterator<'static, (name!(level, Option<i32>), name!(metric, String), name!(value, f64))> {
    let lookup = or_raise(lookup::<String>("rec_semantic_stats", model, recommender));
    let rows = or_raise(lookup.statistics());
    TableIterator::new(rows.into_iter().map(|row| (row.level, row.metric.to_owned(), row.value)))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns stand in the signature")]
fn rec_semantic_words(
    model: Option<String>,
    recommender: Option<String>,
) -> TableIterator<
    'static,
    (name!(level, i32), name!(code, i32), name!(token, String), name!(items, i64), name!(embedding, Option<Vec<f32>>)),
> {
    let lookup = or_raise(lookup::<String>("rec_semantic_vocabulary", model, recommender));
    let words = or_raise(lookup.vocabulary()).into_iter();
    TableIterator::new(words.map(|word| {
        let letter = (b'a'..=b'z').nth(word.level as usize - 1).unwrap_or(b'z');
        (word.level, i32::from(word.code), token(letter, word.code), word.items, word.vector)
    }))
}

#[pg_extern(sql = false)]
fn rec_semantic_assign(model: Option<String>, recommender: Option<String>) -> i64 {
    or_raise(assign(model.as_deref(), recommender.as_deref())) as i64
}

fn assign(model: Option<&str>, recommender: Option<&str>) -> Result<u64> {
    let lookup = Lookup::open(Mode::Write, recommender, model)?;
    lookup.recommender.require_owner("give its items codes")?;
    let (mut said, mut done) = (Instant::now(), 0u64);
    lookup.assign(|| {
        done += 1;
        if said.elapsed() >= compute::REPORT {
            said = Instant::now();
            pgrx::notice!("rec_semantic_assign: {done} items so far");
        }
    })
}
