// The signed Hadamard transform, which spreads what is large in few dimensions of a head over all of them.
#pragma once

#include "formats.hpp"

namespace arcmtp {

/// A sign for each of 256 dimensions, a bit each: the first bits of pi's fraction. Its twin is in
/// arcmtp/formats/kv_cache.py.
constexpr simd::u32 SIGNS[8] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344,
                                0xa4093822, 0x299f31d0, 0x082efa98, 0xec4e6c89};

/// The largest power of two that divides n, at most `most`.
constexpr int power_of_two_divisor(int n, int most) { return (n & -n) < most ? n & -n : most; }

/// 1 / sqrt(n) for a power of two.
constexpr float inverse_root(int n) {
    float root = 1.0f;
    for (; n > 2; n /= 4)
        root *= 0.5f;
    return n == 2 ? root * 0.70710678f : root;
}

/// v[i] of dimensions 16 i … with the signs of these dimensions.
template <int COUNT> inline void apply_signs(Lanes (&v)[COUNT]) {
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < COUNT; ++i) {
        const vec<int, LANES> bits = vec<int, LANES>(int(SIGNS[i / 2 % 8] >> i % 2 * LANES)) >> simd::iota<LANES>();
        const vec<int, LANES> flipped = simd::bitcast<int, float, LANES>(v[i]) ^ vec<int, LANES>(bits << 31);
        v[i] = simd::bitcast<float, int, LANES>(flipped);
    }
}

/// v = H v / sqrt(N) of each N dimensions. Every stage puts the sums of neighbours before their differences, which is
/// the butterfly of one bit of the index and turns the index by a bit: after log2(N) stages all are in place again.
template <int N, int COUNT> inline void hadamard(Lanes (&v)[COUNT]) {
    constexpr int VECTORS = N / LANES, HALF = LANES / 2;
    constexpr float FACTOR = inverse_root(N);
    static_assert(N >= 2 * LANES && COUNT % VECTORS == 0);
    ARCMTP_UNROLL_ON_GPU
    for (int first = 0; first < COUNT; first += VECTORS) {
        ARCMTP_UNROLL_ON_GPU
        for (int stage = 1; stage < N; stage *= 2) {
            Lanes next[VECTORS];
            ARCMTP_UNROLL_ON_GPU
            for (int i = 0; i < VECTORS / 2; ++i) {
                const Lanes a = v[first + 2 * i], b = v[first + 2 * i + 1];
                const Lanes even = simd::join<float, HALF>(simd::every<HALF, 2, 0, float, LANES>(a),
                                                           simd::every<HALF, 2, 0, float, LANES>(b));
                const Lanes odd = simd::join<float, HALF>(simd::every<HALF, 2, 1, float, LANES>(a),
                                                          simd::every<HALF, 2, 1, float, LANES>(b));
                next[i] = even + odd;
                next[i + VECTORS / 2] = even - odd;
            }
            ARCMTP_UNROLL_ON_GPU
            for (int i = 0; i < VECTORS; ++i)
                v[first + i] = next[i];
        }
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < VECTORS; ++i)
            v[first + i] = v[first + i] * FACTOR;
    }
}

/// The transform of each N dimensions of a head: signs, then Hadamard.
template <int N, int COUNT> inline void rotate(Lanes (&v)[COUNT]) {
    apply_signs(v);
    hadamard<N>(v);
}
/// Its inverse.
template <int N, int COUNT> inline void rotate_back(Lanes (&v)[COUNT]) {
    hadamard<N>(v);
    apply_signs(v);
}

} // namespace arcmtp
