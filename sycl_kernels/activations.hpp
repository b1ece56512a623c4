// Rows of int8 activations, the right-hand side of every quantised product.
//
// A row of K values is [ACTIVATION_ORDERS][K] int8 codes, [K/32] float scales, and ints [2][K/32]: minus the sum of a
// group's codes, minus the sum of its last 16. (Minus, since it is what a product starts from, times the zero point.)
#pragma once

#include "simd.hpp"

namespace arcmtp {

using simd::u8;
using simd::vec;

template <int K> struct ActivationRow {
    static constexpr int SCALES = simd::ACTIVATION_ORDERS * K;
    static constexpr int SUMS = SCALES + K / 32 * 4;
    static constexpr int BYTES = SUMS + K / 16 * 4;
};

/// Quantise values 32 * group … + 31 of a row: scale = max|x| / 127, code = nearest(x / scale).
template <int K> inline void quantise_group(u8 *row, int group, vec<float, 16> low, vec<float, 16> high) {
    using Row = ActivationRow<K>;
    const float largest =
        simd::largest<float, 16>(simd::max<float, 16>(simd::abs<16>(low), vec<float, 16>(simd::abs<16>(high))));
    const float inverse = largest > 0 ? simd::divide(127.0f, largest) : 0.0f;
    const vec<float, 16> a = simd::rint<16>(vec<float, 16>(low * inverse));
    const vec<float, 16> b = simd::rint<16>(vec<float, 16>(high * inverse));
    simd::store_activation_codes(row, K, group, simd::join<float, 16>(a, b));
    simd::store<float, 1>(reinterpret_cast<float *>(row + Row::SCALES) + group,
                          vec<float, 1>(simd::divide(largest, 127.0f)));
    const int first = int(simd::sum<16>(a)), last = int(simd::sum<16>(b));
    int *sums = reinterpret_cast<int *>(row + Row::SUMS) + group;
    simd::store<int, 1>(sums, vec<int, 1>(-(first + last)));
    simd::store<int, 1>(sums + K / 32, vec<int, 1>(-last));
}

/// Where the consumers of rows of K values find them: int8 rows for quantised weights, float rows for plain ones, or
/// both.
template <int K, bool QUANTISED, bool PLAIN> struct RowSink {
    u8 *quantised;
    float *plain;

    /// Values 32 * group … + 31 of row `row`.
    inline void put(int row, int group, vec<float, 16> low, vec<float, 16> high) const {
        if constexpr (QUANTISED)
            quantise_group<K>(quantised + simd::u64(row) * ActivationRow<K>::BYTES, group, low, high);
        if constexpr (PLAIN) {
            float *to = plain + simd::u64(row) * K + 32 * group;
            simd::store<float, 16>(to, low);
            simd::store<float, 16>(to + 16, high);
        }
    }
};

} // namespace arcmtp
