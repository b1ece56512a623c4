// Device weight formats (docs/design.md) and the product of one column tile with rows of activations.
#pragma once

#include "activations.hpp"

namespace arcmtp {

using simd::half;
using simd::LANES;
using Lanes = vec<float, LANES>;

enum class Scheme { group, group_min, super_min, super16 };

template <int BITS_, Scheme SCHEME_, int ZERO_> struct Quantised {
    static constexpr int BITS = BITS_, ZERO = ZERO_;
    static constexpr Scheme SCHEME = SCHEME_;
    static constexpr bool SUPER = SCHEME == Scheme::super_min || SCHEME == Scheme::super16;
    static constexpr int CODE_BYTES = BITS * 64, LOW_BYTES = (BITS == 6 ? 4 : BITS) * 64; // of one group of 32 inputs
    static constexpr int SPAN = SUPER ? 8 : 2; // groups whose planes lie together
    static constexpr int SPAN_BYTES = SPAN * CODE_BYTES + (SCHEME == Scheme::group       ? SPAN * 32
                                                           : SCHEME == Scheme::group_min ? SPAN * 64
                                                           : SCHEME == Scheme::super_min ? SPAN * 32 + 64
                                                                                         : SPAN * 32 + 32);
};
template <class T> struct Plain {
    using Value = T;
};

using W4 = Quantised<4, Scheme::group, 8>;
using W4_MIN = Quantised<4, Scheme::group_min, 0>;
using W4_K = Quantised<4, Scheme::super_min, 0>;
using W6 = Quantised<6, Scheme::group, 16>;
using W6_MIN = Quantised<6, Scheme::group_min, 0>;
using W6_K = Quantised<6, Scheme::super_min, 0>;
using W6_16 = Quantised<6, Scheme::super16, 32>;
using W8 = Quantised<8, Scheme::group, 128>;
using F16 = Plain<half>;
using F32 = Plain<float>;

template <class F> struct is_plain : std::false_type {};
template <class T> struct is_plain<Plain<T>> : std::true_type {};

template <class F, int K> constexpr simd::u64 tile_bytes() {
    if constexpr (is_plain<F>::value)
        return simd::u64(K) * LANES * sizeof(typename F::Value);
    else
        return simd::u64(K / 32 + F::SPAN - 1) / F::SPAN * F::SPAN_BYTES;
}

template <int N> inline vec<float, N> load_half(const u8 *from) {
    return simd::convert<float, typename simd::element<half>::type, N>(
        simd::load<half, N>(reinterpret_cast<const half *>(from)));
}
template <class T> inline Lanes load_small(const u8 *from) {
    return simd::convert<float, int, LANES>(
        simd::convert<int, T, LANES>(simd::load<T, LANES>(reinterpret_cast<const T *>(from))));
}

/// The planes of the span that holds group `g` of a tile, and which of the span's groups it is.
template <class F> struct Planes {
    const u8 *low, *high, *scales;
    int group;

    inline Planes(const u8 *tile, simd::u32 g)
        : low(tile + g / F::SPAN * F::SPAN_BYTES), high(low + F::SPAN * F::LOW_BYTES),
          scales(low + F::SPAN * F::CODE_BYTES), group(int(g % F::SPAN)) {}
};

/// How far ahead a CPU thread asks for weights, in bytes (docs/log.md).
constexpr int STREAM_DISTANCE = 6912;

/// `start` plus integer products of PART (0: all, 1: first half, 2: last half) of one group; six bits are four and two.
template <class F, int PART, int ROWS> struct GroupDots {
    using Ints = vec<int, LANES>[ROWS];
    template <class ROW>
    static inline void run(const u8 *codes, const u8 *, ROW row, int k, int group, const Ints &start, Ints &dots) {
        simd::Weights<F::BITS> weights;
        weights.load_group(codes);
        simd::Activations<ROWS> a;
        a.load_group(
            [&](int r) { return reinterpret_cast<const simd::i8 *>(row(r)) + simd::activation_order<F::BITS>() * k; },
            group);
        const auto sums = simd::dot<PART>(weights, a, start);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            dots[r] = sums[r];
    }
};
template <Scheme S, int ZERO, int PART, int ROWS> struct GroupDots<Quantised<6, S, ZERO>, PART, ROWS> {
    using Ints = vec<int, LANES>[ROWS];
    template <class ROW>
    static inline void run(const u8 *codes, const u8 *high, ROW row, int k, int group, const Ints &start, Ints &dots) {
        Ints upper, zero;
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            zero[r] = 0;
        GroupDots<Quantised<4, S, ZERO>, PART, ROWS>::run(codes, nullptr, row, k, group, start, dots);
        GroupDots<Quantised<2, S, ZERO>, PART, ROWS>::run(high, nullptr, row, k, group, zero, upper);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            dots[r] += upper[r] * 16;
    }
};

/// The product of one tile of a quantised matrix with ROWS rows, over one of SLICES slices of the inputs.
template <class F, int K, int ROWS, int SLICES> struct TileSlice {
    static constexpr int GROUPS = K / 32;
    static constexpr int PER_SLICE = (GROUPS + SLICES - 1) / SLICES;
    static constexpr int PAIR_BYTES = F::SPAN_BYTES / F::SPAN * 2; // of two groups

    template <class ROW> static inline void run(const u8 *tile, ROW row, int slice, Lanes (&acc)[ROWS]) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            acc[r] = 0.0f;
        const int first = SLICES == 1 ? 0 : slice * PER_SLICE; // a constant where it can be one
        const int end = first + PER_SLICE < GROUPS ? first + PER_SLICE : GROUPS;
#pragma unroll 2
        for (int g = first; g < end; ++g) {
            if (g % 2 == 0)
                simd::stream_ahead<PAIR_BYTES>(tile + g / 2 * PAIR_BYTES + STREAM_DISTANCE);
            const Planes<F> planes(tile, simd::u32(g));
            Lanes scale[2], minimum;
            load_scales(planes, scale, minimum);
            if constexpr (F::SCHEME == Scheme::super16) {
                add_group<1>(planes, row, g, scale[0], minimum, acc);
                add_group<2>(planes, row, g, scale[1], minimum, acc);
            } else
                add_group<0>(planes, row, g, scale[0], minimum, acc);
        }
    }

