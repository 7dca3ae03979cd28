#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::{Catalogue, ItemId, ItemIds};
use crate::{Artifact, ArtifactBuilder};

fn catalogue(ids: &ItemIds, counts: &[f32]) -> Catalogue {
    let bytes = ArtifactBuilder::new("test", &json!({}), ids, counts).finish().unwrap();
    Artifact::from_vec(bytes).unwrap().catalogue().clone()
}

fn finds_all_and_only(ids: ItemIds, others: &[ItemId]) {
    let catalogue = catalogue(&ids, &vec![0.0; ids.len()]);
    assert_eq!(catalogue.len(), ids.len());
    assert_eq!(catalogue.to_ids(), ids);
    for index in 0..ids.len() {
        let id = ids.get(index);
        assert_eq!(catalogue.index_of(&id), Some(index as u32), "{id}");
        assert_eq!(ids.index_of(&id), Some(index as u32), "{id}");
        assert_eq!(catalogue.id(index as u32), id);
    }
    for id in others {
        assert_eq!(catalogue.index_of(id), None, "{id}");
    }
}

/// A fixed scramble of a number.
fn scramble(i: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

#[test]
fn integer_ids_of_every_distribution_are_found() {
    let edges = [ItemId::Int(i64::MIN), ItemId::Int(i64::MAX), ItemId::Int(0), ItemId::Text("1".into())];
    finds_all_and_only(ItemIds::from_unsorted(Vec::<i64>::new()), &edges);
    finds_all_and_only(ItemIds::from_unsorted(vec![7i64]), &edges);
    finds_all_and_only(ItemIds::from_unsorted(vec![i64::MAX, i64::MIN]), &[ItemId::Int(0), ItemId::Int(-1)]);
    finds_all_and_only(ItemIds::from_unsorted((1..5000).collect::<Vec<i64>>()), &edges);
    let gaps: Vec<i64> = (1..5000).filter(|i| i % 7 != 3).collect();
    finds_all_and_only(gaps.into(), &[ItemId::Int(3), ItemId::Int(10), ItemId::Int(5000)]);
    finds_all_and_only((0..3000).map(|i| scramble(i) as i64).collect::<Vec<_>>().into(), &edges[2..]);
    // Two clusters at the ends of the range: every id falls into the first or the last bucket.
    let clustered: Vec<i64> = (0..1000).flat_map(|i| [i64::MIN + i, i64::MAX - 2 * i]).collect();
    finds_all_and_only(clustered.into(), &[ItemId::Int(0), ItemId::Int(i64::MAX - 1)]);
}

#[test]
fn uuid_and_text_ids_are_found() {
    let uuids: Vec<[u8; 16]> =
        (0..2000).map(|i| (u128::from(scramble(i)) << 64 | u128::from(i)).to_be_bytes()).collect();
    finds_all_and_only(uuids.into(), &[ItemId::Uuid([0; 16]), ItemId::Uuid([255; 16]), ItemId::Int(1)]);
    let mut texts: Vec<String> = (0..2000).map(|i| format!("product-{:05}", scramble(i) % 100_000)).collect();
    texts.extend(["", "a", "aa", "ключ", "商品", "zz\u{10ffff}"].map(String::from));
    finds_all_and_only(texts.into(), &[ItemId::Text("product-".into()), ItemId::Text("кл".into())]);
}

#[test]
fn popularity_order_breaks_ties_by_index() {
    let catalogue = catalogue(&vec![10i64, 20, 30, 40, 50].into(), &[1.0, 3.0, -0.0, 3.0, 0.0]);
    assert_eq!(catalogue.by_count(), [1, 3, 0, 2, 4]);
    assert_eq!(catalogue.counts(), [1.0, 3.0, 0.0, 3.0, 0.0]);
}

#[test]
fn ids_of_different_types_do_not_mix() {
    assert!(ItemIds::from_ids(vec![ItemId::Int(1), ItemId::Text("1".into())]).is_err());
    let ids = ItemIds::from_ids(vec![ItemId::Int(2), ItemId::Int(1), ItemId::Int(2)]).unwrap();
    assert_eq!(ids, ItemIds::Int(vec![1, 2]));
}

#[test]
fn a_uuid_prints_as_postgres_prints_it() {
    let uuid = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdefu128.to_be_bytes();
    assert_eq!(ItemId::Uuid(uuid).to_string(), "01234567-89ab-cdef-0123-456789abcdef");
}
