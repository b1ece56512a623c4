// RMS norm of the residual stream, with what was added to it since the last one.
#pragma once

#include "formats.hpp"

namespace arcmtp {

/// The least power of two that is not below a team.
constexpr int team_places(int team) { return team < 2 ? 1 : 2 * team_places((team + 1) / 2); }

/// 1 / sqrt(mean of squares + EPS) of ROWS rows of K values, in lanes; each thread of the team brings the squares of
/// its own values. Team memory: ROWS * 4 bytes a thread of a team of the next power of two, from byte 0.
template <int K, int TEAM, int ROWS> inline Lanes inverse_rms(const Lanes (&squares)[ROWS], float eps) {
    static_assert(ROWS <= LANES);
    constexpr int PLACES = team_places(TEAM);
    float sums[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
        sums[r] = simd::sum<LANES>(squares[r]);
    if constexpr (TEAM > 1) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            simd::team_store<float, 1>((r * PLACES + simd::team_rank()) * 4, vec<float, 1>(sums[r]));
        simd::team_barrier<TEAM>();
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            vec<float, PLACES> parts = simd::team_load<float, PLACES>(r * PLACES * 4);
            if constexpr (PLACES > TEAM)
                parts = simd::select<float, PLACES>(simd::iota<PLACES>() < TEAM, parts, vec<float, PLACES>(0.0f));
            sums[r] = simd::sum<PLACES>(parts);
        }
        simd::team_barrier<TEAM>();
    }
    Lanes all = sums[0];
#pragma unroll
    for (int r = 1; r < ROWS; ++r)
        all = simd::select<float, LANES>(simd::iota<LANES>() == r, Lanes(sums[r]), all);
    const Lanes mean = simd::divide<LANES>(all, Lanes(float(K))) + eps;
    return simd::divide<LANES>(Lanes(1.0f), simd::sqrt<LANES>(mean));
}
template <int K, int TEAM> inline float inverse_rms(Lanes squares, float eps) {
    const Lanes row[1] = {squares};
    return simd::lane<float, LANES>(inverse_rms<K, TEAM, 1>(row, eps), 0);
}

/// Whether a row of K inputs has no such group of 32: never where a team shares them evenly, and without a branch loads
/// of the groups need not wait for each other.
template <int K, int TEAM> inline bool beyond(int group) { return K / 32 % TEAM != 0 && group >= K / 32; }

/// squares + those of 32 values, the first 16 before the others.
inline Lanes add_squares(vec<float, 32> values, Lanes squares) {
    const Lanes low = simd::part<LANES, 0, float, 32>(values), high = simd::part<LANES, LANES, float, 32>(values);
    return simd::fma<float, LANES>(high, high, simd::fma<float, LANES>(low, low, squares));
}

/// x_out[row] = x[row] + partials[row][0] + partials[row][1] + …, and its norm times `weight` to a RowSink; by one
/// team. With GATHER it is read from row source_rows[row]; without SLOTS nothing is added and x_out is not written.
template <int K, int SLOTS, bool GATHER, int TEAM, bool QUANTISED, bool PLAIN>
inline void norm_row(int row, const float *x, const float *partials, float *x_out, const float *weight, float eps,
                     const int *source_rows, u8 *quantised, float *plain) {
    const simd::u64 source = GATHER ? source_rows[row] : row;
    const float *from = x + source * K, *add = partials + source * SLOTS * K;
    float *sums = x_out + simd::u64(row) * K;
    constexpr int GROUPS = (K / 32 + TEAM - 1) / TEAM;                       // of a thread
    constexpr bool HELD = GROUPS <= 8;                                       // in registers; else they are read again
    constexpr bool LOADED = simd::LOADS_FIRST && GROUPS * (SLOTS + 1) <= 24; // before the first is used
    vec<float, 32> held[HELD ? GROUPS : 1], loaded[LOADED ? GROUPS * (SLOTS + 1) : 1], weights[LOADED ? GROUPS : 1];
    if constexpr (LOADED) {
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
            const int group = simd::team_rank() + i * TEAM, at = group * 32;
            if (beyond<K, TEAM>(group))
                break;
#pragma unroll
            for (int slot = 0; slot <= SLOTS; ++slot)
                loaded[i * (SLOTS + 1) + slot] = simd::load<float, 32>((slot > 0 ? add + (slot - 1) * K : from) + at);
            weights[i] = simd::load<float, 32>(weight + at);
        }
    }
    const auto term = [&](int i, int slot, const float *values) {
        if constexpr (LOADED)
            return loaded[i * (SLOTS + 1) + slot];
        else
            return simd::load<float, 32>(values);
    };
    Lanes squares = 0.0f;
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < GROUPS; ++i) {
        const int group = simd::team_rank() + i * TEAM, at = group * 32;
        if (beyond<K, TEAM>(group))
            break;
        vec<float, 32> value = term(i, 0, from + at);
        ARCMTP_UNROLL_ON_GPU
        for (int slot = 0; slot < SLOTS; ++slot)
            value += term(i, slot + 1, add + slot * K + at);
        if constexpr (SLOTS > 0)
            simd::store<float, 32>(sums + at, value);
        squares = add_squares(value, squares);
        if constexpr (HELD)
            held[i] = value;
    }
    const float scale = inverse_rms<K, TEAM>(squares, eps);
    const float *values = SLOTS > 0 ? sums : from;
    const RowSink<K, QUANTISED, PLAIN> sink{quantised, plain};
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < GROUPS; ++i) {
        const int group = simd::team_rank() + i * TEAM, at = group * 32;
        if (beyond<K, TEAM>(group))
            break;
        vec<float, 32> value;
        if constexpr (HELD)
            value = held[i];
        else
            value = simd::load<float, 32>(values + at);
        if constexpr (LOADED)
            value = value * scale * weights[i];
        else
            value = value * scale * simd::load<float, 32>(weight + at);
        sink.put(row, group, simd::part<LANES, 0, float, 32>(value), simd::part<LANES, LANES, float, 32>(value));
    }
}

/// norm_row of each row, by a work-group of its own.
template <int K, int SLOTS, bool GATHER, int ROWS, int TEAM, bool QUANTISED, bool PLAIN>
inline void norm(const float *x, const float *partials, float *x_out, const float *weight, float eps,
                 const int *source_rows, u8 *quantised, float *plain, const int *row_count) {
    simd::reserve_team_memory<TEAM * LANES * 4>();
    const int row = simd::group_index();
    if (ROWS == 0 && row >= row_count[0])
        return;
    norm_row<K, SLOTS, GATHER, TEAM, QUANTISED, PLAIN>(row, x, partials, x_out, weight, eps, source_rows, quantised,
                                                       plain);
}

/// norm_row of the only row, by the last of `groups` work-groups that come here, behind what they did before.
template <int K, int SLOTS, bool GATHER, int ROWS, int TEAM, bool QUANTISED, bool PLAIN>
inline void norm_at_last(int groups, int *arrivals, const float *x, const float *partials, float *x_out,
                         const float *weight, float eps, const int *source_rows, u8 *quantised, float *plain,
                         const int *) {
    static_assert(ROWS == 1);
    if (simd::last_arrival<TEAM>(arrivals, groups))
        norm_row<K, SLOTS, GATHER, TEAM, QUANTISED, PLAIN>(0, x, partials, x_out, weight, eps, source_rows, quantised,
                                                           plain);
}

} // namespace arcmtp
