#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors, View};
use serde_json::{Value, json};

use super::{export, import};
use crate::{Artifact, ArtifactBuilder, Control, Error, ItemId, Model, Query, Result, families};

const PORT: &[u8] = include_bytes!("../../tests/golden/sasrec_port.safetensors");
const BERT: &[u8] = include_bytes!("../../tests/golden/sasrec_bert.safetensors");

/// Ids of three kinds for the 13 items of the golden checkpoints, none ascending, one row unmapped.
fn mappings() -> [Vec<Option<ItemId>>; 3] {
    let int = |j: u64| ItemId::Int(if j.is_multiple_of(2) { -(j as i64) } else { j as i64 * 1000 });
    let uuid = |j: u64| ItemId::Uuid([(j * 37 % 13) as u8; 16]);
    let text = |j: u64| ItemId::Text(format!("it\"em {}", j * 5 % 13));
    let rows = |id: &dyn Fn(u64) -> ItemId| (0..13).map(|j| (j != 4).then(|| id(j))).collect();
    [rows(&int), rows(&uuid), rows(&text)]
}

fn read(bytes: &[u8], rows: &[Option<ItemId>], params: Value) -> Result<ArtifactBuilder> {
    import(bytes, rows, &params, &Control::default())
}

fn artifact(built: &ArtifactBuilder) -> Arc<Artifact> {
    Arc::new(Artifact::from_vec(built.finish().unwrap()).unwrap())
}

/// One tensor of a file under change.
#[derive(Clone)]
struct Part {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Part {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// A checkpoint with something changed.
fn changed(bytes: &[u8], change: impl FnOnce(&mut BTreeMap<String, Part>)) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let part = |t: safetensors::tensor::TensorView<'_>| Part {
        dtype: t.dtype(),
        shape: t.shape().to_vec(),
        data: t.data().to_vec(),
    };
    let mut parts: BTreeMap<String, Part> = file.tensors().into_iter().map(|(name, t)| (name, part(t))).collect();
    change(&mut parts);
    safetensors::serialize(parts.iter(), None).unwrap()
}

