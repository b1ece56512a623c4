// A row's columns in quads, four vectors that are handled together, and the order of its tokens.
#pragma once

#include "simd.hpp"

namespace arcmtp {

using simd::LANES;
using simd::vec;
using Lanes = vec<float, LANES>;
using Ints = vec<int, LANES>;

constexpr float INFINITE = __builtin_inff();
constexpr int NOWHERE = 0x7fffffff; // column of the largest logit where no logit is above -inf

constexpr int QUAD = 4 * LANES; // columns that are handled together

/// Four vectors by one load of 256 bytes.
template <class T> inline void load_four(const T *from, vec<T, LANES> *to) {
    constexpr int wide = 4 * LANES;
    const vec<T, wide> all = simd::load<T, wide>(from);
    to[0] = simd::part<LANES, 0, T, wide>(all);
    to[1] = simd::part<LANES, LANES, T, wide>(all);
    to[2] = simd::part<LANES, 2 * LANES, T, wide>(all);
    to[3] = simd::part<LANES, 3 * LANES, T, wide>(all);
}

/// A quad of the first VOCAB columns of a row; `outside` beyond them.
template <class T, int VOCAB> inline void load_quad(const T *row, int column, T outside, vec<T, LANES> (&to)[4]) {
    if (column + QUAD <= VOCAB) {
        load_four<T>(row + column, to);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int at = column + i * LANES;
        to[i] = outside;
        if (at < VOCAB)
            to[i] = simd::select<T, LANES>(simd::iota<LANES>() + at < VOCAB, simd::load<T, LANES>(row + at), to[i]);
    }
}

/// A vocabulary whose column c is token c; STATES: words of a slot's token states.
template <int STATES_> struct AllTokens {
    static constexpr bool ALL = true;
    static constexpr int STATES = STATES_;
    inline int id(int column) const { return column; }
    inline Ints ids(int column) const { return simd::iota<LANES>() + column; }
};

/// A vocabulary whose column c is token tokens[c]: ascending, in whole quads.
template <int STATES_> struct SomeTokens {
    static constexpr bool ALL = false;
    static constexpr int STATES = STATES_;
    const int *tokens;
    inline int id(int column) const { return tokens[column]; }
    inline Ints ids(int column) const { return simd::load<int, LANES>(tokens + column); }
};

/// The columns of a thread, whole quads that follow each other.
template <int VOCAB, int GROUPS, int TEAM> struct Quads {
    static constexpr int ALL = (VOCAB + QUAD - 1) / QUAD, EACH = (ALL + GROUPS * TEAM - 1) / (GROUPS * TEAM);
    int begin, end;

    inline Quads(int group) {
        begin = (group * TEAM + simd::team_rank()) * EACH;
        end = begin + EACH < ALL ? begin + EACH : ALL;
    }
};

inline float largest(const Lanes (&score)[4]) {
    const Lanes two = simd::max<float, LANES>(score[0], score[1]), more = simd::max<float, LANES>(score[2], score[3]);
    return simd::largest<float, LANES>(simd::max<float, LANES>(two, more));
}

/// A beginning of all tokens in the order of descending scores and, among equals, ascending columns.
struct Limit {
    float threshold;
    int last_equal = NOWHERE; // the last column that is in with a score equal to the threshold

    inline simd::mask<LANES> keeps(Lanes score, Ints column) const {
        return score > Lanes(threshold) | (score == Lanes(threshold) & column <= last_equal);
    }
};

} // namespace arcmtp
