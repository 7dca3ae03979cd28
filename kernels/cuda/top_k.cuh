// What kernels of scoring share: what they take, and the lists they keep.

constexpr u32 THREADS = 256;
constexpr u32 QUERIES = 32;
constexpr u32 ITEMS = 128;
// Entries of a list: four a lane.
constexpr u32 LIST = 128;
constexpr u32 EACH = LIST / WARP;

struct Table { const Element *data; u32 stride; u32 unused; };
struct Entry { float score; u32 item; };

struct TopK {
    Table queries, items;
    // Items that query q must not be given are exclude[exclude_offsets[q] .. exclude_offsets[q + 1]], ascending; its
    // candidates likewise, where there are any.
    const u32 *exclude, *exclude_offsets, *candidates, *candidate_offsets;
    // Only what comes after this entry is looked for: the last of what was found before, or one of no score.
    const Entry *after;
    // [queries, splits, k], and how many of them were found, [queries, splits].
    Entry *best;
    u32 *found;
    u32 query_count, item_count, dim, k;
    // Items that one block looks at.
    u32 share;
    u32 unused;
};

DEVICE bool better(Entry a, Entry b) { return a.score > b.score || (a.score == b.score && a.item < b.item); }

// One query's list, kept by one warp in shared memory, best first.
struct List {
    Entry *entries;
    u32 count;

    // Offers one entry a lane, in the order of the lanes.
    DEVICE_METHOD void offer(const TopK &p, u32 query, Entry mine, bool there) {
        Entry after = p.after[query];
        there = there && mine.score == mine.score && (after.score != after.score || better(after, mine));
        bool enters = there && (count < p.k || better(mine, entries[p.k - 1]));
        u32 lane = threadIdx.x % WARP;
        for (u32 left = __ballot_sync(ALL_LANES, enters); left != 0; left &= left - 1) {
            u32 from = u32(__ffs(left)) - 1;
            Entry entry = {__shfl_sync(ALL_LANES, mine.score, from), __shfl_sync(ALL_LANES, mine.item, from)};
            bool still = count < p.k || better(entry, entries[p.k - 1]);
            if (!still || excluded(p, query, entry.item)) continue;
            // What it passes moves down by one.
            u32 before = 0;
            Entry held[EACH];
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                u32 at = e * WARP + lane;
                held[e] = entries[at];
                before += u32(__popc(__ballot_sync(ALL_LANES, at < count && better(held[e], entry))));
            }
            __syncwarp();
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                u32 at = e * WARP + lane;
                if (at >= before && at < count && at + 1 < p.k) entries[at + 1] = held[e];
            }
            if (lane == 0) entries[before] = entry;
            count = smaller(count + 1, p.k);
            __syncwarp();
        }
    }

    DEVICE_METHOD bool excluded(const TopK &p, u32 query, u32 item) {
        u32 from = p.exclude_offsets[query], to = p.exclude_offsets[query + 1], end = to;
        while (from < to) {
            u32 middle = (from + to) / 2;
            if (p.exclude[middle] < item) from = middle + 1; else to = middle;
        }
        return from < end && p.exclude[from] == item;
    }

    DEVICE_METHOD void give(const TopK &p, u64 place) {
        u32 lane = threadIdx.x % WARP;
        for (u32 at = lane; at < count; at += WARP) p.best[place * p.k + at] = entries[at];
        if (lane == 0) p.found[place] = count;
    }
};

// What one block looks at: queries from `query` on, and the items from .. to.
struct Share { u32 query, from, to; };

// Stands for no row of the items.
constexpr u32 NOWHERE = 0xffffffffu;
