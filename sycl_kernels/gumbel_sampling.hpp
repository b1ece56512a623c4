// Sampling with options, in two launches: `score_columns` finds what a row's tokens must reach to be candidates,
// `choose_column` filters the candidates and takes the largest score plus Gumbel noise.
#pragma once

#include "philox.hpp"
#include "token_filters.hpp"
#include "token_scores.hpp"

namespace arcmtp {

constexpr float GUMBEL_RANGE = 26.1f; // more than the largest noise is above the smallest
constexpr float ALL_SHARES = 0x1p30f;

/// A row's scratch memory; everything begins at a multiple of 64 bytes.
template <int QUADS, int GROUPS> struct Scratch {
    static constexpr int PADDED = (QUADS + LANES - 1) / LANES * LANES, PART = 3 * RowPartials<GROUPS>::PADDED;
    static constexpr int WORDS = 2 * PART + LANES + 3 * PADDED + 2 * QUADS * QUAD;
    float *logit_part, *score_part, *summary, *maxima;
    Candidates candidates;

    inline Scratch(float *all, int row) {
        logit_part = all + simd::u64(row) * WORDS;
        score_part = logit_part + PART;
        summary = score_part + PART;
        maxima = summary + LANES; // [QUADS], of the scores
        candidates.tops = maxima + PADDED;
        candidates.columns = reinterpret_cast<int *>(maxima + 2 * PADDED);
        candidates.scores = maxima + 3 * PADDED;
        candidates.shares = reinterpret_cast<int *>(candidates.scores + QUADS * QUAD);
    }
};

/// A score that at least `count` quads reach, about the largest such: so many tokens reach it too.
template <int QUADS, int TEAM> inline float reached_by(const float *maxima, int count, float best) {
    if (count > QUADS)
        return -FINITE;
    int low = key_of(-FINITE), high = key_of(best) + 1;
    for (int step = 0; step < 20; ++step) {
        const int middle = between(low, high);
        Words quads = 0u;
        for (int at = simd::team_rank() * LANES; at < QUADS; at += TEAM * LANES) {
            const simd::mask<LANES> in =
                simd::load<float, LANES>(maxima + at) >= Lanes(value_of(middle)) & simd::iota<LANES>() + at < QUADS;
            quads += simd::select<simd::u32, LANES>(in, Words(1u), Words(0u));
        }
        (team_total<TEAM>(quads) >= simd::u32(count) ? low : high) = middle;
    }
    return value_of(low);
}

/// What a token must reach to be chosen: all that can be said before the candidates are known.
template <int VOCAB, int QUADS, int TEAM>
inline float candidate_floor(const Options &options, RowSoftmax scores, const float *maxima) {
    const float best = scores.best;
    if (options.greedy())
        return best;
    if (options.top_k > 0)
        return reached_by<QUADS, TEAM>(maxima, options.top_k, best);
    // If VOCAB tokens had e^floor each, they would hold 1 - top_p of the sum: what is below the floor is left out.
    const float tail = simd::divide(scores.sum * (1.0f - options.top_p), VOCAB);
    const float range =
        options.top_p < 1 ? simd::lane<float, LANES>(simd::log<LANES>(Lanes(tail)), 0) - 1e-3f : -GUMBEL_RANGE;
    return best + (range > options.log_min_p ? range : options.log_min_p);
}

/// For row group_index() / GROUPS its stats as of `sample`, the largest score of each quad, and a summary: the floor of
/// candidates, the largest score, and 2^30 over the sum of the tokens' e^(score - largest). counters: [rows][3] zeros.
/// Row 0 of the launch is row `first` of its sequence.
template <int VOCAB, int STRIDE, int GROUPS, int TEAM, class VOCABULARY, class MASKS>
inline void score_columns(const float *logits, const int *targets, float *stats, const Histories &histories, int first,
                          float *scratch, int *counters, VOCABULARY vocabulary, MASKS masks) {
    simd::reserve_team_memory<TEAM * 192>();
    using Split = Quads<VOCAB, GROUPS, TEAM>;
    const int index = simd::group_index() / GROUPS, group = simd::group_index() % GROUPS;
    const Row<VOCAB, STRIDE, VOCABULARY, MASKS> row(vocabulary, masks, logits, histories, index, first);
    const Scratch<Split::ALL, GROUPS> memory(scratch, index);
    const Options options(row.options);
    const Split quads(group);
    Softmax logit_softmax, score_softmax;
    for (int quad = quads.begin; quad < quads.end; ++quad) {
        Lanes logit[4], score[4];
        load_quad<float, VOCAB>(row.logits, quad * QUAD, -INFINITE, logit);
        logit_softmax.merge(softmax_of(logit, quad * QUAD));
        row.scores(options, quad * QUAD, logit, score);
        const float best = largest(score);
        simd::store<float, 1>(memory.maxima + quad, vec<float, 1>(best));
        if (options.needs_sum())
            score_softmax.merge(softmax_of(score, quad * QUAD));
        else
            score_softmax.best = simd::max<float, LANES>(score_softmax.best, Lanes(best));
    }
    const RowPartials<GROUPS> logit_parts(memory.logit_part, 0), score_parts(memory.score_part, 0);
    const RowSoftmax logit_part(team_softmax<TEAM>(logit_softmax)), score_part(team_softmax<TEAM>(score_softmax));
    if (simd::team_rank() == 0) {
        logit_parts.put(group, logit_part);
        score_parts.put(group, score_part);
    }
    if (!simd::last_arrival<TEAM>(counters + 3 * index, GROUPS))
        return;
    RowSoftmax scores = score_parts.fold();
    scores.sum = scores.sum > 1.0f ? scores.sum : 1.0f; // 0 where it is not wanted
    const float floor = candidate_floor<VOCAB, Split::ALL, TEAM>(options, scores, memory.maxima);
    if (simd::team_rank() != 0)
        return;
    put_stats<VOCAB>(row.logits, logit_parts.fold(), targets[index], stats + 3 * index);
    const float most =
        options.top_k > 0 && (options.top_k < scores.sum || !options.needs_sum()) ? float(options.top_k) : scores.sum;
    simd::store<float, 1>(memory.summary, vec<float, 1>(floor > -FINITE ? floor : -FINITE));
    simd::store<float, 1>(memory.summary + 1, vec<float, 1>(scores.best));
    simd::store<float, 1>(memory.summary + 2, vec<float, 1>(simd::divide(ALL_SHARES, most)));
}

/// The words of the noise of a quad's tokens at `position`. Four tokens, 16 apart, share a counter.
template <class VOCABULARY>
inline void noise_words(VOCABULARY vocabulary, const Options &options, int position, int column, Words (&words)[4]) {
    const auto draw = [&](Words counters, Words(&drawn)[4]) {
        drawn[0] = counters;
        drawn[1] = simd::u32(position);
        drawn[2] = simd::u32(options.choice);
        drawn[3] = 0u;
        philox(drawn, options.seed_low, options.seed_high);
    };
    if constexpr (VOCABULARY::ALL)
        draw(simd::bitcast<simd::u32, int, LANES>(Ints(simd::iota<LANES>() + column / 4)), words);
    else
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Ints ids = vocabulary.ids(column + i * LANES), fourth = ids >> 4 & 3;
            Words drawn[4];
            draw(simd::bitcast<simd::u32, int, LANES>(Ints((ids >> 6 << 4) + (ids & 15))), drawn);
            words[i] = drawn[0];
            for (int n = 1; n < 4; ++n)
                words[i] = simd::select<simd::u32, LANES>(fourth == n, drawn[n], words[i]);
        }
}