fn why(result: Result<ArtifactBuilder>) -> String {
    match result {
        Err(Error::Malformed(why) | Error::Parameter(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("imported"),
    }
}

#[test]
fn an_export_imports_to_the_same_bytes() {
    for rows in mappings() {
        for (bytes, params) in [(PORT, json!({"heads": 4, "block": "pre_ln"})), (BERT, json!({}))] {
            let mut built = read(bytes, &rows, params).unwrap();
            built.counts((0..12).map(|i| (i * i % 7) as f32).collect());
            let first = artifact(&built);
            let exported = export(&first).unwrap();
            assert_eq!(exported, export(&first).unwrap(), "the same model exports to the same bytes");
            let again = read(&exported, &[], json!({})).unwrap();
            assert_eq!(again.finish().unwrap(), built.finish().unwrap());
        }
    }
}

#[test]
fn the_order_of_the_mapping_does_not_matter() {
    let rows = mappings()[0].clone();
    let straight = families::open(artifact(&read(BERT, &rows, json!({})).unwrap())).unwrap();
    let moved = changed(BERT, |parts| {
        // Items reversed in their rows 1..=13; padding before and the mask token after stay.
        let table = &mut parts.get_mut("item_embeddings.weight").unwrap().data;
        let middle: Vec<u8> = table[32..14 * 32].chunks_exact(32).rev().flatten().copied().collect();
        table[32..14 * 32].copy_from_slice(&middle);
    });
    let reversed: Vec<_> = rows.iter().rev().cloned().collect();
    let other = families::open(artifact(&read(&moved, &reversed, json!({})).unwrap())).unwrap();
    let query = Query { history: &[3, 1, 7], k: 12, ..Query::default() };
    let answer = |model: &dyn Model| model.recommend(&[query], &Control::default()).unwrap().remove(0);
    assert_eq!(answer(&*straight), answer(&*other));
}

#[test]
fn half_precision_checkpoints_are_converted() {
    let single = read(PORT, &mappings()[0], json!({})).unwrap();
    let bf16 = changed(PORT, |parts| {
        for part in parts.values_mut() {
            part.dtype = Dtype::BF16;
            part.data = part.data.chunks_exact(4).flat_map(|b| [b[2], b[3]]).collect();
        }
    });
    let half = read(&bf16, &mappings()[0], json!({})).unwrap();
    let (single, half) = (artifact(&single), artifact(&half));
    for (a, b) in single.tensor("items").unwrap().as_slice().iter().zip(half.tensor("items").unwrap().as_slice()) {
        assert!((a - b).abs() <= a.abs() / 128.0);
    }
}

#[test]
fn the_ports_older_position_table_has_no_padding_row() {
    let older = changed(PORT, |parts| {
        let positions = parts.get_mut("pos_emb.weight").unwrap();
        positions.data.drain(..32);
        positions.shape[0] -= 1;
    });
    let rows = &mappings()[0];
    let bytes = |file: &[u8]| read(file, rows, json!({})).unwrap().finish().unwrap();
    assert_eq!(bytes(&older), bytes(PORT));
}

#[test]
fn a_large_catalogue_gets_a_segment() {
    let rows = &mappings()[0];
    assert!(!artifact(&read(BERT, rows, json!({})).unwrap()).has("segment"));
    assert!(artifact(&read(BERT, rows, json!({"segment_above": 11})).unwrap()).has("segment"));
    let control = Control::default();
    control.cancel();
    let stopped = import(BERT, rows, &json!({"segment_above": 11}), &control);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

#[test]
fn a_wrong_checkpoint_is_refused_by_name_and_place() {
    let rows = &mappings()[0];
    let number = |place: usize, value: f32| {
        changed(BERT, |parts| {
            let data = &mut parts.get_mut("item_encoder.layer.1.attention.key.weight").unwrap().data;
            data[4 * place..4 * place + 4].copy_from_slice(&value.to_le_bytes());
        })
    };
    for value in [f32::NAN, f32::INFINITY] {
        let why = why(read(&number(19, value), rows, json!({})));
        assert!(why.contains("item_encoder.layer.1.attention.key.weight") && why.contains("[2, 3]"), "{why}");
    }
    let expect = |file: &[u8], part: &str| {
        let why = why(read(file, rows, json!({})));
        assert!(why.contains(part), "{why} does not say {part}");
    };
    let without = |name: &str| {
        changed(BERT, |parts| {
            parts.remove(name).unwrap();
        })
    };
    expect(&without("item_embeddings.weight"), "no SASRec checkpoint");
    for name in ["LayerNorm.bias", "position_embeddings.weight", "item_encoder.layer.0.intermediate.dense_1.weight"] {
        expect(&without(name), name);
    }
    let renamed = |from: &str, to: &str| {
        changed(BERT, |parts| {
            let part = parts.remove(from).unwrap();
            parts.insert(to.into(), part);
        })
    };
    let bias = "item_encoder.layer.1.attention.key.bias";
    expect(&renamed(bias, "item_encoder.layer.2.attention.key.bias"), "no tensor \"item_encoder.layer.2.");
    expect(&without(bias), bias);
    expect(&renamed(bias, "item_encoder.layer.18446744073709551615.attention.key.bias"), "blocks");
    let reshaped =
        |name: &str, shape: &[usize]| changed(BERT, |parts| parts.get_mut(name).unwrap().shape = shape.to_vec());
    expect(&reshaped("item_encoder.layer.0.attention.query.weight", &[4, 16]), "[4, 16]");
    expect(&reshaped("item_embeddings.weight", &[120]), "not a table");
    expect(&reshaped("position_embeddings.weight", &[12, 4]), "[12, 4]");
    let integers = changed(BERT, |parts| parts.get_mut("LayerNorm.weight").unwrap().dtype = Dtype::I32);
    expect(&integers, "I32");
    expect(b"", "not a safetensors file");
    expect(&u64::MAX.to_le_bytes(), "not a safetensors file");
    let absurd =
        br#"{"item_emb.weight":{"dtype":"F32","shape":[4000000000,4000000000],"data_offsets":[0,64000000000]}}"#;
    expect(&[&(absurd.len() as u64).to_le_bytes()[..], absurd].concat(), "not a safetensors file");
}

#[test]
fn a_wrong_mapping_or_parameter_is_refused() {
    let rows = &mappings()[0];
    let expect = |rows: &[Option<ItemId>], params: Value, part: &str| {
        let why = why(read(BERT, rows, params));
        assert!(why.contains(part), "{why} does not say {part}");
    };
    let mut twice = rows.clone();
    twice[7] = twice[2].clone();
    expect(&twice, json!({}), "both row 3 and row 8");
    let mut mixed = rows.clone();
    mixed[7] = Some(ItemId::Text("7".into()));
    expect(&mixed, json!({}), "same type");
    expect(&[], json!({}), "no row");
    expect(&[None, None], json!({}), "no row");
    expect(&vec![None; 15], json!({}), "15 rows");
    expect(rows, json!({"first_row": u64::MAX}), "row 18446744073709551615");
    expect(rows, json!({"first_row": 3}), "13 rows");
    expect(rows, json!({"heads": 3}), "3 heads");
    expect(rows, json!({"heads": 0}), "heads 0");
    expect(rows, json!({"heads": -1}), "import parameters");
    expect(rows, json!({"block": "mixed"}), "post_ln");
    expect(rows, json!({"norm_eps": -1.0}), "norm_eps");
    expect(rows, json!({"item_scale": 1e300}), "item_scale");
    expect(rows, json!({"hedas": 2}), "expected one of `heads`, `first_row`");
    expect(rows, json!([1]), "import parameters");
    let own = export(&artifact(&read(BERT, rows, json!({})).unwrap())).unwrap();
    assert!(why(read(&own, rows, json!({}))).contains("its own item ids"));
}

/// A small generator, so that the mutations are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Bytes changed, removed, inserted, repeated: an error, or a model that can be opened and asked.
#[test]
fn a_thousand_mutations_of_each_format_never_panic() {
    let rows = &mappings()[2];
    let own = export(&artifact(&read(BERT, rows, json!({})).unwrap())).unwrap();
    let mut random = Random(1);
    let mut imported = 0;
    for (file, rows) in [(BERT, &rows[..]), (PORT, &rows[..]), (&own[..], &[])] {
        let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        for round in 0..1000 {
            let mut bytes = file.to_vec();
            for _ in 0..=random.below(3) {
                // The table of contents is where a change bites; the weights get a third of the rounds.
                let end = if round % 3 == 0 { bytes.len() } else { header.min(bytes.len()) };
                let place = random.below(end);
                match random.below(6) {
                    0 => bytes[place] = random.below(256) as u8,
                    1 => bytes[place] ^= 1 << random.below(8),
                    2 => bytes[place] = b"0123456789[]{}\",:"[random.below(17)],
                    3 => bytes.truncate(place.max(1)),
                    4 => bytes.insert(place, random.below(256) as u8),
                    _ => {
                        let length = random.below(64).min(bytes.len() - place);
                        bytes.drain(place..place + length);
                        bytes.push(0);
                    }
                }
            }
            let Ok(built) = read(&bytes, rows, json!({})) else { continue };
            imported += 1;
            let model = families::open(artifact(&built)).unwrap();
            let query = Query { history: &[0, 1, 2], k: 3, ..Query::default() };
            assert!(model.recommend(&[query], &Control::default()).unwrap()[0].len() <= 3);
        }
    }
    assert!(imported > 100, "the mutations are not all trivial: {imported} were still checkpoints");
}

#[test]
fn only_imported_families_are_exported() {
    let graph = ArtifactBuilder::new("graph", &json!({}), &vec![1i64].into(), &[0.0]);
    assert!(matches!(export(&artifact(&graph)), Err(Error::Unsupported { .. })));
}
