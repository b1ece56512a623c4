// The score of each token by a sequence's options: bias, penalties, temperature.
#pragma once

#include "batch.hpp"
#include "quads.hpp"

namespace arcmtp {

constexpr float FINITE = 3.4e38f;      // scores are at most this, so that differences of scores are numbers
constexpr int COUNTED = (1 << 20) - 1; // bits of a token's state: how often it was generated,
constexpr int SEEN = (1 << 21) - 1;    // that and whether the prompt has it,
constexpr int BIAS_SHIFT = 21;         // and the place of its bias in a table

constexpr int OPTION_WORDS = 16, BIASES = 1024; // that each slot has

/// A sequence's options, in device memory, so that a replayed graph finds what the host wrote last.
struct Options {
    float inverse_temperature, noise, top_p, log_min_p, repetition, presence, frequency;
    int top_k, choice, adjusts;
    simd::u32 seed_low, seed_high;

    explicit inline Options(const int *from) {
        const Ints words = simd::load<int, LANES>(from);
        const Lanes reals = simd::bitcast<float, int, LANES>(words);
        inverse_temperature = simd::lane<float, LANES>(reals, 0);
        noise = simd::lane<float, LANES>(reals, 1);
        top_p = simd::lane<float, LANES>(reals, 2);
        log_min_p = simd::lane<float, LANES>(reals, 3);
        repetition = simd::lane<float, LANES>(reals, 4);
        presence = simd::lane<float, LANES>(reals, 5);
        frequency = simd::lane<float, LANES>(reals, 6);
        top_k = simd::lane<int, LANES>(words, 7);
        adjusts = simd::lane<int, LANES>(words, 8);
        choice = simd::lane<int, LANES>(words, 9);
        seed_low = simd::lane<int, LANES>(words, 10);
        seed_high = simd::lane<int, LANES>(words, 11);
    }
    inline bool greedy() const { return noise == 0; }
    /// Whether the softmax of all scores is wanted. That of a few likeliest tokens is between 1 and their number.
    inline bool needs_sum() const { return top_p < 1 && !(0 < top_k && top_k <= 256); }
    inline bool filters() const { return !greedy() && (top_k > 0 || top_p < 1); }
};

/// No row is masked.
struct AnyToken {
    static constexpr bool SOME = false;
};

/// Words of a row's mask for a vocabulary of STATES tokens: a bit for each, and in the last word whether the row has a
/// mask at all.
template <int STATES> constexpr int mask_words() { return ((STATES + 63) / 64 * 2 + 1 + LANES - 1) / LANES * LANES; }

/// Rows that may choose some tokens alone: bits [rows of the step][mask_words]. What they choose is put into `told`
/// [rows of the step] too.
struct Masks {
    static constexpr bool SOME = true;
    const simd::u32 *bits;
    int *told = nullptr;
};

/// What sequences' choices depend on besides their logits: options [slots][OPTION_WORDS], states [slots][stride],
/// biases [slots][BIASES], and the tokens that the rows of the step evaluate.
struct Histories {
    const int *options, *states;
    const float *biases;
    const int *inputs;
    Batch batch;
};

/// Row `row` of a sequence: its logits, and what has been said before it: `states` [VOCAB] tells it for row 0, and each
/// later row follows the token that is its input.
template <int VOCAB, int STRIDE, class VOCABULARY, class MASKS> struct Row {
    VOCABULARY vocabulary;
    const float *logits;
    const int *options, *states, *inputs;
    const float *biases;
    Batch batch;
    int sequence, row;
    const simd::u32 *mask = nullptr; // of the tokens that may be chosen, where these are some

    /// That of row `index` of a launch whose first row is row `first` of its sequence.
    inline Row(VOCABULARY vocabulary, MASKS masks, const float *all_logits, const Histories &all, int index, int first)
        : vocabulary(vocabulary), logits(all_logits + simd::u64(index) * STRIDE), inputs(all.inputs), batch(all.batch),
          sequence(index % all.batch.size), row(first + index / all.batch.size) {
        const int slot = batch.slots[sequence];
        options = all.options + slot * OPTION_WORDS;
        states = all.states + simd::u64(slot) * VOCABULARY::STATES;
        biases = all.biases + slot * BIASES;
        if constexpr (MASKS::SOME) {
            constexpr int words = mask_words<VOCABULARY::STATES>();
            const simd::u32 *own = masks.bits + simd::u64(batch.row(sequence, row)) * words;
            mask = own[words - 1] ? own : nullptr;
        }
    }

    inline int input(int earlier) const { return inputs[batch.row(sequence, earlier)]; }

    /// (logit + bias, penalised) / temperature. NaN becomes -inf. Of a masked row other tokens than the allowed ones
    /// get -inf, and those at least -FINITE: so one of them is chosen, whatever bias it has.
    inline void scores(const Options &options, int column, const Lanes (&logit)[4], Lanes (&score)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            score[i] = logit[i];
        if (options.adjusts)
            adjust(options, column, score);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Lanes scaled = score[i] * options.inverse_temperature;
            const Lanes number = simd::select<float, LANES>(scaled == scaled, scaled, Lanes(-INFINITE));
            score[i] = simd::min<float, LANES>(number, Lanes(FINITE));
        }
        if constexpr (MASKS::SOME)
            if (mask)
                keep_allowed(column, score);
    }

