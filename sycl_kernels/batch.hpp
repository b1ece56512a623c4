// Which rows of a step belong to which of the sequences that it advances.
#pragma once

#include "simd.hpp"

namespace arcmtp {

/// A step advances `size` sequences by as many rows each: row r of sequence u is row r * size + u of the step, and
/// slots[u] is the slot of sequence u.
struct Batch {
    int size;
    const int *slots;

    inline int row(int sequence, int r) const { return r * size + sequence; }
};

/// Hidden rows of a sequence's latest positions that are kept in device memory: that of position p in row
/// p % CARRIED_ROWS. The MTP block may fall behind the trunk by as many.
constexpr int CARRIED_ROWS = 64;

/// The hidden row of `position` (from -1: before the first one) among `carried` [slots][CARRIED_ROWS][K].
template <int K, class T> inline T *carried_row(T *carried, int slot, int position) {
    return carried + (simd::u64(slot) * CARRIED_ROWS + (position & (CARRIED_ROWS - 1))) * K;
}

/// K floats. A lone thread waits for its loads, not for memory's bandwidth: it asks for 2 KiB at once.
template <int K> inline void copy_row(float *to, const float *from) {
    constexpr int WIDE = K % 64 == 0 ? 64 : 16, AHEAD = K % (8 * WIDE) == 0 ? 8 : 1;
    for (int first = 0; first < K; first += AHEAD * WIDE) {
        simd::vec<float, WIDE> held[AHEAD];
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < AHEAD; ++i)
            held[i] = simd::load<float, WIDE>(from + first + i * WIDE);
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < AHEAD; ++i)
            simd::store<float, WIDE>(to + first + i * WIDE, held[i]);
    }
}

} // namespace arcmtp
