// Which rows of a step belong to which of the sequences that it advances.
#pragma once

namespace arcmtp {

/// A step advances `count` sequences by as many rows each: row r of run u is row r * count + u of the step, and
/// slots[u] is the place among all sequences where that of run u is kept.
struct Runs {
    int count;
    const int *slots;

    inline int row(int run, int r) const { return r * count + run; }
};

} // namespace arcmtp
