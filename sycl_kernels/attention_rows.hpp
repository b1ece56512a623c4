// The rows, query heads and keys that a work-group of attention works on, and its team memory.
#pragma once

#include "kv_cache.hpp"
#include "softmax_sum.hpp"

namespace arcmtp {

/// What is kept of a query, where so many tiles are taken at once.
constexpr int states_of(int tiles) { return tiles == 1 ? 3 : 3 + 2 * tiles; }

/// So many bytes, rounded up to cache lines.
constexpr int whole_lines(int nbytes) { return (nbytes + 63) / 64 * 64; }

/// Tiles that a team takes at once: halves one after the other; codes four, two or one, as many as a team has threads
/// for and as let two work-groups share the team memory of an Xe core.
template <class S, int ROWS> constexpr int tiles_at_once() {
    if constexpr (S::Kv::CODED) {
        for (int tiles = 4; tiles > 1; tiles /= 2) {
            constexpr int BLOCKS = S::Layout::BLOCKS, QUERIES = ROWS * S::RATIO;
            const int scores = tiles * S::CHAINS * S::TILE * 4;
            const int codes = S::HEAD_DIM + 8 * BLOCKS + tiles * BLOCKS * (2 * S::TILE + 12);
            if (tiles * S::TILE / LANES * S::CHAINS <= S::TEAM &&
                whole_lines(states_of(tiles) * QUERIES * 4) + QUERIES * (scores + codes) <= 64 << 10)
                return tiles;
        }
    }
    return 1;
}

/// Rows first_row … first_row + live - 1 of a sequence, at most ROWS, and the query heads of one KV head.
template <class S, int ROWS> struct AttentionRows {
    static constexpr int QUERIES = ROWS * S::RATIO, PASS = S::template PASS<ROWS>;
    static constexpr int OWNED = ROWS * S::VALUE_HEADS; // (row, head) pairs whose values a thread sums
    // Tiles of a split that are taken at once: all threads have keys then, and few decode the same for other heads.
    static constexpr int TILES = tiles_at_once<S, ROWS>();
    static constexpr int NEXT = TILES * S::SPLITS * S::TILE; // positions to the next tiles
    static constexpr int SCORE_PARTS = divisor(S::RATIO, S::TEAM / (TILES * S::TILE / LANES * S::CHAINS));
    static constexpr int SCORE_HEADS = S::RATIO / SCORE_PARTS; // heads that a thread scores
    // What is kept of a query: of the tiles before, of each of these tiles, and the largest score after them
    static constexpr int LARGEST = 0, TOTAL = 1, KEEP = 2, SUM = KEEP + TILES, NEXT_LARGEST = SUM + TILES;
    static constexpr int STATES = states_of(TILES);
    // Team memory, in bytes
    static constexpr int STATE = 0;                                         // float [STATES][QUERIES]
    static constexpr int SCORE = STATE + whole_lines(STATES * QUERIES * 4); // float [TILES][CHAINS][QUERIES][TILE]
    static constexpr int OF_TILES = SCORE + TILES * S::CHAINS * QUERIES * S::TILE * 4; // what a format needs
    using Element = typename S::Element;

    AttentionInput<S> in;
    KvCache<S> cache;
    int sequence, kv_head, first_row, live, rank;
    int base, last; // positions of the first and of the last row

    inline AttentionRows(const AttentionInput<S> &in, int sequence, int kv_head, int first_row, int live)
        : in(in), cache(in.cache(sequence)), sequence(sequence), kv_head(kv_head), first_row(first_row), live(live),
          rank(simd::team_rank()), base(in.positions[row_of(0)]), last(base + live - 1) {}

    /// Which row of the launch the work-group's row r is.
    inline int row_of(int r) const { return in.batch.row(sequence, first_row + r); }

    /// Whether row r sees a key of `split`.
    inline bool reaches(int r, int split) const { return split * S::TILE <= base + r; }

    /// How many keys of the tile from position `start` are seen by rows before `end`.
    inline int keys_of(int start, int end) const {
        const int seen = base + end - start;
        return seen < 0 ? 0 : seen < S::TILE ? seen : S::TILE;
    }

    // The heads and dimensions whose values this thread sums
    inline bool owns_values() const { return rank < S::VALUE_PARTS * S::DIM_PARTS; }
    inline int head_of(int i) const { return rank % S::VALUE_PARTS * S::VALUE_HEADS + i % S::VALUE_HEADS; }
    inline int first_dim() const { return rank / S::VALUE_PARTS * S::VECTORS * LANES; }

    /// Distance of the i-th (row, head) of a thread with HEADS heads from its first, in queries.
    template <int HEADS> static constexpr int place(int i) { return i / HEADS * S::RATIO + i % HEADS; }

    static constexpr int state_at(int query, int which) { return STATE + (which * QUERIES + query) * 4; }
    static inline Lanes state(int query, int which) {
        return Lanes(simd::lane<float, 1>(simd::team_load<float, 1>(state_at(query, which)), 0));
    }
    static inline void set_state(int query, int which, Lanes value) {
        simd::team_store<float, 1>(state_at(query, which), simd::part<1, 0, float, LANES>(value));
    }
    static constexpr int score_at(int tile, int chain, int query) {
        return SCORE + ((tile * S::CHAINS + chain) * QUERIES + query) * S::TILE * 4;
    }
};

} // namespace arcmtp
