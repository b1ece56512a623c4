// The rows, query heads and keys that a work-group of attention works on, and its team memory.
#pragma once

#include "kv_cache.hpp"
#include "softmax_sum.hpp"

namespace arcmtp {

/// Rows first_row … first_row + live - 1 of a sequence, at most ROWS, and the query heads of one KV head.
template <class S, int ROWS> struct AttentionRows {
    static constexpr int QUERIES = ROWS * S::RATIO, PASS = S::template PASS<ROWS>;
    static constexpr int OWNED = ROWS * S::VALUE_HEADS; // (row, head) pairs whose values a thread sums
    // Team memory, in bytes
    static constexpr int STATE = 0;                        // float [QUERIES][LARGEST, TOTAL, KEEP][4 copies]
    static constexpr int SCORE = STATE + QUERIES * 3 * 16; // float [CHAINS][QUERIES][TILE]
    static constexpr int OF_TILES = SCORE + S::CHAINS * QUERIES * S::TILE * 4; // what the arithmetic of a format needs
    enum { LARGEST, TOTAL, KEEP };
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

    // The heads and dimensions whose values this thread sums
    inline bool owns_values() const { return rank < S::VALUE_PARTS * S::DIM_PARTS; }
    inline int head_of(int i) const { return rank % S::VALUE_PARTS * S::VALUE_HEADS + i % S::VALUE_HEADS; }
    inline int first_dim() const { return rank / S::VALUE_PARTS * S::VECTORS * LANES; }

    /// Distance of the i-th (row, head) of a thread with HEADS heads from its first, in queries.
    template <int HEADS> static constexpr int place(int i) { return i / HEADS * S::RATIO + i % HEADS; }

    static inline Lanes state(int query, int which) {
        return Lanes(simd::lane<float, 4>(simd::team_load<float, 4>(STATE + (query * 3 + which) * 16), 0));
    }
    static inline void set_state(int query, int which, Lanes value) {
        simd::team_store<float, 4>(STATE + (query * 3 + which) * 16, simd::part<4, 0, float, LANES>(value));
    }
    static constexpr int score_at(int chain, int query) { return SCORE + (chain * QUERIES + query) * S::TILE * 4; }
};

} // namespace arcmtp