  private:
    template <int PART, class ROW>
    static inline void add_group(const Planes<F> &planes, ROW row, int g, Lanes scale, Lanes minimum,
                                 Lanes (&acc)[ROWS]) {
        using Row = ActivationRow<K>;
        vec<int, LANES> start[ROWS], dots[ROWS];
        int minus_sum[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int *sums = reinterpret_cast<const int *>(row(r) + Row::SUMS) + g;
            minus_sum[r] = PART == 0 ? sums[0] : PART == 1 ? sums[0] - sums[GROUPS] : sums[GROUPS];
            start[r] = vec<int, LANES>(minus_sum[r]) * F::ZERO;
        }
        GroupDots<F, PART, ROWS>::run(planes.low + planes.group * F::LOW_BYTES, planes.high + planes.group * 128, row,
                                      K, g, start, dots);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const float row_scale = reinterpret_cast<const float *>(row(r) + Row::SCALES)[g];
            acc[r] =
                simd::fma<float, LANES>(simd::convert<float, int, LANES>(dots[r]), Lanes(scale * row_scale), acc[r]);
            if constexpr (F::SCHEME == Scheme::group_min || F::SCHEME == Scheme::super_min)
                acc[r] = simd::fma<float, LANES>(minimum, Lanes(row_scale * float(-minus_sum[r])), acc[r]);
        }
    }

    static inline void load_scales(const Planes<F> &planes, Lanes (&scale)[2], Lanes &minimum) {
        const int group = planes.group;
        if constexpr (F::SCHEME == Scheme::group || F::SCHEME == Scheme::group_min) {
            scale[0] = load_half<LANES>(planes.scales + group * 32);
            if constexpr (F::SCHEME == Scheme::group_min)
                minimum = load_half<LANES>(planes.scales + (F::SPAN + group) * 32);
        } else if constexpr (F::SCHEME == Scheme::super_min) {
            const u8 *super = planes.scales + F::SPAN * 32;
            scale[0] = load_half<LANES>(super) * load_small<u8>(planes.scales + group * 16);
            minimum = load_half<LANES>(super + 32) * load_small<u8>(planes.scales + (F::SPAN + group) * 16) * -1.0f;
        } else {
            const Lanes super = load_half<LANES>(planes.scales + F::SPAN * 32);
            scale[0] = super * load_small<simd::i8>(planes.scales + group * 32);
            scale[1] = super * load_small<simd::i8>(planes.scales + group * 32 + 16);
        }
    }
};

