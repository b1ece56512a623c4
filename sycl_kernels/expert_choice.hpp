// Which experts a row uses: those of its largest logits, by one thread or by a team, and SOFTMAX over them.
#pragma once

#include "norm.hpp"

namespace arcmtp {

constexpr int NO_KEY = -0x7fffffff - 1; // below the key of any logit

/// Integers in the order of logits, NaN among them: even NaN rows choose experts that exist.
template <int N> inline vec<int, N> keys_of(vec<float, N> logits) {
    const vec<int, N> bits = simd::bitcast<int, float, N>(logits), keys = bits ^ (bits >> 31 & 0x7fffffff);
    return simd::max<int, N>(keys, vec<int, N>(NO_KEY + 1));
}

/// Some experts' keys, their places in a row in steps of 32.
template <int EXPERTS> struct ExpertKeys {
    static constexpr int WIDE = 32, VECTORS = (EXPERTS + WIDE - 1) / WIDE, COUNT = VECTORS * WIDE;
    using Ints = vec<int, WIDE>;

    static inline Ints places(int v) { return simd::iota<WIDE>() + v * WIDE; }
    /// Vector v, whose logits begin at `from`.
    static inline Ints load(const float *from, int v) {
        const Ints keys = keys_of<WIDE>(simd::load<float, WIDE>(from));
        if constexpr (EXPERTS % WIDE == 0)
            return keys;
        else
            return simd::select<int, WIDE>(places(v) < Ints(EXPERTS), keys, Ints(NO_KEY));
    }
};

/// The first COUNT lanes.
template <int COUNT, int OFFSET = 0, class T> inline void store_first(T *to, vec<T, LANES> values) {
    constexpr int PIECE = COUNT - OFFSET >= 16 ? 16 : COUNT - OFFSET >= 8 ? 8 : COUNT - OFFSET >= 4 ? 4 : 1;
    simd::store<T, PIECE>(to + OFFSET, simd::part<PIECE, OFFSET, T, LANES>(values));
    if constexpr (OFFSET + PIECE < COUNT)
        store_first<COUNT, OFFSET + PIECE>(to, values);
}

/// The USED experts with these keys, largest first, and the softmax of their logits.
template <int USED>
inline void put_choice(vec<int, LANES> experts, vec<int, LANES> keys, int *selected, float *weights) {
    store_first<USED>(selected, experts);
    const Lanes logits = simd::bitcast<float, int, LANES>(vec<int, LANES>(keys ^ (keys >> 31 & 0x7fffffff)));
    const Lanes powers = simd::exp<LANES>(Lanes(logits - simd::lane<float, LANES>(logits, 0)));
    const Lanes used = simd::select<float, LANES>(simd::iota<LANES>() < USED, powers, Lanes(0.0f));
    store_first<USED>(weights, simd::divide<LANES>(used, Lanes(simd::sum<LANES>(used))));
}

/// The USED largest of EXPERTS logits (ties: lowest index), largest first, and their softmax, by one thread. Each lane
/// sorts its own experts, so that the next largest is one of the first of all lanes.
template <int EXPERTS, int USED> inline void choose_experts(const float *logits, int *selected, float *weights) {
    static_assert(USED <= LANES);
    using Keys = ExpertKeys<EXPERTS>;
    using Ints = typename Keys::Ints;
    constexpr int WIDE = Keys::WIDE, DEPTH = Keys::VECTORS < USED ? Keys::VECTORS : USED;
    Ints sorted[DEPTH], places[DEPTH];
#pragma unroll
    for (int v = 0; v < Keys::VECTORS; ++v) {
        const Ints keys = Keys::load(logits + v * WIDE, v), here = Keys::places(v);
#pragma unroll
        for (int d = DEPTH - 1; d >= 0; --d) {
            if (d > v)
                continue;
            Ints key = keys, place = here;
            if (d < v) {
                place = simd::select<int, WIDE>(keys > sorted[d], here, places[d]);
                key = simd::max<int, WIDE>(sorted[d], keys);
            }
            if (d > 0) {
                place = simd::select<int, WIDE>(keys > sorted[d - 1], places[d - 1], place);
                key = simd::min<int, WIDE>(sorted[d - 1], key);
            }
            sorted[d] = key;
            places[d] = place;
        }
    }
    vec<int, LANES> experts = 0, chosen = 0;
    for (int slot = 0; slot < USED; ++slot) {
        const int key = simd::largest<int, WIDE>(sorted[0]);
        const int expert =
            simd::smallest<int, WIDE>(simd::select<int, WIDE>(sorted[0] == Ints(key), places[0], Ints(Keys::COUNT)));
        const simd::mask<WIDE> taken = places[0] == Ints(expert);
#pragma unroll
        for (int d = 0; d + 1 < DEPTH; ++d) {
            sorted[d] = simd::select<int, WIDE>(taken, sorted[d + 1], sorted[d]);
            places[d] = simd::select<int, WIDE>(taken, places[d + 1], places[d]);
        }
        if constexpr (DEPTH < USED)
            sorted[DEPTH - 1] = simd::select<int, WIDE>(taken, Ints(NO_KEY), sorted[DEPTH - 1]);
        const simd::mask<LANES> here = simd::iota<LANES>() == vec<int, LANES>(slot);
        experts = simd::select<int, LANES>(here, vec<int, LANES>(expert), experts);
        chosen = simd::select<int, LANES>(here, vec<int, LANES>(key), chosen);
    }
    put_choice<USED>(experts, chosen, selected, weights);
}

/// How many bits of each word are 1.
template <int N> inline vec<int, N> count_bits(vec<simd::u32, N> words) {
    words = words - (words >> 1u & 0x55555555u);
    words = (words & 0x33333333u) + (words >> 2u & 0x33333333u);
    words = (words + (words >> 4u)) & 0x0f0f0f0fu;
    return simd::convert<int, simd::u32, N>(vec<simd::u32, N>(words * 0x01010101u >> 24u));
}

/// The ranks of OWN keys, which lie from place `first` on, among keys: so many are larger, or equal and lie before.
template <int OWN, int VECTORS>
inline vec<int, OWN> ranks_of(vec<int, OWN> own, int first, const vec<int, 32> (&keys)[VECTORS]) {
    using Words = vec<simd::u32, OWN>;
    vec<int, OWN> ranks = 0;
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        Words larger, equal; // a bit for each key
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const vec<int, 32> key = simd::lane<int, OWN>(own, i);
            larger[i] = simd::bits<32>(keys[v] > key);
            equal[i] = simd::bits<32>(keys[v] == key);
        }
        const vec<int, OWN> before = simd::iota<OWN>() + (first - v * 32);
        const Words some = (Words(1u) << simd::convert<simd::u32, int, OWN>(vec<int, OWN>(before & 31))) - 1u;
        const Words all = simd::select<simd::u32, OWN>(before < vec<int, OWN>(32), some, Words(~0u));
        const Words lower = simd::select<simd::u32, OWN>(before > vec<int, OWN>(0), all, Words(0u));
        ranks += count_bits<OWN>(larger | (equal & lower));
    }
    return ranks;
}

