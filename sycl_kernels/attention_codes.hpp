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
    static constexpr int QUERY = Rows::OF_TILES;                           // i8 [HEAD_DIM / 32][QUERIES][32]
    static constexpr int QUERY_SCALE = QUERY + QUERIES * S::HEAD_DIM;      // float [BLOCKS][QUERIES]
    static constexpr int QUERY_START = QUERY_SCALE + QUERIES * BLOCKS * 4; // int [BLOCKS][QUERIES]
    // Of a tile's block
    static constexpr int TILE_BLOCKS = Rows::TILES * BLOCKS, HALVES = S::TILE / 32;
    static constexpr int WEIGHT =
        QUERY_START + QUERIES * BLOCKS * 4; // i8 [TILE_BLOCKS][HALVES][QUERIES][high, low][32]
    static constexpr int WEIGHT_UNIT = WEIGHT + TILE_BLOCKS * QUERIES * 2 * S::TILE; // float [TILE_BLOCKS][QUERIES]
    static constexpr int WEIGHT_START =
        WEIGHT_UNIT + TILE_BLOCKS * QUERIES * 4; // int [TILE_BLOCKS][QUERIES][high, low]
    static constexpr int END = WEIGHT_START + TILE_BLOCKS * QUERIES * 8;
    static constexpr int OUTPUT = Rows::SCORE; // float [QUERIES][HEAD_DIM], when all keys are weighed
    static constexpr int OUTPUT_END = OUTPUT + QUERIES * S::HEAD_DIM * 4;
    static constexpr int TEAM_MEMORY = END > OUTPUT_END ? END : OUTPUT_END;
    static constexpr int ZERO = 128;          // the byte of a code 0
    static constexpr float SMALLEST = 1e-30f; // what is less counts as this, for its parts are no normal numbers

    using Rows::cache, Rows::kv_head, Rows::rank, Rows::last;
    using Rows::head_of, Rows::first_dim, Rows::set_state;
    template <int HEADS> static constexpr int place(int i) { return Rows::template place<HEADS>(i); }

    inline void ask_keys(int) const {}

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
                put_bytes(query_at(query, (b * N + i) / 2) + i % 2 * LANES, simd::convert<int, float, LANES>(code));
            }
            put<float>(QUERY_SCALE + (b * QUERIES + query) * 4,
                       Lanes(simd::divide<LANES>(largest, Lanes(127.0f)) + simd::sum<LANES>(lost)));
            put<int>(QUERY_START + (b * QUERIES + query) * 4, -ZERO * int(simd::sum<LANES>(total)));
        }
    }

    /// Both chains of the scores of rows first … end - 1 with the keys that they see of the tiles from position
    /// `start`, and with unseen ones up to a multiple of 16. The values of the same keys are prefetched meanwhile.
    inline void score(int start, int first, int end) const {
        constexpr int HEADS = Rows::SCORE_HEADS, PARTS = S::CHAINS * Rows::SCORE_PARTS, UNITS = S::TILE / LANES * PARTS;
        constexpr int SUMS = PASS * HEADS, PIECE = divisor(SUMS, 8), GROUPS = Layout::BLOCK / 32;
        constexpr int TOGETHER = PIECE % HEADS == 0 ? HEADS : HEADS % PIECE == 0 ? PIECE : 1; // queries of a message
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
                for (int r = 0; r < PASS; ++r) {
                    const simd::TeamUniform<int, HEADS> dot(QUERY_START + (block * QUERIES + query + r * S::RATIO) * 4);
#pragma clang loop unroll(full)
                    for (int h = 0; h < HEADS; ++h)
                        dots[r * HEADS + h] = dot[h];
                }
                for (int g = block * GROUPS; g < (block + 1) * GROUPS; ++g) {
                    simd::ByteTile bytes;
                    Kv::template load<S::HEAD_DIM, 2>(tile, 2 * g, bytes, 0);
#pragma clang loop unroll(full)
                    for (int i = 0; i < SUMS; i += PIECE)
                        add_products<PIECE, TOGETHER>(bytes, dots + i,
                                                      [=](int r) { return query_at(query + place<HEADS>(i + r), g); });
                }
                const Lanes scale = Layout::scale(tile, block);
#pragma clang loop unroll(full)
                for (int r = 0; r < PASS; ++r) {
                    const simd::TeamUniform<float, HEADS> of(QUERY_SCALE +
                                                             (block * QUERIES + query + r * S::RATIO) * 4);
#pragma clang loop unroll(full)
                    for (int i = r * HEADS; i < (r + 1) * HEADS; ++i)
                        sums[i] = simd::fma<float, LANES>(simd::convert<float, int, LANES>(dots[i]),
                                                          Lanes(scale * of[i - r * HEADS]), sums[i]);
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
        for (int b = 0; b < BLOCKS; ++b) {
            const int block = t * BLOCKS + b;
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
#pragma clang loop unroll(full)
            for (int s = 0; s < SUBTILES; ++s) {
                const Lanes code = simd::rint<LANES>(Lanes(scaled[s] * inverse));
                const vec<int, LANES> whole = simd::convert<int, float, LANES>(code), high = (whole + ZERO) >> 8;
                const vec<int, LANES> low = whole - vec<int, LANES>(high << 8);
                const int to = weights_at(block, s / 2, query) + s % 2 * LANES;
                put_bytes(to, high);
                put_bytes(to + 32, low);
                high_sum = high_sum + simd::convert<float, int, LANES>(high);
                low_sum = low_sum + simd::convert<float, int, LANES>(low);
            }
            put<float>(WEIGHT_UNIT + (block * QUERIES + query) * 4,
                       Lanes(simd::divide<LANES>(largest, Lanes(UNITS)) + simd::sum<LANES>(lost)));
            put<int>(WEIGHT_START + (block * QUERIES + query) * 8, -ZERO * int(simd::sum<LANES>(high_sum)));
            put<int>(WEIGHT_START + (block * QUERIES + query) * 8 + 4, -ZERO * int(simd::sum<LANES>(low_sum)));
        }
    }
    /// The query sees none of the keys in tile t.
    inline void put_no_weights(int t, int query) const {
        set_state(query, Rows::KEEP + t, 1.0f);
        for (int b = 0; b < BLOCKS; ++b)
            put<float>(WEIGHT_UNIT + ((t * BLOCKS + b) * QUERIES + query) * 4, 0.0f);
    }

    /// values = values * keep + weight * value of the keys in tile t, from position `start`. The keys of a next tile
    /// are prefetched meanwhile.
    inline void add_values(int t, int start, int first, int, Lanes (&values)[OWNED * S::VECTORS]) const {
        constexpr int SUMS = PASS * S::VALUE_HEADS, PIECE = divisor(S::VALUE_HEADS, 4);
        constexpr int OWNERS = S::DIM_PARTS * S::VALUE_PARTS * S::VECTORS;
        constexpr int AHEAD = S::TILE / LANES * Layout::TILE_BYTES / OWNERS / 4 * 4;
        ARCMTP_UNROLL_ON_GPU
        for (int v = 0; v < S::VECTORS; ++v) {
            const int matrix = first_dim() / LANES + v, block = t * BLOCKS + matrix * LANES / Layout::BLOCK;
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
                const int query = first * S::RATIO + head_of(0) + place<S::VALUE_HEADS>(i);
                const simd::TeamUniform<int, 2 * PIECE> zero(WEIGHT_START + (block * QUERIES + query) * 8);
                const simd::TeamUniform<float, PIECE> unit(WEIGHT_UNIT + (block * QUERIES + query) * 4);
                const simd::TeamUniform<float, PIECE> keep(Rows::state_at(query, Rows::KEEP + t));
                vec<int, LANES> dots[2 * PIECE];
#pragma clang loop unroll(full)
                for (int r = 0; r < 2 * PIECE; ++r)
                    dots[r] = zero[r];
#pragma clang loop unroll(full)
                for (int h = 0; h < HALVES; ++h)
                    add_products<2 * PIECE, 2 * PIECE>(tiles[h], dots,
                                                       [=](int r) { return weights_at(block, h, query) + r * 32; });
#pragma clang loop unroll(full)
                for (int r = 0; r < PIECE; ++r) {
                    const vec<int, LANES> sum = vec<int, LANES>(dots[2 * r] << 8) + dots[2 * r + 1];
                    Lanes &value = values[(first * S::VALUE_HEADS + i + r) * S::VECTORS + v];
                    value = simd::fma<float, LANES>(simd::convert<float, int, LANES>(sum), Lanes(unit[r]),
                                                    Lanes(value * keep[r]));
                }
            }
        }
    }

  private:
    static constexpr int query_at(int query, int group) { return QUERY + (group * QUERIES + query) * 32; }
    static constexpr int weights_at(int block, int half, int query) {
        return WEIGHT + ((block * HALVES + half) * QUERIES + query) * 64;
    }

    /// dots[r] += the tile times the 32 codes at row(r), of which TOGETHER lie one behind the other.
    template <int COUNT, int TOGETHER, class BYTE_OFFSET>
    static inline void add_products(const simd::ByteTile &bytes, vec<int, LANES> *dots, const BYTE_OFFSET &row) {
        simd::Activations<COUNT> codes;
        codes.template team_load<TOGETHER>(row);
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
    static inline void put_bytes(int at, vec<int, LANES> v) {
        simd::team_store<simd::u32, 4>(
            at, simd::bitcast<simd::u32, simd::i8, LANES>(simd::convert<simd::i8, int, LANES>(v)));
    }
};

} // namespace arcmtp
