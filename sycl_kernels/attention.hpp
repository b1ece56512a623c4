// Gated full attention: q/k norm, RoPE, KV cache, split online SOFTMAX, output gate.
//
// The arithmetic is fixed by context position: tile i of 64 keys belongs to split i mod SPLITS, tiles are taken in
// ascending order and splits folded in order, whatever the row count and whichever thread computes them.
#pragma once

#include "attention_tiles.hpp"

namespace arcmtp {

/// Softmax sums of each row, query head and split: float [rows][Q_HEADS][SPLITS][HEAD_DIM + 16], values, largest, 8
/// times weight.
template <class S, int ROWS> struct Partials {
    static constexpr int LARGEST = S::HEAD_DIM, WEIGHT = LARGEST + 8, FLOATS = WEIGHT + 8;
    const Attention<S, ROWS> &attention;
    float *base;

    inline float *at(int r, int head, int split) const {
        const simd::u64 query = simd::u64(attention.row_of(r)) * S::Q_HEADS + attention.kv_head * S::RATIO + head;
        return base + (query * S::SPLITS + split) * FLOATS;
    }

    /// The thread's sums of `split`.
    inline void write(int split, const Lanes (&values)[Attention<S, ROWS>::OWNED * S::VECTORS]) const {
        if (!attention.owns_values())
            return;
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < Attention<S, ROWS>::OWNED; ++i) {
            if (!attention.reaches(i / S::VALUE_HEADS, split))
                continue;
            const SoftmaxSum<S::VECTORS> sum = attention.softmax_sum(i, values);
            float *to = at(i / S::VALUE_HEADS, attention.head_of(i), split);
            ARCMTP_UNROLL_ON_GPU
            for (int v = 0; v < S::VECTORS; ++v)
                simd::store<float, LANES>(to + attention.first_dim() + v * LANES, sum.values[v]);
            if (attention.first_dim() == 0) {
                simd::store<float, 8>(to + LARGEST, simd::part<8, 0, float, LANES>(sum.largest));
                simd::store<float, 8>(to + WEIGHT, simd::part<8, 0, float, LANES>(sum.weight));
            }
        }
    }

    /// Fold the splits of every row and head, 64 dimensions at a time, or 32 where a head has no multiple of 64.
    template <class SINK> inline void fold_all(const SINK &sink) const {
        constexpr int WIDTH = divisor(S::HEAD_DIM / LANES, 4) == 4 ? 4 : 2, GROUPS = S::HEAD_DIM / (WIDTH * LANES),
                      AHEAD = divisor(S::SPLITS, 8); // partials that are loaded before one is used
        constexpr int ITEMS = Attention<S, ROWS>::QUERIES * GROUPS;
        if constexpr (simd::LOADS_FIRST)
            for (int item = attention.rank; item < ITEMS; item += S::TEAM)
                simd::prefetch<WIDTH * LANES * 4>(attention.gate(item / (S::RATIO * GROUPS), item / GROUPS % S::RATIO) +
                                                  item % GROUPS * WIDTH * LANES);
        for (int item = attention.rank; item < ITEMS; item += S::TEAM) {
            const int r = item / (S::RATIO * GROUPS), head = item / GROUPS % S::RATIO,
                      dim = item % GROUPS * WIDTH * LANES;
            SoftmaxSum<WIDTH> total, next[AHEAD];
            clear(total);
            for (int split = 0; split < S::SPLITS && attention.reaches(r, split); split += AHEAD) {
                ARCMTP_UNROLL_ON_GPU
                for (int a = 0; a < AHEAD; ++a) {
                    const float *from = at(r, head, split + a);
                    const simd::Uniform<float, 16> state(from + LARGEST);
                    const simd::Vectors<float, WIDTH> values(from + dim);
                    next[a].largest = state[0];
                    next[a].weight = state[8];
                    ARCMTP_UNROLL_ON_GPU
                    for (int w = 0; w < WIDTH; ++w)
                        next[a].values[w] = values[w];
                }
                ARCMTP_UNROLL_ON_GPU
                for (int a = 0; a < AHEAD; ++a)
                    if (attention.reaches(r, split + a))
                        fold(total, next[a]);
            }
            attention.emit(sink, r, head, dim, total);
        }
        attention.finish(sink);
    }
};

