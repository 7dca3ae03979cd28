//! The first bytes of every page: what it is, and whose.

use super::Fault;

/// Bytes of the head.
pub(super) const SIZE: usize = 32;
const MAGIC: u32 = 0x5852_6770;
/// No page.
pub(super) const NONE: u32 = u32::MAX;

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Meta = 1,
    Delta,
    Map,
    Chunk,
    Tombstones,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [Self::Meta, Self::Delta, Self::Map, Self::Chunk, Self::Tombstones].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// A page's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    /// Nothing is added to this page any more.
    pub closed: bool,
    /// Of the index, the chain or the segment that the page belongs to.
    pub identity: u64,
    /// The block that follows, or [`NONE`].
    pub next: u32,
    /// How many things are on the page; their size is the kind's.
    pub count: u32,
    /// CRC32C of what follows, where the kind has one.
    pub crc: u32,
}

impl Head {
    pub(super) fn new(kind: Kind, identity: u64) -> Self {
        Self { kind, closed: false, identity, next: NONE, count: 0, crc: 0 }
    }

    /// The head of a page; None for a free page or one that is none of ours.
    pub(super) fn read(page: &[u8]) -> Option<Self> {
        let head: &[u8; SIZE] = page.first_chunk()?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(0) != MAGIC {
            return None;
        }
        Some(Self {
            kind: Kind::from_code(head[4])?,
            closed: head[5] == 1,
            identity: u64::from(word(8)) | u64::from(word(12)) << 32,
            next: word(16),
            count: word(20),
            crc: word(24),
        })
    }

    pub(super) fn write(&self, page: &mut [u8]) {
        let mut head = [0; SIZE];
        head[..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[4] = self.kind as u8;
        head[5] = u8::from(self.closed);
        head[8..16].copy_from_slice(&self.identity.to_le_bytes());
        head[16..20].copy_from_slice(&self.next.to_le_bytes());
        head[20..24].copy_from_slice(&self.count.to_le_bytes());
        head[24..28].copy_from_slice(&self.crc.to_le_bytes());
        page[..SIZE].copy_from_slice(&head);
    }

    /// The head, if the page still is what a reader expects.
    pub(super) fn expect(page: &[u8], kind: Kind, identity: u64) -> Result<Self, Fault> {
        Self::read(page).filter(|head| head.kind == kind && head.identity == identity).ok_or(Fault::Recycled)
    }
}
