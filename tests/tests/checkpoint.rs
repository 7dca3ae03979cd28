//! Weights from outside: what is wrong with them ends in an ERROR and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use pgrec_tests::{Database, Encoder, Random, array, each_database, hex};
use serde_json::{Value, json};

/// Small, because a thousand of them are imported.
const ITEMS: usize = 12;
const MUTATIONS: usize = 1_000;

/// Everything a failed import must leave as it was.
const STORED: &str = "SELECT count(*), coalesce(sum(hashtext(m::text)::bigint), 0) FROM rec.model m
    UNION ALL SELECT count(*), coalesce(sum(hashtext(md5(data))::bigint), 0) FROM rec.artifact
    UNION ALL SELECT count(*), max(deployment_id) FROM rec.deployment
    UNION ALL SELECT count(*), 0 FROM rec.progress";

fn import(name: &str, bytes: &[u8], items: &str) -> String {
    format!("SELECT rec_import('{name}', {}, {items}, recommender => 'shop');", hex(bytes))
}

/// Imports the file in an attempt that must fail, and checks that nothing is stored.
fn refused(database: &Database<'_>, what: &str, bytes: &[u8], items: &str, says: &str) {
    let before = database.ask(STORED);
    let message = database.fails(&import("bad", bytes, items));
    assert!(message.contains(says), "{what}: {message}");
    assert!(message.lines().count() < 30 && message.len() < 4_000, "{what}: {message}");
    assert_eq!(database.ask(STORED), before, "{what} left something behind");
}

#[test]
fn files_with_wrong_shapes_values_and_lengths_are_refused_and_leave_nothing() {
    each_database(|database| {
        let ids = format!("{}::bigint[]", array(1..=ITEMS));
        let encoder = Encoder::new(3, ITEMS);
        let file = encoder.bytes();
        let query = "item_encoder.layer.0.attention.query.weight";
        for length in [1, 7, 8, 9, 100, file.len() / 2, file.len() - 1] {
            refused(database, &format!("first {length} bytes"), &file[..length], &ids, "not a safetensors file");
        }
        let mut longer = file.clone();
        longer.push(0);
        refused(database, "one byte too many", &longer, &ids, "not a safetensors file");
        for (what, value) in [("NaN", f32::NAN), ("infinity", f32::INFINITY)] {
            let mut wrong = encoder.clone();
            wrong.tensors.get_mut(query).unwrap().1[7] = value;
            refused(database, what, &wrong.bytes(), &ids, query);
        }
        let mut wrong = encoder.clone();
        wrong.tensors.get_mut(query).unwrap().0 = vec![8, 32];
        refused(database, "a matrix of another shape", &wrong.bytes(), &ids, query);
        let mut wrong = encoder.clone();
        wrong.tensors.get_mut(query).unwrap().0 = vec![256];
        refused(database, "a matrix that is a row", &wrong.bytes(), &ids, query);
        let mut wrong = encoder.clone();
        wrong.tensors.remove("LayerNorm.bias");
        refused(database, "a missing tensor", &wrong.bytes(), &ids, "LayerNorm.bias");
        let mut wrong = encoder.clone();
        let tensor = wrong.tensors.remove("item_encoder.layer.1.attention.key.bias").unwrap();
        wrong.tensors.insert("item_encoder.layer.4000000000.attention.key.bias".into(), tensor);
        refused(database, "four billion blocks", &wrong.bytes(), &ids, "blocks");
        let mut wrong = encoder.clone();
        wrong.tensors.insert("position_embeddings.weight".into(), (vec![0, 16], Vec::new()));
        refused(database, "no positions", &wrong.bytes(), &ids, "");
        let mut wrong = encoder.clone();
        wrong.tensors.insert("item_embeddings.weight".into(), (vec![0, 16], Vec::new()));
        refused(database, "no items", &wrong.bytes(), &ids, "");
    });
}