/// ROWS rows of each sequence: a work-group per sequence, KV head and split, which stores the new keys and values of
/// its tiles and attends to them; the last of a KV head folds the splits. counters: int [batch][KV_HEADS], zero between
/// launches.
template <class S, int ROWS, class SINK>
inline void attention_step(const AttentionInput<S> &in, float *partials, int *counters, const SINK &sink) {
    simd::reserve_team_memory<Attention<S, ROWS>::TEAM_MEMORY>();
    const int head = simd::group_index() / S::SPLITS, split = simd::group_index() % S::SPLITS; // of all sequences
    const Attention<S, ROWS> attention(in, head / S::KV_HEADS, head % S::KV_HEADS, 0, ROWS);
    const Partials<S, ROWS> sums{attention, partials};
    if (attention.reaches(ROWS - 1, split)) {
        attention.ask_keys(split * S::TILE);
        attention.prepare(split);
        Lanes values[Attention<S, ROWS>::OWNED * S::VECTORS];
        attention.attend(split, values);
        sums.write(split, values);
    }
    if (simd::last_arrival<S::TEAM>(counters + head, S::SPLITS))
        sums.fold_all(sink);
}

/// Keys and values of rows at any positions into the caches: a work-group per KV head and ROWS rows.
template <class S, int ROWS> inline void attention_store(const AttentionInput<S> &in, int rows) {
    simd::reserve_team_memory<64>();
    const int kv_head = simd::group_index() % S::KV_HEADS, first = simd::group_index() / S::KV_HEADS * ROWS;
    for (int item = simd::team_rank(); item < 2 * ROWS; item += S::TEAM)
        if (const int row = first + item / 2; row < rows)
            store_row(in, in.cache(row % in.batch.size), row, in.positions[row], kv_head, item % 2);
}

/// A prompt chunk of one sequence whose keys and values are in the cache: a work-group per KV head and ROWS rows goes
/// through all splits.
template <class S, int ROWS, class SINK>
inline void attention_chunk(const AttentionInput<S> &in, int rows, const SINK &sink) {
    simd::reserve_team_memory<Attention<S, ROWS>::TEAM_MEMORY>();
    const int kv_head = simd::group_index() % S::KV_HEADS, first = simd::group_index() / S::KV_HEADS * ROWS;
    if (first >= rows)
        return;
    constexpr int OWNED = Attention<S, ROWS>::OWNED, NO_SPLIT = -1;
    const Attention<S, ROWS> attention(in, 0, kv_head, first, rows - first < ROWS ? rows - first : ROWS);
    attention.prepare(NO_SPLIT);
    SoftmaxSum<S::VECTORS> totals[OWNED];
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < OWNED; ++i)
        clear(totals[i]);
    for (int split = 0; split < S::SPLITS && attention.reaches(attention.live - 1, split); ++split) {
        Lanes values[OWNED * S::VECTORS];
        attention.attend(split, values);
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < OWNED; ++i)
            if (attention.reaches(i / S::VALUE_HEADS, split))
                fold(totals[i], attention.softmax_sum(i, values));
    }
    if constexpr (S::Kv::CODED)
        simd::team_barrier<S::TEAM>(); // the last tile's weights are read
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < OWNED; ++i)
        if (attention.owns_values() && i / S::VALUE_HEADS < attention.live)
            attention.emit(sink, i / S::VALUE_HEADS, attention.head_of(i), attention.first_dim(), totals[i]);
    attention.finish(sink);
}

} // namespace arcmtp
