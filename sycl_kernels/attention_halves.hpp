// The scores of keys that are halves, and the sums of values that are: products in float.
#pragma once

#include "attention_rows.hpp"

namespace arcmtp {

template <class S, int ROWS> struct HalfTiles : AttentionRows<S, ROWS> {
    using Rows = AttentionRows<S, ROWS>;
    using AttentionRows<S, ROWS>::AttentionRows;
    using Element = typename S::Element;
    static constexpr int QUERIES = Rows::QUERIES, PASS = Rows::PASS, OWNED = Rows::OWNED;
    static constexpr int QUERY = Rows::OF_TILES;                     // float [QUERIES][HEAD_DIM]
    static constexpr int WEIGHT = QUERY + QUERIES * S::HEAD_DIM * 4; // float [QUERIES][TILE]
    static constexpr int TEAM_MEMORY = WEIGHT + QUERIES * S::TILE * 4;

    using Rows::cache, Rows::kv_head, Rows::rank, Rows::last, Rows::base;
    using Rows::head_of, Rows::first_dim, Rows::state;
    template <int HEADS> static constexpr int place(int i) { return Rows::template place<HEADS>(i); }

    inline void put_query(int query, const Head<S> &head) const {
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < S::HEAD_DIM / LANES; ++i)
            simd::team_store<float, LANES>(QUERY + (query * S::HEAD_DIM + i * LANES) * 4, head.v[i]);
    }

    /// The keys of the tile from position `start` that this thread scores first, unless the rows' own are still to be
    /// stored in it: a cache may keep a line as it was.
    inline void ask_keys(int start) const {
        constexpr int UNIT = S::KEY_VECTORS * LANES, OF_KEY = Rows::SCORE_PARTS * S::CHAINS;
        const int key = rank / OF_KEY * UNIT, dim = rank / Rows::SCORE_PARTS % S::CHAINS * S::CHAIN;
        if (!simd::LOADS_FIRST || key >= S::TILE || start + S::TILE > base)
            return;
#pragma clang loop unroll(full)
        for (int k = 0; k < S::KEY_VECTORS; ++k)
            simd::prefetch<S::CHAIN * LANES * S::Kv::ELEMENT_BYTES>(cache.keys(kv_head, start + key) + dim * LANES +
                                                                    k * S::HEAD_DIM * LANES);
    }

    /// Both chains of the scores of rows first … end - 1 with the keys from position `start` that they see, and with
    /// unseen ones up to a multiple of 16 * KEY_VECTORS. The values of the same keys are prefetched meanwhile.
    inline void score(int start, int first, int end) const {
        const int keys = Rows::keys_of(start, end);
        constexpr int STEP = S::SCORE_STEP, SUMS = PASS * Rows::SCORE_HEADS, UNIT = S::KEY_VECTORS * LANES;
        constexpr int AHEAD = STEP * UNIT / Rows::SCORE_PARTS / 2 * 2; // whole words
        const int units = (keys + UNIT - 1) / UNIT * S::CHAINS * Rows::SCORE_PARTS;
        for (int unit = rank; unit < units; unit += S::TEAM) {
            const int part = unit % Rows::SCORE_PARTS, chain = unit / Rows::SCORE_PARTS % S::CHAINS;
            const int key = unit / (Rows::SCORE_PARTS * S::CHAINS) * UNIT, dim = chain * S::CHAIN;
            const int query = first * S::RATIO + part * Rows::SCORE_HEADS;
            const Element *from = cache.keys(kv_head, start + key) + dim * LANES;
            const Element *ahead = cache.values(kv_head, start + key) + dim * UNIT + part * AHEAD;
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
                    simd::team_store<float, LANES>(Rows::score_at(0, chain, query + place<Rows::SCORE_HEADS>(i)) +
                                                       (key + k * LANES) * 4,
                                                   sums[i * S::KEY_VECTORS + k]);
        }
    }

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
            q[i] = simd::TeamUniform<float, STEP>(query + place<Rows::SCORE_HEADS>(i) * S::HEAD_DIM * 4);
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

    /// The weights of a query's keys from position `start`, 0 beyond `reach` keys.
    inline void put_weights(int, int query, int, int, const Lanes (&weights)[S::TILE / LANES]) const {
#pragma clang loop unroll(full)
        for (int s = 0; s < S::TILE / LANES; ++s)
            simd::team_store<float, LANES>(WEIGHT + (query * S::TILE + s * LANES) * 4, weights[s]);
    }
    /// The query sees none of the keys.
    inline void put_no_weights(int, int) const {}

    /// The values of `keys` keys from position `start` are added.
    inline void add_values(int, int start, int first, int keys, Lanes (&values)[OWNED * S::VECTORS]) const {
        if (base + first - start >= S::TILE - 1)
            add_values<true>(start, first, keys, values);
        else
            add_values<false>(start, first, keys, values);
    }

  private:
    /// values = values * keep + weight * value of each of `keys` keys in turn; without ALL, of those alone that a row
    /// sees. The keys of the split's next tile are prefetched meanwhile.
    template <bool ALL>
    inline void add_values(int start, int first, int keys, Lanes (&values)[OWNED * S::VECTORS]) const {
        constexpr int WIDE = S::VECTORS_AT_ONCE, SUMS = PASS * S::VALUE_HEADS;
        constexpr int AHEAD = LANES * S::HEAD_DIM * WIDE / (S::VECTORS * S::DIM_PARTS * S::VALUE_PARTS) / 2 * 2;
        const int query = first * S::RATIO + head_of(0), reach = base + first - start;
        for (int v = 0; v < S::VECTORS; v += WIDE) {
            const Element *from = cache.values(kv_head, start) + first_dim() + v * LANES;
            const Element *ahead = cache.keys(kv_head, start + Rows::NEXT) + (rank * S::VECTORS + v) / WIDE * AHEAD;
            Lanes sums[SUMS * WIDE];
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS; ++i) {
                const bool sees = ALL || reach + i / S::VALUE_HEADS >= 0;
                const Lanes keep = sees ? state(query + place<S::VALUE_HEADS>(i), Rows::KEEP) : Lanes(1.0f);
#pragma clang loop unroll(full)
                for (int w = 0; w < WIDE; ++w)
                    sums[i * WIDE + w] = values[(first * S::VALUE_HEADS + i) * S::VECTORS + v + w] * keep;
            }
            for (int key = 0; key < keys; key += LANES) {
                if (start + Rows::NEXT <= last)
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

} // namespace arcmtp