/// The same as choose_experts by a TEAM, for ROWS rows: threads rank the experts of each 32 among these, and then the
/// best of all among these, without rounds one behind the other. Team memory: ROWS * BYTES from byte 0.
template <int EXPERTS, int USED, int TEAM, int ROWS> struct TeamChoice {
    using Keys = ExpertKeys<EXPERTS>;
    using Ints = typename Keys::Ints;
    static constexpr int WIDE = Keys::WIDE, OWN = 8, BEST = USED <= 8 ? 8 : 16; // of 32 that may be chosen
    static constexpr int FEW = Keys::VECTORS * BEST, FEW_VECTORS = (FEW + WIDE - 1) / WIDE;
    static constexpr int THREADS = TEAM / ROWS; // of a row's best
    static constexpr int SHARE = team_places((FEW + THREADS - 1) / THREADS);
    static constexpr int EXPERT = FEW_VECTORS * WIDE * 4, CHOSEN = 2 * EXPERT, BYTES = CHOSEN + 2 * LANES * 4;

    /// A thread's part of all rows, before a barrier.
    static inline void rank_all(const float *logits, int stride) {
        for (int first = simd::team_rank() * OWN; first < Keys::COUNT; first += TEAM * OWN) {
            const int block = first / WIDE;
            const vec<int, OWN> places = simd::iota<OWN>() + first;
            Ints keys[ROWS][1]; // of all rows before one is waited for
            vec<int, OWN> own[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                keys[r][0] = Keys::load(logits + r * stride + block * WIDE, block);
                const vec<int, OWN> known = keys_of<OWN>(simd::load<float, OWN>(logits + r * stride + first));
                own[r] = simd::select<int, OWN>(places < vec<int, OWN>(EXPERTS), known, vec<int, OWN>(NO_KEY));
            }
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const int at = r * BYTES + block * BEST * 4;
                const vec<int, OWN> ranks = ranks_of<OWN, 1>(own[r], first % WIDE, keys[r]);
                put<OWN>(at, at + EXPERT, ranks, BEST, own[r], places);
            }
        }
    }
    /// The same of those that are left, of one row.
    static inline void rank_best() {
        const int at = simd::team_rank() / THREADS * BYTES, first = simd::team_rank() % THREADS * SHARE;
        if (simd::team_rank() >= ROWS * THREADS || first >= FEW)
            return;
        Ints keys[FEW_VECTORS];
#pragma unroll
        for (int v = 0; v < FEW_VECTORS; ++v) {
            keys[v] = simd::team_load<int, WIDE>(at + v * WIDE * 4);
            if constexpr (FEW % WIDE)
                keys[v] = simd::select<int, WIDE>(Keys::places(v) < Ints(FEW), keys[v], Ints(NO_KEY));
        }
        const vec<int, SHARE> own = simd::team_load<int, SHARE>(at + first * 4);
        const vec<int, SHARE> experts = simd::team_load<int, SHARE>(at + EXPERT + first * 4);
        const vec<int, SHARE> ranks = ranks_of<SHARE, FEW_VECTORS>(own, first, keys);
        put<SHARE>(at + CHOSEN, at + CHOSEN + LANES * 4, ranks, LANES, own, experts);
    }
    /// Row `row` by one thread, after a barrier.
    static inline void choose(int row, int *selected, float *weights) {
        const int at = row * BYTES + CHOSEN;
        put_choice<USED>(simd::team_load<int, LANES>(at + LANES * 4), simd::team_load<int, LANES>(at), selected,
                         weights);
    }

  private:
    template <int N>
    static inline void put(int keys_at, int experts_at, vec<int, N> ranks, int end, vec<int, N> keys,
                           vec<int, N> experts) {
        const simd::mask<N> kept = ranks < vec<int, N>(end);
        simd::team_scatter<int, N>(vec<int, N>(ranks * 4 + keys_at), keys, kept);
        simd::team_scatter<int, N>(vec<int, N>(ranks * 4 + experts_at), experts, kept);
    }
};

} // namespace arcmtp
