// An attention layer's shapes, its inputs, and the cache that it keeps of their keys and values.
#pragma once

#include "batch.hpp"
#include "kv_formats.hpp"

namespace arcmtp {

/// The largest divisor of n that is at most `most`, or 1.
constexpr int divisor(int n, int most) {
    for (int d = most < n ? most : n; d > 1; --d)
        if (n % d == 0)
            return d;
    return 1;
}

/// One layer's cache format, shapes, columns of the projections, and how its work is spread over a team.
template <class KV, int Q_HEADS_, int KV_HEADS_, int HEAD_DIM_, int ROPE_DIM_, int STRIDE_, int K_COLUMN_,
          int V_COLUMN_, int TEAM_, int SPLITS_>
struct AttentionShape {
    using Kv = KV;
    using Element = typename KV::Element;
    static constexpr int Q_HEADS = Q_HEADS_, KV_HEADS = KV_HEADS_, HEAD_DIM = HEAD_DIM_, ROPE_DIM = ROPE_DIM_;
    static constexpr int STRIDE = STRIDE_, K_COLUMN = K_COLUMN_, V_COLUMN = V_COLUMN_, TEAM = TEAM_, SPLITS = SPLITS_;
    static constexpr int RATIO = Q_HEADS / KV_HEADS, WIDTH = Q_HEADS * HEAD_DIM;
    static_assert(Q_HEADS % KV_HEADS == 0 && HEAD_DIM % 32 == 0 && (ROPE_DIM == 16 || ROPE_DIM % 32 == 0));

    static constexpr int TILE = 64; // keys
    using Layout = KvHead<KV, HEAD_DIM>;
    static constexpr int CHAINS = Layout::CHAINS; // a score is the sum of CHAINS sums over CHAIN dimensions
    static constexpr int CHAIN = HEAD_DIM / CHAINS;
    static constexpr int OWN_DIMS = Kv::CODED ? 16 : 64; // at least: codes are decoded for as many heads as possible
    static constexpr int DIM_PARTS =
        divisor(HEAD_DIM / (OWN_DIMS < 32 ? OWN_DIMS : 32), TEAM < HEAD_DIM / OWN_DIMS ? TEAM : HEAD_DIM / OWN_DIMS);
    static constexpr int VALUE_PARTS =
        divisor(RATIO, TEAM / DIM_PARTS); // a thread owns VALUE_HEADS heads' sums of VECTORS * 16
    static constexpr int VALUE_HEADS = RATIO / VALUE_PARTS,
                         VECTORS = HEAD_DIM / LANES / DIM_PARTS; // dimensions of the values