/// The largest score with noise that each lane has met, the lowest column of equals.
struct Best {
    Lanes value = -FINITE;
    Ints column = NOWHERE;

    inline void take(Lanes other, Ints at) {
        const simd::mask<LANES> better = other > value | (other == value & at < column);
        value = simd::select<float, LANES>(better, other, value);
        column = simd::select<int, LANES>(better, at, column);
    }
    /// The tokens of a quad that are within the limit, each with its noise at `position`.
    template <class VOCABULARY>
    inline void take(VOCABULARY vocabulary, const Options &options, Limit limit, int position, int column,
                     const Lanes (&score)[4]) {
        Lanes kept[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Ints columns = simd::iota<LANES>() + (column + i * LANES);
            kept[i] = simd::select<float, LANES>(limit.keeps(score[i], columns), score[i], Lanes(-INFINITE));
        }
        if (largest(kept) == -INFINITE)
            return;
        Words words[4];
        noise_words(vocabulary, options, position, column, words);
        if (!options.greedy() && !may_win(kept, words))
            return;
#pragma unroll
        for (int i = 0; i < 4; ++i)
            take(options.greedy() ? kept[i] : Lanes(kept[i] + gumbel(words[i])),
                 simd::iota<LANES>() + (column + i * LANES));
    }
    /// Whether some noise may be above what its lane lacks. Noise above x needs 1 - u < e^-x, and is rarer than that,
    /// so that few quads need their logarithms (without this 608 µs for 248,077 tokens, with it 275); 1.01 is for
    /// roundings.
    inline bool may_win(const Lanes (&score)[4], const Words (&words)[4]) const {
        Lanes top = score[0];
        Ints nearest = simd::bitcast<int, simd::u32, LANES>(Words(~words[0] >> 1));
#pragma unroll
        for (int i = 1; i < 4; ++i) {
            top = simd::max<float, LANES>(top, score[i]);
            nearest = simd::min<int, LANES>(nearest, simd::bitcast<int, simd::u32, LANES>(Words(~words[i] >> 1)));
        }
        const Lanes chance = simd::exp<LANES>(Lanes(top - value)) * 1.01f;
        const Lanes distance = simd::convert<float, int, LANES>(nearest) * 0x1p-31f;
        return simd::largest<float, LANES>(Lanes(chance - distance)) >= 0;
    }
    /// That of all threads of the team. Team memory: TEAM * 128 bytes from byte 0.
    template <int TEAM> inline void gather_team() {
        if constexpr (TEAM > 1) {
            const int at = simd::team_rank() * 128;
            simd::team_store<float, LANES>(at, value);
            simd::team_store<int, LANES>(at + 64, column);
            simd::team_barrier<TEAM>();
            for (int thread = 0; thread < TEAM; ++thread)
                take(simd::team_load<float, LANES>(thread * 128), simd::team_load<int, LANES>(thread * 128 + 64));
            simd::team_barrier<TEAM>();
        }
    }
    inline float best_value() const { return simd::largest<float, LANES>(value); }
    inline int best_column() const {
        return simd::smallest<int, LANES>(
            simd::select<int, LANES>(value == Lanes(best_value()), column, Ints(NOWHERE)));
    }
};