/// A table of contents and the bytes it claims to describe.
fn written_by_hand(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_asked_for() {
    each_database(|database| {
        let ids = "'{1}'::bigint[]";
        let huge = u64::MAX / 8;
        let table = |shape: Value, end: u64| {
            let tensor = json!({ "dtype": "F32", "shape": shape, "data_offsets": [0, end] });
            json!({ "item_embeddings.weight": tensor })
        };
        for (what, header) in [
            ("more than memory", table(json!([1_u64 << 40, 64]), 1 << 48)),
            ("a product that overflows", table(json!([1_u64 << 62, 64]), 64)),
            ("offsets that overflow", table(json!([1, 1]), huge)),
            ("a negative size", table(json!([-1, 64]), 0)),
            ("a size that is no number", table(json!(["many", 64]), 0)),
            (
                "sizes nested deep",
                table(serde_json::from_str(&format!("{}{}", "[".repeat(100), "]".repeat(100))).unwrap(), 0),
            ),
        ] {
            refused(database, what, &written_by_hand(&header, &[0; 64]), ids, "");
        }
        let mut claims = vec![0xff_u8; 8];
        claims.extend_from_slice(b"{}");
        refused(database, "a header longer than any file", &claims, ids, "not a safetensors file");
    });
}

#[test]
fn a_changed_configuration_in_an_export_is_refused() {
    each_database(|database| {
        let file = unhex(&database.ask("SELECT encode(rec_export('encoder', 'shop'), 'hex')"));
        for (what, from, to) in [
            ("a window of billions", "window\\\":20", "window\\\":4000000000"),
            ("a dimension of billions", "dim\\\":16", "dim\\\":4000000000"),
            ("no heads", "heads\\\":2", "heads\\\":0"),
            ("heads that do not divide", "heads\\\":2", "heads\\\":7"),
            ("a negative number of blocks", "blocks\\\":2", "blocks\\\":-1"),
            ("more blocks than tensors", "blocks\\\":2", "blocks\\\":99"),
            ("a version of the future", "version\\\":1", "version\\\":9"),
        ] {
            refused(database, what, &with_header(&file, from, to), "NULL::bigint[]", "ERROR");
        }
    });
}

/// The file with a change in its header, where our own configuration is a string of JSON within JSON.
fn with_header(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let end = 8 + usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    let header = std::str::from_utf8(&file[8..end]).unwrap();
    let changed = header.replace(from, to);
    assert_ne!(header, changed);
    [&(changed.len() as u64).to_le_bytes(), changed.as_bytes(), &file[end..]].concat()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn a_thousand_mutations_are_errors_or_models_that_answer() {
    each_database(|database| {
        let mut random = Random::fresh();
        let file = Encoder::new(5, ITEMS).bytes();
        // In one session, as an attacker would: what one attempt spoils the next ones meet.
        let mut script = String::from(
            "CREATE TABLE outcome (n integer, imported boolean, state text, message text);
             CREATE PROCEDURE attempt(n integer, weights bytea) LANGUAGE plpgsql AS $$
             DECLARE
                 before text; after text; answered bigint;
             BEGIN
                 SELECT string_agg(a::text, ' ') INTO before FROM (SELECT count(*), max(model_id) FROM rec.model
                 UNION ALL SELECT count(*), max(model_id) FROM rec.artifact) a;
                 BEGIN
                     PERFORM rec_import('mutant', weights, (SELECT array_agg(i)
                     FROM generate_series(1, 12) i), recommender => 'shop');
                 EXCEPTION WHEN OTHERS THEN
                     SELECT string_agg(a::text, ' ') INTO after FROM (SELECT count(*), max(model_id) FROM rec.model
                     UNION ALL SELECT count(*), max(model_id) FROM rec.artifact) a;
                     IF before IS DISTINCT FROM after THEN RAISE 'attempt % failed and left something behind: %, %',
                     n, before, after; END IF;
                     INSERT INTO outcome VALUES (n, false, SQLSTATE, SQLERRM);
                     RETURN;
                 END;
                 SELECT count(*) INTO answered FROM rec_next_session(ARRAY[1, 2, 3], 5, model => 'mutant',
                 recommender => 'shop') WHERE score = score AND abs(score) < 'infinity';
                 PERFORM rec_similar(1, 3, model => 'mutant', recommender => 'shop');
                 INSERT INTO outcome VALUES (n, true, NULL, answered::text);
                 PERFORM rec_drop_model('mutant', 'shop');
             END $$;\n",
        );
        for n in 0..MUTATIONS {
            let _ = writeln!(script, "CALL attempt({n}, {});", hex(&mutated(&file, &mut random)));
        }
        database.run(&script);
        let [all, imported, silent]: [usize; 3] = numbers(&database.ask(
            "SELECT count(*), count(*) FILTER (WHERE imported), count(*) FILTER (WHERE imported AND message = '0')
                FROM outcome",
        ));
        println!("{imported} of {all} mutations are usable models, the others are errors");
        println!("{}", database.ask("SELECT state, count(*), min(message) FROM outcome WHERE NOT imported GROUP BY 1"));
        assert_eq!(all, MUTATIONS);
        assert!(imported > 0 && imported < MUTATIONS, "{imported}: the mutations are not interesting");
        assert_eq!(silent, 0, "models that give nothing or no finite score");
        let internal = "SELECT count(*) FROM outcome WHERE state LIKE 'XX0%'
            OR message ~* 'panic|overflow|out of range for slice'";
        assert_eq!(
            database.ask(internal),
            "0",
            "{}",
            database.ask("SELECT * FROM outcome WHERE state LIKE 'XX0%' LIMIT 5")
        );
        assert_eq!(database.items("SELECT * FROM rec_next(1, 3)").len(), 3);
    });
}

fn numbers<const N: usize>(row: &str) -> [usize; N] {
    row.split('|').map(|field| field.parse().unwrap()).collect::<Vec<usize>>().try_into().unwrap()
}

/// The file with one to three accidents, a third of them in its table of contents.
fn mutated(file: &[u8], random: &mut Random) -> Vec<u8> {
    let header = 8 + usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    let mut bytes = file.to_vec();
    for _ in 0..=random.below(3) {
        let reach = if random.below(3) == 0 { header.min(bytes.len()) } else { bytes.len() };
        if reach < 8 {
            break;
        }
        let at = random.below(reach);
        match random.below(12) {
            0 | 7 | 8 => bytes[at] ^= 1 << random.below(8),
            1 | 9 => bytes[at] = random.bits() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(reach))),
            4 => {
                let more: Vec<u8> = (0..=random.below(16)).map(|_| random.bits() as u8).collect();
                drop(bytes.splice(at..at, more));
            }
            5 | 10 => {
                // A digit of a size or an offset becomes another one.
                if let Some(digit) = (at..reach).find(|&i| bytes[i].is_ascii_digit()) {
                    bytes[digit] = b'0' + random.below(10) as u8;
                }
            }
            _ => {
                let value = [f32::NAN, f32::INFINITY, f32::MAX, -0.0, 1e-45][random.below(5)];
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
        }
    }
    bytes
}

#[test]
fn an_exported_model_imported_again_answers_the_same() {
    each_database(|database| {
        database.run("SELECT rec_import('again', rec_export('encoder'), NULL::bigint[])");
        for call in [
            "SELECT u, n.* FROM generate_series(1, 50) u, rec_next(u, 20, model => 'MODEL') n ORDER BY 1, 2",
            "SELECT i, n.* FROM generate_series(1, 50) i, rec_similar(i, 5, model => 'MODEL') n ORDER BY 1, 2",
            "SELECT rec_encode(7, model => 'MODEL')",
            "SELECT md5(rec_export('MODEL'))",
            "SELECT items, bytes, checksum FROM rec.models WHERE name = 'MODEL'",
        ] {
            assert_eq!(
                database.ask(&call.replace("MODEL", "encoder")),
                database.ask(&call.replace("MODEL", "again")),
                "{call}"
            );
        }
        let warned = database.session().run("SELECT count(*) > 0 FROM rec_evaluate('again')");
        assert!(warned.text.contains("nobody has said"), "{}", warned.text);
    });
}

#[test]
fn an_import_maps_rows_to_ids_and_leaves_out_rows_without_one() {
    each_database(|database| {
        let file = hex(&Encoder::new(11, 200).bytes());
        // The items of rows 1 to 200 in reverse, and one row nobody has an id for.
        database.run(&format!(
            "SELECT rec_import('reversed', {file}, ARRAY(SELECT CASE WHEN n = 7 THEN NULL ELSE n END
                FROM generate_series(200, 1, -1) n))"
        ));
        assert_eq!(database.ask("SELECT items FROM rec.models WHERE name = 'reversed'"), "199");
        let straight = database.list("SELECT * FROM rec_next_session('{3,40}', 150, model => 'encoder')");
        let reversed = database.list("SELECT * FROM rec_next_session('{198,161}', 150, model => 'reversed')");
        let kept: Vec<_> =
            straight.iter().filter(|row| row.item != 201 - 7).map(|row| (201 - row.item, row.score)).collect();
        let pairs: Vec<_> = reversed.iter().map(|row| (row.item, row.score)).collect();
        assert_eq!(kept[..140], pairs[..140]);
        let message = database.fails(&format!("SELECT rec_import('twice', {file}, '{{1,2,1}}'::bigint[])"));
        assert!(message.contains("item 1 to both row 1 and row 3"), "{message}");
        let message =
            database.fails(&format!("SELECT rec_import('many', {file}, ARRAY(SELECT generate_series(1, 300)))"));
        assert!(message.contains("names 300 rows"), "{message}");
        let message = database.fails(&format!("SELECT rec_import('none', {file}, '{{NULL,NULL}}'::bigint[])"));
        assert!(message.contains("no row"), "{message}");
    });
}
