#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::{Artifact, FORMAT_VERSION};
use crate::{ArtifactBuilder, Error, ItemIds};

/// One tensor of each type, with lengths that leave nothing aligned by accident.
fn builder(ids: &ItemIds) -> ArtifactBuilder {
    let counts: Vec<f32> = (0..ids.len()).map(|i| (i % 3) as f32).collect();
    let mut builder = ArtifactBuilder::new("test", &json!({"a": 1}), ids, &counts);
    builder
        .f32("weights", &[3, 5], (0..15).map(|i| i as f32).collect())
        .u32("edges", vec![1, 2, 3])
        .u64("offsets", vec![7])
        .bytes("blob", b"thirteen byte")
        .bytes("empty", b"");
    builder
}

fn kinds() -> [ItemIds; 3] {
    [
        vec![5i64, -9, 1_000_000_007].into(),
        vec![[3u8; 16], [9; 16]].into(),
        vec!["b".to_owned(), "aé".into(), "ccc".into()].into(),
    ]
}

#[test]
fn what_was_put_in_comes_out_and_is_aligned() {
    for ids in kinds() {
        let built = builder(&ids);
        let bytes = built.finish().unwrap();
        assert_eq!(bytes, built.finish().unwrap(), "the same content gives the same bytes");
        let artifact = Artifact::from_vec(bytes.clone()).unwrap();
        assert_eq!(artifact.size(), bytes.len());
        assert_eq!((artifact.header().version, artifact.header().family.as_str()), (FORMAT_VERSION, "test"));
        assert_eq!(artifact.config::<serde_json::Value>().unwrap(), json!({"a": 1}));
        let weights = artifact.tensor("weights").unwrap();
        assert_eq!((weights.shape(), weights.row(1)[0]), (&[3usize, 5][..], 5.0));
        assert_eq!(*artifact.u32s("edges").unwrap(), [1, 2, 3]);
        assert_eq!(*artifact.u64s("offsets").unwrap(), [7]);
        assert_eq!(*artifact.raw("blob").unwrap(), *b"thirteen byte");
        assert_eq!(artifact.raw("blob").unwrap().as_ptr().align_offset(8), 0);
        assert!(artifact.raw("empty").unwrap().is_empty());
        assert_eq!(artifact.catalogue().to_ids(), ids);
    }
}

#[test]
fn asking_for_the_wrong_thing_is_an_error() {
    let artifact = Artifact::from_vec(builder(&kinds()[0]).finish().unwrap()).unwrap();
    assert!(matches!(artifact.tensor("missing"), Err(Error::Malformed(_))));
    assert!(matches!(artifact.tensor("edges"), Err(Error::Malformed(_))));
    assert!(matches!(artifact.tensor_of("weights", &[5, 3]), Err(Error::Malformed(_))));
    assert!(matches!(artifact.raw("offsets"), Err(Error::Malformed(_))));
}

#[test]
fn a_builder_refuses_what_could_not_be_read() {
    let ids = &kinds()[0];
    let refused = |change: &dyn Fn(&mut ArtifactBuilder)| {
        let mut builder = builder(ids);
        change(&mut builder);
        assert!(matches!(builder.finish(), Err(Error::Parameter(_))));
    };
    refused(&|b| _ = b.f32("wrong", &[2, 2], vec![0.0; 3]));
    refused(&|b| _ = b.f32("wrong", &[usize::MAX, 2], vec![0.0; 2]));
    refused(&|b| _ = b.u32("weights", vec![]));
    refused(&|b| _ = b.u32("header", vec![]));
    refused(&|b| _ = b.u32("ids", vec![]));
    refused(&|b| _ = b.counts(vec![1.0]));
    refused(&|b| _ = b.counts(vec![1.0, f32::NAN, 1.0]));
    let unsorted = ArtifactBuilder::new("test", &json!({}), &ItemIds::Int(vec![2, 1]), &[0.0, 0.0]);
    assert!(matches!(unsorted.finish(), Err(Error::Parameter(_))));
}

#[test]
fn a_truncated_or_extended_artifact_is_refused() {
    for ids in kinds() {
        let bytes = builder(&ids).finish().unwrap();
        for length in 0..bytes.len() {
            assert!(Artifact::from_vec(bytes[..length].to_vec()).is_err(), "{length} of {}", bytes.len());
        }
        assert!(Artifact::from_vec([bytes, vec![0]].concat()).is_err());
    }
}

/// Every byte, flipped in every bit: an error, or an artifact whose items can still be looked up.
#[test]
fn no_flipped_bit_makes_reading_panic() {
    for ids in kinds() {
        let bytes = builder(&ids).finish().unwrap();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                let Ok(artifact) = Artifact::from_vec(changed) else { continue };
                let catalogue = artifact.catalogue();
                for index in 0..catalogue.len() as u32 {
                    assert_eq!(catalogue.index_of(&catalogue.id(index)), Some(index));
                }
                for name in ["weights", "edges", "offsets", "blob"] {
                    let _ = (artifact.tensor(name), artifact.u32s(name), artifact.u64s(name), artifact.raw(name));
                }
            }
        }
    }
}

#[test]
fn ids_out_of_order_and_other_versions_are_refused() {
    let bytes = builder(&vec![1i64, 2, 3].into()).finish().unwrap();
    let place = bytes.windows(8).rposition(|w| w == 2i64.to_le_bytes()).unwrap();
    let mut repeated = bytes.clone();
    repeated[place] = 3;
    assert!(matches!(Artifact::from_vec(repeated), Err(Error::Malformed(_))));
    // The header is the last of the byte tensors of integer catalogues, and the version its first number.
    let place = bytes.windows(5).rposition(|w| w == b"\x01\x04test"[..5].as_ref()).unwrap();
    let mut newer = bytes;
    newer[place] = 2;
    let Err(Error::Malformed(why)) = Artifact::from_vec(newer) else { panic!("read") };
    assert!(why.contains("format version 2"), "{why}");
}
