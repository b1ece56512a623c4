// What a launch asks of memory for a later one, before that begins: memory has nothing to do between two launches.
#pragma once

#include "simd.hpp"

namespace arcmtp {

constexpr int ASK_BYTES = 256; // of a message

/// piece(i) for each i below count, by one of the threads of all work-groups, which have TEAM each.
template <int TEAM, class PIECE> inline void share(int count, const PIECE &piece) {
    for (int i = simd::group_index() * TEAM + simd::team_rank(); i < count; i += simd::group_count() * TEAM)
        piece(i);
}

/// Asks for `bytes` bytes from `from` on, a multiple of ASK_BYTES, by all threads at their end. Nothing waits for what
/// is asked for.
template <int TEAM> inline void ask_ahead(const simd::u8 *from, int bytes) {
    share<TEAM>(bytes / ASK_BYTES, [=](int i) { simd::prefetch_shared<ASK_BYTES>(from + i * ASK_BYTES); });
}

} // namespace arcmtp
