// Which rows of a step belong to which of the sequences that it advances.
#pragma once

namespace arcmtp {

/// A step advances `size` sequences by as many rows each: row r of sequence u is row r * size + u of the step, and
/// slots[u] is the slot of sequence u.
struct Batch {
    int size;
    const int *slots;

    inline int row(int sequence, int r) const { return r * size + sequence; }
};

} // namespace arcmtp
