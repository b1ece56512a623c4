// The scores of keys that are small integers, and the sums of values that are: exact products of bytes, a block of
// dimensions or a tile of keys at a time.
#pragma once

#include "attention_rows.hpp"

namespace arcmtp {

/// A query is rotated as the keys are, and quantised in their blocks: scale = largest / 127. A weight times the scale
/// of a value's block becomes 256 high + low, in units of the largest of its tile / 32639; the high and the low bytes
/// are multiplied apart. Integers know no NaN: where one is lost, the scale becomes NaN.
template <class S, int ROWS> struct CodeTiles : AttentionRows<S, ROWS> {
    using Rows = AttentionRows<S, ROWS>;
    using AttentionRows<S, ROWS>::AttentionRows;
    using Kv = typename S::Kv;
    using Layout = typename S::Layout;
    static constexpr int QUERIES = Rows::QUERIES, PASS = Rows::PASS, OWNED = Rows::OWNED, BLOCKS = Layout::BLOCKS;
    static constexpr int QUERY = Rows::OF_TILES;                           // i8 [QUERIES][HEAD_DIM]
    static constexpr int QUERY_SCALE = QUERY + QUERIES * S::HEAD_DIM;      // float [QUERIES][BLOCKS]
    static constexpr int QUERY_START = QUERY_SCALE + QUERIES * BLOCKS * 4; // int [QUERIES][BLOCKS]
    // Of a weighed query, which is a query of a tile
    static constexpr int WEIGHED = Rows::TILES * QUERIES;
    static constexpr int WEIGHT = QUERY_START + QUERIES * BLOCKS * 4;           // i8 [WEIGHED][BLOCKS][high, low][TILE]
    static constexpr int WEIGHT_UNIT = WEIGHT + WEIGHED * BLOCKS * 2 * S::TILE; // float [WEIGHED][BLOCKS]
    static constexpr int WEIGHT_START = WEIGHT_UNIT + WEIGHED * BLOCKS * 4;     // int [WEIGHED][BLOCKS][high, low]
    static constexpr int END = WEIGHT_START + WEIGHED * BLOCKS * 8;
    static constexpr int OUTPUT = Rows::SCORE; // float [QUERIES][HEAD_DIM], when all keys are weighed
    static constexpr int OUTPUT_END = OUTPUT + QUERIES * S::HEAD_DIM * 4;
    static constexpr int TEAM_MEMORY = END > OUTPUT_END ? END : OUTPUT_END;
    static constexpr int ZERO = 128;          // the byte of a code 0
    static constexpr float SMALLEST = 1e-30f; // what is less counts as this, for its parts are no normal numbers

    using Rows::cache, Rows::kv_head, Rows::rank, Rows::last;
    using Rows::head_of, Rows::first_dim, Rows::state, Rows::set_state;
    template <int HEADS> static constexpr int place(int i) { return Rows::template place<HEADS>(i); }

    inline void put_query(int query, Head<S> head) const {
        rotate<Layout::ROTATION>(head.v);
        constexpr int N = Layout::BLOCK / LANES;
        ARCMTP_UNROLL_ON_GPU
        for (int b = 0; b < BLOCKS; ++b) {
            Lanes most = 0.0f, total = 0.0f, lost = 0.0f;
            ARCMTP_UNROLL_ON_GPU
            for (int i = 0; i < N; ++i) {
                most = simd::max<float, LANES>(most, Lanes(simd::abs<LANES>(head.v[b * N + i])));
                lost = lost + Lanes(head.v[b * N + i] * 0.0f);
            }
            const Lanes largest = simd::max<float, LANES>(simd::largest<float, LANES>(most), Lanes(SMALLEST));
            const Lanes inverse = simd::divide<LANES>(Lanes(127.0f), largest);
            ARCMTP_UNROLL_ON_GPU
            for (int i = 0; i < N; ++i) {
                const Lanes code = simd::rint<LANES>(Lanes(head.v[b * N + i] * inverse));
                total = total + code;
                put_bytes(QUERY + query * S::HEAD_DIM + (b * N + i) * LANES, simd::convert<int, float, LANES>(code));
            }
            put<float>(QUERY_SCALE + (query * BLOCKS + b) * 4,
                       Lanes(simd::divide<LANES>(largest, Lanes(127.0f)) + simd::sum<LANES>(lost)));
            put<int>(QUERY_START + (query * BLOCKS + b) * 4, -ZERO * int(simd::sum<LANES>(total)));
        }
    }

    /// Both chains of the scores of rows first … end - 1 with the keys that they see of the tiles from position
    /// `start`, and with unseen ones up to a multiple of 16. The values of the same keys are prefetched meanwhile.
    inline void score(int start, int first, int end) const {
        constexpr int HEADS = Rows::SCORE_HEADS, PARTS = S::CHAINS * Rows::SCORE_PARTS, UNITS = S::TILE / LANES * PARTS;
        constexpr int SUMS = PASS * HEADS, PIECE = divisor(SUMS, 8), GROUPS = Layout::BLOCK / 32;
        constexpr int OF_CHAIN = BLOCKS / S::CHAINS, AHEAD = Layout::TILE_BYTES / PARTS / 4 * 4;
        for (int unit = rank; unit < Rows::TILES * UNITS; unit += S::TEAM) {
            const int t = unit / UNITS, key = unit % UNITS / PARTS * LANES, from = start + t * S::SPLITS * S::TILE;
            const int part = unit % Rows::SCORE_PARTS, chain = unit / Rows::SCORE_PARTS % S::CHAINS;
            const int query = first * S::RATIO + part * HEADS;
            if (key >= Rows::keys_of(from, end))
                return;
            const u8 *tile = cache.keys(kv_head, from + key);
            simd::prefetch<AHEAD>(cache.values(kv_head, from + key) + unit % PARTS * AHEAD);
            Lanes sums[SUMS];
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS; ++i)
                sums[i] = 0.0f;
            for (int block = chain * OF_CHAIN; block < (chain + 1) * OF_CHAIN; ++block) {
                vec<int, LANES> dots[SUMS];
#pragma clang loop unroll(full)
                for (int i = 0; i < SUMS; ++i)
                    dots[i] = get<int>(QUERY_START + ((query + place<HEADS>(i)) * BLOCKS + block) * 4);
                for (int g = block * GROUPS; g < (block + 1) * GROUPS; ++g) {
                    simd::ByteTile bytes;
                    Kv::template load<S::HEAD_DIM, 2>(tile, 2 * g, bytes, 0);
#pragma clang loop unroll(full)
                    for (int i = 0; i < SUMS; i += PIECE)
                        add_products<PIECE>(bytes, dots + i, [=](int r) {
                            return QUERY + (query + place<HEADS>(i + r)) * S::HEAD_DIM + g * 32;
                        });
                }
                const Lanes scale = Layout::scale(tile, block);
#pragma clang loop unroll(full)
                for (int i = 0; i < SUMS; ++i) {
                    const int at = QUERY_SCALE + ((query + place<HEADS>(i)) * BLOCKS + block) * 4;
                    sums[i] = simd::fma<float, LANES>(simd::convert<float, int, LANES>(dots[i]),
                                                      Lanes(scale * get<float>(at)), sums[i]);
                }
            }
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS; ++i)
                simd::team_store<float, LANES>(Rows::score_at(t, chain, query + place<HEADS>(i)) + key * 4, sums[i]);
        }
    }

    /// The weights of a query's keys in tile t, from position `start`, of which it sees reach + 1.
    inline void put_weights(int t, int query, int start, int reach, const Lanes (&weights)[S::TILE / LANES]) const {
        constexpr int SUBTILES = S::TILE / LANES;
        constexpr float UNITS = 32639.0f;
        const int weighed = t * QUERIES + query;
        for (int b = 0; b < BLOCKS; ++b) {
            Lanes scaled[SUBTILES], most = 0.0f, lost = 0.0f, high_sum = 0.0f, low_sum = 0.0f;
#pragma clang loop unroll(full)
            for (int s = 0; s < SUBTILES; ++s) {
                // By bits: a scale that nothing has written may be NaN, and flags for all masks are more than there
                // are.
                const vec<int, LANES> seen = vec<int, LANES>(simd::iota<LANES>() + (s * LANES - reach - 1)) >> 31;
                const Lanes scale = Layout::scale(cache.values(kv_head, start + s * LANES), b);
                const vec<int, LANES> kept = simd::bitcast<int, float, LANES>(scale) & seen;
                scaled[s] = weights[s] * Lanes(simd::bitcast<float, int, LANES>(kept));
                most = simd::max<float, LANES>(most, scaled[s]);
                lost = lost + Lanes(scaled[s] * 0.0f);
            }
            const Lanes largest = simd::max<float, LANES>(simd::largest<float, LANES>(most), Lanes(SMALLEST));
            const Lanes inverse = simd::divide<LANES>(Lanes(UNITS), largest);
            const int to = WEIGHT + (weighed * BLOCKS + b) * 2 * S::TILE;
#pragma clang loop unroll(full)
            for (int s = 0; s < SUBTILES; ++s) {
                const Lanes code = simd::rint<LANES>(Lanes(scaled[s] * inverse));
                const vec<int, LANES> whole = simd::convert<int, float, LANES>(code), high = (whole + ZERO) >> 8;
                const vec<int, LANES> low = whole - vec<int, LANES>(high << 8);
                put_bytes(to + s * LANES, high);
                put_bytes(to + S::TILE + s * LANES, low);
                high_sum = high_sum + simd::convert<float, int, LANES>(high);
                low_sum = low_sum + simd::convert<float, int, LANES>(low);
            }
            put<float>(WEIGHT_UNIT + (weighed * BLOCKS + b) * 4,
                       Lanes(simd::divide<LANES>(largest, Lanes(UNITS)) + simd::sum<LANES>(lost)));
            put<int>(WEIGHT_START + (weighed * BLOCKS + b) * 8, -ZERO * int(simd::sum<LANES>(high_sum)));
            put<int>(WEIGHT_START + (weighed * BLOCKS + b) * 8 + 4, -ZERO * int(simd::sum<LANES>(low_sum)));
        }
    }
    /// The query sees none of the keys in tile t.
    inline void put_no_weights(int t, int query) const {
        set_state(query, Rows::KEEP + t, 1.0f);
        for (int b = 0; b < BLOCKS; ++b)
            put<float>(WEIGHT_UNIT + ((t * QUERIES + query) * BLOCKS + b) * 4, 0.0f);
    }

    /// values = values * keep + weight * value of the keys in tile t, from position `start`. The keys of a next tile
    /// are prefetched meanwhile.
    inline void add_values(int t, int start, int first, int, Lanes (&values)[OWNED * S::VECTORS]) const {
        constexpr int SUMS = PASS * S::VALUE_HEADS, PIECE = divisor(SUMS, 4), HALVES = S::TILE / (2 * LANES);
        constexpr int OWNERS = S::DIM_PARTS * S::VALUE_PARTS * S::VECTORS;
        constexpr int AHEAD = S::TILE / LANES * Layout::TILE_BYTES / OWNERS / 4 * 4;
        const int query = first * S::RATIO + head_of(0), weighed = t * QUERIES + query;
        ARCMTP_UNROLL_ON_GPU
        for (int v = 0; v < S::VECTORS; ++v) {
            const int matrix = first_dim() / LANES + v, block = matrix * LANES / Layout::BLOCK;
            if (start + Rows::NEXT <= last)
                simd::prefetch<AHEAD>(cache.keys(kv_head, start + Rows::NEXT) + (rank * S::VECTORS + v) * AHEAD);
            simd::ByteTile tiles[HALVES]; // unseen keys weigh 0, whatever their codes are
            ARCMTP_UNROLL_ON_GPU
            for (int h = 0; h < HALVES; ++h) {
                const u8 *of_half = cache.values(kv_head, start + h * 2 * LANES);
                Kv::template load<S::HEAD_DIM, 1>(of_half, matrix, tiles[h], 0);
                Kv::template load<S::HEAD_DIM, 1>(of_half + Layout::TILE_BYTES, matrix, tiles[h], 4);
            }
#pragma clang loop unroll(full)
            for (int i = 0; i < SUMS; i += PIECE) {
                vec<int, LANES> dots[2 * PIECE];
#pragma clang loop unroll(full)
                for (int r = 0; r < 2 * PIECE; ++r)
                    dots[r] = get<int>(WEIGHT_START + row_of_weights(weighed, 2 * i + r, block) * 4);
#pragma clang loop unroll(full)
                for (int h = 0; h < HALVES; ++h)
                    add_products<2 * PIECE>(tiles[h], dots, [=](int r) {
                        return WEIGHT + row_of_weights(weighed, 2 * i + r, block) * S::TILE + h * 2 * LANES;
                    });
#pragma clang loop unroll(full)
                for (int r = 0; r < PIECE; ++r) {
                    const int of = place<S::VALUE_HEADS>(i + r);
                    const vec<int, LANES> sum = vec<int, LANES>(dots[2 * r] << 8) + dots[2 * r + 1];
                    Lanes &value = values[(first * S::VALUE_HEADS + i + r) * S::VECTORS + v];
                    value =
                        simd::fma<float, LANES>(simd::convert<float, int, LANES>(sum),
                                                Lanes(get<float>(WEIGHT_UNIT + ((weighed + of) * BLOCKS + block) * 4)),
                                                Lanes(value * state(query + of, Rows::KEEP + t)));
                }
            }
        }
    }

  private:
    /// The high (i even) or low weights of the i / 2-th weighed query from `weighed` on.
    static constexpr int row_of_weights(int weighed, int i, int block) {
        return ((weighed + place<S::VALUE_HEADS>(i / 2)) * BLOCKS + block) * 2 + i % 2;
    }

    /// dots[r] += the tile times the 32 codes at row(r).
    template <int COUNT, class BYTE_OFFSET>
    static inline void add_products(const simd::ByteTile &bytes, vec<int, LANES> *dots, const BYTE_OFFSET &row) {
        simd::Activations<COUNT> codes;
        codes.team_load(row);
        vec<int, LANES> start[COUNT];
#pragma clang loop unroll(full)
        for (int r = 0; r < COUNT; ++r)
            start[r] = dots[r];
        const simd::Dots<COUNT> products = simd::dot<0, 8, COUNT>(bytes.weights(), codes, start);
#pragma clang loop unroll(full)
        for (int r = 0; r < COUNT; ++r)
            dots[r] = products[r];
    }

    template <class T> static inline void put(int at, T value) { simd::team_store<T, 1>(at, vec<T, 1>(value)); }
    template <class T> static inline void put(int at, vec<T, LANES> alike) {
        simd::team_store<T, 1>(at, simd::part<1, 0, T, LANES>(alike));
    }
    template <class T> static inline T get(int at) { return simd::lane<T, 1>(simd::team_load<T, 1>(at), 0); }
    static inline void put_bytes(int at, vec<int, LANES> v) {
        simd::team_store<simd::u32, 4>(
            at, simd::bitcast<simd::u32, simd::i8, LANES>(simd::convert<simd::i8, int, LANES>(v)));
    }
};

} // namespace arcmtp
