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
        for (int start = split * S::TILE; start <= last; start += S::SPLITS * S::TILE)
            for (int first = 0; first < ROWS && first < live; first += PASS) {
                const int end = first + PASS < live ? first + PASS : live;
                const int seen = base + end - start, keys = seen < S::TILE ? seen : S::TILE;
                if (keys <= 0)
                    continue;
                this->score(start, first, keys);
                simd::team_barrier<S::TEAM>();
                weigh(start, first, start == split * S::TILE);
                simd::team_barrier<S::TEAM>();
                if (!owns_values())
                    continue;
                this->add_values(start, first, keys, values);
            }
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

    /// 32 dimensions of one row and head, divided by the sum of weights: to the consumers, or to team memory if they
    /// are to be rotated back by finish().
    template <class SINK>
    inline void emit(const SINK &sink, int r, int head, int dim, Lanes low, Lanes high, Lanes weight) const {
        const Lanes a = simd::divide<LANES>(low, weight), b = simd::divide<LANES>(high, weight);
        if constexpr (S::Kv::CODED) {
            const int to = Tiles::OUTPUT + ((r * S::RATIO + head) * S::HEAD_DIM + dim) * 4;
            simd::team_store<float, LANES>(to, a);
            simd::team_store<float, LANES>(to + LANES * 4, b);
        } else
            emit_gated(sink, r, head, dim, a, b);
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

  private:
    /// 32 dimensions of one row and head, times sigmoid(gate), to the consumers.
    template <class SINK>
    inline void emit_gated(const SINK &sink, int r, int head, int dim, Lanes low, Lanes high) const {
        const int row = row_of(r), query_head = kv_head * S::RATIO + head;
        const float *gate = in.query(row, query_head) + S::HEAD_DIM + dim;
        const Lanes a = low * simd::sigmoid<LANES>(simd::load<float, LANES>(gate));
        const Lanes b = high * simd::sigmoid<LANES>(simd::load<float, LANES>(gate + LANES));
        sink.put(row, (query_head * S::HEAD_DIM + dim) / 32, a, b);
    }

    /// Weights e^(score - largest) of the keys that a query sees, 0 for the others, and what the earlier tiles' shrink
    /// to.
    inline void weigh(int start, int first, bool first_tile) const {
        constexpr int SUBTILES = S::TILE / LANES;
        for (int i = rank; i < PASS * S::RATIO; i += S::TEAM) {
            const int query = first * S::RATIO + i, reach = base + first + i / S::RATIO - start;
            if (reach < 0) {
                this->put_no_weights(query);
                continue;
            }
            const Lanes before = first_tile ? Lanes(LOWEST) : state(query, Tiles::LARGEST);
            Lanes scores[SUBTILES], weights[SUBTILES], largest = before, total = 0.0f;
#pragma clang loop unroll(full)
            for (int s = 0; s < SUBTILES; ++s) {
                Lanes score = simd::team_load<float, LANES>(Tiles::score_at(0, query) + s * LANES * 4);
                if constexpr (S::CHAINS == 2)
                    score = score + simd::team_load<float, LANES>(Tiles::score_at(1, query) + s * LANES * 4);
                const simd::mask<LANES> seen = simd::iota<LANES>() + s * LANES <= vec<int, LANES>(reach);
                scores[s] = simd::select<float, LANES>(seen, score, Lanes(LOWEST));
                largest = simd::max<float, LANES>(largest, scores[s]);
            }
            largest = simd::largest<float, LANES>(largest);
#pragma clang loop unroll(full)
            for (int s = 0; s < SUBTILES; ++s) {
                weights[s] = simd::exp<LANES>(scores[s] - largest);
                total += weights[s];
            }
            this->put_weights(query, start, reach, weights);
            const Lanes keep = simd::exp<LANES>(before - largest), sum = simd::sum<LANES>(total);
            set_state(query, Tiles::TOTAL,
                      first_tile ? sum : simd::fma<float, LANES>(state(query, Tiles::TOTAL), keep, sum));
            set_state(query, Tiles::LARGEST, largest);
            set_state(query, Tiles::KEEP, keep);
        }
    }
};

} // namespace arcmtp
