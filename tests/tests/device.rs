//! `rec.device` and `rec_devices()`. What a device computes is compared in the engine's tests, on the kernels' emulator;
//! on a machine with a device, calls are compared here.
#![allow(clippy::unwrap_used)]

use pgrec_tests::{each_database, each_server};
use xtask::Options;

/// Lists of `k` items for every user of the shop, by the sequence encoder.
const MANY: &str = "SELECT user_id, rank, item_id, score FROM rec_next_many(ARRAY(SELECT DISTINCT user_id FROM
    shop.interaction ORDER BY 1), 10, model => 'encoder') ORDER BY 1, 2";

/// Scores place by place, which are those of the same items but for ties.
fn assert_same_lists(cpu: &str, cuda: &str, tolerance: f32) {
    assert_eq!(cpu.lines().count(), cuda.lines().count());
    let score = |line: &str| line.rsplit('|').next().unwrap().parse::<f32>().unwrap();
    for (cpu, cuda) in cpu.lines().zip(cuda.lines()) {
        let largest = score(cpu).abs().max(1.0);
        assert!((score(cpu) - score(cuda)).abs() < tolerance * largest, "{cpu} on the CPU, {cuda} on the device");
    }
}

#[test]
fn what_can_be_computed_on_is_listed_and_the_cpu_always_can() {
    each_database(|database| {
        assert_eq!(database.ask("SELECT usable, memory IS NULL FROM rec_devices() WHERE device = 'cpu'"), "t|t");
        let others = database.ask("SELECT device ~ '^cuda', detail <> '' FROM rec_devices() WHERE device <> 'cpu'");
        assert!(others.lines().count() > 0 && others.lines().all(|line| line == "t|t"), "{others}");
    });
}

#[test]
fn a_device_that_was_asked_for_answers_like_the_cpu_or_an_error_names_what_is_missing() {
    each_database(|database| {
        let mut session = database.session();
        let cpu = session.ask(&format!("SET rec.device = cpu; {MANY}"));
        let usable = session.ask("SELECT count(*) FROM rec_devices() WHERE usable AND device <> 'cpu'");
        if usable == "0" {
            let missing = session.ask("SELECT detail FROM rec_devices() WHERE device LIKE 'cuda%' LIMIT 1");
            let reply = session.run(&format!("SET rec.device = cuda; {MANY}"));
            assert_eq!(reply.sqlstate.as_deref(), Some("58000"));
            assert!(reply.text.contains("HINT:  SET rec.device = cpu;"), "{}", reply.text);
            assert!(missing.contains("finds no device") || reply.text.contains(&missing), "{missing}: {}", reply.text);
        } else {
            let cuda = session.ask(&format!("SET rec.device = cuda; {MANY}"));
            assert_same_lists(&cpu, &cuda, 1e-3);
        }
        // A call for one user does not look for a device.
        assert_eq!(session.ask("SET rec.device = cuda; SELECT count(*) FROM rec_next(1, 10)"), "10");
    });
}

#[test]
fn where_there_is_no_device_auto_says_so_once_and_computes_on_the_cpu() {
    each_database(|database| {
        let mut session = database.session();
        if session.ask("SELECT count(*) FROM rec_devices() WHERE usable AND device <> 'cpu'") != "0" {
            return;
        }
        let lists = |setting: &str, users: usize| {
            format!(
                "SET rec.device = {setting}; SELECT md5(string_agg(item_id || ':' || score, ',' ORDER BY user_id, rank))
                 FROM rec_next_many(ARRAY(SELECT generate_series(1, {users})), 10, model => 'encoder')"
            )
        };
        let cpu = session.ask(&lists("cpu", 600));
        let _ = session.ask("SET client_min_messages = log");
        let said = |session: &mut pgrec_tests::Session, users| session.run(&lists("auto", users)).rows();
        assert!(!said(&mut session, 100).contains("LOG"), "a small call looks for a device");
        let first = said(&mut session, 600);
        assert_eq!(first.matches("LOG:  pgrec computes on the CPU: ").count(), 1, "{first}");
        assert!(first.contains(&cpu), "{first} is not {cpu}");
        assert_eq!(said(&mut session, 600), cpu);
    });
}

#[test]
fn the_inference_worker_answers_on_a_device_as_on_the_cpu() {
    let options = Options::new().set("shared_preload_libraries", "pgrec").set("rec.worker_fallback", "error");
    each_server("worker-device", &options, |server| {
        let shop = server.shop();
        shop.wait_for("SELECT pid IS NOT NULL FROM rec.stat_worker", "t");
        let mut session = shop.session();
        let cpu = session.ask(&format!("SET rec.device = cpu; {MANY}"));
        let on_device = "SELECT coalesce(sum(device_bytes), 0) > 0 FROM rec_models_loaded()";
        assert_eq!(session.ask(on_device), "f");
        if session.ask("SELECT count(*) FROM rec_devices() WHERE usable AND device <> 'cpu'") == "0" {
            let reply = session.run(&format!("SET rec.device = cuda; {MANY}"));
            assert_eq!(reply.sqlstate.as_deref(), Some("58000"), "{reply:?}");
            return;
        }
        for (precision, tolerance) in [("f32", 1e-3), ("bf16", 5e-2)] {
            let settings = format!("SET rec.device = cuda; SET rec.cuda_precision = {precision}");
            assert_same_lists(&cpu, &session.ask(&format!("{settings}; {MANY}")), tolerance);
        }
        assert_eq!(session.ask(on_device), "t");
        assert_eq!(session.ask("SELECT rec_evict('encoder')"), "t");
        shop.wait_for(on_device, "f");
        assert_same_lists(&cpu, &session.ask(MANY), 5e-2);
    });
}