/// top-k, then top-p of what it leaves, then min-p.
template <int VOCAB, int TEAM>
inline Limit filtered(const Options &options, const Candidates &candidates, float floor, Share share) {
    const Limit all = {floor};
    Kept kept = {all, candidates.within<TEAM>(all, all)};
    float total = ALL_SHARES;
    if (options.top_k > 0) {
        const simd::u32 k = options.top_k;
        kept = shortest<VOCAB, TEAM>(candidates, kept, share, [=](Amount amount) { return amount.count >= k; });
        total = float(kept.amount.share);
    }
    if (options.top_p < 1) {
        const float wanted = options.top_p * total;
        const simd::u32 least = wanted > 1.0f ? simd::u32(wanted) : 1u;
        kept = shortest<VOCAB, TEAM>(candidates, kept, share, [=](Amount amount) { return amount.share >= least; });
    }
    const float likely = share.best + options.log_min_p;
    return likely > kept.limit.threshold ? Limit{likely} : kept.limit;
}

/// The token of row group_index() / GROUPS by what `score_columns` left; its noise belongs to the position after that
/// of the row's input. Where the row has no target (below 0) its stats get the log-probability of that token.
template <int VOCAB, int STRIDE, int GROUPS, int TEAM, class VOCABULARY, class MASKS>
inline void choose_column(const float *logits, const int *targets, float *stats, int *ids, const Histories &histories,
                          int first, const int *positions, float *scratch, int *counters, VOCABULARY vocabulary,
                          MASKS masks) {
    simd::reserve_team_memory<TEAM * 128>();
    using Split = Quads<VOCAB, GROUPS, TEAM>;
    const int index = simd::group_index() / GROUPS, group = simd::group_index() % GROUPS;
    const Row<VOCAB, STRIDE, VOCABULARY, MASKS> row(vocabulary, masks, logits, histories, index, first);
    const Scratch<Split::ALL, GROUPS> memory(scratch, index);
    const Options options(row.options);
    const Lanes summary = simd::load<float, LANES>(memory.summary);
    const float floor = simd::lane<float, LANES>(summary, 0);
    const Share share{simd::lane<float, LANES>(summary, 1), simd::lane<float, LANES>(summary, 2)};
    const int of_step = row.batch.row(row.sequence, row.row), position = positions[of_step] + 1;
    const Split quads(group);
    Candidates candidates = memory.candidates;
    int *arrivals = counters + 3 * index + 1, *length = arrivals + 1;
    Best best;
    for (int quad = quads.begin; quad < quads.end; ++quad) {
        if (memory.maxima[quad] < floor)
            continue;
        Lanes logit[4], score[4];
        load_quad<float, VOCAB>(row.logits, quad * QUAD, -INFINITE, logit);
        row.scores(options, quad * QUAD, logit, score);
        if (options.filters())
            candidates.put(simd::take_places(length, 1), score, share, quad * QUAD);
        else
            best.take(vocabulary, options, {floor}, position, quad * QUAD, score);
    }
    best.gather_team<TEAM>();
    float *values = memory.logit_part; // [GROUPS]
    int *columns = reinterpret_cast<int *>(memory.score_part);
    if (simd::team_rank() == 0) {
        simd::store<float, 1>(values + group, vec<float, 1>(best.best_value()));
        simd::store<int, 1>(columns + group, vec<int, 1>(best.best_column()));
    }
    if (!simd::last_arrival<TEAM>(arrivals, GROUPS))
        return;
    best = Best();
    if (options.filters()) {
        candidates.count = length[0];
        const Limit limit = filtered<VOCAB, TEAM>(options, candidates, floor, share);
        for (int place = simd::team_rank(); place < candidates.count; place += TEAM) {
            if (candidates.tops[place] < limit.threshold)
                continue;
            Lanes score[4];
            load_four<float>(candidates.scores + place * QUAD, score);
            best.take(vocabulary, options, limit, position, candidates.columns[place], score);
        }
        best.gather_team<TEAM>();
    } else {
        for (int at = 0; at < GROUPS; at += LANES) {
            const Lanes value = simd::load<float, LANES>(values + at);
            const simd::mask<LANES> written = simd::iota<LANES>() + at < GROUPS;
            best.take(simd::select<float, LANES>(written, value, Lanes(-INFINITE)),
                      simd::load<int, LANES>(columns + at));
        }
    }
    if (simd::team_rank() != 0)
        return;
    const int found = best.best_column(), column = found < VOCAB ? found : 0, token = vocabulary.id(column);
    simd::store<int, 1>(length, vec<int, 1>(0));
    simd::store<int, 1>(ids + index, vec<int, 1>(token));
    if constexpr (MASKS::SOME)
        simd::store<int, 1>(masks.told + of_step, vec<int, 1>(token));
    if (targets[index] < 0)
        simd::store<float, 1>(stats + 3 * index + 2, vec<float, 1>(row.logits[column] - stats[3 * index + 1]));
}

} // namespace arcmtp
