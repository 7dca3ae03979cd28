//! Slots in memory that processes share, by which many of them ask one worker: who may touch a slot, and when.
//!
//! A slot goes from free through claimed (its client writes a question), ready on one of two lanes, taken (the worker computes, and writes
//! the answer where the question was) and done back to free. A client may leave at any moment, and never waits for the
//! worker in order to do so: what the worker has taken is abandoned to it. A worker may end at any moment; the next one
//! tells the clients of what was taken that nothing comes of it.
//!
//! Every transition is one exchange of one word, so that neither side can be stopped in the middle of one.

use std::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const READY: u32 = 2;
const TAKEN: u32 = 3;
const DONE: u32 = 4;
const FAILED: u32 = 5;
const ABANDONED: u32 = 6;
const READY_OTHER: u32 = 7;

/// The state of a slot. Zeros are a free one.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Slot(AtomicU32);

/// Who of the worker is to take a question. It is part of the state, so that whoever has seen a question on its lane does
/// not take the one that has come to the slot since on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Short, and in its place: whichever thread is free.
    Quick,
    /// Any other: the main thread.
    Other,
}

impl Lane {
    fn ready(self) -> u32 {
        match self {
            Self::Quick => READY,
            Self::Other => READY_OTHER,
        }
    }
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is in the slot.
    Answered,
    /// The worker could not answer, or ended.
    Failed,
}

impl Slot {
    fn exchange(&self, from: u32, to: u32) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether nobody holds it.
    pub fn is_free(&self) -> bool {
        self.0.load(Ordering::Acquire) == FREE
    }

    /// Whether a question waits in it, on this lane.
    pub fn is_ready(&self, lane: Lane) -> bool {
        self.0.load(Ordering::Acquire) == lane.ready()
    }

