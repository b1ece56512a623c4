// Whether chains of draft calls go on: each sequence's until its draft is less likely than it must be.
#pragma once

#include "batch.hpp"
#include "simd.hpp"

namespace arcmtp {

/// After draft call `index`, from 1, whose drafts have the `stats` [batch][3] of sampling: `drafted` [batch] becomes
/// index + 1 where the chain of a sequence comes so far, because the log-probability of its draft is not below its
/// `floors` [slots], and stays index or less where it has ended. goes_on[0] is whether any comes so far: what the next
/// call is guarded by. A NaN is below no floor.
inline void draft_chain(const float *stats, const float *floors, int *drafted, int *goes_on, Batch batch, int index) {
    int any = 0;
    for (int sequence = 0; sequence < batch.size; ++sequence) {
        if (index > 1 && drafted[sequence] < index)
            continue;
        const int more = stats[3 * sequence + 2] < floors[batch.slots[sequence]] ? 0 : 1;
        simd::store<int, 1>(drafted + sequence, simd::vec<int, 1>(index + more));
        any |= more;
    }
    simd::store<int, 1>(goes_on, simd::vec<int, 1>(any));
}

} // namespace arcmtp
