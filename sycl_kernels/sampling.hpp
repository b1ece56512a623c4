// Greedy sampling: largest logit and softmax statistics of a row in one launch, its columns split over work-groups.
#pragma once

#include "quads.hpp"

namespace arcmtp {

/// The online softmax of what each lane has seen. Sums are those of e^(logit - shift()).
struct Softmax {
    Lanes best = -INFINITE;           // the largest logit, never NaN
    vec<int, LANES> column = NOWHERE; // where it is, the lowest of equals
    Lanes sum = 0.0f;                 // NaN after a NaN

    /// What to subtract in exponents: finite, so that logits of -inf add nothing.
    inline Lanes shift() const { return simd::max<float, LANES>(best, Lanes(-3.4e38f)); }

    /// Take `other`, whose columns are all higher, lane by lane.
    inline void merge(const Softmax &other) {
        const Softmax earlier = *this;
        const simd::mask<LANES> better = other.best > best;
        best = simd::select<float, LANES>(better, other.best, best);
        column = simd::select<int, LANES>(better, other.column, column);
        const Lanes kept = earlier.sum * simd::exp<LANES>(earlier.best - shift());
        sum = simd::fma<float, LANES>(other.sum, simd::exp<LANES>(other.best - shift()), kept);
    }
};

/// The softmax of VECTORS vectors of logits, of which the first begins at `column`.
template <int VECTORS> inline Softmax softmax_of(const Lanes (&logits)[VECTORS], int column) {
    Softmax block;
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
        const simd::mask<LANES> better = logits[i] > block.best;
        block.best = simd::select<float, LANES>(better, logits[i], block.best);
        block.column =
            simd::select<int, LANES>(better, vec<int, LANES>(simd::iota<LANES>() + (column + i * LANES)), block.column);
    }
    const Lanes shift = block.shift();
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
        const Lanes term = simd::exp<LANES>(logits[i] - shift);
        block.sum += simd::select<float, LANES>(logits[i] == logits[i], term, logits[i]);
    }
    return block;
}

/// All lanes of a softmax as one.
struct RowSoftmax {
    float best, sum;
    int column;

    explicit inline RowSoftmax(const Softmax &lanes) {
        best = simd::largest<float, LANES>(lanes.best);
        const vec<int, LANES> nowhere = NOWHERE;
        column = simd::smallest<int, LANES>(simd::select<int, LANES>(lanes.best == Lanes(best), lanes.column, nowhere));
        Softmax all;
        all.best = best;
        sum = simd::sum<LANES>(lanes.sum * simd::exp<LANES>(lanes.best - all.shift()));
    }
};

/// What GROUPS work-groups leave of a row for the last of them.
template <int GROUPS> struct RowPartials {
    static constexpr int CHUNKS = (GROUPS + LANES - 1) / LANES, PADDED = CHUNKS * LANES;
    float *best, *sum;
    int *column;

    inline RowPartials(float *partials, int row) {
        best = partials + row * 3 * PADDED;
        sum = best + PADDED;
        column = reinterpret_cast<int *>(sum + PADDED);
    }
    inline void put(int group, RowSoftmax part) const {
        simd::store<float, 1>(best + group, vec<float, 1>(part.best));
        simd::store<float, 1>(sum + group, vec<float, 1>(part.sum));
        simd::store<int, 1>(column + group, vec<int, 1>(part.column));
    }
    inline RowSoftmax fold() const {
        Softmax all;
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            const vec<int, LANES> group = simd::iota<LANES>() + chunk * LANES;
            const simd::mask<LANES> written = group < GROUPS;
            Softmax part;
            part.best = simd::select<float, LANES>(written, simd::load<float, LANES>(best + chunk * LANES), part.best);
            part.sum = simd::select<float, LANES>(written, simd::load<float, LANES>(sum + chunk * LANES), part.sum);
            part.column =
                simd::select<int, LANES>(written, simd::load<int, LANES>(column + chunk * LANES), part.column);
            all.merge(part);
        }
        return RowSoftmax(all);
    }
};

/// To thread 0 the softmax of the whole team, whose threads' columns follow each other. Team memory: TEAM * 192 bytes
/// from byte 0.
template <int TEAM> inline Softmax team_softmax(Softmax mine) {
    if constexpr (TEAM > 1) {
        const int at = simd::team_rank() * 192;
        simd::team_store<float, LANES>(at, mine.best);
        simd::team_store<float, LANES>(at + 64, mine.sum);
        simd::team_store<int, LANES>(at + 128, mine.column);
        simd::team_barrier<TEAM>();
        for (int thread = 1; thread < TEAM && simd::team_rank() == 0; ++thread) {
            Softmax other;
            other.best = simd::team_load<float, LANES>(thread * 192);
            other.sum = simd::team_load<float, LANES>(thread * 192 + 64);
            other.column = simd::team_load<int, LANES>(thread * 192 + 128);
            mine.merge(other);
        }
        simd::team_barrier<TEAM>();
    }
    return mine;
}

/// A row's (largest logit, log-sum-exp, log-probability of `target` or, where that is below 0, of the largest logit).
template <int VOCAB> inline void put_stats(const float *logits, RowSoftmax all, int target, float *stats) {
    const float log_sum = all.best + simd::lane<float, LANES>(simd::log<LANES>(Lanes(all.sum)), 0);
    const float log_probability = target < 0       ? all.best - log_sum
                                  : target < VOCAB ? logits[target] - log_sum
                                                   : -INFINITE;
    simd::store<float, 1>(stats, vec<float, 1>(all.best));
    simd::store<float, 1>(stats + 1, vec<float, 1>(log_sum));
    simd::store<float, 1>(stats + 2, vec<float, 1>(log_probability));
}

/// The token with the largest of the first VOCAB logits of row group_index() / GROUPS, and (that logit, log-sum-exp,
/// log-probability of the target's column, or of the token for a target below 0). Its stats have the bits that sampling
/// with options gives. partials: [rows] RowPartials, arrivals: [rows] zeros.
template <int VOCAB, int STRIDE, int GROUPS, int TEAM, class VOCABULARY>
inline void sample(const float *logits, const int *targets, int *ids, float *stats, float *partials, int *arrivals,
                   int rows, VOCABULARY vocabulary) {
    simd::reserve_team_memory<TEAM * 192>();
    const int row = simd::group_index() / GROUPS, group = simd::group_index() % GROUPS;
    if (row >= rows)
        return;
    logits += simd::u64(row) * STRIDE;
    const Quads<VOCAB, GROUPS, TEAM> quads(group);
    Softmax softmax;
    for (int quad = quads.begin; quad < quads.end; ++quad) {
        Lanes logit[4];
        load_quad<float, VOCAB>(logits, quad * QUAD, -INFINITE, logit);
        softmax.merge(softmax_of(logit, quad * QUAD));
    }
    const RowPartials<GROUPS> parts(partials, row);
    const RowSoftmax part(team_softmax<TEAM>(softmax));
    if (simd::team_rank() == 0)
        parts.put(group, part);
    if (!simd::last_arrival<TEAM>(arrivals + row, GROUPS) || simd::team_rank() != 0)
        return;
    const RowSoftmax all = parts.fold();
    const int token = vocabulary.id(all.column < VOCAB ? all.column : 0);
    put_stats<VOCAB>(logits, all, targets[row], stats + 3 * row);
    simd::store<int, 1>(ids + row, vec<int, 1>(token));
}

} // namespace arcmtp