    /// Whether the worker has its question, and somebody waits for the answer.
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire) == TAKEN
    }

    /// Whether the worker has its question, and nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::Acquire) == ABANDONED
    }

    /// A client's: makes a free slot its own, whose question it then writes.
    pub fn claim(&self) -> bool {
        self.exchange(FREE, CLAIMED)
    }

    /// A client's: hands over the question that it wrote into the slot it claimed.
    pub fn submit(&self, lane: Lane) {
        self.exchange(CLAIMED, lane.ready());
    }

    /// A client's: what came of its question, once something did.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.0.load(Ordering::Acquire) {
            DONE => Some(Outcome::Answered),
            FAILED => Some(Outcome::Failed),
            _ => None,
        }
    }

    /// A client's: gives up its slot, whether it was answered or not; it must not touch the slot afterwards.
    pub fn release(&self) {
        loop {
            let state = self.0.load(Ordering::Acquire);
            let next = if state == TAKEN { ABANDONED } else { FREE };
            if self.exchange(state, next) {
                return;
            }
        }
    }

    /// The worker's: takes a question that is ready on this lane.
    pub fn take(&self, lane: Lane) -> bool {
        self.exchange(lane.ready(), TAKEN)
    }

    /// The worker's: ends what it took. Whether somebody waits for it; the slot is free if not.
    pub fn finish(&self, outcome: Outcome) -> bool {
        let ended = match outcome {
            Outcome::Answered => DONE,
            Outcome::Failed => FAILED,
        };
        let waits = self.exchange(TAKEN, ended);
        if !waits {
            self.exchange(ABANDONED, FREE);
        }
        waits
    }

    /// The worker's, before it takes anything: ends what a worker before it had taken. Whether somebody waits for it.
    pub fn recover(&self) -> bool {
        match self.0.load(Ordering::Acquire) {
            TAKEN | ABANDONED => self.finish(Outcome::Failed),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Where a client stands; the number is that of its question.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    enum Client {
        Away,
        Writing(u32),
        Waiting(u32),
    }

    /// Where the worker stands with the slot.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    enum Worker {
        Gone,
        Idle,
        /// Has read this question.
        Computing(u32),
        /// Has written its answer.
        Written,
    }

    /// One slot, clients that take turns at it, and a worker: everything that can be told apart.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct World {
        state: u32,
        /// The question or the answer that is in the slot.
        body: (bool, u32),
        clients: [Client; 2],
        worker: Worker,
        /// Questions that were asked.
        asked: u32,
    }

    const QUESTIONS: u32 = 4;

    /// Questions come on both lanes.
    fn lane(question: u32) -> Lane {
        if question.is_multiple_of(2) { Lane::Quick } else { Lane::Other }
    }

    impl World {
        fn slot(&self) -> Slot {
            Slot(AtomicU32::new(self.state))
        }

        fn after(&self, slot: &Slot, change: impl FnOnce(&mut Self)) -> Self {
            let mut next = self.clone();
            next.state = slot.0.load(Ordering::Relaxed);
            change(&mut next);
            next
        }

        /// What client `c` may do next.
        fn of_client(&self, c: usize, add: &mut impl FnMut(Self)) {
            let slot = self.slot();
            match self.clients[c] {
                Client::Away if self.asked < QUESTIONS && slot.claim() => add(self.after(&slot, |w| {
                    w.clients[c] = Client::Writing(w.asked);
                    w.asked += 1;
                })),
                Client::Away => {}
                Client::Writing(question) => {
                    slot.submit(lane(question));
                    add(self.after(&slot, |w| {
                        assert!(!matches!(w.worker, Worker::Computing(_) | Worker::Written), "two write: {w:?}");
                        w.body = (false, question);
                        w.clients[c] = Client::Waiting(question);
                    }));
                }
                Client::Waiting(question) => {
                    if slot.outcome() == Some(Outcome::Answered) {
                        assert_eq!(self.body, (true, question), "another's answer: {self:?}");
                    }
                }
            }
            if self.clients[c] != Client::Away {
                let slot = self.slot();
                slot.release();
                add(self.after(&slot, |w| w.clients[c] = Client::Away));
            }
        }

        /// What the worker may do next, or what may happen to it.
        fn of_worker(&self, add: &mut impl FnMut(Self)) {
            let slot = self.slot();
            match self.worker {
                Worker::Gone => {
                    slot.recover();
                    add(self.after(&slot, |w| w.worker = Worker::Idle));
                }
                Worker::Idle => {
                    for on in [Lane::Quick, Lane::Other] {
                        let slot = self.slot();
                        if slot.take(on) {
                            add(self.after(&slot, |w| {
                                assert!(!w.body.0, "an answer taken for a question: {w:?}");
                                assert_eq!(lane(w.body.1), on, "taken on the wrong lane: {w:?}");
                                w.worker = Worker::Computing(w.body.1);
                            }));
                        }
                    }
                }
                Worker::Computing(question) => add(self.after(&slot, |w| {
                    let writes = w.clients.iter().any(|client| matches!(client, Client::Writing(_)));
                    assert!(!writes, "two write: {w:?}");
                    w.body = (true, question);
                    w.worker = Worker::Written;
                })),
                Worker::Written => {
                    slot.finish(Outcome::Answered);
                    add(self.after(&slot, |w| w.worker = Worker::Idle));
                }
            }
            if self.worker != Worker::Gone {
                add(self.after(&self.slot(), |w| w.worker = Worker::Gone));
            }
            if matches!(self.worker, Worker::Computing(_)) {
                let slot = self.slot();
                slot.finish(Outcome::Failed);
                add(self.after(&slot, |w| w.worker = Worker::Idle));
            }
        }
    }

    /// All that two clients and a worker can do in any order, with clients that leave and workers that end at any
    /// moment: nobody writes what another writes or reads another's answer, and no slot is lost.
    #[test]
    fn every_order_of_events_keeps_a_slot_in_one_hand() {
        let first =
            World { state: FREE, body: (false, u32::MAX), clients: [Client::Away; 2], worker: Worker::Gone, asked: 0 };
        let mut seen = HashSet::from([first.clone()]);
        let mut open = vec![first];
        while let Some(world) = open.pop() {
            let holders = world.clients.iter().filter(|client| **client != Client::Away).count();
            assert!(holders <= 1, "two hold the slot: {world:?}");
            let away = holders == 0;
            let worker_is_done = matches!(world.worker, Worker::Idle);
            assert!(!away || !worker_is_done || world.state == FREE, "a lost slot: {world:?}");
            let mut add = |next: World| {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            };
            (0..2).for_each(|c| world.of_client(c, &mut add));
            world.of_worker(&mut add);
        }
        assert!(seen.len() > 200, "{} states", seen.len());
        let states: HashSet<u32> = seen.iter().map(|world| world.state).collect();
        assert_eq!(states.len(), 8, "states of a slot that were met: {states:?}");
    }
}