    // A team holds all its sums in registers, and a key or value that was loaded serves all rows. A lone thread has
    // registers for about 16 sums and takes one row after the other: its products cost more than loading again from its
    // cache.
    static constexpr int VECTORS_AT_ONCE = TEAM > 1 ? VECTORS : divisor(VECTORS, 16 / VALUE_HEADS);
    template <int ROWS> static constexpr int PASS = TEAM > 1 ? ROWS : 1;
    // It scores 32 keys at once: 16 sums hide the latency of an fma, and a query that was loaded serves both vectors.
    // In steps of 32 dimensions the compiler would load more queries ahead than it has registers for (half the speed).
    static constexpr int KEY_VECTORS = TEAM > 1 ? 1 : 2, SCORE_STEP = divisor(CHAIN, TEAM > 1 ? 32 : 2);
};

/// Tiles of 16 positions: those of keys [KV_HEADS][context / 16], then those of values; context is a multiple of 64.
/// Halves lie as [HEAD_DIM][16] in a tile of keys, as [16][HEAD_DIM] in one of values.
template <class S> struct KvCache {
    using Element = typename S::Element;
    Element *base;
    int context;

    /// The 16 keys of positions p … p + 15, p a multiple of 16.
    inline Element *keys(int kv_head, int p) const {
        return base + (simd::u64(kv_head) * context + p) * S::Layout::POSITION;
    }
    inline Element *values(int kv_head, int p) const { return keys(S::KV_HEADS + kv_head, p); }
};

/// float [rows][STRIDE] projections, norm weights [HEAD_DIM], float [positions][2][ROPE_DIM / 2] cos and sin, the
/// position of each row (successive for the rows of a sequence), and the caches [slots] of `context` positions.
template <class S> struct AttentionInput {
    const float *projected, *q_norm, *k_norm, *rope;
    const int *positions;
    typename S::Element *caches;
    int context;
    float eps;
    Batch batch;

    inline KvCache<S> cache(int sequence) const {
        return {caches + simd::u64(batch.slots[sequence]) * (2 * S::KV_HEADS * S::Layout::POSITION) * context, context};
    }
    inline const float *row(int r) const { return projected + simd::u64(r) * S::STRIDE; }
    inline const float *query(int r, int head) const { return row(r) + head * 2 * S::HEAD_DIM; }
    inline const float *rope_at(int position) const { return rope + simd::u64(position) * S::ROPE_DIM; }
};

/// A head of a row in registers.
template <class S> struct Head {
    Lanes v[S::HEAD_DIM / LANES];
};

/// x / rms(x) * weight, whose first ROPE_DIM dimensions are rotated as pairs (i, i + ROPE_DIM / 2).
template <class S>
inline Head<S> normed_and_rotated(const float *x, const float *weight, const float *rope, float eps) {
    constexpr int HALF = S::ROPE_DIM / 2;
    if constexpr (simd::LOADS_FIRST) { // what is loaded once the squares are known
        simd::prefetch<S::HEAD_DIM * 4>(weight);
        simd::prefetch<S::ROPE_DIM * 4>(rope);
    }
    Head<S> head;
    Lanes squares = 0.0f;
    for (int d = 0; d < S::HEAD_DIM; d += LANES) {
        const Lanes v = simd::load<float, LANES>(x + d);
        squares = simd::fma<float, LANES>(v, v, squares);
    }
    const Lanes mean = Lanes(simd::sum<LANES>(squares) * (1.0f / S::HEAD_DIM)) + eps;
    const Lanes scale = simd::divide<LANES>(Lanes(1.0f), simd::sqrt<LANES>(mean));
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < S::HEAD_DIM / LANES; ++i)
        head.v[i] = simd::load<float, LANES>(x + i * LANES) * scale * simd::load<float, LANES>(weight + i * LANES);
    if constexpr (HALF == 8) {
        const Lanes v = head.v[0], swapped = simd::join<float, 8>(simd::part<8, 8, float, LANES>(v),
                                                                  simd::part<8, 0, float, LANES>(v));
        const vec<float, 8> cos = simd::load<float, 8>(rope), sin = simd::load<float, 8>(rope + 8);
        const Lanes turned = swapped * simd::join<float, 8>(vec<float, 8>(-sin), sin);
        head.v[0] = simd::fma<float, LANES>(v, simd::join<float, 8>(cos, cos), turned);
    } else {
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < HALF / LANES; ++i) {
            const Lanes a = head.v[i], b = head.v[i + HALF / LANES];
            const Lanes cos = simd::load<float, LANES>(rope + i * LANES);
            const Lanes sin = simd::load<float, LANES>(rope + HALF + i * LANES);
            head.v[i] = simd::fma<float, LANES>(a, cos, Lanes(-(b * sin)));
            head.v[i + HALF / LANES] = simd::fma<float, LANES>(b, cos, Lanes(a * sin));
        }
    }
    return head;
}

/// The key (part 0) or the value (part 1) of row r into the cache.
template <class S>
inline void store_row(const AttentionInput<S> &in, const KvCache<S> &cache, int r, int position, int kv_head,
                      int part) {
    const float *from = in.row(r) + (part == 0 ? S::K_COLUMN : S::V_COLUMN) + kv_head * S::HEAD_DIM;
    Head<S> head;
    if (part == 0)
        head = normed_and_rotated<S>(from, in.k_norm, in.rope_at(position), in.eps);
    else {
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < S::HEAD_DIM / LANES; ++i)
            head.v[i] = simd::load<float, LANES>(from + i * LANES);
    }
    auto *tile = cache.keys(part * S::KV_HEADS + kv_head, position / LANES * LANES);
    S::Layout::store(tile, position % LANES, part, head.v);
}

} // namespace arcmtp
