// Which tokens may be chosen: exact top-k and top-p over unordered candidates, by bisection and without sorting.
#pragma once

#include "sampling.hpp"

namespace arcmtp {

using Words = vec<simd::u32, LANES>;

/// Integers in the order of the floats that they are made of.
inline int key_of(float value) {
    const int bits = __builtin_bit_cast(int, value);
    return bits ^ (bits >> 31 & 0x7fffffff);
}
inline float value_of(int key) { return __builtin_bit_cast(float, key ^ (key >> 31 & 0x7fffffff)); }
inline int between(int low, int high) { return (low & high) + ((low ^ high) >> 1); }

/// Sum of all lanes of `mine` in all threads of the team. Team memory: TEAM * 64 bytes from byte 0.
template <int TEAM> inline simd::u32 team_total(Words mine) {
    if constexpr (TEAM > 1) {
        simd::team_store<simd::u32, LANES>(simd::team_rank() * 64, mine);
        simd::team_barrier<TEAM>();
        mine = 0u;
        for (int thread = 0; thread < TEAM; ++thread)
            mine += simd::team_load<simd::u32, LANES>(thread * 64);
        simd::team_barrier<TEAM>();
    }
    const vec<simd::u32, 8> eight = simd::part<8, 0, simd::u32, LANES>(mine) + simd::part<8, 8, simd::u32, LANES>(mine);
    const vec<simd::u32, 4> four = simd::part<4, 0, simd::u32, 8>(eight) + simd::part<4, 4, simd::u32, 8>(eight);
    return simd::lane<simd::u32, 4>(four, 0) + simd::lane<simd::u32, 4>(four, 1) + simd::lane<simd::u32, 4>(four, 2) +
           simd::lane<simd::u32, 4>(four, 3);
}

/// How likely a token is, as a share of 2^30: integers, whose sums do not depend on the order.
struct Share {
    float best, scale;

    inline Ints of(Lanes score) const {
        return simd::convert<int, float, LANES>(simd::rint<LANES>(simd::exp<LANES>(score - best) * scale));
    }
};

/// How many tokens, and their shares in all.
struct Amount {
    simd::u32 count, share;
};

/// A list of quads of columns that hold all candidates: their scores, the largest of each quad, and their shares.
struct Candidates {
    float *scores, *tops;
    int *shares, *columns;
    int count;

    inline void put(int place, const Lanes (&score)[4], Share share, int column) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            simd::store<float, LANES>(scores + place * QUAD + i * LANES, score[i]);
            simd::store<int, LANES>(shares + place * QUAD + i * LANES, share.of(score[i]));
        }
        simd::store<float, 1>(tops + place, vec<float, 1>(largest(score)));
        simd::store<int, 1>(columns + place, vec<int, 1>(column));
    }

    /// How many are within both limits.
    template <int TEAM> inline Amount within(Limit outer, Limit inner) const {
        Words tokens = 0u, sum = 0u;
        const Words none = 0u, one = 1u;
        for (int place = simd::team_rank(); place < count; place += TEAM) {
            if (tops[place] < inner.threshold)
                continue;
            Lanes score[4];
            Words share[4];
            load_four<float>(scores + place * QUAD, score);
            load_four<simd::u32>(reinterpret_cast<const simd::u32 *>(shares) + place * QUAD, share);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const Ints column = simd::iota<LANES>() + (columns[place] + i * LANES);
                const simd::mask<LANES> in = outer.keeps(score[i], column) & inner.keeps(score[i], column);
                tokens += simd::select<simd::u32, LANES>(in, one, none);
                sum += simd::select<simd::u32, LANES>(in, share[i], none);
            }
        }
        return {team_total<TEAM>(tokens), team_total<TEAM>(sum)};
    }
};

struct Kept {
    Limit limit;
    Amount amount;
};

/// The shortest beginning of `from` that is `enough`; `from` if none is. No score is above share.best.
template <int VOCAB, int TEAM, class ENOUGH>
inline Kept shortest(const Candidates &candidates, Kept from, Share share, ENOUGH enough) {
    if (!enough(from.amount))
        return from;
    int low = key_of(from.limit.threshold), high = key_of(share.best) + 1; // enough, and not enough
    Amount at_low = from.amount, at_high = {0, 0};
    while (low + 1 < high && at_low.count - at_high.count > 1) {
        const int middle = between(low, high);
        const Amount at = candidates.within<TEAM>(from.limit, {value_of(middle)});
        (enough(at) ? low : high) = middle;
        (enough(at) ? at_low : at_high) = at;
    }
    Limit limit = {value_of(low)};
    if (limit.threshold == from.limit.threshold)
        limit.last_equal = from.limit.last_equal;
    // The tokens from low to high, if they are several, have the same score; the first of them may be enough.
    const simd::u32 equals = at_low.count - at_high.count;
    const simd::u32 each = equals == 1 ? at_low.share - at_high.share
                                       : simd::u32(simd::lane<int, LANES>(share.of(Lanes(limit.threshold)), 0));
    const auto with = [=](simd::u32 some) { return Amount{at_high.count + some, at_high.share + some * each}; };
    simd::u32 needed = equals;
    for (simd::u32 too_few = 0; too_few + 1 < needed;) {
        const simd::u32 middle = (too_few + needed) / 2;
        (enough(with(middle)) ? needed : too_few) = middle;
    }
    if (needed < equals) {
        int before = -1;
        for (limit.last_equal = VOCAB - 1; before + 1 < limit.last_equal;) {
            const Limit tried = {limit.threshold, between(before, limit.last_equal)};
            const bool reaches = candidates.within<TEAM>(from.limit, tried).count >= at_high.count + needed;
            (reaches ? limit.last_equal : before) = tried.last_equal;
        }
    }
    return {limit, with(needed)};
}

} // namespace arcmtp