    inline void keep_allowed(int column, Lanes (&score)[4]) const {
        Ints bits[4]; // the lowest one counts
        if constexpr (VOCABULARY::ALL) {
            const vec<int, 2> pair = simd::load<int, 2>(reinterpret_cast<const int *>(mask) + column / 32);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                bits[i] = Ints(simd::lane<int, 2>(pair, i / 2)) >> Ints(simd::iota<LANES>() + i % 2 * LANES);
        } else
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const Ints ids = vocabulary.ids(column + i * LANES);
                bits[i] = simd::gather<int, LANES>(reinterpret_cast<const int *>(mask), Ints(ids >> 5)) >> (ids & 31);
            }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Lanes at_least = simd::max<float, LANES>(score[i], Lanes(-FINITE));
            score[i] = simd::select<float, LANES>((bits[i] & 1) > 0, at_least, Lanes(-INFINITE));
        }
    }

    inline void adjust(const Options &options, int column, Lanes (&score)[4]) const {
        Ints state[4], all = 0;
        if constexpr (VOCABULARY::ALL)
            load_quad<int, VOCAB>(states, column, 0, state);
        else
#pragma unroll
            for (int i = 0; i < 4; ++i)
                state[i] = simd::gather<int, LANES>(states, vocabulary.ids(column + i * LANES));
#pragma unroll
        for (int i = 0; i < 4; ++i)
            all |= state[i];
        bool any = simd::largest<int, LANES>(all) > 0;
        for (int earlier = 1; earlier <= row; ++earlier)
            any |= may_hold(column, input(earlier));
        if (!any)
            return;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Ints ids = vocabulary.ids(column + i * LANES);
            for (int earlier = 1; earlier <= row; ++earlier)
                state[i] = simd::select<int, LANES>(ids == input(earlier), Ints(state[i] + 1), state[i]);
            score[i] = penalised(options, score[i], state[i]);
        }
    }

    /// Whether a token may be in the quad that begins at `column`.
    inline bool may_hold(int column, int token) const {
        if constexpr (VOCABULARY::ALL)
            return simd::u32(token - column) < QUAD;
        return true;
    }

    inline Lanes penalised(const Options &options, Lanes logit, Ints state) const {
        Lanes x = logit + simd::gather<float, LANES>(biases, Ints(state >> BIAS_SHIFT));
        const Lanes divisor = options.repetition;
        const Lanes repeated =
            simd::select<float, LANES>(x > 0.0f, simd::divide<LANES>(x, divisor), Lanes(x * divisor));
        x = simd::select<float, LANES>((state & SEEN) > 0, repeated, x);
        const Lanes count = simd::convert<float, int, LANES>(Ints(state & COUNTED));
        x -= count * options.frequency;
        return x - simd::min<float, LANES>(count, Lanes(1.0f)) * options.presence;
    }
};

} // namespace arcmtp
