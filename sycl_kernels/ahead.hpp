// What a launch asks of memory for a later one, before that begins: memory has nothing to do between two launches.
#pragma once

#include "simd.hpp"

namespace arcmtp {

/// Asks for `bytes` bytes, a multiple of 256, from `from` on: a share by each thread of each work-group, of TEAM, at
/// its end. Nothing waits for what is asked for.
template <int TEAM> inline void ask_ahead(const simd::u8 *from, int bytes) {
    constexpr int MESSAGE = 256;
    const int thread = simd::group_index() * TEAM + simd::team_rank();
    for (int at = thread * MESSAGE; at < bytes; at += simd::group_count() * TEAM * MESSAGE)
        simd::prefetch_shared<MESSAGE>(from + at);
}

} // namespace arcmtp