/// F16 and F32 weights: float activations, row(r)(k) gives 16 of them from input k.
template <class T, int K, int ROWS, int SLICES> struct TileSlice<Plain<T>, K, ROWS, SLICES> {
    static constexpr int VECTOR = 16, VECTORS = K / VECTOR, PER_SLICE = (VECTORS + SLICES - 1) / SLICES;

    template <class ROW> static inline void run(const u8 *tile, ROW row, int slice, Lanes (&acc)[ROWS]) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            acc[r] = 0.0f;
        const T *weights = reinterpret_cast<const T *>(tile);
        const int end = (slice + 1) * PER_SLICE < VECTORS ? (slice + 1) * PER_SLICE : VECTORS;
        for (int v = slice * PER_SLICE; v < end; ++v) {
            simd::stream_ahead<VECTOR * LANES * sizeof(T)>(tile + v * VECTOR * LANES * sizeof(T) + STREAM_DISTANCE);
            vec<float, VECTOR> x[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                x[r] = row(r)(v * VECTOR);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                const Lanes w = simd::convert<float, typename simd::element<T>::type, LANES>(
                    simd::load<T, LANES>(weights + (v * VECTOR + i) * LANES));
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
                    acc[r] = simd::fma<float, LANES>(w, Lanes(simd::lane<float, VECTOR>(x[r], i)), acc[r]);
            }
        }
    }
};

/// Add the slices' parts in slice order. Each of ITEMS items of WIDTH vectors is finished by one thread, which calls
/// emit(item, parts); `acc` is [ITEMS][WIDTH]. Team memory: SLICES * ITEMS * WIDTH * 64 bytes.
template <int SLICES, int ITEMS, int WIDTH, class EMIT>
inline void reduce_slices(Lanes (&acc)[ITEMS * WIDTH], EMIT emit) {
    if constexpr (SLICES == 1) {
#pragma unroll
        for (int item = 0; item < ITEMS; ++item) {
            Lanes parts[WIDTH];
#pragma unroll
            for (int w = 0; w < WIDTH; ++w)
                parts[w] = acc[item * WIDTH + w];
            emit(item, parts);
        }
    } else {
        const int rank = simd::team_rank();
        auto place = [](int slice, int index) { return (slice * ITEMS * WIDTH + index) * LANES * 4; };
#pragma unroll
        for (int i = 0; i < ITEMS * WIDTH; ++i)
            simd::team_store<float, LANES>(place(rank, i), acc[i]);
        simd::team_barrier<SLICES>();
        for (int item = rank; item < ITEMS; item += SLICES) {
            Lanes parts[WIDTH];
#pragma unroll
            for (int w = 0; w < WIDTH; ++w) {
                parts[w] = simd::team_load<float, LANES>(place(0, item * WIDTH + w));
                for (int slice = 1; slice < SLICES; ++slice)
                    parts[w] += simd::team_load<float, LANES>(place(slice, item * WIDTH + w));
            }
            emit(item, parts);
        }
        simd::team_barrier<SLICES>();
    }
}

} // namespace arcmtp
