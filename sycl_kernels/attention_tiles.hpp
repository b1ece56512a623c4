// Attention of some rows to the keys of a split, a tile at a time: online SOFTMAX and output gate.
#pragma once

#include "attention_codes.hpp"
#include "attention_halves.hpp"

namespace arcmtp {

/// What a format's arithmetic gives: put_query, score, put_weights, add_values.
template <class S, int ROWS> using TilesOf = std::conditional_t<S::Kv::CODED, CodeTiles<S, ROWS>, HalfTiles<S, ROWS>>;

template <class S, int ROWS> struct Attention : TilesOf<S, ROWS> {
    using Tiles = TilesOf<S, ROWS>;
    using Tiles::in, Tiles::cache, Tiles::kv_head, Tiles::live, Tiles::rank, Tiles::base, Tiles::last;
    using Tiles::row_of, Tiles::head_of, Tiles::state, Tiles::set_state, Tiles::owns_values;
    using Tiles::Tiles;
    static constexpr int QUERIES = Tiles::QUERIES, PASS = Tiles::PASS, OWNED = Tiles::OWNED;

    /// Normed, rotated and scaled queries to team memory; keys and values of the rows in tiles of `split` to the cache.
    inline void prepare(int split) const {
        constexpr int STORES = 2 * ROWS;
        const Lanes scale = simd::divide<LANES>(Lanes(1.0f), simd::sqrt<LANES>(Lanes(float(S::HEAD_DIM))));
        for (int item = rank; item < STORES + QUERIES; item += S::TEAM) {
            const int query = item - STORES, r = query < 0 ? item / 2 : query / S::RATIO;
            if (r >= live)
                continue;
            if (query >= 0) {
                const float *from = in.query(row_of(r), kv_head * S::RATIO + query % S::RATIO);
                Head<S> head = normed_and_rotated<S>(from, in.q_norm, in.rope_at(base + r), in.eps);
                ARCMTP_UNROLL_ON_GPU
                for (int i = 0; i < S::HEAD_DIM / LANES; ++i)
                    head.v[i] = head.v[i] * scale;
                this->put_query(query, head);
            } else if ((base + r) / S::TILE % S::SPLITS == split)
                store_row(in, cache, row_of(r), base + r, kv_head, item % 2);
        }
        simd::fence_stores();
        simd::team_barrier<S::TEAM>();
    }

    /// values[row, head][vector]: the weighted values of all keys of `split` that the row sees; softmax_sum() completes
    /// them.
    ARCMTP_OUTLINE_ON_CPU void attend(int split, Lanes (&values)[OWNED * S::VECTORS]) const {
        ARCMTP_UNROLL_ON_GPU
        for (int i = 0; i < OWNED * S::VECTORS; ++i)
            values[i] = 0.0f;
        for (int start = split * S::TILE; start <= last; start += Tiles::NEXT)
            for (int first = 0; first < ROWS && first < live; first += PASS) {
                const int end = first + PASS < live ? first + PASS : live;
                if (Tiles::keys_of(start, end) == 0)
                    continue;
                this->score(start, first, end);
                simd::team_barrier<S::TEAM>();
                for (int i = rank; i < Tiles::TILES * PASS * S::RATIO; i += S::TEAM)
                    weigh(start, i / (PASS * S::RATIO), first * S::RATIO + i % (PASS * S::RATIO), split);
                simd::team_barrier<S::TEAM>();
                if constexpr (Tiles::TILES > 1)
                    for (int query = rank; query < QUERIES; query += S::TEAM)
                        carry(query, start == split * S::TILE);
                if (!owns_values())
                    continue;
                for (int t = 0; t < Tiles::TILES; ++t) {
                    const int of_tile = start + t * S::SPLITS * S::TILE;
                    if (const int keys = Tiles::keys_of(of_tile, end))
                        this->add_values(t, of_tile, first, keys, values);
                }
            }
        if constexpr (Tiles::TILES > 1)
            simd::team_barrier<S::TEAM>(); // what was carried is seen
    }

    /// The i-th owned (row, head) after attend().
    inline SoftmaxSum<S::VECTORS> softmax_sum(int i, const Lanes (&values)[OWNED * S::VECTORS]) const {
        const int query = i / S::VALUE_HEADS * S::RATIO + head_of(i);
        SoftmaxSum<S::VECTORS> sum{state(query, Tiles::LARGEST), state(query, Tiles::TOTAL), {}};
        ARCMTP_UNROLL_ON_GPU
        for (int v = 0; v < S::VECTORS; ++v)
            sum.values[v] = values[i * S::VECTORS + v];
        return sum;
    }

    /// One row's and head's values from dimension `dim` on, divided by the sum of weights: to the consumers, or to team
    /// memory if they are to be rotated back by finish().
    template <class SINK, int WIDTH>
    inline void emit(const SINK &sink, int r, int head, int dim, const SoftmaxSum<WIDTH> &sum) const {
        if constexpr (S::Kv::CODED) {
            const int to = Tiles::OUTPUT + ((r * S::RATIO + head) * S::HEAD_DIM + dim) * 4;
            ARCMTP_UNROLL_ON_GPU
            for (int v = 0; v < WIDTH; ++v)
                simd::team_store<float, LANES>(to + v * LANES * 4, simd::divide<LANES>(sum.values[v], sum.weight));
        } else {
            ARCMTP_UNROLL_ON_GPU
            for (int v = 0; v < WIDTH; v += 2)
                emit_gated(sink, r, head, dim + v * LANES, simd::divide<LANES>(sum.values[v], sum.weight),
                           simd::divide<LANES>(sum.values[v + 1], sum.weight));
        }
    }

    /// After the whole team has emitted all dimensions.
    template <class SINK> inline void finish(const SINK &sink) const {
        if constexpr (S::Kv::CODED) {
            simd::team_barrier<S::TEAM>();
            for (int query = rank; query < live * S::RATIO; query += S::TEAM) {
                Head<S> head;
                ARCMTP_UNROLL_ON_GPU
                for (int i = 0; i < S::HEAD_DIM / LANES; ++i)
                    head.v[i] = simd::team_load<float, LANES>(Tiles::OUTPUT + (query * S::HEAD_DIM + i * LANES) * 4);
                rotate_back<S::Layout::ROTATION>(head.v);
                ARCMTP_UNROLL_ON_GPU
                for (int i = 0; i < S::HEAD_DIM / LANES; i += 2)
                    emit_gated(sink, query / S::RATIO, query % S::RATIO, i * LANES, head.v[i], head.v[i + 1]);
            }
        }
    }

    /// The HEAD_DIM gates of one row and head.
    inline const float *gate(int r, int head) const {
        return in.query(row_of(r), kv_head * S::RATIO + head) + S::HEAD_DIM;
    }

  private:
    /// 32 dimensions of one row and head, times sigmoid(gate), to the consumers.
    template <class SINK>
    inline void emit_gated(const SINK &sink, int r, int head, int dim, Lanes low, Lanes high) const {
        const int row = row_of(r), query_head = kv_head * S::RATIO + head;
        const float *gates = gate(r, head) + dim;
        const Lanes a = low * simd::sigmoid<LANES>(simd::load<float, LANES>(gates));
        const Lanes b = high * simd::sigmoid<LANES>(simd::load<float, LANES>(gates + LANES));
        sink.put(row, (query_head * S::HEAD_DIM + dim) / 32, a, b);
    }

    /// Weights e^(score - largest) of the keys that a query sees in tile t from `start`, 0 for the others, and what the
    /// earlier tiles' shrink to. largest: of all keys up to this tile.
    inline void weigh(int start, int t, int query, int split) const {
        constexpr int SUBTILES = S::TILE / LANES;
        const int of_tile = start + t * S::SPLITS * S::TILE, reach = base + query / S::RATIO - of_tile;
        const bool first_tile = start == split * S::TILE;
        Lanes before = first_tile ? Lanes(LOWEST) : state(query, Tiles::LARGEST);
        Lanes scores[SUBTILES], weights[SUBTILES], total = 0.0f;
        for (int earlier = 0; earlier < t; ++earlier)
            before = seen_scores(scores, query, earlier, reach + (t - earlier) * S::SPLITS * S::TILE, before);
        const Lanes largest = seen_scores(scores, query, t, reach, before);
        if (Tiles::TILES > 1 && t == Tiles::TILES - 1)
            set_state(query, Tiles::NEXT_LARGEST, largest);
        if (reach < 0) {
            if constexpr (Tiles::TILES > 1)
                set_state(query, Tiles::SUM + t, 0.0f);
            this->put_no_weights(t, query);
            return;
        }
#pragma clang loop unroll(full)
        for (int s = 0; s < SUBTILES; ++s) {
            weights[s] = simd::exp<LANES>(scores[s] - largest);
            total += weights[s];
        }
        this->put_weights(t, query, of_tile, reach, weights);
        const Lanes keep = simd::exp<LANES>(before - largest), sum = simd::sum<LANES>(total);
        set_state(query, Tiles::KEEP + t, keep);
        if constexpr (Tiles::TILES > 1)
            set_state(query, Tiles::SUM + t, sum);
        else {
            set_state(query, Tiles::TOTAL,
                      first_tile ? sum : simd::fma<float, LANES>(state(query, Tiles::TOTAL), keep, sum));
            set_state(query, Tiles::LARGEST, largest);
        }
    }

    /// The scores of the keys in tile t, of which the query sees reach + 1, LOWEST for the others. The largest of them
    /// and of `largest`.
    inline Lanes seen_scores(Lanes (&scores)[S::TILE / LANES], int query, int t, int reach, Lanes largest) const {
        if (reach < 0)
            return largest;
#pragma clang loop unroll(full)
        for (int s = 0; s < S::TILE / LANES; ++s) {
            Lanes score = simd::team_load<float, LANES>(Tiles::score_at(t, 0, query) + s * LANES * 4);
            if constexpr (S::CHAINS == 2)
                score = score + simd::team_load<float, LANES>(Tiles::score_at(t, 1, query) + s * LANES * 4);
            const simd::mask<LANES> seen = simd::iota<LANES>() + s * LANES <= vec<int, LANES>(reach);
            scores[s] = simd::select<float, LANES>(seen, score, Lanes(LOWEST));
            largest = simd::max<float, LANES>(largest, scores[s]);
        }
        return simd::largest<float, LANES>(largest);
    }

    /// The sum of a query's weights and its largest score after the tiles that were weighed.
    inline void carry(int query, bool first_tile) const {
        Lanes total = first_tile ? Lanes(0.0f) : state(query, Tiles::TOTAL);
        for (int t = 0; t < Tiles::TILES; ++t)
            total = simd::fma<float, LANES>(total, state(query, Tiles::KEEP + t), state(query, Tiles::SUM + t));
        set_state(query, Tiles::TOTAL, total);
        set_state(query, Tiles::LARGEST, state(query, Tiles::NEXT_LARGEST));
    }
};

} // namespace arcmtp
