// Random numbers from counters: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, 2011), and Gumbel noise made of them.
#pragma once

#include "simd.hpp"

namespace arcmtp {

using simd::LANES;
using simd::vec;
using Lanes = vec<float, LANES>;
using Ints = vec<int, LANES>;
using Words = vec<simd::u32, LANES>;

/// Four words per lane, from counters and a key: ten rounds in place.
inline void philox(Words (&words)[4], simd::u32 key0, simd::u32 key1) {
    const Words multiplier0 = 0xd2511f53u, multiplier1 = 0xcd9e8d57u;
    for (int round = 0; round < 10; ++round) {
        const Words high0 = simd::multiply_high<LANES>(words[0], multiplier0), low0 = words[0] * multiplier0;
        const Words high1 = simd::multiply_high<LANES>(words[2], multiplier1), low1 = words[2] * multiplier1;
        words[0] = high1 ^ words[1] ^ key0;
        words[1] = low1;
        words[2] = high0 ^ words[3] ^ key1;
        words[3] = low0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
}

/// -log(-log(u)) of u = (word + ½) / 2^32, between -3.14 and 22.88. Near 1, u is known by its distance to 1.
inline Lanes gumbel(Words word) {
    const Ints bits = simd::bitcast<int, simd::u32, LANES>(word);
    const simd::mask<LANES> near_one = bits < 0;
    const Ints nearest_end = bits ^ bits >> 31;
    const Lanes distance = (simd::convert<float, int, LANES>(nearest_end) + 0.5f) * 0x1p-32f; // (0, ½]
    // -log(1 - d) = log((1 + s) / (1 - s)) with s = d / (2 - d);  -log(d) = -exponent log 2 - log(mantissa)
    const Ints parts = simd::bitcast<int, float, LANES>(distance);
    const Lanes exponent = simd::convert<float, int, LANES>(Ints((parts >> 23) - 127));
    const Lanes mantissa = simd::bitcast<float, int, LANES>(Ints((parts & 0x007fffff) | 0x3f800000));
    const Lanes above = simd::select<float, LANES>(near_one, distance, Lanes(mantissa - 1.0f));
    const Lanes below = simd::select<float, LANES>(near_one, Lanes(2.0f - distance), Lanes(mantissa + 1.0f));
    const Lanes ratio = simd::log_ratio<LANES>(simd::divide<LANES>(above, below));
    const Lanes small = simd::fma<float, LANES>(exponent, Lanes(-2.12194440e-4f), ratio);
    const Lanes log = simd::fma<float, LANES>(exponent, Lanes(0.693359375f), small);
    return -simd::log<LANES>(simd::select<float, LANES>(near_one, ratio, Lanes(-log)));
}

} // namespace arcmtp
