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

} // namespace arcmtp
