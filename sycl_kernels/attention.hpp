// Gated full attention: q/k norm, RoPE, KV cache, split online SOFTMAX, output gate.
//
// The arithmetic is fixed by context position: tile i of 64 keys belongs to split i mod SPLITS, tiles are taken in
// ascending order and splits folded in order, whatever the row count and whichever thread computes them.
#pragma once

#include "kv_cache.hpp"
#include "softmax_sum.hpp"

namespace arcmtp {

/// Rows first_row … first_row + live - 1 of a sequence, at most ROWS, and the query heads of one KV head.
template <class S, int ROWS> struct Attention {
    static constexpr int QUERIES = ROWS * S::RATIO, PASS = S::template PASS<ROWS>;
    static constexpr int OWNED = ROWS * S::VALUE_HEADS; // (row, head) pairs whose values a thread sums
    // Team memory, in bytes
    static constexpr int QUERY = 0;                                          // float [QUERIES][HEAD_DIM]
    static constexpr int SCORE = QUERY + QUERIES * S::HEAD_DIM * 4;          // float [CHAINS][QUERIES][TILE]
    static constexpr int WEIGHT = SCORE + S::CHAINS * QUERIES * S::TILE * 4; // float [QUERIES][TILE]
    static constexpr int STATE = WEIGHT + QUERIES * S::TILE * 4; // float [QUERIES][LARGEST, TOTAL, KEEP][4 copies]
    static constexpr int TEAM_MEMORY = STATE + QUERIES * 3 * 16;
    enum { LARGEST, TOTAL, KEEP };
    using Element = typename S::Element;

    AttentionInput<S> in;
    KvCache<S> cache;
    int sequence, kv_head, first_row, live, rank;
    int base, last; // positions of the first and of the last row

    inline Attention(const AttentionInput<S> &in, int sequence, int kv_head, int first_row, int live)
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

    /// Normed, rotated and scaled queries to team memory; keys and values of the rows in tiles of `split` to the cache.
    inline void prepare(int split) const {
        constexpr int STORES = 2 * ROWS;
        const Lanes scale = simd::divide<LANES>(Lanes(1.0f), simd::sqrt<LANES>(Lanes(float(S::HEAD_DIM))));
        for (int item = rank; item < STORES + QUERIES; item += S::TEAM) {
            const int query = item - STORES, r = query < 0 ? item / 2 : query / S::RATIO;
            if (r >= live)
                continue;
            if (query >= 0) {
                const float *from = in.query(row_of(r), kv_head * S::RATIO + query % S::RATIO);
                const int to = QUERY + query * S::HEAD_DIM * 4;
                normed_and_rotated<S>(from, in.q_norm, in.rope_at(base + r), in.eps, [=](int d, Lanes v) {
                    simd::team_store<float, LANES>(to + d * 4, Lanes(v * scale));
                });
            } else if ((base + r) / S::TILE % S::SPLITS == split)
                store_row(in, cache, row_of(r), base + r, kv_head, item % 2);
        }
        simd::fence_stores();
        simd::team_barrier<S::TEAM>();
    }

    /// values[row, head][vector]: the weighted values of all keys of `split` that the row sees; softmax_sum() completes
    /// them.
    inline void attend(int split, Lanes (&values)[OWNED * S::VECTORS]) const {
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < OWNED * S::VECTORS; ++i)
            values[i] = 0.0f;
        for (int start = split * S::TILE; start <= last; start += S::SPLITS * S::TILE)
            for (int first = 0; first < ROWS && first < live; first += PASS) {
                const int end = first + PASS < live ? first + PASS : live;
                const int seen = base + end - start, keys = seen < S::TILE ? seen : S::TILE;
                if (keys <= 0)
                    continue;
                score(start, first, keys);
                simd::team_barrier<S::TEAM>();
                weigh(start, first, start == split * S::TILE);
                simd::team_barrier<S::TEAM>();
                if (!owns_values())
                    continue;
                if (base + first - start >= S::TILE - 1)
                    add_values<true>(start, first, keys, values);
                else
                    add_values<false>(start, first, keys, values);
            }
    }

    /// The i-th owned (row, head) after attend().
    inline SoftmaxSum<S::VECTORS> softmax_sum(int i, const Lanes (&values)[OWNED * S::VECTORS]) const {
        const int query = i / S::VALUE_HEADS * S::RATIO + head_of(i);
        SoftmaxSum<S::VECTORS> sum{state(query, LARGEST), state(query, TOTAL), {}};
        ARCMTP_UNROLL_ON_GPU
        for (int v = 0; v < S::VECTORS; ++v)
            sum.values[v] = values[i * S::VECTORS + v];
        return sum;
    }

