use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pgrec_kernels::{Metric, Scalar, SegmentOptions};

use super::double::{Alone, Cache, Memory};
use super::pages::Held;
use super::*;
use crate::random::SplitMix;
use crate::testing::fresh_seed;

const PAYLOAD: usize = 400;
const MEMORY: usize = 1 << 30;

fn shape(metric: Metric, exact: Scalar, scalar: Scalar, dim: usize) -> Shape {
    let options = SegmentOptions { connectivity: 6, expansion_add: 24, expansion_search: 16 };
    Shape { metric, dim, exact, scalar, options }
}

fn l2() -> Shape {
    shape(Metric::L2, Scalar::F32, Scalar::F32, 3)
}

fn stored(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn vector(random: &mut SplitMix, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| random.uniform() * 2.0 - 1.0).collect()
}

/// An index and what should be in it.
struct World {
    pages: Memory,
    cache: Cache,
    bitmaps: Bitmaps,
    random: SplitMix,
    /// Rows that a table has.
    rows: BTreeMap<u64, Vec<f32>>,
    /// Rows that were deleted and that no vacuum has removed yet.
    dead: BTreeSet<u64>,
}

impl World {
    fn new(seed: u64, shape: &Shape) -> Self {
        let pages = Memory::new(PAYLOAD, seed);
        create(&pages, shape).unwrap();
        let random = SplitMix::new(seed ^ 1);
        Self {
            pages,
            cache: Cache::default(),
            bitmaps: Bitmaps::default(),
            random,
            rows: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    /// Inserts a row at the lowest place that is free, as a heap does.
    fn insert(&mut self) -> Result<()> {
        let used = |tid: &u64| self.rows.contains_key(tid) || self.dead.contains(tid);
        let tid = (1..).find(|tid| !used(tid)).unwrap();
        let vector = vector(&mut self.random, 3);
        let inserted = insert(&self.pages, tid, &stored(&vector));
        // A row whose insertion failed is dead in the table, and perhaps in the index.
        match inserted {
            Ok(_) => drop(self.rows.insert(tid, vector)),
            Err(_) => drop(self.dead.insert(tid)),
        }
        inserted.map(drop)
    }

    fn delete(&mut self) -> Result<()> {
        let rows: Vec<u64> = self.rows.keys().copied().collect();
        for tid in rows {
            if self.random.below(4) == 0 {
                self.rows.remove(&tid);
                self.dead.insert(tid);
            }
        }
        self.vacuum()
    }

    fn vacuum(&mut self) -> Result<()> {
        let dead = &self.dead;
        let deleted = delete(&self.pages, &self.cache, &mut |tid| dead.contains(&tid))?;
        assert_eq!(deleted.left, self.rows.len() as u64);
        self.dead.clear();
        Ok(())
    }

    fn seal(&self) -> Result<()> {
        let _structure = Held::wait(&self.pages, Lock::Structure)?;
        seal::seal_all(&self.pages, &Alone)
    }

    fn step(&mut self) -> Result<()> {
        match self.random.below(12) {
            0 => self.seal(),
            1 => merge(&self.pages, &self.cache, &Alone, MEMORY).map(drop),
            2 => self.delete(),
            3 => collect(&self.pages).map(drop),
            _ => (0..20).try_for_each(|_| self.insert()),
        }
    }

    fn all(&mut self, order: Order) -> Vec<Hit> {
        let query = stored(&vector(&mut self.random, 3));
        let options = ScanOptions { expansion: 8, order, max_tuples: 30 };
        scan_all(&self.pages, &self.cache, &mut self.bitmaps, &query, options)
    }

    /// Everything is found once, nothing else is, and every page belongs to one owner at most.
    fn check(&mut self) {
        for order in [Order::Relaxed, Order::Relaxed] {
            let mut found: Vec<u64> = self.all(order).iter().map(|hit| hit.tid).collect();
            found.retain(|tid| !self.dead.contains(tid));
            found.sort_unstable();
            assert_eq!(found, self.rows.keys().copied().collect::<Vec<_>>());
        }
        let meta = Meta::read(&self.pages).unwrap();
        let mut owned = BTreeSet::from([META]);
        let mut own =
            |blocks: Vec<u32>| blocks.into_iter().for_each(|block| assert!(owned.insert(block), "two owners"));
        for chain in meta.chains() {
            own(delta::each_page(&self.pages, &meta, chain, |_, _| Ok(())).unwrap());
        }
        for entry in &meta.segments {
            let (maps, chunks) = chunks::blocks(&self.pages, entry).unwrap();
            own(maps);
            own(chunks);
            own(tombstones::blocks(&self.pages, entry).unwrap());
        }
    }
}

fn scan_all(pages: &Memory, cache: &Cache, bitmaps: &mut Bitmaps, query: &[u8], options: ScanOptions) -> Vec<Hit> {
    let mut scan = Scan::begin(pages, cache, bitmaps, query, options).unwrap();
    let mut hits = Vec::new();
    while let Some(hit) = scan.next(&mut || Ok(())).unwrap() {
        hits.push(hit);
    }
    hits
}

#[test]
fn all_rows_are_found_once_whatever_happened_before() {
    let seed = fresh_seed();
    for run in 0..8 {
        let mut world = World::new(seed.wrapping_add(run), &l2());
        for _ in 0..60 {
            world.step().unwrap();
            world.check();
        }
        let stats = stats(&world.pages).unwrap();
        let in_segments: u64 = stats.meta.segments.iter().map(|entry| u64::from(entry.live())).sum();
        assert_eq!(in_segments + stats.chain_rows, world.rows.len() as u64);
    }
}

#[test]
fn a_crash_at_any_record_loses_and_keeps_nothing_that_it_should_not() {
    let seed = fresh_seed();
    let mut crashes = 0;
    for run in 0..250 {
        let mut world = World::new(seed.wrapping_add(run), &l2());
        for _ in 0..12 {
            world.step().unwrap();
        }
        for _ in 0..3 {
            let records = world.random.below(40);
            world.pages.crash_after(records);
            while world.step().is_ok() && world.pages.records() < 100_000 {}
            crashes += 1;
            world.pages.recover();
            world.check();
            world.vacuum().unwrap();
            world.check();
        }
        world.seal().unwrap();
        let leaked = collect(&world.pages).unwrap().unwrap();
        world.check();
        let again = collect(&world.pages).unwrap().unwrap();
        assert_eq!((again.leaked, again.free), (0, leaked.free), "collecting is done at once");
    }
    assert_eq!(crashes, 750);
}

#[test]
fn pages_that_a_crash_left_are_used_again() {
    let mut world = World::new(fresh_seed(), &l2());
    for _ in 0..200 {
        world.insert().unwrap();
    }
    world.pages.crash_after(5);
    assert!(world.seal().is_err());
    world.pages.recover();
    let collected = collect(&world.pages).unwrap().unwrap();
    assert!(collected.leaked > 0, "a seal that stops after five records has written pages");
    let before = world.pages.len().unwrap();
    for _ in 0..20 {
        world.insert().unwrap();
    }
    assert_eq!(world.pages.len().unwrap(), before, "new pages although there are free ones");
    world.check();
}

/// Says so when it goes, also where a test fails: others wait for that.
struct SayWhenGone<'a>(&'a AtomicBool);

impl Drop for SayWhenGone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn readers_and_writers_at_the_same_time_never_miss_a_row_or_meet_a_removed_one() {
    const ROWS: u64 = 400;
    let seed = fresh_seed();
    let pages = Memory::new(PAYLOAD, seed);
    create(&pages, &l2()).unwrap();
    let (cache, stop) = (Cache::default(), AtomicBool::new(false));
    // Rows below ROWS stay for ever; those above come and go, and places are used again with another vector.
    let mut random = SplitMix::new(seed);
    for tid in 1..ROWS {
        insert(&pages, tid, &stored(&vector(&mut random, 3))).unwrap();
    }
    // The oldest generation of rows above that a scan beginning now may find.
    let (vacuumed, scanned) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (pages, cache, stop, vacuumed, scanned) = (&pages, &cache, &stop, &vacuumed, &scanned);
        scope.spawn(move || {
            let _stop = SayWhenGone(stop);
            let mut generation = 0;
            // The more generations, the slower scans are: where they do not get far, that is enough.
            while generation < 40 || (generation < 200 && scanned.load(Ordering::SeqCst) < 200) {
                generation += 1;
                for row in 0..40 {
                    // The third number names the generation.
                    let vector = [0.0, 0.0, 10.0 + generation as f32];
                    insert(pages, ROWS + generation % 2 * 100 + row, &stored(&vector)).unwrap();
                }
                let gone = ROWS + (generation + 1) % 2 * 100;
                delete(pages, cache, &mut |tid| (gone..gone + 100).contains(&tid)).unwrap();
                vacuumed.store(generation - 1, Ordering::SeqCst);
                collect(pages).unwrap();
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let held = Held::wait(pages, Lock::Structure).unwrap();
                seal::seal_all(pages, &Alone).unwrap();
                drop(held);
                merge(pages, cache, &Alone, MEMORY).unwrap();
            }
        });
        for reader in 0..3 {
            scope.spawn(move || {
                let mut random = SplitMix::new(seed ^ (reader + 10));
                let mut bitmaps = Bitmaps::default();
                while !stop.load(Ordering::SeqCst) {
                    let gone = vacuumed.load(Ordering::SeqCst);
                    let far = random.below(2) == 0;
                    let query = if far { vec![0.0, 0.0, 10.0 + gone as f32] } else { vector(&mut random, 3) };
                    let options = ScanOptions { expansion: 10, order: Order::Relaxed, max_tuples: 20 };
                    let hits = scan_all(pages, cache, &mut bitmaps, &stored(&query), options);
                    let stay: BTreeSet<u64> = hits.iter().map(|hit| hit.tid).filter(|tid| *tid < ROWS).collect();
                    assert_eq!(stay.len() as u64, ROWS - 1, "a row is missing");
                    for hit in hits.iter().filter(|hit| far && hit.tid >= ROWS) {
                        // Rows of the generation that vacuum had removed before are where the query is.
                        assert!(gone == 0 || hit.distance >= 0.999, "a removed row was found: {hit:?} of {gone}");
                    }
                    scanned.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(scanned.into_inner() > 0, "nobody scanned");
}

#[test]
fn a_merge_takes_over_what_vacuum_removed_while_it_ran() {
    struct Meanwhile<'a>(&'a Memory, &'a Cache, AtomicBool);
    impl Crew for Meanwhile<'_> {
        fn threads(&self) -> usize {
            1
        }
        fn run(&self, work: &(dyn Fn(&Control) -> Result<()> + Sync)) -> Result<()> {
            work(&Control::default())?;
            self.2.store(true, Ordering::SeqCst);
            delete(self.0, self.1, &mut |tid| tid % 3 == 0).map(drop)
        }
    }
    let mut world = World::new(fresh_seed(), &l2());
    for _ in 0..4 {
        for _ in 0..50 {
            world.insert().unwrap();
        }
        world.seal().unwrap();
    }
    let crew = Meanwhile(&world.pages, &world.cache, AtomicBool::new(false));
    assert!(merge(&world.pages, &world.cache, &crew, MEMORY).unwrap());
    assert!(crew.2.load(Ordering::SeqCst));
    world.rows.retain(|tid, _| tid % 3 != 0);
    world.check();
    let meta = Meta::read(&world.pages).unwrap();
    assert_eq!(meta.segments.len(), 1);
    assert_eq!(meta.segments[0].dead, 66);
}

#[test]
fn distances_ascend_and_are_the_rows_own_in_every_shape() {
    let seed = fresh_seed();
    let mut random = SplitMix::new(seed);
    let shapes = [
        shape(Metric::L2, Scalar::F32, Scalar::F32, 8),
        shape(Metric::L2, Scalar::F32, Scalar::F16, 8),
        shape(Metric::InnerProduct, Scalar::F32, Scalar::BF16, 8),
        shape(Metric::Cosine, Scalar::F32, Scalar::I8, 8),
        shape(Metric::Cosine, Scalar::F16, Scalar::F16, 8),
        shape(Metric::L2, Scalar::F16, Scalar::F16, 8),
    ];
    for shape in shapes {
        let (pages, cache, exact) = (Memory::new(PAYLOAD, seed), Cache::default(), shape.exact_format().unwrap());
        create(&pages, &shape).unwrap();
        let mut given = Vec::new();
        for tid in 0..300u64 {
            let (mut numbers, mut bytes) = (vector(&mut random, 8), Vec::new());
            if shape.metric == Metric::Cosine {
                assert!(pgrec_kernels::normalise(&mut numbers));
            }
            exact.store(&numbers, &mut bytes);
            insert(&pages, tid, &bytes).unwrap();
            given.push((stored(&numbers), numbers));
            if tid == 200 {
                let _structure = Held::wait(&pages, Lock::Structure).unwrap();
                seal::seal_all(&pages, &Alone).unwrap();
            }
        }
        let options = ScanOptions { expansion: 300, order: Order::Strict, max_tuples: 1000 };
        let hits = scan_all(&pages, &cache, &mut Bitmaps::default(), &given[7].0, options);
        let is_exact = Scan::begin(&pages, &cache, &mut Bitmaps::default(), &given[7].0, options).unwrap().exact();
        assert!(hits.windows(2).all(|w| w[0].distance <= w[1].distance));
        assert!(hits.len() >= 297, "{} of 300 rows of {shape:?}", hits.len());
        let own = |numbers: &[f32]| {
            let query = exact.query(&given[7].1);
            let mut bytes = Vec::new();
            exact.store(numbers, &mut bytes);
            let mut distance = [0.0];
            query.distances(&[&bytes], &mut distance);
            exact.sql_distance(distance[0])
        };
        for hit in hits {
            let distance = own(&given[hit.tid as usize].1);
            if is_exact {
                assert!((hit.distance - distance).abs() < 1e-3, "{shape:?}: {hit:?}, not {distance}");
            } else {
                assert!(hit.distance <= distance + 1e-6, "{shape:?}: {hit:?} is above {distance}");
            }
        }
    }
}

#[test]
fn a_scan_that_is_off_ends_after_its_first_search() {
    let mut world = World::new(fresh_seed(), &l2());
    for _ in 0..300 {
        world.insert().unwrap();
    }
    world.seal().unwrap();
    for _ in 0..20 {
        world.insert().unwrap();
    }
    assert_eq!(world.all(Order::Off).len(), 8);
    let strict = world.all(Order::Strict);
    assert!(strict.len() > 200 && strict.windows(2).all(|w| w[0].distance <= w[1].distance));
    assert_eq!(world.all(Order::Relaxed).len(), 320);
}

#[test]
fn an_empty_index_has_no_rows_and_damage_is_an_error() {
    let mut world = World::new(fresh_seed(), &l2());
    assert!(world.all(Order::Relaxed).is_empty());
    world.seal().unwrap();
    assert!(Meta::read(&world.pages).unwrap().segments.is_empty(), "nothing is no segment");
    assert!(insert(&world.pages, 1, &[0; 8]).is_err());
    assert!(insert(&world.pages, 1 << 63, &[0; 12]).is_err());
    assert!(create(&world.pages, &l2()).is_err(), "there are pages already");
    for _ in 0..100 {
        world.insert().unwrap();
    }
    world.seal().unwrap();
    let mut chunk = None;
    for block in 1..world.pages.len().unwrap() {
        world
            .pages
            .read(block, &mut |page| {
                chunk = chunk.or(head::Head::read(page).filter(|h| h.kind == head::Kind::Chunk).map(|_| block));
            })
            .unwrap();
    }
    let mut change = world.pages.change().unwrap();
    let handle = change.page(chunk.unwrap()).unwrap();
    change.bytes(handle)[head::SIZE + 20] ^= 1;
    change.commit().unwrap();
    let options = ScanOptions { expansion: 10, order: Order::Off, max_tuples: 1 };
    let scan = Scan::begin(&world.pages, &Cache::default(), &mut Bitmaps::default(), &[0; 12], options);
    assert!(scan.err().unwrap().to_string().contains("CRC"));
    let mut change = world.pages.change().unwrap();
    let handle = change.page(META).unwrap();
    change.bytes(handle)[head::SIZE] = 99;
    change.commit().unwrap();
    assert!(Meta::read(&world.pages).unwrap_err().to_string().contains("format 99"));
}

#[test]
fn a_chain_is_sealed_when_it_is_long_for_its_index_or_when_that_is_convenient() {
    let mut world = World::new(fresh_seed(), &l2());
    for _ in 0..1_050 {
        world.insert().unwrap();
    }
    assert!(!seal(&world.pages, &Alone, false).unwrap(), "21 kB of rows are no trouble");
    assert!(seal(&world.pages, &Alone, true).unwrap());
    assert!(!seal(&world.pages, &Alone, true).unwrap(), "nothing is left");
    world.check();
    // 256 kB of rows of 20 bytes.
    let mut due = None;
    for tid in 10_000..40_000 {
        if insert(&world.pages, tid, &stored(&[tid as f32, 0.0, 0.0])).unwrap() {
            due = Some(tid - 10_000);
            break;
        }
    }
    assert!((12_000..15_000).contains(&due.unwrap()), "due after {due:?} rows");
    assert!(seal(&world.pages, &Alone, false).unwrap());
}

#[test]
fn merges_are_of_one_tier_and_within_memory() {
    let entry = |identity: u64, rows: u32, dead: u32| SegmentEntry {
        identity,
        map: 1,
        bytes: 1,
        rows,
        crc: 0,
        tombstones: u32::MAX,
        dead,
        version: 0,
    };
    let meta = |segments: &[(u32, u32)]| {
        let mut meta = Meta::new(&l2(), Chain { identity: 0, head: 1, tail: 1, pages: 1 });
        meta.segments = (1..).zip(segments).map(|(identity, &(rows, dead))| entry(identity, rows, dead)).collect();
        meta
    };
    let due = |segments: &[(u32, u32)]| merge_due(&meta(segments), MEMORY);
    assert_eq!(due(&[]), None);
    assert_eq!(due(&[(100, 20)]), None);
    assert_eq!(due(&[(100, 21)]), Some(vec![1]));
    assert_eq!(due(&[(1000, 0), (10, 0), (11, 0), (12, 0)]), None);
    assert_eq!(due(&[(1000, 0), (10, 0), (11, 0), (12, 0), (40, 0)]), Some(vec![2, 3, 4, 5]));
    assert_eq!(due(&[(10, 0), (100, 0), (110, 0), (120, 0), (400, 0)]), Some(vec![2, 3, 4, 5]));
    assert_eq!(merge_due(&meta(&[(1000, 300)]), 1000), None, "it does not fit");
    let many: Vec<(u32, u32)> = (0..64).map(|n| (1u32 << (n / 3), 0)).collect();
    assert_eq!(due(&many).unwrap().len(), 32);
    assert_eq!(merge_due(&meta(&many), 1).unwrap().len(), 4, "a directory that is full comes before memory");
}
