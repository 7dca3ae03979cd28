#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::progress::Progress;
use crate::toolchain::embedded_postgres;

fn temporary(label: &str, options: &Options) -> (Home, Cluster) {
    let home = Home::locate().unwrap();
    let postgres = embedded_postgres(&home, 16, &Progress::new()).unwrap();
    let cluster = Cluster::temporary(&home, &postgres, label, options).unwrap();
    (home, cluster)
}

#[test]
fn committed_rows_survive_kill_9_and_uncommitted_ones_do_not() {
    let (_home, cluster) = temporary("crash", &Options::new().durable());
    cluster.psql("CREATE EXTENSION vector; CREATE TABLE t (v vector(2)); INSERT INTO t VALUES ('[1,2]')").unwrap();
    let mut open = cluster.client("psql", "postgres");
    open.args(["-X", "-c", "BEGIN; INSERT INTO t VALUES ('[3,4]'); SELECT pg_sleep(60)"]);
    let mut open = open.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    cluster
        .wait_for("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'", "1", Duration::from_secs(20))
        .unwrap();
    cluster.crash().unwrap();
    open.wait().unwrap();
    assert!(!cluster.is_running());
    cluster.start_server().unwrap();
    assert_eq!(cluster.psql("SELECT v FROM t").unwrap(), "[1,2]");
}

#[test]
fn a_standby_follows_and_can_be_promoted() {
    let (home, primary) = temporary("primary", &Options::new());
    primary.psql("CREATE TABLE t AS SELECT 1 AS x").unwrap();
    let dir = Cluster::fresh_dir(&home, "standby").unwrap();
    let standby = primary.standby(&dir, &Options::new()).unwrap();
    primary.psql("INSERT INTO t VALUES (2)").unwrap();
    standby.wait_for_replay(&primary, Duration::from_secs(30)).unwrap();
    assert_eq!(standby.psql("SELECT sum(x), pg_is_in_recovery() FROM t").unwrap(), "3|t");
    assert!(format!("{:#}", standby.psql("INSERT INTO t VALUES (3)").unwrap_err()).contains("read-only"));
    standby.promote().unwrap();
    standby.psql("INSERT INTO t VALUES (3)").unwrap();
}

#[test]
fn rows_copied_in_come_back_and_a_bad_row_is_an_error() {
    let (_home, cluster) = temporary("copy", &Options::new());
    cluster.psql("CREATE TABLE t (a bigint, b text)").unwrap();
    cluster
        .copy_in("postgres", "t (a, b)", |rows| (0..50_000).try_for_each(|row| writeln!(rows, "{row}\tname {row}")))
        .unwrap();
    assert_eq!(cluster.psql("SELECT count(*), max(b) FROM t").unwrap(), "50000|name 9999");
    let error = cluster.copy_in("postgres", "t (a, b)", |rows| writeln!(rows, "x\ty")).unwrap_err();
    assert!(format!("{error:#}").contains("invalid input syntax"), "{error:#}");
}

#[test]
fn settings_reach_the_server_and_the_password_guards_tcp() {
    let (_home, mut cluster) = temporary("settings", &Options::new().set("work_mem", "7MB"));
    assert_eq!(cluster.psql("SHOW work_mem").unwrap(), "7MB");
    cluster.set("work_mem", "9MB");
    cluster.restart().unwrap();
    assert_eq!(cluster.psql("SHOW work_mem").unwrap(), "9MB");
    let connect = |url: &str| {
        let mut psql = cluster.client("psql", "postgres");
        captured(psql.args(["-X", "-w", "-A", "-t", "-c", "SELECT 1", url]), "psql")
    };
    assert_eq!(connect(&cluster.url("postgres")).unwrap().trim(), "1");
    assert!(connect(&cluster.url("postgres").replace(cluster.password(), "wrong")).is_err());
}

#[test]
fn a_dropped_cluster_leaves_nothing_and_a_persistent_one_is_found_again() {
    let (_home, cluster) = temporary("gone", &Options::new());
    let (dir, postmaster) = (cluster.dir().to_path_buf(), cluster.postmaster().unwrap());
    drop(cluster);
    assert!(!dir.exists() && !Path::new(&format!("/proc/{postmaster}/cwd/postmaster.pid")).exists());

    let (_home, cluster) = temporary("kept", &Options::new().persistent());
    let dir = cluster.dir().to_path_buf();
    drop(cluster);
    let again = Cluster::attach(&dir).unwrap();
    assert_eq!(again.psql("SELECT 1").unwrap(), "1");
    remove(&dir).unwrap();
    assert!(!again.is_running() && !dir.exists());
}

#[test]
fn a_long_path_gets_its_socket_elsewhere() {
    assert!(socket_fits(Path::new("/tmp/cluster")));
    assert!(!socket_fits(Path::new(&format!("/tmp/{}", "x".repeat(90)))));
    let home = Home::locate().unwrap();
    let postgres = embedded_postgres(&home, 16, &Progress::new()).unwrap();
    let label = "a-cluster-whose-name-is-so-long-that-no-unix-socket-could-ever-be-placed-inside-its-own-folder";
    let cluster = Cluster::temporary(&home, &postgres, label, &Options::new()).unwrap();
    assert_ne!(cluster.socket(), cluster.dir());
    assert_eq!(cluster.psql("SELECT 1").unwrap(), "1");
}
