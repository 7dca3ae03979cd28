//! Pages and segments in memory, with crashes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use pgrec_kernels::Segment;

use super::Crew;
use super::meta::SegmentEntry;
use super::pages::{Change, Lock, Pages, Segments, Source};
use crate::random::SplitMix;
use crate::{Control, Error, Result};

/// Pages in memory. Every committed change and every written page is one record.
pub(super) struct Memory {
    state: Mutex<State>,
    moved: Condvar,
    payload: usize,
}

struct State {
    pages: Vec<Vec<u8>>,
    /// Pages that a change holds.
    locked: HashSet<u32>,
    held: HashSet<Lock>,
    /// What the free space map says, which may be wrong.
    free: Vec<u32>,
    records: usize,
    crash_at: Option<usize>,
    random: SplitMix,
}

impl State {
    fn record(&mut self) -> Result<()> {
        if self.crash_at.is_some_and(|at| self.records >= at) {
            return Err(crash());
        }
        self.records += 1;
        Ok(())
    }

    fn is_free(&self, block: u32) -> bool {
        self.pages[block as usize][..8] == [0; 8] && !self.locked.contains(&block)
    }
}

fn crash() -> Error {
    Error::File("crash".into())
}

impl Memory {
    pub(super) fn new(payload: usize, seed: u64) -> Self {
        let state = State {
            pages: Vec::new(),
            locked: HashSet::new(),
            held: HashSet::new(),
            free: Vec::new(),
            records: 0,
            crash_at: None,
            random: SplitMix::new(seed),
        };
        Self { state: Mutex::new(state), moved: Condvar::new(), payload }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything after `records` more fails.
    pub(super) fn crash_after(&self, records: usize) {
        let mut state = self.state();
        state.crash_at = Some(state.records + records);
    }

    /// What a restart gives: locks are gone, and the free space map may be one of any time before.
    pub(super) fn recover(&self) {
        let mut state = self.state();
        state.crash_at = None;
        state.locked.clear();
        state.held.clear();
        let pages = state.pages.len();
        for _ in 0..state.free.len() + 3 {
            let block = state.random.below(pages) as u32;
            state.free.push(block);
        }
        let mut free = std::mem::take(&mut state.free);
        state.random.shuffle(&mut free);
        free.truncate(free.len() / 2);
        state.free = free;
    }

    pub(super) fn records(&self) -> usize {
        self.state().records
    }
}

impl Pages for Memory {
    fn payload(&self) -> usize {
        self.payload
    }

    fn len(&self) -> Result<u32> {
        Ok(self.state().pages.len() as u32)
    }

    fn read(&self, block: u32, look: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut state = self.state();
        while state.locked.contains(&block) {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let page = state.pages.get(block as usize).cloned();
        drop(state);
        look(&page.ok_or_else(|| Error::File(format!("no page {block}")))?);
        Ok(())
    }

    fn change(&self) -> Result<Box<dyn Change + '_>> {
        Ok(Box::new(Copies { memory: self, copies: Vec::new() }))
    }

    fn allocate(&self) -> Result<u32> {
        let mut state = self.state();
        let block = free_page(&mut state, self.payload);
        Ok(block)
    }

    fn write(&self, block: u32, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        state.record()?;
        let page = &mut state.pages[block as usize];
        assert_eq!(page[..8], [0; 8], "a page in use is written");
        page[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn free(&self, block: u32) -> Result<()> {
        let mut state = self.state();
        assert!(!state.locked.contains(&block));
        if !state.is_free(block) {
            state.record()?;
            state.pages[block as usize].fill(0);
        }
        if !state.free.contains(&block) {
            state.free.push(block);
        }
        Ok(())
    }

    fn lock(&self, lock: Lock, wait: bool) -> Result<bool> {
        let mut state = self.state();
        while state.held.contains(&lock) {
            if !wait {
                return Ok(false);
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held.insert(lock);
        Ok(true)
    }

    fn unlock(&self, lock: Lock) {
        self.state().held.remove(&lock);
        self.moved.notify_all();
    }

    fn identity(&self) -> Result<u64> {
        Ok(self.state().random.next())
    }

    fn interrupts(&self) -> Result<()> {
        Ok(())
    }
}

fn free_page(state: &mut State, payload: usize) -> u32 {
    while let Some(block) = state.free.pop() {
        if state.is_free(block) {
            return block;
        }
    }
    state.pages.push(vec![0; payload]);
    state.pages.len() as u32 - 1
}

struct Copies<'a> {
    memory: &'a Memory,
    copies: Vec<(u32, Vec<u8>)>,
}

impl Change for Copies<'_> {
    fn page(&mut self, block: u32) -> Result<usize> {
        assert!(self.copies.len() < 4, "a record of more than four pages");
        let mut state = self.memory.state();
        while state.locked.contains(&block) {
            state = self.memory.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.locked.insert(block);
        self.copies.push((block, state.pages[block as usize].clone()));
        Ok(self.copies.len() - 1)
    }

    fn fresh(&mut self) -> Result<(usize, u32)> {
        assert!(self.copies.len() < 4, "a record of more than four pages");
        let mut state = self.memory.state();
        let block = free_page(&mut state, self.memory.payload);
        state.locked.insert(block);
        self.copies.push((block, vec![0; self.memory.payload]));
        Ok((self.copies.len() - 1, block))
    }

    fn bytes(&mut self, handle: usize) -> &mut [u8] {
        &mut self.copies[handle].1
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        let mut state = self.memory.state();
        state.record()?;
        for (block, bytes) in self.copies.iter_mut() {
            state.pages[*block as usize] = std::mem::take(bytes);
        }
        Ok(())
    }
}

impl Drop for Copies<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        for (block, _) in &self.copies {
            state.locked.remove(block);
        }
        drop(state);
        self.memory.moved.notify_all();
    }
}

/// Segments in memory.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<u64, Arc<Segment>>>);

impl Segments for Cache {
    fn open(&self, entry: &SegmentEntry, source: &mut Source<'_>) -> Result<Arc<Segment>> {
        if let Some(segment) = self.0.lock().unwrap().get(&entry.identity) {
            return Ok(Arc::clone(segment));
        }
        let mut bytes = Vec::new();
        source(&mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        let segment = Arc::new(Segment::view(Arc::new(bytes))?);
        self.0.lock().unwrap().insert(entry.identity, Arc::clone(&segment));
        Ok(segment)
    }

    fn keep(&self, entries: &[SegmentEntry]) {
        let current = |identity: &u64| entries.iter().any(|entry| entry.identity == *identity);
        self.0.lock().unwrap().retain(|identity, _| current(identity));
    }
}

/// The calling thread.
pub(super) struct Alone;

impl Crew for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, work: &(dyn Fn(&Control) -> Result<()> + Sync)) -> Result<()> {
        work(&Control::default())
    }
}
