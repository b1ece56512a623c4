// The running sums of an online SOFTMAX.
#pragma once

#include "formats.hpp"

namespace arcmtp {

/// What some keys give to a query: their largest score, the sum of their weights e^(score - largest), and their values
/// weighted.
template <int WIDTH> struct SoftmaxSum {
    Lanes largest, weight, values[WIDTH];
};

constexpr float LOWEST = -3.0e38f; // e^(LOWEST - any score) is 0

template <int WIDTH> inline void clear(SoftmaxSum<WIDTH> &sum) {
    sum.largest = LOWEST;
    sum.weight = 0.0f;
    ARCMTP_UNROLL_ON_GPU
    for (int w = 0; w < WIDTH; ++w)
        sum.values[w] = 0.0f;
}

/// Add the keys of the next split.
template <int WIDTH> inline void fold(SoftmaxSum<WIDTH> &total, const SoftmaxSum<WIDTH> &next) {
    const Lanes largest = simd::max<float, LANES>(total.largest, next.largest);
    const Lanes keep = simd::exp<LANES>(total.largest - largest), add = simd::exp<LANES>(next.largest - largest);
    total.largest = largest;
    total.weight = simd::fma<float, LANES>(next.weight, add, Lanes(total.weight * keep));
    ARCMTP_UNROLL_ON_GPU
    for (int w = 0; w < WIDTH; ++w)
        total.values[w] = simd::fma<float, LANES>(next.values[w], add, Lanes(total.values[w] * keep));
}

} // namespace arcmtp
