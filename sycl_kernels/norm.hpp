// RMS norm of the residual stream, with what was added to it since the last one.
#pragma once

#include "formats.hpp"

namespace arcmtp {

/// 1 / sqrt(mean of squares + EPS) of a row of K values; each thread of the team brings the squares of its own vectors.
/// Team memory: TEAM * 64 bytes from byte 0.
template <int K, int TEAM> inline float inverse_rms(Lanes squares, float eps) {
    if constexpr (TEAM > 1) {
        simd::team_store<float, LANES>(simd::team_rank() * LANES * 4, squares);
        simd::team_barrier<TEAM>();
        squares = simd::team_load<float, LANES>(0);
        for (int thread = 1; thread < TEAM; ++thread)
            squares += simd::team_load<float, LANES>(thread * LANES * 4);
        simd::team_barrier<TEAM>();
    }
    const Lanes mean = simd::divide(simd::sum<LANES>(squares), K) + eps;
    return simd::divide(1.0f, simd::lane<float, LANES>(simd::sqrt<LANES>(mean), 0));
}

/// x_out[row] = x[row] + partials[row][0] + partials[row][1] + …, and its norm times `weight` to a RowSink. A
/// work-group per row. With GATHER, row r is read from row source_rows[r]; without SLOTS nothing is added and x_out is
/// not written.
template <int K, int SLOTS, bool GATHER, int ROWS, int TEAM, bool QUANTISED, bool PLAIN>
inline void norm(const float *x, const float *partials, float *x_out, const float *weight, float eps,
                 const int *source_rows, u8 *quantised, float *plain, const int *row_count) {
    simd::reserve_team_memory<TEAM * LANES * 4>();
    const int row = simd::group_index();
    if (ROWS == 0 && row >= row_count[0])
        return;
    const simd::u64 source = GATHER ? source_rows[row] : row;
    const float *from = x + source * K, *add = partials + source * SLOTS * K;
    float *sums = x_out + simd::u64(row) * K;
    Lanes squares = 0.0f;
    for (int v = simd::team_rank() * 2; v < K / LANES; v += TEAM * 2) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int at = (v + half) * LANES;
            Lanes value = simd::load<float, LANES>(from + at);
            for (int slot = 0; slot < SLOTS; ++slot)
                value += simd::load<float, LANES>(add + slot * K + at);
            if constexpr (SLOTS > 0)
                simd::store<float, LANES>(sums + at, value);
            squares = simd::fma<float, LANES>(value, value, squares);
        }
    }
    const float scale = inverse_rms<K, TEAM>(squares, eps);
    const float *values = SLOTS > 0 ? sums : from;
    const RowSink<K, QUANTISED, PLAIN> sink{quantised, plain};
    for (int group = simd::team_rank(); group < K / 32; group += TEAM) {
        Lanes normed[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int at = group * 32 + half * LANES;
            normed[half] = simd::load<float, LANES>(values + at) * scale * simd::load<float, LANES>(weight + at);
        }
        sink.put(row, group, normed[0], normed[1]);
    }
}

} // namespace arcmtp
