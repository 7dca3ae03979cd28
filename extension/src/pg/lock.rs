//! Advisory locks, taken without SQL. Those of the session are held across transactions and end with the process, so
//! they show who is alive; those of the transaction end with it at the latest, however it ends. `pg_locks` lists them
//! like those of `pg_advisory_lock(int, int)`. And the lock of the database, which is only looked at.

use pgrx::pg_sys::{self, Oid};

/// How `pg_locks.objsubid` tells a pair of integers from one bigint.
const PAIR: u16 = 2;

/// Names a lock.
#[derive(Clone, Copy)]
pub struct Lock(pg_sys::LOCKTAG);

impl Lock {
    /// A lock of this database.
    pub fn of_database(class: i32, key: i32) -> Self {
        // SAFETY: a global set at the start of the backend.
        Self::new(unsafe { pg_sys::MyDatabaseId }, class, key)
    }

    /// A lock that all databases of the server share. No SQL function can take it: those are of their database.
    pub fn of_server(class: i32, key: i32) -> Self {
        Self::new(Oid::INVALID, class, key)
    }

    fn new(database: Oid, class: i32, key: i32) -> Self {
        Self(pg_sys::LOCKTAG {
            locktag_field1: database.to_u32(),
            locktag_field2: class as u32,
            locktag_field3: key as u32,
            locktag_field4: PAIR,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        })
    }

    /// Takes the lock if it is free.
    pub fn try_hold(self) -> Option<Held> {
        self.take(pg_sys::ExclusiveLock, true, true).then(|| Held { tag: self.0, session: true })
    }

    /// Waits for the lock, first come first served. To be called inside a transaction: its end cleans up after a wait
    /// that was cancelled.
    pub fn hold(self) -> Held {
        self.take(pg_sys::ExclusiveLock, true, false);
        Held { tag: self.0, session: true }
    }

    /// Waits for the lock, and holds it until dropped, or until the transaction ends where that is sooner.
    pub fn hold_in_transaction(self) -> Held {
        self.take(pg_sys::ExclusiveLock, false, false);
        Held { tag: self.0, session: false }
    }

    /// Whether no other process holds it.
    pub fn is_free(self) -> bool {
        self.is_free_for(pg_sys::ShareLock)
    }

    fn is_free_for(self, mode: u32) -> bool {
        let free = self.take(mode, true, true);
        if free {
            // SAFETY: taken in this mode just now.
            unsafe { pg_sys::LockRelease(&self.0, mode as pg_sys::LOCKMODE, true) };
        }
        free
    }

    fn take(self, mode: u32, session: bool, try_only: bool) -> bool {
        // SAFETY: a well-formed tag; session locks need no resource owner, so this works outside a transaction too.
        let outcome = unsafe { pg_sys::LockAcquire(&self.0, mode as pg_sys::LOCKMODE, session, try_only) };
        outcome != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// Whether a session waits for the last of the others to leave this database, so that it can drop or rename it.
pub fn database_is_wanted() -> bool {
    let database = Lock(pg_sys::LOCKTAG {
        locktag_field1: Oid::INVALID.to_u32(),
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        // SAFETY: a global set at the start of the backend.
        locktag_field3: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    });
    !database.is_free_for(pg_sys::AccessShareLock)
}

/// A lock held by this process until dropped. Where a panic unwinds it stays until the process ends, or its transaction.
pub struct Held {
    tag: pg_sys::LOCKTAG,
    session: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: whoever made this value has taken the lock in this mode.
            unsafe { pg_sys::LockRelease(&self.tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, self.session) };
        }
    }
}
