// The log-probability of each row's chosen token and those of its likeliest tokens, in order: one launch.
#pragma once

#include "batch.hpp"
#include "quads.hpp"

namespace arcmtp {

/// The largest of some values and the lowest place where it is.
struct Peak {
    float value = -INFINITE;
    int place = 0;

    Peak() = default;
    explicit inline Peak(const Lanes (&values)[4]) : value(largest(values)) {
        Ints places = NOWHERE;
#pragma unroll
        for (int i = 3; i >= 0; --i)
            places = simd::select<int, LANES>(values[i] == Lanes(value), Ints(simd::iota<LANES>() + i * LANES), places);
        place = simd::smallest<int, LANES>(places);
    }
};

/// The tokens of a row that are not taken yet, under the largest logit of each quad of columns and of each block of 64
/// quads: the likeliest is found by looking at one of each, whatever the vocabulary. NaN counts as -inf.
template <int VOCAB> struct LikelyTokens {
    static constexpr int QUADS = (VOCAB + QUAD - 1) / QUAD, BLOCKS = (QUADS + QUAD - 1) / QUAD;
    static constexpr int BLOCKS_AT = (QUADS + LANES - 1) / LANES * LANES;
    static constexpr int WORDS = BLOCKS_AT + (BLOCKS + LANES - 1) / LANES * LANES; // of scratch memory
    const float *logits;
    float *quads, *blocks;
    Limit taken = {INFINITE, -1};

    inline LikelyTokens(const float *logits, float *scratch)
        : logits(logits), quads(scratch), blocks(scratch + BLOCKS_AT) {}

    /// The logits of a quad, -inf for tokens that are taken.
    inline void load(int quad, Lanes (&logit)[4]) const {
        load_quad<float, VOCAB>(logits, quad * QUAD, -INFINITE, logit);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Ints column = simd::iota<LANES>() + (quad * QUAD + i * LANES);
            const Lanes left = simd::select<float, LANES>(taken.keeps(logit[i], column), Lanes(-INFINITE), logit[i]);
            logit[i] = simd::select<float, LANES>(left == left, left, Lanes(-INFINITE));
        }
    }
    inline void measure_quad(int quad) const {
        Lanes logit[4];
        load(quad, logit);
        simd::store<float, 1>(quads + quad, vec<float, 1>(largest(logit)));
    }
    inline void measure_block(int block) const {
        Lanes maxima[4];
        load_quad<float, QUADS>(quads, block * QUAD, -INFINITE, maxima);
        simd::store<float, 1>(blocks + block, vec<float, 1>(largest(maxima)));
    }
    inline Peak best_block() const {
        Peak best;
        for (int at = 0; at < BLOCKS; at += QUAD) {
            Lanes maxima[4];
            load_quad<float, BLOCKS>(blocks, at, -INFINITE, maxima);
            const Peak some(maxima);
            if (some.value > best.value) {
                best.value = some.value;
                best.place = at + some.place;
            }
        }
        return best;
    }
    /// Take the likeliest token: its logit, -inf if none is left, and its column.
    inline Peak take() {
        Peak best = best_block();
        const int block = best.place;
        Lanes values[4];
        load_quad<float, QUADS>(quads, block * QUAD, -INFINITE, values);
        const int quad = block * QUAD + Peak(values).place;
        load(quad, values);
        best.place = quad * QUAD + Peak(values).place;
        taken = {best.value, best.place};
        measure_quad(quad);
        measure_block(block);
        return best;
    }
};

/// For row group_index() / GROUPS, in ids and logprobs [rows][MAX_TOP + 1]: the chosen token, then the counts[slot]
/// likeliest ones, the lowest of equals first; -1 and -inf where no logit above -inf is left. `stats` are those of
/// `sample`. scratch: [rows][LikelyTokens::WORDS], arrivals: [rows] zeros.
template <int VOCAB, int STRIDE, int GROUPS, int TEAM, int MAX_TOP>
inline void top_logprobs(const float *logits, const float *stats, const int *counts, const int *chosen, int *ids,
                         float *logprobs, float *scratch, int *arrivals, Batch batch) {
    simd::reserve_team_memory<64>();
    const int row = simd::group_index() / GROUPS, group = simd::group_index() % GROUPS;
    const int wanted = counts[batch.slots[row % batch.size]];
    LikelyTokens<VOCAB> tokens(logits + simd::u64(row) * STRIDE, scratch + simd::u64(row) * LikelyTokens<VOCAB>::WORDS);
    const float log_sum = stats[3 * row + 1];
    const auto put = [=](int place, int id, float logprob) {
        simd::store<int, 1>(ids + row * (MAX_TOP + 1) + place, vec<int, 1>(id));
        simd::store<float, 1>(logprobs + row * (MAX_TOP + 1) + place, vec<float, 1>(logprob));
    };
    if (group == 0 && simd::team_rank() == 0)
        put(0, chosen[row], tokens.logits[chosen[row]] - log_sum);
    if (wanted == 0)
        return;
    const Quads<VOCAB, GROUPS, TEAM> mine(group);
    for (int quad = mine.begin; quad < mine.end; ++quad)
        tokens.measure_quad(quad);
    if (!simd::last_arrival<TEAM>(arrivals + row, GROUPS) || simd::team_rank() != 0)
        return;
    for (int block = 0; block < tokens.BLOCKS; ++block)
        tokens.measure_block(block);
    for (int place = 1; place <= wanted; ++place) {
        const Peak next = tokens.take();
        const bool found = next.value > -INFINITE;
        put(place, found ? next.place : -1, found ? next.value - log_sum : -INFINITE);
    }
}

} // namespace arcmtp