    /// 32 dimensions of one row and head, divided by the sum of weights and times sigmoid(gate), to the consumers.
    template <class SINK>
    inline void emit(const SINK &sink, int r, int head, int dim, Lanes low, Lanes high, Lanes weight) const {
        const int row = row_of(r), query_head = kv_head * S::RATIO + head;
        const float *gate = in.query(row, query_head) + S::HEAD_DIM + dim;
        const Lanes a = simd::divide<LANES>(low, weight) * simd::sigmoid<LANES>(simd::load<float, LANES>(gate));
        const Lanes b =
            simd::divide<LANES>(high, weight) * simd::sigmoid<LANES>(simd::load<float, LANES>(gate + LANES));
        sink.put(row, (query_head * S::HEAD_DIM + dim) / 32, a, b);
    }

  private:
    inline Lanes state(int query, int which) const {
        return Lanes(simd::lane<float, 4>(simd::team_load<float, 4>(STATE + (query * 3 + which) * 16), 0));
    }
    static inline void set_state(int query, int which, Lanes value) {
        simd::team_store<float, 4>(STATE + (query * 3 + which) * 16, simd::part<4, 0, float, LANES>(value));
    }

    /// Both chains of the scores of rows first … first + PASS - 1 with `keys` keys from position `start`, and with
    /// unseen ones up to a multiple of 16 * KEY_VECTORS. The values of the same keys are prefetched meanwhile.
    inline void score(int start, int first, int keys) const {
        constexpr int STEP = S::SCORE_STEP, SUMS = PASS * S::SCORE_HEADS, UNIT = S::KEY_VECTORS * LANES;
        constexpr int AHEAD = STEP * UNIT / S::SCORE_PARTS / 2 * 2; // whole words
        const int units = (keys + UNIT - 1) / UNIT * S::CHAINS * S::SCORE_PARTS;
        for (int unit = rank; unit < units; unit += S::TEAM) {
            const int part = unit % S::SCORE_PARTS, chain = unit / S::SCORE_PARTS % S::CHAINS;
            const int key = unit / (S::SCORE_PARTS * S::CHAINS) * UNIT, dim = chain * S::CHAIN;
            const int query = first * S::RATIO + part * S::SCORE_HEADS;
            const Element *from = cache.keys(kv_head, start + key) + dim * LANES;
            const Element *ahead = cache.value(kv_head, start + key) + dim * UNIT + part * AHEAD;
            Lanes sums[SUMS * S::KEY_VECTORS];
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS * S::KEY_VECTORS; ++i)
                sums[i] = 0.0f;
            for (int d = 0; d < S::CHAIN; d += STEP) {
                simd::prefetch<AHEAD * S::Kv::ELEMENT_BYTES>(ahead + d * UNIT);
                score_step<STEP>(from + d * LANES, QUERY + (query * S::HEAD_DIM + dim + d) * 4, sums);
            }
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS; ++i)
#pragma clang loop unroll(full)
                for (int k = 0; k < S::KEY_VECTORS; ++k)
                    simd::team_store<float, LANES>(
                        SCORE + ((chain * QUERIES + query + place<S::SCORE_HEADS>(i)) * S::TILE + key + k * LANES) * 4,
                        sums[i * S::KEY_VECTORS + k]);
        }
    }

    /// Distance of the i-th (row, head) of a thread with HEADS heads from its first, in queries.
    template <int HEADS> static constexpr int place(int i) { return i / HEADS * S::RATIO + i % HEADS; }

    /// sums[row, head][vector] += 16 * KEY_VECTORS keys times the query, over STEP dimensions.
    template <int STEP, int SUMS> static inline void score_step(const Element *from, int query, Lanes (&sums)[SUMS]) {
        constexpr int PAIRS = SUMS / S::KEY_VECTORS;
        typename S::Kv::template Loaded<STEP> keys[S::KEY_VECTORS];
        simd::TeamUniform<float, STEP> q[PAIRS];
#pragma clang loop unroll(full)
        for (int k = 0; k < S::KEY_VECTORS; ++k)
            keys[k] = typename S::Kv::template Loaded<STEP>(from + k * S::HEAD_DIM * LANES);
#pragma clang loop unroll(full)
        for (int i = 0; i < PAIRS; ++i)
            q[i] = simd::TeamUniform<float, STEP>(query + place<S::SCORE_HEADS>(i) * S::HEAD_DIM * 4);
#pragma clang loop unroll(full)
        for (int d = 0; d < STEP; ++d) {
            Lanes key[S::KEY_VECTORS];
#pragma clang loop unroll(full)
            for (int k = 0; k < S::KEY_VECTORS; ++k)
                key[k] = S::Kv::decode(keys[k][d]);
#pragma clang loop unroll(full)
            for (int i = 0; i < PAIRS; ++i) {
                const Lanes value = q[i][d];
#pragma clang loop unroll(full)
                for (int k = 0; k < S::KEY_VECTORS; ++k)
                    sums[i * S::KEY_VECTORS + k] = simd::fma<float, LANES>(key[k], value, sums[i * S::KEY_VECTORS + k]);
            }
        }
    }

    /// Weights e^(score - largest) of the keys that a query sees, 0 for the others, and what the earlier tiles' shrink
    /// to.
    inline void weigh(int start, int first, bool first_tile) const {
        constexpr int SUBTILES = S::TILE / LANES;
        for (int i = rank; i < PASS * S::RATIO; i += S::TEAM) {
            const int query = first * S::RATIO + i, reach = base + first + i / S::RATIO - start;
            if (reach < 0)
                continue;
            const Lanes before = first_tile ? Lanes(LOWEST) : state(query, LARGEST);
            Lanes scores[SUBTILES], largest = before, total = 0.0f;
#pragma clang loop unroll(full)
            for (int s = 0; s < SUBTILES; ++s) {
                const int at = SCORE + (query * S::TILE + s * LANES) * 4;
                const Lanes score =
                    simd::team_load<float, LANES>(at) + simd::team_load<float, LANES>(at + QUERIES * S::TILE * 4);
                const simd::mask<LANES> seen = simd::iota<LANES>() + s * LANES <= vec<int, LANES>(reach);
                scores[s] = simd::select<float, LANES>(seen, score, Lanes(LOWEST));
                largest = simd::max<float, LANES>(largest, scores[s]);
            }
            largest = simd::largest<float, LANES>(largest);
#pragma clang loop unroll(full)
            for (int s = 0; s < SUBTILES; ++s) {
                const Lanes weight = simd::exp<LANES>(scores[s] - largest);
                simd::team_store<float, LANES>(WEIGHT + (query * S::TILE + s * LANES) * 4, weight);
                total += weight;
            }
            const Lanes keep = simd::exp<LANES>(before - largest), sum = simd::sum<LANES>(total);
            set_state(query, TOTAL, first_tile ? sum : simd::fma<float, LANES>(state(query, TOTAL), keep, sum));
            set_state(query, LARGEST, largest);
            set_state(query, KEEP, keep);
        }
    }

    /// values = values * keep + weight * value of each of `keys` keys in turn; without ALL, of those alone that a row
    /// sees. The keys of the split's next tile are prefetched meanwhile.
    template <bool ALL>
    inline void add_values(int start, int first, int keys, Lanes (&values)[OWNED * S::VECTORS]) const {
        constexpr int WIDE = S::VECTORS_AT_ONCE, SUMS = PASS * S::VALUE_HEADS, NEXT = S::SPLITS * S::TILE;
        constexpr int AHEAD = LANES * S::HEAD_DIM * WIDE / (S::VECTORS * S::DIM_PARTS * S::VALUE_PARTS) / 2 * 2;
        const int query = first * S::RATIO + head_of(0), reach = base + first - start;
        for (int v = 0; v < S::VECTORS; v += WIDE) {
            const Element *from = cache.value(kv_head, start) + first_dim() + v * LANES;
            const Element *ahead = cache.keys(kv_head, start + NEXT) + (rank * S::VECTORS + v) / WIDE * AHEAD;
            Lanes sums[SUMS * WIDE];
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS; ++i) {
                const bool sees = ALL || reach + i / S::VALUE_HEADS >= 0;
                const Lanes keep = sees ? state(query + place<S::VALUE_HEADS>(i), KEEP) : Lanes(1.0f);
#pragma clang loop unroll(full)
                for (int w = 0; w < WIDE; ++w)
                    sums[i * WIDE + w] = values[(first * S::VALUE_HEADS + i) * S::VECTORS + v + w] * keep;
            }
            for (int key = 0; key < keys; key += LANES) {
                if (start + NEXT <= last)
                    simd::prefetch<AHEAD * S::Kv::ELEMENT_BYTES>(ahead + key * S::HEAD_DIM);
                add_16_values<ALL>(from + key * S::HEAD_DIM, WEIGHT + (query * S::TILE + key) * 4, reach - key, sums);
            }
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS; ++i)
#pragma clang loop unroll(full)
                for (int w = 0; w < WIDE; ++w)
                    values[(first * S::VALUE_HEADS + i) * S::VECTORS + v + w] = sums[i * WIDE + w];
        }
    }

    /// The same for 16 keys, of which the first row sees reach + 1, the next row one more.
    template <bool ALL, int SUMS>
    static inline void add_16_values(const Element *from, int weight, int reach, Lanes (&sums)[SUMS]) {
        constexpr int WIDE = S::VECTORS_AT_ONCE, PAIRS = SUMS / WIDE, BATCH = 8; // loads in flight
        typename S::Kv::template Loaded<WIDE> batch[BATCH];
        simd::TeamUniform<float, LANES> weights[PAIRS];
#pragma clang loop unroll(full)
        for (int i = 0; i < PAIRS; ++i)
            weights[i] = simd::TeamUniform<float, LANES>(weight + place<S::VALUE_HEADS>(i) * S::TILE * 4);
#pragma clang loop unroll(full)
        for (int key = 0; key < LANES; ++key) {
            if (key % BATCH == 0) {
#pragma clang loop unroll(full)
                for (int i = 0; i < BATCH; ++i)
                    batch[i] = typename S::Kv::template Loaded<WIDE>(from + (key + i) * S::HEAD_DIM);
            }
#pragma clang loop unroll(full)
            for (int w = 0; w < WIDE; ++w) {
                const Lanes value = S::Kv::decode(batch[key % BATCH][w]);
#pragma clang loop unroll(full)
                for (int i = 0; i < PAIRS; ++i) {
                    const Lanes more = simd::fma<float, LANES>(value, Lanes(weights[i][key]), sums[i * WIDE + w]);
                    const int last_key = reach + i / S::VALUE_HEADS;
                    if constexpr (ALL)
                        sums[i * WIDE + w] = more;
                    else // a weight of 0 would not do: what is unwritten may be NaN
                        sums[i * WIDE + w] = simd::select<float, LANES>(
                            vec<int, LANES>(key) <= vec<int, LANES>(last_key), more, sums[i * WIDE + w]);
                }
            }
        }
    }
};

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

    /// Fold the splits of every row and head, 32 dimensions at a time.
    template <class SINK> inline void fold_all(const SINK &sink) const {
        constexpr int GROUPS = S::HEAD_DIM / 32,
                      AHEAD = divisor(S::SPLITS, 8); // partials that are loaded before one is used
        for (int item = attention.rank; item < Attention<S, ROWS>::QUERIES * GROUPS; item += S::TEAM) {
            const int r = item / (S::RATIO * GROUPS), head = item / GROUPS % S::RATIO, dim = item % GROUPS * 32;
            SoftmaxSum<2> total, next[AHEAD];
            clear(total);
            for (int split = 0; split < S::SPLITS && attention.reaches(r, split); split += AHEAD) {
                ARCMTP_UNROLL_ON_GPU
                for (int a = 0; a < AHEAD; ++a) {
                    const float *from = at(r, head, split + a);
                    next[a] = {Lanes(simd::Uniform<float, 8>(from + LARGEST)[0]),
                               Lanes(simd::Uniform<float, 8>(from + WEIGHT)[0]),
                               {simd::load<float, LANES>(from + dim), simd::load<float, LANES>(from + dim + LANES)}};
                }
                ARCMTP_UNROLL_ON_GPU
                for (int a = 0; a < AHEAD; ++a)
                    if (attention.reaches(r, split + a))
                        fold(total, next[a]);
            }
            attention.emit(sink, r, head, dim, total.values[0], total.values[1], total.weight);
        }
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
    if (!attention.owns_values())
        return;
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < OWNED; ++i)
        if (i / S::VALUE_HEADS < attention.live) {
            ARCMTP_UNROLL_ON_GPU
            for (int v = 0; v < S::VECTORS; v += 2)
                attention.emit(sink, i / S::VALUE_HEADS, attention.head_of(i), attention.first_dim() + v * LANES,
                               totals[i].values[v], totals[i].values[v + 1], totals[i].weight);
        }
}

} // namespace arcmtp
