// An attention layer's shapes, its inputs, and the cache that it keeps of their keys and values.
#pragma once

#include "batch.hpp"
#include "formats.hpp"

namespace arcmtp {

/// The largest divisor of n that is at most `most`, or 1.
constexpr int divisor(int n, int most) {
    for (int d = most < n ? most : n; d > 1; --d)
        if (n % d == 0)
            return d;
    return 1;
}

inline vec<half, LANES> to_half(Lanes v) { return simd::convert<typename simd::element<half>::type, float, LANES>(v); }
inline Lanes to_float(vec<half, LANES> v) { return simd::convert<float, typename simd::element<half>::type, LANES>(v); }

/// How a cache holds keys and values: as halves. A key's dimensions are 16 elements apart, a value's lie together. Its
/// twin is arcmtp/formats/kv_cache.py.
struct KvF16 {
    using Element = half;
    static constexpr int ELEMENT_BYTES = 2;
    /// COUNT vectors of 16 elements that lie together.
    template <int COUNT> using Loaded = simd::Vectors<half, COUNT>;
    static inline Lanes decode(vec<half, LANES> v) { return to_float(v); }
    /// 16 dimensions from `d` on of the key, or value, whose first element is `to`.
    static inline void store_key(half *to, int d, Lanes v) {
        simd::scatter<half, LANES>(to + d * LANES, simd::iota<LANES>() * LANES, to_half(v));
    }
    static inline void store_value(half *to, int d, Lanes v) { simd::store<half, LANES>(to + d, to_half(v)); }
};

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
    static constexpr int CHAINS = 2,
                         CHAIN = HEAD_DIM / CHAINS; // a score is the sum of CHAINS sums over CHAIN dimensions
    static constexpr int SCORE_PARTS =
        divisor(RATIO, TEAM / (TILE / LANES * CHAINS)); // a thread scores SCORE_HEADS heads
    static constexpr int SCORE_HEADS = RATIO / SCORE_PARTS;
    static constexpr int DIM_PARTS = divisor(HEAD_DIM / 32, TEAM < HEAD_DIM / 64 ? TEAM : HEAD_DIM / 64);
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

/// Keys [KV_HEADS][context / 16][HEAD_DIM][16], then values [KV_HEADS][context][HEAD_DIM]; context is a multiple of 64.
template <class S> struct KvCache {
    using Element = typename S::Element;
    Element *base;
    int context;

    /// The 16 keys of positions p … p + 15, p a multiple of 16.
    inline Element *keys(int kv_head, int p) const { return base + (simd::u64(kv_head) * context + p) * S::HEAD_DIM; }
    inline Element *value(int kv_head, int p) const { return keys(S::KV_HEADS + kv_head, p); }
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
        return {caches + simd::u64(batch.slots[sequence]) * (2 * S::KV_HEADS * S::HEAD_DIM) * context, context};
    }
    inline const float *row(int r) const { return projected + simd::u64(r) * S::STRIDE; }
    inline const float *query(int r, int head) const { return row(r) + head * 2 * S::HEAD_DIM; }
    inline const float *rope_at(int position) const { return rope + simd::u64(position) * S::ROPE_DIM; }
};

/// emit(dimension, 16 values) for x / rms(x) * weight, whose first ROPE_DIM dimensions are rotated as pairs (i, i +
/// ROPE_DIM / 2).
template <class S, class EMIT>
inline void normed_and_rotated(const float *x, const float *weight, const float *rope, float eps, const EMIT &emit) {
    constexpr int HALF = S::ROPE_DIM / 2;
    Lanes squares = 0.0f;
    for (int d = 0; d < S::HEAD_DIM; d += LANES) {
        const Lanes v = simd::load<float, LANES>(x + d);
        squares = simd::fma<float, LANES>(v, v, squares);
    }
    const Lanes mean = Lanes(simd::sum<LANES>(squares) * (1.0f / S::HEAD_DIM)) + eps;
    const Lanes scale = simd::divide<LANES>(Lanes(1.0f), simd::sqrt<LANES>(mean));
    auto normed = [=](int d) {
        return Lanes(simd::load<float, LANES>(x + d) * scale * simd::load<float, LANES>(weight + d));
    };
    if constexpr (HALF == 8) {
        const Lanes v = normed(0), swapped = simd::join<float, 8>(simd::part<8, 8, float, LANES>(v),
                                                                  simd::part<8, 0, float, LANES>(v));
        const vec<float, 8> cos = simd::load<float, 8>(rope), sin = simd::load<float, 8>(rope + 8);
        const Lanes turned = swapped * simd::join<float, 8>(vec<float, 8>(-sin), sin);
        emit(0, simd::fma<float, LANES>(v, simd::join<float, 8>(cos, cos), turned));
    } else
        for (int d = 0; d < HALF; d += LANES) {
            const Lanes a = normed(d), b = normed(d + HALF);
            const Lanes cos = simd::load<float, LANES>(rope + d), sin = simd::load<float, LANES>(rope + HALF + d);
            emit(d, simd::fma<float, LANES>(a, cos, Lanes(-(b * sin))));
            emit(d + HALF, simd::fma<float, LANES>(b, cos, Lanes(a * sin)));
        }
    for (int d = S::ROPE_DIM; d < S::HEAD_DIM; d += LANES)
        emit(d, normed(d));
}

/// The key (part 0) or the value (part 1) of row r into the cache.
template <class S>
inline void store_row(const AttentionInput<S> &in, const KvCache<S> &cache, int r, int position, int kv_head,
                      int part) {
    if (part == 0) {
        const float *key = in.row(r) + S::K_COLUMN + kv_head * S::HEAD_DIM;
        auto *to = cache.keys(kv_head, position / LANES * LANES) + position % LANES;
        normed_and_rotated<S>(key, in.k_norm, in.rope_at(position), in.eps,
                              [=](int d, Lanes v) { S::Kv::store_key(to, d, v); });
    } else {
        const float *value = in.row(r) + S::V_COLUMN + kv_head * S::HEAD_DIM;
        auto *to = cache.value(kv_head, position);
        for (int d = 0; d < S::HEAD_DIM; d += LANES)
            S::Kv::store_value(to, d, simd::load<float, LANES>(value + d));
    }
}

} // namespace arcmtp
