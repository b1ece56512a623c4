// Greedy sampling: largest logit and softmax statistics of a row in one launch, its columns split over work-groups.
#pragma once

#include "simd.hpp"

namespace arcmtp {

using simd::LANES;
using simd::vec;
using Lanes = vec<float, LANES>;

constexpr float INFINITE = __builtin_inff();
constexpr int NOWHERE = 0x7fffffff; // column of the largest logit where no logit is above -inf

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

/// Four vectors by one load of 256 bytes.
template <class T> inline void load_four(const T *from, vec<T, LANES> *to) {
    constexpr int wide = 4 * LANES;
    const vec<T, wide> all = simd::load<T, wide>(from);
    to[0] = simd::part<LANES, 0, T, wide>(all);
    to[1] = simd::part<LANES, LANES, T, wide>(all);
    to[2] = simd::part<LANES, 2 * LANES, T, wide>(all);
    to[3] = simd::part<LANES, 3 * LANES, T, wide>(all);
}

/// Columns of work-group `group` of GROUPS over VOCAB logits.
template <int VOCAB, int GROUPS> inline Softmax group_softmax(const float *logits, int group) {
    constexpr int vectors = 8, block = vectors * LANES;
    constexpr int blocks = (VOCAB + block - 1) / block, per_group = (blocks + GROUPS - 1) / GROUPS;
    const int begin = group * per_group * block, next = begin + per_group * block, end = next < VOCAB ? next : VOCAB;
    Softmax all;
    Lanes x[vectors];
    int column = begin;
    for (; column + block <= end; column += block) {
        load_four<float>(logits + column, x);
        load_four<float>(logits + column + 4 * LANES, x + 4);
        all.merge(softmax_of(x, column));
    }
    for (; column < end; column += LANES) {
        const simd::mask<LANES> used = simd::iota<LANES>() + column < end;
        const Lanes last[1] = {
            simd::select<float, LANES>(used, simd::load<float, LANES>(logits + column), Lanes(-INFINITE))};
        all.merge(softmax_of(last, column));
    }
    return all;
}

/// A row's (largest logit, log-sum-exp, log-probability of `target`).
template <int VOCAB> inline void put_stats(const float *logits, RowSoftmax all, int target, float *stats) {
    const float log_sum = all.best + simd::lane<float, LANES>(simd::log<LANES>(Lanes(all.sum)), 0);
    const float log_probability = target < 0 ? 0.0f : target < VOCAB ? logits[target] - log_sum : -INFINITE;
    simd::store<float, 1>(stats, vec<float, 1>(all.best));
    simd::store<float, 1>(stats + 1, vec<float, 1>(log_sum));
    simd::store<float, 1>(stats + 2, vec<float, 1>(log_probability));
}

/// The token with the largest of the first VOCAB logits of row group_index() / GROUPS, and (that logit, log-sum-exp,
/// log-probability of the target). partials: [rows] RowPartials, arrivals: [rows] zeros.
template <int VOCAB, int STRIDE, int GROUPS>
inline void sample(const float *logits, const int *targets, int *ids, float *stats, float *partials, int *arrivals,
                   int rows) {
    const int row = simd::group_index() / GROUPS, group = simd::group_index() % GROUPS;
    if (row >= rows)
        return;
    logits += simd::u64(row) * STRIDE;
    const RowPartials<GROUPS> parts(partials, row);
    parts.put(group, RowSoftmax(group_softmax<VOCAB, GROUPS>(logits, group)));
    if (!simd::last_arrival<1>(arrivals + row, GROUPS))
        return;
    const RowSoftmax all = parts.fold();
    const int token = all.column < VOCAB ? all.column : 0;
    put_stats<VOCAB>(logits, all, targets[row], stats + 3 * row);
    simd::store<int, 1>(ids + row, vec<int, 1>(token));
}

} // namespace arcmtp
